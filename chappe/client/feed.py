"""The events that an application has not had yet: from the store what a chat shows, everything else from memory."""

import asyncio
import heapq
from collections import deque
from collections.abc import AsyncGenerator, Callable, Iterable

from chappe.client.changes import SendRefused
from chappe.client.errors import ChappeClientError
from chappe.client.group_views import GroupChanged
from chappe.client.people import InStore
from chappe.client.showing import from_refused
from chappe.client.store import LocalStore, StoredMessage
from chappe.client.views import Event, Message, SendFailed

CAPACITY = 10_000
"""So many events wait in memory; beyond them what the store keeps waits there, everything else is dropped."""

_PAGE = 200

Entry = Message | GroupChanged
"""What a chat shows and the store keeps: a message, or the notice of what happened to a group."""
Kept = Entry | SendFailed
"""What the store keeps until the application has had it."""


class Feed:
    """Gives out every message, notice of a group and refusal once, those first that came while nobody was listening.

    One counts as had once the application asks for the next event, or leaves the loop: who is killed or cancelled while
    showing one, as by a timeout, sees it again.
    """

    def __init__(self, store: LocalStore, in_store: InStore, view: Callable[[StoredMessage], Message]) -> None:
        self._store = store
        self._in_store = in_store
        self._view = view
        self._events: deque[Event] = deque()
        self._stored: deque[Event] = deque()
        """What comes first: from the store, and what was not shown to its end."""
        self._replayed: set[tuple[bytes, int]] = set()
        self._is_behind = True
        """Something is in the store that is not in memory."""
        self._changed = asyncio.Event()
        self._end: ChappeClientError | None = None
        self._is_ended = False

    def put(self, event: Event) -> None:
        """Adds an event."""
        if len(self._events) < CAPACITY:
            self._events.append(event)
        elif isinstance(event, Kept):
            self._is_behind = True
        self._changed.set()

    def look_again(self) -> None:
        """Says that something may have been stored of which no event came."""
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
            is_cancelled = _cancellation()
            try:
                yield event
            except GeneratorExit:
                if is_cancelled():
                    # It was not shown to its end.
                    self._stored.appendleft(event)
                else:
                    await self._mark_seen(event)
                raise
            await self._mark_seen(event)

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
            if not isinstance(event, Kept) or _key(event) not in self._replayed:
                return event
        return None

    async def _catch_up(self) -> None:
        # What was dropped while this reads is read again; what is in both places is passed over in memory.
        self._is_behind = False
        try:
            refused, stored, notices = await self._in_store(self._unseen)
        except BaseException:
            # Whoever gives up waiting, as by a timeout, has had nothing of it.
            self._is_behind = True
            raise
        entries: list[Kept] = [*map(from_refused, refused), *in_order(map(self._view, stored), notices)]
        self._stored.extend(entries[:_PAGE])
        held = {_key(event) for event in self._events if isinstance(event, Kept)}
        self._replayed = (self._replayed & held) | {_key(entry) for entry in entries[:_PAGE]}
        if len(entries) >= _PAGE:
            self._is_behind = True

    def _unseen(self) -> tuple[list[SendRefused], list[StoredMessage], list[GroupChanged]]:
        # In one go, so that nothing is stored between them; what another process stores comes as an event, too.
        notices = self._store.groups.unseen(_PAGE)
        return self._store.refusals.unseen(_PAGE), self._store.unseen(_PAGE), notices

    async def _mark_seen(self, event: Event) -> None:
        # It was shown: whoever gives up waiting meanwhile does not take that back.
        if isinstance(event, Message):
            await asyncio.shield(self._in_store(self._store.mark_seen, [event.message_id]))
        elif isinstance(event, GroupChanged):
            await asyncio.shield(self._in_store(self._store.groups.mark_seen, event.group_id, event.version))
        elif isinstance(event, SendFailed):
            await asyncio.shield(self._in_store(self._store.refusals.mark_seen, event.draft))


def in_order(messages: Iterable[Message], notices: Iterable[GroupChanged]) -> list[Entry]:
    """Returns messages and notices by time, each kind in its own order: a notice before what was said after it."""
    said: Iterable[Entry] = messages
    happened: Iterable[Entry] = notices
    return list(heapq.merge(said, happened, key=moment_ms))


def moment_ms(entry: Entry) -> int:
    """Returns when something happened, by the clock of the servers."""
    return entry.accepted_ms if isinstance(entry, Message) else entry.changed_ms


def _cancellation() -> Callable[[], bool]:
    """Returns what tells whether the task that has just asked for an event was cancelled since."""
    task = asyncio.current_task()
    before = 0 if task is None else task.cancelling()
    return lambda: task is not None and (task.cancelled() or task.cancelling() > before)


def _key(kept: Kept) -> tuple[bytes, int]:
    if isinstance(kept, SendFailed):
        return b"", kept.draft
    return (kept.message_id, 0) if isinstance(kept, Message) else (kept.group_id, kept.version)
