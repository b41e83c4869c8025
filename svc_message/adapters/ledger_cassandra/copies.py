"""Reads and writes the rows of messages: one for each participant, in its own partition."""

from collections.abc import AsyncIterator, Collection, Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple

from svc_message.adapters.ledger_cassandra.cells import (
    Edit,
    Header,
    Rank,
    bucket_of,
    envelope_of,
    integer,
    list_of_ids,
    ordered,
    smallint,
    stamp,
    stamp_of_content,
    time_of_earliest,
    time_to_live_s,
)
from svc_message.adapters.ledger_cassandra.connection import Connection, Read, Row, Write
from svc_message.model import ConversationId, MessageEvent, MessageId, Position, UserId

IDS_IN_READ: Final = 100
ROWS_WALKED: Final = 100
"""How many rows are read at once where those that were asked for were not enough: some are hidden, or disappeared."""
BUCKETS_AT_ONCE: Final = 3
"""Of a stretch in more buckets the next are read only when these hold too little."""
_FIRST_ID: Final = bytes(16)
_LAST_ID: Final = b"\xff" * 16

_LIGHT: Final = """
    uuid_as_blob(message_id), header, is_void, edit, revoked, is_hidden, is_reacted, delivered_ms, read_ms,
    is_read_told
"""
_WHOLE: Final = _LIGHT + ", envelope"
_PARTITION: Final = "FROM messages WHERE user_id = ? AND conversation_id = ? AND bucket = ?"
_NAMED: Final = f"SELECT {_WHOLE} {_PARTITION} AND message_id IN ?"
_NAMED_LIGHT: Final = f"SELECT {_LIGHT} {_PARTITION} AND message_id IN ?"
_BETWEEN: Final = f"{_PARTITION} AND message_id > ? AND message_id < ?"
_NEWEST: Final = f"SELECT {_WHOLE} {_BETWEEN} LIMIT ?"
_NEWEST_LIGHT: Final = f"SELECT {_LIGHT} {_BETWEEN} LIMIT ?"
_OLDEST: Final = f"SELECT {_WHOLE} {_BETWEEN} ORDER BY message_id ASC LIMIT ?"
_OLDEST_LIGHT: Final = f"SELECT {_LIGHT} {_BETWEEN} ORDER BY message_id ASC LIMIT ?"

_STORE: Final = """
    INSERT INTO messages (user_id, conversation_id, bucket, message_id, header, envelope) VALUES (?, ?, ?, ?, ?, ?)
    USING TIMESTAMP ?
"""
_STORE_HEADER: Final = """
    INSERT INTO messages (user_id, conversation_id, bucket, message_id, header) VALUES (?, ?, ?, ?, ?)
    USING TIMESTAMP ?
"""
_STORE_ENVELOPE: Final = """
    UPDATE messages USING TIMESTAMP ? AND TTL ? SET envelope = ?
    WHERE user_id = ? AND conversation_id = ? AND bucket = ? AND message_id = ?
"""
_SET_VOID: Final = """
    UPDATE messages USING TIMESTAMP ? SET is_void = ?
    WHERE user_id = ? AND conversation_id = ? AND bucket = ? AND message_id = ?
"""


class CopyKey(NamedTuple):
    """Names one participant's row of a message."""

    user_id: UserId
    conversation_id: ConversationId
    message_id: MessageId

    @property
    def bucket(self) -> bytes:
        """The last part of the partition key."""
        return smallint(bucket_of(self.message_id))


