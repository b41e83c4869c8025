"""Wires the registry: the store, the way to svc_identity, the rules and the door."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from chappe.api.identity.v1 import directory_service_pb2
from chappe.api.presence.v1 import presence_service_pb2_grpc
from chappe.runtime import channels
from chappe.runtime.streams import Identity
from svc_presence.adapters.directory_grpc import GrpcDirectory
from svc_presence.adapters.presence_store_redis import RedisPresenceStore
from svc_presence.rpc import PresenceRpc
from svc_presence.service.answers import Answers
from svc_presence.service.desk import Desk
from svc_presence.service.routes import Routes
from svc_presence.service.typing import TypingRooms
from svc_presence.service.watching import Watching
from svc_presence.worker import keep_time

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from chappe.runtime.app import App
    from svc_presence.config import Config
    from svc_presence.ports import Directory, PresenceStore


async def build(config: Config, app: App) -> None:
    """Adds the parts of the registry to its app."""
    redis = RedisPresenceStore(
        config.redis_url.reveal(), is_cluster=config.is_redis_cluster, timeout_s=config.redis_timeout_s
    )
    store = await app.add_store(contextlib.aclosing(redis), name="redis", check=redis.check)
    assemble(app, store, await app.add_peer(_directory(config, app), name="svc_identity"))


def assemble(app: App, store: PresenceStore, directory: Directory) -> None:
    """Adds the rules and the door over a store and a directory."""
    clock, tasks = app.seams.clock, app.tasks
    routes = Routes(store)
    desk = Desk(
        routes,
        Watching(store, directory, clock=clock, tasks=tasks),
        TypingRooms(store, directory, clock=clock, tasks=tasks),
    )
    directory.listener = desk
    tasks.spawn(keep_time(desk, clock), name="time")
    answers = Answers(store, directory)
    door = PresenceRpc(desk, routes, answers, identity=_identity(app), tasks=tasks, clock=clock)
    app.add_door(presence_service_pb2_grpc.add_PresenceServiceServicer_to_server, door)
    app.on_drain(door.drain)
    _add_metrics(app, door, desk)


def _identity(app: App) -> Identity:
    return Identity(app.peer_name, app.boot_id)


# Not a part of the process's health: without svc_identity nobody is shown anything, and routes are found as ever.
@contextlib.asynccontextmanager
async def _directory(config: Config, app: App) -> AsyncGenerator[GrpcDirectory]:
    contracts = [directory_service_pb2.DESCRIPTOR]
    async with channels.channel(
        config.identity_target, app.tls, server_name="svc-identity", contracts=contracts
    ) as channel:
        directory = GrpcDirectory(channel, _identity(app), tasks=app.tasks, seams=app.seams)
        yield directory
        await directory.aclose()


def _add_metrics(app: App, door: PresenceRpc, desk: Desk) -> None:
    metrics, watching, rooms = app.metrics, desk.watching, desk.rooms
    metrics.add(door.counters)
    metrics.gauge("track_streams", "Edges that are connected.", lambda: door.stream_count)
    metrics.gauge("watches", "Viewers of people.", lambda: watching.watch_count)
    metrics.gauge("watched_people", "People who are watched.", lambda: len(watching.people))
    metrics.gauge("openings", "Viewers of conversations.", lambda: rooms.opening_count)
    metrics.counter("told", "Times that a viewer was told of a person.", lambda: watching.told)
