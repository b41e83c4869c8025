"""Processes are killed, frozen and restarted under load; the history checker has nothing to say each time."""

import asyncio
from collections.abc import Iterator

import pytest

from chappe.cli.launcher import SERVICES, Mesh
from chappe.testing import Report
from tests.system import scenarios
from tests.system.conftest import Planner, started

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def mesh(planned: Planner) -> Iterator[Mesh]:
    with started(planned("faults", edges=2, settings=scenarios.HASTY)) as mesh:
        yield mesh


def judge(report: Report) -> None:
    """Fails unless much was acknowledged and all of it was judged and found right."""
    assert report.is_silent, f"{report.summary()}\n{report.stories()}"
    assert report.acknowledged > 0
    assert report.unjudged == 0


async def test_nothing_happens(mesh: Mesh) -> None:
    judge(await scenarios.talk(mesh))


@pytest.mark.parametrize("name", [*SERVICES, "postgres", "valkey"])
async def test_one_is_killed(mesh: Mesh, name: str) -> None:
    judge(await scenarios.kill(mesh, name))


async def test_sends_resume_within_5_seconds_after_the_only_database_is_back(mesh: Mesh) -> None:
    judge(await scenarios.outage(mesh, "postgres"))


async def test_devices_come_back_while_nobody_knows_where_they_are(mesh: Mesh) -> None:
    judge(await scenarios.registry_away(mesh))


async def test_everything_is_killed_at_once(mesh: Mesh) -> None:
    judge(await scenarios.crash(mesh))


async def test_the_ledger_stands_still_for_8_seconds(mesh: Mesh) -> None:
    judge(await scenarios.freeze(mesh, "message"))


async def test_an_edge_is_restarted_while_routes_to_its_sessions_live(mesh: Mesh) -> None:
    judge(await scenarios.stale_routes(mesh))


async def test_clients_resume_on_the_other_edge(mesh: Mesh) -> None:
    judge(await scenarios.resume_elsewhere(mesh))


def test_what_a_quiet_recipient_would_miss_is_there_within_a_minute(planned: Planner) -> None:
    terms = {"edges": 2, "settings": scenarios.PATIENT, "is_traced": False}
    plans = [planned(f"quiet-{victim}", **terms) for victim in ("message", "fanout")]
    with started(plans[0]) as one, started(plans[1]) as other:

        async def both() -> list[Report]:
            runs = scenarios.quiet_recipient(one, "message"), scenarios.quiet_recipient(other, "fanout")
            return list(await asyncio.gather(*runs))

        for report in asyncio.run(both()):
            judge(report)
