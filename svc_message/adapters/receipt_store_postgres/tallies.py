"""Counts receipts and lists them; direct messages have one recipient, and stand in a table of their own."""

from collections.abc import Sequence
from typing import Final

from psycopg.types.numeric import Int4

from svc_message.adapters.message_store_postgres.arrays import Uuid, int4s, uuids
from svc_message.adapters.message_store_postgres.connections import Connections, Row, Statement
from svc_message.model import ReceiptState, UserId
from svc_message.model.receipt import MemberReceipt, MessageName, Tally

_FIRST: Final = UserId(bytes(16))

_TALLY: Final = b"""
    SELECT t.n, m.sender_id, coalesce(m.recipient_count, (m.recipient_id <> m.sender_id)::integer), c.delivered, c.read
    FROM unnest(%b, %b, %b) AS t (n, conversation_id, message_id)
    CROSS JOIN LATERAL (
        SELECT x.* FROM messages x WHERE x.conversation_id = t.conversation_id AND x.message_id = t.message_id LIMIT 1
    ) m
    CROSS JOIN LATERAL (
        SELECT count(*) AS delivered, count(*) FILTER (WHERE r.state >= 3 AND r.is_read_told) AS read
        FROM (
            SELECT g.state, g.is_read_told FROM group_receipts g
            WHERE m.members_version IS NOT NULL
                AND g.conversation_id = m.conversation_id AND g.message_id = m.message_id
            UNION ALL
            SELECT d.state, d.is_read_told FROM receipts d
            WHERE m.members_version IS NULL
                AND d.conversation_id = m.conversation_id AND d.message_id = m.message_id
        ) r
    ) c
    WHERE m.kind = 1
"""

_LIST: Final = b"""
    SELECT r.user_id, CASE WHEN r.is_read_told THEN r.state ELSE 2 END, r.delivered_ms,
        CASE WHEN r.is_read_told THEN r.read_ms ELSE 0 END
    FROM (
        SELECT user_id, state, is_read_told, delivered_ms, read_ms FROM group_receipts
        WHERE conversation_id = %b AND message_id = %b AND user_id > %b
        UNION ALL
        SELECT user_id, state, is_read_told, delivered_ms, read_ms FROM receipts
        WHERE conversation_id = %b AND message_id = %b AND user_id > %b
    ) r
    ORDER BY r.user_id LIMIT %b
"""


async def tally(connections: Connections, names: Sequence[MessageName]) -> list[Tally | None]:
    """Counts for many messages at once."""
    tallies: list[Tally | None] = [None] * len(names)
    parameters = (
        int4s(range(len(names))),
        uuids([name.conversation_id for name in names]),
        uuids([name.message_id for name in names]),
    )
    for n, *counts in await connections.run(Statement(_TALLY, parameters)):
        tallies[n] = Tally(*counts)
    return tallies


async def list_receipts(
    connections: Connections, name: MessageName, after: UserId | None, limit: int
) -> list[MemberReceipt]:
    """Lists a page of one message."""
    place = (Uuid(name.conversation_id), Uuid(name.message_id), Uuid(after or _FIRST))
    return [_receipt(row) for row in await connections.run(Statement(_LIST, (*place, *place, Int4(limit))))]


def _receipt(row: Row) -> MemberReceipt:
    user_id, state, delivered_ms, read_ms = row
    # States only rise: one that a later program has written lies beyond the last that is known.
    return MemberReceipt(user_id, ReceiptState(min(state, ReceiptState.READ)), delivered_ms, read_ms)
