"""The doors of the ledger for groups, over real loopback gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chappe.api.message.v1 import message_service_pb2
from chappe.api.type.v1 import error_reason_pb2
from svc_message.adapters.group_store_memory import MemoryGroupStore
from svc_message.model import MessageEvent
from tests.svc_message.desk import inbox
from tests.svc_message.doors import ALICE, BOB, GROUP, Doors, open_doors
from tests.svc_message.fakes import settle

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

STORED = message_service_pb2.SUBMIT_VERDICT_STORED
REFUSED = message_service_pb2.SUBMIT_VERDICT_REFUSED


@pytest.fixture
async def doors() -> AsyncIterator[Doors]:
    async with open_doors() as opened:
        yield opened


async def test_submit_takes_messages_to_groups_and_to_people(doors: Doors) -> None:
    edge = await doors.submit()

    await edge.send(edge.say(1), edge.say_to_group(2), edge.say_to_group(3, to=b"?" * 16))
    await edge.until(3)
    await settle()

    assert edge.verdicts == {1: STORED, 2: STORED, 3: REFUSED}
    assert edge.frames[2].send_ack.conversation_id == GROUP
    assert edge.frames[3].send_nack.reason == error_reason_pb2.ERROR_REASON_NOT_IN_CONVERSATION
    events = [event for event in await inbox(doors.store, BOB) if isinstance(event, MessageEvent)]
    assert [event.conversation_id == GROUP for event in events] == [False, True]


async def test_submit_looks_up_what_it_does_not_know_of_a_group(doors: Doors) -> None:
    edge = await doors.submit()
    doors.groups.copies.clear()

    await edge.send(edge.say_to_group(1, version=7))
    await edge.until(1)

    assert edge.verdicts == {1: STORED}
    assert doors.groups.reads >= 1


async def test_submit_refuses_a_message_to_nobody(doors: Doors) -> None:
    edge = await doors.submit()

    await edge.send(edge.say_to_group(1, to=b""))
    await edge.until(1)

    assert edge.verdicts == {1: REFUSED}
    assert "message.group_id" in edge.frames[1].send_nack.detail


async def test_a_bug_in_a_flush_of_groups_is_answered_as_retryable(
    doors: Doors, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MemoryGroupStore, "accept", None)
    edge = await doors.submit()

    await edge.send(edge.say_to_group(1))
    await edge.until(1)

    assert edge.frames[1].send_nack.is_retryable


async def test_a_drain_answers_what_was_sent_to_groups(doors: Doors) -> None:
    edge = await doors.submit()
    await edge.send(edge.say_to_group(1))
    await edge.until(1)

    await doors.rpc.drain()
    await doors.journal.drain()

    assert len(await inbox(doors.store, ALICE)) == 1
    assert len(await inbox(doors.store, BOB)) == 1
