"""What dies while another of its kind goes on, one after another, while people talk."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from typing import Final, NamedTuple

from chappe.cli.launcher import SERVICES, Mesh
from tests.system.crowd import Crowd

WARM_UP: Final = 60
"""Messages acknowledged before the first death."""
OUTAGE_S: Final = 4.5
"""Long enough for a client to be refused twice."""


class Death(NamedTuple):
    """One that dies, and what brings it back."""

    whom: str
    kill: Callable[[], Awaitable[object]]
    restart: Callable[[], Awaitable[object]]


def of_services(mesh: Mesh) -> list[Death]:
    """Returns the deaths of the first of each service; there are two of each."""
    return [Death(f"svc_{name}", partial(mesh.kill, name), partial(mesh.restart, name)) for name in SERVICES]


async def suffer(crowd: Crowd, deaths: Iterable[Death], meanwhile: int) -> None:
    """Lets one after another die and come back while a crowd talks.

    The checker judges the waits while one is down; how long a program takes to start again on this machine, beside the
    people of the crowd, is another matter.

    Args:
        crowd: Talks.
        deaths: One after another.
        meanwhile: How many messages are acknowledged before what died is started again.
    """
    history = crowd.handsets[0].history
    async with crowd.talking():
        await crowd.acknowledged(WARM_UP)
        for death in deaths:
            history.note("down", whom=death.whom)
            await death.kill()
            await crowd.acknowledged(meanwhile)
            history.note("up", whom=death.whom)
            await death.restart()
            await crowd.acknowledged(1)


async def outlive(crowd: Crowd, mesh: Mesh, engine: str) -> float:
    """Takes the only one of an engine away for a while; returns how many seconds after its return sends are taken."""
    async with crowd.talking():
        await crowd.acknowledged(WARM_UP)
        await mesh.kill(engine)
        await asyncio.sleep(OUTAGE_S)
        await mesh.restart(engine)
        back_s = time.monotonic()
        await crowd.acknowledged(1)
        return time.monotonic() - back_s
