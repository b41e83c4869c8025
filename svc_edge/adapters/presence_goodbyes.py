"""Goodbyes that svc_presence may not have written: nobody else would say them, and their people would seem online."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chappe.runtime.clock import Clock
    from chappe.runtime.tasks import Tasks
    from svc_edge.model import SessionRef

SAY_AGAIN_S = 1.0
MOST = 100_000


class Goodbyes:
    """Says goodbyes again until somebody takes them; a goodbye that is said twice does no harm."""

    def __init__(self, say: Callable[[SessionRef], bool], *, tasks: Tasks, clock: Clock) -> None:
        """Prepares.

        Args:
            say: Says one; returns whether anybody is there to whom it could be said.
            tasks: Owns the repeating.
            clock: For its interval.
        """
        self._say = say
        self._tasks = tasks
        self._clock = clock
        self._unsaid: dict[SessionRef, None] = {}
        self._is_waiting = False

    def __len__(self) -> int:
        return len(self._unsaid)

    def add(self, sessions: Iterable[SessionRef]) -> None:
        """Keeps goodbyes to say them again a little later; of very many the oldest are left to expire."""
        self._unsaid.update(dict.fromkeys(sessions))
        while len(self._unsaid) > MOST:
            del self._unsaid[next(iter(self._unsaid))]
        if self._unsaid and not self._is_waiting:
            self._is_waiting = True
            self._tasks.spawn(self._repeat(), name="say goodbye again")

    def say_again(self) -> None:
        """Says all that somebody takes."""
        unsaid, self._unsaid = self._unsaid, {}
        self._unsaid.update((session, None) for session in unsaid if not self._say(session))

    async def _repeat(self) -> None:
        while self._unsaid:
            await self._clock.sleep(SAY_AGAIN_S)
            self.say_again()
        self._is_waiting = False
