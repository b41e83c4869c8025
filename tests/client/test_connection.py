"""Connections, over real sockets, to a small edge."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable
from functools import partial

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from chappe.api.edge.v1 import server_frame_pb2
from chappe.api.identity.v1 import profile_service_pb2, session_service_pb2
from chappe.api.type.v1 import error_reason_pb2
from chappe.client.acks import LATE_S
from chappe.client.changes import LogChange, MessageArrived, Sent
from chappe.client.connection import GHOST_S, ConnectionOptions, addresses_of
from chappe.client.device import Device, DeviceKey
from chappe.client.door import Door
from chappe.client.errors import ChappeClientError, NotConnectedError, RefusedError, SessionEndedError, StoreError
from chappe.client.lean import Callbacks, LeanClient, LeanParts
from chappe.client.methods import CREATE_SESSION, GET_PROFILE
from chappe.client.seams import Seams, SystemRandomness
from chappe.client.store import Batch
from chappe.client.tokens import Token
from chappe.client.wire import Closed, Wire
from tests.client.fakes import ToldClock
from tests.client.model_edge import DEVICE, ME, PEER, frame, message_item, receipt_item
from tests.client.socket_edge import SocketEdge


class HastyClock(ToldClock):
    """A clock whose waits are short, however long they are."""

    async def sleep(self, delay_s: float) -> None:
        await super().sleep(delay_s)
        await asyncio.sleep(0.001)


class Lots(SystemRandomness):
    """The machine's randomness, which remembers between what it was to draw."""

    def __init__(self) -> None:
        super().__init__()
        self.drawn: list[tuple[float, float]] = []

    def uniform(self, low: float, high: float) -> float:
        self.drawn.append((low, high))
        return super().uniform(low, high)


class Someone:
    """A lean client and what it was told."""

    def __init__(self, *addresses: str, token: Token | None = None) -> None:
        self.clock = HastyClock()
        self.lots = Lots()
        self.arrived: list[MessageArrived] = []
        self.sent: list[Sent] = []
        self.caught_up = 0
        self.device = Device(ME, DEVICE, DeviceKey.generate())
        self.client = LeanClient(
            self.device,
            addresses,
            Callbacks(message=self.arrived.append, sent=self.sent.append, caught_up=self._count),
            LeanParts(seams=Seams(self.clock, self.lots), options=ConnectionOptions(ping_s=None), token=token),
        )

    def _count(self, _change: object) -> None:
        self.caught_up += 1


async def until(holds: Callable[[], object], timeout_s: float = 30.0) -> None:
    """Waits for other callbacks of this loop."""
    async with asyncio.timeout(timeout_s):
        while not holds():  # noqa: ASYNC110 - what is awaited happens in other objects
            await asyncio.sleep(0.002)


@pytest.fixture
async def edge() -> AsyncIterator[SocketEdge]:
    async with SocketEdge() as edge:
        yield edge


@pytest.fixture
async def someone(edge: SocketEdge) -> AsyncIterator[Someone]:
    someone = Someone(edge.address)
    await someone.client.start()
    yield someone
    await someone.client.close()


async def test_a_device_signs_in_by_an_anonymous_call_and_then_says_hello(edge: SocketEdge, someone: Someone) -> None:
    hello = edge.model.hellos[0].signed

    signed = b"chappe-hello/1\0" + hashlib.sha256(hello.access_token.encode()).digest()
    signed += hello.timestamp_ms.to_bytes(8, "big") + hello.nonce + edge.hosts[1].encode()
    Ed25519PublicKey.from_public_bytes(someone.device.key.public).verify(hello.signature, signed)
    assert edge.calls == [CREATE_SESSION.name]
    assert edge.protocols == ["chappe.v1", "chappe.v1"]


async def test_a_token_that_still_holds_saves_the_anonymous_connection(edge: SocketEdge) -> None:
    token = Token("kept", edge.model.now_ms + 120_000)
    someone = Someone(edge.address, token=token)

    await someone.client.start()

    assert edge.calls == []
    assert edge.model.hellos[0].signed.access_token == token.access_token
    await someone.client.close()


