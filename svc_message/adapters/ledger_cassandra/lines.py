"""Reads and writes the lines of chat lists."""

from collections.abc import Collection, Iterator, Sequence
from typing import Final, NamedTuple

from svc_message.adapters.ledger_cassandra.cells import (
    NO_ID,
    Rank,
    bigint,
    bucket_of,
    set_of_smallint,
    stamp,
    stamp_of_id,
)
from svc_message.adapters.ledger_cassandra.connection import Connection, Read, Row, Write
from svc_message.model import ConversationId, MessageId, MessageRef, UserId
from svc_message.model.setting import Settings

TOUCH_INTERVAL_MS: Final = 60_000
TOUCHES_KEPT: Final = 200_000
LATE_MS: Final = 660_000
"""How old an id may be when it is accepted first: 10 minutes, and what clocks may be off."""

_COLUMNS: Final = """
    SELECT uuid_as_blob(conversation_id), uuid_as_blob(peer_id), last_ms, buckets, uuid_as_blob(read_upto),
        uuid_as_blob(cleared_upto), cleared_ms, uuid_as_blob(cleared_floor), pinned_ms, archived_ms, muted_until_ms,
        expiry_s, uuid_as_blob(settings_pos)
    FROM conversations WHERE user_id = ?
"""
_ONE: Final = f"{_COLUMNS} AND conversation_id = ?"
_TOUCH: Final = """
    UPDATE conversations USING TIMESTAMP ? SET peer_id = ?, last_ms = ?, buckets = buckets + ?
    WHERE user_id = ? AND conversation_id = ?
"""
_MOVE: Final = "UPDATE conversations USING TIMESTAMP ? SET read_upto = ? WHERE user_id = ? AND conversation_id = ?"
_PAIR_OF: Final = "SELECT uuid_as_blob(one_id), uuid_as_blob(other_id) FROM pairs WHERE conversation_id = ?"
_PAIR: Final = "INSERT INTO pairs (conversation_id, one_id, other_id) VALUES (?, ?, ?) USING TIMESTAMP ?"


class Line(NamedTuple):
    """One line of one user's chat list; ids are empty where there is none."""

    conversation_id: ConversationId
    peer_id: UserId
    last_ms: int
    """0 when it is on no list."""
    buckets: Collection[int]
    read_upto: bytes = b""
    cleared_upto: bytes = b""
    cleared_ms: int = 0
    cleared_floor: bytes = b""
    pinned_ms: int = 0
    archived_ms: int = 0
    muted_until_ms: int = 0
    expiry_s: int = 0
    settings_position: bytes = b""

    @classmethod
    def of(cls, row: Row) -> "Line":
        """Reads a row."""
        conversation_id, peer_id, last_ms, buckets, *rest = row
        upto, cleared, cleared_ms, floor, pinned_ms, archived_ms, muted_ms, expiry_s, settings = rest
        return cls(
            conversation_id,
            peer_id or UserId(NO_ID),
            last_ms or 0,
            buckets or (),
            upto or b"",
            cleared or b"",
            cleared_ms or 0,
            floor or b"",
            pinned_ms or 0,
            archived_ms or 0,
            muted_ms or 0,
            expiry_s or 0,
            settings or b"",
        )

    def shows(self, message_id: bytes, accepted_ms: int) -> bool:
        """Tells whether a message was not cleared: one that was accepted later was not there to be."""
        if message_id <= self.cleared_floor:
            return False
        return message_id > self.cleared_upto or accepted_ms > self.cleared_ms

    @property
    def is_archived(self) -> bool:
        """Whether it was archived and nobody has written since, as far as the line knows."""
        return self.archived_ms > 0 and self.last_ms <= self.archived_ms

    def settings(self) -> Settings:
        """Returns how the user keeps the conversation."""
        return Settings(
            self.muted_until_ms,
            self.pinned_ms,
            self.is_archived,
            self.cleared_upto,
            self.expiry_s,
            self.cleared_ms,
        )


class Touching(NamedTuple):
    """A message that may move its conversation up in the lists of those who see it."""

    message_id: MessageId
    conversation_id: ConversationId
    sender_id: UserId
    recipient_id: UserId
    is_withheld: bool
    accepted_ms: int


