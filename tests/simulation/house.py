"""The services of a simulation: their own composition roots over simulated calls, sockets and stores."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from types import ModuleType
from typing import Any, Self

import picows

import svc_edge.app
import svc_edge.config
import svc_fanout.app
import svc_fanout.config
import svc_message.app
import svc_message.config
import svc_presence.app
import svc_presence.config
from chappe.api.identity.v1 import directory_service_pb2_grpc, session_service_pb2_grpc
from chappe.runtime import channels
from chappe.runtime.app import App
from chappe.runtime.clock import Clock, Seams
from chappe.runtime.config import Secret, ServerSettings
from chappe.runtime.errors import ChappeError
from chappe.runtime.interceptors import DoorInterceptor, Gate, Realm
from chappe.runtime.pki import SpiffeId
from svc_message.adapters.ledger_cassandra.message_store import CassandraMessageStore
from svc_message.adapters.timings import StoreTimings
from svc_message.adapters.unreadable import Unreadable
from tests.mutations.directory import Directory
from tests.simulation.calls import Context, Exchange, Server
from tests.simulation.clocks import Lots, ProcessClock
from tests.simulation.loop import Process, VirtualLoop
from tests.simulation.replicas import Replicas, ReplicatedConnection
from tests.simulation.sockets import Sockets
from tests.simulation.stores import Remote

DRAIN_S = 3.0
RESTART_S = 1.0
"""So long after a start that failed the next one is tried."""
REALM = Realm("chappe.test", "chappe", ("*",))

Build = Callable[[App], Awaitable[None]]


class House(App):
    """An app whose gRPC server is simulated; it asks nobody for its health, and has no probes."""

    _server: Any

    def __init__(self, name: str, address: str, process: Process, seams: Seams, exchange: Exchange) -> None:
        settings = ServerSettings(listen=address, peer_name=process.name, drain_s=DRAIN_S)
        super().__init__(name, settings, seams=seams, identify=_identify)
        self._process = process
        self._exchange = exchange
        self.address = address

    async def __aenter__(self) -> Self:
        door = DoorInterceptor(Gate(REALM, _identify), self.telemetry.new_trace_id)
        self._server = Server(self._process, door, self._exchange.network)
        self.door = door
        self._exchange.servers[self.address] = self._server
        return self

    async def start(self) -> None:
        self._server.is_serving = True
        for listener in self._pending:
            await self._listeners.enter_async_context(listener)


def _identify(context: Any) -> SpiffeId:
    assert isinstance(context, Context)
    return SpiffeId(trust_domain=REALM.trust_domain, service=context.caller.account)


class Service:
    """One process of a service: it has an address, it can die and come back, and it can leave politely."""

    def __init__(self, name: str, number: int, address: str, town: "Grounds", build: Build) -> None:
        self.name = f"{name}-{number}"
        self.clock = ProcessClock(town.loop, town.skew_s(), town.lots.uniform(0.0, 1e6))
        self.address = address
        self.is_leaving = False
        self.boots = 0
        self.failures: list[str] = []
        """Why it would have stopped itself."""
        self.process = Process(self.name)
        self.process.is_dead = True
        self.house: House
        self._service = name
        self._town = town
        self._build = build

    @property
    def is_up(self) -> bool:
        """Whether it runs."""
        return not self.process.is_dead

    def start(self) -> None:
        """Begins a new boot, unless it runs."""
        if self.is_up:
            return
        self.boots += 1
        self.is_leaving = False
        process = self.process = Process(self.name)
        process.account = f"svc-{self._service}"
        self._town.loop.spawn(process, self._run(process), name=f"{self.name} starts")

    def kill(self) -> None:
        """Ends it at once."""
        self.look()
        self.process.kill()

    def drain(self) -> None:
        """Lets it leave politely; it is gone when it has."""
        if self.is_up and not self.is_leaving and hasattr(self, "house"):
            self.is_leaving = True
            self._town.loop.spawn(self.process, self._leave(self.process), name=f"{self.name} leaves")

    async def _run(self, process: Process) -> None:
        seams = Seams(self.clock, Lots(f"{self._town.seed} {self.name} {self.boots}"))
        self.house = await House(self._service, self.address, process, seams, self._town.exchange).__aenter__()
        try:
            await self._build(self.house)
            await self.house.start()
        except ChappeError:
            # Whoever runs it starts it again.
            loop = self._town.loop
            loop.call_later(RESTART_S, self._start_again, process, context=loop.world.context)
            process.kill()
        except Exception as error:  # noqa: BLE001 - whatever it is, it would stop a process
            self.failures.append(f"{self.name} could not start: {error!r}")

    def _start_again(self, process: Process) -> None:
        if self.process is process:
            self.start()

    async def _leave(self, process: Process) -> None:
        await self.house.__aexit__(None, None, None)
        self.look()
        process.kill()

    def look(self) -> None:
        """Notes why it would have stopped itself by now."""
        house = getattr(self, "house", None)
        if house is None:
            return
        if house.exit_code:
            self.failures.append(f"{self.name}: a task crashed")
        if house.door.counters.bugs:
            self.failures.append(f"{self.name}: {house.door.counters.bugs} calls ended with INTERNAL")


class Grounds:
    """What services stand on: the loop, the calls, the sockets and the stores."""

    def __init__(self, seed: str, loop: VirtualLoop, exchange: Exchange, skew_s: float) -> None:
        self.seed = seed
        self.loop = loop
        self.exchange = exchange
        self.lots = Lots(f"{seed} grounds")
        self.services: list[Service] = []
        self._skew_s = skew_s

    def skew_s(self) -> float:
        """Returns by how much the next clock is wrong."""
        return self.lots.uniform(-self._skew_s, self._skew_s)

    def add(self, name: str, number: int, address: str, build: Build) -> Service:
        """Adds a process, which is not started."""
        service = Service(name, number, address, self, build)
        self.services.append(service)
        return service


Stores = dict[str, Callable[..., Any]]
"""What the ledger is built over: what makes it, by the name of what it takes the place of in its composition root."""


def in_memory(message: Remote, groups: Remote, journal: Remote, receipts: Remote, traces: Remote) -> Stores:
    """Returns stores in memory that are somewhere else."""
    parts = {
        "PostgresMessageStore": message,
        "PostgresGroupStore": groups,
        "PostgresJournal": journal,
        "PostgresReceiptStore": receipts,
        "PostgresTraceStore": traces,
    }
    return {name: lambda *_args, part=part, **_settings: part for name, part in parts.items()}


def in_cassandra(replicas: Replicas) -> Stores:
    """Returns the ledger's own adapter for Cassandra, over simulated replicas."""

    @contextlib.asynccontextmanager
    async def open_book(_config: object, clock: Clock) -> AsyncIterator[svc_message.app.Book]:
        unreadable = Unreadable(clock)
        store = CassandraMessageStore(ReplicatedConnection(replicas, unreadable=unreadable), clock=clock)
        yield svc_message.app.cassandra_book(store, StoreTimings(), unreadable)

    return {"open_book": open_book}


