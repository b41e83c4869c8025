"""What is done to a running system while people talk in groups; every function returns the verdict of the checker.

A scenario takes a mesh of two edges and two or more of every other service, with `HASTY` in its settings, and leaves it
serving as it was.
"""

import asyncio
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

from chappe.cli.launcher import Mesh
from chappe.client import Presence, PresenceChanged
from chappe.testing import Report
from tests.system.circle import Circle
from tests.system.crowd import Crowd, CrowdTerms, until
from tests.system.figures import sample
from tests.system.ledger import LedgerBook, frozen_postgres
from tests.system.person import Person, registered
from tests.system.scenarios import RESUMES_WITHIN_S

LARGE: Final = 1024
"""As many members as a group may have."""
LARGE_CROWD: Final = CrowdTerms(devices=(1,) * 20, rate=40, group_share=0.5)
MIXED_CROWD: Final = CrowdTerms(devices=(2, 1, 1, 2, 1, 1), rate=60, group_share=0.7)
BURST: Final = 40
"""Messages to a large group at once: expanding them takes longer than accepting them."""
ADOPTED_WITHIN_S: Final = 15.0
FROZEN_S: Final = 30.0
COME_WITHIN_S: Final = 5.0
GONE_WITHIN_S: Final = 10.0
"""The moment for a comeback included."""
SCALING: Final = ("message", "fanout", "presence")
WELCOMED_AFTER_S: Final = 0.2
BITES_WITHIN_S: Final = 2.0


async def talk(mesh: Mesh) -> Report:
    """Lets people talk in two groups while some come and go, and hurts nobody."""
    async with Crowd(mesh, "group-talk", MIXED_CROWD) as crowd:
        steady, busy = await _two_circles(crowd)
        async with crowd.talking(), crowd.coming_and_going(busy, 4, 5), crowd.coming_and_going(steady, 3):
            await crowd.acknowledged(300)
        return await crowd.verdict()


