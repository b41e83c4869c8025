"""Fixtures of every test."""

import asyncio
import contextlib
import os
import sys
from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from chappe.runtime.engines.cassandra import (
    THROW_AWAY,
    CassandraInstall,
    EmbeddedCassandra,
    EmbeddedCassandraCluster,
    cache_of,
)

_FETCH_TIMEOUT_S = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Gives the tests that may have to fetch Cassandra first the time for it."""
    for item in items:
        if "cassandra_install" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.timeout(_FETCH_TIMEOUT_S))


@pytest.fixture(scope="session")
def root() -> Path:
    """Returns the folder of the project."""
    return Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def cassandra_install() -> CassandraInstall:
    """Returns what starts Cassandra, fetched when it is first needed."""
    return CassandraInstall(cache_of(os.environ), report=print)


@contextlib.contextmanager
def started(engine: EmbeddedCassandra | EmbeddedCassandraCluster) -> Generator[None]:
    """Holds Cassandra up; no test's event loop lasts as long, so it is started and stopped in a loop of its own."""
    with asyncio.Runner() as runner:
        runner.run(engine.start())
        try:
            yield
        finally:
            runner.run(engine.stop())


@pytest.fixture(scope="session")
def cassandra(
    cassandra_install: CassandraInstall, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedCassandra]:
    """One node for all tests of a worker; each keeps to a keyspace, or to ids, of its own."""
    node = EmbeddedCassandra(tmp_path_factory.mktemp("cassandra"), cassandra_install, options=THROW_AWAY)
    with started(node):
        yield node


@pytest.fixture(scope="module")
def cassandra_cluster(
    cassandra_install: CassandraInstall, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedCassandraCluster]:
    """Three nodes for the tests of a module, which may kill one as long as they start it again."""
    cluster = EmbeddedCassandraCluster(tmp_path_factory.mktemp("three"), cassandra_install, report=print)
    with started(cluster):
        yield cluster


@pytest.fixture
def untraced() -> Iterator[None]:
    """Runs code as it is, not as slowly as it is while a tracer counts its lines; forked processes too."""
    tracer = sys.gettrace()
    sys.settrace(None)
    yield
    sys.settrace(tracer)
