"""The doors of the ledger for groups, over real loopback gRPC."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from chappe.api.edge.v1 import item_pb2, send_pb2
from chappe.api.message.v1 import (
    conversation_service_pb2,
    conversation_service_pb2_grpc,
    history_service_pb2,
    history_service_pb2_grpc,
    message_service_pb2,
    receipt_service_pb2,
    receipt_service_pb2_grpc,
)
from chappe.api.type.v1 import envelope_pb2, error_reason_pb2, receipt_state_pb2
from svc_message.adapters.group_store_memory import MemoryGroupStore
from svc_message.adapters.item_protobuf import item_key
from svc_message.model import (
    ConversationId,
    DeviceId,
    MessageEvent,
    MessageId,
    Position,
    ReceiptState,
    ReceiptUpdate,
    UserId,
)
from svc_message.model.action import EditEvent, ReactionEvent, RevokeEvent
from svc_message.model.group import Expansion, NewGroupMessage, Shard, Touch
from svc_message.model.receipt import MessageName
from svc_message.protocol import direct_conversation
from tests.svc_message.desk import inbox
from tests.svc_message.doors import ALICE, BOB, GROUP, Doors, open_doors
from tests.svc_message.fakes import message_id, settle
from tests.svc_message.group_desk import group_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

STORED = message_service_pb2.SUBMIT_VERDICT_STORED
REFUSED = message_service_pb2.SUBMIT_VERDICT_REFUSED
RECEIPTS = receipt_service_pb2_grpc.ReceiptServiceStub
HISTORY = history_service_pb2_grpc.HistoryServiceStub
CONVERSATIONS = conversation_service_pb2_grpc.ConversationServiceStub
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


def on_message(number: int, target: bytes, doors: Doors, kind: str) -> bytes:
    """Returns a serialised Send of Alice's that does something to a message of the group."""
    envelope = envelope_pb2.Envelope(suite=envelope_pb2.ENCRYPTION_SUITE_NONE, content=b"new")
    kinds: dict[str, Any] = {
        "edit": send_pb2.SendEdit(group_id=GROUP, message_id=target, envelope=envelope),
        "reaction": send_pb2.SendReaction(group_id=GROUP, message_id=target, envelope=envelope),
        "revoke": send_pb2.SendRevoke(group_id=GROUP, message_id=target, scope=send_pb2.REVOKE_SCOPE_EVERYONE),
    }
    return send_pb2.Send(
        message_id=message_id(ALICE, 1, doors.clock.wall_ms(), number), attempt=1, **{kind: kinds[kind]}
    ).SerializeToString()


async def test_submit_takes_edits_reactions_and_revokes_in_groups(doors: Doors) -> None:
    edge = await doors.submit()
    await edge.send(edge.say_to_group(1), edge.say_to_group(2))
    await edge.until(2)
    first, second = (message_id(ALICE, 1, doors.clock.wall_ms(), number) for number in (1, 2))

    await edge.send(
        on_message(3, first, doors, "edit"),
        on_message(4, first, doors, "reaction"),
        on_message(5, second, doors, "revoke"),
        on_message(6, b"?" * 16, doors, "edit"),
        first=3,
    )
    await edge.until(6)
    await settle()

    assert [edge.verdicts[number] for number in (3, 4, 5, 6)] == [STORED, STORED, STORED, REFUSED]
    assert edge.frames[3].send_ack.conversation_id == GROUP
    assert edge.frames[6].send_nack.reason == error_reason_pb2.ERROR_REASON_MESSAGE_NOT_FOUND
    kinds = [type(event) for event in await inbox(doors.store, BOB)]
    assert kinds[-3:] == [EditEvent, ReactionEvent, RevokeEvent]
    request = history_service_pb2.ListMessagesRequest(group_id=GROUP)
    revoked, edited = (await doors.call(HISTORY, "ListMessages", request, BOB)).messages
    assert (edited.message.envelope.content, len(edited.reactions)) == (b"new", 1)
    assert revoked.message.revoked_ms


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


