"""FLOW 2 of the document: one message, fanned out to a group."""

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chappe.cli.launcher import Mesh
from tests.system.steps import FAN_OUT_S, LARGE_S, ONLINE_S, Flow, all_see
from tests.system.townspeople import settle

pytestmark = pytest.mark.system


@pytest.fixture
async def flow(quiet_mesh: Mesh, tmp_path: Path) -> AsyncIterator[Flow]:
    async with Flow.on(quiet_mesh, tmp_path) as flow:
        yield flow


async def test_user_a_sends_a_message_to_a_group_of_100(flow: Flow) -> None:
    user_a = await flow.user("User A", ws_server=0)
    members = await flow.users(8)
    late = members.pop()
    offline = await settle(flow.mesh, 91)
    people = [member.user_id for member in (*members, late)] + offline
    group = (await user_a.me.groups.create("grp_001", people)).group
    assert group.member_count == 100
    await late.goes_offline()

    # STEP 1: sealed once; STEP 2: for all members of the group. User A sees one tick without waiting for them.
    sent = await user_a.sends("Meeting at 3pm", to=group)
    # STEP 3: it is in 100 inboxes.
    await flow.is_stored_for(sent, user_a, late, *members, others=91, within_s=FAN_OUT_S * 10)
    # STEP 4: whoever is online has it.
    await all_see(members, sent, within_s=ONLINE_S)
    # STEP 5: User A sees how many have it, and how many have read it.
    await user_a.sees_count(sent, "delivered to 7/99, read by 0/99")
    for member in members[:3]:
        await member.reads(await member.sees("Meeting at 3pm"))
    await user_a.sees_count(sent, "delivered to 7/99, read by 3/99")
    # The others get it when they come online.
    await late.comes_online()
    await late.sees("Meeting at 3pm")
    await user_a.sees_count(sent, "delivered to 8/99, read by 3/99")


async def test_the_quickest_of_20_messages_is_in_100_inboxes_within_the_50_ms_of_the_document(flow: Flow) -> None:
    user_a = await flow.user("User A", ws_server=0)
    group = (await user_a.me.groups.create("grp_003", await settle(flow.mesh, 99))).group

    took_s = []
    for number in range(20):
        sent = await user_a.sends(f"{number}", to=group)
        await flow.is_stored_for(sent, user_a, others=99)
        took_s.append(time.monotonic() - sent.pressed_s)

    assert min(took_s) < FAN_OUT_S, took_s


async def test_a_group_of_1024_has_it_within_half_a_minute(flow: Flow) -> None:
    user_a = await flow.user("User A", ws_server=0)
    members = await flow.users(8)
    people = [member.user_id for member in members] + await settle(flow.mesh, 1015)
    group = (await user_a.me.groups.create("grp_002", people)).group
    assert group.member_count == 1024

    sent = await user_a.sends("Meeting at 3pm", to=group)
    await all_see(members, sent, within_s=LARGE_S / 10)
    await flow.is_stored_for(sent, user_a, *members, others=1015)

    await user_a.sees_count(sent, "delivered to 8/1023, read by 0/1023")