class Copy(NamedTuple):
    """One participant's row of a message; without a header it says nothing of a message.

    What is left out was not written on it.
    """

    message_id: MessageId
    header: Header | None
    is_void: bool = False
    edit: Edit | None = None
    revoked_ms: int = 0
    """0 when it was not taken back."""
    is_hidden: bool = False
    is_reacted: bool = False
    delivered_ms: int = 0
    read_ms: int = 0
    is_read_told: bool = True
    envelope: bytes = b""

    @classmethod
    def of(cls, row: Row) -> "Copy":
        """Reads a row, with its envelope or without; raises when it cannot be read, see `copies_of`."""
        message_id, header, is_void, edit, revoked, is_hidden, is_reacted, delivered_ms, read_ms, is_told = row[:10]
        return cls(
            message_id,
            Header.read(header) if header else None,
            is_void is True,
            Edit.read(edit),
            time_of_earliest(revoked),
            is_hidden is True,
            is_reacted is True,
            delivered_ms or 0,
            read_ms or 0,
            is_told is not False,
            envelope_of(row[10]) if len(row) > 10 else b"",  # noqa: PLR2004 - it is the last column, if any
        )

    def is_there(self, now_ms: int) -> bool:
        """Tells whether it is a message that has not disappeared."""
        return self.header is not None and not self.is_void and not self.is_over(now_ms)

    def is_over(self, now_ms: int) -> bool:
        """Tells whether it has disappeared."""
        return self.header is not None and 0 < self.header.expires_ms <= now_ms

    def is_seen(self, now_ms: int) -> bool:
        """Tells whether the user sees it."""
        return self.is_there(now_ms) and not self.is_hidden

    @property
    def is_altered(self) -> bool:
        """Tells whether what was sent first is not what is shown."""
        return self.edit is not None or bool(self.revoked_ms)

    def event(self, conversation_id: ConversationId, position: Position) -> MessageEvent:
        """Returns the message as the user sees it; only of what is there."""
        header = self.header
        assert header is not None  # noqa: S101 - is_there has said so
        envelope, edited_ms = self.envelope, 0
        if self.revoked_ms:
            envelope = b""
        elif self.edit is not None:
            envelope, edited_ms = self.edit.envelope, self.edit.accepted_ms
        return MessageEvent(
            position,
            self.message_id,
            conversation_id,
            header.sender_id,
            header.sender_device_id,
            header.recipient_id,
            header.accepted_ms,
            envelope,
            edited_ms,
            self.revoked_ms,
            header.expires_ms,
            header.members_version,
        )


async def read_copies(
    connection: Connection, keys: Iterable[CopyKey], *, is_whole: bool = False
) -> dict[CopyKey, Copy]:
    """Reads the rows that are there; with their envelopes when they are asked for whole."""
    partitions: dict[tuple[UserId, ConversationId, bytes], dict[MessageId, None]] = {}
    for key in keys:
        place = (key.user_id, key.conversation_id, key.bucket)
        partitions.setdefault(place, {})[key.message_id] = None
    query = _NAMED if is_whole else _NAMED_LIGHT
    reads = [
        (place, Read(query, (*place, list_of_ids(chunk)))) for place, ids in partitions.items() for chunk in chunks(ids)
    ]
    found: dict[CopyKey, Copy] = {}
    for (place, _), rows in zip(reads, await connection.read([read for _, read in reads]), strict=True):
        user_id, conversation_id, _ = place
        for copy in copies_of(connection, rows):
            found[CopyKey(user_id, conversation_id, copy.message_id)] = copy
    return found


def copies_of(connection: Connection, rows: Iterable[Row]) -> list[Copy]:
    """Reads rows, in order; one that cannot be read says nothing of a message, as if it had no header."""
    return connection.unreadable.each(Copy.of, rows, _blank)


def _blank(row: Row) -> Copy:
    return Copy(row[0], None, row[2] is True)


class Stretch(NamedTuple):
    """A part of what one user has of a conversation."""

    user_id: UserId
    conversation_id: ConversationId
    buckets: Collection[int]
    """Those in which the user has rows."""
    after: bytes = b""
    before: bytes = b""

    def bounds(self) -> tuple[bytes, bytes]:
        """Returns the ids between which its messages are."""
        return ordered(self.after or _FIRST_ID), ordered(self.before or _LAST_ID)

    def within(self) -> list[int]:
        """Returns the buckets that it touches, the newest first."""
        after, before = self.bounds()
        low = bucket_of(after) if self.after else 0
        high = bucket_of(before) if self.before else 32_767
        return sorted((one for one in self.buckets if low <= one <= high), reverse=True)


