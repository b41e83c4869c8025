"""Moves the chat: takes what the client tells, and does what the keys ask for."""

from collections.abc import Callable, Iterable
from contextlib import aclosing, suppress
from typing import Final

from chappe.cli.chat.hands import Reading, Typing
from chappe.cli.chat.state import Row, State
from chappe.cli.sentences import people_of
from chappe.client import (
    ChappeClientError,
    Client,
    Event,
    GroupChanged,
    Message,
    NotConnectedError,
    RefusedError,
    TypingChanged,
)
from chappe.client.destination import Destination
from chappe.client.tasks import Tasks

NO_CHAT: Final = "no chat is open yet; /to NAME opens one"
_PAGE: Final = 50
_CHATS: Final = 200
_WATCHED: Final = 200


class Conductor:
    """One person at one chat."""

    def __init__(self, me: Client, state: State, redraw: Callable[[], None], tasks: Tasks) -> None:
        """Prepares.

        Args:
            me: Whose chats they are.
            state: What is shown.
            redraw: Called when the state has changed.
            tasks: Owns what goes on in the background.
        """
        self.state = state
        self.opened: Callable[[Row | None, Row], None] = lambda _before, _row: None
        """Called in the moment in which another chat is shown, with the one before."""
        self._me = me
        self._redraw = redraw
        self._tasks = tasks
        self._typing = Typing(me, tasks)
        self._reading = Reading(me, tasks)
        self._loading: set[bytes] = set()

    async def start(self) -> None:
        """Reads the list of chats."""
        chats = await self._me.chats(limit=_CHATS)
        titles = {chat.conversation_id: await self._me.title(chat) for chat in chats}
        await self.learn(chat.last_message.sender_id for chat in chats if chat.last_message is not None)
        self.state.list_chats(chats, titles)
        with suppress(RefusedError, NotConnectedError):
            for group in await self._me.groups.list():
                self.state.row(group.group_id, b"").title = group.name
            await self._me.presence.watch(*[chat.peer_id for chat in chats if chat.peer_id][:_WATCHED])
        self._redraw()

    async def follow(self) -> None:
        """Takes events for as long as there are any."""
        async with aclosing(self._me.events()) as events:
            async for event in events:
                await self._prepare(event)
                self.state.apply(event)
                if isinstance(event, Message):
                    self._reading.soon(self.state)
                self._redraw()

    async def open(self, conversation_id: bytes) -> None:
        """Shows a chat."""
        state = self.state
        before, row = state.open_row, state.rows[conversation_id]
        state.open_id, state.scroll, state.message, state.is_helping = conversation_id, 0, "", False
        if row is not before:
            self._typing.stop()
            self.opened(before, row)
        self._redraw()
        with suppress(RefusedError, NotConnectedError):
            await self._me.presence.look_at(where_of(row))
            if row.is_group and not row.members:
                members = await self._me.groups.members(row.conversation_id)
                row.members = tuple(member.user_id for member in members)
                await self.learn(row.members)
        if row.older == "":
            await self.older()
        self._reading.soon(self.state)
        self._redraw()

    async def step(self, by: int) -> None:
        """Shows the chat above or below."""
        chats = self.state.chats
        if chats:
            before = 0 if by < 0 else -1
            at = next((n for n, row in enumerate(chats) if row.conversation_id == self.state.open_id), before)
            await self.open(chats[(at + by) % len(chats)].conversation_id)

    async def jump(self, number: int) -> None:
        """Shows the nth chat of the list, counted from one."""
        chats = self.state.chats
        if number <= len(chats):
            await self.open(chats[number - 1].conversation_id)

    async def older(self) -> None:
        """Reads a page of what was said before."""
        row = self.state.open_row
        if row is None or row.older is None or row.conversation_id in self._loading:
            return
        self._loading.add(row.conversation_id)
        try:
            page = await self._me.history(where_of(row), limit=_PAGE, page=row.older)
            await self.learn(message.sender_id for message in page.messages)
            if row.is_group:
                # What is older than the page belongs to the pages before it.
                since_ms = page.messages[-1].accepted_ms if page.messages and page.next_page else 0
                changes = await self._me.notices(where_of(row), since_ms=since_ms)
                await self.learn(user_id for change in changes for user_id in people_of(change))
                self.state.add_notices(row, changes)
            self.state.add_page(row, page.messages, page.next_page)
        except (RefusedError, NotConnectedError) as error:
            self.state.message = str(error)
        finally:
            self._loading.discard(row.conversation_id)
        self._redraw()

    def seen(self) -> None:
        """Takes note that the newest messages are on the screen."""
        self._reading.soon(self.state)

    async def say(self, row: Row, text: str) -> bool:
        """Sends a message into a chat and shows it once it is durable; returns whether it was sent."""
        self._typing.stop()
        self.state.scroll = 0
        try:
            self.state.apply(await self._me.send(where_of(row), text))
        except ChappeClientError as error:
            self.state.message = f"not sent: {error}"
            return False
        finally:
            self._redraw()
        return True

    def typed(self) -> None:
        """Lets the others see that the user is typing, for some seconds from now."""
        if self.state.open_row is not None:
            self._typing.go_on(where_of(self.state.open_row))

    async def learn(self, user_ids: Iterable[bytes]) -> None:
        """Finds out how people are called."""
        unknown = {user_id for user_id in user_ids if user_id and user_id not in self.state.names}
        if unknown:
            with suppress(RefusedError, NotConnectedError):
                self.state.names |= await self._me.people.names_of(sorted(unknown))

    async def _prepare(self, event: Event) -> None:
        """Finds out what the state needs to know before it takes an event."""
        match event:
            case Message():
                await self.learn([event.sender_id])
            case TypingChanged():
                await self.learn(typist.user_id for typist in event.typists)
            case GroupChanged():
                await self.learn(people_of(event))
            case _:
                return
        conversation_id = event.group_id if isinstance(event, GroupChanged) else event.conversation_id
        row = self.state.rows.get(conversation_id)
        if row is None or not row.title:
            peer_id = b"" if isinstance(event, GroupChanged) else event.peer_id
            row = self.state.row(conversation_id, peer_id)
            with suppress(RefusedError, NotConnectedError):
                row.title = await self._me.title(where_of(row))


def where_of(row: Row) -> Destination:
    """Returns a chat as the client names it."""
    return Destination(row.conversation_id, row.peer_id)
