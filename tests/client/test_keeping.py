"""How chats are kept through the client, over a real socket to a small edge."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chappe.api.edge.v1 import item_pb2
from chappe.api.identity.v1 import group_pb2, group_service_pb2
from chappe.api.message.v1 import conversation_service_pb2
from chappe.client import methods
from chappe.client.keeping import FOR_EVER_MS
from chappe.client.views import ChatChanged, ChatSettings
from tests.client.model_edge import CONVERSATION, ME, PEER
from tests.client.test_acts import sent
from tests.client.test_api import edge, folder, me, next_of

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from chappe.client.api import Client
    from tests.client.socket_edge import SocketEdge

    Keep = Callable[[Client], Awaitable[ChatSettings]]

__all__ = ["edge", "folder", "me"]

POSITION = b"\x01" * 16
GROUP = b"GGGGGG\x70GGGGGGGGG"


def answer(edge: SocketEdge, position: bytes = POSITION, **kept: object) -> list[bytes]:
    """Lets the ledger answer that a chat is kept so; returns the list of what it was asked."""
    asked: list[bytes] = []

    def update(payload: bytes) -> bytes:
        asked.append(payload)
        settings = item_pb2.ConversationSettings(**kept)  # type: ignore[arg-type]  # whatever a test sets
        return conversation_service_pb2.UpdateConversationResponse(
            settings=settings, position=position
        ).SerializeToString()

    edge.answers[methods.UPDATE_CONVERSATION.name] = update
    return asked


@pytest.mark.parametrize(
    ("keep", "field", "value"),
    [
        (lambda me: me.mute(PEER), "muted_until_ms", FOR_EVER_MS),
        (lambda me: me.mute(PEER, 7), "muted_until_ms", 7),
        (lambda me: me.unmute(PEER), "muted_until_ms", 0),
        (lambda me: me.pin(PEER), "is_pinned", True),
        (lambda me: me.unpin(PEER), "is_pinned", False),
        (lambda me: me.archive(PEER), "is_archived", True),
        (lambda me: me.unarchive(PEER), "is_archived", False),
        (lambda me: me.set_timer(PEER, 60), "expiry_s", 60),
        (lambda me: me.clear(PEER), "cleared_upto", bytes(16)),
    ],
)
async def test_each_change_names_its_field_alone(
    edge: SocketEdge, me: Client, keep: Keep, field: str, value: object
) -> None:
    asked = answer(edge, pinned_ms=5)

    settings = await keep(me)

    (request,) = map(conversation_service_pb2.UpdateConversationRequest.FromString, asked)
    assert request == conversation_service_pb2.UpdateConversationRequest(peer_user_id=PEER, **{field: value})  # type: ignore[arg-type]  # one field with its value
    assert settings == ChatSettings(pinned_ms=5)


async def test_a_timer_counts_from_the_next_message_on(edge: SocketEdge, me: Client) -> None:
    answer(edge, expiry_s=60)

    await me.set_timer(PEER, 60)
    message = await me.send(PEER, "hush")

    assert sent(edge).message.expiry_s == 60
    assert message.expires_ms == message.accepted_ms + 60_000


async def test_the_event_of_an_own_change_is_news_and_an_older_one_is_not(edge: SocketEdge, me: Client) -> None:
    answer(edge, expiry_s=60)
    await me.set_timer(PEER, 60)
    older = item_pb2.ConversationSettingEvent(
        conversation_id=CONVERSATION, settings=item_pb2.ConversationSettings(expiry_s=30)
    )
    own = item_pb2.ConversationSettingEvent(
        conversation_id=CONVERSATION, settings=item_pb2.ConversationSettings(expiry_s=60)
    )
    edge.model.log += [
        item_pb2.Item(position=b"\x00" * 15 + b"\x01", conversation_setting=older),
        item_pb2.Item(position=POSITION, conversation_setting=own),
    ]
    edge.push(2)

    changed = await next_of(me, ChatChanged)

    assert changed == ChatChanged(conversation_id=CONVERSATION, settings=ChatSettings(expiry_s=60))


async def test_what_is_cleared_goes_from_this_device_at_once(edge: SocketEdge, me: Client) -> None:
    first, second = await me.send(PEER, "one"), await me.send(PEER, "two")
    cleared_ms = edge.model.now_ms + 1000
    position = cleared_ms.to_bytes(6, "big") + bytes(10)

    asked = answer(edge, position, cleared_upto=first.message_id, cleared_ms=cleared_ms)
    await me.clear(first)

    (request,) = map(conversation_service_pb2.UpdateConversationRequest.FromString, asked)
    assert request.cleared_upto == first.message_id
    assert [kept.message_id for kept in await me.stored_history(PEER)] == [second.message_id]
    answer(edge, position[:15] + b"\x01", cleared_upto=second.message_id, cleared_ms=cleared_ms)
    await me.clear(PEER)
    assert await me.stored_history(PEER) == []


async def test_the_timer_of_a_group_is_the_groups(edge: SocketEdge, me: Client) -> None:
    group = group_pb2.Group(group_id=GROUP, group_name="Rope", version=2, expiry_s=60)
    asked: list[bytes] = []

    def update(payload: bytes) -> bytes:
        asked.append(payload)
        return group_service_pb2.UpdateGroupResponse(group=group).SerializeToString()

    edge.answers[methods.UPDATE_GROUP.name] = update
    edge.answers[methods.GET_GROUP.name] = lambda _: group_service_pb2.GetGroupResponse(group=group).SerializeToString()
    known = await me.groups.update(GROUP, name="Rope")

    settings = await me.set_timer(known, 60)

    assert settings == ChatSettings(expiry_s=60)
    assert group_service_pb2.UpdateGroupRequest.FromString(asked[-1]).expiry_s == 60


async def test_groups_are_kept_like_any_chat(edge: SocketEdge, me: Client) -> None:
    group = group_pb2.Group(group_id=GROUP, group_name="Rope", version=2)
    edge.answers[methods.UPDATE_GROUP.name] = lambda _: group_service_pb2.UpdateGroupResponse(
        group=group
    ).SerializeToString()
    asked = answer(edge, pinned_ms=5)

    settings = await me.pin(await me.groups.update(GROUP, name="Rope"))

    request = conversation_service_pb2.UpdateConversationRequest(group_id=GROUP, is_pinned=True)
    assert [conversation_service_pb2.UpdateConversationRequest.FromString(one) for one in asked] == [request]
    assert settings == ChatSettings(pinned_ms=5)


async def test_archived_chats_are_listed_apart(edge: SocketEdge, me: Client) -> None:
    asked: list[bool] = []

    def chats(payload: bytes) -> bytes:
        asked.append(conversation_service_pb2.ListConversationsRequest.FromString(payload).is_archived)
        chat = conversation_service_pb2.Conversation(
            conversation_id=CONVERSATION,
            peer_user_id=PEER,
            settings=item_pb2.ConversationSettings(muted_until_ms=7, is_archived=asked[-1]),
        )
        return conversation_service_pb2.ListConversationsResponse(conversations=[chat]).SerializeToString()

    edge.answers[methods.LIST_CONVERSATIONS.name] = chats

    kept = [(await me.chats(is_archived=is_archived))[0].settings for is_archived in (False, True)]

    assert kept == [ChatSettings(muted_until_ms=7), ChatSettings(muted_until_ms=7, is_archived=True)]


async def test_an_answer_without_a_place_waits_for_its_event(edge: SocketEdge, me: Client) -> None:
    answer(edge, b"", expiry_s=60)

    await me.set_timer(PEER, 60)
    message = await me.send(PEER, "hello")

    assert message.expires_ms == 0
    assert me.user_id == ME
