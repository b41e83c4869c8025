"""The clock is compared with the store's, and trusted again as soon as it is right."""

from __future__ import annotations

import pytest

from chappe.runtime.errors import UnavailableError
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.errors import ClockUntrustedError
from svc_message.protocol import LedgerClock
from svc_message.worker import compare, compare_clocks
from tests.svc_message.fakes import ManualClock


class EnoughError(Exception):
    """Ends the endless comparing."""


class AskedStore(MemoryMessageStore):
    """A store whose clock is off, whose answers take time, and that writes down when it was asked."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.clock = clock
        self.off_s = 0.0
        self.takes_s = 0.0
        self.is_down = False
        self.asked_s: list[float] = []

    async def clock_ms(self) -> float:
        self.asked_s.append(self.clock.monotonic_s())
        if self.is_down:
            raise UnavailableError("store", "it is down")
        told = self.clock.wall_ms() + self.off_s * 1000
        self.clock.pass_s(self.takes_s)
        return told


class Timeline(ManualClock):
    """A clock that does something at a given time and ends the test at another."""

    def __init__(self, at_s: float, until_s: float) -> None:
        super().__init__()
        self.begun_s = self.monotonic_s()
        self.at_s, self.until_s = at_s, until_s
        self.has_stepped = False

    async def sleep(self, delay_s: float) -> None:
        await super().sleep(delay_s)
        past_s = self.monotonic_s() - self.begun_s
        if past_s >= self.at_s and not self.has_stepped:
            self.has_stepped = True
            self.step_s(0.3)
        if past_s >= self.until_s:
            raise EnoughError


async def seconds_asked(clock: Timeline, ledger_clock: LedgerClock, store: AskedStore) -> list[float]:
    """Compares until the clock's time is up; returns when the store was asked."""
    with pytest.raises(EnoughError):
        await compare_clocks(store, ledger_clock, clock)
    return [asked_s - clock.begun_s for asked_s in store.asked_s]


async def test_the_clocks_are_compared_every_ten_seconds() -> None:
    clock = Timeline(at_s=1000, until_s=35)
    store = AskedStore(clock)

    asked_s = await seconds_asked(clock, LedgerClock(clock, bytes(8)), store)

    assert asked_s == [0, 10, 20, 30]


async def test_a_step_is_looked_into_within_a_second_and_not_at_the_next_turn() -> None:
    clock = Timeline(at_s=3, until_s=8)
    store = AskedStore(clock)
    ledger_clock = LedgerClock(clock, bytes(8))

    asked_s = await seconds_asked(clock, ledger_clock, store)

    assert asked_s[:2] == [0, 3]
    ledger_clock.check()


async def test_a_store_that_does_not_answer_is_asked_every_second(caplog: pytest.LogCaptureFixture) -> None:
    clock = Timeline(at_s=1000, until_s=4)
    store = AskedStore(clock)
    store.is_down = True

    asked_s = await seconds_asked(clock, LedgerClock(clock, bytes(8)), store)

    assert asked_s == [0, 1, 2, 3]
    assert "could not be compared" in caplog.text


@pytest.mark.parametrize("off_s", [0.6, -0.6])
async def test_a_clock_that_is_off_is_not_trusted(off_s: float) -> None:
    clock = ManualClock()
    store, ledger_clock = AskedStore(clock), LedgerClock(clock, bytes(8))
    store.off_s = off_s

    await compare(store, ledger_clock, clock)

    with pytest.raises(ClockUntrustedError, match="off the store's"):
        ledger_clock.check()


async def test_an_answer_that_took_long_does_not_make_a_right_clock_wrong() -> None:
    clock = ManualClock()
    store, ledger_clock = AskedStore(clock), LedgerClock(clock, bytes(8))
    store.takes_s = 2.0

    await compare(store, ledger_clock, clock)

    ledger_clock.check()


async def test_an_answer_that_took_long_does_not_make_a_wrong_clock_right() -> None:
    clock = ManualClock()
    store, ledger_clock = AskedStore(clock), LedgerClock(clock, bytes(8))
    clock.step_s(1.0)
    store.takes_s = 2.0

    await compare(store, ledger_clock, clock)

    with pytest.raises(ClockUntrustedError, match="stepped"):
        ledger_clock.check()