async def talk(doors: Doors) -> tuple[bytes, bytes]:
    """Lets Alice write to Bob and to the group, and Bob receive both; returns the ids."""
    edge = await doors.submit()
    await edge.send(edge.say(1), edge.say_to_group(2))
    await edge.until(2)
    await settle()
    keys = await keys_of(doors, BOB)
    await edge.acknowledge(*keys)
    await edge.until(4)
    return keys[0][16:32], keys[1][16:32]


async def test_batch_get_receipts_counts_own_messages_of_both_kinds(doors: Doors) -> None:
    doors.caller = "svc-edge"
    direct, group = await talk(doors)
    queries = [
        receipt_service_pb2.ReceiptQuery(peer_user_id=BOB, message_id=direct),
        receipt_service_pb2.ReceiptQuery(group_id=GROUP, message_id=group),
        receipt_service_pb2.ReceiptQuery(group_id=GROUP, message_id=direct),
    ]
    request = receipt_service_pb2.BatchGetReceiptsRequest(queries=queries)

    own = await doors.call(RECEIPTS, "BatchGetReceipts", request, ALICE)
    others = await doors.call(RECEIPTS, "BatchGetReceipts", request, BOB)

    counted = [(one.is_found, one.recipient_count, one.delivered_count, one.read_count) for one in own.counts]
    assert counted == [(True, 1, 1, 0), (True, 1, 1, 0), (False, 0, 0, 0)]
    assert [one.message_id for one in own.counts] == [direct, group, direct]
    assert not any(one.is_found for one in others.counts)


async def test_list_receipts_tells_the_sender_alone_who_received_a_message(doors: Doors) -> None:
    _, group = await talk(doors)
    message = receipt_service_pb2.ReceiptQuery(group_id=GROUP, message_id=group)
    request = receipt_service_pb2.ListReceiptsRequest(message=message)

    answer = await doors.call(RECEIPTS, "ListReceipts", request, ALICE)
    refusal = await doors.refusal(RECEIPTS, "ListReceipts", request, BOB)

    (receipt,) = answer.receipts
    assert (receipt.user_id, receipt.state) == (BOB, receipt_state_pb2.RECEIPT_STATE_DELIVERED)
    assert (receipt.delivered_ms, receipt.read_ms) == (doors.clock.wall_ms(), 0)
    assert (refusal.code, refusal.reason) == ("NOT_FOUND", "MESSAGE_NOT_FOUND")


async def test_receipts_come_in_pages_that_belong_to_one_message(doors: Doors) -> None:
    crowd = sorted(bytes([number]) * 16 for number in range(1, 6))
    doors.groups.add(group_of(GROUP, ALICE, *map(UserId, crowd)))
    edge = await doors.submit()
    await edge.send(edge.say_to_group(1), edge.say_to_group(2))
    await edge.until(2)
    await settle()
    (key, _) = await keys_of(doors, ALICE)
    for number, user_id in enumerate(crowd):
        await edge.acknowledge(key, reader=user_id, first=100 + number)
    await edge.until(7)
    message = receipt_service_pb2.ReceiptQuery(group_id=GROUP, message_id=key[16:32])
    request = receipt_service_pb2.ListReceiptsRequest(message=message, page_size=3)

    first = await doors.call(RECEIPTS, "ListReceipts", request, ALICE)
    request.page_token = first.next_page_token
    second = await doors.call(RECEIPTS, "ListReceipts", request, ALICE)

    assert [receipt.user_id for receipt in (*first.receipts, *second.receipts)] == crowd
    assert second.next_page_token == ""
    (_, other) = await keys_of(doors, ALICE)
    request.message.message_id = other[16:32]
    assert (await doors.refusal(RECEIPTS, "ListReceipts", request, ALICE)).reason == "INVALID_PAGE_TOKEN"


