"""The door of the registry, over real loopback gRPC and the store in memory."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import grpc
import grpc.aio
import pytest

from chappe.api.presence.v1 import presence_service_pb2, presence_service_pb2_grpc, track_pb2
from chappe.api.type.v1 import error_reason_pb2, presence_pb2, stream_pb2
from chappe.runtime.clock import SystemClock
from chappe.runtime.errors import RemoteError, UnavailableError, from_rpc_error
from chappe.runtime.interceptors import ConformanceInterceptor, DoorInterceptor, Gate, Realm
from chappe.runtime.pki import SpiffeId
from chappe.runtime.principal import Principal, principal_metadata
from chappe.runtime.streams import Identity
from chappe.runtime.tasks import Tasks
from svc_presence.adapters.presence_store_memory import MemoryPresenceStore
from svc_presence.model import Changes, Edge, GroupId, Located, Route, Sight, UserId, Written
from svc_presence.rpc import PresenceRpc
from svc_presence.rpc.track import TRACK_CREDITS
from svc_presence.service.answers import Answers
from svc_presence.service.desk import Desk
from svc_presence.service.routes import Routes
from svc_presence.service.typing import TypingRooms
from svc_presence.service.watching import Watching
from tests.runtime.probe import ALONE
from tests.svc_presence.scene import MovedClock, ToldDirectory

ALICE = UserId(bytes(15) + b"a")
BOB = UserId(bytes(15) + b"b")
CAROL = UserId(bytes(15) + b"c")
GROUP = GroupId(b"g" * 16)
EDGE_ID = "10.0.0.17:7443"
BOOT = 2**63 + 5


class StoppableStore(MemoryPresenceStore):
    """A store that can be told not to answer, or to answer wrongly."""

    def __init__(self) -> None:
        self.clock = MovedClock()
        super().__init__(self.clock)
        self.held_edge_id = ""
        self.answers = asyncio.Event()
        """Lets the held edge's writes go on."""
        self.failure: Exception | None = None
        self.writes = 0

    async def write(self, edge: Edge, changes: Changes, sent_ms: int) -> Written:
        self.writes += 1
        await asyncio.sleep(0)
        if edge.edge_id == self.held_edge_id:
            await self.answers.wait()
        if self.failure is not None:
            raise self.failure
        return await super().write(edge, changes, sent_ms)

    async def locate(self, user_ids: Sequence[UserId], gone: Sequence[Route]) -> list[Located]:
        if self.failure is not None:
            raise self.failure
        return await super().locate(user_ids, gone)


class Door:
    """A served registry, and stubs that speak as the edge and as fanout."""

    def __init__(self, store: StoppableStore, directory: ToldDirectory, desk: Desk, rpc: PresenceRpc) -> None:
        self.store = store
        self.directory = directory
        self.desk = desk
        self.rpc = rpc
        self.realm_stub: Any

    def stub(self, service: str, user_id: bytes = b"") -> Any:
        return Speaking(self.realm_stub, service, user_id)

    async def track(self, edge_id: str = EDGE_ID, credits_: int = 1000) -> "Track":
        track = Track(self.stub("svc-edge").Track())
        hello = stream_pb2.StreamHello(protocol=1, peer_id="edge-1", boot_id=BOOT, credits=credits_)
        await track.send(track_pb2.TrackRequest(hello=hello, edge_id=edge_id))
        return track