async def kill_expanding(mesh: Mesh) -> Report:
    """Kills svc_message while it writes what a large group gets; what it owes, the other one writes."""
    async with Crowd(mesh, "group-kill-message", LARGE_CROWD) as crowd, LedgerBook.of(mesh) as book:
        circle = await _large_circle(crowd)
        for handset in crowd.handsets[:2]:
            for _ in range(BURST):
                crowd.tell(handset, circle)
        await crowd.acknowledged(BURST // 2)
        await mesh.kill("message")
        killed_s = time.time()
        await asyncio.sleep(1.5)
        assert await book.entries_of_orphans(killed_s), "it had nothing in its hands"
        took_s = await book.adopted(killed_s, ADOPTED_WITHIN_S)
        print(f"adopted after {took_s:.1f} s")
        await mesh.restart("message")
        async with crowd.talking():
            await crowd.acknowledged(40)
        report = await crowd.verdict()
        assert not await book.parked(), "entries were parked"
        return report


async def kill_carrying(mesh: Mesh) -> Report:
    """Kills svc_fanout while it pushes to a large group."""
    async with Crowd(mesh, "group-kill-fanout", LARGE_CROWD) as crowd:
        circle = await _large_circle(crowd)
        async with crowd.talking():
            for number in (0, 1):
                for _ in range(BURST // 2):
                    crowd.tell(crowd.handsets[0], circle)
                await crowd.acknowledged(BURST // 4)
                await mesh.kill("fanout", number)
                await crowd.acknowledged(BURST)
                await mesh.restart("fanout", number)
        return await crowd.verdict()


async def kill_telling(mesh: Mesh) -> Report:
    """Kills svc_identity after members were added and removed, before the inboxes could be told of it."""
    async with Crowd(mesh, "group-kill-identity", MIXED_CROWD) as crowd:
        steady, busy = await _two_circles(crowd)
        async with crowd.talking():
            await crowd.acknowledged(60)
        await crowd.settled()
        ledgers, directories = range(mesh.plan.count("message")), range(mesh.plan.count("identity"))
        running = [number for number in ledgers if mesh.processes["message", number].is_running]
        for number in running:
            await mesh.kill("message", number)
        await crowd.remove(busy, 5)
        await crowd.remove(steady, 3)
        await steady.add(crowd.users[4][0].user_id)
        killed = [number for number in directories if mesh.processes["identity", number].is_running]
        for number in killed:
            await mesh.kill("identity", number)
        dead = [*(("message", number) for number in running), *(("identity", number) for number in killed)]
        await asyncio.gather(*(mesh.restart(*process) for process in dead))
        async with crowd.talking():
            await crowd.acknowledged(60)
        return await crowd.verdict()


async def kill_leading(mesh: Mesh) -> Report:
    """Kills the svc_identity that tells inboxes, after changes and before it could; the other one takes over."""
    async with Crowd(mesh, "group-kill-leader", MIXED_CROWD) as crowd:
        told = _told(mesh)
        steady, busy = await _two_circles(crowd)
        async with crowd.talking():
            await crowd.acknowledged(60)
        await crowd.settled()
        (leader,) = [number for number, count in _told(mesh).items() if count > told[number]]
        ledgers = [
            number for number in range(mesh.plan.count("message")) if mesh.processes["message", number].is_running
        ]
        for number in ledgers:
            await mesh.kill("message", number)
        await crowd.remove(busy, 5)
        await steady.add(crowd.users[4][0].user_id)
        await mesh.kill("identity", leader)
        await asyncio.gather(*(mesh.restart("message", number) for number in ledgers))
        async with crowd.talking():
            await crowd.acknowledged(60)
        report = await crowd.verdict()
        await mesh.restart("identity", leader)
        return report


async def freeze_database(mesh: Mesh) -> Report:
    """Lets PostgreSQL stand still for half a minute: sends are refused for now, and taken soon after it goes on."""
    async with Crowd(mesh, "group-frozen-postgres", MIXED_CROWD) as crowd, LedgerBook.of(mesh) as book:
        _, busy = await _two_circles(crowd)
        async with crowd.talking(), crowd.coming_and_going(busy, 4, 5):
            await crowd.acknowledged(60)
            async with frozen_postgres(mesh):
                await asyncio.sleep(FROZEN_S)
            await crowd.acknowledged(1, timeout_s=RESUMES_WITHIN_S)
            await crowd.acknowledged(60)
        report = await crowd.verdict()
        assert not await book.parked(), "entries were parked"
        finally_refused = {reason for reason in crowd.books.refusals if reason != "NOT_IN_CONVERSATION"}
        assert not finally_refused, f"sends were refused for good: {finally_refused}"
        return report


async def welcome(mesh: Mesh, rounds: int = 5) -> Report:
    """Adds somebody and writes 200 ms later, removes her and writes 2 s later, again and again under load."""
    async with Crowd(mesh, "group-welcome", MIXED_CROWD) as crowd:
        circle, _ = await _two_circles(crowd)
        owner, carol = crowd.handsets[0], crowd.users[5][0]
        async with crowd.talking():
            for _ in range(rounds):
                await circle.add(carol.user_id)
                await asyncio.sleep(WELCOMED_AFTER_S)
                owner.versions[circle.group_id] = circle.version
                crowd.tell(owner, circle)
                await crowd.remove(circle, 5)
                await asyncio.sleep(BITES_WITHIN_S)
                crowd.tell(owner, circle)
        return await crowd.verdict()


async def scale(mesh: Mesh) -> Report:
    """Grows from one replica of message, fanout and presence to three and shrinks again, politely, while people talk.

    Somebody arrives at each step, and a watcher sees it in time.
    """
    steps = (1, 3, 1)
    async with Crowd(mesh, "group-scale", MIXED_CROWD) as crowd:
        _, busy = await _two_circles(crowd)
        async with Arrivals.on(mesh, len(steps)) as arrivals:
            async with crowd.talking(), crowd.coming_and_going(busy, 4, 5):
                for count in steps:
                    await stand(mesh, count)
                    await crowd.acknowledged(60)
                    await arrivals.next()
            await stand(mesh, 2)
        return await crowd.verdict()


async def stand(mesh: Mesh, count: int) -> None:
    """Starts and stops processes until there are so many of each service that scales by itself."""
    for service in SCALING:
        for number in range(mesh.plan.count(service)):
            process = mesh.processes[service, number]
            if number < count and not process.is_running:
                await mesh.restart(service, number)
            elif number >= count and process.is_running:
                assert await process.stop(mesh.plan.drain_s), f"{process.name} did not stop by itself"


class Arrivals:
    """People who come one after the other, and Alice, who watches them from the other edge."""

    def __init__(self, alice: Person, people: list[Person], user_ids: list[bytes]) -> None:
        self._alice = alice
        self._waiting = list(zip(people, user_ids, strict=True))
        self._stack: AsyncExitStack

    @classmethod
    @asynccontextmanager
    async def on(cls, mesh: Mesh, count: int) -> AsyncGenerator["Arrivals"]:
        """Lets everybody register, and Alice watch; all of them leave when the block is over, and Alice sees it."""
        folder = Path(tempfile.mkdtemp(dir=mesh.plan.data))
        async with await registered(mesh.ws[0], folder / "alice", "Alice") as alice:
            people, user_ids = [], []
            for number in range(count):
                person = await registered(mesh.ws[1], folder / f"{number}", f"person {number}")
                async with person:
                    await person.me.people.add(alice.number, "Alice")
                    user_ids.append(person.me.user_id)
                people.append(person)
            await alice.me.presence.watch(*user_ids)
            arrivals = cls(alice, people, user_ids)
            async with AsyncExitStack() as stack:
                arrivals._stack = stack
                yield arrivals
            for user_id in user_ids:
                await arrivals._sees(user_id, Presence.OFFLINE, GONE_WITHIN_S)

    async def next(self) -> None:
        """Lets the next one come; Alice sees it in time."""
        person, user_id = self._waiting.pop(0)
        await self._stack.enter_async_context(person)
        await self._sees(user_id, Presence.ONLINE, COME_WITHIN_S)

    async def _sees(self, user_id: bytes, presence: Presence, timeout_s: float) -> None:
        def last() -> list[Presence]:
            return [told.presence for told in self._alice.of(PresenceChanged) if told.user_id == user_id][-1:]

        await until(lambda: last() == [presence], f"alice sees that somebody is {presence.name}", timeout_s)


def _told(mesh: Mesh) -> dict[int, float]:
    """Returns how many events each running svc_identity has told inboxes of; one of them leads."""
    running = [number for number in range(mesh.plan.count("identity")) if mesh.processes["identity", number].is_running]
    return {number: sample(mesh, "identity", number, "chappe_identity_told_events_total") for number in running}


async def _two_circles(crowd: Crowd) -> tuple[Circle, Circle]:
    return await crowd.circle(0, 1, 2, 3), await crowd.circle(1, 2, 3, 4, 5)


async def _large_circle(crowd: Crowd) -> Circle:
    people = len(crowd.users)
    circle = await crowd.circle(*range(people), townspeople=LARGE - people)
    assert len(circle.members) == LARGE
    return circle
