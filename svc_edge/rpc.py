"""The gRPC door: pushes from svc_fanout."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

from chappe.api.edge.v1 import edge_service_pb2, edge_service_pb2_grpc
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.streams import Identity, ServeHandler, StreamServer
from chappe.runtime.tracing import Sampled
from svc_edge.errors import WrongBootError

if TYPE_CHECKING:
    from chappe.runtime.tasks import Tasks
    from svc_edge.model import UserId
    from svc_edge.service.mesh import Mesh, Pushed

WINDOW = 32_768
"""How many deliveries one stream may have on its way."""
UNCLEAN_SPREAD_S = 45.0
"""Over which time all sessions read their logs after hints were lost."""

_Request = edge_service_pb2.PushRequest
_Response = edge_service_pb2.PushResponse


class _Push(ServeHandler[None, _Request, _Response]):
    """One stream of pushes.

    Only a batch in which something was absent or slow has an answer of its own, at once; the others are answered
    together, late.
    """

    server: StreamServer[None, _Request, _Response]

    def __init__(self, mesh: Mesh, identity: Identity) -> None:
        self._mesh = mesh
        self._identity = identity
        self._answers: deque[edge_service_pb2.PushTaken] = deque()
        self._number = 0
        self._arrived: list[bytes] = []
        self._is_open = False

    def opened(self, request: _Request) -> None:
        if request.edge_boot_id not in (0, self._identity.boot_id):
            raise WrongBootError(request.edge_boot_id, self._identity.boot_id)
        self._is_open = True

    def hello(self) -> _Response:
        return _Response(hello=self._identity.hello(WINDOW))

    def count(self, request: _Request) -> int:
        return len(request.batch.session_ids)

    def received(self, kind: str, request: _Request) -> None:
        if kind == "verify_all":
            self._mesh.verify_all(request.verify_all.spread_ms / 1000)
            return
        batch = request.batch
        deliveries = zip(batch.session_ids, batch.user_tags, batch.item_indexes, strict=True)
        items, keys, flags = list(batch.items), list(batch.keys), list(batch.flags)
        if batch.trace_links:
            drawn = drawn_items(batch, self._mesh.traces.now_ns())
            pushed = self._mesh.push_drawn(list(deliveries), items, keys, flags, drawn)
        else:
            pushed = self._mesh.push(deliveries, items, keys, flags)
        self._answer(batch.number, pushed)
        self.server.grant(len(batch.session_ids))

    def encode(self, items: list[None]) -> _Response:
        taken = self._answers.popleft() if self._answers else edge_service_pb2.PushTaken(number=self._number)
        if self._answers:
            self.server.add(None)
        arrived, self._arrived = self._arrived, []
        return _Response(taken=taken, arrived_user_ids=arrived)

    def arrived(self, user_id: bytes) -> None:
        """Tells the carrier that a session of a user has begun."""
        if self._is_open:
            self._arrived.append(user_id)
            self.server.add(None)

    def credit(self, items: int) -> _Response:
        return _Response(credit=stream_pb2.StreamCredit(items=items))

    def drain(self, reason: str) -> _Response:
        return _Response(drain=stream_pb2.StreamDrain(reason=reason))

    async def settled(self) -> None:
        """Returns at once: batches are answered as they come."""

    def closed(self, *, is_clean: bool) -> None:
        if self._is_open and not is_clean:
            self._mesh.verify_all(UNCLEAN_SPREAD_S)

    def _answer(self, number: int, pushed: Pushed) -> None:
        self._number = number
        if not pushed.absent and not pushed.slow:
            self.server.add_late(None)
            return
        self._answers.append(
            edge_service_pb2.PushTaken(
                number=number,
                absent_session_ids=pushed.absent,
                absent_delivery_indexes=pushed.absent_indexes,
                slow_session_ids=pushed.slow,
            )
        )
        self.server.add(None)


def drawn_items(batch: edge_service_pb2.PushBatch, now_ns: int) -> dict[int, tuple[Sampled, ...]]:
    """Returns the drawn messages of a batch by the index of the item that carries them."""
    found: dict[int, tuple[Sampled, ...]] = {}
    for link in batch.trace_links:
        index = link.item_index
        if index < len(batch.keys):
            found[index] = (*found.get(index, ()), Sampled.of(link, batch.keys[index][16:32], now_ns))
    return found


class EdgeRpc(edge_service_pb2_grpc.EdgeServiceServicer):
    """The door of the other services."""

    def __init__(self, mesh: Mesh, identity: Identity, tasks: Tasks) -> None:
        self._mesh = mesh
        self._identity = identity
        self._tasks = tasks
        self._open: dict[StreamServer[None, _Request, _Response], _Push] = {}

    async def Push(  # type: ignore[override]  # the stub knows only the style that yields
        self, request_iterator: Any, context: Any
    ) -> None:
        """Takes pushes until the stream ends."""
        handler = _Push(self._mesh, self._identity)
        server = StreamServer(context, handler, tasks=self._tasks, credits_=WINDOW, name="push")
        handler.server = server
        self._open[server] = handler
        try:
            await server.serve()
        finally:
            del self._open[server]

    def arrived(self, user_id: UserId) -> None:
        """Tells every fanout that a session of a user has begun here."""
        for handler in self._open.values():
            handler.arrived(user_id)

    async def drain(self) -> None:
        """Tells every fanout that this edge ends."""
        for server in list(self._open):
            await server.drain("the edge stops")
