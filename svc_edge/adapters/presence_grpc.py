"""The `Registry` port over svc_presence: one Track stream to each replica, a user's items always to the same one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from chappe.api.presence.v1 import track_pb2
from chappe.api.presence.v1.presence_service_pb2_grpc import PresenceServiceStub
from chappe.api.type.v1 import error_reason_pb2, stream_pb2
from chappe.runtime.replicas import Replicas, rendezvous
from chappe.runtime.streams import DialHandler, Identity, StreamClient
from svc_edge.model import ConnectOutcome, SessionId

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc.aio

    from chappe.runtime.clock import Seams
    from chappe.runtime.tasks import Tasks
    from svc_edge.model import SessionRef
    from svc_edge.ports import RegistryListener

CONNECT_TIMEOUT_S = 2.0
_PREFIX = "ERROR_REASON_"


class _Change(NamedTuple):
    """A session that begins (with a number and a nonce), lives, or ended."""

    session: SessionRef
    connect_id: int = 0
    nonce: bytes = b""
    is_bye: bool = False


class _Lane(DialHandler[_Change, track_pb2.TrackRequest, track_pb2.TrackResponse]):
    """One replica's stream and the connects that it has not answered."""

    client: StreamClient[_Change, track_pb2.TrackRequest, track_pb2.TrackResponse]

    def __init__(self, registry: GrpcRegistry, identity: Identity, edge_id: Callable[[], str]) -> None:
        self._registry = registry
        self._identity = identity
        self._edge_id = edge_id
        self._batches: dict[int, list[int]] = {}
        self.pending: dict[int, asyncio.Future[ConnectOutcome | None]] = {}

    def hello(self) -> track_pb2.TrackRequest:
        return track_pb2.TrackRequest(hello=self._identity.hello(0), edge_id=self._edge_id())

    def encode(self, number: int, items: list[_Change]) -> track_pb2.TrackRequest:
        connects = [change for change in items if change.connect_id]
        self._batches[number] = [change.connect_id for change in connects]
        batch = track_pb2.TrackBatch(
            number=number,
            connects=[
                track_pb2.Connect(item_id=change.connect_id, session=_reference(change.session), nonce=change.nonce)
                for change in connects
            ],
            refreshes=[_reference(change.session) for change in items if not change.connect_id and not change.is_bye],
            byes=[_reference(change.session) for change in items if change.is_bye],
        )
        return track_pb2.TrackRequest(batch=batch)

    def drain(self, reason: str) -> track_pb2.TrackRequest:
        return track_pb2.TrackRequest(drain=stream_pb2.StreamDrain(reason=reason))

    def opened(self, hello: stream_pb2.StreamHello) -> None:  # noqa: ARG002 - any boot of the registry will do
        self._registry.lane_opened()

    def received(self, kind: str, response: track_pb2.TrackResponse) -> None:
        if kind != "results":
            return
        results = response.results
        for answer in results.connects:
            refusal = error_reason_pb2.ErrorReason.Name(answer.refused_reason).removeprefix(_PREFIX)
            refusal = refusal if answer.refused_reason else ""
            self._resolve(answer.item_id, ConnectOutcome(refusal, SessionId(answer.replaced_session_id)))
        for connect_id in self._batches.pop(results.number, ()):
            self._resolve(connect_id, None)
        for session_id in results.replaced_session_ids:
            self._registry.listener.replaced(SessionId(session_id))

    def closed(self, unsent: list[_Change], *, is_clean: bool) -> None:  # noqa: ARG002 - state is sent again either way
        self._batches.clear()
        for connect_id in list(self.pending):
            self._resolve(connect_id, None)
        self._registry.lane_closed()

    def _resolve(self, connect_id: int, outcome: ConnectOutcome | None) -> None:
        future = self.pending.pop(connect_id, None)
        if future is not None and not future.done():
            future.set_result(outcome)


