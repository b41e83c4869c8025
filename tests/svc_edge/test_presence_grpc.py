"""The way to several replicas of svc_presence: what goes to which, and what moves when others are there."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence

import grpc.aio
import pytest

from chappe.api.presence.v1 import track_pb2
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.clock import Seams, SystemRandomness
from chappe.runtime.replicas import rendezvous
from chappe.runtime.streams import Identity
from chappe.runtime.tasks import Tasks
from svc_edge.adapters.presence_goodbyes import MOST, Goodbyes
from svc_edge.adapters.presence_grpc import GrpcRegistry
from svc_edge.model import (
    ConnectOutcome,
    Conversation,
    DeviceId,
    Opened,
    Presence,
    SessionId,
    SessionRef,
    Topic,
    Typing,
    TypingKind,
    Typist,
    UserId,
    View,
    Watched,
)
from tests.svc_edge.fakes import FakeMesh, LeapClock
from tests.svc_edge.test_ws import eventually

VIEWER = UserId(b"v" * 16)
EVERYBODY = [UserId(number.to_bytes(16, "big")) for number in range(60)]
ROOMS = [Conversation(number.to_bytes(16, "little"), b"", number.to_bytes(16, "little")) for number in range(1, 61)]
TOPICS: list[Topic] = [Watched(VIEWER, one) for one in EVERYBODY] + [Opened(VIEWER, room) for room in ROOMS]


def session(number: int) -> SessionRef:
    return SessionRef(VIEWER, DeviceId(1), SessionId(number))


class Listener:
    """Notes what svc_presence says."""

    def __init__(self) -> None:
        self.states: dict[Topic, list[View | tuple[Typist, ...]]] = {}
        self.lost_topics: list[Topic] = []

    def replaced(self, session_id: SessionId) -> None:
        raise NotImplementedError

    def registry_forgot(self) -> None:
        """Sessions are not what these tests are about."""

    def told(self, topic: Topic, state: View | tuple[Typist, ...]) -> None:
        self.states.setdefault(topic, []).append(state)

    def lost(self, topics: Sequence[Topic]) -> None:
        self.lost_topics += topics


class House:
    """An edge's registry, two replicas, and what it heard."""

    def __init__(self, registry: GrpcRegistry, replicas: list[FakeMesh], clock: LeapClock) -> None:
        self.registry = registry
        self.replicas = replicas
        self.clock = clock
        self.heard = Listener()
        registry.listener = self.heard
        registry.watches.listener = self.heard

    def subscribe_all(self) -> None:
        for topic in TOPICS:
            self.registry.watches.subscribe(topic)

    def placed(self, replica: int) -> set[bytes]:
        """Returns what a replica tells of."""
        mesh = self.replicas[replica]
        return {target for _, target in [*mesh.watches.values(), *mesh.openings.values()]}

    def winners(self, *addresses: str) -> dict[str, set[bytes]]:
        """Returns what belongs to each of some replicas."""
        keys = [*EVERYBODY, *(room.conversation_id for room in ROOMS)]
        return {
            address: {key for key in keys if rendezvous(key, frozenset(addresses)) == address} for address in addresses
        }

    async def resolve(self, *replicas: int) -> None:
        """Lets the name stand for these replicas."""
        self.registry._replicas._target = ",".join(self.replicas[replica].address for replica in replicas)
        await self.registry._replicas._refresh()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with contextlib.AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(FakeMesh()) for _ in range(3)]
        channels: dict[str, grpc.aio.Channel] = {}

        def channel(address: str) -> grpc.aio.Channel:
            return channels.setdefault(address, grpc.aio.insecure_channel(address))

        tasks = await stack.enter_async_context(Tasks())
        clock = LeapClock()
        seams = Seams(clock, SystemRandomness())
        identity = Identity("edge-1", 7)
        target = replicas[0].address
        registry = GrpcRegistry(target, channel, identity, lambda: "127.0.0.1:1", tasks=tasks, seams=seams)
        house = House(registry, replicas, clock)
        await registry.start()
        await eventually(lambda: registry.is_reachable, "a replica is there")
        yield house
        await registry.aclose()
        for opened in channels.values():
            await opened.close()


