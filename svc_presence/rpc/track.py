"""The gRPC door of the registry."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Any

from chappe.api.presence.v1 import presence_service_pb2, presence_service_pb2_grpc
from chappe.api.type.v1 import error_reason_pb2, stream_pb2
from chappe.runtime.contract import validate
from chappe.runtime.errors import DrainingError, InvalidFieldError, UnavailableError
from chappe.runtime.metrics import Counters
from chappe.runtime.streams import ServeHandler, StreamServer
from svc_presence.model import Changes, DeviceId, Edge, NewSession, Route, Session, SessionId, UserId

if TYPE_CHECKING:
    from chappe.runtime.streams import Identity
    from chappe.runtime.tasks import Tasks
    from svc_presence.model import ConnectAnswer, Located
    from svc_presence.service import PresenceService

TRACK_CREDITS = 4096
DRAIN_REASON = "the registry stops"

_log = logging.getLogger(__name__)

TrackRequest = presence_service_pb2.TrackRequest
TrackResponse = presence_service_pb2.TrackResponse
TrackResults = presence_service_pb2.TrackResults


class TrackCounters(Counters):
    """What the edges said."""

    connects: int
    """Sessions that began."""
    refreshes: int
    """Signs of life of sessions."""
    byes: int
    """Sessions that ended."""
    failed_batches: int
    """Batches that could not be written."""
    located_users: int
    """Users who were asked for."""


class PresenceRpc(presence_service_pb2_grpc.PresenceServiceServicer):
    """Serves `chappe.api.presence.v1.PresenceService`."""

    def __init__(self, service: PresenceService, *, identity: Identity, tasks: Tasks) -> None:
        """Makes the door.

        Args:
            service: The rules.
            identity: Of this process, for the hellos of its streams.
            tasks: Owns the tasks of the streams.
        """
        self._service = service
        self._identity = identity
        self._tasks = tasks
        self._streams: set[StreamServer[TrackResults, TrackRequest, TrackResponse]] = set()
        self._is_draining = False
        self.counters = TrackCounters()

    @property
    def stream_count(self) -> int:
        """How many edges are connected."""
        return len(self._streams)

    async def Track(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # written with context.write
        """Serves one edge until it half-closes."""
        if self._is_draining:
            raise DrainingError
        handler = TrackHandler(self._service, self._identity, self._tasks, self.counters)
        stream = StreamServer(context, handler, tasks=self._tasks, credits_=TRACK_CREDITS, name="track")
        handler.stream = stream
        self._streams.add(stream)
        try:
            await stream.serve()
        finally:
            self._streams.discard(stream)

    async def Locate(
        self, request: presence_service_pb2.LocateRequest, context: Any
    ) -> presence_service_pb2.LocateResponse:
        """Answers where users are."""
        self.counters.located_users += len(request.user_ids)
        gone = [
            Route(
                UserId(one.user_id), DeviceId(one.device_id), SessionId(one.session_id), Edge(one.edge_id, one.boot_id)
            )
            for one in request.gone
        ]
        return to_response(await self._service.locate([UserId(user_id) for user_id in request.user_ids], gone))

    async def drain(self) -> None:
        """Asks every edge to end its stream and to go on with another replica."""
        self._is_draining = True
        await asyncio.gather(*(stream.drain(DRAIN_REASON) for stream in self._streams))


class TrackHandler(ServeHandler[TrackResults, TrackRequest, TrackResponse]):
    """One edge's stream: its batches are written in order, one at a time, and answered one by one."""

    stream: StreamServer[TrackResults, TrackRequest, TrackResponse]

    def __init__(self, service: PresenceService, identity: Identity, tasks: Tasks, counters: TrackCounters) -> None:
        self._service = service
        self._counters = counters
        self._identity = identity
        self._tasks = tasks
        self._edge = Edge("", 0)
        self._waiting: deque[presence_service_pb2.TrackBatch] = deque()
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._encoded = asyncio.Event()
        self._encoded.set()
        self._writer: asyncio.Task[None] | None = None

    def opened(self, request: TrackRequest) -> None:
        """Learns which edge speaks; raises `InvalidFieldError` when nobody could dial it."""
        self._edge = Edge(request.edge_id, request.hello.boot_id)
        host, _, port = request.edge_id.rpartition(":")
        # The bar would break the values of the store; a host name or an address has none.
        if not host or not port.isdecimal() or "|" in request.edge_id:
            message = f"must be the address at which fanout reaches the edge, host:port, not {request.edge_id!r}"
            raise InvalidFieldError("edge_id", message)
        validate(request)
        self._writer = self._tasks.spawn(self._write_batches(), name=f"track {request.edge_id}")

    def hello(self) -> TrackResponse:
        """Returns the answer to the hello."""
        return TrackResponse(hello=self._identity.hello(TRACK_CREDITS))

    def count(self, request: TrackRequest) -> int:
        """Returns how many sessions a batch speaks of."""
        return _count(request.batch)

    def received(self, kind: str, request: TrackRequest) -> None:
        """Queues a batch; raises `InvalidFieldError` when a session in it has no proper name."""
        validate(request.batch)
        self._counters.connects += len(request.batch.connects)
        self._counters.refreshes += len(request.batch.refreshes)
        self._counters.byes += len(request.batch.byes)
        self._waiting.append(request.batch)
        self._idle.clear()
        self._arrived.set()

    def encode(self, items: list[TrackResults]) -> TrackResponse:
        """Returns the answer to one batch; the writer never adds a second before this."""
        self._encoded.set()
        return TrackResponse(results=items[0])

    def credit(self, items: int) -> TrackResponse:
        """Returns a grant."""
        return TrackResponse(credit=stream_pb2.StreamCredit(items=items))

    def drain(self, reason: str) -> TrackResponse:
        """Returns the drain marker."""
        return TrackResponse(drain=stream_pb2.StreamDrain(reason=reason))

    async def settled(self) -> None:
        """Returns once every batch is answered."""
        await self._idle.wait()

    def closed(self, *, is_clean: bool) -> None:
        """Stops writing: the edge sends the state of its sessions again on its next stream."""
        if self._writer is not None:
            self._writer.cancel()

    async def _write_batches(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                batch = self._waiting.popleft()
                results = await self._write(batch)
                # Each message answers one batch, so the one before must have been taken by the stream.
                await self._encoded.wait()
                self._encoded.clear()
                self.stream.add(results)
                self.stream.grant(_count(batch))
            self._idle.set()

    async def _write(self, batch: presence_service_pb2.TrackBatch) -> TrackResults:
        try:
            answer = await self._service.track(self._edge, to_changes(batch))
        except UnavailableError as error:
            _log.warning("batch %d of %s was not written: %s", batch.number, self._edge.edge_id, error)
            return self._failed(batch)
        except Exception:  # noqa: BLE001 - a supervisor: one bad batch must not silence an edge
            _log.exception("batch %d of %s was not written", batch.number, self._edge.edge_id)
            return self._failed(batch)
        connects = [
            _result(connect.item_id, answered)
            for connect, answered in zip(batch.connects, answer.connects, strict=True)
        ]
        return TrackResults(number=batch.number, connects=connects, replaced_session_ids=answer.replaced_session_ids)

    def _failed(self, batch: presence_service_pb2.TrackBatch) -> TrackResults:
        self._counters.failed_batches += 1
        return TrackResults(number=batch.number, is_failed=True)


def to_changes(batch: presence_service_pb2.TrackBatch) -> Changes:
    """Returns what a batch says in the words of the model."""
    return Changes(
        [NewSession(_session(connect.session), connect.nonce) for connect in batch.connects],
        [_session(ref) for ref in batch.refreshes],
        [_session(ref) for ref in batch.byes],
    )


def to_response(located: list[Located]) -> presence_service_pb2.LocateResponse:
    """Returns routes as columns."""
    edges: dict[Edge, int] = {}
    edge_indexes = [edges.setdefault(one.edge, len(edges)) for one in located]
    return presence_service_pb2.LocateResponse(
        user_indexes=[one.user_index for one in located],
        device_ids=[one.device_id for one in located],
        session_ids=[one.session_id for one in located],
        edge_indexes=edge_indexes,
        edge_ids=[edge.edge_id for edge in edges],
        boot_ids=[edge.boot_id for edge in edges],
    )


def _count(batch: presence_service_pb2.TrackBatch) -> int:
    return len(batch.connects) + len(batch.refreshes) + len(batch.byes)


def _session(ref: presence_service_pb2.SessionRef) -> Session:
    return Session(UserId(ref.user_id), DeviceId(ref.device_id), SessionId(ref.session_id))


def _result(item_id: int, answer: ConnectAnswer) -> presence_service_pb2.ConnectResult:
    if answer.is_refused:
        reason = error_reason_pb2.ERROR_REASON_INVALID_PROOF
        return presence_service_pb2.ConnectResult(item_id=item_id, refused_reason=reason)
    return presence_service_pb2.ConnectResult(item_id=item_id, replaced_session_id=answer.replaced_session_id)
