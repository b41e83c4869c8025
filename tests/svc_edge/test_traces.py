"""What the edge traces: which Sends are drawn, and what becomes of drawn messages on their way out and back."""

import asyncio
import tracemalloc
from collections.abc import Callable, Sequence

import pytest

import svc_edge.protocol.traced
import svc_edge.service.traces
from chappe.api.type.v1 import stream_pb2
from chappe.runtime import tracing
from chappe.runtime.app import App
from chappe.runtime.clock import SystemRandomness
from chappe.runtime.tracing import Lots, Root, Sampled
from svc_edge.model import DeviceId, Member, SessionId, SignInId, UserId
from svc_edge.protocol.budget import Rate
from svc_edge.protocol.session import Phase, Session
from svc_edge.protocol.traced import MOST_WAITING, Handed, Traced
from svc_edge.service.frames import Frames
from svc_edge.service.traces import MOST_SESSIONS, Traces
from tests.spans import TRACE, TRACEPARENT, Spans, sampled, trace_of
from tests.svc_edge.client import Client
from tests.svc_edge.conftest import Edge
from tests.svc_edge.fakes import FakeFanout, FakeMesh, Person
from tests.svc_edge.test_app import leap_until
from tests.svc_edge.test_protocol import LIMITS
from tests.svc_edge.test_ws import eventually

Connect = Callable[..., Client]
ALICE = Member(UserId(b"A" * 16), DeviceId(1), SignInId(bytes(16)))
MANY = 1_000_000


@pytest.fixture
def spans() -> Spans:
    return Spans()


@pytest.fixture
def ratio() -> float:
    return 1.0


@pytest.fixture
def prepare(spans: Spans, ratio: float) -> Callable[[App], None]:
    def attach(app: App) -> None:
        app.telemetry.tracing.tracer = spans.tracing.tracer
        app.telemetry._sample_ratio = ratio

    return attach


def link_of(index: int = 0, message_id: bytes = b"") -> stream_pb2.TraceLink:
    return stream_pb2.TraceLink(item_index=index, traceparent=TRACEPARENT, message_id=message_id)


async def test_a_drawn_send_is_traced_from_its_frame_to_its_answer(
    connect: Connect, mesh: FakeMesh, spans: Spans
) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())

    stored, refused = client.say(1), client.say(2, content=b"")
    await client.expect("send_ack")
    await client.expect("send_nack")

    said = [dict(span.attributes or {}) for span in spans.of("edge.send")]
    assert said == [
        {"chappe.message_id": stored.hex(), "chappe.verdict": "stored"},
        {"chappe.message_id": refused.hex(), "chappe.verdict": "refused"},
    ]
    traces = [link.traceparent.split("-")[1] for link in mesh.trace_links]
    assert traces == [trace_of(span) for span in spans.of("edge.send")]


async def test_the_trace_of_a_send_goes_along_again_when_its_stream_breaks(
    connect: Connect, mesh: FakeMesh, spans: Spans
) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())
    mesh.answers.clear()
    client.say(1)
    await eventually(lambda: len(mesh.submit_contexts) == 1, "the stream stands")
    await mesh.break_streams(mesh.submit_contexts)
    mesh.answers.set()

    await client.expect("send_ack")

    await eventually(lambda: spans.names == ["edge.send"], "the root has ended")
    assert len({link.traceparent for link in mesh.trace_links}) == 1


async def test_a_send_that_no_ledger_takes_ends_its_trace(
    connect: Connect, mesh: FakeMesh, edge: Edge, spans: Spans
) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())
    mesh.ledger_is_up = False
    await mesh.break_streams(mesh.submit_contexts)

    client.say(1)
    await leap_until(asyncio.create_task(client.expect("send_nack")), edge, client)

    assert spans.said("edge.send")["verdict"] == "refused"


