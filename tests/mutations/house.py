"""The services of a scene: real rules, doors and streams over mutual TLS, in one process; each can be killed."""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import svc_edge.app
import svc_edge.config
import svc_fanout.app
import svc_fanout.config
import svc_message.app
import svc_message.config
from chappe.api.identity.v1 import directory_service_pb2_grpc, session_service_pb2_grpc
from chappe.cli.launcher.environment import tls_files
from chappe.runtime.app import App, StartError
from chappe.runtime.clock import Seams, SystemRandomness
from chappe.runtime.config import Secret, ServerSettings
from chappe.runtime.tasks import Tasks
from svc_message.adapters.directory_grpc import GrpcDirectory
from svc_presence.adapters.directory_memory import MemoryDirectory
from svc_presence.app import assemble
from tests.mutations.directory import Directory
from tests.mutations.faults import (
    GatedGroupStore,
    GatedMessageStore,
    GatedPresenceStore,
    Journal,
    LeapClock,
    LossyDispatcher,
    Receipts,
)

DRAIN_S = 3.0
BIND_TRIES = 100
BIND_PAUSE_S = 0.05
CANCEL_AGAIN_S = 0.5

Build = Callable[[App], Awaitable[None]]


class Service:
    """One process of a service, as far as the others can tell: it has an address, and it can die and come back."""

    def __init__(self, name: str, pki: Path, clock: LeapClock) -> None:
        files = tls_files(pki, f"svc-{name}")
        self._name = name
        self.files = files
        """Its certificate."""
        self._seams = Seams(clock, SystemRandomness())
        self._build: Build
        self._app: App
        self.address = "127.0.0.1:0"

    @property
    def app(self) -> App:
        """What runs now, or ran last."""
        return self._app

    async def bind(self) -> None:
        """Takes an address, the same again after an end."""
        settings = ServerSettings(
            listen=self.address,
            tls_cert_file=self.files.cert,
            tls_key_file=self.files.key,
            tls_ca_file=self.files.ca,
            peer_name=self._name,
            drain_s=DRAIN_S,
        )
        for _ in range(BIND_TRIES):
            app = App(self._name, settings, seams=self._seams)
            try:
                await app.__aenter__()
            except StartError:
                # The port of the one that died is let go by another thread.
                await asyncio.sleep(BIND_PAUSE_S)
            else:
                self._app, self.address = app, app.address
                return
        raise StartError(f"{self.address} is not let go")

    async def open(self, build: Build) -> None:
        """Builds and serves."""
        self._build = build
        await build(self._app)
        await self._app.start()

    async def start(self) -> None:
        """Starts again after an end: another boot at the same address."""
        await self.bind()
        await self.open(self._build)

    async def kill(self) -> None:
        """Ends at once, as `kill -9` would: no goodbye to anybody, and what was in memory is gone."""
        app = self._app
        app.ended.set()
        await _cancel_all(app.tasks)
        await app._server.stop(None)
        await app._listeners.aclose()
        await app._peers.aclose()
        await app._stores.aclose()

    async def stop(self) -> None:
        """Ends politely."""
        await self._app.__aexit__(None, None, None)


async def build_identity(app: App, directory: Directory) -> None:
    """Builds the stand-in of svc_identity."""
    app.add_door(directory_service_pb2_grpc.add_DirectoryServiceServicer_to_server, directory)
    app.add_door(session_service_pb2_grpc.add_SessionServiceServicer_to_server, directory)


async def build_presence(app: App, store: GatedPresenceStore) -> None:
    """Builds svc_presence over a store of the scene."""
    assemble(app, store, MemoryDirectory())


async def build_fanout(app: App, presence: Service, edges: list[Service]) -> None:
    """Builds svc_fanout as it is."""
    target = ",".join(edge.address for edge in edges)
    config = svc_fanout.config.Config(presence_target=presence.address, edge_target=target)
    await svc_fanout.app.build(config, app)


async def build_edge(app: App, identity: Service, message: Service, presence: Service) -> None:
    """Builds svc_edge as it is."""
    config = svc_edge.config.Config(
        identity_target=identity.address, message_target=message.address, presence_target=presence.address
    )
    await svc_edge.app.build(config, app)


class GroupParts(NamedTuple):
    """What the ledger's book holds of groups, under the names of what it takes the place of."""

    PostgresJournal: Journal
    PostgresGroupStore: GatedGroupStore
    PostgresReceiptStore: Receipts


class LedgerParts:
    """What svc_message is built from: its store lives on when the process dies, and hints can be lost."""

    def __init__(self, store: GatedMessageStore, groups: GroupParts, identity: Service, fanout: Service) -> None:
        self._identity = identity
        self._fanout = fanout
        self.hints: LossyDispatcher
        """Of the present process, like the next."""
        self.directory: GrpcDirectory
        _replace(svc_message.app, "PostgresMessageStore", lambda *_args, **_settings: store)
        for name, part in groups._asdict().items():
            _replace(svc_message.app, name, lambda *_args, part=part, **_settings: part)
        _replace(svc_message.app, "GrpcDispatcher", self._dispatcher)
        _replace(svc_message.app, "GrpcDirectory", self._directory)
        _replace(svc_message.app, "migrations", _NoMigrations)

    async def build(self, app: App) -> None:
        """Builds svc_message as it is, over the store of the scene."""
        config = svc_message.config.Config(
            store_dsn=Secret("none"), identity_target=self._identity.address, fanout_target=self._fanout.address
        )
        await svc_message.app.build(config, app)

    def _dispatcher(self, *args: Any, **settings: Any) -> LossyDispatcher:
        self.hints = LossyDispatcher(*args, **settings)
        return self.hints

    def _directory(self, *args: Any, **settings: Any) -> GrpcDirectory:
        self.directory = GrpcDirectory(*args, **settings)
        return self.directory


class _NoMigrations:
    """Stands in for the migrations of a store that is ready."""

    @staticmethod
    async def check(*_args: object) -> None:
        """Finds nothing wrong."""


def _replace(module: ModuleType, name: str, part: object) -> None:
    """Gives a module another part of a name that it already has; the process is the scene's own."""
    if not hasattr(module, name):
        raise AttributeError(f"{module.__name__} has no {name} any more: look where it is made now")
    setattr(module, name, part)


async def _cancel_all(tasks: Tasks) -> None:
    """Cancels tasks until they end: a driver that is at work may swallow a cancellation."""
    has_ended = False
    while not has_ended:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(CANCEL_AGAIN_S):
                await tasks.aclose()
                has_ended = True


@contextlib.asynccontextmanager
async def alive(services: list[Service]) -> AsyncGenerator[None]:
    """Ends services without ceremony when the scene is over."""
    try:
        yield
    finally:
        for service in services:
            await service.kill()