class Track:
    """One stream as an edge sees it."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def write(self, number: int, **fields: Any) -> None:
        batch = track_pb2.TrackBatch(number=number, **fields)
        await self.send(track_pb2.TrackRequest(batch=batch))

    async def send(self, request: track_pb2.TrackRequest) -> None:
        # A stream that is refused meanwhile says why to its reader.
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self.call.write(request)

    async def read(self) -> track_pb2.TrackResponse:
        response: track_pb2.TrackResponse = await self.call.read()
        return response

    async def refusal(self) -> RemoteError:
        """Returns why the registry ended the stream."""
        try:
            while await self.call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as caught:
            error = from_rpc_error(caught)
        assert isinstance(error, RemoteError)
        return error


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    conformance = ConformanceInterceptor()

    def identify(context: Any) -> SpiffeId:
        given = dict(context.invocation_metadata())
        return SpiffeId(trust_domain="chappe.test", service=str(given["chappe-test-service"]))

    gate = Gate(Realm("chappe.test", "chappe", ("bot",)), identify)
    async with Tasks() as tasks:
        store, directory, clock = StoppableStore(), ToldDirectory(), SystemClock()
        routes = Routes(store)
        watching = Watching(store, directory, clock=clock, tasks=tasks)
        desk = Desk(routes, watching, TypingRooms(store, directory, clock=clock, tasks=tasks))
        directory.listener = desk
        answers = Answers(store, directory)
        rpc = PresenceRpc(desk, routes, answers, identity=Identity("presence-1", 99), tasks=tasks, clock=store.clock)
        server = grpc.aio.server(interceptors=[conformance, DoorInterceptor(gate, lambda: "0" * 32)], options=ALONE)
        presence_service_pb2_grpc.add_PresenceServiceServicer_to_server(rpc, server)
        port = server.add_insecure_port("127.0.0.1:0")
        await server.start()
        door = Door(store, directory, desk, rpc)
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            door.realm_stub = presence_service_pb2_grpc.PresenceServiceStub(channel)
            yield door
        await server.stop(0)
    # A test may leave while its stream is being refused; what gRPC then raises in the server reaches nobody.
    conformance.violations = [one for one in conformance.violations if "ExecuteBatchError" not in one]
    conformance.check()


class Speaking:
    """A stub whose calls carry a name for the test's gate, and the user of an edge's call."""

    def __init__(self, stub: Any, name: str, user_id: bytes) -> None:
        self._stub = stub
        self._metadata: list[tuple[str, str | bytes]] = [("chappe-test-service", name)]
        if user_id:
            self._metadata.append(principal_metadata(Principal(user_id, 1, bytes(16))))

    def Track(self) -> Any:
        return self._stub.Track(metadata=self._metadata)

    async def Locate(self, **fields: Any) -> presence_service_pb2.LocateResponse:
        request = presence_service_pb2.LocateRequest(**fields)
        response: presence_service_pb2.LocateResponse = await self._stub.Locate(request, metadata=self._metadata)
        return response

    async def BatchGetPresence(self, **fields: Any) -> list[tuple[bytes, int, int]]:
        request = presence_service_pb2.BatchGetPresenceRequest(**fields)
        response = await self._stub.BatchGetPresence(request, metadata=self._metadata)
        return [(one.user_id, one.state, one.last_seen_ms) for one in response.presences]

    async def ListTyping(self, **named: bytes) -> list[tuple[bytes, int]]:
        request = presence_service_pb2.ListTypingRequest(conversation=presence_pb2.ConversationRef(**named))
        response = await self._stub.ListTyping(request, metadata=self._metadata)
        return [(one.user_id, one.kind) for one in response.typists]


def ref(number: int, user_id: bytes = ALICE, device_id: int = 1) -> track_pb2.SessionRef:
    return track_pb2.SessionRef(user_id=user_id, device_id=device_id, session_id=number)


def connect(number: int, user_id: bytes = ALICE, device_id: int = 1, nonce: int = 0) -> track_pb2.Connect:
    used = (nonce or number).to_bytes(16, "big")
    return track_pb2.Connect(item_id=number + 100, session=ref(number, user_id, device_id), nonce=used)


async def test_both_sides_say_hello_and_the_registry_grants_credit(door: Door) -> None:
    track = await door.track()

    hello = (await track.read()).hello

    assert (hello.protocol, hello.peer_id, hello.boot_id, hello.credits) == (1, "presence-1", 99, TRACK_CREDITS)


async def test_connects_are_answered_and_located(door: Door) -> None:
    track = await door.track()
    await track.read()

    await track.write(1, connects=[connect(1), connect(2, BOB, 3)])
    results = (await track.read()).results
    located = await door.stub("svc-fanout").Locate(user_ids=[BOB, bytes(16), ALICE])

    assert results.number == 1
    assert [(one.item_id, one.refused_reason, one.replaced_session_id) for one in results.connects] == [
        (101, 0, 0),
        (102, 0, 0),
    ]
    assert (located.user_indexes, located.device_ids, located.session_ids) == ([0, 2], [3, 1], [2, 1])
    assert (located.edge_indexes, located.edge_ids, located.boot_ids) == ([0, 0], [EDGE_ID], [BOOT])


async def test_a_replaced_session_of_the_same_stream_is_told(door: Door) -> None:
    track = await door.track()
    await track.read()
    await track.write(1, connects=[connect(1)])
    await track.read()

    await track.write(2, connects=[connect(2)], refreshes=[ref(1)], byes=[ref(1)])
    results = (await track.read()).results

    assert results.connects[0].replaced_session_id == 1
    assert results.replaced_session_ids == [1]


async def test_a_used_nonce_is_refused_with_invalid_proof(door: Door) -> None:
    track = await door.track()
    await track.read()

    await track.write(1, connects=[connect(1), connect(2, nonce=1)])
    results = (await track.read()).results

    assert [one.refused_reason for one in results.connects] == [0, error_reason_pb2.ERROR_REASON_INVALID_PROOF]


async def test_every_batch_has_an_answer_of_its_own_in_order(door: Door) -> None:
    track = await door.track()
    await track.read()

    for number in range(1, 21):
        await track.write(number, connects=[connect(number, bytes(15) + bytes([number]))])
    answers = [(await track.read()).results for _ in range(20)]

    assert [(one.number, one.connects[0].item_id) for one in answers] == [(n, n + 100) for n in range(1, 21)]
    assert door.store.writes == 20


@pytest.mark.parametrize("failure", [UnavailableError("redis", "gone"), ValueError("a bug")])
async def test_a_batch_that_cannot_be_written_fails_and_the_stream_goes_on(door: Door, failure: Exception) -> None:
    track = await door.track()
    await track.read()
    door.store.failure = failure

    await track.write(1, refreshes=[ref(1)])
    failed = (await track.read()).results
    door.store.failure = None
    await track.write(2, refreshes=[ref(1)])
    written = (await track.read()).results

    assert (failed.number, failed.is_failed) == (1, True)
    assert (written.number, written.is_failed) == (2, False)


@pytest.mark.parametrize("waited_ms", [20_000, 61_000])
async def test_a_connect_that_waited_for_a_silent_store_ends_nobody_who_came_meanwhile(
    door: Door, waited_ms: int
) -> None:
    first, second = await door.track(), await door.track("10.0.0.18:7443")
    await first.read()
    await second.read()
    door.store.held_edge_id = EDGE_ID
    await first.write(1, refreshes=[ref(9, BOB)])
    await first.write(2, connects=[connect(1)])
    await eventually(lambda: door.rpc.counters.connects == 1, "the connect waits")

    door.store.clock.now_ms += waited_ms
    await second.write(1, connects=[connect(2)])
    await second.read()
    door.store.answers.set()
    await first.read()
    await first.read()

    assert [one.session_id for one in await door.store.locate([ALICE], [])] == [2]


async def test_a_session_that_says_how_long_ago_it_began_ends_nobody_who_began_later(door: Door) -> None:
    first, second = await door.track(), await door.track("10.0.0.18:7443")
    await first.read()
    await second.read()
    late = connect(1)
    late.age_ms = 30_000
    await second.write(1, connects=[connect(2)])
    await second.read()

    await first.write(1, connects=[late])
    answer = (await first.read()).results
    await first.write(2, refreshes=[ref(1)])

    assert [(one.refused_reason, one.replaced_session_id) for one in answer.connects] == [(0, 0)]
    assert list((await first.read()).results.replaced_session_ids) == [1]


async def test_credit_comes_back_as_batches_are_answered(door: Door) -> None:
    track = await door.track()
    await track.read()
    quarter = TRACK_CREDITS // 4

    await track.write(1, refreshes=[ref(number) for number in range(1, quarter + 1)])
    frames = [await track.read(), await track.read()]

    assert {frame.WhichOneof("frame") for frame in frames} == {"results", "credit"}
    assert sum(frame.credit.items for frame in frames) == quarter


async def test_an_edge_beyond_its_credit_is_cut_off(door: Door) -> None:
    track = await door.track()
    await track.read()

    await track.write(1, refreshes=[ref(number) for number in range(1, TRACK_CREDITS + 2)])

    assert (await track.refusal()).code == "RESOURCE_EXHAUSTED"


@pytest.mark.parametrize("edge_id", ["", "10.0.0.17", ":7443", "10.0.0.17:http", "a|b:7443", "a" * 255 + ":1"])
async def test_an_edge_that_nobody_could_dial_is_refused(door: Door, edge_id: str) -> None:
    track = await door.track(edge_id)

    refusal = await track.refusal()

    assert (refusal.reason, refusal.metadata["field"]) == ("INVALID_FIELD", "edge_id")


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        (ref(0), "refreshes[1].session_id"),
        (ref(1, b"short"), "refreshes[1].user_id"),
        (ref(1, device_id=0), "refreshes[1].device_id"),
    ],
)
async def test_a_session_without_a_proper_name_ends_the_stream(
    door: Door, bad: track_pb2.SessionRef, field: str
) -> None:
    track = await door.track()

    await track.write(1, refreshes=[ref(1), bad])

    assert (await track.refusal()).metadata["field"] == field


async def test_a_draining_registry_answers_what_it_has_and_ends(door: Door) -> None:
    track = await door.track()
    await track.read()
    await track.write(1, connects=[connect(1)])

    await door.rpc.drain()
    await track.call.done_writing()
    frames = []
    while (frame := await track.call.read()) is not grpc.aio.EOF:
        frames.append(frame.WhichOneof("frame"))

    assert sorted(frames) == ["drain", "results"]
    assert await track.call.code() == grpc.StatusCode.OK


async def test_gone_routes_are_forgotten(door: Door) -> None:
    track = await door.track()
    await track.read()
    await track.write(1, connects=[connect(1)])
    await track.read()
    gone = presence_service_pb2.Route(user_id=ALICE, device_id=1, session_id=1, boot_id=BOOT, edge_id=EDGE_ID)

    located = await door.stub("svc-fanout").Locate(user_ids=[ALICE], gone=[gone])

    assert len(located.user_indexes) == 0


@pytest.mark.parametrize("user_ids", [[b"short"], [bytes(16)] * 2049], ids=["a short id", "too many"])
async def test_locate_keeps_its_limits(door: Door, user_ids: list[bytes]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await door.stub("svc-fanout").Locate(user_ids=user_ids)

    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_locate_says_that_the_store_does_not_answer(door: Door) -> None:
    door.store.failure = UnavailableError("redis", "gone")

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await door.stub("svc-fanout").Locate(user_ids=[ALICE])

    error = from_rpc_error(caught.value)
    assert (error.code, error.reason) == ("UNAVAILABLE", "DEPENDENCY_UNAVAILABLE")


async def test_locate_is_for_fanout_alone(door: Door) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await door.stub("svc-edge").Locate(user_ids=[ALICE])

    assert caught.value.code() == grpc.StatusCode.PERMISSION_DENIED


async def test_a_draining_registry_takes_no_new_streams(door: Door) -> None:
    await door.rpc.drain()

    track = await door.track()

    assert (await track.refusal()).reason == "DRAINING"


# Watches and typing


def watch(number: int, target_id: bytes, viewer_id: bytes = ALICE) -> track_pb2.PresenceWatch:
    return track_pb2.PresenceWatch(number=number, viewer_user_id=viewer_id, target_user_id=target_id)


def opening(number: int, viewer_id: bytes = ALICE, **named: bytes) -> track_pb2.TypingWatch:
    ref = presence_pb2.ConversationRef(**named)
    return track_pb2.TypingWatch(number=number, viewer_user_id=viewer_id, conversation=ref)


def signal(user_id: bytes, kind: int = 0, *, is_over: bool = False, **named: bytes) -> track_pb2.TypingSignal:
    ref = presence_pb2.ConversationRef(**named)
    return track_pb2.TypingSignal(user_id=user_id, conversation=ref, kind=kind, is_over=is_over)  # type: ignore[arg-type]  # any number may come


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Waits until a condition holds."""
    deadline = asyncio.get_running_loop().time() + 30
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.01)


