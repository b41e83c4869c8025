"""Tells inboxes of changes: the account's own devices, those who keep it as a contact, and the members of groups."""

import logging
from collections.abc import AsyncIterator, Iterator, Sequence

from chappe.runtime.clock import Seams
from chappe.runtime.errors import ChappeError
from svc_identity.errors import CursorExpiredError
from svc_identity.model import NO_USER, Change, ChangeKind, ChangePage, Cursor, UserId
from svc_identity.model.group import GroupId
from svc_identity.ports import ChangeLog, Inbox, InboxEvent, Lead
from svc_identity.protocol.cursor import change_id
from svc_identity.service.feed import ChangeFeed

MOST_EVENTS = 512
"""In one call to svc_message."""
MOST_RECIPIENTS = 1_000
"""Of one event; whoever is kept by more gets several events."""
MOST_RECIPIENTS_OF_CALL = 8_000
"""Of all events of one call, which keeps it far below the size that gRPC takes."""
LEAD_RETRY_S = 1.0
FIRST_BACKOFF_S = 0.1
LAST_BACKOFF_S = 5.0
PRUNE_INTERVAL_S = 3600.0

_OWN_KINDS = frozenset(
    {ChangeKind.PROFILE, ChangeKind.CONTACTS, ChangeKind.BLOCKS, ChangeKind.DEVICES, ChangeKind.SETTINGS}
)
_BEGINNING_XID = 1

_log = logging.getLogger(__name__)


class InboxWorker:
    """Follows the log in the one process that leads, and moves the mark only behind what is durable."""

    def __init__(self, feed: ChangeFeed, inbox: Inbox, seams: Seams, keep_s: float) -> None:
        """Prepares; nothing is read before `run`.

        Args:
            feed: The log of changes.
            inbox: Reaches inboxes.
            seams: Clock and randomness.
            keep_s: How long changes are kept, seconds.
        """
        self._feed = feed
        self._log: ChangeLog = feed.log
        self._inbox = inbox
        self._clock, self._randomness = seams
        self._keep_s = keep_s
        self._prune_at_s = 0.0
        self.told = 0
        """How many events inboxes were told of."""
        self.moves = 0
        """How often the mark was moved."""

    async def run(self) -> None:
        """Works for ever, whenever it leads."""
        while True:
            try:
                async with self._log.lead() as lead:
                    if lead is not None:
                        await self._tell(lead)
            except ChappeError as error:
                _log.warning("inboxes are not told of changes at the moment: %s", error)
            await self._clock.sleep(LEAD_RETRY_S)

    async def _tell(self, lead: Lead) -> None:
        try:
            await self._follow(lead, await self._start(lead))
        except CursorExpiredError:
            tail = await self._feed.tail()
            _log.exception("inboxes were not told of changes that are gone; going on from now")
            await lead.move(tail.cursor)

    async def _start(self, lead: Lead) -> Cursor:
        mark = await lead.mark()
        if mark is not None:
            return mark
        tail = await self._feed.tail()
        return Cursor(tail.cursor.epoch, _BEGINNING_XID, _BEGINNING_XID)

    async def _follow(self, lead: Lead, start: Cursor) -> None:
        has_news = False
        async for page in self._feed.follow(start).pages():
            has_news = has_news or bool(page.changes)
            for call in calls([event async for event in self._events(page)]):
                await self._append(call)
            # Also proves, now and then, that the lead is still ours.
            is_prune_due = self._clock.monotonic_s() >= self._prune_at_s
            if page.is_last and (has_news or is_prune_due):
                await lead.move(page.cursor)
                self.moves += 1
                has_news = False
            if is_prune_due:
                self._prune_at_s = self._clock.monotonic_s() + PRUNE_INTERVAL_S
                await lead.prune(self._clock.wall_ms() - int(self._keep_s * 1000))

    async def _events(self, page: ChangePage) -> AsyncIterator[InboxEvent]:
        # By number, so that changes of one group come in the order of its versions: they are numbered under its lock.
        for change in sorted(page.changes, key=lambda change: change.number):
            if change.kind is ChangeKind.GROUP:
                for event in await self._group_events(page.cursor.epoch, change):
                    yield event
            if change.kind not in _OWN_KINDS or change.user_id == NO_USER:
                continue
            yield _event(page.cursor.epoch, change, (change.user_id,), is_for_others=False)
            if change.kind is ChangeKind.PROFILE:
                watchers = await self._log.watchers(change.user_id)
                for start in range(0, len(watchers), MOST_RECIPIENTS):
                    recipients = tuple(watchers[start : start + MOST_RECIPIENTS])
                    yield _event(page.cursor.epoch, change, recipients, is_for_others=True)

    async def _group_events(self, epoch: int, change: Change) -> list[InboxEvent]:
        news = await self._log.group_news(GroupId(change.user_id), change.version)
        if news is None:
            return []
        name = change_id(epoch, change, is_for_others=True)
        return [
            InboxEvent(
                change_id=name,
                kind=change.kind,
                about=NO_USER,
                version=change.version,
                recipients=news.recipients[start : start + MOST_RECIPIENTS],
                is_for_others=True,
                group=news.change,
            )
            for start in range(0, len(news.recipients), MOST_RECIPIENTS)
        ]

    async def _append(self, events: Sequence[InboxEvent]) -> None:
        """Appends for ever until it has succeeded: nothing behind it may overtake it."""
        backoff_s = FIRST_BACKOFF_S
        while True:
            try:
                await self._inbox.append(events)
            except ChappeError as error:
                _log.warning("%d events wait for svc_message: %s", len(events), error)
                await self._clock.sleep(self._randomness.uniform(backoff_s / 2, backoff_s))
                backoff_s = min(LAST_BACKOFF_S, backoff_s * 2)
            else:
                self.told += len(events)
                return


def calls(events: Sequence[InboxEvent]) -> Iterator[list[InboxEvent]]:
    """Yields events in portions that one call may carry."""
    call: list[InboxEvent] = []
    recipients = 0
    for event in events:
        recipients += len(event.recipients)
        if call and (len(call) == MOST_EVENTS or recipients > MOST_RECIPIENTS_OF_CALL):
            yield call
            call, recipients = [], len(event.recipients)
        call.append(event)
    if call:
        yield call


def _event(epoch: int, change: Change, recipients: tuple[UserId, ...], *, is_for_others: bool) -> InboxEvent:
    name = change_id(epoch, change, is_for_others=is_for_others)
    return InboxEvent(name, change.kind, change.user_id, change.version, recipients, is_for_others)
