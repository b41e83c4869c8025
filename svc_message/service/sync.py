"""Reads inbox logs on, under the horizon rule: a cursor never passes what could still be overtaken."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chappe.runtime.errors import UnavailableError
from svc_message.model import (
    NO_POSITION,
    Departure,
    ForeignEvent,
    InboxAnswer,
    InboxPage,
    InboxQuery,
    InboxRead,
    MessageEvent,
    OwnReadEvent,
    Position,
)
from svc_message.model.action import EditEvent, ReactionEvent, RevokeEvent
from svc_message.model.group import left_version_of
from svc_message.protocol import EPOCH_REWIND_MS, RESYNC_AGE_MS, LedgerClock, milliseconds_of, position_at
from svc_message.service.accept import MAX_WRITES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from svc_message.model import Event, ForeignAppend
    from svc_message.ports import Dispatcher, MessageStore
    from svc_message.service.sight import Sight

DEFAULT_LIMIT = 100
MAX_EVENTS = 8192
"""How many events one call reads at most, however many logs it asks for: what does not fit follows on the next page."""


class Syncing:
    """Answers what is new in inboxes and appends what other services have to say."""

    def __init__(
        self,
        store: MessageStore,
        sight: Sight,
        dispatcher: Dispatcher,
        clock: LedgerClock,
        sound: Callable[[Iterable[Event]], list[Event]] = list,
    ) -> None:
        """Prepares; `start` learns the epoch.

        Args:
            store: The book.
            sight: Who was a member of groups, and when.
            dispatcher: Takes hints.
            clock: Gives bounds and positions.
            sound: Leaves out what was spoilt in the store, so that no client could read it.
        """
        self._sound = sound
        self._store = store
        self._sight = sight
        self._dispatcher = dispatcher
        self._clock = clock
        self._epoch = 0

    async def start(self) -> None:
        """Learns the epoch of the ledger."""
        self._epoch = await self._store.epoch()

    async def sync(self, queries: Sequence[InboxQuery]) -> list[InboxAnswer]:
        """Answers every query, in order.

        The bound is taken before the first read of a pass and stays for the whole of it, so nothing that was not yet
        readable then can be passed by the cursor. Raises `ClockUntrustedError` and `UnavailableError`.
        """
        bound = self._clock.bound()
        starts = [self._start(query) for query in queries]
        share = max(MAX_EVENTS // max(len(queries), 1), 1)
        pages = await self._read(
            [
                _read_of(query, Position(start), min(query.limit or DEFAULT_LIMIT, share))
                for query, (start, _) in zip(queries, starts, strict=True)
            ]
        )
        answers: list[InboxAnswer] = []
        for query, (_, is_resync), page in zip(queries, starts, pages, strict=True):
            filled = await self._fill(query, page)
            began = Position(min(_bound_of_pass(query) or bound, bound))
            answers.append(self._answer(query, filled, began, is_resync=is_resync))
        return answers

    async def _read(self, reads: list[InboxRead]) -> list[InboxPage]:
        """Reads pages; those with something that was said of a group after their reader had left it once more."""
        pages = await self._store.read_inbox(reads)
        altered = {n: page.altered_groups for n, page in enumerate(pages) if page.altered_groups}
        while altered:
            pairs = {n: [(group_id, reads[n].user_id) for group_id in groups] for n, groups in altered.items()}
            windows = await self._sight.windows({pair for found in pairs.values() for pair in found})
            left = {pair: version for pair, times in windows.items() if (version := left_version_of(times))}
            again = {
                n: reads[n]._replace(departures=tuple(Departure(pair[0], left[pair]) for pair in found if pair in left))
                for n, found in pairs.items()
                if not left.keys().isdisjoint(found)
            }
            read = await self._store.read_inbox(list(again.values())) if again else []
            # What came in between may be of yet another group.
            altered = {
                n: altered[n] | page.altered_groups
                for n, page in zip(again, read, strict=True)
                if not page.altered_groups <= altered[n]
            }
            for n, page in zip(again, read, strict=True):
                pages[n] = page
        return pages

    def _start(self, query: InboxQuery) -> tuple[bytes, bool]:
        """Returns where to read on from, and whether the cursor could not be resumed from."""
        if query.after:
            return query.after, False
        if query.is_garbled:
            return NO_POSITION, True
        if not query.cursor:
            return NO_POSITION, False
        if not self._may_resume(query):
            return NO_POSITION, True
        if query.epoch != self._epoch:
            return position_at(milliseconds_of(query.cursor) - EPOCH_REWIND_MS), False
        return query.cursor, False

    def _may_resume(self, query: InboxQuery) -> bool:
        """Tells whether the log still reaches back to a cursor, and the cursor is not of a time to come."""
        return 0 <= self._clock.wall_ms() - milliseconds_of(query.cursor) <= RESYNC_AGE_MS

    async def _fill(self, query: InboxQuery, page: InboxPage) -> InboxPage:
        """Reads on while nothing of a page is for the device, so that a page with more is never empty."""
        events = self._sound(_unknown(query, page.events))
        while page.has_more and not events:
            (page,) = await self._read([_read_of(query, page.end, query.limit or DEFAULT_LIMIT)])
            events = self._sound(_unknown(query, page.events))
        return InboxPage(events, page.has_more, page.end)

    def _answer(self, query: InboxQuery, page: InboxPage, bound: Position, *, is_resync: bool) -> InboxAnswer:
        reached = min(bound, page.events[-1].position) if page.has_more else bound
        is_kept = bool(query.cursor) and query.epoch == self._epoch and self._may_resume(query)
        cursor = Position(max(reached, query.cursor)) if is_kept else reached
        return InboxAnswer(page.events, page.has_more, self._epoch, cursor, bound, is_resync)

    async def append(self, batch: Sequence[ForeignAppend]) -> None:
        """Appends events of other services durably and hands over hints; raises when the outcome is unknown."""
        for _ in range(MAX_WRITES):
            stamps = self._clock.mint_many(len(batch))
            fresh = [append._replace(position=stamp.position) for append, stamp in zip(batch, stamps, strict=True)]
            await self._store.append_events(fresh)
            for append in fresh:
                event = ForeignEvent(append.position, append.change_id, append.item)
                self._dispatcher.dispatch(event, append.user_ids, 0, wants_receipt=False)
            if self._clock.is_fresh(stamps[0]):
                return
        raise UnavailableError("ledger", "events took longer than their positions may be old; append again")


def _bound_of_pass(query: InboxQuery) -> bytes:
    """Returns the bound of a pass that goes on, empty at its start; without one nothing is known, and nothing moves."""
    if query.after and not query.pass_bound:
        return query.cursor or NO_POSITION
    return query.pass_bound


def _read_of(query: InboxQuery, after: Position, limit: int) -> InboxRead:
    return InboxRead(query.user_id, after, limit, known_ids=query.known_ids)


def _unknown(query: InboxQuery, events: list[Event]) -> list[Event]:
    """Leaves out what the reading device did itself, and the messages that it has."""
    return [event for event in events if not _is_known(query, event)]


def _is_known(query: InboxQuery, event: Event) -> bool:
    if isinstance(event, MessageEvent):
        is_own = event.sender_id == query.user_id and event.sender_device_id == query.device_id
        return is_own or event.message_id in query.known_ids
    if isinstance(event, EditEvent | RevokeEvent | ReactionEvent):
        return event.user_id == query.user_id and event.device_id == query.device_id
    return isinstance(event, OwnReadEvent) and event.origin_device_id == query.device_id