class GrpcRegistry:
    """Registers sessions with the replica that rendezvous hashing names for their user."""

    listener: RegistryListener

    def __init__(
        self,
        target: str,
        channel: Callable[[str], grpc.aio.Channel],
        identity: Identity,
        edge_id: Callable[[], str],
        *,
        tasks: Tasks,
        seams: Seams,
    ) -> None:
        """Prepares; `start` dials.

        Args:
            target: The replicas, see `chappe.runtime.replicas`.
            channel: Opens the channel to one address.
            identity: Who this process is on its streams.
            edge_id: Returns the address at which fanout reaches this process, which is known once it listens.
            tasks: Owns the streams' tasks.
            seams: Clock and randomness.
        """
        self._channel = channel
        self._identity = identity
        self._edge_id = edge_id
        self._tasks = tasks
        self._seams = seams
        self._lanes: dict[str, _Lane] = {}
        self._last_id = 0
        self._down_since_s = seams.clock.monotonic_s()
        self._is_up = asyncio.Event()
        self._replicas: Replicas[Any] = Replicas(target, self._connect, tasks=tasks, clock=seams.clock)
        self._replicas.on_change = self._changed

    async def start(self) -> None:
        """Dials every replica."""
        await self._replicas.start()

    async def aclose(self) -> None:
        """Ends every stream politely."""
        await self._replicas.aclose()

    @property
    def is_reachable(self) -> bool:
        """Whether a replica takes changes at the moment."""
        return any(lane.client.is_accepting for lane in self._lanes.values())

    async def connect(self, session: SessionRef, nonce: bytes) -> ConnectOutcome | None:
        """Registers a session that begins; None when the registry does not answer within 2 s of having been there."""
        left_s = CONNECT_TIMEOUT_S
        if not self.is_reachable:
            left_s -= self._seams.clock.monotonic_s() - self._down_since_s
        if left_s <= 0:
            return None
        try:
            async with asyncio.timeout(left_s):
                if not self.is_reachable:
                    await self._is_up.wait()
                return await self._ask(session, nonce)
        except TimeoutError:
            return None

    def refresh(self, session: SessionRef) -> None:
        """Says that a session lives."""
        self._add(_Change(session))

    def bye(self, session: SessionRef) -> None:
        """Says that a session ended."""
        self._add(_Change(session, is_bye=True))

    def lane_opened(self) -> None:
        """Learns that a stream stands: its registry may know nothing of what went before."""
        self._is_up.set()
        self.listener.registry_forgot()

    def lane_closed(self) -> None:
        """Learns that a stream has ended."""
        if not self.is_reachable:
            self._is_up.clear()
            self._down_since_s = self._seams.clock.monotonic_s()

    async def _ask(self, session: SessionRef, nonce: bytes) -> ConnectOutcome | None:
        self._last_id += 1
        connect_id = self._last_id
        lane = self._add(_Change(session, connect_id, nonce))
        if lane is None:
            return None
        future: asyncio.Future[ConnectOutcome | None] = asyncio.get_running_loop().create_future()
        lane.pending[connect_id] = future
        try:
            return await future
        finally:
            lane.pending.pop(connect_id, None)

    def _add(self, change: _Change) -> _Lane | None:
        lanes = {address: lane for address, lane in self._lanes.items() if lane.client.is_accepting}
        if not lanes:
            return None
        address = next(iter(lanes)) if len(lanes) == 1 else rendezvous(change.session.user_id, frozenset(lanes))
        lanes[address].client.add(change)
        return lanes[address]

    def _connect(self, address: str) -> StreamClient[Any, Any, Any]:
        stub: Any = PresenceServiceStub(self._channel(address))
        lane = self._lanes[address] = _Lane(self, self._identity, self._edge_id)
        lane.client = StreamClient(f"track at {address}", stub.Track, lane, tasks=self._tasks, seams=self._seams)
        return lane.client

    def _changed(self) -> None:
        """Sends the state of all sessions again, for some users have another replica now."""
        self._lanes = {address: lane for address, lane in self._lanes.items() if address in self._replicas.streams}
        self.listener.registry_forgot()


def _reference(session: SessionRef) -> track_pb2.SessionRef:
    return track_pb2.SessionRef(user_id=session.user_id, device_id=session.device_id, session_id=session.session_id)
