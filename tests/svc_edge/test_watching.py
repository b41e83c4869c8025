"""What a client sees of people and of typing, over real sockets; svc_presence is a fake that notes and tells."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from chappe.api.edge.v1 import client_frame_pb2
from chappe.api.type.v1 import error_reason_pb2, presence_pb2
from tests.svc_edge.client import Client
from tests.svc_edge.conftest import Edge
from tests.svc_edge.fakes import FakeFanout, FakeMesh, Person
from tests.svc_edge.test_app import leap_until
from tests.svc_edge.test_ws import eventually

Connect = Callable[..., Client]
ONLINE, OFFLINE, UNKNOWN = (
    presence_pb2.PRESENCE_STATE_ONLINE,
    presence_pb2.PRESENCE_STATE_OFFLINE,
    presence_pb2.PRESENCE_STATE_UNKNOWN,
)
BOB, CAROL, GROUP = b"b" * 16, b"c" * 16, b"g" * 16


def user(number: int) -> bytes:
    return number.to_bytes(16, "big")


def watch(client: Client, *user_ids: bytes) -> None:
    client.send(watch=client_frame_pb2.Watch(user_ids=user_ids))


def unwatch(client: Client, *user_ids: bytes) -> None:
    client.send(unwatch=client_frame_pb2.Unwatch(user_ids=user_ids))


def look_at(client: Client, *refs: dict[str, bytes]) -> None:
    conversations = [presence_pb2.ConversationRef(**ref) for ref in refs]
    client.send(open_conversation=client_frame_pb2.OpenConversation(conversations=conversations))


def type_in(client: Client, kind: int = 0, *, is_over: bool = False, **named: bytes) -> None:
    ref = presence_pb2.ConversationRef(**named)
    client.send(typing=client_frame_pb2.Typing(conversation=ref, kind=kind, is_over=is_over))  # type: ignore[arg-type]  # any number may come


def numbers_of(topics: dict[int, tuple[bytes, bytes]], *targets: bytes) -> list[int]:
    return sorted(number for number, (_, target) in topics.items() if target in targets)


async def presences(client: Client) -> dict[bytes, tuple[int, int]]:
    delta = await client.expect("presence_delta")
    return {one.user_id: (one.state, one.last_seen_ms) for one in delta.presences}


async def typists(client: Client) -> dict[bytes, list[bytes]]:
    delta = await client.expect("typing_delta")
    return {
        one.conversation.group_id or one.conversation.peer_user_id: [typist.user_id for typist in one.typists]
        for one in delta.conversations
    }


@pytest.fixture
async def alice(connect: Connect, mesh: FakeMesh) -> Client:
    """Somebody who is signed in."""
    client = connect()
    await client.sign_in(mesh, Person.new())
    await client.expect("caught_up")
    return client


async def test_whoever_watches_is_told_how_people_are_in_one_frame(alice: Client, mesh: FakeMesh) -> None:
    watch(alice, BOB, CAROL, BOB)
    await eventually(lambda: len(mesh.watches) == 2, "the watches arrive")

    assert {viewer for viewer, _ in mesh.watches.values()} == {alice.welcome.user_id}
    await mesh.tell(numbers_of(mesh.watches, BOB, CAROL), OFFLINE, 77)
    assert await presences(alice) == {BOB: (OFFLINE, 77), CAROL: (OFFLINE, 77)}
    watch(alice, BOB)
    await alice.ping()
    assert len(mesh.watches) == 2


async def test_two_devices_share_a_watch_and_the_second_is_told_what_is_known(connect: Connect, mesh: FakeMesh) -> None:
    first, second, person = connect(), connect(), Person.new()
    await first.sign_in(mesh, person)
    await second.sign_in(mesh, Person.new(person.user_id, 2))
    watch(first, BOB)
    await eventually(lambda: len(mesh.watches) == 1, "the watch arrives")
    await mesh.tell(mesh.watches, ONLINE)
    assert await presences(first) == {BOB: (ONLINE, 0)}

    watch(second, BOB)
    assert await presences(second) == {BOB: (ONLINE, 0)}
    first.abort()
    unwatch(second, BOB)

    await eventually(lambda: not mesh.watches, "the watch ends with the last of them")
    assert len(mesh.ended) == 1


async def test_another_user_of_the_same_edge_has_a_watch_of_its_own(connect: Connect, mesh: FakeMesh) -> None:
    clients = [connect(), connect()]
    for client in clients:
        await client.sign_in(mesh, Person.new())
        watch(client, BOB)
    await eventually(lambda: len(mesh.watches) == 2, "the watches arrive")

    hidden = [number for number, (viewer, _) in mesh.watches.items() if viewer == clients[0].welcome.user_id]
    await mesh.tell(hidden, presence_pb2.PRESENCE_STATE_HIDDEN)
    await mesh.tell(set(mesh.watches) - set(hidden), ONLINE)

    assert await presences(clients[0]) == {BOB: (presence_pb2.PRESENCE_STATE_HIDDEN, 0)}
    assert await presences(clients[1]) == {BOB: (ONLINE, 0)}


async def test_whoever_watches_no_more_is_told_nothing(alice: Client, mesh: FakeMesh) -> None:
    watch(alice, BOB, CAROL)
    await eventually(lambda: len(mesh.watches) == 2, "the watches arrive")
    gone = numbers_of(mesh.watches, BOB)

    unwatch(alice, BOB, user(9))
    await eventually(lambda: mesh.ended == gone, "the watch ends")
    await mesh.tell(gone, ONLINE)
    await mesh.tell(mesh.watches, ONLINE)

    assert await presences(alice) == {CAROL: (ONLINE, 0)}


async def test_everything_ends_with_the_connection(alice: Client, mesh: FakeMesh) -> None:
    watch(alice, BOB, CAROL)
    look_at(alice, {"peer_user_id": BOB}, {"group_id": GROUP})
    await eventually(lambda: len(mesh.watches) == len(mesh.openings) == 2, "the watches arrive")

    alice.abort()

    await eventually(lambda: not (mesh.watches or mesh.openings), "they end")


async def test_65_more_watches_than_500_are_refused_and_the_connection_goes_on(alice: Client, mesh: FakeMesh) -> None:
    everybody = [user(number) for number in range(10_000)]

    watch(alice, *everybody)
    refused = await alice.expect("watch_refused")

    assert refused.reason == error_reason_pb2.ERROR_REASON_LIST_FULL
    assert list(refused.user_ids) == everybody[500:]
    assert "500" in refused.detail
    await eventually(lambda: len(mesh.watches) == 500, "the first 500 stand")
    unwatch(alice, user(0))
    watch(alice, user(700), user(701))
    assert list((await alice.expect("watch_refused")).user_ids) == [user(701)]
    assert (await alice.ping()).client_ms == 5


async def test_65_watching_by_turns_uses_up_a_budget_that_fills_up_again(
    alice: Client, mesh: FakeMesh, edge: Edge
) -> None:
    crowds = [[user(crowd * 1000 + number) for number in range(500)] for crowd in range(3)]
    for crowd in crowds[:2]:
        watch(alice, *crowd)
        unwatch(alice, *crowd)

    watch(alice, *crowds[2])
    refused = await alice.expect("watch_refused")
    edge.clock.leap(2)
    watch(alice, *refused.user_ids[:100])

    assert refused.reason == error_reason_pb2.ERROR_REASON_RATE_LIMITED
    assert refused.retry_after_ms > 0
    assert len(refused.user_ids) >= 400
    await eventually(lambda: len(mesh.watches) >= 100, "there is budget again")
    assert (await alice.ping()).client_ms == 5


@pytest.mark.parametrize("limits", [{"watches_in_all": 3}])
async def test_65_the_edge_itself_watches_only_so_many(alice: Client, mesh: FakeMesh) -> None:
    watch(alice, BOB, CAROL)
    look_at(alice, {"peer_user_id": BOB}, {"group_id": GROUP})

    watch(alice, user(1), user(2))

    refused = await alice.expect("watch_refused")
    assert refused.reason == error_reason_pb2.ERROR_REASON_RATE_LIMITED
    assert list(refused.user_ids) == [user(1), user(2)]
    await eventually(lambda: (len(mesh.watches), len(mesh.openings)) == (2, 1), "the first three stand")


async def test_a_slow_client_is_told_the_newest_and_holds_nobody(
    connect: Connect, alice: Client, mesh: FakeMesh, fanout: FakeFanout
) -> None:
    slow, person = connect(), Person.new()
    session_id = (await slow.sign_in(mesh, person, window=1000)).session_id
    await slow.expect("caught_up")
    for client in (alice, slow):
        watch(client, BOB)
    await eventually(lambda: len(mesh.watches) == 2, "the watches arrive")
    await fanout.dial()
    slow.pause_reading()
    is_slow = False
    while not is_slow:
        entry = mesh.append(person.user_id, bytes(60_000))
        is_slow = session_id in (await fanout.push([session_id], person.user_id, [entry])).slow_session_ids

    for last_seen_ms in range(1, 51):
        await mesh.tell(mesh.watches, OFFLINE, last_seen_ms)
    told: dict[bytes, tuple[int, int]] = {}
    while told.get(BOB) != (OFFLINE, 50):
        told = await presences(alice)
    slow.resume_reading()

    assert await presences(slow) == {BOB: (OFFLINE, 50)}


async def test_news_that_were_taken_are_granted_again(alice: Client, mesh: FakeMesh) -> None:
    watch(alice, BOB)
    await eventually(lambda: len(mesh.watches) == 1, "the watch arrives")
    begun, (number,) = mesh.news_credit, mesh.watches

    for last_seen_ms in range(1, 11):
        await mesh.tell([number] * 1000, OFFLINE, last_seen_ms)

    await eventually(lambda: mesh.news_credit > begun, "more is granted")
    assert 4096 <= mesh.news_credit - begun <= 10_000


# Typing


async def test_whoever_looks_at_a_conversation_is_told_who_is_typing(alice: Client, mesh: FakeMesh) -> None:
    look_at(alice, {"peer_user_id": BOB}, {"group_id": GROUP}, {"peer_user_id": alice.welcome.user_id})
    await eventually(lambda: len(mesh.openings) == 2, "the conversations are open")

    await mesh.tell_typing(numbers_of(mesh.openings, GROUP), CAROL, BOB)
    in_group = await typists(alice)
    await mesh.tell_typing(mesh.openings, BOB)
    await mesh.tell_typing(mesh.openings)
    both = await typists(alice)

    assert in_group == {GROUP: [CAROL, BOB]}
    assert both in ({BOB: [BOB], GROUP: [BOB]}, {BOB: [], GROUP: []})


async def test_a_conversation_that_is_named_no_more_is_closed(alice: Client, mesh: FakeMesh) -> None:
    look_at(alice, {"peer_user_id": BOB}, {"group_id": GROUP})
    await eventually(lambda: len(mesh.openings) == 2, "the conversations are open")
    stays = numbers_of(mesh.openings, GROUP)

    look_at(alice, {"group_id": GROUP}, {"peer_user_id": CAROL})
    await eventually(lambda: numbers_of(mesh.openings, CAROL) != [], "the new one is open")
    look_at(alice)
    await eventually(lambda: not mesh.openings, "none is open")

    assert stays[0] in mesh.ended[1:]


async def test_typing_is_passed_on_once_a_second_and_67_a_flood_is_dropped(
    alice: Client, mesh: FakeMesh, edge: Edge
) -> None:
    me = alice.welcome.user_id
    for _ in range(100):
        type_in(alice, peer_user_id=BOB)
    type_in(alice, 2, group_id=GROUP)
    type_in(alice, peer_user_id=me)
    await alice.ping()
    edge.clock.leap(1.1)
    type_in(alice, 99, peer_user_id=BOB)
    for _ in range(20):
        type_in(alice, peer_user_id=BOB, is_over=True)
    await alice.ping()

    await eventually(lambda: len(mesh.typings) == 4, "four are passed on")
    assert mesh.typings == [(me, BOB, 1, False), (me, GROUP, 2, False), (me, BOB, 1, False), (me, BOB, 1, True)]


# When svc_presence comes and goes


async def test_what_is_watched_is_said_again_under_new_numbers_after_a_reconnect(
    alice: Client, mesh: FakeMesh, edge: Edge
) -> None:
    watch(alice, BOB)
    look_at(alice, {"group_id": GROUP})
    await eventually(lambda: len(mesh.watches) == len(mesh.openings) == 1, "the watches arrive")
    await mesh.tell(mesh.watches, ONLINE)
    assert await presences(alice) == {BOB: (ONLINE, 0)}
    before = {*mesh.watches, *mesh.openings}
    mesh.watches.clear()
    mesh.openings.clear()

    await mesh.break_streams(mesh.track_contexts)
    await eventually(lambda: len(mesh.watches) == len(mesh.openings) == 1, "they arrive again")
    await mesh.tell(before, UNKNOWN)
    await mesh.tell(mesh.watches, OFFLINE, 5)

    assert not before & {*mesh.watches, *mesh.openings}
    assert await presences(alice) == {BOB: (OFFLINE, 5)}


async def test_while_svc_presence_is_away_people_are_unknown_and_nobody_is_typing(
    alice: Client, mesh: FakeMesh, edge: Edge
) -> None:
    watch(alice, BOB)
    look_at(alice, {"group_id": GROUP})
    await eventually(lambda: len(mesh.watches) == len(mesh.openings) == 1, "the watches arrive")
    await mesh.tell(mesh.watches, ONLINE)
    await mesh.tell_typing(mesh.openings, BOB)
    assert (await presences(alice), await typists(alice)) == ({BOB: (ONLINE, 0)}, {GROUP: [BOB]})
    mesh.presence_is_up = False

    await mesh.break_streams(mesh.track_contexts)
    # That nobody is writing is said at once, how people are only when no replica comes.
    silent = await typists(alice)
    reading = asyncio.create_task(presences(alice))
    away = await leap_until(reading, edge, alice, step_s=0.3)
    mesh.watches.clear()
    watch(alice, CAROL)
    mesh.presence_is_up = True
    await eventually(lambda: len(mesh.watches) == 2, "all are watched again")
    await mesh.tell(mesh.watches, ONLINE)

    assert (away, silent) == ({BOB: (UNKNOWN, 0)}, {GROUP: []})
    assert await presences(alice) == {BOB: (ONLINE, 0), CAROL: (ONLINE, 0)}


async def test_a_goodbye_that_nobody_heard_is_said_again(
    connect: Connect, alice: Client, mesh: FakeMesh, edge: Edge
) -> None:
    bob = connect()
    welcome = await bob.sign_in(mesh, Person.new())
    mesh.presence_is_up = False
    await mesh.break_streams(mesh.track_contexts)

    bob.abort()
    await alice.ping()
    mesh.presence_is_up = True

    await eventually(lambda: welcome.session_id in mesh.byes, "the goodbye arrives")


# Who must not


async def test_an_anonymous_session_may_not_watch(connect: Connect) -> None:
    client = connect()
    await client.request()
    client.send(hello=client_frame_pb2.Hello(protocol=1, anonymous=client_frame_pb2.AnonymousHello()))
    await client.expect("welcome")

    watch(client, BOB)

    assert (await client.read_close()).code == 4403


@pytest.mark.parametrize("say", [watch, unwatch, look_at, lambda client: type_in(client, peer_user_id=BOB)])
async def test_nothing_is_watched_before_the_welcome(connect: Connect, say: Callable[[Client], None]) -> None:
    client = connect()
    await client.request()

    say(client)

    assert (await client.read_close()).code == 4401


@pytest.mark.parametrize(
    ("frame", "complaint"),
    [
        ({"watch": client_frame_pb2.Watch(user_ids=[b"short"])}, "watch.user_ids[0]"),
        ({"unwatch": client_frame_pb2.Unwatch(user_ids=[BOB, b""])}, "unwatch.user_ids[1]"),
        ({"typing": client_frame_pb2.Typing()}, "typing.conversation"),
        ({"typing": client_frame_pb2.Typing(conversation=presence_pb2.ConversationRef())}, "conversation"),
        (
            {
                "open_conversation": client_frame_pb2.OpenConversation(
                    conversations=[presence_pb2.ConversationRef(group_id=user(number)) for number in range(33)]
                )
            },
            "has 33 items",
        ),
    ],
)
async def test_frames_that_break_a_limit_end_the_session(alice: Client, frame: dict[str, Any], complaint: str) -> None:
    alice.send(**frame)

    closed = await alice.read_close()
    assert (closed.code, complaint in closed.reason) == (4400, True)


# JSON


async def test_json_carries_presence_and_typing(connect: Connect, mesh: FakeMesh) -> None:
    client, person = connect("chappe.v1.json"), Person.new()
    await client.request()
    client.send_json({"hello": mesh.json_hello(person, client.host)})
    while "caughtUp" not in await client.read_json():
        pass
    bob = "YmJiYmJiYmJiYmJiYmJiYg=="

    client.send_json({"watch": {"userIds": [bob]}})
    client.send_json({"openConversation": {"conversations": [{"peerUserId": bob}]}})
    client.send_json({"typing": {"conversation": {"peerUserId": bob}, "kind": "TYPING_KIND_RECORDING"}})
    await eventually(lambda: mesh.watches and mesh.openings and mesh.typings, "all arrive")
    await mesh.tell(mesh.watches, ONLINE)
    presence = await client.read_json()
    await mesh.tell_typing(mesh.openings, BOB)
    typing = await client.read_json()

    assert presence == {"presenceDelta": {"presences": [{"userId": bob, "state": "PRESENCE_STATE_ONLINE"}]}}
    assert typing == {
        "typingDelta": {
            "conversations": [
                {"conversation": {"peerUserId": bob}, "typists": [{"userId": bob, "kind": "TYPING_KIND_TEXT"}]}
            ]
        }
    }
    assert mesh.typings == [(person.user_id, BOB, 2, False)]
