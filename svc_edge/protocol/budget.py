"""How much a connection may do: token buckets, one for each class of calls, in the memory of its session."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, NamedTuple

from svc_edge.model import RateClass

if TYPE_CHECKING:
    from collections.abc import Mapping


class Rate(NamedTuple):
    """What a bucket holds, and how fast it fills."""

    burst: int
    """So many at once."""
    per_s: float
    """So many in each second after that."""


class CallRates(NamedTuple):
    """The buckets of every session."""

    read: Rate
    write: Rate
    sensitive: Rate

    def of(self, rate_class: RateClass) -> Rate:
        """Returns the rate of a class."""
        return {RateClass.READ: self.read, RateClass.WRITE: self.write, RateClass.SENSITIVE: self.sensitive}[rate_class]


class Bucket:
    """One budget; full at first."""

    __slots__ = ("_filled_s", "_rate", "_tokens")

    def __init__(self, rate: Rate, now_s: float) -> None:
        self._rate = rate
        self._tokens = float(rate.burst)
        self._filled_s = now_s

    def spend(self, now_s: float) -> int:
        """Takes a token and returns 0, or takes none and returns after how many milliseconds there is one."""
        self._fill(now_s)
        if self._tokens >= 1.0:
            self._tokens -= 1.0
            return 0
        return max(math.ceil((1.0 - self._tokens) / self._rate.per_s * 1000), 1)

    def take(self, now_s: float) -> int:
        """Takes every token that there is, for somebody who counts them itself; returns how many that are."""
        self._fill(now_s)
        taken = int(self._tokens)
        self._tokens -= taken
        return taken

    def _fill(self, now_s: float) -> None:
        rate = self._rate
        self._tokens = min(self._tokens + max(now_s - self._filled_s, 0.0) * rate.per_s, float(rate.burst))
        self._filled_s = now_s


class CallBudgets:
    """The buckets of one session; each is made when its first call is charged: most sessions never call much."""

    __slots__ = ("_buckets", "_rates")

    def __init__(self, rates: CallRates) -> None:
        self._rates = rates
        self._buckets: dict[RateClass, Bucket] = {}

    def spend(self, rate_class: RateClass, now_s: float) -> int:
        """Charges a call and returns 0, or charges none and returns after how many milliseconds it may come again."""
        bucket = self._buckets.get(rate_class)
        if bucket is None:
            bucket = self._buckets[rate_class] = Bucket(self._rates.of(rate_class), now_s)
        return bucket.spend(now_s)


BUDGET_NAMES: Mapping[RateClass, str] = {
    RateClass.READ: "reading calls",
    RateClass.WRITE: "changing calls",
    RateClass.SENSITIVE: "sensitive calls",
}
"""What each budget is called in a refusal."""
