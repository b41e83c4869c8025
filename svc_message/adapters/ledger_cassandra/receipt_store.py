"""Puts the port `ReceiptStore` together."""

from collections.abc import Sequence

from svc_message.adapters.ledger_cassandra import group_receipts, tallies
from svc_message.adapters.ledger_cassandra.bounds import Bounds
from svc_message.adapters.ledger_cassandra.connection import Connection
from svc_message.adapters.ledger_cassandra.news import NewsDesk
from svc_message.model import Position, UserId
from svc_message.model.receipt import (
    Came,
    MemberAck,
    MemberRead,
    MemberReadUpdate,
    MemberReceipt,
    MessageName,
    News,
    ReadOutcome,
    Tally,
    Unread,
)


class CassandraReceiptStore:
    """The port `ReceiptStore` on Cassandra, over a connection that others may share."""

    def __init__(self, connection: Connection, bounds: Bounds) -> None:
        """Prepares; nothing is dialled.

        Args:
            connection: To the cluster.
            bounds: What lies too far ahead is refused.
        """
        self._connection = connection
        self._bounds = bounds
        self._news = NewsDesk(connection)

    async def acknowledge(self, batch: Sequence[MemberAck], change: Position, recorded_ms: int) -> list[Came]:
        """Raises messages to delivered, never lowers them."""
        return await group_receipts.acknowledge(
            self._connection, self._bounds, self._news, batch, (change, recorded_ms)
        )

    async def unread(self, batch: Sequence[MemberRead]) -> list[Unread]:
        """Returns what reads stand for, in order."""
        return await group_receipts.unread(self._connection, self._bounds, batch)

    async def read(self, batch: Sequence[MemberReadUpdate]) -> ReadOutcome:
        """Raises messages to read, and the places up to which members have read."""
        return await group_receipts.read(self._connection, self._bounds, self._news, batch)

    async def tally(self, names: Sequence[MessageName]) -> list[Tally | None]:
        """Counts how far messages have come, in order."""
        return await tallies.tally(self._connection, self._bounds, names)

    async def list_receipts(self, name: MessageName, after: UserId | None, limit: int) -> list[MemberReceipt]:
        """Returns with whom a message came how far, by user id."""
        return await tallies.list_receipts(self._connection, self._bounds, name, (after, limit))

    async def claim_news(self, position: Position, now_ms: int, until_ms: int) -> list[News]:
        """Takes news that are due, and writes them into the senders' inboxes."""
        self._bounds.check(position)
        return await self._news.claim(position, now_ms, until_ms)

    async def settle_news(self, told: Sequence[News], now_ms: int) -> None:
        """Notes that news were told; what has changed since, or just before, is due after a minute."""
        await self._news.settle(told, now_ms)
