"""A connection to Cassandra of which a test takes away what it likes."""

from collections.abc import Awaitable, Callable, Iterable, Sequence

from chappe.runtime.errors import UnavailableError
from svc_message.adapters.ledger_cassandra.connection import Connection, Read, Row, Unit


class Cut:
    """A connection of which a test takes away what it likes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.unreadable = connection.unreadable
        self.lost: Callable[[Unit], Unit] = lambda unit: unit
        """What arrives of a unit; after it has lost something the outcome is unknown."""
        self.partitions_read = 0
        self.rows_read = 0
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
        self.rows_read += sum(map(len, found))
        return found
