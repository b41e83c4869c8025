"""What is done to a running system, one function each; every one returns the verdict of the history checker.

A scenario takes a mesh that serves, of at least two edges, and leaves it serving.
Those under load want `HASTY` in the settings of their mesh, so that what only a verification finds is found in seconds.
`quiet_recipient` wants `PATIENT`, for it is about what makes an edge verify before its turn.
Those of the last part want two of every service.
"""

import asyncio
import itertools
import signal
from collections.abc import Mapping
from typing import Final

from chappe.cli.launcher import Mesh
from chappe.testing import Report
from tests.system import deaths
from tests.system.crowd import Crowd, CrowdTerms, until

PATIENT: Final[Mapping[str, str]] = {
    # Few people who say much are what the limits are against.
    "CHAPPE_EDGE_FRAME_BURST": "100000",
    "CHAPPE_EDGE_SENSITIVE_CALL_BURST": "100000",
    "CHAPPE_EDGE_FRAME_RATE": "10000",
    "CHAPPE_EDGE_WRITE_CALL_BURST": "100000",
    "CHAPPE_IDENTITY_ADDITIONS_PER_DAY": "1000000",
}
HASTY: Final[Mapping[str, str]] = {
    **PATIENT,
    "CHAPPE_EDGE_VERIFY_INTERVAL_S": "4",
    "CHAPPE_EDGE_VERIFY_JITTER_S": "1",
}
WARM_UP: Final = 60
"""Messages acknowledged before a fault."""
AFTER: Final = 120
"""Messages acknowledged after it, before the talking stops."""
FROZEN_S: Final = 8.0
"""Longer than a position may be old when its write is relied on, shorter than a stream waits for a sign of life."""
RESUMES_WITHIN_S: Final = 5.0
"""Sending resumes so soon after the return of what there is only one of."""
TOLD_AGAIN_S: Final = 7.0
"""Edges tell a new svc_presence of all their sessions within this time."""
FOUND_WITHIN_S: Final = 60.0
"""What was lost on the way to somebody who is connected arrives within this time."""


async def talk(mesh: Mesh) -> Report:
    """Lets a crowd talk, and hurts nobody."""
    async with Crowd(mesh, "talk") as crowd:
        async with crowd.talking():
            await crowd.acknowledged(WARM_UP + AFTER)
        return await crowd.verdict()


async def kill(mesh: Mesh, name: str, number: int = 0) -> Report:
    """Kills one process, a service or an engine, and starts it again."""
    async with Crowd(mesh, f"kill-{name}") as crowd:
        async with crowd.talking():
            await crowd.acknowledged(WARM_UP)
            await mesh.kill(name, number)
            await mesh.restart(name, number)
            await crowd.acknowledged(AFTER)
        return await crowd.verdict()


async def outage(mesh: Mesh, engine: str) -> Report:
    """Takes the only one of an engine away for a while; sends are refused for now, and taken soon after its return."""
    async with Crowd(mesh, f"outage-{engine}") as crowd:
        resumed_s = await deaths.outlive(crowd, mesh, engine)
        async with crowd.talking():
            await crowd.acknowledged(AFTER)
        report = await crowd.verdict()
        assert resumed_s < RESUMES_WITHIN_S, f"sends were taken again after {resumed_s:.1f} s"
        assert not crowd.books.refusals, "sends were refused for good"
        return report


async def registry_away(mesh: Mesh) -> Report:
    """Lets devices come back on the other edge while svc_presence is away: the routes that they left still stand.

    Nobody talks until the edges have told it all, for a message on such a route would show that it leads nowhere.
    """
    async with Crowd(mesh, "registry-away") as crowd:
        async with crowd.talking():
            await crowd.acknowledged(WARM_UP)
        await crowd.settled()
        await mesh.kill("presence")
        for number, handset in enumerate(crowd.handsets):
            await handset.switch_off()
            await handset.switch_on(crowd.edges_of(number + 1))
        await mesh.restart("presence")
        await asyncio.sleep(TOLD_AGAIN_S)
        async with crowd.talking():
            await crowd.acknowledged(AFTER)
        return await crowd.verdict()


async def crash(mesh: Mesh) -> Report:
    """Kills everything at once, and starts everything again."""
    async with Crowd(mesh, "crash") as crowd:
        async with crowd.talking():
            await crowd.acknowledged(WARM_UP)
            await mesh.crash()
            await mesh.start()
            await crowd.acknowledged(AFTER)
        return await crowd.verdict()


