"""How long senders wait while one of several dies: a system of its own, of two of each service, on which people talk.

A ledger in Cassandra has three nodes here, of which one dies, too. The only PostgreSQL dies last, and comes back.
"""

import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from chappe.cli.launcher import Mesh, Plan
from tests.bench.driver import BenchError
from tests.nemesis.ledgers import LEDGERS
from tests.system.acks import Acks, Figures
from tests.system.crowd import Crowd, CrowdTerms
from tests.system.deaths import of_services, outlive, suffer
from tests.system.scenarios import HASTY


class Way(NamedTuple):
    """How it is done with one engine."""

    stand: str
    """The one of nemesis that has more than one of what it can have."""
    rate: float
    """Messages each second: far from what two cores can do, so that what is measured is the deaths."""


WAYS: Final[Mapping[str, Way]] = {"postgres": Way("postgres", 200.0), "cassandra": Way("cassandra-3", 30.0)}
"""By the engine of a run."""
READY_WITHIN_S: Final = 120.0
MEANWHILE: Final = 150
"""Messages acknowledged before what died is started again."""


class Deaths(NamedTuple):
    """What came of them."""

    number: int
    acknowledged: int
    down_p99_ms: float
    """Of the messages that were sent while something was down."""
    whole: Figures
    """Of everything, restarts too."""
    resumed_s: float | None
    """How soon after the return of the only engine sends are taken again; None where there are several."""


async def measure_deaths(ledger: str, seconds: float) -> Deaths:
    """Kills one after another; raises `BenchError` when the history checker has something to say.

    Args:
        ledger: The engine that keeps the ledger.
        seconds: How long people talk before, so that everything is warm.
    """
    way = WAYS[ledger]
    with tempfile.TemporaryDirectory(prefix="chappe-bench-deaths-") as name:
        folder = Path(name)
        async with LEDGERS[way.stand].stand(folder / "ledger") as stand:
            plan = Plan(
                data=folder / "data",
                edges=2,
                replicas=2,
                settings=HASTY,
                ready_timeout_s=READY_WITHIN_S,
                is_traced=False,
            )
            mesh = Mesh(stand.of(plan))
            await mesh.start()
            try:
                async with Crowd(mesh, "deaths", CrowdTerms(rate=way.rate)) as crowd:
                    async with crowd.talking():
                        await crowd.acknowledged(
                            max(1, int(seconds * way.rate)), timeout_s=10 * seconds + READY_WITHIN_S
                        )
                    deaths = [*of_services(mesh), *stand.deaths[:1]]
                    await suffer(crowd, deaths, MEANWHILE)
                    ended_ms = time.time() * 1000
                    resumed_s = None if stand.deaths else await outlive(crowd, mesh, ledger)
                    report = await crowd.verdict()
            finally:
                await mesh.stop()
        if not report.is_silent:
            raise BenchError(f"the history checker objects: {report.summary()}\n{report.stories()}")
        acks = Acks.read(sorted((plan.data / "histories").glob("deaths-*/*.jsonl")))
    whole = acks.within(acks.sent_ms[0], ended_ms)
    return Deaths(len(deaths), report.acknowledged, report.waited_p99_ms, whole, resumed_s)
