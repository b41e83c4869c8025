"""Puts the port `MessageStore` together."""

from collections.abc import Sequence
from typing import Any

from chappe.runtime.clock import Clock, SystemClock
from chappe.runtime.errors import UnavailableError
from svc_message.adapters.ledger_cassandra import accepting, history, inboxes, receipts
from svc_message.adapters.ledger_cassandra.acting import CassandraActionStore
from svc_message.adapters.ledger_cassandra.bounds import LEAD_S, Bounds
from svc_message.adapters.ledger_cassandra.cells import bigint
from svc_message.adapters.ledger_cassandra.connection import DEPENDENCY, Connection, Read, Row, Write
from svc_message.adapters.ledger_cassandra.group_store import CassandraGroupStore
from svc_message.adapters.ledger_cassandra.journal import CassandraJournal
from svc_message.adapters.ledger_cassandra.lines import Touches
from svc_message.adapters.ledger_cassandra.receipt_store import CassandraReceiptStore
from svc_message.adapters.ledger_cassandra.recent import Recent
from svc_message.adapters.ledger_cassandra.retention import CassandraRetentionStore
from svc_message.adapters.ledger_cassandra.settings import CassandraSettingStore
from svc_message.adapters.ledger_cassandra.shards import Shards
from svc_message.adapters.ledger_cassandra.traces import CassandraTraceStore
from svc_message.model import (
    Accepted,
    Applied,
    ChatCursor,
    ChatPage,
    ForeignAppend,
    Found,
    InboxPage,
    InboxRead,
    MessageRef,
    NewMessage,
    PageRead,
    ReceiptUpdate,
    StoredMessage,
    UserId,
)

READ_WHOLE = 200
"""Up to how many chats are read at once: fewer than what would be gone through to find the window that is wanted."""
_EPOCH = "SELECT epoch FROM ledger WHERE id = ?"
_RAISE = "UPDATE ledger USING TIMESTAMP ? SET epoch = ? WHERE id = ?"
_CLOCK = "SELECT to_unix_timestamp(now()) FROM ledger WHERE id = ?"
_ONLY = (b"\x00",)


class CassandraMessageStore:
    """The port `MessageStore` on Cassandra, over a connection that others may share."""

    def __init__(
        self,
        connection: Connection,
        *,
        clock: Clock | None = None,
        lead_s: float = LEAD_S,
        read_whole: int = READ_WHOLE,
    ) -> None:
        """Prepares; nothing is dialled.

        Args:
            connection: To the cluster.
            clock: By which messages disappear, and what lies too far ahead is refused.
            lead_s: How far ahead of the store's clock ids and positions may lie, seconds.
            read_whole: Up to how many chats of a user are read at once for a window of them.
        """
        self._connection = connection
        self._bounds = Bounds(clock or SystemClock(), lead_s)
        self._touches = Touches()
        self._read_whole = read_whole
        self._recent = Recent()
        self.actions = CassandraActionStore(connection, self._bounds)
        """The port `ActionStore` on the same book."""
        self.settings = CassandraSettingStore(connection, self._bounds, self._touches.forget)
        """The port `SettingStore` on the same book."""
        self.retention = CassandraRetentionStore()
        """The port `RetentionStore` on the same book."""
        self.traces = CassandraTraceStore(connection, self._bounds)
        """The port `TraceStore` on the same book."""
        shards = Shards(clock)
        self.groups = CassandraGroupStore(connection, self._bounds, shards)
        """The port `GroupStore` on the same book."""
        self.journal = CassandraJournal(connection, self._bounds, shards)
        """The port `Journal` on the same book."""
        self.receipts = CassandraReceiptStore(connection, self._bounds)
        """The port `ReceiptStore` on the same book."""

    async def accept(self, batch: Sequence[NewMessage]) -> list[Accepted]:
        """Makes messages durable with their pointers; young first attempts without looking."""
        return await accepting.accept(self._connection, self._bounds, self._touches, self._recent, batch)

    async def find(self, refs: Sequence[MessageRef]) -> list[Found | None]:
        """Looks messages up, in order."""
        return await accepting.find(self._connection, self._bounds, refs)

    async def declare_void(self, refs: Sequence[MessageRef]) -> list[bool]:
        """Makes sure that ids which are not there are never accepted; false where one was there after all."""
        return await accepting.declare_void(self._connection, self._bounds, refs)

    async def apply_receipts(self, batch: Sequence[ReceiptUpdate]) -> list[Applied]:
        """Raises states and appends the events that tell of it; `read_upto` as on PostgreSQL."""
        return await receipts.apply_receipts(self._connection, self._bounds, self._recent, batch)

    async def append_events(self, batch: Sequence[ForeignAppend]) -> None:
        """Appends events of other services."""
        await inboxes.append_events(self._connection, self._bounds, batch)

    async def read_inbox(self, reads: Sequence[InboxRead]) -> list[InboxPage]:
        """Reads on in many inboxes; a page ends between positions, so it may be longer than asked for."""
        return await inboxes.read_inbox(self._connection, self._bounds, reads)

    async def read_page(self, read: PageRead) -> list[StoredMessage]:
        """Returns messages of a conversation that its owner sees, newest first."""
        return await history.read_page(self._connection, self._bounds, read)

    async def list_chats(
        self, owner_id: UserId, after: ChatCursor | None, limit: int, *, is_archived: bool = False
    ) -> ChatPage:
        """Returns a window of a chat list; of a long one, what was moved up in the days of the window is read."""
        asked = history.ChatsAsked(owner_id, after, limit, is_archived)
        return await history.list_chats(self._connection, self._bounds, asked, self._read_whole)

    async def epoch(self) -> int:
        """Returns the epoch of the ledger."""
        (rows,) = await self._connection.read([Read(_EPOCH, _ONLY)])
        return int(_only(rows))

    async def raise_epoch(self) -> int:
        """Begins a new epoch, as a restore has to, and returns it.

        It is the time in seconds, so that two restores of one backup never begin the same epoch. It is written at the
        end of that second: the greatest stands, and none that somebody has inserted by hand until now hides it.
        """
        epoch = max(await self.epoch() + 1, int(await self.clock_ms()) // 1000)
        stamp = bigint(epoch * 1_000_000 + 999_999)
        await self._connection.write([[Write(_RAISE, _ONLY, (stamp, bigint(epoch), *_ONLY))]])
        return epoch

    async def clock_ms(self) -> float:
        """Returns the wall clock of the node that answers, Unix milliseconds."""
        (rows,) = await self._connection.read([Read(_CLOCK, _ONLY)])
        store_ms = float(_only(rows))
        self._bounds.compare(store_ms)
        return store_ms

    async def ready(self) -> None:
        """Returns when the cluster answers with a schema that this program can use."""
        await self.epoch()


def _only(rows: list[Row]) -> Any:
    """Returns the value of the only row of the table ledger."""
    if not rows or rows[0][0] is None:
        raise UnavailableError(DEPENDENCY, "the table ledger is empty; restore it: INSERT INTO ledger (id, epoch)")
    return rows[0][0]
