"""Keeps the receipts of groups in PostgreSQL, on connections of its own: no direct message waits for them."""

from collections.abc import Sequence

from svc_message.adapters.message_store_postgres.connections import Connections
from svc_message.adapters.receipt_store_postgres import news, raising, tallies
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


class PostgresReceiptStore:
    """The port `ReceiptStore` on PostgreSQL; dials when it is first used and again after failures."""

    def __init__(self, dsn: str, *, writers: int = 2, timeout_s: float = 5.0) -> None:
        """Prepares; nothing is dialled.

        Args:
            dsn: The database of the ledger.
            writers: How many connections write.
            timeout_s: After how long a silent server counts as gone.
        """
        self._writers = Connections(dsn, size=writers, timeout_s=timeout_s)
        self._reader = Connections(dsn, size=1, timeout_s=timeout_s)

    async def aclose(self) -> None:
        """Closes the connections; those at work when they are done."""
        await self._writers.aclose()
        await self._reader.aclose()

    async def acknowledge(self, batch: Sequence[MemberAck], change: Position, recorded_ms: int) -> list[Came]:
        """Raises messages to delivered; one statement for every 4,096 of them."""
        return await raising.acknowledge(self._writers, batch, change, recorded_ms)

    async def unread(self, batch: Sequence[MemberRead]) -> list[Unread]:
        """Returns what reads stand for, in order."""
        return await raising.unread(self._writers, batch)

    async def read(self, batch: Sequence[MemberReadUpdate]) -> ReadOutcome:
        """Raises messages to read, and the places up to which members have read."""
        return await raising.read(self._writers, batch)

    async def tally(self, names: Sequence[MessageName]) -> list[Tally | None]:
        """Counts how far messages have come, in order."""
        return await tallies.tally(self._reader, names)

    async def list_receipts(self, name: MessageName, after: UserId | None, limit: int) -> list[MemberReceipt]:
        """Returns with whom a message came how far, by user id."""
        return await tallies.list_receipts(self._reader, name, after, limit)

    async def claim_news(self, position: Position, now_ms: int, until_ms: int) -> list[News]:
        """Takes news that are due, and writes them into the senders' inboxes."""
        return await news.claim(self._writers, position, now_ms, until_ms)

    async def settle_news(self, told: Sequence[News], now_ms: int) -> None:
        """Notes that news were told."""
        await news.settle(self._writers, told, now_ms)
