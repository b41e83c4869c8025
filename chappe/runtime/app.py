"""What a service is made of, in the order in which it starts and stops."""

import asyncio
import logging
import os
import resource
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Self, TypeVar

import grpc
import grpc.aio
from google.protobuf import descriptor_pool
from grpc_reflection.v1alpha import reflection

import chappe
from chappe.runtime import channels, contract
from chappe.runtime.clock import Seams
from chappe.runtime.config import ServerSettings
from chappe.runtime.health import Check, Health, add_health
from chappe.runtime.interceptors import DoorInterceptor, Gate, Identify, Realm
from chappe.runtime.metrics import SECONDS, Histogram, Metrics, MetricsServer
from chappe.runtime.pki import TlsFiles
from chappe.runtime.tasks import Tasks, watch_delay
from chappe.runtime.telemetry import Resource, Telemetry
from chappe.runtime.tls import server_credentials

_log = logging.getLogger(__name__)
_Part = TypeVar("_Part")
Register = Callable[[Any, Any], None]
"""A generated function like add_MessageServiceServicer_to_server."""


class StartError(Exception):
    """Says why a process cannot start, and what to do; shown to people without a traceback."""


class App:
    """One service: stores, then peers, then doors, then SERVING; and back, politely.

    Use it as an async context manager: build the parts, `start`, wait for `ended`, leave. Leaving says NOT_SERVING,
    runs the drain hooks and waits for calls, both within `drain_s`, then closes peers, cancels the tasks and closes
    the stores.
    While building, `tls` is the certificate for channels (None only in tests), `address` where the gRPC server is
    bound, `addresses` what the ready line says, and `tasks`, `metrics`, `telemetry`, `health`, `seams`, `peer_name`
    and `boot_id` are there to be used.
    """

    def __init__(
        self,
        service: str,
        settings: ServerSettings,
        *,
        seams: Seams,
        identify: Identify | None = None,
        watchers: Sequence[grpc.aio.ServerInterceptor] = (),
    ) -> None:
        """Makes an app that holds nothing yet.

        Args:
            service: The service's name without its prefix, like "message".
            settings: What every service lets an operator set.
            seams: Time and randomness.
            identify: Reads who a peer is, for tests without certificates; from the peer's certificate otherwise.
            watchers: Stand outside the door, for tests: they see whatever leaves the service.
        """
        self.service = service
        self.settings = settings
        self.seams = seams
        self.peer_name = settings.peer_name or f"{socket.gethostname()}-{os.getpid()}"
        # Names this start of the process on every stream.
        self.boot_id = seams.randomness.nonzero_u64()
        self.tasks = Tasks(self._task_crashed)
        self.metrics = Metrics(f"chappe_{service}")
        self.telemetry = Telemetry(seams.randomness, settings.trace_sample_ratio)
        self.health = Health({}, clock=seams.clock)
        self._loop_delay = Histogram(SECONDS)
        self.ended = asyncio.Event()
        self.exit_code = 0
        self.addresses: dict[str, str] = {}
        self.tls = _tls_files(settings)
        self.address = ""
        self._identify = identify
        self._watchers = watchers
        self._services: list[str] = []
        self._hooks: list[Callable[[], Awaitable[object]]] = []
        self._pending: list[AbstractAsyncContextManager[Any]] = []
        self._stores, self._peers, self._listeners = AsyncExitStack(), AsyncExitStack(), AsyncExitStack()
        self._limit: asyncio.Timeout | None = None
        self._server: grpc.aio.Server
        self._probes: grpc.aio.Server | None = None

    async def __aenter__(self) -> Self:
        settings = self.settings
        realm = Realm(settings.trust_domain, settings.namespace, settings.internal_callers)
        door = DoorInterceptor(Gate(realm, self._identify), self.telemetry.new_trace_id)
        _add_metrics(self.metrics, door)
        self.metrics.histogram("loop_delay_seconds", "How late the event loop was, twice a second.", self._loop_delay)
        self._server = grpc.aio.server(interceptors=[*self._watchers, door], options=channels.server_options())
        credentials = None if self._identify and not self.tls else _credentials(self.service, self.tls)
        self.address = self.addresses["address"] = _bind(self._server, settings.listen, credentials)
        if settings.otlp_endpoint or settings.trace_file:
            named = Resource(f"svc_{self.service}", self.peer_name, chappe.__version__)
            self.telemetry.connect(named, self.metrics, endpoint=settings.otlp_endpoint, file=settings.trace_file)
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.ended.set()
        self.health.drain()
        try:
            await self._drain()
        finally:
            # Each step runs whatever became of the one before it; the last pushed comes first.
            async with AsyncExitStack() as steps:
                steps.push_async_callback(asyncio.to_thread, self.telemetry.close)
                steps.push_async_callback(self._stores.aclose)
                steps.push_async_callback(self.tasks.aclose)
                # While the tasks still run: the streams to peers need their readers for a polite end.
                steps.push_async_callback(self._peers.aclose)
                if self._probes is not None:
                    steps.push_async_callback(self._probes.stop, None)
                steps.push_async_callback(self._server.stop, None)
                steps.push_async_callback(self._listeners.aclose)

    async def add_store(
        self, store: AbstractAsyncContextManager[_Part], *, name: str, check: Check | None = None
    ) -> _Part:
        """Opens a store and returns what its context manager gives; closed after everything else.

        Args:
            store: Opens and closes it.
            name: Of the store in health, like "postgres".
            check: Asks whether it answers; none leaves it out of health.
        """
        if check is not None:
            self.health.add(name, check)
        return await self._stores.enter_async_context(store)

    async def add_peer(
        self, peer: AbstractAsyncContextManager[_Part], *, name: str, check: Check | None = None
    ) -> _Part:
        """Opens what reaches another service and returns what its context manager gives; closed before the stores."""
        if check is not None:
            self.health.add(name, check)
        return await self._peers.enter_async_context(peer)

    def add_door(self, register: Register, servicer: object) -> None:
        """Adds a gRPC service.

        Args:
            register: The generated function, like message_service_pb2_grpc.add_MessageServiceServicer_to_server.
            servicer: What answers.
        """
        register(servicer, _Recorder(self._server, self._services))

    def add_listener(self, listener: AbstractAsyncContextManager[Any]) -> None:
        """Adds another door, like a WebSocket listener; opened at `start`, closed once the drain hooks have run."""
        self._pending.append(listener)

    def on_drain(self, hook: Callable[[], Awaitable[object]]) -> None:
        """Adds what says goodbye to peers when the process stops; all hooks run at the same time, within `drain_s`."""
        self._hooks.append(hook)

    async def start(self) -> None:
        """Opens the doors, and is ready once every dependency answers.

        Raises:
            ContractError: A method of a door does not say who may call it.
            StartError: An address cannot be listened on.
        """
        pool = descriptor_pool.Default()
        contract.check_services(pool.FindServiceByName(name) for name in self._services)
        add_health(self.health, self._server)
        if self.settings.may_reflect:
            names = [*self._services, "grpc.health.v1.Health", reflection.SERVICE_NAME]
            reflection.enable_server_reflection(names, self._server)
        await self._server.start()
        for listener in self._pending:
            await self._listeners.enter_async_context(listener)
        await self._start_probes()
        # Only now, or two services that ask each other would both wait for the other's door.
        await self.health.refresh()
        self.health.start(self.tasks)
        self.tasks.spawn(watch_delay(self._loop_delay), name="loop delay")
        self.health.open()

    def fail(self, why: str) -> None:
        """Asks the process to stop with exit code 1, because it can no longer do its work."""
        _log.critical("svc_%s stops: %s", self.service, why)
        self.exit_code = 1
        self.health.die(why)
        self.ended.set()

    def hurry(self) -> None:
        """Cuts a drain short."""
        if self._limit is not None:
            self._limit.reschedule(asyncio.get_running_loop().time())

    def _task_crashed(self, name: str, error: BaseException) -> None:
        # A task that trips over what is being closed changes nothing any more; Tasks has logged it.
        if not self.ended.is_set():
            self.fail(f"task {name} crashed: {error!r}")

    async def _start_probes(self) -> None:
        settings = self.settings
        if settings.health_listen:
            # Without it gRPC takes a port that another process of this user listens on, and shares what comes.
            self._probes = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
            self.addresses["health"] = _bind(self._probes, settings.health_listen, None)
            add_health(self.health, self._probes)
            await self._probes.start()
        if settings.metrics_listen:
            metrics = MetricsServer(settings.metrics_listen, self.metrics, lambda: self.health.failures)
            # Closed with the stores, so that a drain can be watched.
            await self._stores.enter_async_context(metrics)
            self.addresses["metrics"] = metrics.address

    async def _drain(self) -> None:
        try:
            async with asyncio.timeout(self.settings.drain_s) as self._limit:
                _log.info("svc_%s drains, for at most %g s", self.service, self.settings.drain_s)
                results = await asyncio.gather(*(hook() for hook in self._hooks), return_exceptions=True)
                for error in filter(None, results):
                    if isinstance(error, Exception):
                        _log.error("a drain hook failed", exc_info=error)
                self.health.close()
                await self._listeners.aclose()
                await self._server.stop(self.settings.drain_s)
        except TimeoutError:
            _log.warning("svc_%s did not drain in time: what is still open is cut off", self.service)
        finally:
            self._limit = None
            self.health.close()


