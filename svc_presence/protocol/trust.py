"""How far what svc_identity said may be relied on, when its heartbeats come late or not at all."""

from __future__ import annotations

import enum

GRACE_S = 2.0
"""For so long after the end of the lease nothing is told; then that nobody can say. A late heartbeat shows no flap."""


class Trust(enum.Enum):
    """What may be told."""

    FULL = "full"
    """What is known."""
    WAIT = "wait"
    """Nothing: the lease has just ended, or has not begun."""
    LOST = "lost"
    """That nobody can say."""


class Trusting:
    """Follows the lease; times are monotonic seconds."""

    def __init__(self, now_s: float) -> None:
        self.trust = Trust.WAIT
        self._since_s = now_s

    def follow(self, now_s: float, *, is_fresh: bool) -> bool:
        """Learns whether copies are in lease; returns whether something else may be told now."""
        before = self.trust
        if is_fresh:
            self.trust = Trust.FULL
        elif before is Trust.FULL:
            self.trust, self._since_s = Trust.WAIT, now_s
        elif now_s >= self._since_s + GRACE_S:
            self.trust = Trust.LOST
        return self.trust is not before and self.trust is not Trust.WAIT
