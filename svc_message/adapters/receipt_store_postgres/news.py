"""Says in the inboxes of senders that messages to groups came further."""

from collections.abc import Sequence
from typing import Final

from psycopg.types.numeric import Int4, Int8

from svc_message.adapters.message_store_postgres.arrays import Uuid, uuids
from svc_message.adapters.message_store_postgres.connections import Connections, Statement
from svc_message.model import Position
from svc_message.model.receipt import News
from svc_message.ports.receipt import NEWS_INTERVAL_MS

CLAIMED: Final = 1000

_CLAIM: Final = b"""
    WITH due AS (
        SELECT sender_id, conversation_id FROM receipt_news
        WHERE due_ms <= %b ORDER BY due_ms LIMIT %b FOR UPDATE SKIP LOCKED
    ), claimed AS (
        UPDATE receipt_news n SET told_ms = %b, due_ms = %b FROM due
        WHERE n.sender_id = due.sender_id AND n.conversation_id = due.conversation_id
        RETURNING n.sender_id, n.conversation_id, n.changed_pos
    ), pointers AS (
        INSERT INTO inbox (user_id, pos, conversation_id, kind, data)
        SELECT sender_id, %b, conversation_id, 7, int8send(%b) FROM claimed
    )
    SELECT sender_id, conversation_id, changed_pos FROM claimed
"""

_SETTLE: Final = b"""
    UPDATE receipt_news n SET due_ms = CASE WHEN n.changed_pos = t.changed_pos THEN NULL ELSE %b END
    FROM unnest(%b, %b, %b) AS t (sender_id, conversation_id, changed_pos)
    WHERE n.sender_id = t.sender_id AND n.conversation_id = t.conversation_id
"""


async def claim(connections: Connections, position: Position, now_ms: int, until_ms: int) -> list[News]:
    """Takes up to a thousand of what is due longest."""
    now = Int8(now_ms)
    parameters = (now, Int4(CLAIMED), now, Int8(until_ms), Uuid(position), now)
    return [News(*row) for row in await connections.run(Statement(_CLAIM, parameters))]


async def settle(connections: Connections, told: Sequence[News], now_ms: int) -> None:
    """Rests what has not changed since, and lets the rest wait."""
    if not told:
        return
    senders, conversations, changes = zip(*sorted(told), strict=True)
    parameters = (Int8(now_ms + NEWS_INTERVAL_MS), uuids(senders), uuids(conversations), uuids(changes))
    await connections.run(Statement(_SETTLE, parameters))
