"""Runs PostgreSQL 18 from a Python wheel, tuned for durability first and two cores second."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final
from urllib.parse import quote

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from chappe.runtime.engines.binaries import is_reachable, postgres_install, reachable_install
from chappe.runtime.engines.engine import Engine
from chappe.runtime.engines.folders import password_of, private_folder
from chappe.runtime.engines.process import EngineError, read_pid, stepped, stop_orphan

_ADMINISTRATOR: Final = "chappe"
_UNPRIVILEGED_UID: Final = 65534
_SOCKET_PORT: Final = 5432
_MAJOR: Final = "18"
_NAME: Final = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_DATABASES_LOCK: Final = int.from_bytes(b"chappedb")
_MEMORY_TRIES: Final = 100
_MEMORY_PAUSE_S: Final = 0.05

SETTINGS: Final = {
    # An acknowledged message is on disk: these three are the product and are not for sale.
    "fsync": "on",
    "synchronous_commit": "on",
    "full_page_writes": "on",
    # After a crash it syncs what it has before it recovers: by one call and not one for each of a thousand files, for
    # which a busy machine takes seconds.
    "recovery_init_sync_method": "syncfs",
    # Two cores, short transactions, many writers of small rows.
    "commit_delay": "0",
    "wal_compression": "off",
    "wal_buffers": "16MB",
    "max_wal_size": "2GB",
    "checkpoint_timeout": "15min",
    "shared_buffers": "128MB",
    "max_connections": "60",
    "jit": "off",
    "max_parallel_workers_per_gather": "0",
    "autovacuum_max_workers": "2",
    "autovacuum_naptime": "20s",
    "unix_socket_permissions": "0700",
    "log_checkpoints": "off",
    "log_timezone": "UTC",
    "timezone": "UTC",
}
"""Given on the command line, so that no file in the data folder can weaken them."""


class EmbeddedPostgres(Engine):
    """One PostgreSQL 18 cluster in a folder.

    Over the socket every role is trusted, which is why its folder is private; over TCP a password is asked.
    As root the server runs as uid 65534 (or as the owner of an existing cluster); the data stays where it was
    asked for, even under a private home, since the server enters the folder before it drops root.
    """

    name = "PostgreSQL"
    # Fast shutdown; SIGTERM would wait for open sessions.
    stop_signal = signal.SIGINT

    @property
    def dsn(self) -> str:
        """The administrator's address over the Unix socket; the same after every restart."""
        host, port = quote(str(self._socket_folder)), self._port or _SOCKET_PORT
        return f"postgresql://{_ADMINISTRATOR}@/postgres?host={host}&port={port}"

    @property
    def tcp_dsn(self) -> str:
        """The administrator's address over TCP, password included."""
        if self._port is None:
            raise EngineError("this PostgreSQL has no TCP port; give EmbeddedPostgres(port=...)")
        return f"postgresql://{_ADMINISTRATOR}:{password_of(self._folder)}@127.0.0.1:{self._port}/postgres"

    async def _run(self) -> None:
        cluster = self._folder / "cluster"
        uid = _server_uid(cluster)
        install = reachable_install(postgres_install(), uid)
        if not cluster.exists():
            await asyncio.to_thread(_make_cluster, install, cluster, uid)
        _refuse_other_version(cluster)
        await _clear_earlier_run(cluster, self.stop_s)
        self._make_socket_folder(f".s.PGSQL.{self._port or _SOCKET_PORT}", uid)
        command = (str(install / "bin" / "postgres"), "-D", _data_argument(cluster, uid), *self._settings())
        for _ in range(_MEMORY_TRIES):
            try:
                await self._spawn(command, cluster, uid)
                return await self._set_password()
            except EngineError as error:
                # Backends of a killed server need some milliseconds to notice and let go of its memory.
                if "pre-existing shared memory block" not in str(error):
                    raise
                await asyncio.sleep(_MEMORY_PAUSE_S)
        raise EngineError(f"processes of an earlier PostgreSQL still use {cluster}; stop them: fuser -v {cluster}")

    async def _set_password(self) -> None:
        """Lets the administrator in over TCP; done at every start, so a lost password file mends itself."""
        if self._port is not None:
            change = sql.SQL("ALTER ROLE {} PASSWORD {}")
            role, password = sql.Identifier(_ADMINISTRATOR), sql.Literal(password_of(self._folder))
            async with await psycopg.AsyncConnection.connect(self.dsn, autocommit=True) as connection:
                await connection.execute(change.format(role, password))

    def _settings(self) -> list[str]:
        settings = SETTINGS | {
            "port": str(self._port or _SOCKET_PORT),
            "listen_addresses": "" if self._port is None else "127.0.0.1",
            "unix_socket_directories": str(self._socket_folder),
        }
        return [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]

    async def _answers(self) -> bool:
        try:
            async with await psycopg.AsyncConnection.connect(self.dsn, connect_timeout=5):
                return True
        except psycopg.OperationalError:
            return False


