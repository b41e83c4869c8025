"""Reads the messages to groups, which are stored once."""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from svc_message.adapters.ledger_cassandra.cells import (
    Edit,
    Header,
    Rank,
    body_bucket_of,
    envelope_of,
    integer,
    list_of_ids,
    ordered,
    smallint,
    stamp,
    time_of_earliest,
)
from svc_message.adapters.ledger_cassandra.connection import Connection, Read, Row, Write
from svc_message.adapters.ledger_cassandra.copies import Copy, chunks
from svc_message.model import ConversationId, MessageId
from svc_message.protocol import after_id

LIGHT: Final = "SELECT uuid_as_blob(message_id), header, is_void, edit, revoked, is_reacted"
WHOLE: Final = f"{LIGHT}, envelope"
_PARTITION: Final = "FROM bodies WHERE conversation_id = ? AND bucket = ?"
BETWEEN: Final = f"{_PARTITION} AND message_id > ? AND message_id < ?"
_NAMED: Final = f"{WHOLE} {_PARTITION} AND message_id IN ?"
_NAMED_LIGHT: Final = f"{LIGHT} {_PARTITION} AND message_id IN ?"
_NEWEST: Final = f"{LIGHT} {BETWEEN} LIMIT ?"
_BUCKETS: Final = "SELECT bucket FROM bounds WHERE conversation_id = ?"
_BEFORE: Final = """
    SELECT uuid_as_blob(message_id), header, is_void FROM bodies
    WHERE conversation_id = ? AND bucket = ? AND message_id < ? LIMIT ?
"""
_SEARCHED: Final = 20
_SET_VOID: Final = """
    UPDATE bodies USING TIMESTAMP ? SET is_void = ? WHERE conversation_id = ? AND bucket = ? AND message_id = ?
"""


class BodyKey(NamedTuple):
    """Names a message to a group."""

    conversation_id: ConversationId
    message_id: MessageId

    @property
    def bucket(self) -> bytes:
        """The last part of the partition key."""
        return smallint(body_bucket_of(self.message_id))


async def read_bodies(connection: Connection, keys: Iterable[BodyKey], *, is_whole: bool = True) -> dict[BodyKey, Copy]:
    """Reads the messages that are there, as everybody sees them; with what they say when they are asked for whole."""
    partitions: dict[tuple[ConversationId, bytes], dict[MessageId, None]] = {}
    for key in keys:
        partitions.setdefault((key.conversation_id, key.bucket), {})[key.message_id] = None
    query = _NAMED if is_whole else _NAMED_LIGHT
    reads = [
        (place[0], Read(query, (*place, list_of_ids(chunk))))
        for place, ids in partitions.items()
        for chunk in chunks(ids)
    ]
    found: dict[BodyKey, Copy] = {}
    for (group_id, _), rows in zip(reads, await connection.read([read for _, read in reads]), strict=True):
        for copy in bodies_of(connection, rows):
            found[BodyKey(group_id, copy.message_id)] = copy
    return found


async def read_between(
    connection: Connection, group_id: ConversationId, bounds: Sequence[tuple[bytes, bytes]], limit: int
) -> list[Copy]:
    """Reads messages to a group between two ids each, so many at most, as everybody sees them; without what they say.

    Two ids lie in one bucket or in two that follow each other.
    """
    reads = [
        Read(_NEWEST, (group_id, smallint(bucket), ordered(after), ordered(before), integer(limit)))
        for after, before in bounds
        for bucket in dict.fromkeys((body_bucket_of(before), body_bucket_of(after)))
    ]
    found = await connection.read(reads)
    return bodies_of(connection, [row for rows in found for row in rows])


async def newest_body(connection: Connection, group_id: ConversationId, upto: bytes) -> bytes:
    """Returns the newest message to a group at or before an id; empty for none."""
    (buckets,) = await connection.read([Read(_BUCKETS, (group_id,))])
    before = ordered(after_id(upto) or b"\xff" * 16)
    for bucket in sorted({row[0] for row in buckets if row[0] <= body_bucket_of(upto)}, reverse=True):
        found = await _newest_in(connection, (group_id, smallint(bucket)), before)
        if found:
            return found
    return b""


async def _newest_in(connection: Connection, partition: tuple[bytes, bytes], before: bytes) -> bytes:
    while True:
        (rows,) = await connection.read([Read(_BEFORE, (*partition, before, integer(_SEARCHED)))])
        found: bytes = next((message_id for message_id, header, is_void in rows if header and not is_void), b"")
        if found or len(rows) < _SEARCHED:
            return found
        before = rows[-1][0]


def bodies_of(connection: Connection, rows: Iterable[Row]) -> list[Copy]:
    """Reads rows as everybody sees them, in order; one that cannot be read says nothing of a message."""
    return connection.unreadable.each(_body, rows, _blank)


def _blank(row: Row) -> Copy:
    return Copy(row[0], None, row[2] is True)


def _body(row: Row) -> Copy:
    """Reads a row as everybody sees it, with its envelope or without."""
    message_id, header, is_void, edit, revoked, is_reacted, *envelope = row
    return Copy(
        message_id,
        Header.read(header) if header else None,
        is_void is True,
        Edit.read(edit),
        time_of_earliest(revoked),
        is_reacted=is_reacted is True,
        envelope=envelope_of(envelope[0]) if envelope else b"",
    )


def with_own(body: Copy, own: Copy | None) -> Copy:
    """Returns a message to a group as one member sees it, by the row of messages that it has of its own, if any."""
    if own is None:
        return body
    edit = max((one for one in (body.edit, own.edit) if one is not None), default=None)
    return body._replace(
        edit=edit,
        revoked_ms=body.revoked_ms or own.revoked_ms,
        is_hidden=own.is_hidden,
        is_reacted=body.is_reacted or own.is_reacted,
        delivered_ms=own.delivered_ms,
        read_ms=own.read_ms,
        is_read_told=own.is_read_told,
    )


def set_body_void(key: BodyKey, *, is_withdrawn: bool = False) -> Write:
    """Returns what declares a message void, or withdraws that."""
    partition = (key.conversation_id, key.bucket)
    rank, value = (Rank.WITHDRAWN, b"\x00") if is_withdrawn else (Rank.VOID, b"\x01")
    return Write(_SET_VOID, partition, (stamp(key.message_id, rank), value, *partition, key.message_id))
