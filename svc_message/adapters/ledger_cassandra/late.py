"""Finds the messages that were accepted late: between them and the place up to which somebody has read lie others."""

from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from svc_message.adapters.ledger_cassandra.cells import (
    Header,
    Rank,
    body_bucket_of,
    integer,
    ordered,
    smallint,
    stamp,
    time_to_live_s,
)
from svc_message.adapters.ledger_cassandra.connection import Connection, Read, Write
from svc_message.model import ConversationId, MessageId, NewMessage
from svc_message.model.group import NewGroupMessage
from svc_message.protocol import after_id, is_late

_STORE: Final = """
    INSERT INTO late_messages (conversation_id, bucket, message_id) VALUES (?, ?, ?) USING TIMESTAMP ? AND TTL ?
"""
_BETWEEN: Final = """
    SELECT uuid_as_blob(message_id) FROM late_messages
    WHERE conversation_id = ? AND bucket = ? AND message_id > ? AND message_id < ? LIMIT ?
"""


class Past(NamedTuple):
    """A part of a conversation of which the late messages are wanted; of some minutes."""

    conversation_id: ConversationId
    after: bytes
    upto: bytes


class Late(NamedTuple):
    """Late messages of a part of a conversation, the oldest first."""

    ids: list[MessageId]
    end: bytes
    """Up to where these are all; what lies behind it has to be looked for among all others."""


def note_late(message: NewMessage | NewGroupMessage, header: Header, now_ms: int) -> Iterator[Write]:
    """Yields what an attempt says of a message when it is late; it disappears with the message."""
    message_id, conversation_id = message.message_id, message.conversation_id
    if not is_late(message_id, message.accepted_ms):
        return
    partition = (conversation_id, smallint(body_bucket_of(message_id)))
    ttl = integer(time_to_live_s(header.expires_ms, now_ms))
    yield Write(_STORE, partition, (*partition, message_id, stamp(message_id, Rank.SENT), ttl))


async def read_late(connection: Connection, asked: Sequence[Past], limit: int) -> list[Late]:
    """Reads late messages in order, so many of each part at most, whoever sees them."""
    reads = [(n, read) for n, past in enumerate(asked) for read in _reads(past, limit)]
    found: list[list[MessageId]] = [[] for _ in asked]
    for (n, _), rows in zip(reads, await connection.read([read for _, read in reads]), strict=True):
        found[n] += [MessageId(message_id) for (message_id,) in rows[: limit - len(found[n])]]
    return [Late(ids, ids[-1] if len(ids) == limit else past.upto) for ids, past in zip(found, asked, strict=True)]


def _reads(past: Past, limit: int) -> Iterator[Read]:
    bounds = (ordered(past.after), ordered(after_id(past.upto)))
    for bucket in dict.fromkeys((body_bucket_of(past.after), body_bucket_of(past.upto))):
        yield Read(_BETWEEN, (past.conversation_id, smallint(bucket), *bounds, integer(limit)))
