"""Builds the bridge out of its parts; the only room that names concrete adapters."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, NamedTuple

from chappe.api.edge.v1 import edge_service_pb2_grpc
from chappe.runtime import channels
from chappe.runtime.errors import UnavailableError
from chappe.runtime.streams import Identity
from svc_edge.adapters.bridge_grpc import GrpcBridge, contract_files
from svc_edge.adapters.identity_grpc import GrpcIdentity
from svc_edge.adapters.ledger_grpc import GrpcLedger
from svc_edge.adapters.presence_grpc import GrpcRegistry
from svc_edge.protocol.budget import CallRates, Rate
from svc_edge.protocol.looks import WatchLimits
from svc_edge.protocol.session import Limits
from svc_edge.rpc import EdgeRpc
from svc_edge.service.calls import Calls
from svc_edge.service.frames import Frames
from svc_edge.service.keeper import Keeper
from svc_edge.service.mesh import Mesh
from svc_edge.service.reading import LogReader
from svc_edge.service.sessions import Sessions
from svc_edge.service.sign_in import AnonymousLimits, SignIn
from svc_edge.service.traces import Traces
from svc_edge.service.watching import Watching
from svc_edge.worker import keep_time, make_sure
from svc_edge.ws.connection import House
from svc_edge.ws.server import UpgradeTerms, WsServer

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    import grpc.aio

    from chappe.runtime.app import App
    from svc_edge.adapters.watches_grpc import GrpcWatches
    from svc_edge.config import Config


class Peers(NamedTuple):
    """The services behind the edge."""

    ledger: GrpcLedger
    registry: GrpcRegistry
    identity: GrpcIdentity
    bridge: GrpcBridge


async def build(config: Config, app: App) -> None:
    """Adds the parts of the bridge to its app."""
    me = Identity(app.peer_name, app.boot_id)
    peers = await _add_peers(config, app, me)
    limits = _limits(config)
    sessions = Sessions(app.seams, limits)
    reader = LogReader(peers.ledger, sessions, seams=app.seams, tasks=app.tasks)
    anonymous = AnonymousLimits(config.anonymous_per_address, config.anonymous_in_all)
    terms = limits, anonymous, frozenset(config.allowed_hosts)
    sign_in = SignIn(sessions, reader, peers.registry, peers.identity, seams=app.seams, terms=terms)
    mesh = Mesh(sessions, sign_in.revocations, app.seams)
    peers.ledger.listener = peers.registry.listener = peers.identity.listener = mesh
    await peers.identity.start()
    await peers.ledger.start()
    await peers.registry.start()
    calls = Calls(peers.bridge, sessions, _call_rates(config), clock=app.seams.clock, tasks=app.tasks)
    frames = Frames(sessions, peers.ledger, sign_in, reader, calls, app.tasks)
    frames.traces = mesh.traces = Traces(app.telemetry.tracing, app.telemetry.lots())
    keeper = Keeper(sessions, reader, peers.registry, sign_in, seams=app.seams, tasks=app.tasks)
    frames.watching = _watching(config, sessions, peers.registry.watches, app.seams.clock.monotonic_s)
    house = House(sessions, frames, keeper, app.seams.clock.monotonic_s)
    upgrade = UpgradeTerms(frozenset(config.allowed_origins), config.allow_json, config.max_connections)
    server = WsServer(house, upgrade, app.seams.clock.wall_ms)
    door = EdgeRpc(mesh, me, app.tasks)
    sign_in.carriers = door
    app.add_door(edge_service_pb2_grpc.add_EdgeServiceServicer_to_server, door)
    app.add_listener(_listening(server, config, app))
    _spawn_loops(app, keeper, sign_in)
    app.on_drain(_farewell(server, keeper, door))
    _add_metrics(app, house, mesh, peers, calls)
    _add_timings(app, peers, reader)


def _spawn_loops(app: App, keeper: Keeper, sign_in: SignIn) -> None:
    app.tasks.spawn(keep_time(keeper, app.seams.clock), name="time")
    app.tasks.spawn(make_sure(sign_in, app.seams.clock), name="make sure of sign-ins")


@asynccontextmanager
async def _listening(server: WsServer, config: Config, app: App) -> AsyncGenerator[WsServer, None]:
    host, port = channels.split_address(config.ws_listen)
    app.addresses["ws"] = await server.start(host, port)
    try:
        yield server
    finally:
        server.stop_listening()


def _farewell(server: WsServer, keeper: Keeper, door: EdgeRpc) -> Callable[[], Awaitable[None]]:
    async def farewell() -> None:
        server.stop_listening()
        await keeper.drain()
        await door.drain()

    return farewell


def _watching(config: Config, sessions: Sessions, watches: GrpcWatches, monotonic_s: Callable[[], float]) -> Watching:
    limits = WatchLimits(config.watches_per_session, config.watches_in_all)
    watches.listener = watching = Watching(sessions, watches, limits, monotonic_s)
    return watching


def _limits(config: Config) -> Limits:
    return Limits(
        Rate(config.frame_burst, config.frame_rate),
        config.send_window,
        config.receive_window,
        config.verify_interval_s,
        config.verify_jitter_s,
    )


def _call_rates(config: Config) -> CallRates:
    return CallRates(
        Rate(config.read_call_burst, config.read_call_rate),
        Rate(config.write_call_burst, config.write_call_rate),
        Rate(config.sensitive_call_burst, config.sensitive_call_rate),
    )


async def _add_peers(config: Config, app: App, me: Identity) -> Peers:
    """Opens the way to the four services; channels close after the streams that run on them."""
    opened: dict[str, grpc.aio.Channel] = {}

    def opener(service: str) -> Callable[[str], grpc.aio.Channel]:
        def open_channel(target: str) -> grpc.aio.Channel:
            if target not in opened:
                name = f"svc-{service}"
                opened[target] = channels.channel(target, app.tls, server_name=name, contracts=contract_files(service))
            return opened[target]

        return open_channel

    async def close_all() -> None:
        for channel in opened.values():
            await channel.close()

    targets = {
        "identity": config.identity_target,
        "message": config.message_target,
        "presence": config.presence_target,
    }
    seams, tasks = app.seams, app.tasks
    ledger = GrpcLedger(targets["message"], opener("message"), me, tasks=tasks, seams=seams)
    registry = GrpcRegistry(
        targets["presence"], opener("presence"), me, lambda: config.advertise or app.address, tasks=tasks, seams=seams
    )
    identity = GrpcIdentity(opener("identity")(targets["identity"]), me, tasks=tasks, seams=seams)
    bridge = GrpcBridge({service: opener(service)(target) for service, target in targets.items()})
    await app.add_peer(_closing(close_all), name="channels")
    await app.add_peer(
        _closing(ledger.aclose), name="svc_message", check=_check(lambda: ledger.is_reachable, "message")
    )
    await app.add_peer(_closing(registry.aclose), name="svc_presence")
    return Peers(ledger, registry, identity, bridge)


@asynccontextmanager
async def _closing(close: Callable[[], Awaitable[None]]) -> AsyncGenerator[None, None]:
    try:
        yield
    finally:
        await close()


def _check(is_reachable: Callable[[], bool], service: str) -> Callable[[], Awaitable[None]]:
    async def check() -> None:
        if not is_reachable():
            raise UnavailableError(f"svc_{service}", "no stream to it stands; is it running?")

    return check


def _add_timings(app: App, peers: Peers, reader: LogReader) -> None:
    app.metrics.flushes("submit", "batches of Sends and acknowledgements to svc_message", peers.ledger.timings)
    app.metrics.flushes("sync", "calls that read logs", reader.timings)


def _add_metrics(app: App, house: House, mesh: Mesh, peers: Peers, calls: Calls) -> None:
    metrics, sessions, watching = app.metrics, house.sessions, house.frames.watching
    metrics.gauge("connections", "WebSocket connections.", lambda: len(sessions.by_id))
    metrics.gauge("signed_in", "Devices that are signed in.", lambda: len(sessions.by_device))
    metrics.table(
        "closes", "Connections that ended, by the close code that the edge sent.", "code", lambda: sessions.closes
    )
    metrics.counter("sends", "Sends that were forwarded.", lambda: house.frames.sends)
    metrics.counter("answers", "Sends that were answered.", lambda: mesh.answered_sends)
    metrics.counter("pushes", "Deliveries that were pushed to this edge.", lambda: mesh.pushed_items)
    metrics.counter("resent", "Items that went to another replica.", lambda: peers.ledger.resent_items)
    metrics.gauge("watches", "People and conversations that somebody watches.", lambda: watching.topic_count)
    metrics.counter(
        "dropped_typings", "Times that somebody said to be writing too often.", lambda: watching.dropped_typings
    )
    metrics.counter("reads", "Reads of logs.", lambda: house.frames.reads)
    metrics.table(
        "refused_calls", "Calls that were refused, by the budget that was used up.", "budget", lambda: calls.refused
    )
    metrics.counter(
        "repaired", "Items that a verification found and no push had brought.", lambda: house.frames.repaired
    )
