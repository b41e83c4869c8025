"""The seams of a simulated process: a clock that may be wrong, and lots that a seed decides."""

import asyncio
import random

from tests.simulation.loop import EPOCH_MS, VirtualLoop


class ProcessClock:
    """What one process takes for the time."""

    def __init__(self, loop: VirtualLoop, skew_s: float = 0.0, origin_s: float = 0.0) -> None:
        """Makes a clock.

        Args:
            loop: Knows the true time.
            skew_s: By how much the wall clock is ahead; may be changed, which is a step.
            origin_s: What the monotonic clock showed at the beginning.
        """
        self._loop = loop
        self._origin_s = origin_s
        self.skew_s = skew_s

    def wall_ms(self) -> int:
        return EPOCH_MS + int((self._loop.time() + self.skew_s) * 1000)

    def monotonic_s(self) -> float:
        return self._loop.time() + self._origin_s

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)


class Lots:
    """Randomness out of a seed, also what should be secret."""

    def __init__(self, seed: str) -> None:
        self._random = random.Random(seed)

    def token(self, length: int) -> bytes:
        return self._random.randbytes(length)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)

    def nonzero_u64(self) -> int:
        return self._random.getrandbits(64) or 1
