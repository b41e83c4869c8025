"""Answers what became of messages."""

from collections.abc import Sequence
from typing import Final

from svc_message.adapters.inbox_rows import MESSAGE
from svc_message.adapters.ledger_cassandra.bodies import BodyKey, read_bodies
from svc_message.adapters.ledger_cassandra.bounds import Bounds
from svc_message.adapters.ledger_cassandra.cells import Header, integer, smallint
from svc_message.adapters.ledger_cassandra.connection import Connection, Read
from svc_message.adapters.ledger_cassandra.copies import Copy, CopyKey, read_copies
from svc_message.adapters.ledger_cassandra.lines import read_pairs
from svc_message.model import DeviceId, ReceiptState, UserId
from svc_message.model.trace import InboxPointer, MessageTrace, TracedKind, TraceQuery, UserReceipt
from svc_message.protocol import is_group, position_at

EVENTS_SEARCHED: Final = 10_000
_EARLIER_MS: Final = 1000
"""A position is minted before its message is accepted."""

_EVENTS: Final = """
    SELECT uuid_as_blob(pos), kind, uuid_as_blob(conversation_id), uuid_as_blob(item_id) FROM inbox
    WHERE user_id = ? AND week = ? AND pos > ? LIMIT ?
"""
_VOID: Final = MessageTrace(
    TracedKind.VOID, 0, UserId(b""), DeviceId(0), UserId(b""), 0, is_withheld=False, pointers=(), receipts=()
)


class CassandraTraceStore:
    """The port `TraceStore` on Cassandra."""

    def __init__(self, connection: Connection, bounds: Bounds) -> None:
        """Prepares; nothing is dialled."""
        self._connection = connection
        self._bounds = bounds

    async def read_trace(self, query: TraceQuery) -> MessageTrace | None:
        """Returns what is known of a message; None when there is none."""
        found = await self._rows(query)
        if any(row.is_void for row in found.values()):
            return _VOID
        headers = [row.header for row in found.values() if row.header is not None]
        if not headers:
            return None
        header = max(headers, key=Header.cell)
        is_direct = not is_group(query.conversation_id)
        readers = [user_id for user_id in header.seers if user_id == header.sender_id or is_direct]
        reader = found.get(header.recipient_id)
        return MessageTrace(
            TracedKind.MESSAGE,
            header.accepted_ms,
            header.sender_id,
            header.sender_device_id,
            header.recipient_id if is_direct else UserId(b""),
            header.recipient_count,
            header.is_withheld,
            await self._pointers(query, header, readers),
            _receipts(header, reader) if is_direct and reader is not None else (),
        )

    async def _rows(self, query: TraceQuery) -> dict[UserId, Copy]:
        """Returns the rows of a message by user; of a group by the group."""
        if is_group(query.conversation_id):
            bodies = await read_bodies(self._connection, [BodyKey(*query)])
            return {UserId(key.conversation_id): body for key, body in bodies.items()}
        (pair,) = await read_pairs(self._connection, [query.conversation_id])
        copies = await read_copies(self._connection, [CopyKey(user_id, *query) for user_id in set(pair)])
        return {key.user_id: copy for key, copy in copies.items()}

    async def _pointers(self, query: TraceQuery, header: Header, users: Sequence[UserId]) -> tuple[InboxPointer, ...]:
        after = position_at(header.accepted_ms - _EARLIER_MS)
        weeks = [(user_id, week) for user_id in users for week in self._bounds.weeks_after(after)]
        reads = [Read(_EVENTS, (user, smallint(week), after, integer(EVENTS_SEARCHED))) for user, week in weeks]
        wanted = (MESSAGE, query.conversation_id, query.message_id)
        return tuple(
            sorted(
                InboxPointer(position, user_id)
                for (user_id, _), rows in zip(weeks, await self._connection.read(reads), strict=True)
                for position, *named in rows
                if tuple(named) == wanted
            )
        )


def _receipts(header: Header, copy: Copy) -> tuple[UserReceipt, ...]:
    """Returns how far the recipient has come, by its own row."""
    if not copy.delivered_ms:
        return ()
    state = ReceiptState.READ if copy.read_ms else ReceiptState.DELIVERED
    return (UserReceipt(header.recipient_id, state, copy.delivered_ms, copy.read_ms),)
