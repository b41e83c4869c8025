"""Time is a number on the simulated loop, and a process that dies does nothing more."""

import asyncio

import pytest

from tests.simulation.clocks import ProcessClock
from tests.simulation.loop import Process, VirtualLoop, virtual_loop


def _live(loop: VirtualLoop, seconds: float) -> None:
    loop.world.context.copy().run(loop.run_until_complete, asyncio.sleep(seconds))


async def _note_then_note(notes: list[str], name: str, seconds: float) -> None:
    try:
        notes.append(f"{name} begins")
        await asyncio.sleep(seconds)
        notes.append(f"{name} goes on")
    finally:
        notes.append(f"{name} ends")


def test_a_thousand_seconds_take_no_time() -> None:
    with virtual_loop() as loop:
        _live(loop, 1000.0)

        assert loop.time() == pytest.approx(1000.0)


def test_a_process_that_dies_runs_no_finally() -> None:
    notes: list[str] = []
    with virtual_loop() as loop:
        process = Process("one")
        loop.spawn(process, _note_then_note(notes, "one", 5.0))
        loop.call_later(2.0, process.kill, context=loop.world.context)
        _live(loop, 10.0)

        assert notes == ["one begins"]


def test_others_go_on_when_a_process_dies() -> None:
    notes: list[str] = []
    with virtual_loop() as loop:
        one, other = Process("one"), Process("other")
        loop.spawn(one, _note_then_note(notes, "one", 5.0))
        loop.spawn(other, _note_then_note(notes, "other", 5.0))
        loop.call_later(2.0, one.kill, context=loop.world.context)
        _live(loop, 10.0)

        assert notes == ["one begins", "other begins", "other goes on", "other ends"]


def test_a_process_dies_after_as_many_steps_as_it_has_left() -> None:
    notes: list[int] = []

    async def count() -> None:
        for number in range(10):
            notes.append(number)
            await asyncio.sleep(0)

    with virtual_loop() as loop:
        process = Process("one")
        process.steps_left = 3
        loop.spawn(process, count())
        _live(loop, 1.0)

        assert notes == [0, 1, 2]


def test_what_a_paused_process_misses_happens_afterwards() -> None:
    notes: list[float] = []

    async def note_time() -> None:
        await asyncio.sleep(3.0)
        notes.append(loop.time())

    with virtual_loop() as loop:
        process = Process("one")
        loop.spawn(process, note_time())
        loop.call_later(1.0, loop.pause, process, 8.0, context=loop.world.context)
        _live(loop, 20.0)

        assert notes == [pytest.approx(9.0)]


def test_a_callback_that_fails_is_noted_and_stops_nobody() -> None:
    notes: list[str] = []
    with virtual_loop() as loop:
        loop.spawn(Process("one"), _note_then_note(notes, "one", 1.0))
        loop.call_later(0.5, notes.index, "nothing", context=loop.world.context)
        _live(loop, 2.0)

        assert notes[-1] == "one ends"
        assert len(loop.failures) == 1
        assert "ValueError" in loop.failures[0]


def test_a_loop_with_nothing_to_come_says_so() -> None:
    async def wait_for_ever() -> None:
        await asyncio.get_running_loop().create_future()

    with virtual_loop() as loop, pytest.raises(RuntimeError, match="nothing ever will be"):
        loop.world.context.copy().run(loop.run_until_complete, wait_for_ever())


def test_the_wall_clock_of_a_process_may_step_and_its_monotonic_clock_does_not() -> None:
    with virtual_loop() as loop:
        clock = ProcessClock(loop, skew_s=0.25, origin_s=7.0)
        before = clock.wall_ms(), clock.monotonic_s()
        clock.skew_s += 30.0

        assert clock.wall_ms() - before[0] == 30_000
        assert clock.monotonic_s() == before[1] == 7.0
