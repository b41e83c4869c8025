"""Processes are killed, frozen and scaled while people talk in groups, and the history checker has nothing to say.

Of message, fanout, presence and identity there are two each, until one is killed or more are asked for.
"""

import asyncio
from collections.abc import Iterator

import pytest

from chappe.cli.launcher import Mesh
from tests.system import group_scenarios, scenarios
from tests.system.conftest import Planner, started
from tests.system.test_faults import judge

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(180)]


@pytest.fixture(scope="module")
def mesh(planned: Planner) -> Iterator[Mesh]:
    with started(planned("groups", edges=2, replicas=3, settings=scenarios.HASTY, is_traced=False)) as mesh:
        asyncio.run(two_of_each(mesh))
        yield mesh


async def two_of_each(mesh: Mesh) -> None:
    await group_scenarios.stand(mesh, 2)
    await mesh.processes["identity", 2].stop(mesh.plan.drain_s)


async def test_people_talk_while_members_come_and_go(mesh: Mesh) -> None:
    judge(await group_scenarios.talk(mesh))


async def test_carol_is_welcome_after_200_ms_and_gets_nothing_2_seconds_after_her_removal(mesh: Mesh) -> None:
    judge(await group_scenarios.welcome(mesh))


async def test_the_ledger_is_killed_while_it_expands_for_1024_members(mesh: Mesh) -> None:
    judge(await group_scenarios.kill_expanding(mesh))


async def test_the_carrier_is_killed_while_it_pushes_to_1024_members(mesh: Mesh) -> None:
    judge(await group_scenarios.kill_carrying(mesh))


async def test_the_directory_is_killed_between_a_change_and_its_event(mesh: Mesh) -> None:
    judge(await group_scenarios.kill_telling(mesh))


async def test_the_directory_that_tells_inboxes_is_killed_and_the_other_one_takes_over(mesh: Mesh) -> None:
    judge(await group_scenarios.kill_leading(mesh))


async def test_services_grow_and_shrink_and_watchers_still_see_who_comes(mesh: Mesh) -> None:
    judge(await group_scenarios.scale(mesh))


async def test_the_database_stands_still_for_half_a_minute(mesh: Mesh) -> None:
    judge(await group_scenarios.freeze_database(mesh))