async def test_a_drawn_push_is_followed_to_the_socket_and_its_receipt_to_the_ledger(
    connect: Connect, mesh: FakeMesh, fanout: FakeFanout, spans: Spans
) -> None:
    alice, client = Person.new(), connect()
    welcome = await client.sign_in(mesh, alice)
    await client.expect("caught_up")
    await fanout.dial()
    entries = [mesh.append(alice.user_id) for _ in range(3)]

    await fanout.push([welcome.session_id], alice.user_id, entries, [link_of(1)])
    await client.items(3)
    client.ack(3)
    await eventually(lambda: len(mesh.acked) == 3, "the receipts reach the ledger")

    message_id = entries[1].key[16:32]
    assert spans.names == ["edge.push", "edge.deliver", "edge.receipt"]
    assert spans.said("edge.push") == {"batch_items": 3}
    about = {"message_id": message_id.hex(), "item": "message", "device_id": 1, "is_own": False}
    assert spans.said("edge.deliver") == about
    assert spans.said("edge.receipt") == {"message_id": message_id.hex(), "device_id": 1}
    assert {trace_of(span) for span in (*spans.of("edge.deliver"), *spans.of("edge.receipt"))} == {TRACE}
    assert [(link.traceparent, link.message_id) for link in mesh.ack_trace_links] == [(TRACEPARENT, message_id)]


async def test_another_device_of_the_sender_owes_no_receipt(
    connect: Connect, mesh: FakeMesh, fanout: FakeFanout, spans: Spans
) -> None:
    alice, client = Person.new(), connect()
    welcome = await client.sign_in(mesh, alice)
    await client.expect("caught_up")
    await fanout.dial()

    await fanout.push(
        [welcome.session_id], alice.user_id, [mesh.append(alice.user_id, sender_id=alice.user_id)], [link_of()]
    )
    await client.items(1)
    client.ack(1)
    await eventually(lambda: len(mesh.acked) == 1, "the acknowledgement reaches the ledger")

    assert spans.said("edge.deliver")["is_own"]
    assert spans.of("edge.receipt") == list(mesh.ack_trace_links) == []


async def test_a_push_that_meets_nobody_is_not_followed(
    connect: Connect, mesh: FakeMesh, fanout: FakeFanout, spans: Spans
) -> None:
    alice, client = Person.new(), connect()
    welcome = await client.sign_in(mesh, alice)
    await client.expect("caught_up")
    await fanout.dial()

    await fanout.push([welcome.session_id + 9], alice.user_id, [mesh.append(alice.user_id)], [link_of(), link_of(7)])

    assert spans.names == ["edge.push"]


async def test_pushes_without_drawn_messages_make_no_span(
    connect: Connect, mesh: FakeMesh, fanout: FakeFanout, spans: Spans
) -> None:
    alice, client = Person.new(), connect()
    welcome = await client.sign_in(mesh, alice)
    await client.expect("caught_up")
    await fanout.dial()

    await fanout.push([welcome.session_id], alice.user_id, [mesh.append(alice.user_id)])
    await client.items(1)
    client.ack(1)
    await eventually(lambda: len(mesh.acked) == 1, "the receipt reaches the ledger")

    assert spans.names == []
    assert list(mesh.ack_trace_links) == []


class FakeLedger:
    """The `Ledger` port, as far as frames need it."""

    def __init__(self) -> None:
        self.sends = 0
        self.roots: list[Root] = []
        self.drawn: Sequence[Sampled] = ()

    def send(self, session_id: SessionId, member: Member, send: bytes, root: Root | None = None) -> None:
        self.sends += 1
        if root is not None:
            self.roots.append(root)


def frames_over(ledger: FakeLedger, traces: Traces) -> tuple[Frames, Session]:
    """Makes the frames' rules over a ledger, and a session that sends."""
    limits = LIMITS._replace(frames=Rate(MANY, 1), send_window=MANY)
    session = Session(SessionId(1), None, limits, 0.0)  # type: ignore[arg-type]  # nobody writes to its socket
    session.begin_delivery(ALICE, b"", 100)
    session.phase = Phase.LIVE
    nobody: list[None] = [None] * 4
    frames = Frames(None, ledger, *nobody)  # type: ignore[arg-type]  # a Send needs the ledger alone
    frames.traces = traces
    return frames, session