async def test_with_one_replica_everything_goes_there(house: House) -> None:
    house.subscribe_all()

    await eventually(lambda: len(house.placed(0)) == len(TOPICS), "all is watched")


async def test_when_replicas_come_and_go_just_what_belongs_to_others_moves(house: House) -> None:
    house.subscribe_all()
    await eventually(lambda: len(house.placed(0)) == len(TOPICS), "all is watched")
    stays = house.winners(*(mesh.address for mesh in house.replicas))
    first = house.replicas[0]
    numbers = {number for number, (_, target) in first.watches.items() if target in stays[first.address]}

    await house.resolve(0, 1, 2)
    for replica, mesh in enumerate(house.replicas):
        await eventually(lambda at=replica, of=mesh: house.placed(at) == stays[of.address], "each has its own")  # type: ignore[misc]  # bound at once
    assert numbers == set(first.watches)
    assert not numbers & set(first.ended)
    await house.resolve(0)

    await eventually(lambda: len(house.placed(0)) == len(TOPICS), "all is back")
    assert numbers <= set(first.watches)


async def test_what_a_former_replica_still_says_meets_nobody(house: House) -> None:
    house.subscribe_all()
    await eventually(lambda: len(house.placed(0)) == len(TOPICS), "all is watched")
    first, second = house.replicas[:2]
    before, own = dict(first.watches), house.winners(first.address, second.address)
    await house.resolve(0, 1)
    await eventually(lambda: house.placed(1) == own[second.address], "some have moved")
    await eventually(lambda: house.placed(0) == own[first.address], "and are told of no more where they were")
    moved = sorted(set(before) - set(first.watches))
    here = min(first.watches)

    await first.tell(moved, Presence.OFFLINE)
    await first.tell([here, 10**9], Presence.ONLINE)

    one = Watched(VIEWER, UserId(first.watches[here][1]))
    await eventually(lambda: one in house.heard.states, "something is told")
    people = {topic: states for topic, states in house.heard.states.items() if isinstance(topic, Watched)}
    assert people == {one: [View(Presence.ONLINE, 0)]}


async def test_typing_goes_to_the_replica_of_its_conversation(house: House) -> None:
    await house.resolve(0, 1, 2)
    await eventually(lambda: len(house.registry._replicas.accepting) == 3, "all are there")

    for room in ROOMS:
        house.registry.watches.type(Typing(VIEWER, room, TypingKind.TEXT, is_over=False))

    winners = house.winners(*(mesh.address for mesh in house.replicas))
    for mesh in house.replicas:
        wanted = winners[mesh.address] & {room.conversation_id for room in ROOMS}
        await eventually(lambda of=mesh, want=wanted: {one[1] for one in of.typings} == want, "typing arrives")  # type: ignore[misc]  # bound at once


async def test_typing_that_ends_while_its_replica_is_away_is_not_shown_for_ever(house: House) -> None:
    topic, first = Opened(VIEWER, ROOMS[0]), house.replicas[0]
    house.registry.watches.subscribe(topic)
    await eventually(lambda: first.openings, "it is opened")
    await first.tell_typing(list(first.openings), VIEWER)
    await eventually(lambda: topic in house.heard.states, "somebody is writing")

    # Where nobody is writing any more, the replica says nothing of the new number.
    await first.break_streams(first.track_contexts)

    await eventually(lambda: house.heard.states[topic][-1] == (), "nobody is said to be writing")
    house.clock.leap(0.5)
    await eventually(lambda: len(first.openings) == 2, "it is opened again")
    assert house.heard.states[topic] == [(Typist(VIEWER, TypingKind.TEXT),), ()]


async def test_typing_of_a_conversation_that_moves_is_over_until_its_new_replica_says_otherwise(house: House) -> None:
    topics: list[Topic] = [Opened(VIEWER, room) for room in ROOMS]
    for topic in topics:
        house.registry.watches.subscribe(topic)
    first, second = house.replicas[:2]
    await eventually(lambda: len(first.openings) == len(ROOMS), "all are opened")
    await first.tell_typing(list(first.openings), VIEWER)
    await eventually(lambda: len(house.heard.states) == len(ROOMS), "somebody is writing everywhere")
    moving = house.winners(first.address, second.address)[second.address]

    await house.resolve(0, 1)

    moved = {topic for topic in topics if isinstance(topic, Opened) and topic.conversation.conversation_id in moving}
    await eventually(lambda: {topic for topic in topics if house.heard.states[topic][-1] == ()} == moved, "it is over")
    assert moved