class Touches:
    """Remembers which conversations were moved up in the chat lists within the last minute.

    A conversation whose message is withheld is remembered apart: its recipient has no line for it.
    """

    def __init__(self) -> None:
        self._last: dict[bytes, tuple[int, int]] = {}

    def due(self, message: Touching) -> list[Write]:
        """Returns the lines that a message makes necessary; none when they were written just now."""
        known, bucket = self._last.get(_touch_key(message)), bucket_of(message.message_id)
        if known is not None and known[1] == bucket and 0 <= message.accepted_ms - known[0] < TOUCH_INTERVAL_MS:
            return []
        lines = [touch(message.sender_id, message.recipient_id, message)]
        if not message.is_withheld and message.recipient_id != message.sender_id:
            lines.append(touch(message.recipient_id, message.sender_id, message))
        if known is None:
            lines.append(pair(message))
        return lines

    def done(self, messages: Sequence[Touching]) -> None:
        """Remembers the lines of messages as written."""
        if len(self._last) + len(messages) > TOUCHES_KEPT:
            self._last.clear()
        for message in messages:
            self._last[_touch_key(message)] = (message.accepted_ms, bucket_of(message.message_id))

    def forget(self, conversation_id: bytes) -> None:
        """Lets the next message of a conversation bring it back into the lists, whatever was written just now."""
        self._last.pop(conversation_id, None)


async def read_lines(connection: Connection, places: Sequence[tuple[UserId, ConversationId]]) -> list[Line | None]:
    """Reads single lines, in order."""
    found = await connection.read([Read(_ONE, place) for place in places])
    return [Line.of(rows[0]) if rows else None for rows in found]


async def read_list(connection: Connection, user_id: UserId) -> list[Line]:
    """Reads every line of a user."""
    (rows,) = await connection.read([Read(_COLUMNS, (user_id,))])
    return [Line.of(row) for row in rows]


async def read_pairs(connection: Connection, conversation_ids: Sequence[ConversationId]) -> list[tuple[UserId, ...]]:
    """Returns who is in direct conversations, in order; nobody in one that is not known."""
    found = await connection.read([Read(_PAIR_OF, (one,)) for one in conversation_ids])
    return [tuple(map(UserId, rows[0])) if rows else () for rows in found]


def touch(user_id: UserId, peer_id: UserId, message: Touching) -> Write:
    """Returns what moves a conversation up in one list; it stays where a later message has put it."""
    message_id, conversation_id = message.message_id, message.conversation_id
    last_ms = bigint(int.from_bytes(message_id[:6], "big"))
    bucket = set_of_smallint(bucket_of(message_id))
    values = (stamp_of_id(message_id), peer_id, last_ms, bucket, user_id, conversation_id)
    return Write(_TOUCH, (user_id,), values)


def move(user_id: UserId, conversation_id: ConversationId, read_upto: bytes) -> Write:
    """Returns what moves the place up to which a user has read; the greatest of all stands."""
    return Write(_MOVE, (user_id,), (stamp_of_id(read_upto), read_upto, user_id, conversation_id))


def pair(message: Touching | MessageRef) -> Write:
    """Returns what says who is in the conversation of a direct message."""
    one, other = sorted((message.sender_id, message.recipient_id))
    conversation_id = message.conversation_id
    values = (conversation_id, one, other, stamp(message.message_id, Rank.SENT))
    return Write(_PAIR, (conversation_id,), values)


def touches_of(messages: Sequence[Touching], touches: Touches) -> Iterator[list[Write]]:
    """Yields for each message the lines that it makes necessary; one line for several messages of a conversation."""
    newest: dict[bytes, Touching] = {}
    for message in messages:
        key = _touch_key(message) + bucket_of(message.message_id).to_bytes(2, "big")
        newest[key] = max(newest.get(key, message), message)
    chosen = set(newest.values())
    for message in messages:
        yield touches.due(message) if message in chosen else []


def _touch_key(message: Touching) -> bytes:
    return message.conversation_id + message.sender_id if message.is_withheld else message.conversation_id
