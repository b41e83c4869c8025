"""Keeps one Push stream to every edge: to those that the operator names, and to those that users were found on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from chappe.runtime.metrics import FlushTimings
from chappe.runtime.replicas import Replicas
from svc_fanout.adapters.push_grpc import PushStream
from svc_fanout.ports import SPREAD_MS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    import grpc.aio

    from chappe.runtime.clock import Seams
    from chappe.runtime.streams import Identity
    from chappe.runtime.tasks import Tasks
    from svc_fanout.model import Delivery
    from svc_fanout.ports import EdgeListener

MAX_REMEMBERED = 10_000
IDLE_S = 600.0
"""A stream to an edge that nobody was found on for so long is ended, unless the operator names the edge."""


class GrpcEdges:
    """The `Edges` port over EdgeService."""

    def __init__(
        self,
        target: str,
        connect: Callable[[str], grpc.aio.Channel],
        *,
        identity: Identity,
        tasks: Tasks,
        seams: Seams,
    ) -> None:
        """Prepares; nothing is dialled before `start`.

        Args:
            target: The edges that always have a stream, as in `chappe.runtime.replicas`; empty for none.
            connect: Opens the channel to one address.
            identity: Of this process.
            tasks: Owns the streams.
            seams: For jitter and waiting.
        """
        self._connect = connect
        self._identity = identity
        self._tasks = tasks
        self._seams = seams
        self._named: Replicas[PushStream] = Replicas(target, self._stream_to, tasks=tasks, clock=seams.clock)
        self._found: dict[str, PushStream] = {}
        self._seen_s: dict[str, float] = {}
        self._had: set[str] = set()
        """The edges that have had a stream."""
        self.timings = FlushTimings()
        """Of the batches of deliveries, on all streams together."""
        self.listener: EdgeListener
        """Takes what edges say by themselves; the owner sets it before `start`."""

    @property
    def stream_count(self) -> int:
        """How many edges have a stream."""
        return len(self._named.streams) + len(self._found)

    @property
    def is_in_touch(self) -> bool:
        """Whether every edge that is known can tell of arrivals at the moment."""
        return all(stream.is_open for stream in self._streams())

    @property
    def backlog(self) -> int:
        """How many deliveries wait for the edge that has the most."""
        return max((stream.pending for stream in self._streams()), default=0)

    async def start(self) -> None:
        """Opens the streams to the edges that the operator names."""
        await self._named.start()

    def push(self, edge_id: str, deliveries: list[Delivery]) -> None:
        """Sends deliveries to an edge, each only if the edge still has the boot of its route."""
        stream = self._named.streams.get(edge_id) or self._found.get(edge_id)
        if stream is None:
            stream = self._found[edge_id] = self._stream_to(edge_id)
            self._seen_s[edge_id] = self._seams.clock.monotonic_s()
        stream.push(deliveries)

    def seen(self, edge_ids: Iterable[str]) -> None:
        """Opens streams to edges that are new, and keeps those to the others."""
        now_s = self._seams.clock.monotonic_s()
        for edge_id in edge_ids:
            if edge_id in self._named.streams:
                continue
            self._seen_s[edge_id] = now_s
            if edge_id not in self._found:
                self._found[edge_id] = self._stream_to(edge_id)

    def verify_all(self, reason: str, spread_ms: int) -> None:
        """Asks every edge, now or when it can be reached again, to let all its sessions read their logs."""
        for stream in self._streams():
            stream.verify_all(reason, spread_ms)

    def sweep(self) -> None:
        """Ends the streams to edges that nobody was found on for long."""
        oldest_s = self._seams.clock.monotonic_s() - IDLE_S
        for edge_id in [edge_id for edge_id in self._found if self._seen_s[edge_id] < oldest_s]:
            del self._seen_s[edge_id]
            self._tasks.spawn(self._found.pop(edge_id).aclose(), name=f"close push to {edge_id}")

    async def aclose(self) -> None:
        """Ends every stream politely."""
        found, self._found = list(self._found.values()), {}
        await asyncio.gather(self._named.aclose(), *(stream.aclose() for stream in found))

    def _streams(self) -> tuple[PushStream, ...]:
        return (*self._named.streams.values(), *self._found.values())

    def _stream_to(self, edge_id: str) -> PushStream:
        # An edge that users were found on may be named later; one stream is enough.
        known = self._found.pop(edge_id, None)
        if known is not None:
            return known
        stream = PushStream(
            edge_id,
            self._connect(edge_id),
            self.listener,
            identity=self._identity,
            tasks=self._tasks,
            seams=self._seams,
        )
        stream.batcher.timings = self.timings
        if edge_id in self._had:
            # Names leave out an edge that is not ready, whose sessions live on. What the stream before this one owed
            # it, and what all edges were asked meanwhile, is owed still.
            stream.verify_all("the edge was out of sight", SPREAD_MS)
        if len(self._had) >= MAX_REMEMBERED:
            self._had.clear()
        self._had.add(edge_id)
        return stream
