"""The `Registry` port over svc_presence: one Track stream to each replica, a user's items always to the same one."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from chappe.api.presence.v1.presence_service_pb2_grpc import PresenceServiceStub
from chappe.runtime.replicas import Replicas, rendezvous
from chappe.runtime.streams import StreamClient
from svc_edge.adapters.presence_goodbyes import Goodbyes
from svc_edge.adapters.track_grpc import Change, Lane
from svc_edge.adapters.watches_grpc import GrpcWatches

if TYPE_CHECKING:
    from collections.abc import Callable

    import grpc.aio

    from chappe.runtime.clock import Seams
    from chappe.runtime.streams import Identity
    from chappe.runtime.tasks import Tasks
    from svc_edge.model import ConnectOutcome, SessionRef
    from svc_edge.ports import RegistryListener

CONNECT_TIMEOUT_S = 2.0


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
        self._lanes: dict[str, Lane] = {}
        self._last_id = 0
        self._down_since_s = seams.clock.monotonic_s()
        self._is_up = asyncio.Event()
        self._replicas: Replicas[Any] = Replicas(target, self._connect, tasks=tasks, clock=seams.clock)
        self._replicas.on_change = self._changed
        self.watches = GrpcWatches(self, tasks=tasks, clock=seams.clock)
        """The way of watches and typing over the same streams."""
        self.goodbyes = Goodbyes(
            lambda session: self._add(Change(session, is_bye=True)) is not None, tasks=tasks, clock=seams.clock
        )
        """Those that may not have been written."""

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

    async def connect(self, session: SessionRef, nonce: bytes, age_s: float) -> ConnectOutcome | None:
        """Registers a session that began so long ago; None when no answer comes within 2 s of a replica's being there.

        Of two sessions of a device the one that began later keeps its place.
        """
        left_s = CONNECT_TIMEOUT_S
        if not self._look():
            left_s -= self._seams.clock.monotonic_s() - self._down_since_s
        if left_s <= 0:
            return None
        try:
            async with asyncio.timeout(left_s):
                while not self._look():
                    await self._is_up.wait()
                return await self._ask(session, nonce, age_s)
        except TimeoutError:
            return None

    def refresh(self, session: SessionRef) -> None:
        """Says that a session lives."""
        lane = self.lane_for(session.user_id)
        if lane is not None:
            lane.refresh(session)

    def bye(self, session: SessionRef) -> None:
        """Says that a session ended; when nobody listens, later."""
        if self._add(Change(session, is_bye=True)) is None:
            self.goodbyes.add([session])

    def lane_for(self, key: bytes) -> Lane | None:
        """Returns the replica that wins an id; None when none takes anything."""
        lanes = {address: lane for address, lane in self._lanes.items() if lane.is_accepting}
        if not lanes:
            return None
        return lanes[next(iter(lanes)) if len(lanes) == 1 else rendezvous(key, frozenset(lanes))]

    def lane_opened(self, lane: Lane) -> None:  # noqa: ARG002 - whichever it is, some users are now its own
        """Learns that a stream stands: its registry may know nothing of what went before."""
        self._is_up.set()
        self.listener.registry_forgot()
        self.watches.lanes_changed()
        self.goodbyes.say_again()

    def lane_closed(self, lane: Lane) -> None:
        """Learns that a stream has ended."""
        self._look()
        self.watches.lane_closed(lane)

    def _look(self) -> bool:
        """Returns whether a replica takes changes, and notes since when none does, one that drains neither."""
        is_reachable = self.is_reachable
        if not is_reachable and self._is_up.is_set():
            self._is_up.clear()
            self._down_since_s = self._seams.clock.monotonic_s()
        return is_reachable

    async def _ask(self, session: SessionRef, nonce: bytes, age_s: float) -> ConnectOutcome | None:
        self._last_id += 1
        connect_id = self._last_id
        lane = self._add(Change(session, connect_id, nonce, int(age_s * 1000)))
        if lane is None:
            return None
        future: asyncio.Future[ConnectOutcome | None] = asyncio.get_running_loop().create_future()
        lane.pending[connect_id] = future
        try:
            return await future
        finally:
            lane.pending.pop(connect_id, None)

    def _add(self, change: Change) -> Lane | None:
        lane = self.lane_for(change.session.user_id)
        if lane is not None:
            lane.client.add(change)
        return lane

    def _connect(self, address: str) -> StreamClient[Any, Any, Any]:
        stub: Any = PresenceServiceStub(self._channel(address))
        lane = self._lanes[address] = Lane(self, self._identity, self._edge_id)
        lane.client = StreamClient(f"track at {address}", stub.Track, lane, tasks=self._tasks, seams=self._seams)
        return lane.client

    def _changed(self) -> None:
        """Sends the state of all sessions again, for some users have another replica now."""
        self._lanes = {address: lane for address, lane in self._lanes.items() if address in self._replicas.streams}
        self.listener.registry_forgot()
        self.watches.lanes_changed()
