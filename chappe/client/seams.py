"""Time and randomness as things that are handed in; the same shapes as on the server's side, which is not imported."""

import asyncio
import random
import secrets
import time
from typing import NamedTuple, Protocol


class Clock(Protocol):
    """Tells the time and waits."""

    def wall_ms(self) -> int:
        """Returns Unix time in milliseconds; may step."""
        ...

    def monotonic_s(self) -> float:
        """Returns seconds since some fixed moment; never steps."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Waits."""
        ...


class Randomness(Protocol):
    """Makes random values."""

    def token(self, length: int) -> bytes:
        """Returns `length` random bytes that nobody can guess."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """Returns a number between the two, for jitter."""
        ...


class SystemClock:
    """The machine's clock."""

    def wall_ms(self) -> int:
        """Returns Unix time in milliseconds."""
        return time.time_ns() // 1_000_000

    def monotonic_s(self) -> float:
        """Returns seconds of CLOCK_MONOTONIC."""
        return time.monotonic()

    async def sleep(self, delay_s: float) -> None:
        """Waits on the event loop."""
        await asyncio.sleep(delay_s)


class SystemRandomness:
    """The machine's randomness; jitter comes from a cheap generator, everything else from the kernel."""

    def __init__(self) -> None:
        self._jitter = random.Random(secrets.randbits(64))  # noqa: S311 - jitter needs no secrecy

    def token(self, length: int) -> bytes:
        """Returns random bytes from the kernel."""
        return secrets.token_bytes(length)

    def uniform(self, low: float, high: float) -> float:
        """Returns a number for jitter."""
        return self._jitter.uniform(low, high)


class Seams(NamedTuple):
    """What every part of the SDK that waits or draws lots is given."""

    clock: Clock
    randomness: Randomness


def system_seams() -> Seams:
    """Returns the machine's own clock and randomness."""
    return Seams(SystemClock(), SystemRandomness())
