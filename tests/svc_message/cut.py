"""A connection to Cassandra of which a test takes away what it likes."""

import re
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Sequence

from chappe.runtime.errors import UnavailableError
from svc_message.adapters.ledger_cassandra.connection import Connection, Read, Row, Unit

_TABLE = re.compile(r"FROM (\w+)")


class Cut:
    """A connection of which a test takes away what it likes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.unreadable = connection.unreadable
        self.lost: Callable[[Unit], Unit] = lambda unit: unit
        """What arrives of a unit; after it has lost something the outcome is unknown."""
        self.partitions_read = 0
        self.rows_read: Counter[str] = Counter()
        """How many, by table."""
        self.before_write: Callable[[], Awaitable[object]] | None = None

    async def write(self, units: Iterable[Unit]) -> None:
        meanwhile, self.before_write = self.before_write, None
        if meanwhile is not None:
            await meanwhile()
        wanted = list(units)
        arriving = [self.lost(unit) for unit in wanted]
        await self._connection.write(arriving)
        if arriving != wanted:
            raise UnavailableError("Cassandra ledger", "cut")

    async def read(self, reads: Sequence[Read]) -> list[list[Row]]:
        self.partitions_read += len(reads)
        found = await self._connection.read(reads)
        for read, rows in zip(reads, found, strict=True):
            (table,) = _TABLE.findall(read.query)
            self.rows_read[table] += len(rows)
        return found
