"""Wakes an engine when something of its core becomes due."""

import asyncio
from collections.abc import Callable

from chappe.client.acks import LATE_S
from chappe.client.protocol import ClientProtocol
from chappe.client.seams import Seams

TICK_S = 1.0
_LEAST_S = 0.02
"""What waits for room may also wait for the disk, which says so itself."""


class Alarms:
    """The timers of one engine; each runs once, and is set again when there is still a reason."""

    def __init__(self, seams: Seams, tick: Callable[[], None], flush: Callable[[], None]) -> None:
        """Makes alarms on the running loop.

        Args:
            seams: The time, and randomness.
            tick: Looks for what is overdue.
            flush: Sends what waited for room.
        """
        self._clock, self._randomness = seams
        self._tick = tick
        self._flush = flush
        self._loop = asyncio.get_running_loop()
        self._set: dict[str, asyncio.TimerHandle] = {}

    def plan(self, core: ClientProtocol) -> None:
        """Sets what is not set and has a reason."""
        if core.outbox.is_awaiting and "answer" not in self._set:
            self._later("answer", TICK_S, self._tick)
        if core.acks.is_owed and "ack" not in self._set:
            self._later("ack", self._randomness.uniform(*LATE_S), self._tick)
        if core.turns.is_held and "room" not in self._set:
            wait_s = core.budget.wait_s(self._clock.monotonic_s())
            self._later("room", max(wait_s, _LEAST_S), self._flush)

    def cancel(self) -> None:
        """Switches all of them off."""
        for alarm in self._set.values():
            alarm.cancel()
        self._set.clear()

    def _later(self, name: str, delay_s: float, ring: Callable[[], None]) -> None:
        def go_off() -> None:
            del self._set[name]
            ring()

        self._set[name] = self._loop.call_later(delay_s, go_off)
