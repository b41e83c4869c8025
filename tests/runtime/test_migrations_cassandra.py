"""The migrations of a keyspace: applied once, in order, by one process at a time, and never edited."""

import asyncio
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from chappe.runtime.app import StartError
from chappe.runtime.cassandra import Address, CassandraSession, check_driver, open_session
from chappe.runtime.engines.cassandra import EmbeddedCassandra, EmbeddedCassandraCluster
from chappe.runtime.errors import UnavailableError
from chappe.runtime.migrations import SchemaOutdatedError
from chappe.runtime.migrations_cassandra import check, migrate, statements

Write = Callable[[str, str], None]


@pytest.fixture
def address(cassandra: EmbeddedCassandra) -> Address:
    return Address((cassandra.address,))


@pytest.fixture
def keyspace() -> str:
    """Returns the name of a keyspace that is not there."""
    return f"migrated_{secrets.token_hex(4)}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Returns the schema folder of a service."""
    found = tmp_path / "svc_example" / "schema" / "cassandra"
    found.mkdir(parents=True)
    return found


@pytest.fixture
def write(folder: Path) -> Write:
    """Returns a function that writes a migration."""

    def write(name: str, script: str) -> None:
        (folder / name).write_text(script)

    write("0001_first.cql", "CREATE TABLE first (id int PRIMARY KEY); INSERT INTO first (id) VALUES (1);")
    return write


@pytest.fixture
def session(address: Address) -> Iterator[CassandraSession]:
    with open_session(address) as session:
        yield session


def rows(session: CassandraSession, query: str, keyspace: str = "") -> list[tuple[Any, ...]]:
    return list(session.driver.execute(query.format(keyspace)))


async def test_missing_files_are_applied_once_in_order(
    address: Address, keyspace: str, folder: Path, write: Write, session: CassandraSession
) -> None:
    write("0002_second.cql", "ALTER TABLE first ADD word text")

    assert await migrate(address, keyspace, folder, replicas=1) == ["0001_first.cql", "0002_second.cql"]
    assert await migrate(address, keyspace, folder, replicas=1) == []
    write("0003_third.cql", "CREATE TABLE third (id int PRIMARY KEY)")
    assert await migrate(address, keyspace, folder, replicas=1) == ["0003_third.cql"]

    assert rows(session, "SELECT id, word FROM {}.first", keyspace) == [(1, None)]


async def test_processes_that_migrate_at_once_take_turns(
    address: Address, keyspace: str, folder: Path, write: Write, session: CassandraSession
) -> None:
    write("0002_second.cql", "CREATE TABLE second (id int PRIMARY KEY)")

    applied = await asyncio.gather(*(migrate(address, keyspace, folder, replicas=1) for _ in range(3)))

    assert sorted(map(len, applied)) == [0, 0, 2]
    # The turn is given back, and leaves nothing.
    assert {name for (name,) in rows(session, "SELECT name FROM {}.schema_migrations", keyspace)} == {
        "0001_first.cql",
        "0002_second.cql",
    }


async def test_a_file_that_was_cut_short_is_finished_by_the_next_run(
    address: Address, keyspace: str, folder: Path, write: Write
) -> None:
    write("0002_second.cql", "CREATE TABLE second (id int PRIMARY KEY);\nCREATE TABLE third (id nothing PRIMARY KEY);")
    with pytest.raises(SchemaOutdatedError, match=r"0002_second\.cql failed at 'CREATE TABLE third"):
        await migrate(address, keyspace, folder, replicas=1)

    write("0002_second.cql", "CREATE TABLE second (id int PRIMARY KEY);\nCREATE TABLE third (id int PRIMARY KEY);")

    assert await migrate(address, keyspace, folder, replicas=1) == ["0002_second.cql"]


