"""Brings the schema of a PostgreSQL database up to date from numbered files, and refuses one that is behind."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import AsyncConnection

from chappe.runtime.errors import ChappeError, UnavailableError

_NAME: Final = re.compile(r"(\d{4})_[a-z0-9_]+")
_CONNECT_TIMEOUT_S: Final = 5
# Any number would do, as long as every replica uses the same: the ASCII of "chappe".
_LOCK: Final = int.from_bytes(b"chappe", "big")
_TABLE: Final = """
    CREATE TABLE IF NOT EXISTS schema_migrations (
        name text PRIMARY KEY,
        checksum bytea NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT clock_timestamp()
    )
"""

Connection = AsyncConnection[tuple[Any, ...]]


class SchemaOutdatedError(ChappeError):
    """Refuses to work on a schema that is not the program's; says what to run."""

    code = "FAILED_PRECONDITION"
    reason = "SCHEMA_OUTDATED"


class Migration(NamedTuple):
    """One numbered file, applied once and whole."""

    name: str
    """The file's name, for example `0001_messages.sql`."""
    script: bytes
    checksums: tuple[bytes, ...]
    """By which it counts as applied; the first is recorded."""


def migrations(folder: Path, suffix: str = "sql") -> list[Migration]:
    """Reads the migrations of a folder, in the order of their numbers.

    Args:
        folder: a service's `schema`, or a folder in it.
        suffix: the end of their names, which tells their language.

    Raises:
        ValueError: If a name is not four digits and a word, or the numbers are not 1, 2, 3 and so on.
    """
    found: list[Migration] = []
    for number, path in enumerate(sorted(folder.glob(f"*.{suffix}")), start=1):
        match = _NAME.fullmatch(path.stem)
        if match is None or int(match[1]) != number:
            raise ValueError(
                f"{path}: call it {number:04d}_<lower_case_words>.{suffix}; numbers have no gap and no double"
            )
        script = path.read_bytes()
        found.append(Migration(path.name, script, _checksums(script)))
    if not found:
        first = f"0001_<lower_case_words>.{suffix}"
        raise ValueError(f"{folder} holds no migrations; a schema folder has {first} and so on")
    return found


async def migrate(dsn: str, folder: Path) -> list[str]:
    """Applies what is missing, each file in a transaction of its own; returns the names of the files applied.

    Idempotent; when several processes do it at once, one works and the others wait for it.
    What is in the database and not in the folder comes from a newer program and is left alone.

    Raises:
        SchemaOutdatedError: If a file fails, or one that was applied has been edited since.
        UnavailableError: If the database does not answer.
    """
    wanted = migrations(folder)
    try:
        async with await _connect(dsn) as connection:
            # Held by the session: it ends with the connection, however this process ends.
            await connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
            await connection.execute(_TABLE)
            missing = unapplied(wanted, await _applied(connection))
            for migration in missing:
                await _apply(connection, migration)
    except psycopg.OperationalError as error:
        raise UnavailableError("PostgreSQL", f"the migration of {folder} stopped: {error}") from error
    return [migration.name for migration in missing]


async def check(dsn: str, folder: Path) -> None:
    """Returns when the database has everything that a folder asks for; more is allowed.

    Raises:
        SchemaOutdatedError: If a file was not applied, or was edited since; names the command.
        UnavailableError: If the database does not answer.
    """
    wanted = migrations(folder)
    try:
        async with await _connect(dsn) as connection:
            found = await connection.execute("SELECT to_regclass('schema_migrations') IS NOT NULL")
            row = await found.fetchone()
            applied = await _applied(connection) if row is not None and row[0] else {}
    except psycopg.OperationalError as error:
        raise UnavailableError("PostgreSQL", f"the schema could not be looked at: {error}") from error
    missing = [migration.name for migration in unapplied(wanted, applied)]
    if missing:
        raise SchemaOutdatedError(f"the database lacks {', '.join(missing)}; run: {command(folder)}")


def unapplied(wanted: list[Migration], applied: Mapping[str, bytes]) -> list[Migration]:
    """Returns the migrations that a database lacks.

    Args:
        wanted: those of the program.
        applied: the checksums that the database has recorded, by name.

    Raises:
        SchemaOutdatedError: If one that was applied has been edited since.
    """
    for migration in wanted:
        if applied.get(migration.name, migration.checksums[0]) not in migration.checksums:
            raise SchemaOutdatedError(
                f"{migration.name} was edited after it had been applied; restore it and put the change into a new file"
            )
    return [migration for migration in wanted if migration.name not in applied]


def command(folder: Path) -> str:
    """Returns what is typed to apply the migrations of a folder."""
    # A service keeps its migrations in svc_x/schema, or in a folder there.
    places = (folder.resolve(), *folder.resolve().parents)
    schema = next((place for place in places if place.name == "schema"), places[0])
    return f"python -m {schema.parent.name} migrate"


def _checksums(script: bytes) -> tuple[bytes, ...]:
    """Returns the checksum of a file without the comment that it begins with, then with ever more of that comment.

    So the comment may grow after the file was applied, also in databases whose programs counted all of it.
    """
    lines = script.splitlines(keepends=True)
    first = next((i for i, line in enumerate(lines) if line.strip() and not line.startswith(b"--")), len(lines))
    return tuple(hashlib.sha256(b"".join(lines[i:])).digest() for i in range(first, -1, -1))


async def _connect(dsn: str) -> Connection:
    try:
        return await AsyncConnection.connect(dsn, autocommit=True, connect_timeout=_CONNECT_TIMEOUT_S)
    except psycopg.ProgrammingError:
        # The driver quotes what it cannot read, and a password may stand in it.
        raise UnavailableError(
            "PostgreSQL", "its address is no libpq string or URL, like postgres://user:password@host/name"
        ) from None


async def _applied(connection: Connection) -> dict[str, bytes]:
    found = await connection.execute("SELECT name, checksum FROM schema_migrations")
    return {str(name): bytes(checksum) for name, checksum in await found.fetchall()}


async def _apply(connection: Connection, migration: Migration) -> None:
    try:
        async with connection.transaction():
            await connection.execute(migration.script)
            await connection.execute(
                "INSERT INTO schema_migrations (name, checksum) VALUES (%s, %s)",
                (migration.name, migration.checksums[0]),
            )
    except psycopg.OperationalError:
        raise
    except psycopg.Error as error:
        raise SchemaOutdatedError(
            f"{migration.name} failed and nothing of it was kept: {error}; mend the file or the database, run it again"
        ) from error
