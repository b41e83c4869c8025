"""Wires the registry: the store, the rules and the door."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from chappe.api.presence.v1 import presence_service_pb2_grpc
from chappe.runtime.streams import Identity
from svc_presence.adapters.presence_store_redis import RedisPresenceStore
from svc_presence.rpc import PresenceRpc
from svc_presence.service import PresenceService

if TYPE_CHECKING:
    from chappe.runtime.app import App
    from svc_presence.config import Config


async def build(config: Config, app: App) -> None:
    """Adds the parts of the registry to its app."""
    redis = RedisPresenceStore(
        config.redis_url.reveal(), is_cluster=config.is_redis_cluster, timeout_s=config.redis_timeout_s
    )
    store = await app.add_store(contextlib.aclosing(redis), name="redis", check=redis.check)
    door = PresenceRpc(PresenceService(store), identity=Identity(app.peer_name, app.boot_id), tasks=app.tasks)
    app.add_door(presence_service_pb2_grpc.add_PresenceServiceServicer_to_server, door)
    app.on_drain(door.drain)
    app.metrics.add(door.counters)
    app.metrics.gauge("track_streams", "Edges that are connected.", lambda: door.stream_count)