async def walk(
    connection: Connection, stretch: Stretch, rows_at_once: int, *, is_oldest_first: bool = False
) -> AsyncIterator[Copy]:
    """Goes through the rows of a stretch, newest first unless said otherwise, bucket by bucket; reads as it goes."""
    after, before = stretch.bounds()
    buckets = stretch.within()
    query, count = _NEWEST, rows_at_once
    if is_oldest_first:
        query, buckets = _OLDEST, buckets[::-1]
    for bucket in buckets:
        place = (stretch.user_id, stretch.conversation_id, smallint(bucket))
        start, end = after, before
        while True:
            (rows,) = await connection.read([Read(query, (*place, start, end, integer(count)))])
            for copy in copies_of(connection, rows):
                yield copy
            if len(rows) < count:
                break
            count = max(count, ROWS_WALKED)
            start, end = (rows[-1][0], end) if is_oldest_first else (start, rows[-1][0])


async def read_stretches(
    connection: Connection, stretches: Sequence[Stretch], limit: int, *, is_oldest_first: bool = False
) -> list[list[Copy]]:
    """Reads rows of many stretches at once, without their envelopes, so many of each at most, in order."""
    query, step = (_OLDEST_LIGHT, -1) if is_oldest_first else (_NEWEST_LIGHT, 1)
    left = {n: stretch.within()[::step] for n, stretch in enumerate(stretches)}
    found: list[list[Copy]] = [[] for _ in stretches]
    while left:
        places = [(n, bucket) for n, buckets in left.items() for bucket in buckets[:BUCKETS_AT_ONCE]]
        reads = [_light(query, stretches[n], bucket, limit) for n, bucket in places]
        for (n, _), rows in zip(places, await connection.read(reads), strict=True):
            found[n] += copies_of(connection, rows[: limit - len(found[n])])
        left = {n: more for n, buckets in left.items() if len(found[n]) < limit and (more := buckets[BUCKETS_AT_ONCE:])}
    return found


def _light(query: str, stretch: Stretch, bucket: int, limit: int) -> Read:
    place = (stretch.user_id, stretch.conversation_id, smallint(bucket))
    return Read(query, (*place, *stretch.bounds(), integer(limit)))


def newest_of(place: tuple[UserId, ConversationId, int], limit: int) -> Read:
    """Returns what reads the newest rows of one bucket."""
    user_id, conversation_id, bucket = place
    bounds = (_FIRST_ID, ordered(_LAST_ID), integer(limit))
    return Read(_NEWEST, (user_id, conversation_id, smallint(bucket), *bounds))


def store(key: CopyKey, header: Header, cells: tuple[bytes, bytes], now_ms: int) -> Iterator[Write]:
    """Yields what stores one participant's row, header and envelope as their cells."""
    user_id, conversation_id, message_id = key
    bucket, sent = key.bucket, stamp(message_id, Rank.SENT)
    partition = (user_id, conversation_id, bucket)
    if not header.expiry_s:
        yield Write(_STORE, partition, (*partition, message_id, *cells, sent))
        return
    header_cell, envelope_cell = cells
    yield Write(_STORE_HEADER, partition, (*partition, message_id, header_cell, sent))
    ttl = integer(time_to_live_s(header.expires_ms, now_ms))
    at = stamp_of_content(message_id, header.accepted_ms)
    yield Write(_STORE_ENVELOPE, partition, (at, ttl, envelope_cell, *partition, message_id))


def set_void(key: CopyKey, *, is_withdrawn: bool = False) -> Write:
    """Returns what declares one participant's row void, or withdraws that."""
    user_id, conversation_id, message_id = key
    partition = (user_id, conversation_id, key.bucket)
    rank, value = (Rank.WITHDRAWN, b"\x00") if is_withdrawn else (Rank.VOID, b"\x01")
    return Write(_SET_VOID, partition, (stamp(message_id, rank), value, *partition, message_id))


def chunks(ids: Iterable[Any]) -> Iterator[list[Any]]:
    """Yields as many ids as one read names."""
    wanted = list(ids)
    for start in range(0, len(wanted), IDS_IN_READ):
        yield wanted[start : start + IDS_IN_READ]