async def test_an_edited_file_is_refused_and_its_comment_may_grow(
    address: Address, keyspace: str, folder: Path, write: Write
) -> None:
    await migrate(address, keyspace, folder, replicas=1)
    write("0001_first.cql", "-- New words; about the same.\n" + (folder / "0001_first.cql").read_text())
    assert await migrate(address, keyspace, folder, replicas=1) == []

    write("0001_first.cql", "CREATE TABLE other (id int PRIMARY KEY)")

    with pytest.raises(SchemaOutdatedError, match="edited after it had been applied"):
        await migrate(address, keyspace, folder, replicas=1)


async def test_a_schema_that_is_behind_names_the_command_and_a_newer_one_is_fine(
    address: Address, keyspace: str, folder: Path, write: Write, session: CassandraSession
) -> None:
    session.driver.execute(
        f"CREATE KEYSPACE {keyspace} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': 1}}"
    )
    session.driver.set_keyspace(keyspace)
    with pytest.raises(SchemaOutdatedError, match=r"lacks 0001_first\.cql; run: python -m svc_example migrate"):
        await check(session, folder)
    write("0002_second.cql", "CREATE TABLE second (id int PRIMARY KEY)")

    await migrate(address, keyspace, folder, replicas=1)

    await check(session, folder)
    (folder / "0002_second.cql").unlink()
    await check(session, folder)


async def test_three_nodes_agree_before_a_file_counts_as_applied(
    cassandra_cluster: EmbeddedCassandraCluster, keyspace: str, folder: Path, write: Write
) -> None:
    write("0002_second.cql", "".join(f"CREATE TABLE t{number} (id int PRIMARY KEY);" for number in range(5)))

    await migrate(Address(tuple(cassandra_cluster.addresses[:1])), keyspace, folder, replicas=3)

    versions = set()
    for host in cassandra_cluster.addresses:
        with open_session(Address((host,)), keyspace=keyspace) as session:
            session.driver.execute("INSERT INTO t4 (id) VALUES (1)")
            versions.add(rows(session, "SELECT schema_version FROM system.local")[0])
            (replication,) = rows(
                session, "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = '{}'", keyspace
            )
    assert len(versions) == 1
    assert replication[0]["datacenter1"] == "3"


async def test_a_keyspace_that_is_no_name_is_refused(address: Address, folder: Path, write: Write) -> None:
    with pytest.raises(ValueError, match="use lower-case letters, digits and _"):
        await migrate(address, "x; DROP KEYSPACE system", folder, replicas=1)


async def test_a_cluster_that_does_not_answer_is_unavailable_and_named(folder: Path, write: Write) -> None:
    with pytest.raises(UnavailableError, match=r"no node of data centre datacenter1 answers at 127\.0\.0\.1:1 "):
        await migrate(Address(("127.0.0.1",), port=1), "any", folder, replicas=1)


def test_a_keyspace_that_is_not_there_is_told_with_those_that_are(address: Address, session: CassandraSession) -> None:
    session.driver.execute(
        "CREATE KEYSPACE IF NOT EXISTS somebodys "
        "WITH replication = {'class': 'SimpleStrategy', 'replication_factor': 1}"
    )

    with pytest.raises(StartError, match=r"no keyspace ledgr, it has .*somebodys.* make it by migrating"):
        open_session(address, keyspace="ledgr")


@pytest.mark.parametrize("missing", ["cassandra.io.libevwrapper", "cassandra.row_parser"])
def test_a_driver_without_its_compiled_parts_is_refused(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == missing else find(name))

    with pytest.raises(StartError, match=f"{missing} is not compiled.*pip install --force-reinstall"):
        check_driver()


def test_statements_end_at_semicolons_that_are_neither_quoted_nor_in_comments() -> None:
    script = """
        -- A comment; with one.
        CREATE TABLE a (id int PRIMARY KEY); -- and; another
        INSERT INTO a (id, word) VALUES (1, 'it''s; quoted -- not a comment'); /* more;
        lines */ DROP TABLE a // ;
    """

    assert list(statements(script)) == [
        "CREATE TABLE a (id int PRIMARY KEY)",
        "INSERT INTO a (id, word) VALUES (1, 'it''s; quoted -- not a comment')",
        "DROP TABLE a",
    ]
