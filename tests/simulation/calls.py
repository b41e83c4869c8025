"""gRPC over the simulated network: what the product uses of channels, servers and contexts, with their errors.

Messages travel as bytes. The codes and exceptions are those of grpc.aio: a read of a call that failed raises, a write
to a call that has ended raises InvalidStateError, a handler whose caller has gone is cancelled.
"""

import asyncio
import itertools
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import grpc
import grpc.aio

from chappe.runtime import contract
from chappe.runtime.interceptors import DoorInterceptor
from tests.simulation.loop import Process, present
from tests.simulation.network import Network

ATTEMPTS = 3
BACKOFF_S = 0.05
UNARY_TIMEOUT_S = 10.0
BLOCKING = 0.1
"""How many of the writes to a stream take time."""
BLOCKING_S = 0.003

_OK = grpc.StatusCode.OK
_UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


class Status(NamedTuple):
    """How a call ended."""

    code: grpc.StatusCode
    details: str = ""
    trailing: tuple[tuple[str, Any], ...] = ()

    def error(self) -> grpc.aio.AioRpcError:
        """Returns the error that grpc.aio raises."""
        return grpc.aio.AioRpcError(self.code, grpc.aio.Metadata(), grpc.aio.Metadata(*self.trailing), self.details)


GONE = Status(_UNAVAILABLE, "the other side has gone")
_CANCELLED = Status(grpc.StatusCode.CANCELLED, "cancelled by the caller")


class Exchange:
    """gRPC among processes: who serves which address."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.servers: dict[str, Server] = {}

    def channel(self, target: str, *_: Any, **__: Any) -> "Channel":
        """Opens a channel from the process that runs now, in place of `channels.channel`."""
        return Channel(self, [part.strip() for part in target.split(",")], present())


class Channel:
    """The way of one process to the replicas of a service."""

    def __init__(self, exchange: Exchange, addresses: list[str], process: Process) -> None:
        self._exchange = exchange
        self._all = addresses
        self._addresses = itertools.cycle(addresses)
        self._process = process

    def stream_stream(
        self, path: str, request_serializer: Any, response_deserializer: Any, **_: Any
    ) -> Callable[[], "Call"]:
        return lambda: self.begin(path, request_serializer, response_deserializer)

    def unary_unary(
        self, path: str, request_serializer: Any = None, response_deserializer: Any = None, **_: Any
    ) -> "_Unary":
        return _Unary(self, path, request_serializer or bytes, response_deserializer or bytes)

    def __getattr__(self, name: str) -> Any:
        """Returns a kind of call that nobody makes here."""
        if name not in {"stream_unary", "unary_stream"}:
            raise AttributeError(name)
        return lambda *_args, **_settings: None

    @property
    def is_answered(self) -> bool:
        """Whether there is somebody to dial."""
        return any(address in self._exchange.servers for address in self._all)

    async def channel_ready(self) -> None:
        """Returns at once: whether anybody is there is seen by a call."""

    def begin(self, path: str, serialize: Any, deserialize: Any, metadata: Sequence[Any] = ()) -> "Call":
        """Begins a call to the next address."""
        call = Call(self._exchange.network, self._process, serialize, deserialize)
        server = self._exchange.servers.get(next(self._addresses))
        call.dial(server, path, metadata)
        return call

    async def close(self, grace: float | None = None) -> None:
        """Does nothing: streams are ended by their owners."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


class _Unary:
    """One unary method: deadlines, and retries of what the contract calls idempotent."""

    def __init__(self, channel: Channel, path: str, serialize: Any, deserialize: Any) -> None:
        self._channel = channel
        self._path = path
        self._serialize = serialize
        self._deserialize = deserialize
        self._attempts = ATTEMPTS if contract.access_of(path).is_idempotent else 1

    async def __call__(
        self,
        request: Any,
        *,
        timeout: float | None = None,  # noqa: ASYNC109 - as in grpc
        metadata: Sequence[Any] = (),
        wait_for_ready: bool = False,
    ) -> Any:
        try:
            async with asyncio.timeout(timeout or UNARY_TIMEOUT_S):
                while wait_for_ready and not self._channel.is_answered:  # noqa: ASYNC110 - time passes at no cost here
                    await asyncio.sleep(BACKOFF_S)
                return await self._attempt(request, metadata)
        except TimeoutError:
            raise Status(grpc.StatusCode.DEADLINE_EXCEEDED, "too late").error() from None

    async def _attempt(self, request: Any, metadata: Sequence[Any]) -> Any:
        for attempt in range(self._attempts):
            call = self._channel.begin(self._path, self._serialize, self._deserialize, metadata)
            try:
                call.write_soon(request)
                answer = await call.read()
                status = await call.status()
                if status.code is _OK:
                    return answer
            except grpc.aio.AioRpcError as error:
                if error.code() is not _UNAVAILABLE or attempt + 1 == self._attempts:
                    raise
            finally:
                call.cancel()
            await asyncio.sleep(BACKOFF_S * 2**attempt)
        raise GONE.error()


