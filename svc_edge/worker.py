"""The one loop that keeps time for all sessions, and the one that asks again who may stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svc_edge.service.sessions import SLOT_S
from svc_edge.service.sign_in import ASK_AGAIN_S

if TYPE_CHECKING:
    from chappe.runtime.clock import Clock
    from svc_edge.service.keeper import Keeper
    from svc_edge.service.sign_in import SignIn


async def keep_time(keeper: Keeper, clock: Clock) -> None:
    """Turns the wheel of looks by a slot at a time, for ever."""
    while True:
        await clock.sleep(SLOT_S)
        keeper.tick()


async def make_sure(sign_in: SignIn, clock: Clock) -> None:
    """Asks again and again about sessions that were let in while svc_identity did not answer, for ever."""
    while True:
        await clock.sleep(ASK_AGAIN_S)
        await sign_in.ask_again()
