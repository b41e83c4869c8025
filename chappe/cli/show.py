"""How messages, ticks and people look on a terminal, and as JSON."""

from collections.abc import Callable, Iterable
from dataclasses import asdict
from typing import Any, Final

import click

from chappe.cli.act_show import ActScreen, tail_of
from chappe.cli.sentences import people_of, sentence
from chappe.cli.terminal import Terminal
from chappe.cli.times import moment
from chappe.cli.written import shortened, written
from chappe.client import (
    ChatChanged,
    Client,
    Deleted,
    Edited,
    Event,
    Expired,
    GroupChanged,
    GroupTickChanged,
    Message,
    Offline,
    Online,
    Reacted,
    SendFailed,
    Tick,
    TickChanged,
    TypingChanged,
)
from chappe.client.destination import Destination, to_group

_MOST_TEXTS = 1000
"""So many texts are remembered; others are read again when they are needed."""
_DONE: Final = {"message": "sent", "edit": "edited", "revoke": "deleted", "reaction": "reacted"}


def tick_sign(tick: Tick) -> str:
    """Returns ✓, ✓✓, or for read messages a blue ✓✓ with the word."""
    return click.style(tick.sign, fg="blue", bold=True) if tick is Tick.READ else tick.sign


class Screen:
    """Shows what happens to one person."""

    def __init__(self, terminal: Terminal, me: Client) -> None:
        """Prepares.

        Args:
            terminal: Where to show it.
            me: Whose events they are; knows how people are called.
        """
        self._terminal = terminal
        self._me = me
        self._texts: dict[bytes, str] = {}
        acts = ActScreen(terminal, me, self._text)
        self._handlers: dict[type[Any], Callable[[Any], Any]] = {
            Message: self.message,
            TickChanged: self.tick,
            GroupTickChanged: self.group_tick,
            GroupChanged: self.group,
            SendFailed: self.failed,
            TypingChanged: self.typing,
            Edited: acts.edited,
            Deleted: acts.deleted,
            Reacted: acts.reacted,
            Expired: acts.expired,
            ChatChanged: acts.changed,
            Online: lambda event: terminal.note(f"connected to {event.edge}"),
            Offline: lambda event: terminal.note(f"disconnected from {event.edge}, coming back"),
        }

    async def event(self, event: Event) -> None:
        """Shows an event; of what people need not see, nothing."""
        if isinstance(event, Edited | Deleted):
            self._texts.pop(event.message_id, None)
        handler = self._handlers.get(type(event))
        shown = None if handler is None else handler(event)
        if shown is not None:
            await shown

    async def message(self, message: Message) -> None:
        """Shows a message, one's own with its tick."""
        self._remember([message])
        chat = await self._me.title(message)
        sender = "me" if message.is_mine else await self._me.people.name_of(message.sender_id)
        place = {"group": message.group_id.hex(), "group_name": chat, "sender_name": sender}
        if not message.group_id:
            place = {"peer": message.peer_id.hex(), "peer_name": chat}
        who = f"me → {chat}" if message.is_mine else f"{chat} · {sender}" if message.group_id else sender
        quote = ""
        if message.reply_to and not message.revoked_ms:
            quote = f"[to: {await self._quoted(message)}] "
        counts = {} if message.counts is None else asdict(message.counts)
        self._terminal.show(
            f"{moment(message.sent_ms)}  {who}: {quote}{said(message)}{tail_of(message)}{_sign(message)}",
            event="message",
            id=message.id,
            chat=message.conversation_id.hex(),
            sender=message.sender_id.hex(),
            is_mine=message.is_mine,
            text=message.text,
            sent_ms=message.sent_ms,
            accepted_ms=message.accepted_ms,
            tick=message.tick.name.lower(),
            edited_ms=message.edited_ms or None,
            deleted_ms=message.revoked_ms or None,
            expires_ms=message.expires_ms or None,
            reply_to=message.reply_to.hex() or None,
            forwarded=message.forward_count,
            reactions=[{"by": one.user_id.hex(), "emoji": one.emoji} for one in message.reactions],
            **place,
            **counts,
        )

    async def tick(self, change: TickChanged) -> None:
        """Shows that a message came further."""
        peer = await self._me.people.name_of(change.by_user_id)
        text = await self._text(change.message_id, change.conversation_id)
        self._terminal.show(
            f"{moment(change.recorded_ms)}  {tick_sign(change.tick)}  {peer}: {text}",
            event="tick",
            id=change.message_id.hex(),
            chat=change.conversation_id.hex(),
            by=change.by_user_id.hex(),
            by_name=peer,
            tick=change.tick.name.lower(),
            recorded_ms=change.recorded_ms,
        )

    async def group_tick(self, change: GroupTickChanged) -> None:
        """Shows that a message to a group came further."""
        name = await self._me.title(to_group(change.group_id))
        text = await self._text(change.message_id, change.group_id)
        self._terminal.show(
            f"{moment(change.recorded_ms)}  {tick_sign(change.counts.tick)}  {name}: {text}  ({change.counts})",
            event="group_tick",
            id=change.message_id.hex(),
            group=change.group_id.hex(),
            group_name=name,
            tick=change.counts.tick.name.lower(),
            recorded_ms=change.recorded_ms,
            **asdict(change.counts),
        )

    async def group(self, change: GroupChanged) -> None:
        """Shows what happened to a group."""
        names = await self._me.people.names_of(people_of(change)) | {self._me.user_id: "you"}
        self._terminal.show(
            f"{moment(change.changed_ms)}  {change.name}: {sentence(change, names)}",
            event="group_changed",
            group=change.group_id.hex(),
            group_name=change.name,
            what=change.what.name.lower(),
            by=change.by_user_id.hex(),
            by_name=names[change.by_user_id],
            users=[user_id.hex() for user_id in change.user_ids],
            members=change.member_count,
            version=change.version,
            changed_ms=change.changed_ms,
        )

    async def typing(self, change: TypingChanged) -> None:
        """Shows who is typing; to people not that nobody is any more, for a message or silence says it."""
        known = await self._me.people.names_of([typist.user_id for typist in change.typists])
        names = [known[typist.user_id] for typist in change.typists]
        if not names and not self._terminal.is_json:
            return
        place = "" if change.peer_id else f"{await self._me.title(to_group(change.conversation_id))}: "
        are = "is" if len(names) == 1 else "are"
        doing = "recording" if all(typist.is_recording for typist in change.typists) else "typing"
        self._terminal.show(
            f"{place}{' and '.join(names)} {are} {doing}…",
            event="typing",
            chat=change.conversation_id.hex(),
            peer=change.peer_id.hex() or None,
            typists=[typist.user_id.hex() for typist in change.typists],
            names=names,
        )

    async def failed(self, event: SendFailed) -> None:
        """Shows that the server does not take what waited in the outbox."""
        chat = await self._me.title(Destination(event.conversation_id, event.peer_id))
        text = f": {shortened(event.text)}" if event.text else ""
        self._terminal.show(
            f"not {_DONE[event.kind]} in the chat with {chat}{text}  ({event.reason}: {event.detail})",
            event="failed",
            what=event.kind,
            chat=event.conversation_id.hex(),
            chat_name=chat,
            text=event.text,
            reason=event.reason,
            detail=event.detail,
        )

    async def _quoted(self, message: Message) -> str:
        """Returns what a message answers, as far as it is known here."""
        text = await self._text(message.reply_to, message.conversation_id)
        return "a message" if text == message.reply_to.hex() else text

    async def _text(self, message_id: bytes, conversation_id: bytes) -> str:
        if message_id not in self._texts:
            stored = await self._me.stored_history(Destination(conversation_id), limit=200)
            self._remember(stored)
        return self._texts.get(message_id, message_id.hex())

    def _remember(self, messages: Iterable[Message]) -> None:
        self._texts |= {message.message_id: shortened(message.text) for message in messages}
        for message_id in list(self._texts)[:-_MOST_TEXTS]:
            del self._texts[message_id]


def said(message: Message) -> str:
    """Returns what a message says, or that it was deleted."""
    return "(deleted)" if message.revoked_ms else written(message.text)


def _sign(message: Message) -> str:
    """Returns the tick behind a message, in a group with how many."""
    if not message.is_mine or not message.tick:
        return ""
    return f"  {tick_sign(message.tick)}" + (f" ({message.counts})" if message.counts is not None else "")
