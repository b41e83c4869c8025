"""Batches gather while a flush is in flight, keep their order, and obey limits."""

import asyncio

import pytest

from chappe.runtime.batching import MAX_BATCH_BYTES, MAX_BATCH_ITEMS, Batcher, Pace
from chappe.runtime.metrics import FlushTimings
from chappe.runtime.tasks import Tasks


class Sink:
    """Takes batches, and holds them up while its gate is shut."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.arrived = asyncio.Event()

    async def flush(self, items: list[int]) -> None:
        self.batches.append(items)
        self.arrived.set()
        await self.gate.wait()


async def test_items_of_one_turn_are_one_batch() -> None:
    async with Tasks() as tasks:
        sink = Sink()
        batcher = Batcher(sink.flush, tasks, name="test")

        for item in range(10):
            batcher.add(item)
        await batcher.drain()

        assert sink.batches == [list(range(10))]


async def test_items_gather_while_a_flush_is_in_flight() -> None:
    async with Tasks() as tasks:
        sink = Sink()
        sink.gate.clear()
        batcher = Batcher(sink.flush, tasks, name="test")
        batcher.add(0)
        await sink.arrived.wait()

        batcher.extend([1, 2])
        batcher.add(3)
        sink.gate.set()
        await batcher.drain()

        assert sink.batches == [[0], [1, 2, 3]]


async def _turns(count: int) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


async def test_items_that_come_soon_after_a_flush_gather_for_the_next() -> None:
    async with Tasks() as tasks:
        sink = Sink()
        batcher = Batcher(sink.flush, tasks, name="test")
        batcher.pace = Pace(0.1, 64)
        batcher.add(0)
        await sink.arrived.wait()

        for item in (1, 2, 3):
            batcher.add(item)
            await _turns(5)
        await batcher.drain()

        assert sink.batches == [[0], [1, 2, 3]]


async def test_many_items_are_flushed_however_soon_after_a_flush() -> None:
    async with Tasks() as tasks:
        sink = Sink()
        batcher = Batcher(sink.flush, tasks, name="test")
        batcher.pace = Pace(3600, 64)
        batcher.add(0)
        await sink.arrived.wait()

        batcher.extend(range(64))
        await batcher.drain()

        assert sink.batches == [[0], list(range(64))]


async def test_a_batch_has_at_most_512_items_and_order_is_kept() -> None:
    async with Tasks() as tasks:
        sink = Sink()
        batcher = Batcher(sink.flush, tasks, name="test")

        batcher.extend(range(1200))
        await batcher.drain()

        assert [len(batch) for batch in sink.batches] == [MAX_BATCH_ITEMS, MAX_BATCH_ITEMS, 176]
        assert [item for batch in sink.batches for item in batch] == list(range(1200))


async def test_a_batch_stays_under_the_byte_limit_but_a_single_large_item_passes() -> None:
    async with Tasks() as tasks:
        sink = Sink()
        batcher = Batcher(sink.flush, tasks, name="test", weigh=lambda item: item)

        batcher.extend([MAX_BATCH_BYTES - 10, 20, MAX_BATCH_BYTES + 1, 5])
        await batcher.drain()

        assert sink.batches == [[MAX_BATCH_BYTES - 10], [20], [MAX_BATCH_BYTES + 1], [5]]


async def test_nothing_is_flushed_beyond_the_limit_until_it_rises() -> None:
    async with Tasks() as tasks:
        sink = Sink()
        allowed = 2

        async def flush(items: list[int]) -> None:
            nonlocal allowed
            allowed -= len(items)
            await sink.flush(items)

        batcher = Batcher(flush, tasks, name="test", limit=lambda: allowed)
        batcher.extend(range(5))
        await sink.arrived.wait()
        assert sink.batches == [[0, 1]]

        allowed = 10
        batcher.wake()
        await batcher.drain()

        assert sink.batches == [[0, 1], [2, 3, 4]]


async def test_a_flush_that_fails_does_not_end_those_that_follow(caplog: pytest.LogCaptureFixture) -> None:
    async with Tasks() as tasks:
        flushed: list[int] = []
        failed: list[int] = []

        async def flush(items: list[int]) -> None:
            if 1 in items:
                raise ValueError("a bug")
            flushed.extend(items)

        batcher = Batcher(flush, tasks, name="test")
        batcher.add(1)
        await batcher.drain()
        batcher.on_failure = failed.extend
        batcher.extend([1, 1])
        await batcher.drain()
        batcher.add(2)
        await batcher.drain()

        assert (flushed, failed) == ([2], [1, 1])
        assert "a flush of 1 items failed" in caplog.text


async def test_two_flushes_are_in_flight_when_two_are_allowed() -> None:
    async with Tasks() as tasks:
        sink = Sink()
        sink.gate.clear()
        batcher = Batcher(sink.flush, tasks, name="test", parallel=2)
        batcher.add(1)
        await sink.arrived.wait()
        sink.arrived.clear()

        batcher.add(2)
        await sink.arrived.wait()

        assert sink.batches == [[1], [2]]
        sink.gate.set()
        await batcher.drain()


async def test_what_waits_can_be_taken_back() -> None:
    async with Tasks() as tasks:
        sink = Sink()
        batcher = Batcher(sink.flush, tasks, name="test", limit=lambda: 0)
        batcher.extend([1, 2])

        assert batcher.take_pending() == [1, 2]
        await batcher.drain()
        assert sink.batches == []


async def test_an_item_that_nobody_waits_for_goes_with_the_next_batch() -> None:
    async with Tasks() as tasks:
        sink = Sink()
        batcher = Batcher(sink.flush, tasks, name="test")

        batcher.add_late(1)
        batcher.add_late(2)
        batcher.add(3)
        await batcher.drain()

        assert sink.batches == [[1, 2, 3]]


async def test_an_item_that_nobody_waits_for_goes_by_itself_after_a_moment() -> None:
    async with Tasks() as tasks:
        sink = Sink()
        batcher = Batcher(sink.flush, tasks, name="test")

        batcher.add_late(1)
        await asyncio.wait_for(sink.arrived.wait(), 5)

        assert sink.batches == [[1]]


async def test_a_drain_does_not_wait_for_the_moment_of_late_items() -> None:
    async with Tasks() as tasks:
        sink = Sink()
        batcher = Batcher(sink.flush, tasks, name="test")

        batcher.add_late(1)
        await batcher.drain()
        batcher.close()

        assert sink.batches == [[1]]


async def test_batches_are_counted_by_size_where_the_owner_wants_it() -> None:
    async with Tasks() as tasks:
        batcher = Batcher(Sink().flush, tasks, name="test")
        batcher.timings = FlushTimings()

        batcher.extend(range(3))
        await batcher.drain()
        batcher.add(1)
        await batcher.drain()

        assert (batcher.timings.items.total, sum(batcher.timings.items.counts)) == (4, 2)
        assert sum(batcher.timings.seconds.counts) == 2
