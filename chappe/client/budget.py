"""How many frames a device may send: an edge closes the connection of one that sends more. No I/O."""

import math
from typing import NamedTuple


class FrameRate(NamedTuple):
    """So many frames at once, and then so many a second."""

    burst: int
    per_s: float


BELOW_EDGE = FrameRate(320, 40.0)
"""An edge takes 400 and then 50 a second: the rest is for pongs, and for what a slow line delivers all at once."""
UNLIMITED = FrameRate(1 << 40, float(1 << 40))
"""For edges that were told to take everything, as for a benchmark."""
SCARCE = 32
"""With no more left, everything that can wait takes turns."""

_LEAST = FrameRate(8, 0.9)
"""No edge takes less."""


class FrameBudget:
    """A bucket of tokens, one for each frame; full at the beginning of each connection."""

    def __init__(self, rate: FrameRate) -> None:
        self._most = self._rate = rate
        self._tokens = float(rate.burst)
        self._filled_s = -math.inf

    def begin(self, now_s: float) -> None:
        """Starts anew for a connection."""
        self._tokens = float(self._rate.burst)
        self._filled_s = now_s

    def spend(self, frames: int = 1) -> None:
        """Takes tokens; also ones that are not there yet, for what cannot wait."""
        self._tokens -= frames

    def room(self, now_s: float) -> int:
        """Returns how many frames may be sent now."""
        if now_s > self._filled_s:
            filled = self._tokens + (now_s - self._filled_s) * self._rate.per_s
            self._tokens, self._filled_s = min(filled, float(self._rate.burst)), now_s
        return max(math.floor(self._tokens), 0)

    def wait_s(self, now_s: float) -> float:
        """Returns in how many seconds a frame may be sent."""
        return 0.0 if self.room(now_s) else (1.0 - self._tokens) / self._rate.per_s

    def shrink(self) -> None:
        """Halves what is sent from the next connection on: an edge says that it was too much."""
        burst, per_s = min(self._rate.burst // 2, BELOW_EDGE.burst), min(self._rate.per_s / 2, BELOW_EDGE.per_s)
        self._rate = FrameRate(max(burst, _LEAST.burst), max(per_s, _LEAST.per_s))

    def grow(self) -> None:
        """Doubles it again, up to what it was: no edge had anything against it."""
        burst, per_s = min(self._rate.burst * 2, self._most.burst), min(self._rate.per_s * 2, self._most.per_s)
        self._rate = FrameRate(burst, per_s)
