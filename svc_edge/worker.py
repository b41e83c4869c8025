"""The one loop that keeps time for all sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from chappe.runtime.clock import Clock
    from svc_edge.service.keeper import Keeper

TICK_S = 0.25


async def keep_time(keeper: Keeper, clock: Clock) -> None:
    """Looks at the clock four times a second, for ever."""
    while True:
        await clock.sleep(TICK_S)
        keeper.tick()
