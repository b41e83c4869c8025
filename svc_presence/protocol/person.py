"""What the registry believes of one person who is watched, and when it has to look again.

The store is asked when somebody begins to watch, a little later again (an edge that did not know the replicas yet may
have told another one), every minute, whenever a person has shown no sign of life for as long as it is online, and a
moment after one of its sessions ended. Between that, what the edges say is believed at once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from svc_presence.model import Presence
from svc_presence.ports import ONLINE_S

if TYPE_CHECKING:
    from svc_presence.model import Seen

NEVER = float("inf")
DEBOUNCE_S = 5.0
"""Somebody who leaves and is back within this time was never away."""
SETTLE_S = 3.0
"""So long after the first look edges that were slow to learn of a replica have told it what they have to tell."""
HEAL_S = 60.0
"""The store is asked at least this often, whatever the edges say."""
RETRY_S = 1.0
"""When the store did not answer, it is asked again after this time."""
FRESH_S = 1.0
"""What was read this recently need not be read again for one more watch."""


class Person:
    """One person who is watched. Times are monotonic seconds; every method that may change what is believed says so."""

    __slots__ = ("_is_settled", "_look_s", "_read_s", "events", "last_seen_ms", "online_until_s", "presence")

    def __init__(self) -> None:
        self.presence: Presence | None = None
        """None before the first look."""
        self.last_seen_ms = 0
        self.online_until_s = 0.0
        self.events = 0
        """How often something was heard of it."""
        self._read_s = -NEVER
        self._look_s = NEVER
        self._is_settled = False

    @property
    def due_s(self) -> float:
        """When the store is to be asked."""
        return min(self._look_s, self.online_until_s) if self.presence is Presence.ONLINE else self._look_s

    def watched(self, now_s: float) -> bool:
        """Learns that somebody more watches; returns whether the store is to be asked now."""
        self._is_settled = False
        return now_s >= self._read_s + FRESH_S

    def lived(self, now_s: float) -> bool:
        """Learns of a sign of life that the store has; returns whether that is news."""
        self.events += 1
        self.online_until_s = now_s + ONLINE_S
        # A look that was planned because a session ended is still wanted: it may have been the last one that lived.
        return self._believe(Presence.ONLINE, 0)

    def left(self, now_s: float) -> None:
        """Learns that a session has ended, of one device or of one edge."""
        self.events += 1
        self._look_s = min(self._look_s, now_s + DEBOUNCE_S)

    def read(self, seen: Seen, now_s: float) -> bool:
        """Takes what the store says; returns whether that is news."""
        self._read_s = now_s
        self._look_s = now_s + (HEAL_S if self._is_settled else SETTLE_S)
        self._is_settled = True
        if seen.online_left_ms > 0:
            self.online_until_s = now_s + seen.online_left_ms / 1000
            return self._believe(Presence.ONLINE, 0)
        was_online = self.presence is Presence.ONLINE
        if not seen.last_seen_ms:
            # Nothing is known of the person: perhaps because the store has lost its memory, and the edges have not yet
            # told it again. Signs of life that came here go on to count for as long as they last.
            return not (was_online and now_s < self.online_until_s) and self._believe(Presence.UNKNOWN, 0)
        left_s = DEBOUNCE_S - seen.idle_ms / 1000
        if was_online and left_s > 0:
            self.online_until_s = max(self.online_until_s, now_s + left_s)
            self._look_s = now_s + left_s
            return False
        return self._believe(Presence.OFFLINE, seen.last_seen_ms)

    def unsure(self, now_s: float) -> bool:
        """Learns that the store does not answer; returns whether that is news."""
        self._look_s = now_s + RETRY_S
        self._is_settled = False
        return self._believe(Presence.UNKNOWN, 0)

    def _believe(self, presence: Presence, last_seen_ms: int) -> bool:
        is_news = (presence, last_seen_ms) != (self.presence, self.last_seen_ms)
        self.presence, self.last_seen_ms = presence, last_seen_ms
        return is_news
