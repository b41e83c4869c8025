"""Counts how long stores take."""

from chappe.runtime.metrics import SECONDS, Histogram


class Timings:
    """How long calls took, with the wait for their turn, and how many had an unknown outcome."""

    def __init__(self) -> None:
        self.seconds = Histogram(SECONDS)
        self.failures = 0


class StoreTimings:
    """How long writing and reading took."""

    def __init__(self) -> None:
        self.writes = Timings()
        self.reads = Timings()
