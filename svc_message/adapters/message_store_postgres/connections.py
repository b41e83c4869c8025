"""Keeps a few connections for one kind of work, replaces broken ones, and translates everything that goes wrong."""

import asyncio
import contextlib
import os
import socket
import time
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import AsyncConnection, AsyncCursor

from chappe.runtime.errors import UnavailableError
from chappe.runtime.postgres import TidyConnection
from chappe.runtime.tracing import part
from svc_message.adapters.message_store_postgres.arrays import binary_adapters
from svc_message.adapters.timings import Timings
from svc_message.adapters.unreadable import Unreadable

DEPENDENCY: Final = "PostgreSQL ledger"

Row = tuple[Any, ...]
Connection = AsyncConnection[Row]

# Every statement finds its rows by an index. Its plan is made once, possibly while the tables are empty, when a scan
# looks cheap; so scans are ruled out, and so is keeping what an index holds from end to end. A promise of durability
# that the server has switched off is switched on again.
_PREPARE: Final = """
    SELECT set_config(name, value, false) FROM (VALUES
        ('plan_cache_mode', 'force_generic_plan'), ('enable_seqscan', 'off'), ('enable_bitmapscan', 'off'),
        ('enable_hashjoin', 'off'), ('enable_mergejoin', 'off'), ('enable_material', 'off'), ('jit', 'off'),
        ('synchronous_commit', coalesce(nullif(current_setting('synchronous_commit'), 'off'), 'on'))
    ) AS settings (name, value)
"""


class Statement(NamedTuple):
    """A query with its parameters."""

    query: bytes
    """A constant of this package, so that it is prepared once for each connection."""
    parameters: tuple[object, ...] = ()


class Connections:
    """A few connections that are used one statement at a time; dialled when needed, again after a failure.

    Whatever the driver raises becomes an `UnavailableError`: the statement may or may not have been carried out. A
    server that says nothing for `timeout_s` is treated as gone.
    """

    def __init__(
        self,
        dsn: str,
        *,
        size: int,
        timeout_s: float,
        timings: Timings | None = None,
        unreadable: Unreadable | None = None,
    ) -> None:
        """Prepares; nothing is dialled before the first use."""
        self._timings = timings or Timings()
        self.unreadable = unreadable or Unreadable()
        """What those who ask for rows pass over."""
        self._dsn = dsn
        self._timeout_s = timeout_s
        self._adapters = binary_adapters()
        self._is_closed = False
        # The last one used comes first: a quiet service works on one connection with warm caches.
        self._idle: asyncio.LifoQueue[Connection | None] = asyncio.LifoQueue()
        for _ in range(size):
            self._idle.put_nowait(None)

    async def run(self, statement: Statement) -> list[Row]:
        """Runs one statement in a transaction of its own and returns its rows."""
        (rows,) = await self.run_together(statement)
        return rows

    async def run_together(self, *statements: Statement) -> list[list[Row]]:
        """Runs statements in one transaction and one round trip, and returns the rows of each."""
        start_s = time.perf_counter()
        try:
            with part("store"):
                return await self._run_together(statements)
        except UnavailableError:
            self._timings.failures += 1
            raise
        finally:
            self._timings.seconds.observe(time.perf_counter() - start_s)

    async def _run_together(self, statements: tuple[Statement, ...]) -> list[list[Row]]:
        connection = await self._take()
        usable = None
        try:
            opened = connection or await self._connect()
            silence = asyncio.get_running_loop().call_later(self._timeout_s, _cut, opened)
            try:
                rows = await _execute(opened, statements)
                usable = opened
            finally:
                silence.cancel()
                if usable is None:
                    await _close(opened)
        except psycopg.Error as error:
            raise _translated(error) from error
        finally:
            await self._give_back(usable)
        return rows

    async def aclose(self) -> None:
        """Closes the connections that are idle now, and the others when they have done their work."""
        self._is_closed = True
        while not self._idle.empty():
            connection = self._idle.get_nowait()
            if connection is not None:
                await _close(connection)

    async def _take(self) -> Connection | None:
        if self._is_closed:
            raise UnavailableError(DEPENDENCY, "this process has closed its connections")
        try:
            connection = self._idle.get_nowait()
        except asyncio.QueueEmpty:
            try:
                async with asyncio.timeout(self._timeout_s):
                    connection = await self._idle.get()
            except TimeoutError:
                raise UnavailableError(
                    DEPENDENCY, f"no connection was free within {self._timeout_s:g} s; allow more or slow down"
                ) from None
        if connection is not None and connection.broken:
            await _close(connection)
            return None
        return connection

    async def _give_back(self, connection: Connection | None) -> None:
        if not self._is_closed:
            self._idle.put_nowait(connection)
        elif connection is not None:
            await _close(connection)

    async def _connect(self) -> Connection:
        connection = await TidyConnection.connect(
            self._dsn,
            autocommit=True,
            context=self._adapters,
            connect_timeout=max(int(self._timeout_s), 1),
            target_session_attrs="read-write",
            fallback_application_name="svc_message",
        )
        try:
            await connection.execute(_PREPARE)
        except BaseException:
            await _close(connection)
            raise
        return connection


async def _execute(connection: Connection, statements: tuple[Statement, ...]) -> list[list[Row]]:
    if len(statements) == 1:
        query, parameters = statements[0]
        cursor = await connection.execute(query, parameters, prepare=True, binary=True)
        return [await _rows(cursor)]
    # Up to its end a pipeline is one transaction.
    async with connection.pipeline():
        cursors = [
            await connection.execute(query, parameters, prepare=True, binary=True) for query, parameters in statements
        ]
    return [await _rows(cursor) for cursor in cursors]


async def _rows(cursor: AsyncCursor[Row]) -> list[Row]:
    result = cursor.pgresult
    return await cursor.fetchall() if result is not None and result.nfields else []


def _cut(connection: Connection) -> None:
    """Ends a connection whose server is silent: whoever waits for it gets the driver's own error."""
    with contextlib.suppress(psycopg.Error, OSError), socket.socket(fileno=os.dup(connection.fileno())) as duplicate:
        duplicate.shutdown(socket.SHUT_RDWR)


async def _close(connection: Connection) -> None:
    with contextlib.suppress(psycopg.Error, OSError):
        await connection.close()


def _translated(error: psycopg.Error) -> UnavailableError:
    if isinstance(error, psycopg.errors.UndefinedTable | psycopg.errors.UndefinedColumn):
        message = "the schema is outdated; run: python -m svc_message migrate"
        return UnavailableError(DEPENDENCY, message, detail=str(error))
    return UnavailableError(DEPENDENCY, detail=f"{type(error).__name__}: {str(error).strip() or 'no answer'}")
