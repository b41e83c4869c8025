"""Reads how long svc_message took to write the pointers of messages to groups, from the page of its metrics."""

import itertools
import math
import re
from typing import Final, NamedTuple, Self

_NAME: Final = "chappe_message_expand_lag_seconds"
_BUCKET: Final = re.compile(rf'^{_NAME}_bucket\{{le="([^"]+)"\}} (\d+)$', re.MULTILINE)
_SUM: Final = re.compile(rf"^{_NAME}_sum (\S+)$", re.MULTILINE)


class Lags(NamedTuple):
    """A histogram of durations, or what came to it between two readings."""

    total_s: float
    """The sum of all of them."""
    buckets: dict[float, int]
    """How many took at most so many seconds; the last bound is infinite."""

    @classmethod
    def parse(cls, page: str) -> Self:
        """Returns the histogram in a page of metrics; an empty one when it is not there."""
        total = _SUM.search(page)
        # float reads the last one, +Inf, too.
        buckets = {float(bound): int(count) for bound, count in _BUCKET.findall(page)}
        return cls(float(total[1]) if total else 0.0, buckets)

    def since(self, earlier: "Lags") -> "Lags":
        """Returns what was observed since an earlier reading."""
        buckets = {bound: count - earlier.buckets.get(bound, 0) for bound, count in self.buckets.items()}
        return Lags(self.total_s - earlier.total_s, buckets)

    @property
    def observed(self) -> int:
        """How many durations there are."""
        return self.buckets.get(math.inf, 0)

    def summary_ms(self) -> dict[str, float]:
        """Returns mean and p99 in milliseconds; nothing where nothing was observed."""
        if not self.observed:
            return {}
        mean_s = self.total_s / self.observed
        return {"journal_lag_ms": 1000 * mean_s, "journal_lag_p99_ms": 1000 * self.quantile_s(0.99)}

    def quantile_s(self, share: float) -> float:
        """Returns below what a share of the durations lies, as if those of a bucket were spread evenly over it.

        What is beyond the last finite bound counts as that bound.
        """
        wanted = share * self.observed
        for (low, below), (high, seen) in itertools.pairwise([(0.0, 0), *self.buckets.items()]):
            if seen >= wanted and seen > below:
                return low if math.isinf(high) else low + (high - low) * (wanted - below) / (seen - below)
        return 0.0
