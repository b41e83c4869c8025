"""Reads and writes the lines of chat lists, and in which order they stand."""

from collections.abc import AsyncIterator, Collection, Iterator, Sequence
from typing import Final, NamedTuple

from svc_message.adapters.ledger_cassandra.cells import (
    NO_ID,
    Rank,
    bigint,
    boolean,
    bucket_of,
    integer,
    list_of_ids,
    set_of_smallint,
    slot_at,
    smallint,
    stamp,
    stamp_of_id,
)
from svc_message.adapters.ledger_cassandra.connection import Connection, Read, Row, Write
from svc_message.adapters.ledger_cassandra.copies import chunks
from svc_message.model import ConversationId, MessageId, MessageRef, UserId
from svc_message.model.setting import Settings
from svc_message.protocol import milliseconds_of

TOUCH_INTERVAL_MS: Final = 60_000
TOUCHES_KEPT: Final = 200_000
LATE_MS: Final = 660_000
"""How old an id may be when it is accepted first: 10 minutes, and what clocks may be off."""
PINNED_SLOT: Final = 32_767
"""Where a pinned conversation stands in its list: before all others."""
ROWS_WALKED: Final = 100
"""How many rows of the order of a list are read at once."""

_COLUMNS: Final = """
    SELECT uuid_as_blob(conversation_id), uuid_as_blob(peer_id), last_ms, buckets, uuid_as_blob(read_upto),
        uuid_as_blob(cleared_upto), cleared_ms, uuid_as_blob(cleared_floor), pinned_ms, archived_ms, muted_until_ms,
        expiry_s, uuid_as_blob(settings_pos)
    FROM conversations WHERE user_id = ?
"""
_FIRST: Final = f"{_COLUMNS} LIMIT ?"
_NAMED: Final = f"{_COLUMNS} AND conversation_id IN ?"
_ONE: Final = f"{_COLUMNS} AND conversation_id = ?"
_TOUCH: Final = """
    UPDATE conversations USING TIMESTAMP ? SET peer_id = ?, last_ms = ?, buckets = buckets + ?
    WHERE user_id = ? AND conversation_id = ?
"""
_MOVE: Final = "UPDATE conversations USING TIMESTAMP ? SET read_upto = ? WHERE user_id = ? AND conversation_id = ?"
_PAIR_OF: Final = "SELECT uuid_as_blob(one_id), uuid_as_blob(other_id) FROM pairs WHERE conversation_id = ?"
_PAIR: Final = "INSERT INTO pairs (conversation_id, one_id, other_id) VALUES (?, ?, ?) USING TIMESTAMP ?"
_ORDER: Final = "INSERT INTO chat_order (user_id, is_archived, slot, conversation_id) VALUES (?, ?, ?, ?)"
_STANDING: Final = """
    SELECT slot, uuid_as_blob(conversation_id) FROM chat_order WHERE user_id = ? AND is_archived = ?
"""
_NEXT: Final = f"{_STANDING} AND slot <= ? LIMIT ?"
_REST: Final = f"{_STANDING} AND slot = ? AND conversation_id > ? LIMIT ?"


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

    @property
    def slot(self) -> int:
        """Where in the order of its list it stands, as far as the line knows."""
        return slot_of(self.last_ms, self.pinned_ms)

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

    @property
    def slot(self) -> int:
        """Where in the order of a list it moves its conversation up to."""
        return slot_at(milliseconds_of(self.message_id))


class Touches:
    """Remembers which conversations were moved up in the chat lists within the last minute.

    A conversation whose message is withheld is remembered apart: its recipient has no line for it.
    """

    def __init__(self) -> None:
        self._last: dict[bytes, tuple[int, int]] = {}

    def due(self, message: Touching) -> list[Write]:
        """Returns the lines that a message makes necessary; none when they were written just now."""
        known, slot = self._last.get(_touch_key(message)), message.slot
        is_moving = known is None or known[1] != slot
        if known is not None and not is_moving and 0 <= message.accepted_ms - known[0] < TOUCH_INTERVAL_MS:
            return []
        sides = [(message.sender_id, message.recipient_id)]
        if not message.is_withheld and message.recipient_id != message.sender_id:
            sides.append((message.recipient_id, message.sender_id))
        lines = [touch(user_id, peer_id, message) for user_id, peer_id in sides]
        if is_moving:
            lines += [stand(user_id, message.conversation_id, slot) for user_id, _ in sides]
        if known is None:
            lines.append(pair(message))
        return lines

    def done(self, messages: Sequence[Touching]) -> None:
        """Remembers the lines as written that messages have made necessary."""
        if len(self._last) + len(messages) > TOUCHES_KEPT:
            self._last.clear()
        for message in messages:
            self._last[_touch_key(message)] = (message.accepted_ms, message.slot)

    def forget(self, conversation_id: bytes) -> None:
        """Lets the next message of a conversation bring it back into the lists, whatever was written just now."""
        self._last.pop(conversation_id, None)


