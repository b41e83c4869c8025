"""When something is due: a heap in which a key that is set anew leaves its old entry behind, to be passed over."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

Key = TypeVar("Key", bound=Hashable)

_MOST_STALE = 64
"""So many entries that were left behind cost nothing."""


class Deadlines(Generic[Key]):
    """Holds one deadline for each key; setting one costs a push, and finding nothing due a comparison."""

    def __init__(self) -> None:
        self._at_s: dict[Key, float] = {}
        self._heap: list[tuple[float, int, Key]] = []
        self._pushes = 0

    def __len__(self) -> int:
        return len(self._at_s)

    def __contains__(self, key: Key) -> bool:
        return key in self._at_s

    @property
    def entries(self) -> int:
        """How many entries the heap holds, those that were left behind included."""
        return len(self._heap)

    def set(self, key: Key, at_s: float) -> None:
        """Sets the deadline of a key, in the place of the one that it had."""
        if self._at_s.get(key) == at_s:
            return
        self._at_s[key] = at_s
        self._pushes += 1
        # The count keeps keys from being compared.
        heapq.heappush(self._heap, (at_s, self._pushes, key))
        if len(self._heap) > 2 * len(self._at_s) + _MOST_STALE:
            self._heap = [(due_s, count, name) for count, (name, due_s) in enumerate(self._at_s.items())]
            heapq.heapify(self._heap)

    def drop(self, key: Key) -> None:
        """Forgets a key; nothing happens when it has no deadline."""
        self._at_s.pop(key, None)

    def due(self, now_s: float) -> list[Key]:
        """Takes out the keys whose deadline has come, the earliest first."""
        found: list[Key] = []
        while self._heap and self._heap[0][0] <= now_s:
            at_s, _, key = heapq.heappop(self._heap)
            if self._at_s.get(key) == at_s:
                del self._at_s[key]
                found.append(key)
        return found
