"""The door of PresenceService."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from chappe.api.presence.v1 import presence_service_pb2, presence_service_pb2_grpc
from chappe.api.type.v1 import presence_pb2
from chappe.runtime.errors import DrainingError, InvalidFieldError
from chappe.runtime.principal import caller, principal
from chappe.runtime.streams import StreamServer
from svc_presence.model import DeviceId, Edge, Route, SessionId, UserId
from svc_presence.rpc.track import TRACK_CREDITS, TrackCounters, TrackHandler
from svc_presence.rpc.wire import conversation_of, to_response, to_typist

if TYPE_CHECKING:
    from chappe.runtime.clock import Clock
    from chappe.runtime.streams import Identity
    from chappe.runtime.tasks import Tasks
    from svc_presence.service.answers import Answers
    from svc_presence.service.desk import Desk
    from svc_presence.service.routes import Routes

DRAIN_REASON = "the registry stops"


class PresenceRpc(presence_service_pb2_grpc.PresenceServiceServicer):
    """Serves `chappe.api.presence.v1.PresenceService`."""

    def __init__(
        self, desk: Desk, routes: Routes, answers: Answers, *, identity: Identity, tasks: Tasks, clock: Clock
    ) -> None:
        """Makes the door.

        Args:
            desk: Where what edges say arrives.
            routes: Where people are.
            answers: For those who ask once.
            identity: Of this process, for the hellos of its streams.
            tasks: Owns the tasks of the streams.
            clock: Its wall clock says when something was asked for.
        """
        self._desk = desk
        self._routes = routes
        self._answers = answers
        self._identity = identity
        self._tasks = tasks
        self._clock = clock
        self._streams: dict[StreamServer[Any, Any, Any], None] = {}
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
        handler = TrackHandler(self._desk, self._identity, self._tasks, self.counters, self._clock)
        stream = StreamServer(context, handler, tasks=self._tasks, credits_=TRACK_CREDITS, name="track")
        handler.stream = stream
        self._streams[stream] = None
        try:
            await stream.serve()
        finally:
            self._streams.pop(stream, None)

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
        return to_response(await self._routes.locate([UserId(user_id) for user_id in request.user_ids], gone))

    async def BatchGetPresence(
        self, request: presence_service_pb2.BatchGetPresenceRequest, context: Any
    ) -> presence_service_pb2.BatchGetPresenceResponse:
        """Answers how people are."""
        viewer_id = _viewer(request.viewer_user_id)
        views = await self._answers.presence_of(viewer_id, [UserId(user_id) for user_id in request.user_ids])
        presences = [
            presence_pb2.UserPresence(user_id=user_id, state=int(view.presence), last_seen_ms=view.last_seen_ms)  # type: ignore[arg-type]  # the numbers are the contract's
            for user_id, view in zip(request.user_ids, views, strict=True)
        ]
        return presence_service_pb2.BatchGetPresenceResponse(presences=presences)

    async def ListTyping(
        self, request: presence_service_pb2.ListTypingRequest, context: Any
    ) -> presence_service_pb2.ListTypingResponse:
        """Answers who is typing."""
        viewer_id = UserId(principal().user_id)
        typists = await self._answers.typing_in(viewer_id, conversation_of(viewer_id, request.conversation))
        return presence_service_pb2.ListTypingResponse(typists=[to_typist(typist) for typist in typists])

    async def drain(self) -> None:
        """Asks every edge to end its stream and to go on with another replica."""
        self._is_draining = True
        await asyncio.gather(*(stream.drain(DRAIN_REASON) for stream in self._streams))


def _viewer(named: bytes) -> UserId:
    """Returns who looks: the principal for a client, whoever is named for a service."""
    if caller().principal is None:
        if not named:
            raise InvalidFieldError("viewer_user_id", "an internal caller must say for whom it looks")
        return UserId(named)
    own = principal().user_id
    if named and named != own:
        raise InvalidFieldError("viewer_user_id", "a client looks for itself; leave it empty")
    return UserId(own)
