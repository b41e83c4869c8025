"""Looks into the ledger's own book while a system runs: the shards of the journal, and what was parked."""

import asyncio
import signal
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import psutil
import psycopg

from chappe.cli.launcher import Mesh
from chappe.runtime.engines import databases

_LEDGER = "chappe_ledger"
_LOOK_S = 0.2
_STALE = "SELECT count(*) FROM journal_shards WHERE checkpointed_at < to_timestamp(%s)"
_LEFT = """
    SELECT count(*) FROM journal j JOIN journal_shards s USING (shard)
    WHERE s.checkpointed_at < to_timestamp(%s) AND j.pos > s.mark
"""
_PARKED = "SELECT count(*) FROM journal_parked"


class LedgerBook:
    """Questions to the database of svc_message, as an operator may ask them."""

    def __init__(self, connection: psycopg.AsyncConnection) -> None:
        self._connection = connection

    @classmethod
    @asynccontextmanager
    async def of(cls, mesh: Mesh) -> AsyncGenerator["LedgerBook"]:
        """Holds a connection for as long as the block lasts."""
        dsn = (await databases(mesh.foundation.postgres.dsn, [_LEDGER]))[_LEDGER]
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            yield cls(connection)

    async def orphans(self, since_s: float) -> int:
        """Returns how many shards nobody has checkpointed since a time; after a second those of the dead."""
        return await self._count(_STALE, since_s)

    async def entries_of_orphans(self, since_s: float) -> int:
        """Returns how many entries behind their marks the shards have that nobody has checkpointed since a time."""
        return await self._count(_LEFT, since_s)

    async def parked(self) -> int:
        """Returns how many entries were put aside."""
        return await self._count(_PARKED)

    async def adopted(self, since_s: float, timeout_s: float) -> float:
        """Waits until no shard is left that was not checkpointed since a time; returns the seconds since then."""
        while await self.orphans(since_s):
            waited_s = time.time() - since_s
            assert waited_s < timeout_s, f"a shard of the dead is still there after {waited_s:.1f} s"
            await asyncio.sleep(_LOOK_S)
        return time.time() - since_s

    async def _count(self, query: str, *parameters: float) -> int:
        cursor = await self._connection.execute(query.encode(), parameters)
        row = await cursor.fetchone()
        return 0 if row is None else int(row[0])


@asynccontextmanager
async def frozen_postgres(mesh: Mesh) -> AsyncGenerator[None]:
    """Lets the server and all of its children stand still for as long as the block lasts."""
    server = psutil.Process(mesh.engines["postgres"].pid)
    family = [server, *server.children(recursive=True)]
    for process in family:
        process.send_signal(signal.SIGSTOP)
    try:
        yield
    finally:
        for process in family:
            process.send_signal(signal.SIGCONT)
