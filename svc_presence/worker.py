"""The one loop that keeps time for everybody who is watched or typing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chappe.runtime.clock import Clock
    from svc_presence.service.desk import Desk

TICK_S = 0.25


async def keep_time(desk: Desk, clock: Clock) -> None:
    """Looks at the clock four times a second, for ever."""
    while True:
        await clock.sleep(TICK_S)
        desk.tick()
