"""The one stream class, in its two halves: who dials and who serves.

Every hop that a message takes is one long-lived bidirectional stream between two processes. Both halves say hello
first, count credits in items, number their batches, write through one `Batcher`, and read in a task of their own,
always: in grpc.aio a write on a stream that the other side has ended turns the call into INTERNAL and drops what was
not read. The polite end is a drain marker; the dialling side answers it by half-closing, and the serving side answers
what it has and returns. An end without a marker is unclean, and what that means is the owner's business.

Messages are the contract's own: a `oneof frame` with `hello`, `drain` and, towards the sender of items, `credit`.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

import grpc
import grpc.aio

from chappe.api.type.v1 import stream_pb2
from chappe.runtime.batching import Batcher
from chappe.runtime.errors import ChappeError, InvalidFieldError

if TYPE_CHECKING:
    from collections.abc import Callable

    from chappe.runtime.clock import Seams
    from chappe.runtime.tasks import Tasks

PROTOCOL = 1
HELLO_TIMEOUT_S = 5.0
CLOSE_TIMEOUT_S = 5.0
FIRST_BACKOFF_S = 0.05
LAST_BACKOFF_S = 2.0

_log = logging.getLogger(__name__)

Item = TypeVar("Item")
Request = TypeVar("Request", bound=Any)
Response = TypeVar("Response", bound=Any)


class StreamBrokenError(ChappeError):
    """The other side broke the contract of the stream."""

    code = "FAILED_PRECONDITION"
    reason = "MALFORMED"


class CreditExceededError(ChappeError):
    """The other side sent more items than it was granted."""

    code = "RESOURCE_EXHAUSTED"
    reason = "RATE_LIMITED"


class Identity(NamedTuple):
    """Who this process is on its streams."""

    peer_id: str
    boot_id: int

    def hello(self, credits_: int) -> stream_pb2.StreamHello:
        """Returns the hello of this process, granting so many items."""
        return stream_pb2.StreamHello(protocol=PROTOCOL, peer_id=self.peer_id, boot_id=self.boot_id, credits=credits_)


def check_hello(hello: stream_pb2.StreamHello) -> None:
    """Checks a peer's hello; raises `InvalidFieldError` naming what is wrong with it."""
    if hello.protocol not in (PROTOCOL, PROTOCOL - 1):
        message = (
            f"this stream speaks protocol {PROTOCOL} and {PROTOCOL - 1}, not {hello.protocol}: upgrade the older side"
        )
        raise InvalidFieldError("hello.protocol", message)
    if hello.protocol == 0 or hello.boot_id == 0:
        raise InvalidFieldError("hello.boot_id", "the hello needs a protocol and a random boot id other than zero")


class DialHandler(ABC, Generic[Item, Request, Response]):
    """What the owner of a dialled stream supplies. None of it may wait."""

    @abstractmethod
    def hello(self) -> Request:
        """Returns the first message."""

    @abstractmethod
    def encode(self, number: int, items: list[Item]) -> Request:
        """Returns one batch message."""

    @abstractmethod
    def drain(self, reason: str) -> Request:
        """Returns the drain marker."""

    @abstractmethod
    def opened(self, hello: stream_pb2.StreamHello) -> None:
        """Learns that the stream stands."""

    @abstractmethod
    def received(self, kind: str, response: Response) -> None:
        """Takes a message other than hello, credit and drain."""

    @abstractmethod
    def closed(self, unsent: list[Item], *, is_clean: bool) -> None:
        """Learns that a stream that stood has ended, and what was never written to it."""


