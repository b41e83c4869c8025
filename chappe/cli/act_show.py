"""What is done to messages, and how that looks when others do it."""

from collections.abc import Awaitable, Callable

from chappe.cli.finding import find_message, is_mine, is_others, is_there
from chappe.cli.keep_show import words_of
from chappe.cli.terminal import Terminal
from chappe.cli.times import moment
from chappe.cli.waiting import ending_in_outbox
from chappe.cli.written import shortened, written
from chappe.client import ChatChanged, Client, Deleted, Edited, Expired, Message, Reacted
from chappe.client.destination import Destination

Texts = Callable[[bytes, bytes], Awaitable[str]]
"""Returns the text of a message of a conversation, as far as it is known."""


async def edit_message(
    terminal: Terminal, me: Client, chat: str, start: str | None, text: str, *, timeout_s: float
) -> None:
    """Edits an own message, and says so; ends the command when no server has answered in time, like all of these."""
    message = await find_message(me, chat, start, is_mine, "message of yours")
    with ending_in_outbox(terminal, timeout_s, to=chat, id=message.id, text=text):
        edited = await me.edit(message, text, timeout_s=timeout_s)
    terminal.show(f"edited: {shortened(text)}", event="edited", id=message.id, text=text, edited_ms=edited.edited_ms)


async def delete_message(
    terminal: Terminal, me: Client, chat: str, start: str | None, *, is_for_me: bool, timeout_s: float
) -> None:
    """Deletes a message, and says so: the newest own one, or whichever is named."""
    which, what = (is_there, "message") if start else (is_mine, "message of yours")
    message = await find_message(me, chat, start, which, what)
    with ending_in_outbox(terminal, timeout_s, to=chat, id=message.id, is_for_me=is_for_me):
        if is_for_me:
            await me.delete_for_me(message, timeout_s=timeout_s)
        else:
            await me.delete_for_everyone(message, timeout_s=timeout_s)
    whom = "your devices" if is_for_me else "everybody"
    terminal.show(f"deleted for {whom}: {shortened(message.text)}", event="deleted", id=message.id, is_for_me=is_for_me)


async def react_to_message(
    terminal: Terminal, me: Client, chat: str, start: str | None, emoji: str, *, timeout_s: float
) -> None:
    """Reacts to a message, and says so: to the newest of others, or to whichever is named."""
    message = await find_message(me, chat, start, is_there if start else is_others, "message")
    with ending_in_outbox(terminal, timeout_s, to=chat, id=message.id, emoji=emoji):
        await me.react(message, emoji, timeout_s=timeout_s)
    what = shortened(emoji) or "no reaction"
    terminal.show(f"{what} to: {shortened(message.text)}", event="reacted", id=message.id, emoji=emoji)


async def reply_to_message(
    terminal: Terminal, me: Client, chat: str, start: str | None, text: str, *, timeout_s: float
) -> None:
    """Answers a message, and says so: the newest of others, or whichever is named."""
    message = await find_message(me, chat, start, is_there if start else is_others, "message")
    with ending_in_outbox(terminal, timeout_s, to=chat, reply_to=message.id, text=text):
        sent = await me.reply(message, text, timeout_s=timeout_s)
    terminal.show(
        f"✓ to: {shortened(message.text)}",
        event="sent",
        id=sent.id,
        reply_to=message.id,
        accepted_ms=sent.accepted_ms,
    )


class ActScreen:
    """Shows what happens to messages and chats."""

    def __init__(self, terminal: Terminal, me: Client, text_of: Texts) -> None:
        """Prepares.

        Args:
            terminal: Where to show it.
            me: Whose events they are.
            text_of: Knows what messages say.
        """
        self._terminal = terminal
        self._me = me
        self._text_of = text_of

    async def edited(self, event: Edited) -> None:
        """Shows that a message has another text."""
        who = await self._name(event.by_user_id)
        self._terminal.show(
            f"{moment(event.edited_ms)}  {who} edited: {written(event.text)}",
            event="edited",
            id=event.message_id.hex(),
            chat=event.conversation_id.hex(),
            by=event.by_user_id.hex(),
            by_name=who,
            text=event.text,
            edited_ms=event.edited_ms,
        )

    async def deleted(self, event: Deleted) -> None:
        """Shows that a message was taken back, or hidden on another device."""
        who = await self._name(event.by_user_id)
        where = " from your devices" if event.is_for_me else ""
        self._terminal.show(
            f"{moment(event.deleted_ms)}  {who} deleted a message{where}",
            event="deleted",
            id=event.message_id.hex(),
            chat=event.conversation_id.hex(),
            by=event.by_user_id.hex(),
            by_name=who,
            is_for_me=event.is_for_me,
            deleted_ms=event.deleted_ms,
        )

    async def reacted(self, event: Reacted) -> None:
        """Shows that somebody reacted, or took a reaction back."""
        who, text = await self._name(event.by_user_id), await self._text_of(event.message_id, event.conversation_id)
        self._terminal.show(
            f"{moment(event.reacted_ms)}  {who} {shortened(event.emoji) or 'took the reaction back'} to: {text}",
            event="reacted",
            id=event.message_id.hex(),
            chat=event.conversation_id.hex(),
            by=event.by_user_id.hex(),
            by_name=who,
            emoji=event.emoji,
            reacted_ms=event.reacted_ms,
        )

    def expired(self, event: Expired) -> None:
        """Shows that a message has disappeared."""
        self._terminal.show(
            "a message has disappeared",
            event="expired",
            id=event.message_id.hex(),
            chat=event.conversation_id.hex(),
        )

    async def changed(self, event: ChatChanged) -> None:
        """Shows how a chat is kept now."""
        if event.peer_id or event.group_id:
            name = await self._me.title(Destination(event.conversation_id, event.peer_id))
        else:
            name = "a chat"
        words, fields = words_of(event.settings)
        self._terminal.show(f"{name}: {words}", event="settings", chat=event.conversation_id.hex(), **fields)

    async def _name(self, user_id: bytes) -> str:
        return "you" if user_id == self._me.user_id else await self._me.people.name_of(user_id)


def tail_of(message: Message) -> str:
    """Returns what is behind the text of a message: that it was edited, when it disappears, and who reacted."""
    edited = "  (edited)" if message.edited_ms and not message.revoked_ms else ""
    if message.expires_ms:
        edited += f"  (disappears {moment(message.expires_ms)})"
    emojis = "".join(shortened(reaction.emoji) for reaction in message.reactions)
    return edited + (f"  {emojis}" if emojis else "")