async def test_a_message_goes_out_and_comes_in(edge: SocketEdge, someone: Someone) -> None:
    outgoing = someone.client.send(PEER, b"hello", tag=7)
    await until(lambda: someone.sent)

    edge.model.log.append(message_item(1))
    edge.push()
    await until(lambda: someone.arrived)
    await until(lambda: edge.model.acked == 1)

    assert someone.sent[0].outgoing is outgoing
    assert outgoing.tag == 7
    assert someone.arrived[0].message.envelope.content == b"hello"


async def test_what_nobody_waits_for_is_acknowledged_a_drawn_moment_later(edge: SocketEdge, someone: Someone) -> None:
    edge.model.log.append(receipt_item(1, [bytes(16)]))
    edge.push()
    edge.model.log.append(receipt_item(2, [bytes(16)]))
    edge.push()

    await until(lambda: edge.model.acked)

    assert edge.model.acked == 2
    assert someone.lots.drawn.count(LATE_S) == 1


async def test_a_broken_line_is_mended_and_what_was_open_is_sent_again(edge: SocketEdge, someone: Someone) -> None:
    edge.is_mute = True
    outgoing = someone.client.send(PEER, b"hello")
    await until(lambda: edge.model.stored)

    edge.is_mute = False
    edge.drop()
    await until(lambda: someone.sent)

    assert [attempt for attempt, _ in edge.model.bodies[outgoing.message_id]] == [1, 2]
    assert edge.calls == [CREATE_SESSION.name]


async def test_another_edge_takes_the_session_on() -> None:
    async with SocketEdge() as one, SocketEdge() as other:
        someone = Someone(one.address, other.address)
        await someone.client.start()

        one.stop()
        await until(lambda: someone.caught_up == 2)

        assert len(other.model.hellos) == 1
        await someone.client.close()


