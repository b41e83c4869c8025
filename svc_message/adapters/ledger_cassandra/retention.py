"""Lets go of what is not kept for ever: here everything does so by itself."""

from svc_message.model import Position, UserId


class CassandraRetentionStore:
    """The port `RetentionStore` on Cassandra.

    Content, and what belongs to it, is written with a time to live, as events are; what is left of a message that has
    disappeared is its header, by which a retry is known. What was archived too early is found when lists are read.
    """

    async def expire(self, limit: int, spent_before: Position) -> int:
        """Finds nothing to remove."""
        del limit, spent_before
        return 0

    async def forget(self, before: Position, after: UserId, limit: int) -> UserId | None:
        """Finds nothing to forget."""
        del before, after, limit
        return None

    async def wake(self, since_ms: int, floor: Position) -> int:
        """Finds nothing to bring back."""
        del since_ms, floor
        return 0