class Call:
    """The caller's end of a call."""

    def __init__(self, network: Network, process: Process, serialize: Any, deserialize: Any) -> None:
        self._network = network
        self._lots = network.lots_of(process.name)
        self._process = process
        self._serialize = serialize
        self._deserialize = deserialize
        self._arrived: deque[bytes] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._status: Status | None = None
        self._ended = asyncio.Event()
        self._context: Context | None = None
        self._there: Any = None
        self._back: Any = None

    def dial(self, server: "Server | None", path: str, metadata: Sequence[Any]) -> None:
        """Reaches for a server; one that is not there is noticed a little later."""
        loop = self._network.loop
        if server is None or server.process.is_dead:
            loop.call_later(self._lots.uniform(0.0, 0.01), self.finish, GONE)
            return
        self._there = self._network.way(self._process, server.process)
        self._back = self._network.way(server.process, self._process)
        self._context = Context(self, server, path, tuple(metadata))
        self._there.on_break = self._context.caller_gone
        self._back.on_break = self._broken
        self._there.send(self._context.begin)

    @property
    def process(self) -> Process:
        """Whose call it is."""
        return self._process

    async def write(self, request: Any) -> None:
        self._raise_if_over()
        self.write_soon(request)
        if self._lots.random() < BLOCKING:
            await asyncio.sleep(self._lots.random() * BLOCKING_S)

    def write_soon(self, request: Any) -> None:
        """Writes without waiting."""
        if self._context is not None:
            self._there.send(self._context.take, self._serialize(request))

    async def read(self) -> Any:
        while not self._arrived:
            if self._status is not None:
                if self._status.code is grpc.StatusCode.CANCELLED and self._status is _CANCELLED:
                    raise asyncio.CancelledError
                if self._status.code is not _OK:
                    raise self._status.error()
                return grpc.aio.EOF
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self._deserialize(self._arrived.popleft())

    async def done_writing(self) -> None:
        if self._status is None and self._context is not None:
            self._there.send(self._context.half_close)

    def cancel(self) -> bool:
        if self._status is not None:
            return False
        if self._context is not None:
            self._there.send(self._context.caller_gone)
        self.finish(_CANCELLED)
        return True

    async def status(self) -> Status:
        """Waits for the end."""
        await self._ended.wait()
        assert self._status is not None
        return self._status

    async def code(self) -> grpc.StatusCode:
        return (await self.status()).code

    async def details(self) -> str:
        return (await self.status()).details

    def take(self, data: bytes) -> None:
        """Learns of a message."""
        if self._status is None:
            self._arrived.append(data)
            self._wake()

    def finish(self, status: Status) -> None:
        """Learns of the end."""
        if self._status is None:
            self._status = status
            self._ended.set()
            self._wake()
            if self._context is not None:
                self._there.close()
                self._back.close()

    def answer(self, deliver: Callable[..., None], *args: Any) -> None:
        """Sends something to the caller."""
        self._back.send(deliver, *args)

    def _broken(self) -> None:
        self.finish(GONE)

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)

    def _raise_if_over(self) -> None:
        if self._status is None:
            return
        if self._status is _CANCELLED:
            raise asyncio.CancelledError
        if self._status.code is not _OK:
            raise self._status.error()
        raise asyncio.InvalidStateError("RPC already finished.")


