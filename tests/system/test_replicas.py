"""Two of every service: one of each may die, and all may be restarted, while people talk."""

import dataclasses
from collections.abc import Iterator

import pytest

from chappe.cli.launcher import Mesh
from tests.system import scenarios
from tests.system.conftest import Planner, started
from tests.system.test_faults import judge

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(180)]

WAITED_MS = 10_000.0


@pytest.fixture(scope="module")
def mesh(planned: Planner) -> Iterator[Mesh]:
    with started(planned("replicas", replicas=2, settings=scenarios.HASTY, is_traced=False)) as mesh:
        yield mesh


async def test_one_of_each_is_killed(mesh: Mesh) -> None:
    report = await scenarios.one_of_each(mesh)

    # How long senders wait beside other tests says more of the machine than of the deaths: `make bench ARGS="--only
    # deaths"` holds them to the 2 s of G11, alone.
    assert report.waited_p99_ms < WAITED_MS
    judge(dataclasses.replace(report, counts={**report.counts, "slow": 0}))


async def test_all_are_restarted_one_after_the_other(mesh: Mesh) -> None:
    judge(await scenarios.rolling_restart(mesh))
