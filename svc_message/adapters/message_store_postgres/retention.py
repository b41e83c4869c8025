"""Lets go of what is not kept for ever: messages that have disappeared, old events, and what was archived too early.

Rows are found by indexes that hold no others, and those that another process is working on are passed over.
"""

from typing import Final

from psycopg.types.numeric import Int4, Int8

from svc_message.adapters.message_store_postgres.arrays import Uuid
from svc_message.adapters.message_store_postgres.connections import Connections, Statement
from svc_message.model import Position, UserId

EVENTS_FORGOTTEN: Final = 100
"""Of one inbox at a time."""

# A row that was emptied keeps its id taken until no first attempt can come any more.
_EMPTY: Final = b"""
    WITH gone AS (
        UPDATE messages SET kind = 14, envelope = ''
        WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM messages
            WHERE kind = 1 AND expires_ms <= (SELECT extract(epoch FROM statement_timestamp()) * 1000)::bigint
            ORDER BY expires_ms LIMIT %b FOR UPDATE SKIP LOCKED))
        RETURNING conversation_id, message_id, accepted_ms, content_hash, is_withheld
    ), left_over AS (
        INSERT INTO disappeared (conversation_id, message_id, accepted_ms, content_hash, is_withheld)
        SELECT conversation_id, message_id, accepted_ms, content_hash, is_withheld FROM gone ON CONFLICT DO NOTHING
    ), receipts_gone AS (
        DELETE FROM receipts r USING gone g
        WHERE r.conversation_id = g.conversation_id AND r.message_id = g.message_id
    ), group_receipts_gone AS (
        DELETE FROM group_receipts r USING gone g
        WHERE r.conversation_id = g.conversation_id AND r.message_id = g.message_id
    )
    SELECT count(*) FROM gone
"""
# Not in the minute in which it was emptied: whoever has just found the message there finds its id taken. Receipts once
# more: some may have been written while the message went.
_REMOVE: Final = b"""
    WITH gone AS (
        DELETE FROM messages
        WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM messages
            WHERE kind = 14 AND message_id < %b
                AND expires_ms <= (SELECT extract(epoch FROM statement_timestamp()) * 1000 - 60000)::bigint
            LIMIT %b FOR UPDATE SKIP LOCKED))
        RETURNING conversation_id, message_id
    ), receipts_gone AS (
        DELETE FROM receipts r USING gone g
        WHERE r.conversation_id = g.conversation_id AND r.message_id = g.message_id
    ), group_receipts_gone AS (
        DELETE FROM group_receipts r USING gone g
        WHERE r.conversation_id = g.conversation_id AND r.message_id = g.message_id
    )
    SELECT count(*) FROM gone
"""
# What belongs to a message ends with it, and is found by its own end: also what was written while the message went.
_BELONGING: Final = """
    WITH gone AS (
        DELETE FROM {table}
        WHERE ctid = ANY (ARRAY(
            SELECT ctid FROM {table}
            WHERE expires_ms <= (SELECT extract(epoch FROM statement_timestamp()) * 1000)::bigint
            ORDER BY expires_ms LIMIT %b FOR UPDATE SKIP LOCKED))
        RETURNING 1
    )
    SELECT count(*) FROM gone
"""
_BELONGINGS: Final = [
    _BELONGING.format(table=table).encode() for table in ("reactions", "private_views", "inbox", "group_contents")
]

# Users are found one after the other by the index of the inbox itself, so that no event costs more for being forgotten.
_FORGET: Final = b"""
    WITH RECURSIVE users AS (
        SELECT (SELECT user_id FROM inbox WHERE user_id > %b ORDER BY user_id LIMIT 1) AS user_id, 1 AS number
        UNION ALL
        SELECT (SELECT i.user_id FROM inbox i WHERE i.user_id > u.user_id ORDER BY i.user_id LIMIT 1), u.number + 1
        FROM users u WHERE u.user_id IS NOT NULL AND u.number < %b
    ), gone AS (
        DELETE FROM inbox
        WHERE ctid = ANY (ARRAY(
            SELECT old.ctid FROM users u CROSS JOIN LATERAL (
                SELECT i.ctid FROM inbox i WHERE i.user_id = u.user_id AND i.pos < %b ORDER BY i.pos LIMIT %b
            ) old))
        RETURNING 1
    )
    SELECT (SELECT count(*) FROM gone),
        (SELECT user_id FROM users WHERE user_id IS NOT NULL ORDER BY number DESC LIMIT 1)
"""

# Whoever writes to a conversation at this moment brings it back, or the next pass does. What is said to a group is for
# those who have a pointer to it: who has left it has none.
_WAKE: Final = b"""
    WITH woken AS (
        UPDATE conversations SET archived_ms = 0
        WHERE ctid = ANY (ARRAY(
            SELECT c.ctid FROM conversations c
            WHERE c.archived_ms > %b AND c.archived_ms > 0 AND EXISTS (
                SELECT FROM messages m
                WHERE m.conversation_id = c.conversation_id AND m.message_id > %b AND m.kind = 1
                    AND m.accepted_ms > c.archived_ms AND (
                        m.sender_id = c.user_id OR m.recipient_id = c.user_id AND NOT m.is_withheld
                        OR m.members_version IS NOT NULL AND EXISTS (
                            SELECT FROM inbox i
                            WHERE i.user_id = c.user_id
                                AND i.pos >= (lpad(to_hex(c.archived_ms), 12, '0') || repeat('0', 20))::uuid
                                AND i.conversation_id = c.conversation_id
                                AND (i.kind = 1 AND i.message_id = m.message_id
                                    OR i.kind = 6 AND position(uuid_send(m.message_id) IN i.data) > 0))))
            FOR NO KEY UPDATE OF c SKIP LOCKED))
        RETURNING 1
    )
    SELECT count(*) FROM woken
"""


class PostgresRetentionStore:
    """The port `RetentionStore` on PostgreSQL, over the connections of the message store."""

    def __init__(self, connections: Connections) -> None:
        """Prepares; nothing is dialled."""
        self._connections = connections

    async def expire(self, limit: int, spent_before: Position) -> int:
        """Empties what has disappeared, and removes what was emptied before."""
        statements = [
            Statement(_EMPTY, (Int4(limit),)),
            Statement(_REMOVE, (Uuid(spent_before), Int4(limit))),
            *(Statement(query, (Int4(limit),)) for query in _BELONGINGS),
        ]
        done = 0
        for statement in statements:
            ((count,),) = await self._connections.run(statement)
            done += count
        return done

    async def forget(self, before: Position, after: UserId, limit: int) -> UserId | None:
        """Removes old events, so many of one inbox at a time until there are none."""
        statement = Statement(_FORGET, (Uuid(after), Int4(limit), Uuid(before), Int4(EVENTS_FORGOTTEN)))
        while True:
            ((count, last),) = await self._connections.run(statement)
            if not count:
                return None if last is None else UserId(last)

    async def wake(self, since_ms: int, floor: Position) -> int:
        """Brings back what was archived too early."""
        ((count,),) = await self._connections.run(Statement(_WAKE, (Int8(since_ms), Uuid(floor))))
        return int(count)
