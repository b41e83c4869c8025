"""Answers what became of direct messages that are kept in PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from psycopg.types.numeric import Int4

from svc_message.adapters.message_store_postgres.accepting import VOID
from svc_message.adapters.message_store_postgres.arrays import Uuid, uuids
from svc_message.adapters.message_store_postgres.connections import Connections, Row, Statement
from svc_message.model import DeviceId, ReceiptState, UserId
from svc_message.model.trace import InboxPointer, MessageTrace, TracedKind, UserReceipt

if TYPE_CHECKING:
    from svc_message.model.trace import TraceQuery

EVENTS_SEARCHED: Final = 10_000

_FACTS: Final = b"""
    SELECT kind, accepted_ms, sender_id, sender_device_id, recipient_id, is_withheld, pos, recipient_count
    FROM messages WHERE conversation_id = %b AND message_id = %b
"""

# The first pointer has the position of the message's row; those of later attempts come after it in the log.
_POINTERS: Final = b"""
    SELECT i.pos, i.user_id
    FROM unnest(%b) AS t (user_id)
    CROSS JOIN LATERAL (
        SELECT * FROM inbox WHERE user_id = t.user_id AND pos >= %b ORDER BY pos LIMIT %b
    ) i
    WHERE i.kind = 1 AND i.conversation_id = %b AND i.message_id = %b
"""

_RECEIPTS: Final = b"""
    SELECT user_id, state, delivered_ms, read_ms
    FROM receipts WHERE conversation_id = %b AND message_id = %b ORDER BY user_id
"""

_VOID: Final = MessageTrace(
    TracedKind.VOID, 0, UserId(b""), DeviceId(0), UserId(b""), 0, is_withheld=False, pointers=(), receipts=()
)


class PostgresTraceStore:
    """The port `TraceStore` on PostgreSQL, on a connection of its own: an operator's question holds up nobody."""

    def __init__(self, dsn: str, *, timeout_s: float = 5.0) -> None:
        """Prepares; nothing is dialled before the first question."""
        self._connections = Connections(dsn, size=1, timeout_s=timeout_s)

    async def aclose(self) -> None:
        """Closes the connection."""
        await self._connections.aclose()

    async def read_trace(self, query: TraceQuery) -> MessageTrace | None:
        """Returns what is known of a message; None when there is none."""
        place = (Uuid(query.conversation_id), Uuid(query.message_id))
        rows = await self._connections.run(Statement(_FACTS, place))
        if not rows:
            return None
        kind, accepted_ms, sender_id, device_id, recipient_id, is_withheld, first, recipient_count = rows[0]
        if kind == VOID:
            return _VOID
        # In a group the group stands where the recipient would.
        is_direct = recipient_id != query.conversation_id
        users = uuids(sorted({sender_id, recipient_id} if is_direct else {sender_id}))
        pointers, receipts = await self._connections.run_together(
            Statement(_POINTERS, (users, Uuid(first), Int4(EVENTS_SEARCHED), *place)), Statement(_RECEIPTS, place)
        )
        return MessageTrace(
            TracedKind.MESSAGE,
            accepted_ms,
            sender_id,
            device_id,
            recipient_id if is_direct else UserId(b""),
            recipient_count or 0,
            is_withheld,
            tuple(sorted(InboxPointer(*row) for row in pointers)),
            tuple(map(_receipt, receipts)),
        )


def _receipt(row: Row) -> UserReceipt:
    user_id, state, delivered_ms, read_ms = row
    return UserReceipt(user_id, ReceiptState(state), delivered_ms, read_ms)
