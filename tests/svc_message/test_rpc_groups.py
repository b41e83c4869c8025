"""The doors of the ledger for groups, over real loopback gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chappe.api.message.v1 import message_service_pb2
from chappe.api.type.v1 import error_reason_pb2
from svc_message.adapters.group_store_memory import MemoryGroupStore
from svc_message.adapters.item_protobuf import item_key
from svc_message.model import ConversationId, DeviceId, MessageEvent, MessageId, Position, UserId
from svc_message.model.group import Expansion, NewGroupMessage, Shard, Touch
from svc_message.model.receipt import MessageName
from tests.svc_message.desk import inbox
from tests.svc_message.doors import ALICE, BOB, GROUP, Doors, open_doors
from tests.svc_message.fakes import message_id, settle
from tests.svc_message.group_desk import group_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

STORED = message_service_pb2.SUBMIT_VERDICT_STORED
REFUSED = message_service_pb2.SUBMIT_VERDICT_REFUSED
POSITION = Position(b"\1" * 16)


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


async def keys_of(doors: Doors, user_id: UserId) -> list[bytes]:
    """Returns the keys of the messages in an inbox, as an edge gets them."""
    return [item_key(event) for event in await inbox(doors.store, user_id) if isinstance(event, MessageEvent)]


def names(keys: list[bytes]) -> list[MessageName]:
    return [MessageName(ConversationId(key[32:48]), MessageId(key[16:32])) for key in keys]


async def test_acknowledgements_of_both_kinds_are_recorded_each_where_it_belongs(doors: Doors) -> None:
    edge = await doors.submit()
    await edge.send(edge.say(1), edge.say_to_group(2))
    await edge.until(2)
    await settle()
    direct, group = keys = await keys_of(doors, BOB)

    await edge.acknowledge(direct + group, group)
    await edge.until(4)

    assert edge.acked == {100, 101}
    tallies = await doors.receipts.tally(names(keys))
    assert [tally and (tally.recipients, tally.delivered, tally.read) for tally in tallies] == [(1, 1, 0), (1, 1, 0)]


async def test_an_acknowledgement_waits_until_its_receipts_are_durable(doors: Doors) -> None:
    edge = await doors.submit()
    await edge.send(edge.say_to_group(1))
    await edge.until(1)
    await settle()
    doors.groups.is_down = True

    (key,) = await keys_of(doors, BOB)
    await edge.acknowledge(key)
    await settle()
    assert edge.acked == set()
    doors.groups.is_down = False
    await edge.until(2)

    assert edge.acked == {100}


async def test_a_read_of_a_group_is_answered_and_recorded(doors: Doors) -> None:
    doors.groups.add(group_of(GROUP, BOB, ALICE))
    edge = await doors.submit()
    minted = message_id(BOB, 1, doors.clock.wall_ms(), 7)
    message = NewGroupMessage(
        minted, GROUP, BOB, DeviceId(1), b"", b"", 1, 1, is_retry=False, position=POSITION, accepted_ms=1
    )
    await doors.group_store.accept(Shard(5), [message])
    await doors.group_store.expand(
        [Expansion(GROUP, POSITION, (message.to_event(),), (ALICE,))], [Touch(GROUP, 1, 1, (ALICE, BOB))]
    )

    await edge.send(
        edge.read_group(1, upto=message.message_id), edge.read_group(2, ids=[message.message_id]), edge.read_group(3)
    )
    await edge.until(3)

    assert edge.verdicts == {1: STORED, 2: STORED, 3: REFUSED}
    (tally,) = await doors.receipts.tally([MessageName(GROUP, message.message_id)])
    assert tally is not None
    assert (tally.delivered, tally.read) == (1, 1)


async def test_a_drain_answers_what_was_sent_to_groups(doors: Doors) -> None:
    edge = await doors.submit()
    await edge.send(edge.say_to_group(1))
    await edge.until(1)

    await doors.rpc.drain()
    await doors.journal.drain()

    assert len(await inbox(doors.store, ALICE)) == 1
    assert len(await inbox(doors.store, BOB)) == 1
