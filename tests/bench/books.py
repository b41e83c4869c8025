"""Counts what the engines wrote: rows, bytes and commits, by PostgreSQL's own statistics."""

from typing import Any, NamedTuple

import psycopg

DATABASES = ("chappe_ledger", "chappe_identity")

_TABLES = "SELECT quote_ident(relname) FROM pg_stat_user_tables ORDER BY 1"
_UPDATED = "SELECT coalesce(sum(n_tup_upd), 0) FROM pg_stat_user_tables"
_SIZE = "SELECT coalesce(sum(pg_total_relation_size(relid)), 0) FROM pg_stat_user_tables"
_COMMITS = "SELECT sum(xact_commit) FROM pg_stat_database WHERE datname = ANY(%s)"
_WAL = "SELECT pg_current_wal_lsn() - '0/0'::pg_lsn"
_SYNCS = "SELECT coalesce(sum(fsyncs), 0) FROM pg_stat_io WHERE object = 'wal'"


class Books(NamedTuple):
    """What PostgreSQL has written so far."""

    rows: int
    """Counted one by one: the statistics lag."""
    updated: int
    stored_bytes: int
    """Tables with their indexes."""
    wal_bytes: int
    commits: int
    syncs: int
    """How often the log was forced to the disk."""

    def per_message(self, later: "Books", messages: int) -> dict[str, float]:
        """Returns what was written between two readings, for each message."""
        shares = [(new - old) / max(1, messages) for old, new in zip(self, later, strict=True)]
        return dict(zip(("rows", "updates", "stored_bytes", "wal_bytes", "commits", "syncs"), shares, strict=True))


async def read_books(dsn: str) -> Books:
    """Reads the counts; they are complete after ten seconds of rest, for so long an idle process may keep its own."""
    rows = updated = size = 0
    for database in DATABASES:
        async with await psycopg.AsyncConnection.connect(dsn, dbname=database, autocommit=True) as connection:
            for table in await _column(connection, _TABLES):
                rows += (await _column(connection, f"SELECT count(*) FROM {table}"))[0]  # noqa: S608 - quoted above
            updated += (await _column(connection, _UPDATED))[0]
            size += (await _column(connection, _SIZE))[0]
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        commits = (await _column(connection, _COMMITS, list(DATABASES)))[0]
        wal = (await _column(connection, _WAL))[0]
        syncs = (await _column(connection, _SYNCS))[0]
    return Books(rows, int(updated), int(size), int(wal), int(commits), int(syncs))


async def _column(connection: psycopg.AsyncConnection, query: str, *arguments: object) -> list[Any]:
    found = await connection.execute(query.encode(), arguments)
    return [row[0] for row in await found.fetchall()]
