"""What the user can type beside messages: a slash and a word."""

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Final

from chappe.cli.chat.conductor import NO_CHAT, Conductor
from chappe.cli.chat.state import State
from chappe.client import ChappeClientError, Client, Message, Reacted, Tick

_UNKNOWN: Final = "there is no {}; /help lists what there is. To send it as it is, put a blank before it"


class CommandError(Exception):
    """What was typed cannot be done; the text says why."""


class Commands:
    """Does what is typed after a slash."""

    def __init__(self, me: Client, conductor: Conductor, leave: Callable[[], None]) -> None:
        """Prepares.

        Args:
            me: Whose chats they are.
            conductor: Opens chats and knows names.
            leave: Ends the chat.
        """
        self._me = me
        self._conductor = conductor
        self._leave = leave
        self._commands: dict[str, Callable[[str], Awaitable[None]]] = {
            "/to": self._to,
            "/info": self._info,
            "/edit": self._edit,
            "/delete": self._delete,
            "/reply": self._reply,
            "/react": self._react,
            "/help": self._help,
            "/quit": self._quit,
        }

    @property
    def _state(self) -> State:
        return self._conductor.state

    def why_not(self, line: str) -> str:
        """Returns why a line cannot be done at all; empty when it can."""
        word = line.partition(" ")[0]
        return "" if word in self._commands else _UNKNOWN.format(word)

    async def run(self, line: str) -> None:
        """Does what a line says; what goes wrong becomes the line at the bottom."""
        word, _, rest = line.partition(" ")
        try:
            await self._commands[word](rest.strip())
        except (CommandError, ChappeClientError) as error:
            self._state.message = str(error)

    async def _to(self, name: str) -> None:
        if not name:
            raise CommandError("/to needs a name: a contact, a phone number, or a group")
        where = await self._me.destination(name)
        row = self._state.row(where.conversation_id, where.peer_id)
        row.title = row.title or await self._me.title(where)
        if where.peer_id:
            await self._me.presence.watch(where.peer_id)
        await self._conductor.open(where.conversation_id)

    async def _info(self, _rest: str) -> None:
        message = self._newest(is_mine=True)
        receipts = await self._me.receipts(message)
        await self._conductor.learn(receipt.user_id for receipt in receipts)
        read = [self._state.name(one.user_id) for one in receipts if one.tick is Tick.READ]
        have = [self._state.name(one.user_id) for one in receipts if one.tick is Tick.DELIVERED]
        said = [f"read by {', '.join(read)}" if read else "", f"delivered to {', '.join(have)}" if have else ""]
        self._state.message = "; ".join(part for part in said if part) or "on the server; nobody has it yet"

    async def _edit(self, text: str) -> None:
        if not text:
            raise CommandError("/edit needs the new text")
        message = self._newest(is_mine=True)
        edited = await self._me.edit(message, text)
        self._state.alter(message.conversation_id, message.message_id, lambda _: edited)

    async def _delete(self, _rest: str) -> None:
        message = self._newest(is_mine=True)
        await self._me.delete_for_everyone(message)
        self._state.alter(
            message.conversation_id,
            message.message_id,
            lambda one: replace(one, text="", revoked_ms=message.sent_ms, reactions=()),
        )

    async def _reply(self, text: str) -> None:
        if not text:
            raise CommandError("/reply needs what to answer")
        self._state.apply(await self._me.reply(self._newest(is_mine=False), text))

    async def _react(self, emoji: str) -> None:
        message = self._newest(is_mine=False)
        await self._me.react(message, emoji)
        self._state.apply(
            Reacted(
                message_id=message.message_id,
                conversation_id=message.conversation_id,
                by_user_id=self._me.user_id,
                emoji=emoji,
                reacted_ms=message.sent_ms,
            )
        )

    async def _help(self, _rest: str) -> None:
        self._state.is_helping = True

    async def _quit(self, _rest: str) -> None:
        self._leave()

    def _newest(self, *, is_mine: bool) -> Message:
        row = self._state.open_row
        if row is None:
            raise CommandError(NO_CHAT)
        for entry in reversed(row.entries):
            if isinstance(entry, Message) and entry.is_mine is is_mine and not entry.revoked_ms:
                return entry
        raise CommandError(f"there is no message of {'yours' if is_mine else 'somebody else'} here")
