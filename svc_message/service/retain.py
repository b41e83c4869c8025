"""Lets go of what is not kept for ever: what has disappeared at once, old events of inboxes after thirty days."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from svc_message.model import UserId
from svc_message.protocol import FIRST_ACCEPT_AGE_MS, RESYNC_AGE_MS, LedgerClock, position_at

if TYPE_CHECKING:
    from svc_message.ports import RetentionStore

BATCH = 500
"""How many rows, or inboxes, one call of the store works on."""
SPENT_AFTER_MS = FIRST_ACCEPT_AGE_MS + 5 * 60_000
"""No first attempt comes under an id that is older."""
FORGET_AFTER_MS = RESYNC_AGE_MS + 3600_000
"""An event is kept for as long as anybody may resume before it, and an hour for clocks that disagree."""
WAKE_AFTER_MS = FIRST_ACCEPT_AGE_MS + 5 * 60_000
"""A conversation that was archived so long ago is brought back by messages themselves."""

_FIRST = UserId(bytes(16))


class Retained(NamedTuple):
    """What a pass did."""

    removed: int
    """Rows of messages that had disappeared, and of what belonged to them."""
    woken: int
    """Conversations that came back because somebody had written."""
    inboxes: int
    """Whose old events were looked for."""


class Retaining:
    """Works in small steps, and goes on with old events where it stopped.

    By a clock that cannot be trusted nothing goes: what seems old may be owed to somebody.
    """

    def __init__(self, store: RetentionStore, clock: LedgerClock) -> None:
        self._store = store
        self._clock = clock
        self._after = _FIRST

    async def step(self) -> Retained:
        """Removes everything that has disappeared, and old events of some inboxes.

        Raises:
            UnavailableError: The store does not answer.
            ClockUntrustedError: Nobody knows what is old.
        """
        self._clock.check()
        removed, woken = await self._expire(), await self._wake()
        inboxes = await self._forget()
        return Retained(removed, woken, inboxes)

    async def everything(self) -> Retained:
        """Makes one whole pass; raises like `step`."""
        self._clock.check()
        self._after = _FIRST
        removed, woken = await self._expire(), await self._wake()
        inboxes = 0
        while found := await self._forget():
            inboxes += found
        return Retained(removed, woken, inboxes)

    async def _expire(self) -> int:
        removed = 0
        while count := await self._store.expire(BATCH, position_at(self._clock.wall_ms() - SPENT_AFTER_MS)):
            removed += count
        return removed

    async def _wake(self) -> int:
        since_ms = self._clock.wall_ms() - WAKE_AFTER_MS
        return await self._store.wake(since_ms, position_at(since_ms - FIRST_ACCEPT_AGE_MS))

    async def _forget(self) -> int:
        """Looks through the next inboxes; returns about how many, 0 at the end, where it starts anew."""
        self._clock.check()
        before = position_at(self._clock.wall_ms() - FORGET_AFTER_MS)
        last = await self._store.forget(before, self._after, BATCH)
        self._after = last or _FIRST
        return BATCH if last else 0