class _Recorder:
    """Stands for the server while a door is added, to learn the names of its services."""

    def __init__(self, server: grpc.aio.Server, names: list[str]) -> None:
        self._server = server
        self._names = names

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """Adds handlers by path."""
        self._server.add_generic_rpc_handlers(handlers)

    def add_registered_method_handlers(self, service_name: str, handlers: Any) -> None:
        """Adds handlers by name."""
        self._names.append(service_name)
        self._server.add_registered_method_handlers(service_name, handlers)


def _tls_files(settings: ServerSettings) -> TlsFiles | None:
    cert, key, ca = settings.tls_cert_file, settings.tls_key_file, settings.tls_ca_file
    return None if cert is None or key is None or ca is None else TlsFiles(cert=cert, key=key, ca=ca)


def _credentials(service: str, files: TlsFiles | None) -> grpc.ServerCredentials:
    if files is not None:
        return server_credentials(files)
    prefix = f"CHAPPE_{service.upper()}_TLS_"
    raise StartError(
        f"there is no certificate, and the mesh speaks mutual TLS only: set {prefix}CERT_FILE, {prefix}KEY_FILE "
        f"and {prefix}CA_FILE; `chappe up` makes them for development"
    )


def _bind(server: grpc.aio.Server, listen: str, credentials: grpc.ServerCredentials | None) -> str:
    try:
        host, _ = channels.split_address(listen)
        port = server.add_secure_port(listen, credentials) if credentials else server.add_insecure_port(listen)
    except (RuntimeError, ValueError) as error:
        raise StartError(f"cannot listen on {listen}: {error}; is another process there?") from error
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _add_metrics(metrics: Metrics, door: DoorInterceptor) -> None:
    counters = door.counters
    metrics.table("calls", "RPCs that were begun, by method.", "method", lambda: counters.calls)
    metrics.table("call_seconds", "Seconds that unary RPCs took, by method.", "method", lambda: counters.seconds)
    metrics.table("refusals", "RPCs that were refused, by reason.", "reason", lambda: counters.refusals)
    metrics.counter("bugs", "RPCs that ended with INTERNAL.", lambda: counters.bugs)
    metrics.counter("cpu_seconds", "CPU time of the process, seconds.", time.process_time)
    metrics.gauge("resident_peak_bytes", "The most memory that the process has held.", _peak_bytes)


def _peak_bytes() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024.0
