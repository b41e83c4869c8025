"""Wires the carrier: the ways to svc_presence and the edges, the rules, the loops and the door."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, NamedTuple

from chappe.api.edge.v1 import edge_service_pb2
from chappe.api.fanout.v1 import fanout_service_pb2_grpc
from chappe.api.presence.v1 import presence_service_pb2
from chappe.runtime import channels
from chappe.runtime.streams import Identity
from svc_fanout.adapters.edge_grpc import GrpcEdges
from svc_fanout.adapters.presence_grpc import GrpcRegistry
from svc_fanout.rpc import FanoutRpc
from svc_fanout.service import FanoutService
from svc_fanout.worker import FanoutWorker, Limits

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    import grpc.aio

    from chappe.runtime.app import App
    from svc_fanout.config import Config
    from svc_fanout.model import Delivery, UserId


async def build(config: Config, app: App) -> None:
    """Adds the parts of the carrier to its app."""
    identity = Identity(app.peer_name, app.boot_id)
    registry = await app.add_peer(_registry(config, app), name="svc_presence")
    edges = await app.add_peer(contextlib.aclosing(_edges(config, app, identity)), name="svc_edge")
    service = FanoutService(registry, edges, app.seams.clock)
    worker = FanoutWorker(
        service,
        edges,
        tasks=app.tasks,
        clock=app.seams.clock,
        limits=Limits(config.max_waiting_hints, config.max_waiting_bytes, config.large_deliveries_per_s),
    )
    worker.tracing = app.telemetry.tracing
    edges.listener = _Ears(worker, service)
    await edges.start()
    door = FanoutRpc(worker, identity=identity, tasks=app.tasks)
    app.add_door(fanout_service_pb2_grpc.add_FanoutServiceServicer_to_server, door)

    async def say_goodbye() -> None:
        # The edges come last: what the ledgers sent until their ends is still pushed.
        await door.drain()
        await worker.drain()
        await edges.aclose()

    app.on_drain(say_goodbye)
    _add_metrics(app, worker, service, edges)


def _add_metrics(app: App, worker: FanoutWorker, service: FanoutService, edges: GrpcEdges) -> None:
    metrics = app.metrics
    metrics.add(worker.counters)
    metrics.counter("recalled_users", "Users whose routes were remembered.", lambda: service.recalled_users)
    metrics.gauge("waiting_hints", "Hints that wait, counted in users.", lambda: worker.waiting_hints)
    metrics.gauge("push_streams", "Edges to which a stream is kept.", lambda: edges.stream_count)
    metrics.flushes("round", "rounds of hints", worker.timings)
    metrics.flushes("large_round", "rounds of hints to large groups", worker.large_timings)
    metrics.histogram("locate_seconds", "How long it took to find the users of a round.", worker.locate_seconds)
    metrics.flushes("push", "batches of deliveries to edges", edges.timings)


class _Ears(NamedTuple):
    """Takes what edges say: the worker what came back, the rules what they have to know."""

    worker: FanoutWorker
    service: FanoutService

    def returned(self, deliveries: list[Delivery]) -> None:
        self.worker.take_again(self.service.returned(deliveries))

    def unreachable(self, deliveries: list[Delivery]) -> None:
        self.worker.take_again(self.service.unreachable(deliveries))

    def arrived(self, user_ids: Iterable[UserId]) -> None:
        self.service.arrived(user_ids)

    def lost_touch(self) -> None:
        self.service.lost_touch()


@contextlib.asynccontextmanager
async def _registry(config: Config, app: App) -> AsyncGenerator[GrpcRegistry, None]:
    async with channels.channel(
        config.presence_target, app.tls, server_name="svc-presence", contracts=[presence_service_pb2.DESCRIPTOR]
    ) as channel:
        yield GrpcRegistry(channel, timeout_s=config.locate_timeout_s)


def _edges(config: Config, app: App, identity: Identity) -> GrpcEdges:
    def connect(edge_id: str) -> grpc.aio.Channel:
        return channels.channel(edge_id, app.tls, server_name="svc-edge", contracts=[edge_service_pb2.DESCRIPTOR])

    return GrpcEdges(config.edge_target, connect, identity=identity, tasks=app.tasks, seams=app.seams)
