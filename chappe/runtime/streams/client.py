"""The half of a stream that dials."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Generic

import grpc
import grpc.aio

from chappe.runtime.batching import STEADY, Batcher
from chappe.runtime.errors import ChappeError
from chappe.runtime.streams.protocol import (
    HELLO_TIMEOUT_S,
    DialHandler,
    Item,
    Request,
    Response,
    StreamBrokenError,
    check_hello,
    describe,
    unbroken,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from chappe.runtime.clock import Seams
    from chappe.runtime.tasks import Tasks

CLOSE_TIMEOUT_S = 5.0
FIRST_BACKOFF_S = 0.05
LAST_BACKOFF_S = 0.5

_log = logging.getLogger(__name__)


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
        self.credits = 0
        """How many items the other side still takes; what `encode` leaves out of a batch is to be given back."""
        self._number = 0
        self._is_draining = False
        self._is_closing = False
        self.is_open = False
        self.batcher: Batcher[Item] = Batcher(self._write_batch, tasks, name=name, limit=self._sendable, weigh=weigh)
        """Gathers items; its owner may have its batches counted."""
        self.batcher.pace = STEADY
        self._runner = tasks.spawn(self._run(), name=f"{name}-reader")

    @property
    def pending(self) -> int:
        """How many items wait to be written."""
        return self.batcher.pending

    @property
    def is_accepting(self) -> bool:
        """Whether items that are added now go out on the present stream."""
        return self.is_open and not self._is_draining

    def add(self, item: Item) -> None:
        """Appends an item to the next batch."""
        self.batcher.add(item)

    async def aclose(self) -> None:
        """Ends politely, bounded: writes what waits, sends the marker, half-closes, reads to the end."""
        self._is_closing = True
        if self.is_open:
            try:
                async with asyncio.timeout(CLOSE_TIMEOUT_S):
                    await self._say_goodbye()
                    await asyncio.wait({self._runner})
            except (TimeoutError, StreamBrokenError) as error:
                _log.info("%s: the polite end did not succeed: %s", self.name, describe(error))
        self._runner.cancel()
        self.batcher.close()

    async def _say_goodbye(self) -> None:
        if not self._is_draining:
            await self.batcher.drain()
            await self._write(self._call, self._handler.drain("the process stops"))
            await self._half_close()

    def _sendable(self) -> int:
        return self.credits if self.is_open and not self._is_draining else 0

    async def _run(self) -> None:
        attempt = 0
        while not self._is_closing:
            is_clean, was_open = False, False
            try:
                is_clean = await self._session()
            except (grpc.aio.AioRpcError, grpc.aio.BaseError, TimeoutError, ChappeError) as error:
                _log.info("%s: %s", self.name, describe(error))
                self._handler.failed(error)
            finally:
                was_open, self.is_open, self._call = self.is_open, False, None
                if was_open:
                    self._handler.closed(self.batcher.take_pending(), is_clean=is_clean)
            if self._is_closing:
                return
            attempt = 0 if was_open else attempt + 1
            longest = min(LAST_BACKOFF_S, FIRST_BACKOFF_S * 2.0 ** min(attempt, 10))
            await self._seams.clock.sleep(self._seams.randomness.uniform(longest / 4, longest))

    async def _session(self) -> bool:
        call = self._dial()
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                await unbroken(call.write(self._handler.hello()))
                first = await call.read()
            await self._check_first(call, first)
            check_hello(first.hello)
            self.credits, self._number, self._is_draining = first.hello.credits, 0, False
            self._call, self.is_open = call, True
            self._handler.opened(first.hello)
            self.batcher.wake()
            while (response := await call.read()) is not grpc.aio.EOF:
                self._take(response)
            code = await call.code()
            return self._is_draining and code == grpc.StatusCode.OK
        finally:
            call.cancel()

    async def _check_first(self, call: Any, first: Any) -> None:
        if first is grpc.aio.EOF:
            code, details = await call.code(), await call.details()
            raise StreamBrokenError(f"the other side ended the stream before its hello: {code.name} {details}")
        kind = first.WhichOneof("frame")
        if kind != "hello":
            raise StreamBrokenError(f"the other side began with {kind} and not with its hello")

    def _take(self, response: Response) -> None:
        kind = response.WhichOneof("frame")
        if kind == "credit":
            self.credits += response.credit.items
            self.batcher.wake()
        elif kind == "drain":
            self._is_draining = True
            self._tasks.spawn(self._half_close(), name=f"{self.name}-half-close")
        elif kind is not None:
            self._handler.received(kind, response)

    async def _write_batch(self, items: list[Item]) -> None:
        self._number += 1
        self.credits -= len(items)
        try:
            await self._write(self._call, self._handler.encode(self._number, items))
        except StreamBrokenError as error:
            # The reader learns of the end by itself; what was in this batch has an unknown outcome.
            _log.info("%s: a batch of %d items could not be written: %s", self.name, len(items), error.message)

    async def _write(self, call: Any, request: Request) -> None:
        async with self._write_lock:
            # What was meant for a stream that has ended must not go out on the one after it.
            if call is not None and call is self._call:
                await unbroken(call.write(request))

    async def _half_close(self) -> None:
        self._is_draining = True
        async with self._write_lock:
            if self._call is None:
                return
            try:
                await unbroken(self._call.done_writing())
            except StreamBrokenError as error:
                # The reader learns of the end by itself.
                _log.info("%s: could not half-close: %s", self.name, error.message)