async def read_news(track: Track) -> track_pb2.TrackNews:
    """Reads on to the next news."""
    while True:
        response = await track.read()
        if response.WhichOneof("frame") == "news":
            return response.news


async def test_watches_are_told_together_by_their_numbers(door: Door) -> None:
    door.directory.allow(ALICE, BOB, Sight.LAST_SEEN)
    track = await door.track()

    await track.write(1, connects=[connect(1, BOB)])
    await track.write(2, watches=[watch(10, BOB), watch(11, CAROL), watch(12, CAROL)])
    told: dict[int, int] = {}
    while len(told) < 3:
        for one in (await read_news(track)).presences:
            told.update(dict.fromkeys(one.watch_numbers, one.state))

    hidden = presence_pb2.PRESENCE_STATE_HIDDEN
    assert told == {10: presence_pb2.PRESENCE_STATE_ONLINE, 11: hidden, 12: hidden}


async def test_a_batch_without_sessions_is_answered_too(door: Door) -> None:
    track = await door.track()
    await track.read()

    await track.write(7, unwatches=[5])

    assert (await track.read()).results.number == 7
    assert door.store.writes == 0


async def test_news_wait_for_credit_and_then_only_the_newest_is_told(door: Door) -> None:
    door.directory.allow(ALICE, BOB, Sight.LAST_SEEN)
    track = await door.track(credits_=0)
    await track.read()
    await track.write(1, watches=[watch(10, BOB)])
    await track.read()
    await track.write(2, connects=[connect(1, BOB)])
    answered = (await track.read()).results

    await track.write(3, news_credit=5)
    news = await read_news(track)

    assert answered.number == 2
    assert [(list(one.watch_numbers), one.state) for one in news.presences] == [([10], 2)]


