"""Background tasks are held, told of when they crash, and ended with their owner."""

import asyncio

import pytest

from chappe.runtime import tasks as tasks_module
from chappe.runtime.metrics import SECONDS, Histogram
from chappe.runtime.tasks import Tasks, watch_delay


async def test_a_crash_is_logged_and_told(caplog: pytest.LogCaptureFixture) -> None:
    crashes: list[str] = []
    async with Tasks(on_crash=lambda name, error: crashes.append(f"{name}: {error}")) as tasks:

        async def crash() -> None:
            raise ValueError("a bug")

        await asyncio.wait([tasks.spawn(crash(), name="crasher")])
        await asyncio.sleep(0)

    assert crashes == ["crasher: a bug"]
    assert "task crasher crashed" in caplog.text


async def test_close_cancels_every_task_and_waits_for_its_end() -> None:
    ended = asyncio.Event()

    async def run() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    tasks = Tasks()
    task = tasks.spawn(run(), name="runner")
    await asyncio.sleep(0)
    await tasks.aclose()

    assert ended.is_set()
    assert task.cancelled()


async def test_a_task_that_swallows_its_cancellation_is_cancelled_again() -> None:
    cancellations = 0

    async def run() -> None:
        nonlocal cancellations
        while cancellations < 2:
            try:
                await asyncio.Event().wait()
            except asyncio.CancelledError:
                cancellations += 1

    tasks = Tasks()
    tasks.spawn(run(), name="stubborn")
    await asyncio.sleep(0)

    await tasks.aclose()

    assert cancellations == 2


async def test_the_delay_of_the_loop_is_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tasks_module, "LOOK_S", 0.0)
    delays = Histogram(SECONDS)

    async with Tasks() as tasks:
        tasks.spawn(watch_delay(delays), name="loop delay")
        for _ in range(10):
            await asyncio.sleep(0)

    assert sum(delays.counts) > 1