def test_a_send_that_is_not_drawn_allocates_nothing_and_takes_no_span(spans: Spans) -> None:
    ledger, lots = FakeLedger(), Lots(SystemRandomness(), 1e-12)
    traces = Traces(spans.tracing, lots)
    assert traces.next_send > MANY
    frames, session = frames_over(ledger, traces)
    files = [tracing.__file__, svc_edge.service.traces.__file__, svc_edge.protocol.traced.__file__]
    send = b"\x0a\x10" + bytes(16)
    frames.send(session, send)

    tracemalloc.start()
    before = tracemalloc.take_snapshot()
    for _ in range(10_000):
        frames.send(session, send)
    after = tracemalloc.take_snapshot()
    tracemalloc.stop()

    here = [tracemalloc.Filter(inclusive=True, filename_pattern=file) for file in files]
    grown = after.filter_traces(here).compare_to(before.filter_traces(here), "filename")
    assert (sum(one.count_diff for one in grown), spans.names) == (0, [])
    assert (ledger.sends, ledger.roots) == (10_001, [])
    assert not hasattr(session.traced, "_writes")


def test_sends_are_drawn_at_the_numbers_that_the_lots_tell(spans: Spans) -> None:
    ledger = FakeLedger()
    frames, session = frames_over(ledger, Traces(spans.tracing, Lots(SystemRandomness(), 0.1)))

    for _ in range(5_000):
        frames.send(session, b"\x0a\x10" + bytes(16))

    assert len(ledger.roots) == pytest.approx(500, rel=0.3)


def test_a_send_without_a_message_id_is_sent_without_a_trace(spans: Spans) -> None:
    ledger = FakeLedger()
    frames, session = frames_over(ledger, Traces(spans.tracing, Lots(SystemRandomness(), 1.0)))

    frames.send(session, b"\xff")

    assert (ledger.sends, ledger.roots, spans.names) == (1, [], [])


def item_at(number: int) -> bytes:
    return b"\x0a\x10" + bytes([number]) * 16 + b"\x12\x00"


def key_at(number: int) -> bytes:
    return bytes([number]) * 64


def test_a_session_waits_for_the_receipts_that_its_device_owes_and_for_no_others() -> None:
    traced = Traced()
    owed, told = sampled(bytes([1]) * 16), sampled(bytes([2]) * 16)
    own = sampled(bytes([3]) * 16)
    handed = [Handed((owed,), 3, False), Handed((told,), 2, False), Handed((own,), 3, True)]  # noqa: FBT003 - is_own
    for number, one in enumerate(handed, 1):
        traced.hand(item_at(number), one)

    written = traced.written([item_at(9), item_at(1), item_at(2), item_at(3)], 50)
    acknowledged = traced.acknowledged(key_at(1) + key_at(2) + key_at(3) + key_at(1))

    assert written == [(item_at(number), one) for number, one in enumerate(handed, 1)]
    assert acknowledged == [owed._replace(since_ns=50)]
    assert traced.is_empty
    assert (traced.written([item_at(1)], 60), traced.acknowledged(key_at(1))) == ([], [])


def test_a_session_follows_a_bounded_number_of_messages() -> None:
    traced = Traced()
    for number in range(MOST_WAITING + 10):
        traced.hand(item_at(number), Handed((sampled(bytes([number]) * 16),), 1, is_own=False))

    written = traced.written([item_at(number) for number in range(MOST_WAITING + 10)], 0)

    assert len(written) == MOST_WAITING
    assert written[-1][1].drawn[0].message_id == bytes([MOST_WAITING + 9]) * 16


async def test_a_message_for_many_is_followed_to_some(
    connect: Connect, mesh: FakeMesh, fanout: FakeFanout, spans: Spans
) -> None:
    alice = Person.new()
    sessions = []
    for device_id in range(1, MOST_SESSIONS + 3):
        client = connect()
        sessions.append((await client.sign_in(mesh, Person.new(alice.user_id, device_id))).session_id)
        await client.expect("caught_up")
    await fanout.dial()

    await fanout.push(sessions, alice.user_id, [mesh.append(alice.user_id)], [link_of()])

    await eventually(lambda: len(spans.of("edge.deliver")) >= MOST_SESSIONS, "the push is written")
    assert len(spans.of("edge.deliver")) == MOST_SESSIONS


@pytest.mark.parametrize("ratio", [0.0])
async def test_a_ratio_of_nought_draws_nothing(connect: Connect, mesh: FakeMesh, spans: Spans, ratio: float) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())

    client.say(1)
    await client.expect("send_ack")

    assert (spans.names, list(mesh.trace_links)) == ([], [])
