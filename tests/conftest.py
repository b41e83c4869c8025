"""Fixtures of every test."""

import asyncio
import contextlib
import dataclasses
import os
import sys
from collections.abc import Container, Generator, Iterator
from pathlib import Path

import pytest
from _pytest.nodeid import NodeId
from hypothesis import settings
from xdist.remote import Producer
from xdist.scheduler import LoadGroupScheduling

from chappe.runtime.engines.cassandra import (
    DURABLE,
    THROW_AWAY,
    CassandraInstall,
    CassandraOptions,
    EmbeddedCassandra,
    EmbeddedCassandraCluster,
    cache_of,
)

_FETCH_TIMEOUT_S = 600
_SHARED = {
    "cassandra_cluster": "three-nodes",
    "cassandra": "one-node",
    "guarded_cassandra": "guarded-node",
    "system": "typed",
    "quiet_mesh": "quiet",
}
"""What costs as much to start as all tests that use it cost to run: they share a worker, wherever they stand."""
_ATTACKED = "attacked"
"""So do those that attack one system."""

# How long an example takes says something of the machine only.
settings.register_profile("chappe", deadline=None)
settings.load_profile("chappe")


class ByFile(LoadGroupScheduling):
    """Gives a worker a file after another, as they were collected, and what is marked as one group at once."""

    def _split_scope(self, nodeid: str) -> str:
        group = super()._split_scope(nodeid)
        return group if group != nodeid else nodeid.split("::", 1)[0]


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Producer) -> ByFile:
    """Returns what spreads the tests over the workers."""
    return ByFile(config, log)


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Passes over the files without tests that start processes where only those are wanted: loading them takes long."""
    if config.option.markexpr != "system" or collection_path.suffix != ".py":
        return None
    return "pytest.mark.system" not in collection_path.read_text(encoding="utf-8") or None


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Gives the tests that may have to fetch Cassandra first the time for it; the longest begin first."""
    for item in items:
        needed = getattr(item, "fixturenames", ())
        if "cassandra_install" in needed:
            item.add_marker(pytest.mark.timeout(_FETCH_TIMEOUT_S))
        # Some ask for a store by its name, as a parameter.
        shared = next((group for name, group in _SHARED.items() if name in needed or name in _chosen(item)), None)
        if shared is not None:
            item.add_marker(pytest.mark.xdist_group(shared))
        if item.path.parent.name == "bad_input":
            item.add_marker(pytest.mark.xdist_group(_ATTACKED))
        if config.getoption("loadgroup", default=False):
            _name_group(item)
    items.sort(key=_rank)


def _chosen(item: pytest.Item) -> Container[object]:
    """Returns the parameters of a test."""
    return item.callspec.params.values() if isinstance(item, pytest.Function) and hasattr(item, "callspec") else ()


def _name_group(item: pytest.Item) -> None:
    """Writes the group of a test at the end of its id, where the scheduler looks for it.

    pytest-xdist 3.8 does so too, in a place where pytest 9.2 has no id any more.
    """
    group = item.get_closest_marker("xdist_group")
    if group is not None:
        item._id = NodeId.parse(f"{item.nodeid}@{group.args[0]}")
        if not item.nodeid.endswith(f"@{group.args[0]}"):
            raise pytest.UsageError("groups of tests are no longer named by ids: look how pytest makes them now")


def _rank(item: pytest.Item) -> int:
    """Puts first what takes long, so that no worker is left alone with it at the end."""
    return 0 if item.get_closest_marker("long") or item.get_closest_marker("xdist_group") else 1


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    """Runs what is marked as untraced as it is, not as slowly as it is while a tracer counts its lines."""
    if item.get_closest_marker("untraced") is None:
        return (yield)
    tracer = sys.gettrace()
    sys.settrace(None)
    try:
        return (yield)
    finally:
        sys.settrace(tracer)


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
    """One node for all tests, which one worker runs; each keeps to a keyspace, or to ids, of its own."""
    node = EmbeddedCassandra(tmp_path_factory.mktemp("cassandra"), cassandra_install, options=THROW_AWAY)
    with started(node):
        yield node


@pytest.fixture(scope="session")
def guarded_cassandra(
    cassandra_install: CassandraInstall, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedCassandra]:
    """One node that asks for passwords, and whose batches are as small as Cassandra is shipped with."""
    options = CassandraOptions(takes_flushes=False)
    node = EmbeddedCassandra(tmp_path_factory.mktemp("guarded"), cassandra_install, options=options)
    with started(node):
        yield node


@pytest.fixture(scope="session")
def cassandra_cluster(
    cassandra_install: CassandraInstall, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedCassandraCluster]:
    """Three nodes for all tests that need them, which may kill some as long as they start them again.

    They keep no hints: one that comes back has missed everything, as after hours.
    """
    options = dataclasses.replace(DURABLE, keeps_hints=False)
    folder = tmp_path_factory.mktemp("three")
    cluster = EmbeddedCassandraCluster(folder, cassandra_install, options=options, report=print)
    with started(cluster):
        yield cluster
