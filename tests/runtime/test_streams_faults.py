"""What streams do when the other side, or the wire, does what it should not."""

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
from chappe.runtime.errors import InvalidFieldError
from chappe.runtime.streams import StreamClient, StreamServer
from chappe.runtime.tasks import Tasks
from tests.runtime.probe import ALONE
from tests.runtime.test_streams import CLIENT, SERVER, Giver, Taker

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable

    Behaviour = Callable[[Any], Awaitable[None]]

HELLO = pb.DispatchResponse(hello=SERVER.hello(1000))
TAKEN = pb.DispatchResponse(taken=pb.DispatchTaken(number=1))
DRAIN = pb.DispatchResponse(drain=stream_pb2.StreamDrain(reason="bye"))
Client = StreamClient[bytes, pb.DispatchRequest, pb.DispatchResponse]


class ScriptedCall:
    """A call whose other side says what a test puts into `responses`, and whose half-close does what it is told."""

    def __init__(self, *responses: Any, may_half_close: bool = True, is_prompt: bool = True) -> None:
        self.responses: asyncio.Queue[Any] = asyncio.Queue()
        for response in responses:
            self.responses.put_nowait(response)
        self.may_half_close = may_half_close
        self.is_prompt = is_prompt
        self.half_closed = asyncio.Event()
        self.written: list[Any] = []
        self.is_cancelled = False

    async def write(self, message: Any) -> None:
        self.written.append(message)

    async def read(self) -> Any:
        return await self.responses.get()

    async def done_writing(self) -> None:
        self.half_closed.set()
        if self.is_prompt:
            self.responses.put_nowait(grpc.aio.EOF)
        if not self.may_half_close:
            raise grpc.aio.InternalError("Failed in calling _send_close_from_client")

    async def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.OK

    def cancel(self) -> bool:
        self.is_cancelled = True
        return True