class StreamClient(Generic[Item, Request, Response]):
    """The dialling side of a stream to one address: dials for ever, with jitter, until it is closed."""

    def __init__(
        self,
        name: str,
        dial: Callable[[], Any],
        handler: DialHandler[Item, Request, Response],
        *,
        tasks: Tasks,
        seams: Seams,
        weigh: Callable[[Item], int] | None = None,
    ) -> None:
        """Starts to dial.

        Args:
            name: Of the stream, for logs: "submit to 10.0.0.7:7000".
            dial: Starts the RPC and returns its `StreamStreamCall`.
            handler: The owner's part.
            tasks: Owns the stream's tasks.
            seams: For jitter and waiting.
            weigh: The bytes of an item, where batches could pass 256 KiB.
        """
        self.name = name
        self._dial = dial
        self._handler = handler
        self._seams = seams
        self._tasks = tasks
        self._call: Any = None
        self._write_lock = asyncio.Lock()
        self._credits = 0
        self._number = 0
        self._is_draining = False
        self._is_closing = False
        self.is_open = False
        self._batcher: Batcher[Item] = Batcher(self._write_batch, tasks, name=name, limit=self._sendable, weigh=weigh)
        self._runner = tasks.spawn(self._run(), name=f"{name}-reader")

    @property
    def pending(self) -> int:
        """How many items wait to be written."""
        return self._batcher.pending

    @property
    def is_accepting(self) -> bool:
        """Whether items that are added now go out on the present stream."""
        return self.is_open and not self._is_draining

    @property
    def credits(self) -> int:
        """How many items the other side still takes."""
        return self._credits

    def add(self, item: Item) -> None:
        """Appends an item to the next batch."""
        self._batcher.add(item)

    async def aclose(self) -> None:
        """Ends politely: writes what waits (bounded), sends the marker, half-closes, reads to the end."""
        self._is_closing = True
        if self.is_accepting:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._batcher.drain()
                    await self._write(self._handler.drain("the process stops"))
                    await self._half_close()
                    await asyncio.shield(self._runner)
            except (TimeoutError, grpc.aio.AioRpcError, asyncio.InvalidStateError):
                _log.info("%s: the polite end did not succeed in time", self.name)
        self._runner.cancel()
        self._batcher.close()

    def _sendable(self) -> int:
        return self._credits if self.is_open and not self._is_draining else 0

    async def _run(self) -> None:
        attempt = 0
        while not self._is_closing:
            is_clean, was_open = False, False
            try:
                is_clean = await self._session()
            except (grpc.aio.AioRpcError, TimeoutError, asyncio.InvalidStateError, ChappeError) as error:
                _log.info("%s: %s", self.name, _describe(error))
            finally:
                was_open, self.is_open, self._call = self.is_open, False, None
                if was_open:
                    self._handler.closed(self._batcher.take_pending(), is_clean=is_clean)
            if self._is_closing:
                return
            attempt = 0 if was_open else attempt + 1
            longest = min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(attempt, 10))
            await self._seams.clock.sleep(self._seams.randomness.uniform(longest / 4, longest))

    async def _session(self) -> bool:
        call = self._dial()
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                await call.write(self._handler.hello())
                first = await call.read()
            if first is grpc.aio.EOF or first.WhichOneof("frame") != "hello":
                await self._raise_end(call)
            check_hello(first.hello)
            self._credits, self._number, self._is_draining = first.hello.credits, 0, False
            self._call, self.is_open = call, True
            self._handler.opened(first.hello)
            self._batcher.wake()
            while (response := await call.read()) is not grpc.aio.EOF:
                self._take(response)
            code = await call.code()
            return self._is_draining and code == grpc.StatusCode.OK
        finally:
            call.cancel()

    async def _raise_end(self, call: Any) -> None:
        code, details = await call.code(), await call.details()
        message = f"the other side ended the stream before its hello: {code.name} {details}"
        raise StreamBrokenError(message)

    def _take(self, response: Response) -> None:
        kind = response.WhichOneof("frame")
        if kind == "credit":
            self._credits += response.credit.items
            self._batcher.wake()
        elif kind == "drain":
            self._is_draining = True
            self._tasks.spawn(self._half_close(), name=f"{self.name}-half-close")
        elif kind is not None:
            self._handler.received(kind, response)

    async def _write_batch(self, items: list[Item]) -> None:
        self._number += 1
        self._credits -= len(items)
        try:
            await self._write(self._handler.encode(self._number, items))
        except (grpc.aio.AioRpcError, asyncio.InvalidStateError) as error:
            # The reader learns of the end by itself; what was in this batch has an unknown outcome.
            _log.info("%s: a batch of %d items could not be written: %s", self.name, len(items), _describe(error))

    async def _write(self, request: Request) -> None:
        async with self._write_lock:
            if self._call is not None:
                await self._call.write(request)

    async def _half_close(self) -> None:
        self._is_draining = True
        async with self._write_lock:
            if self._call is not None:
                await self._call.done_writing()


