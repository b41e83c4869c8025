"""What `send`, `listen` and `history` do once there is a session."""

import asyncio
from contextlib import aclosing, suppress
from typing import Final

import click

from chappe.cli.show import Screen, tick_sign
from chappe.cli.terminal import Terminal
from chappe.cli.waiting import ending_in_outbox
from chappe.client import (
    Chat,
    Client,
    Event,
    Group,
    GroupChanged,
    GroupTickChanged,
    Message,
    NotConnectedError,
    RefusedError,
    Tick,
    TickChanged,
)
from chappe.client.feed import in_order
from chappe.client.tasks import Tasks

_GATHER_S: Final = 0.1
_TELL_S: Final = 2.0
_PAGE: Final = 200
_MOST_CHATS: Final = 32


async def send_once(
    terminal: Terminal, me: Client, chat: str, text: str, *, expiry_s: int | None, timeout_s: float
) -> Message:
    """Sends a message and shows its tick.

    Raises:
        Exit: No server has answered in time, and it waits in the outbox.
    """
    with ending_in_outbox(terminal, timeout_s, to=chat, text=text):
        sent = await me.send(chat, text, expiry_s=expiry_s, timeout_s=timeout_s)
    terminal.show(
        tick_sign(Tick.SENT),
        event="sent",
        id=sent.id,
        chat=sent.conversation_id.hex(),
        **({"group": sent.group_id.hex()} if sent.group_id else {"peer": sent.peer_id.hex()}),
        sent_ms=sent.sent_ms,
        accepted_ms=sent.accepted_ms,
        tick=Tick.SENT.name.lower(),
        **({"expires_ms": sent.expires_ms} if sent.expires_ms else {}),
    )
    return sent


async def wait_for(terminal: Terminal, me: Client, sent: Message, until: str, timeout_s: float) -> None:
    """Waits until a message has come further, and shows what comes meanwhile.

    Raises:
        ClickException: It did not in time.
    """
    if sent.peer_id == me.user_id:
        terminal.note("it is for yourself: there is nobody else who gets or reads it")
        return
    try:
        async with asyncio.timeout(timeout_s):
            await _until(Screen(terminal, me), me, sent, Tick[until.upper()])
    except TimeoutError:
        raise click.ClickException(
            f"not {until} within {timeout_s:g} s. The message is durable; either {_absent(sent)} is offline and will "
            "get it later, or has blocked you. `chappe history` shows its tick"
        ) from None


async def listen_on(
    terminal: Terminal, me: Client, *, is_reading: bool, count: int | None, timeout_s: float | None
) -> None:
    """Shows what comes, until there was enough of it or the time is over."""
    screen = Screen(terminal, me)
    tasks = Tasks()
    chats = Chats(me)
    tasks.spawn(chats.open(), name="look at chats")
    reader = Reader(me, tasks) if is_reading else None
    left = count
    try:
        async with asyncio.timeout(timeout_s), aclosing(me.events()) as events:
            async for event in events:
                await screen.event(event)
                if not isinstance(event, Message) or event.is_mine:
                    continue
                await chats.saw(event)
                if reader is not None:
                    reader.saw(event)
                left = None if left is None else left - 1
                if left == 0:
                    break
    except TimeoutError:
        pass
    finally:
        if reader is not None:
            await reader.tell()
        await tasks.aclose()


async def newest(me: Client, chat: str, limit: int) -> list[Message | GroupChanged]:
    """Returns the newest messages of a chat and what happened to a group between them, the oldest first."""
    found: list[Message] = []
    page = await me.history(chat, limit=min(limit, _PAGE))
    found += page.messages
    while page.next_page and len(found) < limit:
        page = await me.history(chat, limit=min(limit - len(found), _PAGE), page=page.next_page)
        found += page.messages
    # What is older than the messages that are shown belongs to those that are not.
    since_ms = found[-1].accepted_ms if found and page.next_page else 0
    return in_order(found[::-1], await me.notices(chat, since_ms=since_ms))


async def newest_or_stored(terminal: Terminal, me: Client, chat: str, limit: int) -> list[Message | GroupChanged]:
    """Returns the newest of a chat like `newest`, without a server what the profile holds, and says so then.

    Raises:
        NotConnectedError: The profile holds nothing of it.
    """
    try:
        return await newest(me, chat, limit)
    except NotConnectedError as error:
        stored = await me.stored_history(chat, limit=limit)
        if not stored:
            raise
        terminal.say_offline(error)
        since_ms = stored[-1].accepted_ms if len(stored) == limit else 0
        return in_order(stored[::-1], await me.notices(chat, since_ms=since_ms))


class Chats:
    """Looks at the newest chats, so that it shows who is typing there."""

    def __init__(self, me: Client) -> None:
        """Prepares.

        Args:
            me: Who looks.
        """
        self._me = me
        self._open: dict[bytes, Chat | Group | Message] = {}

    async def open(self) -> None:
        """Looks at the newest chats and at the groups, as far as they go; without an answer at none."""
        with suppress(RefusedError, NotConnectedError):
            found: dict[bytes, Chat | Group | Message] = {
                chat.conversation_id: chat for chat in await self._me.chats(limit=_MOST_CHATS)
            }
            found |= {group.group_id: group for group in await self._me.groups.list()}
            # What was heard of meanwhile is the newest.
            self._open = dict([*list(found.items())[: _MOST_CHATS - len(self._open)], *self._open.items()])
            await self._me.presence.look_at(*self._open.values())

    async def saw(self, message: Message) -> None:
        """Looks at the chat of a message, too, in the place of the one that was looked at for longest."""
        if message.conversation_id in self._open:
            return
        if len(self._open) >= _MOST_CHATS:
            del self._open[next(iter(self._open))]
        self._open[message.conversation_id] = message
        await self._me.presence.look_at(*self._open.values())


class Reader:
    """Tells senders what was read, once for a burst of messages of one chat."""

    def __init__(self, me: Client, tasks: Tasks) -> None:
        """Prepares.

        Args:
            me: Who has read.
            tasks: Owns the telling.
        """
        self._me = me
        self._tasks = tasks
        self._read: dict[bytes, Message] = {}
        self._is_telling = False

    def saw(self, message: Message) -> None:
        """Takes note of a message that was shown."""
        known = self._read.get(message.conversation_id)
        if known is None or message.message_id > known.message_id:
            self._read[message.conversation_id] = message
        if not self._is_telling:
            self._is_telling = True
            self._tasks.spawn(self._tell_soon(), name="tell what was read")

    async def tell(self) -> None:
        """Tells what was not told yet."""
        while self._read:
            _, message = self._read.popitem()
            # Whoever was removed from a group has nothing to tell it. Without a server the outbox keeps what is told.
            with suppress(RefusedError, NotConnectedError):
                await self._me.mark_read(message, timeout_s=_TELL_S)

    async def _tell_soon(self) -> None:
        await asyncio.sleep(_GATHER_S)
        self._is_telling = False
        await self.tell()


async def _until(screen: Screen, me: Client, sent: Message, tick: Tick) -> None:
    async with aclosing(me.events()) as events:
        async for event in events:
            await screen.event(event)
            if reached(event, sent) >= tick:
                return


def reached(event: Event, message: Message) -> Tick:
    """Returns how far an event says that a message has come; in a group all of its recipients count."""
    if not isinstance(event, TickChanged | GroupTickChanged) or event.message_id != message.message_id:
        return Tick.NONE
    return event.tick if isinstance(event, TickChanged) else event.counts.tick


def _absent(message: Message) -> str:
    return "somebody in the group" if message.group_id else "its recipient"
