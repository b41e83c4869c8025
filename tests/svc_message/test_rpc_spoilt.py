"""What was spoilt inside an envelope never reaches a client: it would end every connection that it is sent on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from chappe.api.edge.v1 import item_pb2
from chappe.api.message.v1 import (
    conversation_service_pb2,
    conversation_service_pb2_grpc,
    history_service_pb2,
    history_service_pb2_grpc,
)
from chappe.api.type.v1 import envelope_pb2
from svc_message.model import ForeignAppend, NewMessage
from svc_message.model.action import ActionKind
from tests.svc_message.desk import Desk
from tests.svc_message.doors import ALICE, BOB, Doors, open_doors

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

HISTORY = history_service_pb2_grpc.HistoryServiceStub
CONVERSATIONS = conversation_service_pb2_grpc.ConversationServiceStub
SPOILT = b"\x12\x7f"
"""Content that is longer than what there is of it."""


@pytest.fixture
async def doors() -> AsyncIterator[Doors]:
    async with open_doors() as doors:
        yield doors


@pytest.fixture
def desk() -> Desk:
    """Returns the desk of the Alice and the Bob whom the doors know."""
    desk = Desk()
    desk.alice, desk.bob = ALICE, BOB
    return desk


def envelope(text: bytes) -> bytes:
    return envelope_pb2.Envelope(suite=envelope_pb2.ENCRYPTION_SUITE_NONE, content=text).SerializeToString()


async def write(doors: Doors, desk: Desk, *envelopes: bytes) -> list[NewMessage]:
    messages = [desk.write(one) for one in envelopes]
    await doors.store.accept(messages)
    return messages


async def sync(doors: Doors, limit: int) -> list[Any]:
    """Reads Bob's log to its end."""
    items: list[Any] = []
    query = history_service_pb2.InboxQuery(user_id=BOB, device_id=1, limit=limit)
    while True:
        request = history_service_pb2.SyncInboxRequest(queries=[query])
        (answer,) = (await doors.call(HISTORY, "SyncInbox", request)).answers
        assert len(answer.items) == len(answer.keys) == len(answer.flags)
        items += map(item_pb2.Item.FromString, answer.items)
        if not answer.has_more:
            return items
        query.after_position, query.pass_bound = answer.keys[-1][:16], answer.pass_bound


@pytest.mark.parametrize("limit", [1, 2, 100])
async def test_84_a_log_is_read_to_its_end_without_what_was_spoilt(doors: Doors, desk: Desk, limit: int) -> None:
    first, *_, last = await write(doors, desk, envelope(b"1"), SPOILT, SPOILT, SPOILT, envelope(b"2"))
    foreign = ForeignAppend(bytes(16), (BOB,), SPOILT, desk.position())
    await doors.store.append_events([foreign])
    edits = [desk.act(first, ActionKind.EDIT, envelope(b"new")), desk.act(last, ActionKind.EDIT, SPOILT)]
    await doors.store.actions.act(edits)

    items = await sync(doors, limit)

    told = [(item.WhichOneof("event"), getattr(item, item.WhichOneof("event")).message_id) for item in items]
    assert told == [("message", first.message_id), ("edit", first.message_id)]
    assert doors.unreadable.rows >= 6


async def test_84_a_page_of_history_leaves_out_what_was_spoilt(doors: Doors, desk: Desk) -> None:
    first, _, last = await write(doors, desk, envelope(b"1"), SPOILT, envelope(b"3"))
    reactions = [
        desk.act(last, ActionKind.REACTION, one, user=user) for one, user in ((SPOILT, ALICE), (envelope(b":)"), BOB))
    ]
    await doors.store.actions.act(reactions)
    request = history_service_pb2.ListMessagesRequest(peer_user_id=ALICE)

    shown = (await doors.call(HISTORY, "ListMessages", request, BOB)).messages

    assert [one.message.message_id for one in shown] == [last.message_id, first.message_id]
    assert [reaction.user_id for reaction in shown[0].reactions] == [BOB]


async def test_84_a_chat_whose_newest_message_was_spoilt_is_on_the_list(doors: Doors, desk: Desk) -> None:
    await write(doors, desk, envelope(b"1"), SPOILT)
    request = conversation_service_pb2.ListConversationsRequest()

    (chat,) = (await doors.call(CONVERSATIONS, "ListConversations", request, BOB)).conversations

    assert (chat.peer_user_id, chat.HasField("last_message")) == (ALICE, False)