async def databases(dsn: str, names: Iterable[str]) -> dict[str, str]:
    """Makes missing databases, each owned by a role of the same name that alone may connect to it.

    Idempotent, and safe when several processes do it at once. If ``dsn`` has a password, the roles get it.

    Args:
        dsn: an administrator's address.
        names: lower-case names, for example ``svc_message``.

    Returns:
        The address of each database, as its own role.

    Raises:
        EngineError: if a name is not a plain lower-case identifier.
    """
    parts = conninfo_to_dict(dsn)
    password = str(parts.get("password") or "")
    made: dict[str, str] = {}
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        # Catalogue changes of two sessions collide with errors of many kinds: take turns until we disconnect.
        await connection.execute("SELECT pg_advisory_lock(%s)", (_DATABASES_LOCK,))
        for name in names:
            await _make_database(connection, name, password)
            login = f"{name}:{quote(password, safe='')}" if password else name
            host, port = quote(str(parts["host"])), parts.get("port") or _SOCKET_PORT
            made[name] = f"postgresql://{login}@/{name}?host={host}&port={port}"
    return made


async def _make_database(connection: psycopg.AsyncConnection, name: str, password: str) -> None:
    if not _NAME.fullmatch(name):
        raise EngineError(f"{name!r} cannot name a database; use lower-case letters, digits and _, at most 63")
    role = sql.Identifier(name)
    found = await connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", (name,))
    if await found.fetchone() is None:
        await connection.execute(sql.SQL("CREATE ROLE {} LOGIN").format(role))
    if password:
        change = sql.SQL("ALTER ROLE {} PASSWORD {}").format(role, sql.Literal(password))
        await connection.execute(change)
    found = await connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (name,))
    if await found.fetchone() is None:
        await connection.execute(sql.SQL("CREATE DATABASE {} OWNER {}").format(role, role))
    await connection.execute(sql.SQL("REVOKE CONNECT ON DATABASE {} FROM PUBLIC").format(role))


def _server_uid(cluster: Path) -> int | None:
    """Picks the user to drop to: PostgreSQL refuses root, and an existing cluster must be its owner's."""
    if os.geteuid() != 0:
        return None
    owner = cluster.stat().st_uid if cluster.exists() else 0
    return owner or _UNPRIVILEGED_UID


def _data_argument(cluster: Path, uid: int | None) -> str:
    if is_reachable(cluster, uid):
        return str(cluster)
    if sys.platform == "linux":
        # The kernel follows this link without walking the private parents; the working directory was
        # entered as root.
        return "/proc/self/cwd"
    raise EngineError(f"uid {uid} cannot walk to {cluster}; give a data folder outside private homes")


def _make_cluster(install: Path, cluster: Path, uid: int | None) -> None:
    """Makes a cluster beside its final place, so that a crash half-way leaves nothing that looks whole."""
    draft = cluster.with_name("cluster.draft")
    shutil.rmtree(draft, ignore_errors=True)
    private_folder(draft, uid)
    command = (
        *(str(install / "bin" / "initdb"), "-D", _data_argument(draft, uid), "-U", _ADMINISTRATOR),
        *("-E", "UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
        # As after a crash, see the settings.
        *("--auth-local=trust", "--auth-host=scram-sha-256", "--sync-method=syncfs"),
    )
    made = subprocess.run(  # noqa: S603 - our own argv, no shell
        stepped(command, uid),
        capture_output=True,
        text=True,
        check=False,
        cwd=draft,
        env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
    )
    if made.returncode != 0:
        raise EngineError(f"initdb failed in {draft}:\n{made.stderr.strip()}\nMend what it names and start again.")
    draft.rename(cluster)


def _refuse_other_version(cluster: Path) -> None:
    try:
        version = (cluster / "PG_VERSION").read_text(encoding="utf-8").strip()
    except OSError as error:
        raise EngineError(
            f"{cluster} is no readable PostgreSQL cluster ({error}); move it away, or start as its owner"
        ) from error
    if version != _MAJOR:
        raise EngineError(f"{cluster} was made by PostgreSQL {version}, this is {_MAJOR}; dump it there, load it here")


async def _clear_earlier_run(cluster: Path, stop_s: float) -> None:
    """Stops what an earlier launcher left running, and unlinks a pid file whose pid is now a stranger's."""
    pid_file = cluster / "postmaster.pid"
    pid = read_pid(pid_file)
    await stop_orphan(pid, cluster, EmbeddedPostgres.stop_signal, stop_s)
    # We hold the folder's lock and nobody serves it; the server's own check would mistake the stranger for
    # itself. Backends that still hold shared memory are found by the folder's inode, not by this file.
    pid_file.unlink(missing_ok=True)
