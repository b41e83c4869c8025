"""The door of the carrier, over real loopback gRPC and ports that do what a test says."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from chappe.api.fanout.v1 import fanout_service_pb2, fanout_service_pb2_grpc
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.clock import SystemClock
from chappe.runtime.errors import RemoteError, from_rpc_error
from chappe.runtime.interceptors import ConformanceInterceptor, DoorInterceptor, Gate, Realm
from chappe.runtime.pki import SpiffeId
from chappe.runtime.streams import Identity
from chappe.runtime.tasks import Tasks
from chappe.runtime.tracing import Sampled
from svc_fanout.rpc import DISPATCH_CREDITS, FanoutRpc, to_hints
from svc_fanout.service import FanoutService
from svc_fanout.worker import FanoutWorker, Limits
from tests.svc_fanout.fakes import FakeEdges, FakeRegistry, HandClock, key, route, serving, settle, user


class Door:
    """A served carrier, and streams as a ledger opens them."""

    def __init__(self, tasks: Tasks) -> None:
        self.registry = FakeRegistry(route(1), route(2))
        self.edges = FakeEdges()
        self.worker = FanoutWorker(
            FanoutService(self.registry, self.edges, SystemClock()),
            self.edges,
            tasks=tasks,
            clock=HandClock(),
            limits=Limits(max_waiting_hints=100_000, max_waiting_bytes=10_000_000, large_deliveries_per_s=100_000),
        )
        self.rpc = FanoutRpc(self.worker, identity=Identity("fanout-1", 5), tasks=tasks)
        self.caller = "svc-message"
        self.stub: Any = None

    async def dispatch(self) -> "Dispatch":
        stream = Dispatch(self.stub.Dispatch())
        hello = stream_pb2.StreamHello(protocol=1, peer_id="message-1", boot_id=3)
        await stream.send(fanout_service_pb2.DispatchRequest(hello=hello))
        return stream


class Dispatch:
    """One stream as a ledger sees it."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def write(self, batch: fanout_service_pb2.DispatchBatch) -> None:
        await self.send(fanout_service_pb2.DispatchRequest(batch=batch))

    async def send(self, request: fanout_service_pb2.DispatchRequest) -> None:
        # A stream that is refused meanwhile says why to its reader.
        with contextlib.suppress(grpc.aio.AioRpcError):
            await self.call.write(request)

    async def read(self) -> fanout_service_pb2.DispatchResponse:
        response: fanout_service_pb2.DispatchResponse = await self.call.read()
        return response

    async def finish(self) -> list[str | None]:
        """Half-closes, and returns the kinds of the messages until the end."""
        await self.call.done_writing()
        kinds = []
        while (response := await self.call.read()) is not grpc.aio.EOF:
            kinds.append(response.WhichOneof("frame"))
        return kinds

    async def refusal(self) -> RemoteError:
        """Returns why the carrier ended the stream."""
        try:
            while await self.call.read() is not grpc.aio.EOF:
                pass
        except grpc.aio.AioRpcError as caught:
            error = from_rpc_error(caught)
        assert isinstance(error, RemoteError)
        return error


def batch_of(number: int, *items: bytes, users: tuple[int, ...] = (1,), dropped: int = 0) -> Any:
    """Makes a batch of items that all go to the same users."""
    return fanout_service_pb2.DispatchBatch(
        number=number,
        items=items,
        keys=[key(9)] * len(items),
        user_counts=[len(users)] * len(items),
        user_ids=[user(one) for one in users] * len(items),
        origin_device_ids=[0] * len(items),
        flags=[1] * len(items),
        dropped_hints=dropped,
    )


@pytest.fixture
async def door() -> AsyncIterator[Door]:
    conformance = ConformanceInterceptor()
    async with Tasks() as tasks:
        made = Door(tasks)
        gate = Gate(
            Realm("chappe.test", "chappe", ()), lambda _: SpiffeId(trust_domain="chappe.test", service=made.caller)
        )
        register = fanout_service_pb2_grpc.add_FanoutServiceServicer_to_server
        interceptors = [conformance, DoorInterceptor(gate, lambda: "0" * 32)]
        async with (
            serving(register, made.rpc, interceptors=interceptors) as address,
            grpc.aio.insecure_channel(address) as channel,
        ):
            made.stub = fanout_service_pb2_grpc.FanoutServiceStub(channel)
            yield made
    # A test may leave while its stream is being refused; what gRPC then raises in the server reaches nobody.
    conformance.violations = [one for one in conformance.violations if "ExecuteBatchError" not in one]
    conformance.check()


async def test_hints_are_taken_and_pushed(door: Door) -> None:
    stream = await door.dispatch()
    hello = (await stream.read()).hello

    await stream.write(batch_of(1, b"one", b"two", users=(1, 2)))
    taken = (await stream.read()).taken
    await door.edges.pushed.reach(1)

    assert (hello.peer_id, hello.boot_id, hello.credits) == ("fanout-1", 5, DISPATCH_CREDITS)
    assert taken.number == 1
    assert door.edges.items() == [(b"one", 1), (b"one", 2), (b"two", 1), (b"two", 2)]