class Context:
    """The server's end of a call: what handlers use of a `grpc.aio.ServicerContext`."""

    def __init__(self, call: Call, server: "Server", path: str, metadata: tuple[Any, ...]) -> None:
        self.path = path
        self.caller = call.process
        self._call = call
        self._server = server
        self._metadata = metadata
        self._arrived: deque[bytes] = deque()
        self._reader: asyncio.Future[None] | None = None
        self._is_half_closed = False
        self._status: Status | None = None
        self._is_over = False
        self._task: asyncio.Task[None] | None = None
        self._handler: Any = None

    def begin(self) -> None:
        """Starts the handler, in the server's process."""
        if not self._server.is_serving:
            self.end(GONE)
            return
        self._task = asyncio.get_running_loop().create_task(self._serve())
        self._server.begun(self._task)

    def take(self, data: bytes) -> None:
        """Learns of a message."""
        self._arrived.append(data)
        self._wake()

    def half_close(self) -> None:
        """Learns that no more messages come."""
        self._is_half_closed = True
        self._wake()

    def caller_gone(self) -> None:
        """Learns that the caller has given up, or died."""
        if self._task is not None and not self._task.done():
            self._is_over = True
            self._task.cancel()

    async def read(self) -> Any:
        while not self._arrived:
            if self._is_half_closed or self._is_over:
                return grpc.aio.EOF
            self._reader = asyncio.get_running_loop().create_future()
            await self._reader
        return self._handler.request_deserializer(self._arrived.popleft())

    async def write(self, response: Any) -> None:
        if self._is_over:
            raise asyncio.InvalidStateError("the RPC has ended")
        self._call.answer(self._call.take, self._handler.response_serializer(response))
        lots = self._server.lots
        if lots.random() < BLOCKING:
            await asyncio.sleep(lots.random() * BLOCKING_S)

    async def abort(self, code: grpc.StatusCode, details: str = "", trailing_metadata: Any = ()) -> None:
        self._status = Status(code, details, tuple(trailing_metadata))
        raise grpc.aio.AbortError(details)

    def invocation_metadata(self) -> tuple[Any, ...]:
        return self._metadata

    def end(self, status: Status) -> None:
        """Tells the caller how it ended."""
        self._is_over = True
        self._call.answer(self._call.finish, status)

    async def _serve(self) -> None:
        try:
            self._handler = await self._server.handler_of(self.path)
            if self._handler is None:
                self.end(Status(grpc.StatusCode.UNIMPLEMENTED, self.path))
            elif self._handler.request_streaming:
                await self._handler.stream_stream(None, self)
                self.end(Status(_OK))
            else:
                answer = await self._handler.unary_unary(await self.read(), self)
                self._call.answer(self._call.take, self._handler.response_serializer(answer))
                self.end(Status(_OK))
        except grpc.aio.AbortError:
            self.end(self._status or GONE)
        except asyncio.CancelledError:
            self.end(Status(grpc.StatusCode.CANCELLED, "cancelled by the server"))
            raise

    def _wake(self) -> None:
        reader, self._reader = self._reader, None
        if reader is not None and not reader.done():
            reader.set_result(None)


class Server:
    """What a process serves; `App` takes it for its `grpc.aio.Server`."""

    def __init__(self, process: Process, door: DoorInterceptor, network: Network) -> None:
        self.process = process
        self.lots = network.lots_of(process.name)
        self.is_serving = False
        self._door = door
        self._handlers: dict[str, Any] = {}
        self._running: dict[asyncio.Task[None], None] = {}

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Takes nothing: the same handlers come by name."""

    def add_registered_method_handlers(self, service_name: str, handlers: Any) -> None:
        for name, handler in handlers.items():
            self._handlers[f"/{service_name}/{name}"] = handler

    def begun(self, task: asyncio.Task[None]) -> None:
        """Takes note of a call."""
        self._running[task] = None
        task.add_done_callback(lambda done: self._running.pop(done, None))

    async def handler_of(self, path: str) -> Any:
        """Returns the handler with everything that stands before it."""
        return await self._door.intercept_service(self._plain, _Details(path))  # type: ignore[arg-type]  # all it needs

    async def _plain(self, details: Any) -> Any:
        return self._handlers.get(details.method)

    async def stop(self, grace: float | None) -> None:
        """Takes no new calls; cancels those that last longer than the grace."""
        self.is_serving = False
        if self._running and grace:
            await asyncio.wait(list(self._running), timeout=grace)
        for task in list(self._running):
            task.cancel()


class _Details(NamedTuple):
    """What an interceptor is told of a call."""

    method: str
    invocation_metadata: tuple[Any, ...] = ()