async def test_a_watch_that_ended_is_told_nothing_more(door: Door) -> None:
    door.directory.allow(ALICE, BOB, Sight.LAST_SEEN)
    track = await door.track()
    await track.write(1, watches=[watch(10, BOB), watch(11, BOB)])
    await read_news(track)

    await track.write(2, unwatches=[10])
    await track.write(3, connects=[connect(1, BOB)])

    assert [list(one.watch_numbers) for one in (await read_news(track)).presences] == [[11]]


async def test_typing_reaches_whoever_has_the_conversation_open(door: Door) -> None:
    door.directory.allow(ALICE, BOB, Sight.ONLINE)
    door.directory.join(GROUP, ALICE, BOB)
    track = await door.track()
    await track.write(1, openings=[opening(1, peer_user_id=BOB), opening(2, group_id=GROUP)])

    await track.write(2, typing=[signal(BOB, 2, group_id=GROUP), signal(BOB, 99, peer_user_id=ALICE)])
    told: dict[int, tuple[bytes, int]] = {}
    while len(told) < 2:
        for one in (await read_news(track)).typing:
            told.update(dict.fromkeys(one.watch_numbers, (one.typists[0].user_id, one.typists[0].kind)))

    assert told == {1: (BOB, 1), 2: (BOB, 2)}


