"""FLOW 3 of the document: User B is offline, and gets what was sent meanwhile."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chappe.cli.launcher import Mesh
from chappe.client import Tick
from tests.system.crowd import until
from tests.system.steps import Flow, sees_ticks

pytestmark = pytest.mark.system


@pytest.fixture
async def flow(quiet_mesh: Mesh, tmp_path: Path) -> AsyncIterator[Flow]:
    async with Flow.on(quiet_mesh, tmp_path) as flow:
        yield flow


async def test_user_b_was_offline_while_user_a_sent_10_messages(flow: Flow) -> None:
    user_a = await flow.user("User A", ws_server=0)
    user_b = await flow.user("User B", ws_server=1)
    await user_b.goes_offline()

    sent = [await user_a.sends(f"msg_{number}", to=user_b) for number in range(1, 11)]
    # STEP 1: all of them wait for User B, and User A sees one tick on each.
    for one in sent:
        await flow.is_stored_for(one, user_a, user_b)
    assert {user_a.tick(one.message) for one in sent} == {Tick.SENT}
    assert (await flow.route_of(user_b)).servers == []
    # STEP 2: User B comes online, and Redis knows where.
    await user_b.comes_online()
    route = await flow.route_of(user_b)
    assert (len(route.servers), 0 < route.connection_ttl_s <= 60, 0 < route.online_ttl_s <= 45) == (1, True, True)
    # STEP 3: what is pending is pushed, oldest first.
    await until(lambda: len(user_b.messages) == 10, "user b sees 10 messages")
    assert [message.text for message in user_b.messages] == [f"msg_{number}" for number in range(1, 11)]
    # STEP 4: two ticks on each.
    await sees_ticks(user_a, sent, Tick.DELIVERED)


async def test_after_weeks_the_last_50_are_there_first_and_older_ones_by_scrolling_up(flow: Flow) -> None:
    user_a = await flow.user("User A", ws_server=0)
    user_b = await flow.user("User B", ws_server=1)
    await user_b.goes_offline()
    for number in range(120):
        await user_a.sends(f"{number}", to=user_b)

    # STEP 5: first the last 50 messages of the conversation, then older ones on demand.
    await user_b.comes_online()
    first = await user_b.me.history(user_a.number, limit=50)
    older = await user_b.me.history(user_a.number, limit=50, page=first.next_page)
    oldest = await user_b.me.history(user_a.number, limit=50, page=older.next_page)

    pages = [[int(message.text) for message in page.messages] for page in (first, older, oldest)]
    assert pages == [list(range(119, 69, -1)), list(range(69, 19, -1)), list(range(19, -1, -1))]
    assert oldest.next_page == ""
