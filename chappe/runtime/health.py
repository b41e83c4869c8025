"""Health that asks: the gRPC health service answers with what the process's own dependencies said a moment ago."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType
from typing import Any

import grpc
import grpc.aio
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chappe.runtime.clock import Clock
from chappe.runtime.tasks import Tasks

# The package's own stubs lack what belongs to List.
_PB2: Any = health_pb2

Check = Callable[[], Awaitable[object]]
"""Returns when a dependency answers; raises what is wrong otherwise."""

LIVE = "live"
READY = "ready"
SERVING: int = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING: int = health_pb2.HealthCheckResponse.NOT_SERVING
SERVICE_UNKNOWN: int = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN


class Health:
    """Knows whether the process is alive, is ready, and what each of its dependencies said.

    The service names are "live" (NOT_SERVING only when the process must be restarted), "ready" and "" (every check
    passes, and the process neither starts nor drains), and the name of each check.
    """

    def __init__(
        self, checks: Mapping[str, Check], *, clock: Clock, timeout_s: float = 2.0, interval_s: float = 1.0
    ) -> None:
        """Knows nothing good yet.

        Args:
            checks: The dependencies to ask, by name.
            clock: For waiting.
            timeout_s: How long a dependency may take to answer.
            interval_s: How long to wait between two rounds; a fifth of it while something fails.
        """
        self._checks = dict(checks)
        self._clock = clock
        self._timeout_s = timeout_s
        self._interval_s = interval_s
        self._failures: dict[str, str] = dict.fromkeys(checks, "not asked yet")
        self._why_dead = ""
        self._is_open = False
        self._is_closed = False
        self.changed = asyncio.Event()

    @property
    def failures(self) -> Mapping[str, str]:
        """What is wrong, by name; empty when everything answers. For people, logs and `chappe doctor`."""
        dead = {LIVE: self._why_dead} if self._why_dead else {}
        return MappingProxyType(self._failures | dead)

    @property
    def is_closed(self) -> bool:
        """Whether watchers must go."""
        return self._is_closed

    def add(self, name: str, check: Check) -> None:
        """Adds a dependency to ask.

        Raises:
            ValueError: The name is taken.
        """
        if name in {LIVE, READY, ""} or name in self._checks:
            raise ValueError(f"a check called {name!r} exists already: name it after the dependency and its purpose")
        self._checks[name] = check
        self._failures[name] = "not asked yet"

    def statuses(self) -> dict[str, int]:
        """Returns the status of every service name."""
        is_ready = self._is_open and not self._failures and not self._why_dead
        overall = SERVING if is_ready else NOT_SERVING
        named = {name: NOT_SERVING if name in self._failures else SERVING for name in self._checks}
        return {"": overall, READY: overall, LIVE: NOT_SERVING if self._why_dead else SERVING, **named}

    def start(self, tasks: Tasks) -> None:
        """Asks on in the background, round after round."""
        tasks.spawn(self._run(), name="health")

    def open(self) -> None:
        """Lets the process be ready, as far as its dependencies are."""
        self._is_open = True
        self._announce()

    def drain(self) -> None:
        """Makes the process not ready, for good."""
        self._is_open = False
        self._announce()

    def die(self, why: str) -> None:
        """Asks to be restarted."""
        self._why_dead = why
        self._announce()

    def close(self) -> None:
        """Sends the watchers away, so that the server can stop."""
        self._is_closed = True
        self._announce()

    async def refresh(self) -> None:
        """Asks every dependency once, all at the same time."""
        answers = await asyncio.gather(*(self._ask(check) for check in self._checks.values()))
        failures = {name: answer for name, answer in zip(self._checks, answers, strict=True) if answer}
        has_changed = failures.keys() != self._failures.keys()
        self._failures = failures
        if has_changed:
            self._announce()

    async def _ask(self, check: Check) -> str:
        try:
            async with asyncio.timeout(self._timeout_s):
                await check()
        except TimeoutError:
            return f"no answer within {self._timeout_s:g} s"
        except Exception as error:  # noqa: BLE001 - whatever a check raises means that its dependency fails
            return str(error) or type(error).__name__
        return ""

    async def _run(self) -> None:
        while True:
            await self.refresh()
            # What was missing is often back soon; a peer that starts at the same time, for one.
            await self._clock.sleep(self._interval_s / 5 if self._failures else self._interval_s)

    def _announce(self) -> None:
        self.changed.set()
        self.changed = asyncio.Event()


class HealthRpc:
    """The door of grpc.health.v1."""

    def __init__(self, health: Health) -> None:
        self._health = health

    async def Check(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: N802 - gRPC's name
        """Returns the status of a service name; NOT_FOUND for one that does not exist."""
        status = self._health.statuses().get(request.service)
        if status is None:
            known = ", ".join(repr(name) for name in self._health.statuses())
            await context.abort(grpc.StatusCode.NOT_FOUND, f"{request.service!r} is none of {known}")
        return health_pb2.HealthCheckResponse(status=status)

    async def List(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:  # noqa: ARG002, N802 - gRPC's
        """Returns the status of every service name."""
        response = _PB2.HealthListResponse()
        for name, status in self._health.statuses().items():
            response.statuses[name].status = status
        return response

    async def Watch(self, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> None:  # noqa: N802 - gRPC's name
        """Sends the status of a service name now and whenever it changes, until the process stops."""
        sent: int | None = None
        while not self._health.is_closed:
            changed = self._health.changed
            status = self._health.statuses().get(request.service, SERVICE_UNKNOWN)
            if status != sent:
                await context.write(health_pb2.HealthCheckResponse(status=status))
                sent = status
            await changed.wait()


def add_health(health: Health, server: grpc.aio.Server) -> None:
    """Serves grpc.health.v1 on a server."""
    health_pb2_grpc.add_HealthServicer_to_server(HealthRpc(health), server)
