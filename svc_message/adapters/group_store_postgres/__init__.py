"""Keeps what the ledger's book holds of groups in PostgreSQL, on connections of its own.

A message is one row; each member's pointer is one row, too, and the pointers of several messages of one conversation to
one member share one. Members travel as packed arrays and become rows in the server.
"""

from collections.abc import Sequence

from svc_message.adapters.group_store_postgres import accepting, acting, expanding, reading
from svc_message.adapters.message_store_postgres.connections import Connections
from svc_message.adapters.unreadable import Unreadable
from svc_message.model import PageRead, StoredMessage, UserId
from svc_message.model.action import Acted, NewAction
from svc_message.model.group import (
    Expansion,
    GroupAccepted,
    GroupChat,
    GroupLine,
    NewGroupMessage,
    Shard,
    Touch,
    Window,
)


class PostgresGroupStore:
    """The port `GroupStore` on PostgreSQL; dials when it is first used and again after failures."""

    def __init__(
        self,
        dsn: str,
        *,
        writers: int = 2,
        expanders: int = 2,
        readers: int = 2,
        timeout_s: float = 5.0,
        unreadable: Unreadable | None = None,
    ) -> None:
        """Prepares; nothing is dialled.

        Args:
            dsn: The database of the ledger.
            writers: How many connections write messages.
            expanders: How many connections write the members' pointers.
            readers: How many connections read pages and chat lists.
            timeout_s: After how long a silent server counts as gone.
            unreadable: Counts the rows that cannot be read.
        """
        self._writers = Connections(dsn, size=writers, timeout_s=timeout_s)
        self._expanders = Connections(dsn, size=expanders, timeout_s=timeout_s)
        self._readers = Connections(dsn, size=readers, timeout_s=timeout_s, unreadable=unreadable)
        self._touches = expanding.Touches()

    async def aclose(self) -> None:
        """Closes the connections; those at work when they are done."""
        await self._writers.aclose()
        await self._expanders.aclose()
        await self._readers.aclose()

    async def accept(self, shard: Shard, batch: Sequence[NewGroupMessage]) -> list[GroupAccepted]:
        """Makes messages durable with their entries; one round trip when all are new."""
        return await accepting.accept(self._writers, shard, batch)

    async def act(self, shard: Shard, batch: Sequence[NewAction]) -> list[Acted]:
        """Makes actions durable with their entries; one round trip."""
        return await acting.act(self._writers, shard, batch)

    async def expand(self, expansions: Sequence[Expansion], touches: Sequence[Touch]) -> None:
        """Writes the pointers of members, and the lines of their chat lists, in one transaction."""
        await expanding.expand(self._expanders, self._touches, expansions, touches)

    async def read_page(self, read: PageRead, windows: Sequence[Window]) -> list[StoredMessage]:
        """Returns messages of a group that its reader sees, newest first."""
        return await reading.read_page(self._readers, read, windows)

    async def read_chats(self, owner_id: UserId, lines: Sequence[GroupLine]) -> list[GroupChat]:
        """Returns what a chat list shows of groups, in order."""
        return await reading.read_chats(self._readers, owner_id, lines)
