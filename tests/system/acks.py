"""What a run's histories say of its acknowledgements: how late they came, and how long none came at all."""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from chappe.testing import read_history


class Acks(NamedTuple):
    """When messages were sent for the first time and when they were acknowledged, in milliseconds, by that time."""

    sent_ms: list[float]
    stored_ms: list[float]

    @classmethod
    def read(cls, histories: Sequence[Path]) -> "Acks":
        """Reads the histories of all devices."""
        first_sent: dict[tuple[str, str], float] = {}
        name_of: dict[str, tuple[str, str]] = {}
        pairs: list[tuple[float, float]] = []
        for line in read_history(histories):
            if line["op"] == "send" and line["kind"] == "message":
                # A message that had to take a new id is still the same message to whoever waits for it.
                name = name_of[line["id"]] = line["actor"], line.get("draft") or line["id"]
                first_sent.setdefault(name, line["t"])
            elif line["op"] == "stored" and line["id"] in name_of:
                sent_ms = first_sent.pop(name_of[line["id"]], None)
                if sent_ms is not None:
                    pairs.append((line["t"], sent_ms))
        return cls([sent_ms for _, sent_ms in pairs], [stored_ms for stored_ms, _ in pairs])

    def within(self, start_ms: float, end_ms: float) -> "Figures":
        """Returns the figures of what was sent within some time, and the longest gap in it."""
        times = [
            stored_ms - sent_ms
            for sent_ms, stored_ms in zip(self.sent_ms, self.stored_ms, strict=True)
            if start_ms <= sent_ms < end_ms
        ]
        low, high = bisect_left(self.stored_ms, start_ms), bisect_right(self.stored_ms, end_ms)
        moments = [start_ms, *self.stored_ms[low:high], end_ms]
        gap_ms = max(after - before for before, after in pairwise(moments))
        return Figures(len(times), quantile(times, 0.5) / 1000, quantile(times, 0.99) / 1000, gap_ms / 1000)


class Figures(NamedTuple):
    """Of the messages of one stretch of time; seconds."""

    acknowledged: int
    p50_s: float
    p99_s: float
    gap_s: float
    """The longest time in which nobody's message was acknowledged."""

    def __str__(self) -> str:
        return (
            f"{self.acknowledged:6} acknowledged, p50 {self.p50_s:6.3f} s, p99 {self.p99_s:6.3f} s, "
            f"longest gap {self.gap_s:6.3f} s"
        )


def quantile(values: Iterable[float], share: float) -> float:
    """Returns the smallest value that so large a share is not above; 0 of nothing."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * share) - 1)] if ordered else 0.0
