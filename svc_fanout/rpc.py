"""The gRPC door of the carrier."""

from __future__ import annotations

import asyncio
import contextlib
from itertools import accumulate
from typing import TYPE_CHECKING, Any, cast

from chappe.api.fanout.v1 import fanout_service_pb2, fanout_service_pb2_grpc
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.errors import DrainingError, InvalidFieldError
from chappe.runtime.streams import Identity, ServeHandler, StreamServer
from chappe.runtime.tracing import Sampled
from svc_fanout.model import Hint, UserId

if TYPE_CHECKING:
    from collections.abc import Callable

    from chappe.runtime.tasks import Tasks
    from svc_fanout.worker import FanoutWorker

DISPATCH_CREDITS = 8192
DRAIN_TIMEOUT_S = 5.0
DRAIN_REASON = "the carrier stops"
KEY_BYTES = 64
USER_ID_BYTES = 16

DispatchRequest = fanout_service_pb2.DispatchRequest
DispatchResponse = fanout_service_pb2.DispatchResponse


class FanoutRpc(fanout_service_pb2_grpc.FanoutServiceServicer):
    """Serves `chappe.api.fanout.v1.FanoutService`."""

    def __init__(self, worker: FanoutWorker, *, identity: Identity, tasks: Tasks) -> None:
        """Makes the door.

        Args:
            worker: Takes the hints.
            identity: Of this process, for the hellos of its streams.
            tasks: Owns the tasks of the streams.
        """
        self._worker = worker
        self._identity = identity
        self._tasks = tasks
        self._streams: dict[StreamServer[int, DispatchRequest, DispatchResponse], None] = {}
        self._is_draining = False
        self._is_idle = asyncio.Event()
        self._is_idle.set()

    async def Dispatch(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # context.write
        """Serves one ledger until it half-closes."""
        if self._is_draining:
            raise DrainingError
        handler = DispatchHandler(self._worker, self._identity)
        stream = handler.stream = StreamServer(
            context, handler, tasks=self._tasks, credits_=DISPATCH_CREDITS, name="dispatch"
        )
        self._streams[stream] = None
        self._is_idle.clear()
        try:
            await stream.serve()
        finally:
            self._streams.pop(stream, None)
            if not self._streams:
                self._is_idle.set()

    async def drain(self) -> None:
        """Asks every ledger to go on with another replica, and returns once all have ended their streams, bounded."""
        self._is_draining = True
        await asyncio.gather(*(stream.drain(DRAIN_REASON) for stream in self._streams))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_TIMEOUT_S):
                await self._is_idle.wait()


class DispatchHandler(ServeHandler[int, DispatchRequest, DispatchResponse]):
    """One ledger's stream. Its answers are numbers of batches, which are taken into memory as they come."""

    stream: StreamServer[int, DispatchRequest, DispatchResponse]

    def __init__(self, worker: FanoutWorker, identity: Identity) -> None:
        self._worker = worker
        self._identity = identity
        self._peer = ""

    def opened(self, request: DispatchRequest) -> None:
        """Learns who speaks."""
        self._peer = request.hello.peer_id or "svc_message"

    def hello(self) -> DispatchResponse:
        """Returns the answer to the hello."""
        return DispatchResponse(hello=self._identity.hello(DISPATCH_CREDITS))

    def count(self, request: DispatchRequest) -> int:
        """Returns how many items a batch carries."""
        return len(request.batch.items)

    def received(self, kind: str, request: DispatchRequest) -> None:
        """Takes a batch into memory; raises `InvalidFieldError` when its columns do not fit together."""
        batch = request.batch
        self._worker.take(to_hints(batch, self.stream.grant, self._worker.tracing.now_ns))
        self.stream.add_late(batch.number)
        if batch.dropped_hints:
            self._worker.lost(f"{self._peer} had no credit and dropped {batch.dropped_hints} hints")

    def encode(self, items: list[int]) -> DispatchResponse:
        """Answers for the latest of several batches; batches are taken in order, so that stands for all."""
        return DispatchResponse(taken=fanout_service_pb2.DispatchTaken(number=items[-1]))

    def credit(self, items: int) -> DispatchResponse:
        """Returns a grant."""
        return DispatchResponse(credit=stream_pb2.StreamCredit(items=items))

    def drain(self, reason: str) -> DispatchResponse:
        """Returns the drain marker."""
        return DispatchResponse(drain=stream_pb2.StreamDrain(reason=reason))

    async def settled(self) -> None:
        """Returns at once: every batch was answered as it came."""

    def closed(self, *, is_clean: bool) -> None:
        """Asks for verification when hints may have been lost on the way."""
        if self._peer and not is_clean:
            self._worker.lost(f"the stream of {self._peer} ended without its drain marker")


def to_hints(
    batch: fanout_service_pb2.DispatchBatch, grant: Callable[[int], None], now_ns: Callable[[], int]
) -> list[Hint]:
    """Returns the hints of a batch.

    Raises:
        InvalidFieldError: The columns do not fit together, or an id has the wrong length.
    """
    user_ids = cast("list[UserId]", list(batch.user_ids))
    _check(batch, user_ids)
    ends = list(accumulate(batch.user_counts))
    columns = zip(batch.items, batch.keys, batch.flags, batch.user_counts, ends, batch.origin_device_ids, strict=True)
    hints = [
        Hint(item, key, flags, user_ids[end - count : end], origin, grant)
        for item, key, flags, count, end, origin in columns
    ]
    for link in batch.trace_links:
        if link.item_index < len(hints):
            hint = hints[link.item_index]
            sampled = Sampled.of(link, hint.message_id, now_ns())
            hints[link.item_index] = hint._replace(drawn=(*hint.drawn, sampled))
    return hints


def _check(batch: fanout_service_pb2.DispatchBatch, user_ids: list[UserId]) -> None:
    columns = {
        "keys": len(batch.keys),
        "user_counts": len(batch.user_counts),
        "origin_device_ids": len(batch.origin_device_ids),
        "flags": len(batch.flags),
    }
    for name, length in columns.items():
        if length != len(batch.items):
            raise InvalidFieldError(f"batch.{name}", f"has {length} values for {len(batch.items)} items")
    if sum(batch.user_counts) != len(user_ids):
        message = f"has {len(user_ids)} values, and user_counts adds up to {sum(batch.user_counts)}"
        raise InvalidFieldError("batch.user_ids", message)
    if not set(map(len, batch.keys)) <= {KEY_BYTES}:
        raise InvalidFieldError("batch.keys", f"every key must have {KEY_BYTES} bytes")
    if not set(map(len, user_ids)) <= {USER_ID_BYTES}:
        raise InvalidFieldError("batch.user_ids", f"every user id must have {USER_ID_BYTES} bytes")
