"""The events that an application has not had yet: messages from the store, everything else from memory."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, Callable

from chappe.client.errors import ChappeClientError
from chappe.client.people import InStore
from chappe.client.store import LocalStore, StoredMessage
from chappe.client.views import Event, Message

CAPACITY = 10_000
"""So many events wait in memory; messages beyond them wait in the store, everything else is dropped."""

_PAGE = 200


class Feed:
    """Gives out every message once, those first that came while nobody was listening.

    A message counts as had once the application asks for the next event: who is killed while showing one sees it again.
    """

    def __init__(self, store: LocalStore, in_store: InStore, view: Callable[[StoredMessage], Message]) -> None:
        self._store = store
        self._in_store = in_store
        self._view = view
        self._events: deque[Event] = deque()
        self._stored: deque[Message] = deque()
        self._replayed: set[bytes] = set()
        self._is_behind = True
        """Messages are in the store that are not in memory."""
        self._changed = asyncio.Event()
        self._end: ChappeClientError | None = None
        self._is_ended = False

    def put(self, event: Event) -> None:
        """Adds an event."""
        if len(self._events) < CAPACITY:
            self._events.append(event)
        elif isinstance(event, Message):
            self._is_behind = True
        self._changed.set()

    def end(self, error: ChappeClientError | None) -> None:
        """Says that no more will come, and why."""
        self._end = error
        self._is_ended = True
        self._changed.set()

    async def events(self) -> AsyncGenerator[Event]:
        """Yields events for as long as the client lives; for one reader at a time.

        Raises:
            SessionEndedError: An edge does not want this device any more.
            StoreError: The local store failed.
        """
        while True:
            event = await self._next()
            if event is None:
                return
            try:
                yield event
            finally:
                if isinstance(event, Message):
                    await self._in_store(self._store.mark_seen, [event.message_id])

    async def _next(self) -> Event | None:
        while True:
            if self._stored:
                return self._stored.popleft()
            if self._is_behind:
                await self._catch_up()
                continue
            event = self._pop()
            if event is not None:
                return event
            if self._is_ended:
                if self._end is not None:
                    raise self._end
                return None
            self._changed.clear()
            await self._changed.wait()

    def _pop(self) -> Event | None:
        while self._events:
            event = self._events.popleft()
            if not isinstance(event, Message) or event.message_id not in self._replayed:
                return event
        return None

    async def _catch_up(self) -> None:
        # What was dropped while this reads is read again; what is in both places is passed over in memory.
        self._is_behind = False
        stored: list[StoredMessage] = await self._in_store(self._store.unseen, _PAGE)
        self._stored.extend(map(self._view, stored))
        held = {event.message_id for event in self._events if isinstance(event, Message)}
        self._replayed = (self._replayed & held) | {message.message_id for message in stored}
        if len(stored) == _PAGE:
            self._is_behind = True
