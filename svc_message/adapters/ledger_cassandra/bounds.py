"""Refuses what lies too far ahead of the store's clock: a cell that was written there could not be written again.

A cluster has guardrails for this, which are not asked for rows in batches, nor for superusers. And refuses to rely on
what took too long to be written: whoever reads trusts that nothing lands later than that.
"""

from typing import Final

from chappe.runtime.clock import Clock
from chappe.runtime.errors import UnavailableError
from svc_message.adapters.ledger_cassandra.cells import week_at, week_of
from svc_message.adapters.ledger_cassandra.connection import DEPENDENCY
from svc_message.errors import ClockUntrustedError
from svc_message.protocol import WRITE_WINDOW_S

LEAD_S: Final = 3600.0
"""Far more than any clock may be off, far less than what would make a conversation unusable."""
_RETENTION_MS: Final = 31 * 86_400_000


class Bounds:
    """The time by which rows are written and read: this process's clock, corrected by what the store says."""

    def __init__(self, clock: Clock, lead_s: float = LEAD_S) -> None:
        """Trusts the clock until the store has said its time."""
        self._clock = clock
        self._lead_ms = int(lead_s * 1000)
        self._offset_ms = 0.0

    def compare(self, store_ms: float) -> None:
        """Takes the store's time, as it was told just now."""
        self._offset_ms = store_ms - self._clock.wall_ms()

    def now_ms(self) -> int:
        """Returns the time of this process, by which messages disappear."""
        return self._clock.wall_ms()

    def now_s(self) -> float:
        """Returns the time of this process by which it is told how long something took."""
        return self._clock.monotonic_s()

    def check_age(self, start_s: float) -> None:
        """Raises `UnavailableError` for what was begun so long ago that its position is too old to be relied on."""
        age_s = self._clock.monotonic_s() - start_s
        if age_s >= WRITE_WINDOW_S:
            raise UnavailableError(DEPENDENCY, f"what was written took longer than it may, {age_s:.1f} s; send again")

    def check(self, *uuid7s: bytes) -> None:
        """Raises `ClockUntrustedError` for an id or a position that lies too far ahead."""
        latest_ms = int(self._clock.wall_ms() + self._offset_ms) + self._lead_ms
        newest_ms = int.from_bytes(max(uuid7s)[:6], "big")
        if newest_ms > latest_ms:
            ahead_s = (newest_ms - latest_ms + self._lead_ms) / 1000
            raise ClockUntrustedError(f"an id or a position lies {ahead_s:g} s ahead of the store's clock")

    def weeks_after(self, position: bytes) -> range:
        """Returns the weeks in which events after a position may stand."""
        now_ms = self._clock.wall_ms()
        first = max(week_of(position), week_at(now_ms - _RETENTION_MS))
        return range(first, max(week_at(now_ms + self._lead_ms), first) + 1)