async def freeze(mesh: Mesh, name: str, number: int = 0) -> Report:
    """Lets one process stand still for 8 s, in the midst of whatever it does."""
    async with Crowd(mesh, f"freeze-{name}") as crowd:
        async with crowd.talking():
            await crowd.acknowledged(WARM_UP)
            await mesh.kill(name, number, signal.SIGSTOP)
            await asyncio.sleep(FROZEN_S)
            await mesh.kill(name, number, signal.SIGCONT)
            await crowd.acknowledged(AFTER)
        return await crowd.verdict()


async def quiet_recipient(mesh: Mesh, victim: str) -> Report:
    """Loses what was acknowledged between svc_message and people who say nothing and stay connected.

    svc_fanout stands still while messages are sent, and then one of the two is killed: svc_fanout with what it had in
    its hands, or svc_message with what did not fit into the connection.
    """
    async with Crowd(mesh, f"quiet-{victim}", CrowdTerms(devices=(1,) * 9)) as crowd:
        sender, *recipients = crowd.handsets
        for number in range(1, len(crowd.users)):
            crowd.say(sender, number)
        await crowd.settled(FOUND_WITHIN_S)
        sessions = [recipient.sessions for recipient in recipients]
        await mesh.kill("fanout", with_signal=signal.SIGSTOP)
        for number in list(range(1, len(crowd.users))) * 8:
            crowd.say(sender, number, size=32_000)
        await until(lambda: not sender.pending, "sends are acknowledged without svc_fanout", 30)
        await mesh.kill(victim)
        await mesh.kill("fanout", with_signal=signal.SIGCONT)
        await mesh.restart(victim)
        report = await crowd.verdict(FOUND_WITHIN_S)
        assert [recipient.sessions for recipient in recipients] == sessions, "the recipients did not stay connected"
        return report


async def stale_routes(mesh: Mesh) -> Report:
    """Kills an edge, lets other people connect to it, and sends to those whose routes still lead there."""
    async with Crowd(mesh, "stale-routes", CrowdTerms(devices=(1, 1, 1, 1, 1, 1))) as crowd:
        # By turns: numbers 1, 3 and 5 began with the last edge, the others with the first.
        movers, strangers = crowd.handsets[1::2], crowd.handsets[0::2]
        number = mesh.plan.count("edge") - 1
        async with crowd.talking():
            await crowd.acknowledged(WARM_UP)
            await mesh.kill("edge", number)
            for mover in movers:
                await mover.switch_off()
            await mesh.restart("edge", number)
            for stranger in strangers:
                await stranger.switch_off()
                await stranger.switch_on([mesh.ws[number]])
            await crowd.acknowledged(AFTER)
            for mover in movers:
                await mover.switch_on([mesh.ws[0]])
            await crowd.acknowledged(AFTER)
        return await crowd.verdict()


async def resume_elsewhere(mesh: Mesh) -> Report:
    """Lets devices hop from edge to edge while they are written to."""
    async with Crowd(mesh, "resume-elsewhere") as crowd:
        async with crowd.talking():
            for turn, handset in itertools.product(range(3), crowd.handsets[::2]):
                await handset.switch_off()
                await crowd.acknowledged(20)
                await handset.switch_on(crowd.edges_of(crowd.handsets.index(handset) + turn + 1))
            await crowd.acknowledged(AFTER)
        return await crowd.verdict()


async def one_of_each(mesh: Mesh) -> Report:
    """Kills one of two of every service, and starts it again before the next."""
    # Slow enough for a busy machine: what is measured is the deaths.
    async with Crowd(mesh, "one-of-each", CrowdTerms(rate=50)) as crowd:
        await deaths.suffer(crowd, deaths.of_services(mesh), meanwhile=75)
        report = await crowd.verdict()
    assert report.waited_p99_ms, "nothing was sent while one of two was down"
    return report


async def rolling_restart(mesh: Mesh) -> Report:
    """Restarts every process politely, one after the other."""
    async with Crowd(mesh, "rolling-restart", CrowdTerms(rate=25)) as crowd:
        async with crowd.talking():
            await crowd.acknowledged(WARM_UP)
            for service, number in list(mesh.processes):
                await mesh.restart(service, number)
            await crowd.acknowledged(AFTER)
        return await crowd.verdict()
