"""The Push streams, against edges behind real gRPC."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable

import grpc.aio
import pytest

from chappe.api.type.v1 import stream_pb2
from chappe.runtime.channels import channel
from chappe.runtime.clock import Seams
from chappe.runtime.streams import Identity
from chappe.runtime.tasks import Tasks
from svc_fanout.adapters import push_grpc
from svc_fanout.adapters.edge_grpc import IDLE_S, GrpcEdges
from svc_fanout.adapters.push_grpc import to_batch
from svc_fanout.model import Delivery, UserId
from tests.spans import TRACEPARENT, sampled
from tests.svc_fanout.fakes import (
    HandClock,
    Log,
    SeededRandomness,
    ServedEdge,
    hint,
    route,
    seams,
    serving_edge,
    until,
    user,
)


class Streams:
    """Makes edges' streams, and ends them."""

    def __init__(self, tasks: Tasks) -> None:
        self._tasks = tasks
        self._made: list[GrpcEdges] = []
        self.given_back: Log[Delivery] = Log()
        self.undelivered: Log[Delivery] = Log()
        self.arrivals: Log[UserId] = Log()
        self.lost = 0

    async def make(self, target: str = "", given: Seams | None = None) -> GrpcEdges:
        edges = GrpcEdges(target, connect, identity=Identity("fanout-1", 5), tasks=self._tasks, seams=given or seams())
        edges.listener = self
        self._made.append(edges)
        await edges.start()
        return edges

    async def aclose(self) -> None:
        for edges in self._made:
            await edges.aclose()

    def returned(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            self.given_back.add(delivery)

    def unreachable(self, deliveries: list[Delivery]) -> None:
        for delivery in deliveries:
            self.undelivered.add(delivery)

    def arrived(self, user_ids: Iterable[UserId]) -> None:
        for user_id in user_ids:
            self.arrivals.add(user_id)

    def lost_touch(self) -> None:
        self.lost += 1


def connect(address: str) -> grpc.aio.Channel:
    return channel(address, None, server_name="svc-edge")


def to(edge: ServedEdge, number: int, item: bytes = b"item", boot_id: int = 7) -> Delivery:
    return Delivery(hint(item, number), route(number, edge.address, boot_id))


async def open_stream(edges: GrpcEdges, edge: ServedEdge) -> None:
    """Returns once a delivery has come through."""
    edges.push(edge.address, [to(edge, 99)])
    await edge.deliveries.reach(1)


@pytest.fixture(autouse=True)
def short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes strays wait for a tenth of their time."""
    monkeypatch.setattr(push_grpc, "STRAY_S", 0.1)


@pytest.fixture
async def streams() -> AsyncIterator[Streams]:
    async with Tasks() as tasks:
        made = Streams(tasks)
        yield made
        await made.aclose()


@pytest.fixture
async def edge() -> AsyncIterator[ServedEdge]:
    async with serving_edge(ServedEdge()) as served:
        yield served


async def test_deliveries_reach_their_sessions_and_an_item_travels_once(streams: Streams, edge: ServedEdge) -> None:
    edges = await streams.make()
    one, two = hint(b"one", 1, 2, sender=3), hint(b"two", 1)

    edges.push(
        edge.address,
        [
            Delivery(one, route(1, edge.address)),
            Delivery(one, route(2, edge.address)),
            Delivery(two, route(1, edge.address)),
        ],
    )
    await edge.deliveries.reach(3)

    (batch,) = edge.batches.entries
    assert edge.deliveries.entries == [(1, b"one"), (2, b"one"), (1, b"two")]
    assert (batch.number, list(batch.items), list(batch.item_indexes)) == (1, [b"one", b"two"], [0, 0, 1])
    assert (list(batch.keys), list(batch.flags)) == ([one.key, two.key], [1, 1])
    tag = hashlib.sha256(b"chappe-user" + user(2)).digest()[:4]
    assert batch.user_tags[1] == int.from_bytes(tag, "big")


async def test_pieces_of_a_large_hint_travel_together_with_the_item_once(streams: Streams, edge: ServedEdge) -> None:
    edges = await streams.make()
    await open_stream(edges, edge)
    large = hint(b"large", *range(1, 401))
    pieces = [large._replace(user_ids=large.user_ids[start : start + 100]) for start in range(0, 400, 100)]

    for piece in pieces:
        deliveries = [Delivery(piece, route(int.from_bytes(one, "big"), edge.address)) for one in piece.user_ids]
        edges.push(edge.address, deliveries)
    assert edges.backlog == 400
    await edge.deliveries.reach(401)

    assert [list(batch.items) for batch in edge.batches.entries] == [[b"item"], [b"large"]]
    assert edges.backlog == 0


async def test_the_hello_takes_whichever_boot_is_there(streams: Streams, edge: ServedEdge) -> None:
    await streams.make(edge.address)

    (hello,) = await edge.hellos.reach(1)

    assert (hello.hello.peer_id, hello.hello.boot_id, hello.edge_boot_id) == ("fanout-1", 5, 0)


async def test_nothing_reaches_a_session_of_another_boot(streams: Streams, edge: ServedEdge) -> None:
    edges = await streams.make()

    edges.push(edge.address, [to(edge, 1, boot_id=6), to(edge, 2)])
    await edge.deliveries.reach(1)
    edges.push(edge.address, [to(edge, 3, boot_id=8), to(edge, 4)])
    await edge.deliveries.reach(2)
    await streams.given_back.reach(2)

    assert [session for session, _ in edge.deliveries.entries] == [2, 4]
    assert [one.route.session_id for one in streams.given_back.entries] == [1, 3]


async def test_while_an_edge_is_silent_what_is_for_its_next_life_is_kept_for_that(
    streams: Streams, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_grpc, "STRAY_S", 0.001)
    edges = await streams.make()
    async with serving_edge(ServedEdge(boot_id=7)) as former:
        await open_stream(edges, former)
        former.answers_until = 1000
        edges.push(former.address, [to(former, 1, boot_id=8), to(former, 2)])
        await former.deliveries.reach(2)
    await until(lambda: not edges.is_in_touch)
    async with serving_edge(ServedEdge(boot_id=8), int(former.address.rpartition(":")[2])) as later:
        await later.deliveries.reach(1)

        assert later.deliveries.entries == [(1, b"item")]
        assert streams.given_back.entries == []


async def test_what_is_for_another_boot_of_an_edge_that_stays_silent_comes_back_in_the_end(streams: Streams) -> None:
    clock = HandClock()
    edges = await streams.make("", Seams(clock, SeededRandomness()))
    async with serving_edge(ServedEdge()) as silent:
        await open_stream(edges, silent)
        edges.push(silent.address, [to(silent, 1, boot_id=8)])
        while not streams.given_back.entries:
            await clock.advance(push_grpc.STRAY_S)

    assert [one.route.session_id for one in streams.given_back.entries] == [1]
    assert clock.monotonic_s() >= 1000 + push_grpc.SILENT_S


async def test_an_edge_that_restarts_gets_nothing_that_was_meant_for_its_former_life(streams: Streams) -> None:
    edges = await streams.make()
    async with serving_edge(ServedEdge(boot_id=7, credits_=1)) as former:
        former.grants = False
        edges.push(former.address, [to(former, 1), to(former, 2)])
        await former.deliveries.reach(1)
    # What is pushed before the end of the stream is noticed is lost with it.
    await until(lambda: not edges.is_in_touch)
    async with serving_edge(ServedEdge(boot_id=8), int(former.address.rpartition(":")[2])) as later:
        edges.push(later.address, [to(later, 3, boot_id=7), to(later, 4, boot_id=8)])
        await later.deliveries.reach(1)

    assert [session for session, _ in later.deliveries.entries] == [4]
    assert 4 not in [one.route.session_id for one in streams.given_back.entries]


async def test_absent_sessions_come_back(streams: Streams, edge: ServedEdge) -> None:
    edges = await streams.make()
    edge.absent = {2}

    edges.push(edge.address, [to(edge, 1), to(edge, 2), to(edge, 3)])
    await streams.given_back.reach(1)

    assert [one.route.session_id for one in streams.given_back.entries] == [2]


async def test_batches_may_be_answered_together(streams: Streams, edge: ServedEdge) -> None:
    edges = await streams.make()
    edge.answers_until = 2
    edges.push(edge.address, [to(edge, 1)])
    await edge.deliveries.reach(1)

    edge.absent = {3}
    edges.push(edge.address, [to(edge, 2), to(edge, 3)])
    await streams.given_back.reach(1)

    assert [one.route.session_id for one in streams.given_back.entries] == [3]


async def test_arrivals_are_handed_on(streams: Streams, edge: ServedEdge) -> None:
    edges = await streams.make()
    await open_stream(edges, edge)

    await edge.announce(user(5), user(6))

    assert await streams.arrivals.reach(2) == [user(5), user(6)]


async def test_a_stream_that_begins_or_ends_makes_what_is_remembered_doubtful(
    streams: Streams, edge: ServedEdge
) -> None:
    edges = await streams.make()
    await open_stream(edges, edge)
    assert streams.lost == 1

    await edge.drain()
    await edge.ends.reach(1)
    await streams.aclose()

    assert streams.lost >= 2


async def test_nothing_is_kept_for_an_address_that_does_not_answer_until_it_does(streams: Streams) -> None:
    edges = await streams.make()
    async with serving_edge(ServedEdge()) as there:
        port = int(there.address.rpartition(":")[2])

    edges.push(there.address, [to(there, 1)])
    await streams.undelivered.reach(1)
    edges.push(there.address, [to(there, 2)])
    was_in_touch = edges.is_in_touch
    async with serving_edge(ServedEdge(), port) as back:
        await back.verifications.reach(1)
        edges.push(back.address, [to(back, 3)])
        await back.deliveries.reach(1)

        assert [one.route.session_id for one in streams.undelivered.entries] == [1, 2]
        assert streams.given_back.entries == []
        assert (was_in_touch, edges.is_in_touch) == (False, True)
        assert "could not be reached" in back.verifications.entries[0]


async def test_a_slow_edge_does_not_hold_another(
    streams: Streams, edge: ServedEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_grpc, "MAX_WAITING", 100)
    edges = await streams.make()
    async with serving_edge(ServedEdge(credits_=1)) as slow:
        slow.grants = False
        edges.seen([slow.address, edge.address])
        edges.push(slow.address, [to(slow, 1)])
        await slow.deliveries.reach(1)

        for number in range(1, 301):
            edges.push(slow.address, [to(slow, number)])
            edges.push(edge.address, [to(edge, number)])
            await edge.deliveries.reach(number)

        assert len(slow.deliveries.entries) == 1


async def test_a_slow_edge_verifies_all_once_it_takes_again(
    streams: Streams, edge: ServedEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_grpc, "MAX_WAITING", 4)
    edges = await streams.make(edge.address)
    await open_stream(edges, edge)

    edges.push(edge.address, [to(edge, 1), to(edge, 2)])
    edges.push(edge.address, [to(edge, number) for number in range(3, 9)])
    await edge.verifications.reach(1)

    assert [session for session, _ in await edge.deliveries.reach(3)] == [99, 1, 2]
    assert "slow" in edge.verifications.entries[0]


async def test_an_edge_that_does_not_answer_yet_verifies_all_when_too_much_waited(
    streams: Streams, edge: ServedEdge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(push_grpc, "MAX_WAITING", 4)
    edges = await streams.make()

    edges.push(edge.address, [to(edge, 1), to(edge, 2)])
    edges.push(edge.address, [to(edge, number) for number in range(3, 9)])
    await edge.verifications.reach(1)

    assert [session for session, _ in await edge.deliveries.reach(2)] == [1, 2]
    assert "too much" in edge.verifications.entries[0]


async def test_every_edge_is_asked_to_verify_named_or_found(streams: Streams, edge: ServedEdge) -> None:
    async with serving_edge(ServedEdge()) as found:
        edges = await streams.make(edge.address)
        edges.seen([found.address])
        await edge.hellos.reach(1)
        await found.hellos.reach(1)

        edges.verify_all("lost", 45_000)

        assert await edge.verifications.reach(1) == ["lost"]
        assert await found.verifications.reach(1) == ["lost"]


async def test_an_edge_that_was_out_of_sight_is_asked_to_verify(streams: Streams, edge: ServedEdge) -> None:
    async with serving_edge(ServedEdge()) as other:
        edges = await streams.make(f"{edge.address},{other.address}")
        await edge.hellos.reach(1)
        # Its pod is not ready for a moment, and its sessions live on.
        await name(edges, other)
        await edge.ends.reach(1)
        edges.verify_all("lost", 45_000)

        await name(edges, edge, other)

        assert await edge.verifications.reach(1) == ["the edge was out of sight"]
        assert await other.verifications.reach(1) == ["lost"]


async def name(edges: GrpcEdges, *served: ServedEdge) -> None:
    """Lets the operator name other edges."""
    edges._named._target = ",".join(edge.address for edge in served)
    await edges._named._refresh()


async def test_an_edge_that_could_not_be_asked_is_asked_when_it_answers(streams: Streams, edge: ServedEdge) -> None:
    edge.is_refusing = True
    edges = await streams.make(edge.address)
    await edge.hellos.reach(1)

    edges.verify_all("lost", 45_000)
    edge.is_refusing = False

    assert await edge.verifications.reach(1) == ["lost"]


async def test_an_edge_that_drains_is_left_politely_and_what_waits_for_it_is_located_afresh(streams: Streams) -> None:
    async with serving_edge(ServedEdge(credits_=1)) as leaving:
        leaving.grants = False
        edges = await streams.make()
        edges.push(leaving.address, [to(leaving, 1), to(leaving, 2)])
        await leaving.deliveries.reach(1)

        await leaving.drain()
        await streams.given_back.reach(1)

        assert [one.route.session_id for one in streams.given_back.entries] == [2]


async def test_an_edge_that_nobody_was_found_on_for_long_is_left_politely(streams: Streams, edge: ServedEdge) -> None:
    clock = HandClock()
    edges = await streams.make("", Seams(clock, SeededRandomness()))
    edges.seen([edge.address])
    await open_stream(edges, edge)
    await clock.advance(IDLE_S - 1)
    edges.sweep()
    before = edges.stream_count

    await clock.advance(2)
    edges.sweep()
    await edge.ends.reach(1)

    assert (before, edges.stream_count, edge.ends.entries) == (1, 0, [True])


async def test_ending_sends_what_waits_and_the_marker(streams: Streams, edge: ServedEdge) -> None:
    edges = await streams.make(edge.address)
    await open_stream(edges, edge)
    edges.push(edge.address, [to(edge, 1)])

    async with asyncio.timeout(5):
        await edges.aclose()

    assert (len(edge.deliveries.entries), await edge.ends.reach(1)) == (2, [True])


def test_the_trace_of_a_sampled_item_travels_with_it() -> None:
    traced = hint(b"two", 1)._replace(drawn=(sampled(bytes(16)), sampled(b"n" * 16)))

    batch = to_batch(1, [Delivery(hint(b"one", 1), route(1)), Delivery(traced, route(1))])

    assert list(batch.trace_links) == [
        stream_pb2.TraceLink(item_index=1, traceparent=TRACEPARENT),
        stream_pb2.TraceLink(item_index=1, traceparent=TRACEPARENT, message_id=b"n" * 16),
    ]
