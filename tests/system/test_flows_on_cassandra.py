"""The three flows of the document with the ledger in Cassandra, as people see them."""

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from chappe.cli.launcher import Mesh
from chappe.client import Tick
from tests.system.conftest import Planner, started
from tests.system.crowd import until
from tests.system.scenarios import PATIENT
from tests.system.steps import Flow, sees_ticks

pytestmark = pytest.mark.system

READY_S = 120.0
"""Its first start takes a while on a busy machine."""


@pytest.fixture(scope="module")
def mesh(planned: Planner) -> Iterator[Mesh]:
    plan = planned("cassandra", edges=2, ledger="cassandra", settings=PATIENT, ready_timeout_s=READY_S)
    with started(plan) as mesh:
        yield mesh


@pytest.fixture
async def flow(mesh: Mesh, tmp_path: Path) -> AsyncIterator[Flow]:
    async with Flow.on(mesh, tmp_path) as flow:
        yield flow


async def test_two_people_talk_and_see_ticks(flow: Flow) -> None:
    user_a = await flow.user("User A", ws_server=0)
    user_b = await flow.user("User B", ws_server=1)

    sent = await user_a.sends("Hey, let's meet at 3pm", to=user_b)
    shown = await user_b.sees("Hey, let's meet at 3pm")
    await user_a.sees_tick(sent.message, Tick.DELIVERED)
    await user_b.reads(shown)
    await user_a.sees_tick(sent.message, Tick.READ)
    answer = await user_b.sends("3pm it is", to=user_a)
    await user_a.reads(await user_a.sees("3pm it is"))

    await user_b.sees_tick(answer.message, Tick.READ)


async def test_a_group_has_a_message_and_its_sender_counts(flow: Flow) -> None:
    user_a = await flow.user("User A", ws_server=0)
    members = await flow.users(5)
    late = members.pop()
    group = (await user_a.me.groups.create("grp_001", [one.user_id for one in (*members, late)])).group
    await late.goes_offline()

    sent = await user_a.sends("Meeting at 3pm", to=group)
    seen = [await member.sees("Meeting at 3pm") for member in members]
    await user_a.sees_count(sent, "delivered to 4/5, read by 0/5")
    await members[0].reads(seen[0])
    await user_a.sees_count(sent, "delivered to 4/5, read by 1/5")
    await late.comes_online()
    await late.sees("Meeting at 3pm")

    await user_a.sees_count(sent, "delivered to 5/5, read by 1/5")


async def test_who_was_offline_gets_everything_in_order_and_scrolls_up(flow: Flow) -> None:
    user_a = await flow.user("User A", ws_server=0)
    user_b = await flow.user("User B", ws_server=1)
    await user_b.goes_offline()
    sent = [await user_a.sends(str(number), to=user_b) for number in range(60)]

    await user_b.comes_online()
    await until(lambda: len(user_b.messages) == len(sent), "user b sees everything")
    page = await user_b.me.history(user_a.number, limit=50)
    rest = await user_b.me.history(user_a.number, limit=50, page=page.next_page)

    assert [message.text for message in user_b.messages] == [str(number) for number in range(60)]
    assert [int(message.text) for message in (*page.messages, *rest.messages)] == list(range(59, -1, -1))
    await sees_ticks(user_a, sent, Tick.DELIVERED)