async def test_when_one_of_two_is_killed_its_topics_go_to_the_other_and_nothing_is_lost(house: House) -> None:
    await house.resolve(0, 1)
    house.subscribe_all()
    await eventually(lambda: len(house.placed(0)) + len(house.placed(1)) == len(TOPICS), "all is watched")
    house.replicas[1].presence_is_up = False

    await house.replicas[1].break_streams(house.replicas[1].track_contexts)

    await eventually(lambda: len(house.placed(0)) == len(TOPICS), "all is watched by the one that is left")
    house.clock.leap(2)
    await asyncio.sleep(0.01)
    assert house.heard.lost_topics == []


async def test_when_none_is_left_nobody_can_say_and_then_all_is_watched_again(house: House) -> None:
    house.subscribe_all()
    house.registry.watches.unsubscribe(TOPICS[0])
    await eventually(lambda: len(house.placed(0)) == len(TOPICS) - 1, "all is watched")
    first = house.replicas[0]
    first.presence_is_up = False
    await first.break_streams(first.track_contexts)
    await eventually(lambda: not house.registry.is_reachable, "none is left")
    first.watches.clear()
    first.openings.clear()

    for _ in range(8):
        house.clock.leap(0.25)
        await asyncio.sleep(0.01)
    first.presence_is_up = True

    await eventually(lambda: len(house.placed(0)) == len(TOPICS) - 1, "all is watched again")
    assert set(house.heard.lost_topics) == set(TOPICS[1:])


async def test_a_connect_that_nobody_waits_for_any_more_is_not_sent(house: House) -> None:
    first, second = house.replicas[:2]
    second.track_hello = stream_pb2.StreamHello(protocol=1, peer_id="fake", boot_id=1, credits=1)
    await house.resolve(1)
    await eventually(lambda: len(second.track_contexts) == 1 and house.registry.is_reachable, "the replica is there")
    house.registry.refresh(session(1))
    await eventually(lambda: second.refreshed == [1], "the credit is used up")

    asking = asyncio.create_task(house.registry.connect(session(2), bytes(16), 0.0))
    await asyncio.sleep(0)
    for _ in range(3):
        house.registry.refresh(session(3))
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    await second.write(second.track_contexts[0], track_pb2.TrackResponse(credit=stream_pb2.StreamCredit(items=1)))

    await eventually(lambda: second.refreshed == [1, 3], "what came after it is sent, once")
    assert not second.nonces
    assert not first.nonces


async def test_while_the_only_replica_drains_a_connect_waits_for_the_next(house: House) -> None:
    first = house.replicas[0]
    house.clock.leap(60)
    drain = track_pb2.TrackResponse(drain=stream_pb2.StreamDrain(reason="it stops"))
    await first.write(first.track_contexts[0], drain)
    async with asyncio.timeout(30):
        while house.registry.is_reachable:  # noqa: ASYNC110 - the moment between the marker and the end is short
            await asyncio.sleep(0)

    outcome = await house.registry.connect(session(1), bytes(16), 0.0)

    assert outcome == ConnectOutcome("", SessionId(0))


async def test_goodbyes_are_said_again_until_somebody_listens() -> None:
    said: list[SessionRef] = []
    may_say = False

    def say(session: SessionRef) -> bool:
        said.extend([session] if may_say else [])
        return may_say

    sessions = [session(number) for number in range(1, 4)]
    clock = LeapClock()
    async with Tasks() as tasks:
        goodbyes = Goodbyes(say, tasks=tasks, clock=clock)
        goodbyes.add(sessions[:2])
        goodbyes.say_again()
        waiting = len(goodbyes)
        may_say = True
        goodbyes.add(sessions[1:])
        clock.leap(1)
        await eventually(lambda: not len(goodbyes), "all are said")
        goodbyes.add(session(number) for number in range(1, MOST + 5))

        assert (waiting, said, len(goodbyes)) == (2, sessions, MOST)
