"""Brings a keyspace of Cassandra up to date from numbered files, and refuses one that is behind.

There are no transactions: a file that is cut short is begun again, and what it had made before is taken as it is.
"""

import asyncio
import re
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from cassandra import AlreadyExists, DriverException, InvalidRequest
from cassandra.cluster import NoHostAvailable

from chappe.runtime.cassandra import DEPENDENCY, Address, CassandraSession, open_session, why_no_quorum
from chappe.runtime.errors import UnavailableError
from chappe.runtime.migrations import Migration, SchemaOutdatedError, command, migrations, unapplied

_KEYSPACE: Final = re.compile(r"[a-z][a-z0-9_]{0,47}")
_TABLE: Final = "CREATE TABLE IF NOT EXISTS schema_migrations (name text PRIMARY KEY, checksum blob, holder text)"
_TABLE_SETTLES_S: Final = 30.0
_AGREES_S: Final = 60.0
_DEFINES: Final = ("CREATE", "ALTER", "DROP")
_LOCK: Final = "lock"
_LOCK_S: Final = 60
_LOCK_PAUSE_S: Final = 0.5
# Of a script: what is quoted, comments, and where a statement ends.
_PART: Final = re.compile(r"'(?:[^']|'')*'|\"[^\"]*\"|\$\$.*?\$\$|(?:--|//)[^\n]*|/\*.*?\*/|;", re.DOTALL)


async def migrate(address: Address, keyspace: str, folder: Path, *, replicas: int) -> list[str]:
    """Makes the keyspace if it is missing and applies what it lacks; returns the names of the files applied.

    Idempotent; when several processes do it at once, one works and the others wait for it.
    A keyspace that is there keeps its replication.

    Args:
        address: The cluster; who makes a keyspace may have to be somebody else than who uses it.
        keyspace: Its name.
        folder: Files like `0001_ledger.cql`, whose statements name no keyspace.
        replicas: How many nodes of the local data centre hold each row of a keyspace that is made.

    Raises:
        SchemaOutdatedError: A file fails, or one that was applied has been edited since.
        UnavailableError: The cluster does not answer, or its nodes do not agree on what was made.
        ValueError: The name is not a plain lower-case identifier.
    """
    return await asyncio.to_thread(_migrate, address, keyspace, folder, replicas)


async def check(session: CassandraSession, folder: Path) -> None:
    """Returns when the keyspace of a session has everything that a folder asks for; more is allowed.

    Raises:
        SchemaOutdatedError: A file was not applied, or was edited since; names the command.
        UnavailableError: The cluster does not answer.
    """
    await asyncio.to_thread(_check, session, folder)


def statements(script: str) -> Iterator[str]:
    """Yields the statements of a script, without comments: Cassandra takes one at a time."""
    statement, start = "", 0
    for part in _PART.finditer(script):
        statement += script[start : part.start()]
        start = part.end()
        if part[0] == ";":
            yield statement.strip()
            statement = ""
        elif not part[0].startswith(("--", "//", "/*")):
            statement += part[0]
    if rest := (statement + script[start:]).strip():
        yield rest


def _migrate(address: Address, keyspace: str, folder: Path, replicas: int) -> list[str]:
    if not _KEYSPACE.fullmatch(keyspace):
        raise ValueError(f"{keyspace!r} cannot name a keyspace; use lower-case letters, digits and _, at most 48")
    wanted = migrations(folder, "cql")
    try:
        with open_session(address) as session:
            _make_keyspace(session, address, keyspace, replicas)
            if not unapplied(wanted, _applied(session)):
                return []
            holder = secrets.token_hex(8)
            _take_turn(session, holder)
            try:
                missing = unapplied(wanted, _applied(session))
                for migration in missing:
                    _apply(session, migration, holder)
            finally:
                session.driver.execute("DELETE FROM schema_migrations WHERE name = %s IF holder = %s", (_LOCK, holder))
    except (DriverException, NoHostAvailable) as error:
        why = why_no_quorum(error, address.datacenter, keyspace) or error
        raise UnavailableError(DEPENDENCY, f"the migration of {folder} stopped: {why}; then run it again") from error
    return [migration.name for migration in missing]