class _NoMigrations:
    """Stands in for the migrations of a store that is ready."""

    @staticmethod
    async def check(*_: object) -> None:
        """Finds nothing wrong."""


@contextlib.contextmanager
def rebuilt(exchange: Exchange, sockets: Sockets, stores: Stores) -> Iterator[None]:
    """Lets the composition roots use what is simulated."""
    with contextlib.ExitStack() as stack:
        for name, part in stores.items():
            stack.enter_context(_replaced(svc_message.app, name, part))
        stack.enter_context(_replaced(svc_message.app, "migrations", _NoMigrations))
        stack.enter_context(_replaced(channels, "channel", exchange.channel))
        stack.enter_context(_replaced(picows, "ws_create_server", sockets.listen))
        stack.enter_context(_replaced(picows, "ws_connect", sockets.connect))
        yield


@contextlib.contextmanager
def _replaced(module: ModuleType, name: str, part: object) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, part)
    try:
        yield
    finally:
        setattr(module, name, before)


def identity(directory: Directory) -> Build:
    """Returns how the stand-in of svc_identity is built."""

    async def build(app: App) -> None:
        app.add_door(directory_service_pb2_grpc.add_DirectoryServiceServicer_to_server, directory)
        app.add_door(session_service_pb2_grpc.add_SessionServiceServicer_to_server, directory)

    return build


def presence(routes: Remote, identity_target: str) -> Build:
    """Returns how svc_presence is built."""

    async def build(app: App) -> None:
        store: Any = routes
        config = svc_presence.config.Config(redis_url=Secret("none"), identity_target=identity_target)
        directory = await app.add_peer(svc_presence.app._directory(config, app), name="svc_identity")
        svc_presence.app.assemble(app, store, directory)

    return build


def fanout(presence_target: str, edge_target: str) -> Build:
    """Returns how svc_fanout is built."""

    async def build(app: App) -> None:
        config = svc_fanout.config.Config(presence_target=presence_target, edge_target=edge_target)
        await svc_fanout.app.build(config, app)

    return build


def message(identity_target: str, fanout_target: str) -> Build:
    """Returns how svc_message is built."""

    async def build(app: App) -> None:
        config = svc_message.config.Config(
            store_dsn=Secret("none"), identity_target=identity_target, fanout_target=fanout_target
        )
        await svc_message.app.build(config, app)

    return build


def edge(identity_target: str, message_target: str, presence_target: str) -> Build:
    """Returns how svc_edge is built; it listens for clients beside its gRPC address."""

    async def build(app: App) -> None:
        config = svc_edge.config.Config(
            identity_target=identity_target,
            message_target=message_target,
            presence_target=presence_target,
            ws_listen=app.address.replace(":7000", ":8000"),
        )
        await svc_edge.app.build(config, app)

    return build
