"""The one loop that keeps time for all sessions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svc_edge.service.sessions import SLOT_S

if TYPE_CHECKING:
    from chappe.runtime.clock import Clock
    from svc_edge.service.keeper import Keeper


async def keep_time(keeper: Keeper, clock: Clock) -> None:
    """Turns the wheel of looks by a slot at a time, for ever."""
    while True:
        await clock.sleep(SLOT_S)
        keeper.tick()
