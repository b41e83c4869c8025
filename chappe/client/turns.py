"""Lets frames out while the budget of the connection lasts. No I/O.

While there is plenty, everything leaves at once. When it is scarce, acknowledgements gather, and they, calls and
changes take turns, so that a thousand messages in the outbox keep nobody waiting who asks for a page, nor the log.
"""

from collections import deque

from chappe.client.budget import SCARCE, FrameBudget
from chappe.client.calls import Calls
from chappe.client.frames import ack_frame
from chappe.client.outbox import Outbox


class Turns:
    """Says what leaves next."""

    def __init__(self, budget: FrameBudget, calls: Calls, outbox: Outbox) -> None:
        self._budget = budget
        self._calls = calls
        self._outbox = outbox
        self._held_ack = 0
        self._order = deque((self._let_ack_out, self._let_calls_out, outbox.pump))

    @property
    def is_held(self) -> bool:
        """Whether something waits for the budget."""
        return bool(self._held_ack) or self._calls.are_waiting or self._outbox.is_held

    def begin(self) -> None:
        """Starts anew for a connection."""
        self._held_ack = 0

    def acknowledge(self, count: int, frames: list[bytes], now_s: float) -> None:
        """Acknowledges items up to a count, now or with those that come next."""
        self._held_ack = count
        if self._budget.room(now_s) > SCARCE:
            self._let_ack_out(frames, now_s, 1)

    def let_calls_out(self, frames: list[bytes], now_s: float) -> None:
        """Begins the calls that wait, unless they have to wait for their turn."""
        room = self._budget.room(now_s)
        if room > SCARCE:
            self._let_calls_out(frames, now_s, room)

    def let_out(self, frames: list[bytes], now_s: float) -> None:
        """Sends what there is room for, and gets ids for it where it has none."""
        room = had_room = self._budget.room(now_s) - self._outbox.minting
        for let_out in self._order:
            room -= let_out(frames, now_s, room)
        if had_room > 0 and self.is_held:
            self._order.rotate(-1)

    def _let_ack_out(self, frames: list[bytes], _now_s: float, room: int) -> int:
        if not self._held_ack or room <= 0:
            return 0
        frames.append(ack_frame(self._held_ack))
        self._held_ack = 0
        self._budget.spend()
        return 1

    def _let_calls_out(self, frames: list[bytes], _now_s: float, room: int) -> int:
        begun = self._calls.pump(frames, room)
        self._budget.spend(begun)
        return begun
