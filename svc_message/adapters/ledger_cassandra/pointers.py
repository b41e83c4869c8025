"""Writes the rows of inboxes."""

from typing import Final

from svc_message.adapters.inbox_rows import ACTION, CHANGE_ID_BYTES, FOREIGN, MESSAGE, OWN_READ, RECEIPT
from svc_message.adapters.ledger_cassandra.cells import (
    INBOX_TTL_S,
    NO_ID,
    integer,
    smallint,
    stamp_of_position,
    week_of,
)
from svc_message.adapters.ledger_cassandra.connection import UNSET, Write
from svc_message.model import ConversationId, ForeignAppend, MessageId, Position, UserId

_INSERT: Final = """
    INSERT INTO inbox (user_id, week, pos, kind, conversation_id, item_id, data) VALUES (?, ?, ?, ?, ?, ?, ?)
    USING TIMESTAMP ? AND TTL ?
"""
_KINDS: Final = {kind: bytes((kind,)) for kind in range(1, 32)}
_FULL_TTL: Final = integer(INBOX_TTL_S)


class Place:
    """A place in many inboxes: what belongs to a position is worked out once."""

    __slots__ = ("position", "stamp", "week")

    def __init__(self, position: Position) -> None:
        """Works it out."""
        self.position = position
        self.week = smallint(week_of(position))
        self.stamp = stamp_of_position(position)

    def message(
        self, user_id: UserId, conversation_id: ConversationId, message_id: MessageId, ttl_s: int = INBOX_TTL_S
    ) -> Write:
        """Returns the pointer to a message."""
        return self._row(user_id, MESSAGE, conversation_id, message_id, ttl_s)

    def action(self, user_id: UserId, conversation_id: ConversationId, action_id: MessageId, ttl_s: int) -> Write:
        """Returns the pointer to an action."""
        return self._row(user_id, ACTION, conversation_id, action_id, ttl_s)

    def receipt(
        self, user_id: UserId, conversation_id: ConversationId, first_id: MessageId, data: bytes, ttl_s: int
    ) -> Write:
        """Returns what tells a sender that messages came further."""
        return self._row(user_id, RECEIPT, conversation_id, first_id, ttl_s, data)

    def own_read(self, user_id: UserId, conversation_id: ConversationId, read_upto: bytes, data: bytes) -> Write:
        """Returns what tells a reader's other devices what was read."""
        return self._row(user_id, OWN_READ, conversation_id, read_upto, INBOX_TTL_S, data)

    def foreign(self, user_id: UserId, append: ForeignAppend) -> Write:
        """Returns the event of another service."""
        if len(append.change_id) != CHANGE_ID_BYTES:
            raise ValueError("a change id is not 16 bytes long")
        return self._row(user_id, FOREIGN, NO_ID, append.change_id, INBOX_TTL_S, append.change_id + append.item)

    def row(
        self,
        user_id: UserId,
        kind: int,
        conversation_id: bytes,
        item_id: bytes,
        data: bytes = b"",
        ttl_s: int = INBOX_TTL_S,
    ) -> Write:
        """Returns any other row; without data it has none."""
        return self._row(user_id, kind, conversation_id, item_id, ttl_s, data or UNSET)

    def _row(
        self, user_id: UserId, kind: int, conversation_id: bytes, item_id: bytes, ttl_s: int, data: bytes = UNSET
    ) -> Write:
        ttl = _FULL_TTL if ttl_s == INBOX_TTL_S else integer(ttl_s)
        values = (
            user_id,
            self.week,
            self.position,
            _KINDS[kind],
            conversation_id,
            item_id,
            data,
            self.stamp,
            ttl,
        )
        return Write(_INSERT, (user_id, self.week), values)