async def test_the_watches_of_a_stream_end_with_it(door: Door) -> None:
    track = await door.track()
    await track.write(1, watches=[watch(10, BOB)], openings=[opening(11, peer_user_id=BOB)])
    await read_news(track)

    track.call.cancel()

    await eventually(lambda: not (door.desk.watching.watch_count or door.desk.rooms.opening_count), "they end")


@pytest.mark.parametrize(
    ("batch", "field"),
    [
        ({"watches": [watch(0, BOB)]}, "watches[0].number"),
        ({"watches": [watch(1, b"short")]}, "watches[0].target_user_id"),
        ({"openings": [opening(1, b"", group_id=GROUP)]}, "openings[0].viewer_user_id"),
        ({"openings": [opening(1)]}, "conversation"),
        ({"openings": [track_pb2.TypingWatch(number=1, viewer_user_id=ALICE)]}, "openings[0].conversation"),
        ({"typing": [signal(ALICE, group_id=b"short")]}, "typing[0].conversation.group_id"),
        ({"typing": [signal(ALICE)]}, "conversation"),
    ],
)
async def test_a_watch_or_typing_without_proper_names_ends_the_stream(
    door: Door, batch: dict[str, Any], field: str
) -> None:
    track = await door.track()

    await track.write(1, **batch)

    assert (await track.refusal()).metadata["field"] == field


