"""Talks to Cassandra: one session for all ports, whose driver has threads of its own.

Writes are rows that are written whatever is there; so every one of them may be repeated, and the driver does. Rows of
one message may stand in several partitions, and nothing makes them one: a batch that is not LOGGED saves round trips
and promises nothing. A LOGGED one promises little more and waits for two other nodes: one dead node of three stops all
of them for 15 to 19 s, where these go on.
"""

import asyncio
import contextlib
import threading
import time
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, NamedTuple

from cassandra import ConsistencyLevel, DriverException, InvalidRequest
from cassandra.cluster import NoHostAvailable
from cassandra.query import (
    UNSET_VALUE,
    BatchStatement,
    BatchType,
    BoundStatement,
    PreparedStatement,
    Statement,
)

from chappe.runtime.cassandra import CassandraSession
from chappe.runtime.errors import UnavailableError
from chappe.runtime.tracing import part
from svc_message.adapters.timings import StoreTimings, Timings
from svc_message.adapters.unreadable import Unreadable

DEPENDENCY: Final = "Cassandra ledger"
UNSET: Final[Any] = UNSET_VALUE
"""Stands for a value that is not written at all: null would be a tombstone."""

UNITS_IN_BATCH: Final = 8
BYTES_IN_BATCH: Final = 40 * 1024
"""Of a batch; a cluster refuses what is above its batch_size_fail_threshold, which is 50 KiB unless it was raised."""
PARTITIONS_IN_BATCH: Final = 7 * UNITS_IN_BATCH
"""Of a batch: a direct message is in the history and in the inbox of both, an edit of one in up to seven partitions."""
IN_FLIGHT: Final = 1024
"""How many statements of one call are on their way at once; a connection has 32,768 numbers for them."""

Row = tuple[Any, ...]


class Write(NamedTuple):
    """A row to be written."""

    query: str
    """A constant of this package, so that it is prepared once."""
    key: tuple[bytes, ...]
    """The partition key."""
    values: tuple[Any, ...]
    """Bytes as they travel, or `UNSET`."""


class Read(NamedTuple):
    """Asks for rows of one partition."""

    query: str
    values: tuple[Any, ...]


Unit = Sequence[Write]
"""The rows of one message, or whatever else is repeated as a whole."""
Group = Sequence[Unit]
"""Units that travel together."""


class Connection:
    """A session whose driver finds nodes again that were gone.

    Whatever the driver raises becomes an `UnavailableError`: what was to be written may or may not be there.
    """

    def __init__(
        self,
        session: CassandraSession,
        *,
        timings: StoreTimings | None = None,
        unreadable: Unreadable | None = None,
    ) -> None:
        """Takes a session that was opened in the keyspace of the ledger.

        Args:
            session: It, which `aclose` closes.
            timings: Counts how long it takes.
            unreadable: Counts the rows that cannot be read.
        """
        timings = timings or StoreTimings()
        self.unreadable = unreadable or Unreadable()
        """What those who ask for rows pass over."""
        self._session = session
        self._writes = timings.writes
        self._reads = timings.reads
        self._prepared: dict[str, PreparedStatement] = {}
        self._preparing = threading.Lock()

    async def write(self, units: Iterable[Unit]) -> None:
        """Writes every row of units, several units in a batch; after an error nothing is known.

        What failed is repeated unit by unit, so that one that cannot be written does not keep the others.
        """
        with _timed(self._writes):
            wanted = sorted((unit for unit in units if unit), key=_key_of_unit)
            await self._prepare({row.query for unit in wanted for row in unit})
            failed = await self._write(list(_groups(wanted)))
            failed = await self._write([[unit] for group, _ in failed for unit in group])
            for _, error in failed:
                raise _translated(error) from error

    async def read(self, reads: Sequence[Read]) -> list[list[Row]]:
        """Reads rows of many partitions at once, in order."""
        if not reads:
            return []
        with _timed(self._reads):
            await self._prepare({read.query for read in reads})
            outcomes = await self._send([self._bound(read.query, read.values) for read in reads])
            rows: list[list[Row]] = []
            for outcome in outcomes:
                if isinstance(outcome, Exception):
                    raise _translated(outcome) from outcome
                rows.append(outcome)
            return rows

    async def aclose(self) -> None:
        """Closes the session and ends the threads of the driver."""
        await asyncio.to_thread(self._session.close)

    async def _write(self, groups: Sequence[Group]) -> list[tuple[Group, Exception]]:
        """Writes groups and returns those of which nothing is known, with why."""
        batches = [(group, batch) for group in groups for batch in self._batches(group)]
        outcomes = await self._send([batch for _, batch in batches])
        return [
            (group, outcome)
            for (group, _), outcome in zip(batches, outcomes, strict=True)
            if isinstance(outcome, Exception)
        ]

    async def _prepare(self, queries: set[str]) -> None:
        wanted = queries - self._prepared.keys()
        if wanted:
            await asyncio.to_thread(self._prepare_once, sorted(wanted))

    def _prepare_once(self, queries: Sequence[str]) -> None:
        """Prepares what nobody else has prepared meanwhile.

        The driver knows a statement by its id for as long as what it returned last for it lives. Were there two, and
        the last one dropped, a node that has forgotten the statement would never be taught it again.
        """
        with self._preparing:
            for query in queries:
                if query not in self._prepared:
                    self._prepared[query] = _prepared(self._session, query)

    def _bound(self, query: str, values: tuple[Any, ...]) -> Statement:
        statement: Any = BoundStatement(self._prepared[query])
        # They are bytes already; what the driver would make of them is what they were made from.
        statement.values = values
        return statement

    def _batches(self, group: Group) -> Iterator[Statement]:
        """Yields the batch of a group; the rows of a unit that is too large for one travel by themselves."""
        rows = [row for unit in group for row in unit]
        if len(rows) == 1 or (len(group) == 1 and _size_of(group[0]) > BYTES_IN_BATCH):
            for row in rows:
                yield self._bound(row.query, row.values)
            return
        yield self._batch(rows)

    def _batch(self, rows: Sequence[Write]) -> Statement:
        batch = _Batch(rows[0].key, self._session.driver.keyspace)
        for query, _, values in rows:
            batch.add_row(self._prepared[query], values)
        return batch

    async def _send(self, statements: Sequence[Statement]) -> list[Any]:
        """Sends statements and waits for all of them; an error stands where its statement does."""
        outcomes: list[Any] = []
        rest = iter(statements)
        while chunk := list(islice(rest, IN_FLIGHT)):
            flight = _Flight(len(chunk))
            for n, statement in enumerate(chunk):
                _launch(self._session, statement, flight, n)
            outcomes += await flight.landed
        return outcomes