def _check(session: CassandraSession, folder: Path) -> None:
    wanted = migrations(folder, "cql")
    try:
        applied = _applied(session) if _has_table(session) else {}
    except (DriverException, NoHostAvailable) as error:
        raise UnavailableError(DEPENDENCY, f"the schema could not be looked at: {error}") from error
    missing = [migration.name for migration in unapplied(wanted, applied)]
    if missing:
        lacks = f"the keyspace {session.driver.keyspace} lacks {', '.join(missing)}"
        raise SchemaOutdatedError(f"{lacks}; run: {command(folder)}")


def _make_keyspace(session: CassandraSession, address: Address, keyspace: str, replicas: int) -> None:
    session.driver.execute(
        f"CREATE KEYSPACE IF NOT EXISTS {keyspace} WITH replication = "
        f"{{'class': 'NetworkTopologyStrategy', '{address.datacenter}': {replicas}}}"
    )
    # Another node may be asked to use it, and not have heard of it.
    _agree(session)
    session.driver.set_keyspace(keyspace)
    session.driver.execute(_TABLE)
    _agree(session)
    deadline_s = time.monotonic() + _TABLE_SETTLES_S
    while True:
        try:
            _applied(session)
        except InvalidRequest:
            # Made by another process a moment ago, and not known everywhere.
            if time.monotonic() > deadline_s:
                raise
            time.sleep(_LOCK_PAUSE_S)
        else:
            return


def _has_table(session: CassandraSession) -> bool:
    query = "SELECT table_name FROM system_schema.tables WHERE keyspace_name = %s AND table_name = 'schema_migrations'"
    return bool(list(session.driver.execute(query, (session.driver.keyspace,))))


def _applied(session: CassandraSession) -> dict[str, bytes]:
    rows: Any = session.driver.execute("SELECT name, checksum FROM schema_migrations")
    return {name: checksum for name, checksum in rows if checksum is not None}


def _take_turn(session: CassandraSession, holder: str) -> None:
    """Waits until nobody else migrates; a turn that is not renewed ends by itself, so a dead process blocks nobody."""
    deadline_s = time.monotonic() + 2 * _LOCK_S
    take = "INSERT INTO schema_migrations (name, holder) VALUES (%s, %s) IF NOT EXISTS USING TTL %s"
    while not session.driver.execute(take, (_LOCK, holder, _LOCK_S)).was_applied:
        if time.monotonic() > deadline_s:
            raise UnavailableError(DEPENDENCY, "another process has been migrating for long; look at it, or wait")
        time.sleep(_LOCK_PAUSE_S)


def _apply(session: CassandraSession, migration: Migration, holder: str) -> None:
    renew = "UPDATE schema_migrations USING TTL %s SET holder = %s WHERE name = %s IF holder = %s"
    # One node knows what it has made before the others do; they are waited for once.
    session.cluster.max_schema_agreement_wait = 0
    host = session.cluster.get_control_connection_host()
    for statement in statements(migration.script.decode()):
        if not session.driver.execute(renew, (_LOCK_S, holder, _LOCK, holder)).was_applied:
            raise UnavailableError(DEPENDENCY, f"{migration.name} took so long that another process took over")
        if not statement.upper().startswith(_DEFINES):
            # Rows are refused by nodes that do not know their table yet.
            _agree(session)
        try:
            session.driver.execute(statement, host=host)
        except AlreadyExists:
            # Made by a run of this file that was cut short.
            continue
        except InvalidRequest as error:
            raise SchemaOutdatedError(
                f"{migration.name} failed at {' '.join(statement.split())[:80]!r}, and what came before it was kept: "
                f"{error}; mend the file or the keyspace, run it again"
            ) from error
    _agree(session)
    session.driver.execute(
        "INSERT INTO schema_migrations (name, checksum) VALUES (%s, %s)", (migration.name, migration.checksums[0])
    )


def _agree(session: CassandraSession) -> None:
    if not session.cluster.control_connection.wait_for_schema_agreement(wait_time=_AGREES_S):
        raise UnavailableError(
            DEPENDENCY, f"the nodes did not agree on the schema within {_AGREES_S:g} s; run it again"
        )
