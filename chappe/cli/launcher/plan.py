"""What is to be started, and on which ports."""

import itertools
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import Final

from chappe.runtime.engines.cassandra import CassandraOptions
from chappe.runtime.engines.ports import bound, is_free

SERVICES: Final = ("identity", "message", "presence", "fanout", "edge")
"""The services, in the order in which they are started; names are without the prefix svc_."""
STOP_ORDER: Final = ("edge", "message", "fanout", "presence", "identity")
"""From the clients inwards, so that what was taken in is carried through."""
LEDGERS: Final = ("postgres", "cassandra")
"""The engines that may keep the ledger."""
MOST_REPLICAS: Final = 20

_GRPC_OFFSET: Final = 100
METRICS_OFFSET: Final = 100
"""A process has its metrics so far behind its gRPC port."""
_BLOCK: Final = _GRPC_OFFSET + METRICS_OFFSET + MOST_REPLICAS * len(SERVICES)
# Below the range from which kernels take ports for outgoing connections.
_CHOICES: Final = range(10_000, 32_000, _BLOCK + 1)
_HIGHEST_PORT: Final = 65_535


def metrics_url(grpc_address: str) -> str:
    """Returns where the metrics of a process are, by the address of its gRPC server."""
    host, _, port = grpc_address.rpartition(":")
    return f"http://{host}:{int(port) + METRICS_OFFSET}/metrics"


class LaunchError(Exception):
    """The system cannot be started or a part of it did not come up; the message says what to do."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Plan:
    """What to start, and how."""

    data: Path
    """Where everything is kept between runs: engines, certificates, secrets, logs."""
    port: int = 0
    """The first edge's WebSocket port; further edges take the next ones, services those from port + 100 on, and their
    metrics those from port + 200 on.
    Zero takes a free block of ports, a different one in every process."""
    edges: int = 0
    """How many edges; zero for as many as `replicas`."""
    replicas: int = 1
    """How many processes of every service."""
    ledger: str = "postgres"
    """The engine that keeps the ledger; the directory is in PostgreSQL in any case."""
    cassandra: CassandraOptions | None = None
    """How Cassandra is run, where it keeps the ledger; as it is by default if none."""
    settings: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Variables for the services, like CHAPPE_MESSAGE_LOG_LEVEL; they win over the launcher's own."""
    environ: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """The environment that services inherit."""
    module: str = "svc_{}"
    """The module of a service; the braces stand for its name."""
    ready_timeout_s: float = 30.0
    """How long a service may take until it answers."""
    is_traced: bool = True
    """Whether every message is traced into `traces` in the data folder, where `chappe trace` finds it."""
    drain_s: float = 2.0
    """How long a stopping service waits for its streams and calls to end."""

    def __post_init__(self) -> None:
        for name, count in (("edges", self.edges), ("replicas", self.replicas)):
            if not 0 <= count <= MOST_REPLICAS:
                raise LaunchError(f"--{name} is {count}; there may be 1 to {MOST_REPLICAS} of a service")
        if self.ledger not in LEDGERS:
            raise LaunchError(f"--ledger is {self.ledger}; there are {' and '.join(LEDGERS)}")
        if not 0 <= self.port <= _HIGHEST_PORT - _BLOCK:
            raise LaunchError(f"--port is {self.port}; the highest is {_HIGHEST_PORT - _BLOCK}, since others follow it")

    def count(self, service: str) -> int:
        """Returns how many processes of a service there are."""
        return (self.edges or self.replicas) if service == "edge" else self.replicas


class Ports:
    """The ports of one system, a block that starts at the first edge's WebSocket port."""

    def __init__(self, plan: Plan) -> None:
        """Prepares; the ports are known once they are taken."""
        self._plan = plan
        self._claim: socket.socket | None = None
        self.first = plan.port

    def take(self) -> None:
        """Looks whether the ports are free, after having chosen a block if the plan names none.

        Raises:
            LaunchError: One is taken; the message names it.
        """
        if not self.first:
            self.first = self._choose()
        elif self._claim is None:
            self._refuse_taken()

    def ws(self, number: int) -> int:
        """Returns the WebSocket port of an edge; edges count from zero."""
        return self.first + number

    def grpc(self, service: str, number: int) -> int:
        """Returns the gRPC port of a service's process."""
        return self.first + _GRPC_OFFSET + MOST_REPLICAS * SERVICES.index(service) + number

    def metrics(self, service: str, number: int) -> int:
        """Returns the port at which the metrics of a service's process are."""
        return self.grpc(service, number) + METRICS_OFFSET

    def close(self) -> None:
        """Gives a chosen block back to other launchers."""
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def _all(self) -> Iterator[tuple[str, int]]:
        for number in range(self._plan.count("edge")):
            yield "WebSockets of svc_edge", self.ws(number)
        for service in SERVICES:
            for number in range(self._plan.count(service)):
                yield f"svc_{service}", self.grpc(service, number)
                yield f"the metrics of svc_{service}", self.metrics(service, number)

    def _choose(self) -> int:
        start = os.getpid() % len(_CHOICES)
        for first in itertools.chain(_CHOICES[start:], _CHOICES[:start]):
            self.first = first
            # Held for as long as the system runs: other launchers on this machine pass the block over.
            self._claim = bound(first + _BLOCK)
            if self._claim is not None and all(map(is_free, (port for _, port in self._all()))):
                return first
            self.close()
        raise LaunchError("no block of free ports is left between 10000 and 32000; name one that is free: --port")

    def _refuse_taken(self) -> None:
        other = self.first + 1000 if self.first + 1000 <= _HIGHEST_PORT - _BLOCK else self.first - 1000
        for owner, port in self._all():
            if not is_free(port):
                raise LaunchError(
                    f"port {port} (for {owner}) is taken by another program, perhaps another `chappe up`: "
                    f"stop that one, or take other ports with --port {other}"
                )
