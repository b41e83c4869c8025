"""Both halves of a stream over a real loopback channel: credits, order, and polite and impolite ends."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from chappe.api.fanout.v1 import fanout_service_pb2 as pb
from chappe.api.fanout.v1 import fanout_service_pb2_grpc
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.clock import system_seams
from chappe.runtime.streams import DialHandler, Identity, ServeHandler, StreamClient, StreamServer
from chappe.runtime.tasks import Tasks
from tests.runtime.probe import ALONE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

SERVER, CLIENT = Identity("server", 7), Identity("client", 8)


class Taker(ServeHandler[int, pb.DispatchRequest, pb.DispatchResponse]):
    """Answers every batch with its number, at once or when it is told to."""

    def __init__(self, window: int, *, grants: bool) -> None:
        self.window, self.grants = window, grants
        self.server: StreamServer[int, pb.DispatchRequest, pb.DispatchResponse]
        self.items: list[bytes] = []
        self.ends: list[bool] = []
        self.ended = asyncio.Event()
        self.arrived = asyncio.Condition()

    def opened(self, request: pb.DispatchRequest) -> None:
        assert request.hello.peer_id == CLIENT.peer_id

    def hello(self) -> pb.DispatchResponse:
        return pb.DispatchResponse(hello=SERVER.hello(self.window))

    def count(self, request: pb.DispatchRequest) -> int:
        return len(request.batch.items)

    def received(self, kind: str, request: pb.DispatchRequest) -> None:
        assert kind == "batch"
        self.items.extend(request.batch.items)
        self.server.add(request.batch.number)
        if self.grants:
            self.server.grant(len(request.batch.items))

    def encode(self, items: list[int]) -> pb.DispatchResponse:
        return pb.DispatchResponse(taken=pb.DispatchTaken(number=max(items)))

    def credit(self, items: int) -> pb.DispatchResponse:
        return pb.DispatchResponse(credit=stream_pb2.StreamCredit(items=items))

    def drain(self, reason: str) -> pb.DispatchResponse:
        return pb.DispatchResponse(drain=stream_pb2.StreamDrain(reason=reason))

    async def settled(self) -> None:
        """Everything is answered as it arrives."""

    def closed(self, *, is_clean: bool) -> None:
        self.ends.append(is_clean)
        self.ended.set()


class Door(fanout_service_pb2_grpc.FanoutServiceServicer):
    """Serves Dispatch with a `Taker` for each stream."""

    def __init__(self, tasks: Tasks, *, window: int = 1000, grants: bool = True) -> None:
        self.tasks, self.window, self.grants = tasks, window, grants
        self.takers: list[Taker] = []

    async def Dispatch(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # read and write
        del request_iterator
        taker = Taker(self.window, grants=self.grants)
        taker.server = StreamServer(context, taker, tasks=self.tasks, credits_=self.window, name="test")
        self.takers.append(taker)
        await taker.server.serve()


class Giver(DialHandler[bytes, pb.DispatchRequest, pb.DispatchResponse]):
    """Sends bytes as items, and remembers what became of its streams."""

    def __init__(self) -> None:
        self.taken = 0
        self.ends: list[tuple[list[bytes], bool]] = []
        self.changed = asyncio.Event()
        self.opens = 0

    def hello(self) -> pb.DispatchRequest:
        return pb.DispatchRequest(hello=CLIENT.hello(0))

    def encode(self, number: int, items: list[bytes]) -> pb.DispatchRequest:
        return pb.DispatchRequest(batch=pb.DispatchBatch(number=number, items=items))

    def drain(self, reason: str) -> pb.DispatchRequest:
        return pb.DispatchRequest(drain=stream_pb2.StreamDrain(reason=reason))

    def opened(self, hello: stream_pb2.StreamHello) -> None:
        assert hello.peer_id == SERVER.peer_id
        self.opens += 1
        self.changed.set()

    def received(self, kind: str, response: pb.DispatchResponse) -> None:
        assert kind == "taken"
        self.taken = response.taken.number
        self.changed.set()

    def closed(self, unsent: list[bytes], *, is_clean: bool) -> None:
        self.ends.append((unsent, is_clean))
        self.changed.set()

    async def until(self, condition: Any) -> None:
        """Waits until a condition holds, looking whenever something has changed."""
        async with asyncio.timeout(30):
            while not condition():
                self.changed.clear()
                await self.changed.wait()


class Rig:
    """A server, a door and a dialling stream."""

    def __init__(self, tasks: Tasks, door: Door) -> None:
        self.tasks, self.door, self.giver = tasks, door, Giver()
        self.server = grpc.aio.server(options=ALONE)
        fanout_service_pb2_grpc.add_FanoutServiceServicer_to_server(door, self.server)
        self.port = self.server.add_insecure_port("127.0.0.1:0")
        self.channel = grpc.aio.insecure_channel(
            f"127.0.0.1:{self.port}", options=[("grpc.initial_reconnect_backoff_ms", 100)]
        )
        self.stub: Any = fanout_service_pb2_grpc.FanoutServiceStub(self.channel)

    async def dial(self) -> StreamClient[bytes, pb.DispatchRequest, pb.DispatchResponse]:
        """Starts the server and a stream, and returns the stream once it stands."""
        await self.server.start()
        stream = StreamClient("test", self.stub.Dispatch, self.giver, tasks=self.tasks, seams=system_seams())
        await self.giver.until(lambda: self.giver.opens == 1)
        return stream


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    """Returns an owner of tasks that ends with the test."""
    async with Tasks() as owner:
        yield owner


@pytest.fixture
async def rig(tasks: Tasks) -> AsyncIterator[Rig]:
    """Returns a rig whose door grants as it takes."""
    made = Rig(tasks, Door(tasks))
    yield made
    await made.channel.close()
    await made.server.stop(None)


async def test_items_arrive_in_order_however_many_there_are(rig: Rig) -> None:
    stream = await rig.dial()
    sent = [str(number).encode() for number in range(5000)]

    for item in sent:
        stream.add(item)
    await rig.giver.until(lambda: len(rig.door.takers[0].items) == len(sent))

    assert rig.door.takers[0].items == sent


async def test_the_dialling_side_never_sends_beyond_its_credit(tasks: Tasks) -> None:
    rig = Rig(tasks, Door(tasks, window=40, grants=False))
    stream = await rig.dial()

    for number in range(100):
        stream.add(str(number).encode())
    await rig.giver.until(lambda: rig.giver.taken >= 1)

    assert len(rig.door.takers[0].items) == 40
    assert (stream.pending, stream.credits) == (60, 0)
    rig.door.takers[0].server.grant(40)
    await rig.giver.until(lambda: rig.giver.taken >= 2)
    assert len(rig.door.takers[0].items) == 80
    await rig.channel.close()
    await rig.server.stop(None)


async def test_a_polite_end_of_the_dialling_side_loses_nothing_and_is_clean_on_both(rig: Rig) -> None:
    stream = await rig.dial()
    stream.add(b"last")

    await stream.aclose()
    await asyncio.wait_for(rig.door.takers[0].ended.wait(), 10)

    assert rig.door.takers[0].items == [b"last"]
    assert rig.door.takers[0].ends == [True]
    assert rig.giver.ends == [([], True)]


async def test_a_polite_end_of_the_serving_side_is_clean_and_the_stream_is_dialled_again(rig: Rig) -> None:
    stream = await rig.dial()
    stream.add(b"one")
    await rig.giver.until(lambda: rig.giver.taken == 1)

    await rig.door.takers[0].server.drain("the server stops")
    await rig.giver.until(lambda: rig.giver.opens == 2)
    stream.add(b"two")
    await rig.giver.until(lambda: len(rig.door.takers) == 2 and rig.door.takers[1].items == [b"two"])

    assert rig.giver.ends == [([], True)]
    assert rig.door.takers[0].ends == [True]


async def test_an_end_without_a_marker_is_unclean_and_gives_back_what_was_not_sent(tasks: Tasks) -> None:
    rig = Rig(tasks, Door(tasks, window=1, grants=False))
    stream = await rig.dial()
    stream.add(b"sent")
    stream.add(b"unsent")
    await rig.giver.until(lambda: rig.giver.taken == 1)

    await rig.server.stop(None)
    await rig.giver.until(lambda: bool(rig.giver.ends))

    assert rig.giver.ends == [([b"unsent"], False)]
    assert rig.door.takers[0].ends == [False]
    await rig.channel.close()


async def test_items_added_while_there_is_no_stream_go_out_on_the_next(rig: Rig) -> None:
    stream = StreamClient("test", rig.stub.Dispatch, rig.giver, tasks=rig.tasks, seams=system_seams())
    stream.add(b"early")

    await rig.server.start()
    await rig.giver.until(lambda: rig.giver.taken == 1)

    assert rig.door.takers[0].items == [b"early"]


async def complaint(rig: Rig, *requests: pb.DispatchRequest) -> str:
    """Plays a client that breaks the contract, and returns what it is told."""
    await rig.server.start()
    call: Any = rig.stub.Dispatch()
    for request in requests:
        await call.write(request)
    try:
        while await call.read() is not grpc.aio.EOF:
            pass
    except grpc.aio.AioRpcError as error:
        return error.details() or ""
    return ""


GOOD_HELLO = pb.DispatchRequest(hello=CLIENT.hello(0))
BATCH = pb.DispatchRequest(batch=pb.DispatchBatch(number=1, items=[b"x"] * 1001))


@pytest.mark.parametrize(
    ("requests", "message"),
    [
        ([BATCH], "the first message of a stream must be its hello"),
        ([GOOD_HELLO, GOOD_HELLO], "a message after the hello must be a batch"),
        ([GOOD_HELLO, pb.DispatchRequest()], "a message after the hello must be a batch"),
        ([pb.DispatchRequest(hello=stream_pb2.StreamHello(protocol=9, boot_id=1))], "speaks protocol 1 and 0, not 9"),
        ([pb.DispatchRequest(hello=stream_pb2.StreamHello(protocol=1))], "a random boot id other than zero"),
        ([GOOD_HELLO, BATCH], "1 items more than were granted"),
    ],
)
async def test_a_peer_that_breaks_the_contract_is_told_so(
    rig: Rig, requests: list[pb.DispatchRequest], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("CRITICAL")  # the bare server of this test has no interceptor to map the error

    assert message in await complaint(rig, *requests)
