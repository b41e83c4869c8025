"""The half of a stream that serves."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Generic

import grpc.aio

from chappe.runtime.batching import STEADY, Batcher
from chappe.runtime.errors import InvalidFieldError
from chappe.runtime.streams.protocol import (
    HELLO_TIMEOUT_S,
    CreditExceededError,
    Item,
    Request,
    Response,
    ServeHandler,
    check_hello,
    describe,
)

if TYPE_CHECKING:
    from chappe.runtime.tasks import Tasks

_log = logging.getLogger(__name__)


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
        self._is_open = False
        self._farewell = ""
        self._is_draining = False
        self._is_closed = False
        self._batcher: Batcher[Item] = Batcher(self._write_batch, tasks, name=name)
        self._batcher.pace = STEADY

    @property
    def is_closed(self) -> bool:
        """Whether the stream has ended."""
        return self._is_closed

    def add(self, item: Item) -> None:
        """Appends an answer to the next message."""
        if not self._is_closed:
            self._batcher.add(item)

    def add_late(self, item: Item) -> None:
        """Appends an answer that nobody waits for: it goes with the next message, or after 50 ms."""
        if not self._is_closed:
            self._batcher.add_late(item)

    def extend_late(self, items: list[Item]) -> None:
        """Appends answers that nobody waits for."""
        if not self._is_closed:
            self._batcher.extend_late(items)

    def extend(self, items: list[Item]) -> None:
        """Appends answers to the next message."""
        if not self._is_closed:
            self._batcher.extend(items)

    def grant(self, items: int) -> None:
        """Lets the other side send so many more items; grants travel when a quarter of the window has gathered."""
        self._ungranted += items
        if self._ungranted * 4 >= self._window and not self._is_closed:
            granted, self._ungranted = self._ungranted, 0
            self._allowance += granted
            self._tasks.spawn(self._write_quietly(self._handler.credit(granted)), name=f"{self.name}-credit")

    async def drain(self, reason: str) -> None:
        """Sends the marker; the other side half-closes, and `serve` returns when everything is answered.

        Before the hellos the marker waits for them.
        """
        self._is_draining = True
        if self._is_open:
            await self._write_quietly(self._handler.drain(reason))
        else:
            self._farewell = reason

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
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                request = await self._context.read()
        except TimeoutError:
            raise InvalidFieldError("frame", f"no hello within {HELLO_TIMEOUT_S:.0f} s") from None
        if request is grpc.aio.EOF or request.WhichOneof("frame") != "hello":
            raise InvalidFieldError("frame", "the first message of a stream must be its hello")
        check_hello(request.hello)
        self._handler.opened(request)
        self._is_open = True
        await self._write(self._handler.hello())
        if self._farewell:
            await self._write(self._handler.drain(self._farewell))

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
        except (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError) as error:
            # The reader learns of the end by itself.
            _log.info("%s: could not write: %s", self.name, describe(error))

    async def _write(self, response: Response) -> None:
        async with self._write_lock:
            await self._context.write(response)
