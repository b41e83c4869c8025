"""The one batching class: of every stream between processes, and of group commit.

Items are appended to a list. A flusher wakes on the first, yields to the event loop twice so that everything that is
ready in this turn gets in, swaps the list and hands it on; while that flush is in flight the next batch gathers
(measured: two yields give 1.6 to 2 times the throughput of flushing on wake, without latency).

A paced batcher begins a flush some time after the one before it, unless many items wait by then. Who comes alone
waits for nobody; a stream of items goes in fewer and larger batches, of which each costs several processes some hundred
microseconds (ADR 11).
"""

from __future__ import annotations

import asyncio
import logging
import time
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from chappe.runtime.metrics import FlushTimings
    from chappe.runtime.tasks import Tasks

T = TypeVar("T")

MAX_BATCH_ITEMS = 512
MAX_BATCH_BYTES = 256 * 1024
LATE_S = 0.05
"""How long an item that nobody waits for may stay behind."""

_log = logging.getLogger(__name__)


class Pace(NamedTuple):
    """How batches follow each other."""

    interval_s: float
    """From the beginning of a flush to that of the next, at least."""
    enough: int
    """So many items are worth a flush at any time."""


AT_ONCE = Pace(0.0, 0)
STEADY = Pace(0.003, 64)
"""For what somebody waits for."""
LEISURELY = Pace(0.05, MAX_BATCH_ITEMS)
"""For what comes from a thousand devices at once and nobody waits for."""


class Batcher(Generic[T]):
    """Gathers items and flushes them in batches, in order.

    `add` costs an append and, for the first item of a batch, a wake-up. With `parallel` above 1 several flushes are in
    flight at once and their order among each other is not kept.
    """

    def __init__(
        self,
        flush: Callable[[list[T]], Awaitable[None]],
        tasks: Tasks,
        *,
        name: str,
        limit: Callable[[], int] | None = None,
        weigh: Callable[[T], int] | None = None,
        parallel: int = 1,
    ) -> None:
        """Starts the flushers.

        Args:
            flush: Takes a batch; it handles its own failures. One that escapes is a bug: it is logged,
                and `on_failure` takes the batch.
            tasks: Owns the flushers.
            name: For the names of the tasks.
            limit: How many items may be flushed now, for flow control; call `wake` when it rises.
            weigh: The bytes of an item, when batches are to stay under 256 KiB.
            parallel: How many flushes may be in flight.
        """
        self._flush = flush
        self._limit = limit
        self._weigh = weigh
        self._items: list[T] = []
        self._wake = asyncio.Event()
        self._settled = asyncio.Event()
        self._settled.set()
        self._in_flight = 0
        self.on_failure: Callable[[list[T]], None] | None = None
        """Takes the batch of a flush that failed by a bug; without it the batch is gone."""
        self.pace = AT_ONCE
        """How small batches follow each other."""
        self.flushed_batches = 0
        self.flushed_items = 0
        self.timings: FlushTimings | None = None
        """Counts the sizes and durations of batches, where the owner sets one."""
        self._late: asyncio.TimerHandle | None = None
        self._paced_until_s = 0.0
        self._flushers = [tasks.spawn(self._run(), name=f"{name}-flusher-{i}") for i in range(parallel)]

    def add(self, item: T) -> None:
        """Appends one item."""
        self._items.append(item)
        if len(self._items) == 1 or self._late is not None:
            self._wake.set()

    def extend(self, items: Iterable[T]) -> None:
        """Appends items; none wake nobody."""
        self._items.extend(items)
        if self._items:
            self._wake.set()

    def add_late(self, item: T) -> None:
        """Appends an item that nobody waits for: it goes with the next batch, or in one of its own after 50 ms."""
        self.extend_late([item])

    def extend_late(self, items: Iterable[T]) -> None:
        """Appends items that nobody waits for."""
        self._items.extend(items)
        if self._late is None:
            self._late = asyncio.get_running_loop().call_later(LATE_S, self.wake)

    def wake(self) -> None:
        """Looks again at what waits, and at the limit."""
        self._wake.set()

    @property
    def pending(self) -> int:
        """How many items wait."""
        return len(self._items)

    def take_pending(self) -> list[T]:
        """Takes back everything that waits."""
        items, self._items = self._items, []
        if self._in_flight == 0:
            self._settled.set()
        return items

    async def drain(self) -> None:
        """Returns once nothing waits and nothing is in flight."""
        while self._items or self._in_flight:
            self._settled.clear()
            self._wake.set()
            await self._settled.wait()

    def close(self) -> None:
        """Stops the flushers; what waits is left."""
        if self._late is not None:
            self._late.cancel()
        for flusher in self._flushers:
            flusher.cancel()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            self._wake.clear()
            if self._late is not None:
                self._late.cancel()
                self._late = None
            while self._items:
                if self.pace.interval_s:
                    await self._wait_for_pace()
                batch = self._cut()
                if not batch:
                    break
                await self._supervise(batch)
            if not self._items and self._in_flight == 0:
                self._settled.set()

    async def _wait_for_pace(self) -> None:
        loop = asyncio.get_running_loop()
        left_s = self._paced_until_s - loop.time()
        if left_s > 0 and len(self._items) < self.pace.enough:
            await asyncio.sleep(left_s)
        self._paced_until_s = loop.time() + self.pace.interval_s

    async def _supervise(self, batch: list[T]) -> None:
        self._in_flight += 1
        # A flush may take its list apart.
        count, start_s = len(batch), time.perf_counter()
        try:
            await self._flush(batch)
        except Exception:  # noqa: BLE001 - a supervisor: a bug in one flush must not end all that follow
            _log.exception("a flush of %d items failed", len(batch))
            if self.on_failure is not None:
                self.on_failure(batch)
        finally:
            self._in_flight -= 1
        self.flushed_batches += 1
        self.flushed_items += count
        if self.timings is not None:
            self.timings.observe(count, time.perf_counter() - start_s)

    def _cut(self) -> list[T]:
        items = self._items
        count = min(len(items), MAX_BATCH_ITEMS)
        if self._limit is not None:
            count = min(count, self._limit())
        if count > 1 and self._weigh is not None:
            count = self._under_byte_limit(count)
        if count <= 0:
            return []
        if count == len(items):
            self._items = []
            return items
        batch = items[:count]
        del items[:count]
        return batch

    def _under_byte_limit(self, count: int) -> int:
        weigh = self._weigh
        assert weigh is not None  # noqa: S101 - checked by the only caller
        total = 0
        for index in range(count):
            total += weigh(self._items[index])
            if total > MAX_BATCH_BYTES:
                return max(index, 1)
        return count
