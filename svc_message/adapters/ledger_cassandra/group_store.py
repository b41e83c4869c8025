"""Puts the port `GroupStore` together."""

from collections.abc import Sequence

from svc_message.adapters.ledger_cassandra import expanding, group_accepting, group_acting, group_reading
from svc_message.adapters.ledger_cassandra.bounds import Bounds
from svc_message.adapters.ledger_cassandra.connection import Connection
from svc_message.adapters.ledger_cassandra.shards import Shards
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


class CassandraGroupStore:
    """The port `GroupStore` on Cassandra, over a connection that others may share."""

    def __init__(self, connection: Connection, bounds: Bounds, shards: Shards) -> None:
        """Prepares; nothing is dialled.

        Args:
            connection: To the cluster.
            bounds: What lies too far ahead is refused.
            shards: What this process has begun; its `Journal` has the same.
        """
        self._connection = connection
        self._shards = shards
        self._bounds = bounds
        self._known_bounds = group_accepting.KnownBounds()
        self._touches = expanding.GroupTouches()

    async def accept(self, shard: Shard, batch: Sequence[NewGroupMessage]) -> list[GroupAccepted]:
        """Makes messages durable, and then their entries; young first attempts without looking."""
        memory = (self._shards, self._known_bounds)
        return await group_accepting.accept(self._connection, self._bounds, memory, shard, batch)

    async def act(self, shard: Shard, batch: Sequence[NewAction]) -> list[Acted]:
        """Makes actions durable, and then their entries."""
        return await group_acting.act(self._connection, self._bounds, self._shards, shard, batch)

    async def expand(self, expansions: Sequence[Expansion], touches: Sequence[Touch]) -> None:
        """Writes the pointers of members, and then the lines of their chat lists."""
        await expanding.expand(self._connection, self._bounds, self._touches, expansions, touches)

    async def read_page(self, read: PageRead, windows: Sequence[Window]) -> list[StoredMessage]:
        """Returns messages of a group that its reader sees, newest first."""
        return await group_reading.read_page(self._connection, self._bounds, read, windows)

    async def read_chats(self, owner_id: UserId, lines: Sequence[GroupLine]) -> list[GroupChat]:
        """Returns what a chat list shows of groups, in order."""
        return await group_reading.read_chats(self._connection, self._bounds, owner_id, lines)
