"""One run: the whole system, many people who talk, one fault after another, and what came of it."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from chappe.cli.launcher import Mesh, Plan
from chappe.client.errors import NotConnectedError
from chappe.testing import Report
from tests.nemesis.failover import ValkeyPair
from tests.nemesis.faults import Fault, catalogue
from tests.nemesis.ledgers import Ledger, Stand
from tests.nemesis.schedule import CALM_S, draw
from tests.nemesis.wiring import WiredMesh, Wiring
from tests.system.acks import Acks, Figures
from tests.system.circle import Circle
from tests.system.crowd import Crowd, CrowdTerms, NotInTimeError
from tests.system.scenarios import HASTY

WARM_UP: Final = 100
"""Messages acknowledged before the first fault."""
BACK: Final = 20
"""So many more must be acknowledged for a fault to be over."""
BACK_WITHIN_S: Final = 30.0
READY_WITHIN_S: Final = 120.0
"""How long a process may take to start on a machine that has much else to do."""
EXPECTED: Final = frozenset({"NOT_IN_CONVERSATION"})
"""Final refusals that are right: members come and go."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Terms:
    """How a run is made."""

    ledger: Ledger
    data: Path
    """An empty folder."""
    seed: int
    seconds: float
    """About how long faults are made; starting and settling come on top."""
    users: int = 20
    """At least 8: so many are in the group in which members come and go."""
    rate: float = 120.0
    """Messages each second, of everybody together."""
    group_share: float = 0.4
    """Which part of them goes to the two groups, of eight people and of all."""
    looks: bool = True
    """Whether everybody looks at its chats in the end; otherwise a lost count has to be told, which takes a minute."""
    calm_s: float = CALM_S
    """How long nothing is hurt between two faults."""
    only: str = ""
    """A part of the names of the faults to draw from."""


class Window(NamedTuple):
    """A fault and its time, in milliseconds of wall time."""

    fault: Fault
    begun_ms: float
    ended_ms: float
    """When what was hurt is whole again."""
    resumed_s: float
    """How long it took from there until somebody's message was acknowledged; infinite when it did not in time."""


@dataclass(slots=True)
class Outcome:
    """What came of a run."""

    terms: Terms
    report: Report
    windows: list[tuple[Window, Figures]]
    whole: Figures
    refusals: dict[str, int] = field(default_factory=dict[str, int])
    """Final refusals that nobody should have got."""
    gone: dict[str, str] = field(default_factory=dict[str, str])
    """Devices that have given up for good, and why."""

    @property
    def never_resumed(self) -> list[str]:
        """The faults after which nothing was acknowledged for too long."""
        return [window.fault.name for window, _ in self.windows if window.resumed_s == float("inf")]

    @property
    def is_good(self) -> bool:
        """Whether nothing was lost, doubled or out of order, and sending always went on."""
        broken = self.never_resumed or self.refusals or self.gone or self.report.unjudged
        return self.report.is_silent and not broken


async def play(terms: Terms, say: Callable[[str], None]) -> Outcome:
    """Runs once; raises `LaunchError` when the system does not even start."""
    lots = random.Random(terms.seed)
    plan = Plan(
        data=terms.data,
        edges=2,
        replicas=2,
        settings=HASTY,
        ready_timeout_s=READY_WITHIN_S,
        is_traced=False,
    )
    start_s = time.monotonic()

    def tell(text: str) -> None:
        say(f"[{time.monotonic() - start_s:6.1f} s] {text}")

    async with _stage(plan, terms.ledger) as (wiring, pair, stand):
        faults = [*catalogue(wiring, pair, lots), *stand.harms(wiring, lots)]
        faults = [fault for fault in faults if terms.only in fault.name]
        drawn = draw(faults, lots, terms.seconds, terms.calm_s)
        devices = [2 if number % 4 == 0 else 1 for number in range(terms.users)]
        crowd_terms = CrowdTerms(
            devices=devices,
            rate=terms.rate,
            group_share=terms.group_share,
            seed=terms.seed,
            looks=terms.looks,
            watches=True,
        )
        async with Crowd(wiring.mesh, "nemesis", crowd_terms) as crowd:
            tell(f"{len(crowd.handsets)} devices of {terms.users} people are there; {len(drawn)} faults to come")
            busy, _ = await crowd.circle(*range(8)), await crowd.circle(*range(terms.users))
            windows = []
            async with crowd.talking(), _coming_and_going(crowd, busy):
                await crowd.acknowledged(WARM_UP)
                for fault in drawn:
                    tell(fault.name)
                    windows.append(await _suffer(crowd, fault))
                    tell(f"    resumed after {windows[-1].resumed_s:.2f} s; {crowd.books.acknowledged} acknowledged")
                    await asyncio.sleep(terms.calm_s)
            tell("all is whole; waiting until all is quiet")
            gone = _gone(crowd)
            report = await crowd.verdict()
            refusals = {reason: n for reason, n in crowd.books.refusals.items() if reason not in EXPECTED}
            acks = Acks.read(sorted((terms.data / "histories").glob("nemesis-*/*.jsonl")))
    figures = [(window, acks.within(window.begun_ms, window.ended_ms + CALM_S * 1000)) for window in windows]
    whole = acks.within(acks.sent_ms[0], acks.stored_ms[-1])
    return Outcome(terms, report, figures, whole, refusals, gone)


@asynccontextmanager
async def _stage(plan: Plan, ledger: Ledger) -> AsyncGenerator[tuple[Wiring, ValkeyPair, Stand]]:
    folder = plan.data.with_name(f"{plan.data.name}-ledger")
    async with ledger.stand(folder) as stand, Wiring(stand.of(plan), stand.cables) as wiring:
        mesh: Mesh = WiredMesh(wiring, lambda _: None)
        async with mesh, ValkeyPair(wiring, plan.data / "valkey-replica") as pair:
            yield wiring, pair, stand


@asynccontextmanager
async def _coming_and_going(crowd: Crowd, circle: Circle) -> AsyncGenerator[None]:
    """Lets members come and go; when their owner has given up, that is told with the others that have."""
    with suppress(NotConnectedError):
        async with crowd.coming_and_going(circle, 6, 7):
            yield


def _gone(crowd: Crowd) -> dict[str, str]:
    runs = {handset.actor: handset.client._run for handset in crowd.handsets if handset.client is not None}
    return {actor: repr(run.exception()) for actor, run in runs.items() if run is not None and run.done()}


async def _suffer(crowd: Crowd, fault: Fault) -> Window:
    begun_ms = time.time() * 1000
    await fault.begin()
    await asyncio.sleep(fault.hold_s)
    await fault.end()
    ended_ms, ended_s = time.time() * 1000, time.monotonic()
    try:
        await crowd.acknowledged(1, BACK_WITHIN_S)
        resumed_s = time.monotonic() - ended_s
        await crowd.acknowledged(BACK, BACK_WITHIN_S)
    except NotInTimeError:
        resumed_s = float("inf")
    return Window(fault, begun_ms, ended_ms, resumed_s)
