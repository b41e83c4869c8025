"""The stores in which a run may keep its messages, each with the faults that only it knows."""

import dataclasses
import os
import random
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import psutil

from chappe.cli.launcher import Plan
from chappe.runtime import migrations_cassandra
from chappe.runtime.cassandra import Address
from chappe.runtime.engines.cassandra import (
    DURABLE,
    PORT,
    CassandraInstall,
    EmbeddedCassandra,
    EmbeddedCassandraCluster,
    cache_of,
)
from svc_message.adapters.ledger_cassandra import SCHEMA
from tests.nemesis.faults import FROZEN_S, OUTAGE_S, Fault, Step
from tests.nemesis.wire import Wire
from tests.nemesis.wiring import Cable, Wiring
from tests.system.deaths import Death

TOLD: Final = "127.1"
"""Where clients are told to find the nodes of a cluster: there are wires."""
KEYSPACE: Final = "chappe_ledger"

Harms = Callable[[Wiring, random.Random], Iterator[Fault]]


class Stand(NamedTuple):
    """Where the messages of one run are kept."""

    engine: str = "postgres"
    """What the launcher starts for them; it starts PostgreSQL and Valkey in any case."""
    settings: Mapping[str, str] = {}
    """What the services are told of a store that the launcher does not start."""
    cables: tuple[Cable, ...] = ()
    """The lines to that store."""
    harms: Harms = lambda _wiring, _lots: iter(())
    """What can be done to its nodes beyond what is done to PostgreSQL, to Valkey and to lines."""
    deaths: tuple[Death, ...] = ()
    """Of nodes that have others beside them."""

    def of(self, plan: Plan) -> Plan:
        """Returns a plan for services that keep their messages here."""
        # Without the settings of whoever runs the tests.
        environ = {name: value for name, value in os.environ.items() if not name.startswith("CHAPPE_")}
        return dataclasses.replace(
            plan, ledger=self.engine, settings={**plan.settings, **self.settings}, environ=environ
        )


class Ledger(NamedTuple):
    """One kind of store."""

    name: str
    stand: Callable[[Path], AbstractAsyncContextManager[Stand]]
    """Holds one up, as far as the launcher does not, in a folder that does not exist yet."""


@asynccontextmanager
async def _postgres(_folder: Path) -> AsyncGenerator[Stand]:
    yield Stand()


@asynccontextmanager
async def _one_node(_folder: Path) -> AsyncGenerator[Stand]:
    def harms(wiring: Wiring, _lots: random.Random) -> Iterator[Fault]:
        mesh = wiring.mesh
        node = mesh.foundation.cassandra
        assert node is not None
        yield Fault(
            "ledger", "kill -9 cassandra", OUTAGE_S, lambda: mesh.kill("cassandra"), lambda: mesh.restart("cassandra")
        )
        yield _frozen("cassandra", node)

    yield Stand("cassandra", harms=harms)


@asynccontextmanager
async def _three_nodes(folder: Path) -> AsyncGenerator[Stand]:
    """Holds up three nodes with three replicas of each row, which keep nothing for one that is away.

    A node that comes back so stands like one that was away for hours, for longer than hints are kept.
    """
    options = dataclasses.replace(DURABLE, keeps_hints=False, told_network=TOLD)
    cluster = EmbeddedCassandraCluster(folder, CassandraInstall(cache_of(os.environ)), options=options)
    async with cluster, AsyncExitStack() as stack:
        wires = [
            await stack.enter_async_context(Wire("message-cassandra", _at(node), (node.told_address, PORT)))
            for node in cluster.nodes
        ]
        address = Address(tuple(node.told_address for node in cluster.nodes))
        await migrations_cassandra.migrate(address, KEYSPACE, SCHEMA, replicas=cluster.size)
        told = {"LEDGER": "cassandra", "CASSANDRA_HOSTS": ",".join(address.hosts), "CASSANDRA_KEYSPACE": KEYSPACE}

        deaths = tuple(
            Death(f"cassandra-{number}", node.kill, _whole(cluster, node)) for number, node in enumerate(cluster.nodes)
        )

        def harms(_wiring: Wiring, lots: random.Random) -> Iterator[Fault]:
            for whom, kill, restart in deaths:
                yield Fault("ledger", f"kill -9 {whom}", OUTAGE_S, kill, restart, is_spared=True)
            number = lots.randrange(cluster.size)
            yield _frozen(f"cassandra-{number}", cluster.nodes[number])

        settings = {f"CHAPPE_MESSAGE_{name}": value for name, value in told.items()}
        yield Stand(settings=settings, cables=(Cable("message-cassandra", tuple(wires)),), harms=harms, deaths=deaths)


def _at(node: EmbeddedCassandra) -> Callable[[], tuple[str, int]]:
    return lambda: (node.address, PORT)


def _whole(cluster: EmbeddedCassandraCluster, node: EmbeddedCassandra) -> Step:
    async def start() -> None:
        await node.start()
        await cluster.until_whole()

    return start


def _frozen(name: str, node: EmbeddedCassandra) -> Fault:
    async def freeze() -> None:
        psutil.Process(node.pid).suspend()

    async def thaw() -> None:
        psutil.Process(node.pid).resume()

    return Fault("ledger", f"SIGSTOP {name}", FROZEN_S, freeze, thaw)


LEDGERS: Final[Mapping[str, Ledger]] = {
    "postgres": Ledger("postgres", _postgres),
    "cassandra": Ledger("cassandra", _one_node),
    "cassandra-3": Ledger("cassandra-3", _three_nodes),
}