class ServeHandler(ABC, Generic[Item, Request, Response]):
    """What the owner of a served stream supplies. None of it may wait, but `settled`."""

    @abstractmethod
    def opened(self, request: Request) -> None:
        """Takes the first message, a hello that was checked; raises a `ChappeError` to refuse the stream."""

    @abstractmethod
    def hello(self) -> Response:
        """Returns the answer to the hello."""

    @abstractmethod
    def count(self, request: Request) -> int:
        """Returns how many items of credit a message uses up."""

    @abstractmethod
    def received(self, kind: str, request: Request) -> None:
        """Takes a message other than hello and drain."""

    @abstractmethod
    def encode(self, items: list[Item]) -> Response:
        """Returns one message of answers."""

    @abstractmethod
    def credit(self, items: int) -> Response:
        """Returns a grant."""

    @abstractmethod
    def drain(self, reason: str) -> Response:
        """Returns the drain marker."""

    @abstractmethod
    async def settled(self) -> None:
        """Returns once every item that was received has had its answer added."""

    @abstractmethod
    def closed(self, *, is_clean: bool) -> None:
        """Learns that the stream has ended."""


class StreamServer(Generic[Item, Request, Response]):
    """The serving side of one stream; lives as long as the RPC."""

    def __init__(
        self,
        context: Any,
        handler: ServeHandler[Item, Request, Response],
        *,
        tasks: Tasks,
        credits_: int,
        name: str,
    ) -> None:
        """Prepares to serve.

        Args:
            context: The `grpc.aio.ServicerContext` of the RPC.
            handler: The owner's part; its hello grants `credits_` items.
            tasks: Owns the writer.
            credits_: How many items may be on their way to this side.
            name: For logs.
        """
        self.name = name
        self._context = context
        self._handler = handler
        self._tasks = tasks
        self._window = credits_
        self._allowance = credits_
        self._ungranted = 0
        self._write_lock = asyncio.Lock()
        self._is_draining = False
        self._is_closed = False
        self._batcher: Batcher[Item] = Batcher(self._write_batch, tasks, name=name)

    @property
    def is_closed(self) -> bool:
        """Whether the stream has ended."""
        return self._is_closed

    def add(self, item: Item) -> None:
        """Appends an answer to the next message."""
        if not self._is_closed:
            self._batcher.add(item)

    def grant(self, items: int) -> None:
        """Lets the other side send so many more items; grants travel when a quarter of the window has gathered."""
        self._ungranted += items
        if self._ungranted * 4 >= self._window and not self._is_closed:
            granted, self._ungranted = self._ungranted, 0
            self._allowance += granted
            self._tasks.spawn(self._write_quietly(self._handler.credit(granted)), name=f"{self.name}-credit")

    async def drain(self, reason: str) -> None:
        """Sends the marker; the other side half-closes, and `serve` returns when everything is answered."""
        self._is_draining = True
        await self._write_quietly(self._handler.drain(reason))

    async def serve(self) -> None:
        """Reads until the other side half-closes, answers what is left, and returns; raises what broke the contract."""
        is_clean = False
        try:
            await self._open()
            while (request := await self._context.read()) is not grpc.aio.EOF:
                self._take(request)
            await self._handler.settled()
            await self._batcher.drain()
            is_clean = self._is_draining
        finally:
            self._is_closed = True
            self._batcher.close()
            self._handler.closed(is_clean=is_clean)

    async def _open(self) -> None:
        async with asyncio.timeout(HELLO_TIMEOUT_S):
            request = await self._context.read()
        if request is grpc.aio.EOF or request.WhichOneof("frame") != "hello":
            raise InvalidFieldError("frame", "the first message of a stream must be its hello")
        check_hello(request.hello)
        self._handler.opened(request)
        await self._write(self._handler.hello())

    def _take(self, request: Request) -> None:
        kind = request.WhichOneof("frame")
        if kind == "drain":
            self._is_draining = True
        elif kind == "hello" or kind is None:
            raise InvalidFieldError("frame", "a message after the hello must be a batch or a drain marker")
        else:
            self._allowance -= self._handler.count(request)
            if self._allowance < 0:
                message = f"{-self._allowance} items more than were granted: wait for credit before sending"
                raise CreditExceededError(message, metadata={"budget": "stream credit"})
            self._handler.received(kind, request)

    async def _write_batch(self, items: list[Item]) -> None:
        await self._write_quietly(self._handler.encode(items))

    async def _write_quietly(self, response: Response) -> None:
        try:
            await self._write(response)
        except (grpc.aio.AioRpcError, grpc.aio.UsageError, asyncio.InvalidStateError) as error:
            # The reader learns of the end by itself.
            _log.info("%s: could not write: %s", self.name, _describe(error))

    async def _write(self, response: Response) -> None:
        async with self._write_lock:
            await self._context.write(response)


def _describe(error: BaseException) -> str:
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return f"{type(error).__name__}: {error}"