@pytest.fixture
def quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the engine look at its clock as often as the clock of these tests moves."""
    monkeypatch.setattr("chappe.client.alarms.TICK_S", 0.002)


@pytest.mark.usefixtures("quick_ticks")
async def test_an_edge_that_says_nothing_for_6_seconds_after_it_was_asked_is_left_for_another() -> None:
    async with SocketEdge() as one, SocketEdge() as other:
        someone = Someone(one.address, other.address)
        await someone.client.start()
        one.is_mute = True
        outgoing = someone.client.send(PEER, b"hello")
        await until(lambda: one.model.stored)

        someone.clock.pass_s(4.1)
        await until(lambda: one.model.pings)
        someone.clock.pass_s(6.1)
        await until(lambda: someone.sent)

        assert [attempt for attempt, _ in other.model.bodies[outgoing.message_id]] == [3]
        assert (len(one.model.hellos), len(other.model.hellos)) == (1, 1)
        await someone.client.close()


@pytest.mark.usefixtures("quick_ticks")
async def test_an_edge_that_tells_its_time_is_waited_for_while_the_ledger_says_nothing(
    edge: SocketEdge, someone: Someone
) -> None:
    edge.model.is_ledger_silent = True
    outgoing = someone.client.send(PEER, b"hello")
    await until(lambda: edge.model.bodies)

    for pings in (1, 2, 3):
        someone.clock.pass_s(16.1)
        await until(partial(edge.model.was_asked, pings))
    edge.model.is_ledger_silent = False
    someone.clock.pass_s(60.0)
    await until(lambda: someone.sent)

    assert [attempt for attempt, _ in edge.model.bodies[outgoing.message_id]] == [1, 2, 3, 4, 5]
    assert len(edge.model.hellos) == 1


async def test_the_goaway_delay_is_obeyed(edge: SocketEdge, someone: Someone) -> None:
    go_away = server_frame_pb2.GoAway(close_code=4000, detail="drain", reconnect_after_ms=42_000)
    edge.model.frames.append(frame(go_away=go_away).SerializeToString())
    edge.deliver()
    edge.close(4000, "drain")

    await until(lambda: someone.caught_up == 2)

    assert someone.clock.waits == [42.0]


async def test_a_slow_client_comes_back_at_once(edge: SocketEdge, someone: Someone) -> None:
    edge.close(4001, "slow")

    await until(lambda: someone.caught_up == 2)

    assert someone.clock.waits == []


async def assert_replaced_for_good(edge: SocketEdge, someone: Someone) -> None:
    edge.close(4409, "replaced by a newer connection")

    assert someone.client._run is not None
    with pytest.raises(SessionEndedError, match="replaced by a newer connection") as raised:
        await someone.client._run

    assert raised.value.code == 4409


async def test_a_replaced_client_does_not_come_back(edge: SocketEdge, someone: Someone) -> None:
    someone.clock.pass_s(GHOST_S)

    await assert_replaced_for_good(edge, someone)


async def test_a_client_that_was_replaced_by_what_its_last_process_had_said_comes_back_once(
    edge: SocketEdge, someone: Someone
) -> None:
    edge.close(4409, "replaced by what was said before")
    await until(lambda: someone.caught_up == 2)

    await assert_replaced_for_good(edge, someone)


async def test_a_client_that_was_replaced_by_its_own_last_connection_comes_back_once(
    edge: SocketEdge, someone: Someone
) -> None:
    someone.clock.pass_s(GHOST_S)
    edge.drop()
    await until(lambda: someone.caught_up == 2)

    edge.close(4409, "replaced by what was said before")
    await until(lambda: someone.caught_up == 3)

    await assert_replaced_for_good(edge, someone)


async def replace_without_a_close(edge: SocketEdge, someone: Someone) -> None:
    edge.model.tell(go_away=server_frame_pb2.GoAway(close_code=4409, detail="replaced by a newer connection"))
    edge.deliver()
    await until(lambda: someone.client.engine.go_away)
    edge.drop()


async def test_a_client_that_was_told_that_it_is_replaced_comes_back_once_though_no_close_came(
    edge: SocketEdge, someone: Someone
) -> None:
    await replace_without_a_close(edge, someone)
    await until(lambda: someone.caught_up == 2)

    await replace_without_a_close(edge, someone)
    assert someone.client._run is not None
    async with asyncio.timeout(10):
        with pytest.raises(SessionEndedError, match="replaced by a newer connection") as raised:
            await someone.client._run

    assert raised.value.code == 4409


async def test_a_client_that_was_replaced_by_its_own_lost_hello_comes_back_once(edge: SocketEdge) -> None:
    someone = Someone(edge.address)
    edge.is_mute = True
    starting = asyncio.create_task(someone.client.start())
    await until(lambda: edge.model.hellos)
    edge.is_mute = False
    edge.drop()
    await starting

    edge.close(4409, "replaced by what was said before")
    await until(lambda: someone.caught_up == 2)

    await assert_replaced_for_good(edge, someone)


async def test_a_store_that_fails_between_two_sessions_ends_the_client(
    edge: SocketEdge, someone: Someone, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_batch: Batch) -> list[LogChange]:
        raise StoreError("the disk is full")

    async def fill_the_disk(_delay_s: float) -> None:
        monkeypatch.setattr(someone.client.engine._store, "commit", fail)
        someone.client.send(PEER, b"hello")
        someone.client.engine.flush()

    monkeypatch.setattr(someone.clock, "sleep", fill_the_disk)
    edge.drop()

    assert someone.client._run is not None
    await until(someone.client._run.done)

    with pytest.raises(StoreError, match="the disk is full"):
        await someone.client._run
    assert len(edge.model.hellos) == 1


async def test_a_kept_token_that_is_refused_is_fetched_anew_once(edge: SocketEdge) -> None:
    someone = Someone(edge.address, token=Token("stale", edge.model.now_ms + 120_000))
    edge.refuse_with = [4401]

    await someone.client.start()

    assert edge.calls == [CREATE_SESSION.name]
    await someone.client.close()


async def test_a_fresh_token_that_is_refused_ends_it(edge: SocketEdge) -> None:
    someone = Someone(edge.address)
    edge.refuse_with = [4401]

    with pytest.raises(SessionEndedError):
        await someone.client.start()

    await someone.client.close()


async def test_a_device_that_may_not_sign_in_is_told_so(edge: SocketEdge) -> None:
    edge.answers[CREATE_SESSION.name] = lambda _: server_frame_pb2.CallError(
        reason=error_reason_pb2.ERROR_REASON_DEVICE_NOT_FOUND, detail="register again"
    )
    someone = Someone(edge.address)

    with pytest.raises(RefusedError, match="DEVICE_NOT_FOUND: register again"):
        await someone.client.start()

    await someone.client.close()


async def test_a_client_whose_machine_slept_signs_in_again(edge: SocketEdge, someone: Someone) -> None:
    create = edge.answers[CREATE_SESSION.name]

    def create_unless_late(payload: bytes) -> bytes | server_frame_pb2.CallError:
        question = session_service_pb2.CreateSessionRequest.FromString(payload)
        if abs(question.timestamp_ms - edge.model.now_ms) <= 60_000:
            return create(payload)
        return server_frame_pb2.CallError(reason=error_reason_pb2.ERROR_REASON_INVALID_PROOF)

    edge.answers[CREATE_SESSION.name] = create_unless_late
    edge.model.now_ms += 7_200_000
    edge.refuse_with = [4401]
    edge.drop()

    await until(lambda: someone.caught_up == 2)

    assert edge.calls == [CREATE_SESSION.name] * 2


async def test_a_sign_in_that_cannot_be_decided_now_is_tried_again(edge: SocketEdge) -> None:
    create = edge.answers[CREATE_SESSION.name]
    answers = iter([b""])

    def first_unavailable(payload: bytes) -> bytes | server_frame_pb2.CallError:
        if next(answers, None) is None:
            return create(payload)
        return server_frame_pb2.CallError(
            reason=error_reason_pb2.ERROR_REASON_DEPENDENCY_UNAVAILABLE, retry_after_ms=7_000
        )

    edge.answers[CREATE_SESSION.name] = first_unavailable
    someone = Someone(edge.address)

    await someone.client.start()

    assert someone.clock.waits == [7.0]
    await someone.client.close()


async def test_a_door_that_an_edge_shuts_says_why_and_keeps_no_connection(edge: SocketEdge) -> None:
    edge.refuse_anonymous_with = 4403
    clock = ToldClock()

    with pytest.raises(SessionEndedError, match="4403"):
        async with Door(edge.address, Seams(clock, SystemRandomness())):
            pass

    await until(lambda: not edge.sessions)


async def test_while_no_edge_answers_the_waits_grow_with_full_jitter(edge: SocketEdge) -> None:
    edge.stop()
    someone = Someone(edge.address)
    start = asyncio.ensure_future(someone.client.start())

    await until(lambda: len(someone.clock.waits) >= 9)

    assert all(wait <= min(30.0, 0.5 * 2**k) for k, wait in enumerate(someone.clock.waits, 1))
    start.cancel()
    await someone.client.close()


async def test_a_call_is_answered_over_the_bridge(edge: SocketEdge, someone: Someone) -> None:
    profile = profile_service_pb2.Profile(profile_name="Alice")
    answer = profile_service_pb2.GetProfileResponse(profile=profile).SerializeToString()
    edge.answers[GET_PROFILE.name] = lambda _: answer

    response = await someone.client.call(GET_PROFILE, profile_service_pb2.GetProfileRequest())

    assert response.profile.profile_name == "Alice"


async def test_a_call_without_a_session_fails_at_once(edge: SocketEdge) -> None:
    someone = Someone(edge.address)

    with pytest.raises(NotConnectedError, match="no session"):
        await someone.client.call(GET_PROFILE, profile_service_pb2.GetProfileRequest())


@pytest.mark.parametrize("address", ["", " , ", []])
def test_at_least_one_edge_is_named(address: str | list[str]) -> None:
    with pytest.raises(ChappeClientError, match="no edge is named"):
        addresses_of(address)


async def test_an_address_that_is_none_is_said_to_be_none() -> None:
    someone = Someone("http://127.0.0.1:1")

    with pytest.raises(ChappeClientError, match="not the address of an edge"):
        await someone.client.start()

    await someone.client.close()


async def test_a_connection_that_broke_with_its_handshake_has_an_end() -> None:
    class Nobody:
        def frame_arrived(self, data: bytes, *, is_last: bool) -> None:
            """Nothing comes."""

    wire = Wire("edge:1", Nobody())

    wire.abandon("no Welcome came")

    assert wire.closed.result() == Closed(1006, "no Welcome came")