class _Batch(BatchStatement):  # type: ignore[misc]  # the driver has no types
    """Rows that travel together, to a replica of the first."""

    def __init__(self, key: tuple[bytes, ...], keyspace: str) -> None:
        super().__init__(BatchType.UNLOGGED, consistency_level=ConsistencyLevel.LOCAL_QUORUM)
        self.is_idempotent = True
        self.routing_key = key
        self.keyspace = keyspace

    def add_row(self, prepared: PreparedStatement, values: tuple[Any, ...]) -> None:
        """Adds a row whose values are bytes already."""
        self._add_statement_and_params(True, prepared.query_id, values)  # noqa: FBT003 - the driver's: it is prepared


class _Flight:
    """Waits for several answers of the driver, whose threads bring them, with one wake-up of the loop."""

    def __init__(self, count: int) -> None:
        self._loop = asyncio.get_running_loop()
        self.landed: asyncio.Future[list[Any]] = self._loop.create_future()
        self._outcomes: list[Any] = [None] * count
        self._left = count
        self._lock = threading.Lock()

    def answered(self, rows: Any, n: int) -> None:
        """Takes an answer, or an error, in a thread of the driver."""
        self._outcomes[n] = rows if rows is not None else []
        with self._lock:
            self._left -= 1
            is_last = not self._left
        if is_last:
            # The loop may have been closed by somebody who did not want to wait.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._land)

    def _land(self) -> None:
        if not self.landed.done():
            self.landed.set_result(self._outcomes)


def _launch(session: CassandraSession, statement: Statement, flight: _Flight, n: int) -> None:
    try:
        future: Any = session.driver.execute_async(statement)
    except (DriverException, NoHostAvailable) as error:
        flight.answered(error, n)
        return
    future.add_callbacks(flight.answered, flight.answered, callback_args=(n,), errback_args=(n,))


def _prepared(session: CassandraSession, query: str) -> PreparedStatement:
    try:
        statement: PreparedStatement = session.driver.prepare(query)
    except (DriverException, NoHostAvailable) as error:
        raise _translated(error) from error
    statement.is_idempotent = True
    return statement


def _groups(units: Sequence[Unit]) -> Iterator[list[Unit]]:
    """Yields units that travel together: at most 8 of them and 40 KiB, unless one alone is larger."""
    group: list[Unit] = []
    size = 0
    for unit in units:
        added = _size_of(unit)
        if group and (len(group) == UNITS_IN_BATCH or size + added > BYTES_IN_BATCH):
            yield group
            group, size = [], 0
        group.append(unit)
        size += added
    if group:
        yield group


def _size_of(unit: Unit) -> int:
    return sum([len(value) for row in unit for value in row.values if value is not UNSET])


def _key_of_unit(unit: Unit) -> tuple[bytes, ...]:
    return unit[0].key


@contextlib.contextmanager
def _timed(timings: Timings) -> Generator[None]:
    start_s = time.perf_counter()
    try:
        with part("store"):
            yield
    except UnavailableError:
        timings.failures += 1
        raise
    finally:
        timings.seconds.observe(time.perf_counter() - start_s)


def _translated(error: Exception) -> UnavailableError:
    if isinstance(error, InvalidRequest):
        message = "it refuses a statement; is the schema this program's? Migrate"
        return UnavailableError(DEPENDENCY, message, detail=str(error))
    return UnavailableError(DEPENDENCY, detail=f"{type(error).__name__}: {str(error).strip() or 'no answer'}")