async def test_watches_and_typing_use_up_credit_that_comes_back(door: Door) -> None:
    track = await door.track()
    await track.read()
    quarter = TRACK_CREDITS // 4

    await track.write(1, unwatches=list(range(1, quarter + 1)))
    frames = [await track.read(), await track.read()]
    await track.write(2, unwatches=list(range(1, TRACK_CREDITS + 2)))

    assert sum(frame.credit.items for frame in frames) == quarter
    assert (await track.refusal()).code == "RESOURCE_EXHAUSTED"


# Questions


async def test_a_client_asks_for_itself_how_people_are(door: Door) -> None:
    door.directory.allow(ALICE, BOB, Sight.LAST_SEEN)
    track = await door.track()
    await track.write(1, connects=[connect(1, BOB)])
    await track.read()
    await track.read()

    answer = await door.stub("svc-edge", ALICE).BatchGetPresence(user_ids=[CAROL, BOB])

    assert answer == [(CAROL, presence_pb2.PRESENCE_STATE_HIDDEN, 0), (BOB, presence_pb2.PRESENCE_STATE_ONLINE, 0)]


async def test_a_tool_asks_for_somebody(door: Door) -> None:
    door.directory.allow(ALICE, BOB, Sight.LAST_SEEN)

    answer = await door.stub("bot").BatchGetPresence(viewer_user_id=ALICE, user_ids=[BOB])

    assert answer == [(BOB, presence_pb2.PRESENCE_STATE_UNKNOWN, 0)]


@pytest.mark.parametrize(
    ("name", "user_id", "fields"),
    [
        ("bot", b"", {"user_ids": [BOB]}),
        ("svc-edge", ALICE, {"user_ids": [BOB], "viewer_user_id": CAROL}),
        ("svc-edge", ALICE, {"user_ids": []}),
        ("svc-edge", ALICE, {"user_ids": [b"short"]}),
        ("svc-edge", ALICE, {"user_ids": [BOB] * 501}),
    ],
)
async def test_questions_keep_their_limits(door: Door, name: str, user_id: bytes, fields: dict[str, Any]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await door.stub(name, user_id).BatchGetPresence(**fields)

    assert from_rpc_error(caught.value).reason == "INVALID_FIELD"


async def test_who_is_typing_is_listed(door: Door) -> None:
    door.directory.allow(ALICE, BOB, Sight.ONLINE)
    door.directory.join(GROUP, ALICE, BOB)
    track = await door.track()
    await track.write(1, typing=[signal(BOB, group_id=GROUP), signal(BOB, 2, peer_user_id=ALICE)])
    asking = door.stub("svc-edge", ALICE)
    await eventually(lambda: len(door.store._typing) > 1, "typing is written")

    assert await asking.ListTyping(group_id=GROUP) == [(BOB, presence_pb2.TYPING_KIND_TEXT)]
    assert await asking.ListTyping(peer_user_id=BOB) == [(BOB, presence_pb2.TYPING_KIND_RECORDING)]


@pytest.mark.parametrize(("named", "reason"), [({"group_id": GROUP}, "NOT_IN_CONVERSATION"), ({}, "INVALID_FIELD")])
async def test_a_conversation_without_the_user_or_without_a_name_is_refused(
    door: Door, named: dict[str, bytes], reason: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await door.stub("svc-edge", ALICE).ListTyping(**named)

    assert from_rpc_error(caught.value).reason == reason
