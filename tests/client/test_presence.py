"""Presence and typing in the SDK: the core against a model of an edge, and the client over a real socket."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chappe import client as chappe_client
from chappe.api.edge.v1 import server_frame_pb2
from chappe.api.presence.v1 import presence_service_pb2
from chappe.api.type.v1 import error_reason_pb2, presence_pb2
from chappe.client import Presence, PresenceChanged, TypingChanged, Typist, WatchRefused, methods
from chappe.client.api import Client
from chappe.client.changes import Disconnected, PresenceTold, TypingTold, WatchesRefused
from chappe.client.destination import to_group, to_person
from chappe.client.device import DeviceKey
from chappe.client.errors import RefusedError
from chappe.client.profiles import About, Profile
from chappe.client.watches import MOST_CHATS
from tests.client.fakes import Desk
from tests.client.model_edge import CONVERSATION, DEVICE, ME, PEER
from tests.client.socket_edge import SocketEdge
from tests.client.test_api import next_of
from tests.client.test_connection import until

CAROL, GROUP = b"\x03" * 16, b"\x07" * 16
ONLINE, OFFLINE, UNKNOWN = (
    presence_pb2.PRESENCE_STATE_ONLINE,
    presence_pb2.PRESENCE_STATE_OFFLINE,
    presence_pb2.PRESENCE_STATE_UNKNOWN,
)
CHAT, IN_GROUP = to_person(ME, PEER), to_group(GROUP)


def presence(user_id: bytes, state: int, last_seen_ms: int = 0) -> server_frame_pb2.PresenceDelta:
    one = presence_pb2.UserPresence(user_id=user_id, state=state, last_seen_ms=last_seen_ms)  # type: ignore[arg-type]  # any number may come
    return server_frame_pb2.PresenceDelta(presences=[one])


def typing(*user_ids: bytes, kind: int = 1, **named: bytes) -> server_frame_pb2.TypingDelta:
    typists = [presence_pb2.Typist(user_id=user_id, kind=kind) for user_id in user_ids]  # type: ignore[arg-type]  # any number may come
    told = server_frame_pb2.ConversationTyping(conversation=presence_pb2.ConversationRef(**named), typists=typists)
    return server_frame_pb2.TypingDelta(conversations=[told])


@pytest.fixture
def desk() -> Desk:
    desk = Desk()
    desk.connect()
    desk.settle()
    desk.shown.clear()
    return desk


# The core


def test_what_is_watched_is_said_once_and_again_in_every_session(desk: Desk) -> None:
    desk.core.watches.watch([PEER, CAROL])
    desk.core.watches.watch([PEER])
    desk.core.watches.look_at([CHAT, IN_GROUP, CHAT])
    desk.settle()
    first = list(desk.edge.watched)
    desk.drop()
    desk.core.watches.unwatch([PEER, ME])
    desk.core.watches.type(CHAT, 1, is_over=False)
    desk.connect()
    desk.settle()

    assert (first, desk.edge.watched) == ([PEER, CAROL], [CAROL])
    assert desk.edge.looked_at == [[PEER, GROUP], [PEER, GROUP]]
    assert desk.edge.typings == []


def test_nothing_is_said_before_the_welcome(desk: Desk) -> None:
    desk.drop()
    desk.core.watches.watch([PEER])

    desk.connect()
    assert desk.edge.watched == []
    desk.settle()

    assert desk.edge.watched == [PEER]


def test_what_was_told_no_longer_holds_when_the_session_ends(desk: Desk) -> None:
    desk.core.watches.watch([PEER, CAROL])
    desk.core.watches.look_at([CHAT, IN_GROUP])
    desk.settle()
    desk.edge.tell(presence_delta=presence(PEER, ONLINE))
    desk.edge.tell(presence_delta=presence(CAROL, UNKNOWN))
    desk.edge.tell(typing_delta=typing(PEER, peer_user_id=PEER))
    desk.edge.tell(typing_delta=typing(CAROL, group_id=GROUP))
    desk.edge.tell(typing_delta=typing(group_id=GROUP))
    desk.settle()
    told = list(desk.shown)
    desk.shown.clear()

    desk.drop()

    assert told == [
        PresenceTold(PEER, ONLINE, 0),
        PresenceTold(CAROL, UNKNOWN, 0),
        TypingTold(CHAT, ((PEER, 1),)),
        TypingTold(IN_GROUP, ((CAROL, 1),)),
        TypingTold(IN_GROUP, ()),
    ]
    assert desk.shown[1:] == [PresenceTold(PEER, UNKNOWN, 0), TypingTold(CHAT, ())]
    assert isinstance(desk.shown[0], Disconnected)


def test_what_was_on_its_way_when_one_looked_away_is_passed_over(desk: Desk) -> None:
    desk.core.watches.watch([PEER])
    desk.core.watches.look_at([CHAT])
    desk.settle()
    desk.core.watches.unwatch([PEER])
    desk.core.watches.look_at([])

    desk.edge.tell(presence_delta=presence(PEER, ONLINE))
    desk.edge.tell(typing_delta=typing(PEER, peer_user_id=PEER))
    desk.settle()

    assert desk.shown == []
    assert (desk.edge.watched, desk.edge.looked_at[-1]) == ([], [])


def test_who_is_refused_is_not_asked_for_again(desk: Desk) -> None:
    desk.core.watches.watch([PEER, CAROL])
    desk.settle()
    reason = error_reason_pb2.ERROR_REASON_LIST_FULL
    desk.edge.tell(watch_refused=server_frame_pb2.WatchRefused(reason=reason, detail="full", user_ids=[CAROL]))
    desk.settle()
    desk.drop()

    desk.connect()
    desk.settle()

    assert desk.of(WatchesRefused) == [WatchesRefused((CAROL,), "LIST_FULL", "full", 0)]
    assert desk.edge.watched == [PEER]


def test_no_more_chats_are_looked_at_than_an_edge_takes(desk: Desk) -> None:
    desk.core.watches.look_at(to_group(bytes([number]) * 16) for number in range(100))
    desk.settle()

    assert len(desk.edge.looked_at[-1]) == len(desk.core.watches.chats) == MOST_CHATS


# The client


@pytest.fixture
async def edge() -> AsyncIterator[SocketEdge]:
    async with SocketEdge() as edge:
        yield edge


@pytest.fixture
async def me(edge: SocketEdge, tmp_path: Path) -> AsyncIterator[Client]:
    about = About(user_id=ME.hex(), device_id=DEVICE, phone_number="+441632960001", name="Alice")
    Profile.create(tmp_path / "alice", about, DeviceKey.generate()).close()
    async with chappe_client.connect(edge.address, profile=tmp_path / "alice") as me:
        yield me


async def test_whoever_is_watched_shows_in_the_events(edge: SocketEdge, me: Client) -> None:
    await me.presence.watch(PEER, CAROL)
    await until(lambda: edge.model.watched == [PEER, CAROL])

    edge.model.tell(presence_delta=presence(PEER, OFFLINE, 5))
    edge.deliver()
    seen = await next_of(me, PresenceChanged)
    edge.model.tell(presence_delta=presence(CAROL, 99))
    edge.deliver()
    strange = await next_of(me, PresenceChanged)
    await me.presence.unwatch(PEER)

    assert seen == PresenceChanged(user_id=PEER, presence=Presence.OFFLINE, last_seen_ms=5)
    assert strange.presence is Presence.UNKNOWN
    await until(lambda: edge.model.watched == [CAROL])


async def test_whoever_types_in_a_chat_that_is_looked_at_shows_in_the_events(edge: SocketEdge, me: Client) -> None:
    await me.presence.look_at(PEER, to_group(GROUP))
    await until(lambda: edge.model.looked_at == [[PEER, GROUP]])

    edge.model.tell(typing_delta=typing(PEER, kind=2, peer_user_id=PEER))
    edge.deliver()

    assert await next_of(me, TypingChanged) == TypingChanged(
        conversation_id=CONVERSATION, peer_id=PEER, typists=(Typist(user_id=PEER, is_recording=True),)
    )


async def test_a_refused_watch_shows_in_the_events(edge: SocketEdge, me: Client) -> None:
    reason = error_reason_pb2.ERROR_REASON_RATE_LIMITED
    refused = server_frame_pb2.WatchRefused(reason=reason, detail="later", user_ids=[CAROL], retry_after_ms=1000)
    edge.model.tell(watch_refused=refused)
    edge.deliver()

    assert await next_of(me, WatchRefused) == WatchRefused(
        user_ids=(CAROL,), reason="RATE_LIMITED", detail="later", retry_after_ms=1000
    )


async def test_typing_is_said_for_as_long_as_the_block_lasts(edge: SocketEdge, me: Client) -> None:
    me.presence._sleep = fast_sleep
    async with me.presence.typing(PEER):
        await until(lambda: len(edge.model.typings) >= 3)
    async with me.presence.typing(to_group(GROUP), is_recording=True):
        await until(lambda: (GROUP, 2, False) in edge.model.typings)

    await until(lambda: edge.model.typings[-1] == (GROUP, 2, True))
    assert (PEER, 1, True) in edge.model.typings
    assert edge.model.typings[:3] == [(PEER, 1, False)] * 3


async def fast_sleep(delay_s: float) -> None:
    """Waits a little, so that the frame of this turn leaves."""
    assert delay_s == 2.0
    await asyncio.sleep(0.01)


async def test_how_people_are_is_answered_in_order(edge: SocketEdge, me: Client) -> None:
    asked: list[presence_service_pb2.BatchGetPresenceRequest] = []

    def answer(payload: bytes) -> bytes:
        asked.append(presence_service_pb2.BatchGetPresenceRequest.FromString(payload))
        presences = [
            presence_pb2.UserPresence(user_id=PEER, state=OFFLINE, last_seen_ms=7),
            presence_pb2.UserPresence(user_id=CAROL, state=presence_pb2.PRESENCE_STATE_HIDDEN),
        ]
        return presence_service_pb2.BatchGetPresenceResponse(presences=presences).SerializeToString()

    edge.answers[methods.BATCH_GET_PRESENCE.name] = answer

    found = await me.presence.of(PEER, CAROL)

    assert [(one.user_id, one.presence, one.last_seen_ms) for one in found] == [
        (PEER, Presence.OFFLINE, 7),
        (CAROL, Presence.HIDDEN, 0),
    ]
    assert list(asked[0].user_ids) == [PEER, CAROL]


async def test_who_is_typing_is_answered_for_people_and_groups(edge: SocketEdge, me: Client) -> None:
    asked: list[presence_pb2.ConversationRef] = []

    def answer(payload: bytes) -> bytes:
        asked.append(presence_service_pb2.ListTypingRequest.FromString(payload).conversation)
        typists = [presence_pb2.Typist(user_id=PEER, kind=presence_pb2.TYPING_KIND_TEXT)]
        return presence_service_pb2.ListTypingResponse(typists=typists).SerializeToString()

    edge.answers[methods.LIST_TYPING.name] = answer

    found = [await me.presence.typing_in(chat) for chat in (PEER, to_group(GROUP))]

    assert found == [[Typist(user_id=PEER)]] * 2
    assert [one.group_id or one.peer_user_id for one in asked] == [PEER, GROUP]


async def test_a_chat_that_is_not_ones_own_is_refused(edge: SocketEdge, me: Client) -> None:
    reason = error_reason_pb2.ERROR_REASON_NOT_IN_CONVERSATION
    edge.answers[methods.LIST_TYPING.name] = lambda _: server_frame_pb2.CallError(code=7, reason=reason, detail="no")

    with pytest.raises(RefusedError, match="NOT_IN_CONVERSATION"):
        await me.presence.typing_in(to_group(GROUP))
