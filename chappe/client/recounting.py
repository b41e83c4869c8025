"""Asks how far own messages to groups have come, when the log has said only that something has.

What is to be asked is in the store until its answer is there, too: a question that failed is asked again, also by the
next process of the profile.
"""

from collections.abc import Iterator, Sequence

from chappe.api.edge.v1 import item_pb2
from chappe.api.message.v1 import receipt_service_pb2
from chappe.client.engine import Engine
from chappe.client.errors import ChappeClientError, StoreError
from chappe.client.mint import time_ms_of
from chappe.client.people import Calling, InStore
from chappe.client.receipts import Receipts
from chappe.client.seams import Clock
from chappe.client.store import GroupBook
from chappe.client.views import Counts

RECOUNTED = 256
"""So many messages of a group are asked about at once, the newest first; older ones while the answers are news."""
QUIET_PAGES = 4
"""After so many answers without news they are believed to end: what was read later may have been pushed meanwhile."""
RESTS = 4.0
"""After every answer it rests so many times as long as that took: while a ledger is slow, everybody asks it less."""

_MOST_IDS = 40


class Recounting:
    """Asks for what the store says is to be asked."""

    def __init__(self, book: GroupBook, in_store: InStore, calling: Calling, engine: Engine, clock: Clock) -> None:
        """Prepares.

        Args:
            book: Knows what is to be asked, and of which messages.
            in_store: Runs its functions.
            calling: Asks.
            engine: Stores what is answered, like counts that were pushed.
            clock: By which it rests.
        """
        self._book = book
        self._in_store = in_store
        self._receipts = Receipts(calling)
        self._engine = engine
        self._clock = clock
        self._rests_until_s = 0.0

    async def work(self) -> None:
        """Asks for every group, and raises the last of the errors, if any, once all were asked."""
        failure: ChappeClientError | None = None
        for group_id, number in await self._in_store(self._book.to_ask):
            try:
                await self._ask(group_id, number)
            except StoreError:
                raise
            except ChappeClientError as error:
                failure = error
        if failure is not None:
            raise failure

    async def _ask(self, group_id: bytes, number: int) -> None:
        before, quiet_pages = b"", 0
        while True:
            page: list[tuple[bytes, int, int]]
            page = await self._in_store(self._book.uncertain, group_id, before, RECOUNTED)
            found = await self._count(group_id, [message_id for message_id, _, _ in page])
            news = [
                (message_id, counts)
                for (message_id, delivered, read), counts in zip(page, found, strict=False)
                if counts is not None and (counts.delivered > delivered or counts.read > read)
            ]
            self._engine.core.outbox.batch.items += [_event(group_id, part) for part in _parts(news)]
            self._engine.wake()
            quiet_pages = 0 if news else quiet_pages + 1
            if quiet_pages == QUIET_PAGES or len(page) < RECOUNTED:
                break
            before = page[-1][0]
        self._engine.core.outbox.batch.asked.append((group_id, number))
        self._engine.wake()

    async def _count(self, group_id: bytes, message_ids: Sequence[bytes]) -> list[Counts | None]:
        clock = self._clock
        await clock.sleep(max(self._rests_until_s - clock.monotonic_s(), 0.0))
        start_s = clock.monotonic_s()
        try:
            return await self._receipts.counts(
                receipt_service_pb2.ReceiptQuery(group_id=group_id, message_id=message_id) for message_id in message_ids
            )
        finally:
            end_s = clock.monotonic_s()
            self._rests_until_s = end_s + RESTS * (end_s - start_s)


def _event(group_id: bytes, news: Sequence[tuple[bytes, Counts]]) -> item_pb2.Item:
    receipt = item_pb2.GroupReceiptEvent(
        group_id=group_id,
        message_ids=[message_id for message_id, _ in news],
        delivered_counts=[counts.delivered for _, counts in news],
        read_counts=[counts.read for _, counts in news],
        recipient_counts=[counts.recipients for _, counts in news],
        recorded_ms=time_ms_of(max(message_id for message_id, _ in news)),
    )
    return item_pb2.Item(group_receipt=receipt)


def _parts(news: Sequence[tuple[bytes, Counts]]) -> Iterator[Sequence[tuple[bytes, Counts]]]:
    for start in range(0, len(news), _MOST_IDS):
        yield news[start : start + _MOST_IDS]