def no_line(conversation_id: ConversationId) -> Line:
    """Returns the line of who has none: nothing was read or cleared, and it is on no list."""
    return Line(conversation_id, UserId(NO_ID), 0, ())


async def read_lines(connection: Connection, places: Sequence[tuple[UserId, ConversationId]]) -> list[Line | None]:
    """Reads single lines, in order."""
    found = await connection.read([Read(_ONE, place) for place in places])
    return [Line.of(rows[0]) if rows else None for rows in found]


async def read_list(connection: Connection, user_id: UserId, limit: int) -> list[Line]:
    """Reads so many lines of a user, in no order that says anything."""
    (rows,) = await connection.read([Read(_FIRST, (user_id, integer(limit)))])
    return [Line.of(row) for row in rows]


async def walk_list(
    connection: Connection, user_id: UserId, slot: int, *, is_archived: bool
) -> AsyncIterator[tuple[int, list[Line]]]:
    """Goes through one list of a user from a slot on, the newest first.

    Yields the lines of whole slots, each line where it is met first, and the last of these slots: whatever the list has
    in it or in newer ones has been yielded. A line that was moved up, or is on the other list, is met here as well.
    """
    flag, met, is_over = boolean(is_archived), set[ConversationId](), False
    while not is_over:
        (rows,) = await connection.read([Read(_NEXT, (user_id, flag, smallint(slot), integer(ROWS_WALKED)))])
        is_over = len(rows) < ROWS_WALKED
        slot = 0 if is_over else rows[-1][0]
        found, more = [conversation_id for _, conversation_id in rows], rows
        while len(more) == ROWS_WALKED:
            place = (user_id, flag, smallint(slot), found[-1])
            (more,) = await connection.read([Read(_REST, (*place, integer(ROWS_WALKED)))])
            found += [conversation_id for _, conversation_id in more]
        wanted = [one for one in dict.fromkeys(found) if one not in met]
        met.update(wanted)
        yield slot, await _read_named(connection, user_id, wanted)
        is_over, slot = is_over or slot == 0, slot - 1


async def _read_named(
    connection: Connection, user_id: UserId, conversation_ids: Sequence[ConversationId]
) -> list[Line]:
    """Reads those lines of a user that are there."""
    found = await connection.read([Read(_NAMED, (user_id, list_of_ids(chunk))) for chunk in chunks(conversation_ids)])
    return [Line.of(row) for rows in found for row in rows]


async def read_pairs(connection: Connection, conversation_ids: Sequence[ConversationId]) -> list[tuple[UserId, ...]]:
    """Returns who is in direct conversations, in order; nobody in one that is not known."""
    found = await connection.read([Read(_PAIR_OF, (one,)) for one in conversation_ids])
    return [tuple(map(UserId, rows[0])) if rows else () for rows in found]


def slot_of(last_ms: int, pinned_ms: int) -> int:
    """Returns where in the order of its list a conversation stands."""
    return PINNED_SLOT if pinned_ms else slot_at(last_ms)


def touch(user_id: UserId, peer_id: UserId, message: Touching) -> Write:
    """Returns what moves a conversation up in one list; it stays where a later message has put it."""
    message_id, conversation_id = message.message_id, message.conversation_id
    last_ms = bigint(milliseconds_of(message_id))
    bucket = set_of_smallint(bucket_of(message_id))
    values = (stamp_of_id(message_id), peer_id, last_ms, bucket, user_id, conversation_id)
    return Write(_TOUCH, (user_id,), values)


def stand(user_id: UserId, conversation_id: ConversationId, slot: int, *, is_archived: bool = False) -> Write:
    """Returns what lets a conversation be met in a slot of one of the lists of a user."""
    place = (user_id, boolean(is_archived))
    return Write(_ORDER, place, (*place, smallint(slot), conversation_id))


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
        key = _touch_key(message) + message.slot.to_bytes(2, "big")
        newest[key] = max(newest.get(key, message), message)
    chosen = set(newest.values())
    for message in messages:
        yield touches.due(message) if message in chosen else []


def _touch_key(message: Touching) -> bytes:
    return message.conversation_id + message.sender_id if message.is_withheld else message.conversation_id
