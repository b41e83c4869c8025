"""The stores in which a run may keep its messages, each with the faults that only it knows."""

import os
from collections.abc import Callable, Iterator, Mapping
from typing import Final, NamedTuple

import psutil

from tests.nemesis.faults import FROZEN_S, OUTAGE_S, Fault
from tests.nemesis.wiring import Wiring


class Ledger(NamedTuple):
    """One kind of store."""

    name: str
    """As the launcher calls it."""
    faults: Callable[[Wiring], Iterator[Fault]]
    """What can be done to its nodes beyond what is done to PostgreSQL and Valkey, which are always there."""

    @property
    def environ(self) -> Mapping[str, str]:
        """The environment of the services, without the settings of whoever runs the tests."""
        return {name: value for name, value in os.environ.items() if not name.startswith("CHAPPE_")}


def _no_more(_wiring: Wiring) -> Iterator[Fault]:
    yield from ()


def _one_node(wiring: Wiring) -> Iterator[Fault]:
    mesh = wiring.mesh

    def node() -> psutil.Process:
        return psutil.Process(mesh.engines["cassandra"].pid)

    async def freeze() -> None:
        node().suspend()

    async def thaw() -> None:
        node().resume()

    yield Fault(
        "ledger", "kill -9 cassandra", OUTAGE_S, lambda: mesh.kill("cassandra"), lambda: mesh.restart("cassandra")
    )
    yield Fault("ledger", "SIGSTOP cassandra", FROZEN_S, freeze, thaw)


LEDGERS: Final[Mapping[str, Ledger]] = {
    "postgres": Ledger("postgres", _no_more),
    "cassandra": Ledger("cassandra", _one_node),
}
