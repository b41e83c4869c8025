"""FLOW 1 of the document: User A sends a message to User B."""

from collections.abc import AsyncIterator
from pathlib import Path
from statistics import median

import pytest

from chappe.cli.launcher import Mesh
from chappe.client import Tick
from tests.system.steps import ONLINE_S, Flow

pytestmark = pytest.mark.system


@pytest.fixture
async def flow(quiet_mesh: Mesh, tmp_path: Path) -> AsyncIterator[Flow]:
    async with Flow.on(quiet_mesh, tmp_path) as flow:
        yield flow


async def test_user_a_sends_a_message_to_user_b(flow: Flow) -> None:
    user_a = await flow.user("User A", ws_server=0)
    user_b = await flow.user("User B", ws_server=1)

    # STEP 1: the device seals the text; STEP 2: it sends it over its WebSocket.
    sent = await user_a.sends("Hey, let's meet at 3pm", to=user_b)
    # STEP 3: the server validates and stores it, for both.
    await flow.is_stored_for(sent, user_a, user_b)
    # STEP 4: User A sees one tick.
    assert user_a.tick(sent.message) >= Tick.SENT
    # STEP 5: where is User B?
    assert (await flow.route_of(user_b)).servers != (await flow.route_of(user_a)).servers
    # STEP 6: that server pushes it, and User B's device shows it. Online the whole takes less than 500 ms.
    shown = await user_b.is_shown(sent, within_s=ONLINE_S)
    # STEP 7: User B's device has it: two ticks.
    await user_a.sees_tick(sent.message, Tick.DELIVERED)
    # STEP 8: User B opens the chat: blue ticks.
    await user_b.reads(shown)
    await user_a.sees_tick(sent.message, Tick.READ)


async def test_half_of_11_messages_are_shown_within_the_500_ms_of_the_document(flow: Flow) -> None:
    user_a = await flow.user("User A", ws_server=0)
    user_b = await flow.user("User B", ws_server=1)

    took_s = []
    for number in range(11):
        sent = await user_a.sends(f"{number}", to=user_b)
        took_s.append(user_b.time_to(await user_b.is_shown(sent, within_s=ONLINE_S), sent))

    assert median(took_s) < ONLINE_S, took_s


async def test_user_b_answers_and_the_ticks_come_the_other_way(flow: Flow) -> None:
    user_a = await flow.user("User A", ws_server=0)
    user_b = await flow.user("User B", ws_server=1)
    await user_b.is_shown(await user_a.sends("3pm?", to=user_b), within_s=ONLINE_S)

    answer = await user_b.sends("3pm it is", to=user_a)
    await user_a.reads(await user_a.is_shown(answer, within_s=ONLINE_S))

    await user_b.sees_tick(answer.message, Tick.READ)
    assert [message.text for message in user_b.messages] == ["3pm?"]