class Odd(fanout_service_pb2_grpc.FanoutServiceServicer):
    """Serves each stream with the next of some behaviours, the last one again and again."""

    def __init__(self, *behaviours: Behaviour) -> None:
        self.behaviours = list(behaviours)
        self.streams = 0

    async def Dispatch(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # read and write
        del request_iterator
        self.streams += 1
        await self.behaviours[min(self.streams, len(self.behaviours)) - 1](context)


class Complaining(Giver):
    """Takes offence at the first message that it gets."""

    def received(self, kind: str, response: pb.DispatchResponse) -> None:
        if self.opens == 1:
            raise InvalidFieldError("taken", "not today")
        super().received(kind, response)


@pytest.fixture
def crashes() -> list[str]:
    return []


@pytest.fixture
async def tasks(crashes: list[str]) -> AsyncIterator[Tasks]:
    async with Tasks(lambda name, error: crashes.append(name)) as owner:
        yield owner


@pytest.fixture
async def dial(tasks: Tasks) -> AsyncIterator[Callable[[Odd, Giver], Awaitable[Client]]]:
    """Serves an odd door and dials it."""
    server = grpc.aio.server(options=ALONE)
    channel = grpc.aio.insecure_channel(f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}")
    stub: Any = fanout_service_pb2_grpc.FanoutServiceStub(channel)

    async def start(door: Odd, giver: Giver) -> Client:
        fanout_service_pb2_grpc.add_FanoutServiceServicer_to_server(door, server)
        await server.start()
        return StreamClient("test", stub.Dispatch, giver, tasks=tasks, seams=system_seams())

    yield start
    await channel.close()
    await server.stop(None)


async def until_end(context: Any) -> None:
    """Reads on to the end."""
    while await context.read() is not grpc.aio.EOF:
        pass


def scripted(call: ScriptedCall, giver: Giver, tasks: Tasks) -> Client:
    """Makes a stream whose first call is scripted and whose later ones say nothing."""
    calls = iter([call])
    return StreamClient("test", lambda: next(calls, ScriptedCall()), giver, tasks=tasks, seams=system_seams())


async def test_a_peer_that_does_not_begin_with_a_hello_is_left_at_once(
    dial: Callable[[Odd, Giver], Awaitable[Client]],
) -> None:
    async def rude(context: Any) -> None:
        await context.write(TAKEN)
        await until_end(context)

    async def polite(context: Any) -> None:
        await context.write(HELLO)
        await until_end(context)

    giver = Giver()
    await dial(Odd(rude, polite), giver)

    await giver.until(lambda: giver.opens == 1)


async def test_a_half_close_that_fails_ends_the_stream_and_not_the_process(tasks: Tasks, crashes: list[str]) -> None:
    giver, call = Giver(), ScriptedCall(HELLO, DRAIN, may_half_close=False)
    scripted(call, giver, tasks)

    await giver.until(lambda: bool(giver.ends))

    assert crashes == []


async def test_closing_succeeds_even_when_the_half_close_fails(tasks: Tasks) -> None:
    giver, call = Giver(), ScriptedCall(HELLO, may_half_close=False)
    stream = scripted(call, giver, tasks)
    await giver.until(lambda: giver.opens == 1)

    await stream.aclose()
    await giver.until(lambda: bool(giver.ends))

    assert call.written[-1].WhichOneof("frame") == "drain"


async def test_a_write_that_is_cut_off_does_not_silence_the_streams_that_follow(
    dial: Callable[[Odd, Giver], Awaitable[Client]],
) -> None:
    taken: list[bytes] = []
    is_stuck = asyncio.Event()

    async def deaf(context: Any) -> None:
        await context.read()
        await context.write(HELLO)
        await is_stuck.wait()
        await context.write(TAKEN)
        await asyncio.Event().wait()

    async def hearing(context: Any) -> None:
        await context.read()
        await context.write(HELLO)
        while (request := await context.read()) is not grpc.aio.EOF:
            taken.extend(request.batch.items)
            await context.write(TAKEN)

    giver = Complaining()
    stream = await dial(Odd(deaf, hearing), giver)
    await giver.until(lambda: giver.opens == 1)
    for _ in range(3):  # more than the transport holds, each in a batch of its own
        stream.add(bytes(3_000_000))
        for _ in range(100):
            await asyncio.sleep(0)
    is_stuck.set()
    await giver.until(lambda: giver.opens == 2)

    stream.add(b"after")
    await giver.until(lambda: taken[-1:] == [b"after"])


async def test_a_stream_that_closes_while_the_other_side_drains_waits_for_its_answers(tasks: Tasks) -> None:
    giver, call = Giver(), ScriptedCall(HELLO, DRAIN, is_prompt=False)
    stream = scripted(call, giver, tasks)
    await call.half_closed.wait()

    closing = asyncio.create_task(stream.aclose())
    call.responses.put_nowait(TAKEN)
    await giver.until(lambda: giver.taken == 1)
    call.responses.put_nowait(grpc.aio.EOF)
    await closing

    assert giver.ends == [([], True)]


async def test_a_drain_before_the_hello_waits_for_it(tasks: Tasks) -> None:
    context = ScriptedCall()
    taker = Taker(10, grants=True)
    server = taker.server = StreamServer(context, taker, tasks=tasks, credits_=10, name="test")
    serving = asyncio.create_task(server.serve())

    await server.drain("the server stops")
    context.responses.put_nowait(pb.DispatchRequest(hello=CLIENT.hello(0)))
    context.responses.put_nowait(grpc.aio.EOF)
    await serving

    assert [response.WhichOneof("frame") for response in context.written] == ["hello", "drain"]
    assert taker.ends == [True]


async def test_a_stream_that_is_refused_is_dialled_again(dial: Callable[[Odd, Giver], Awaitable[Client]]) -> None:
    async def refusing(context: Any) -> None:
        await context.abort(grpc.StatusCode.UNAVAILABLE, "not yet")

    async def polite(context: Any) -> None:
        await context.write(HELLO)
        await until_end(context)

    giver = Giver()
    stream = await dial(Odd(refusing, polite), giver)

    await giver.until(lambda: giver.opens == 1)
    assert giver.ends == []
    assert stream.is_accepting


async def test_a_peer_that_says_no_hello_in_time_is_told_so(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chappe.runtime.streams.server.HELLO_TIMEOUT_S", 0.01)
    taker = Taker(10, grants=True)
    server = taker.server = StreamServer(ScriptedCall(), taker, tasks=tasks, credits_=10, name="test")

    with pytest.raises(InvalidFieldError, match="no hello within"):
        await server.serve()

    server.add(1)
    server.extend([2])
    server.grant(10)
    assert (server.is_closed, taker.ends) == (True, [False])


async def test_a_polite_end_takes_only_so_long(tasks: Tasks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("chappe.runtime.streams.client.CLOSE_TIMEOUT_S", 0.01)
    giver, call = Giver(), ScriptedCall(HELLO, is_prompt=False)
    stream = scripted(call, giver, tasks)
    await giver.until(lambda: giver.opens == 1)

    await stream.aclose()
    await giver.until(lambda: bool(giver.ends))

    assert giver.ends == [([], False)]
