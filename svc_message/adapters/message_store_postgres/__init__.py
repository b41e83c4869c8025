"""Keeps the book of the ledger in PostgreSQL 15 or newer.

A message is one row and a pointer in the inbox of everyone entitled, written by one statement for a whole batch. Rows
travel as packed arrays, plans are made once, and ids stay raw bytes, because this is where the ledger's time goes.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from chappe.runtime import migrations
from chappe.runtime.errors import UnavailableError
from svc_message.adapters.message_store_postgres import accepting, history, inboxes, receipts
from svc_message.adapters.message_store_postgres.acting import PostgresActionStore
from svc_message.adapters.message_store_postgres.connections import DEPENDENCY, Connections, Statement
from svc_message.adapters.message_store_postgres.retention import PostgresRetentionStore
from svc_message.adapters.message_store_postgres.settings import PostgresSettingStore
from svc_message.adapters.timings import StoreTimings
from svc_message.adapters.unreadable import Unreadable
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

SCHEMA: Final = Path(__file__).resolve().parents[2] / "schema"
"""The migrations of the ledger, for `chappe.runtime.migrations.migrate`."""


class PostgresMessageStore:
    """The port `MessageStore` on PostgreSQL; dials when it is first used and again after failures."""

    def __init__(
        self,
        dsn: str,
        *,
        writers: int = 2,
        readers: int = 2,
        timeout_s: float = 5.0,
        timings: StoreTimings | None = None,
        unreadable: Unreadable | None = None,
    ) -> None:
        """Prepares; nothing is dialled.

        Args:
            dsn: The database of the ledger; with several hosts the primary is used for everything.
            writers: How many connections write.
            readers: How many connections read.
            timeout_s: After how long a silent server counts as gone.
            timings: Counts how long it takes.
            unreadable: Counts the rows that cannot be read.
        """
        timings = timings or StoreTimings()
        self._dsn = dsn
        self._writers = Connections(dsn, size=writers, timeout_s=timeout_s, timings=timings.writes)
        self._readers = Connections(
            dsn, size=readers, timeout_s=timeout_s, timings=timings.reads, unreadable=unreadable
        )
        self._touches = accepting.Touches()
        self.actions = PostgresActionStore(self._writers)
        """The port `ActionStore` on the same book."""
        self.settings = PostgresSettingStore(self._writers, self._touches.forget)
        """The port `SettingStore` on the same book."""
        self.retention = PostgresRetentionStore(self._writers)
        """The port `RetentionStore` on the same book."""
        self._is_checked = False

    async def aclose(self) -> None:
        """Closes the connections; those at work when they are done."""
        await self._writers.aclose()
        await self._readers.aclose()

    async def accept(self, batch: Sequence[NewMessage]) -> list[Accepted]:
        """Makes messages durable with their pointers; one round trip when all are new."""
        return await accepting.accept(self._writers, self._touches, batch)

    async def find(self, refs: Sequence[MessageRef]) -> list[Found | None]:
        """Looks messages up, in order."""
        return await accepting.find(self._writers, refs)

    async def declare_void(self, refs: Sequence[MessageRef]) -> list[bool]:
        """Makes sure that ids which are not there are never accepted; false where one was there after all."""
        return await accepting.declare_void(self._writers, refs)

    async def apply_receipts(self, batch: Sequence[ReceiptUpdate]) -> list[Applied]:
        """Raises states and appends the events that tell of it.

        `read_upto` comes down to the newest message that the reader sees, and stands for the unread ones among the
        1,000 messages up to there; older ones keep their ticks until they are named by id. A place named by single
        ids moves the reader's `read_upto` only when nothing before it is unread.
        """
        return await receipts.apply_receipts(self._writers, batch)

    async def append_events(self, batch: Sequence[ForeignAppend]) -> None:
        """Appends events of other services."""
        await inboxes.append_events(self._writers, batch)

    async def read_inbox(self, reads: Sequence[InboxRead]) -> list[InboxPage]:
        """Reads on in many inboxes; a page ends between positions, so it may be longer than asked for."""
        return await inboxes.read_inbox(self._readers, reads)

    async def read_page(self, read: PageRead) -> list[StoredMessage]:
        """Returns messages of a conversation that its owner sees, newest first."""
        return await history.read_page(self._readers, read)

    async def list_chats(
        self, owner_id: UserId, after: ChatCursor | None, limit: int, *, is_archived: bool = False
    ) -> ChatPage:
        """Returns a window of a chat list."""
        return await history.list_chats(self._readers, owner_id, after, limit, is_archived=is_archived)

    async def epoch(self) -> int:
        """Returns the epoch of the ledger."""
        rows = await self._readers.run(Statement(b"SELECT epoch FROM ledger"))
        if not rows:
            raise UnavailableError(DEPENDENCY, "the table ledger is empty; restore its row: INSERT INTO ledger (epoch)")
        return int(rows[0][0])

    async def raise_epoch(self) -> int:
        """Begins a new epoch, as a restore has to, and returns it.

        It is the time in seconds, so that two restores of one backup never begin the same epoch.
        """
        raised = b"greatest(epoch + 1, extract(epoch FROM clock_timestamp())::bigint)"
        ((epoch,),) = await self._writers.run(Statement(b"UPDATE ledger SET epoch = " + raised + b" RETURNING epoch"))
        return int(epoch)

    async def clock_ms(self) -> float:
        """Returns the server's wall clock, Unix milliseconds."""
        ((seconds,),) = await self._readers.run(Statement(b"SELECT extract(epoch FROM clock_timestamp())::float8"))
        return float(seconds) * 1000

    async def ready(self) -> None:
        """Returns when the server answers with a schema that is new enough."""
        if not self._is_checked:
            await migrations.check(self._dsn, SCHEMA)
            self._is_checked = True
        await self.epoch()
