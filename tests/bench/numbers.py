"""The statistics of the tables: percentiles, medians and deviations."""

import statistics
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """Returns the value below which a share of a sorted sequence lies; zero of nothing."""
    if not values:
        return 0.0
    return values[min(len(values) - 1, int(share * len(values)))]


def spread(values: Sequence[float]) -> tuple[float, float]:
    """Returns the median and the standard deviation; zeros of nothing."""
    if not values:
        return 0.0, 0.0
    return statistics.median(values), statistics.pstdev(values)


def summary_ms(values_s: Sequence[float]) -> dict[str, float]:
    """Returns count, p50, p99, p99.9 and the largest of durations, in milliseconds."""
    ordered = sorted(values_s)
    return {
        "count": len(ordered),
        "p50_ms": percentile(ordered, 0.5) * 1000,
        "p99_ms": percentile(ordered, 0.99) * 1000,
        "p999_ms": percentile(ordered, 0.999) * 1000,
        "max_ms": (ordered[-1] if ordered else 0.0) * 1000,
    }