async def test_credit_comes_back_when_items_have_been_pushed(door: Door) -> None:
    stream = await door.dispatch()
    await stream.read()
    quarter = DISPATCH_CREDITS // 4

    await stream.write(batch_of(1, *[b"x"] * quarter))
    frames = [await stream.read(), await stream.read()]

    assert sum(frame.credit.items for frame in frames) == quarter


async def test_a_ledger_beyond_its_credit_is_cut_off(door: Door) -> None:
    stream = await door.dispatch()

    await stream.write(batch_of(1, *[b"x"] * (DISPATCH_CREDITS + 1)))

    assert (await stream.refusal()).code == "RESOURCE_EXHAUSTED"


async def test_a_stream_that_ends_with_its_marker_is_not_a_loss(door: Door) -> None:
    stream = await door.dispatch()
    await stream.read()
    await stream.write(batch_of(1, b"one"))
    await stream.call.write(fanout_service_pb2.DispatchRequest(drain=stream_pb2.StreamDrain(reason="bye")))

    kinds = await stream.finish()
    await settle()

    assert kinds == ["taken"]
    assert await stream.call.code() == grpc.StatusCode.OK
    assert door.edges.verified.entries == []


@pytest.mark.parametrize("is_cancelled", [True, False])
async def test_a_stream_that_ends_without_its_marker_makes_all_sessions_verify(door: Door, is_cancelled: bool) -> None:  # noqa: FBT001 - a parameter of the test
    stream = await door.dispatch()
    await stream.read()

    if is_cancelled:
        stream.call.cancel()
    else:
        await stream.finish()
    ((reason, spread_ms),) = await door.edges.verified.reach(1)

    assert reason == "the stream of message-1 ended without its drain marker"
    assert spread_ms == 45_000


async def test_hints_that_the_ledger_dropped_make_all_sessions_verify(door: Door) -> None:
    stream = await door.dispatch()

    await stream.write(batch_of(1, b"one", dropped=17))
    ((reason, _),) = await door.edges.verified.reach(1)

    assert "dropped 17 hints" in reason


@pytest.mark.parametrize("column", ["keys", "user_counts", "origin_device_ids", "flags", "user_ids"])
async def test_columns_that_do_not_fit_together_end_the_stream(door: Door, column: str) -> None:
    stream = await door.dispatch()
    batch = batch_of(1, b"one", b"two")
    del getattr(batch, column)[-1]

    await stream.write(batch)

    assert (await stream.refusal()).metadata["field"] == f"batch.{column}"


@pytest.mark.parametrize(("column", "value"), [("keys", bytes(63)), ("user_ids", bytes(15))])
async def test_ids_of_another_length_end_the_stream(door: Door, column: str, value: bytes) -> None:
    stream = await door.dispatch()
    batch = batch_of(1, b"one")
    getattr(batch, column)[0] = value

    await stream.write(batch)

    assert (await stream.refusal()).reason == "INVALID_FIELD"


async def test_a_draining_carrier_pushes_what_it_was_given_and_takes_no_new_streams(door: Door) -> None:
    stream = await door.dispatch()
    await stream.read()
    await stream.write(batch_of(1, b"one"))
    draining = asyncio.get_running_loop().create_task(door.rpc.drain())
    kinds = [(await stream.read()).WhichOneof("frame"), (await stream.read()).WhichOneof("frame")]
    await stream.write(batch_of(2, b"two"))
    await stream.finish()
    await draining
    await door.worker.drain()

    late = await door.dispatch()

    assert set(kinds) == {"taken", "drain"}
    assert [item for item, _ in door.edges.items()] == [b"one", b"two"]
    assert door.edges.verified.entries == []
    assert (await late.refusal()).reason == "DRAINING"


async def test_only_the_ledger_may_dispatch(door: Door) -> None:
    door.caller = "svc-edge"

    stream = await door.dispatch()

    assert (await stream.refusal()).reason == "CALLER_NOT_ALLOWED"


def test_users_traces_and_origins_stay_with_their_items() -> None:
    batch = fanout_service_pb2.DispatchBatch(
        items=[b"one", b"two", b"three"],
        keys=[key(1), key(2), key(3)],
        user_counts=[2, 0, 1],
        user_ids=[user(1), user(2), user(3)],
        origin_device_ids=[4, 0, 5],
        flags=[0, 1, 2],
        trace_links=[
            stream_pb2.TraceLink(item_index=2, traceparent="00-trace"),
            stream_pb2.TraceLink(item_index=2, traceparent="00-other", message_id=b"n" * 16),
            stream_pb2.TraceLink(item_index=7, traceparent="00-stray"),
        ],
    )

    hints = to_hints(batch, print, lambda: 7)

    assert [list(one.user_ids) for one in hints] == [[user(1), user(2)], [], [user(3)]]
    assert [(one.origin_device_id, one.flags) for one in hints] == [(4, 0), (0, 1), (5, 2)]
    assert [hint.drawn for hint in hints] == [
        (),
        (),
        (Sampled(bytes(16), "00-trace", 7), Sampled(b"n" * 16, "00-other", 7)),
    ]