async def test_who_gives_no_read_receipts_sees_none(doors: Doors) -> None:
    doors.groups.add(group_of(GROUP, ALICE, BOB))
    direct, _ = await talk(doors)
    update = ReceiptUpdate(
        BOB,
        DeviceId(1),
        direct_conversation(ALICE, BOB),
        ALICE,
        ReceiptState.READ,
        (MessageId(direct),),
        b"",
        is_forced=False,
        position=POSITION,
        recorded_ms=9,
    )
    await doors.store.apply_receipts([update])
    message = receipt_service_pb2.ReceiptQuery(peer_user_id=BOB, message_id=direct)
    batch = receipt_service_pb2.BatchGetReceiptsRequest(queries=[message])
    page = receipt_service_pb2.ListReceiptsRequest(message=message)
    assert (await doors.call(RECEIPTS, "BatchGetReceipts", batch, ALICE)).counts[0].read_count == 1

    shy = doors.directory.truth[ALICE]._replace(gives_read_receipts=False)
    doors.directory.truth[ALICE] = shy
    doors.directory.copies.clear()

    assert (await doors.call(RECEIPTS, "BatchGetReceipts", batch, ALICE)).counts[0].read_count == 0
    (receipt,) = (await doors.call(RECEIPTS, "ListReceipts", page, ALICE)).receipts
    assert (receipt.state, receipt.read_ms) == (receipt_state_pb2.RECEIPT_STATE_DELIVERED, 0)


@pytest.mark.parametrize(("peer", "group"), [(b"", b""), (BOB, GROUP)])
async def test_history_is_of_a_peer_or_of_a_group(doors: Doors, peer: bytes, group: bytes) -> None:
    request = history_service_pb2.ListMessagesRequest(peer_user_id=peer, group_id=group)

    refusal = await doors.refusal(HISTORY, "ListMessages", request, BOB)

    assert (refusal.reason, refusal.metadata["field"]) == ("INVALID_FIELD", "peer_user_id")


async def test_members_list_messages_of_a_group_and_others_do_not(doors: Doors) -> None:
    _, group = await talk(doors)
    request = history_service_pb2.ListMessagesRequest(group_id=GROUP)

    page = await doors.call(HISTORY, "ListMessages", request, BOB)

    (stored,) = page.messages
    assert (stored.message.message_id, stored.message.group_id) == (group, GROUP)
    assert stored.state == receipt_state_pb2.RECEIPT_STATE_DELIVERED
    for group_id in (GROUP, bytes(16)):
        request.group_id = group_id
        assert (await doors.refusal(HISTORY, "ListMessages", request, b"?" * 16)).reason == "NOT_IN_CONVERSATION"


async def test_list_conversations_names_groups(doors: Doors) -> None:
    _, group = await talk(doors)
    request = conversation_service_pb2.ListConversationsRequest()

    answer = await doors.call(CONVERSATIONS, "ListConversations", request, BOB)

    by_id = {one.conversation_id: one for one in answer.conversations}
    assert (by_id[GROUP].group_id, by_id[GROUP].peer_user_id) == (GROUP, b"")
    assert by_id[GROUP].last_message.message.message_id == group
    assert by_id[GROUP].unread_count == 1
    (direct,) = [one for one in answer.conversations if not one.group_id]
    assert direct.peer_user_id == ALICE


async def test_sync_inbox_brings_group_messages_that_want_receipts(doors: Doors) -> None:
    _, group = await talk(doors)
    queries = [history_service_pb2.InboxQuery(user_id=user, device_id=2) for user in (ALICE, BOB)]
    request = history_service_pb2.SyncInboxRequest(queries=queries)

    answer = await doors.call(HISTORY, "SyncInbox", request)

    of_alice, of_bob = [
        {
            item_pb2.Item.FromString(item).message.message_id: flags
            for item, flags in zip(one.items, one.flags, strict=True)
        }
        for one in answer.answers
    ]
    assert (of_alice[group], of_bob[group]) == (0, 1)


async def test_a_drain_answers_what_was_sent_to_groups(doors: Doors) -> None:
    edge = await doors.submit()
    await edge.send(edge.say_to_group(1))
    await edge.until(1)

    await doors.rpc.drain()
    await doors.journal.drain()

    assert len(await inbox(doors.store, ALICE)) == 1
    assert len(await inbox(doors.store, BOB)) == 1
