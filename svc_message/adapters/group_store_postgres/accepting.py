"""Makes messages to groups durable: one statement stores a batch, the senders' pointers and the journal's entries."""

from collections.abc import Sequence
from typing import Final

from psycopg.types.numeric import Int8

from chappe.runtime.errors import UnavailableError
from svc_message.adapters.journal_postgres import shard_number
from svc_message.adapters.message_store_postgres.accepting import EXPIRING, STAYING, VOID
from svc_message.adapters.message_store_postgres.arrays import Uuid, byte_strings, int4s, int8s, uuids
from svc_message.adapters.message_store_postgres.connections import DEPENDENCY, Connections, Row, Statement
from svc_message.model import NO_POSITION, Verdict
from svc_message.model.group import GroupAccepted, NewGroupMessage, Shard

_KEY_BYTES: Final = 32

# The lock on the shard's row lasts until the commit: whoever ends the shard waits for it and sees the entries.
_STORE_TEXT: Final = """
    WITH shard AS MATERIALIZED (
        SELECT shard FROM journal_shards WHERE shard = %b FOR KEY SHARE
    ), stored AS (
        INSERT INTO messages (
            conversation_id, message_id, sender_id, recipient_id, pos, accepted_ms, sender_device_id, kind,
            is_withheld, content_hash, envelope, members_version, recipient_count{expires})
        SELECT conversation_id, message_id, sender_id, conversation_id, pos, accepted_ms, sender_device_id, 1,
            false, content_hash, envelope, members_version, recipient_count{expiry}
        FROM shard, unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b, %b{parameter}) AS t (
            message_id, conversation_id, sender_id, sender_device_id, envelope, content_hash, members_version,
            recipient_count, pos, accepted_ms{name})
        ON CONFLICT DO NOTHING
        RETURNING conversation_id, message_id, sender_id, pos, members_version{expires}
    ), pointers AS (
        INSERT INTO inbox (user_id, pos, conversation_id, message_id, kind{expires})
        SELECT sender_id, pos, conversation_id, message_id, 1{expires} FROM stored
    ), entries AS (
        INSERT INTO journal (shard, pos, conversation_id, message_id, sender_id, members_version, kind)
        SELECT shard, pos, conversation_id, message_id, sender_id, members_version, 1 FROM shard, stored
    )
    SELECT (SELECT count(*) FROM shard), string_agg(uuid_send(conversation_id) || uuid_send(message_id), ''::bytea)
    FROM stored
"""
_STORE: Final = _STORE_TEXT.format(**STAYING).encode()
_STORE_EXPIRING: Final = _STORE_TEXT.format(**EXPIRING).encode()

# What is found gets its pointer and its entry again, for those whom the first decision entitled.
_COMPLETE: Final = b"""
    WITH shard AS MATERIALIZED (
        SELECT shard FROM journal_shards WHERE shard = %b FOR KEY SHARE
    ), found AS (
        SELECT shard.shard, t.n, t.pos, m.conversation_id, m.message_id, m.sender_id, m.kind, m.accepted_ms,
            m.members_version, m.recipient_count, m.expires_ms, coalesce(m.edited_ms, m.revoked_ms) IS NOT NULL
                OR m.expires_ms <= extract(epoch FROM statement_timestamp()) * 1000 AS is_altered,
            m.content_hash = t.content_hash AND m.sender_id = t.sender_id AS is_same
        FROM shard, unnest(%b, %b, %b, %b, %b, %b) AS t (n, conversation_id, message_id, sender_id, content_hash, pos)
        CROSS JOIN LATERAL (
            SELECT x.* FROM messages x
            WHERE x.conversation_id = t.conversation_id AND x.message_id = t.message_id LIMIT 1
        ) m
    ), pointers AS (
        INSERT INTO inbox (user_id, pos, conversation_id, message_id, kind, expires_ms)
        SELECT sender_id, pos, conversation_id, message_id, 1, expires_ms FROM found WHERE kind = 1 AND is_same
    ), entries AS (
        INSERT INTO journal (shard, pos, conversation_id, message_id, sender_id, members_version, kind)
        SELECT shard, pos, conversation_id, message_id, sender_id, members_version, 1
        FROM found WHERE kind = 1 AND is_same
    )
    SELECT n, kind, is_same, accepted_ms, members_version, recipient_count, is_altered IS TRUE FROM found
"""

_BEGIN: Final = b"""
    INSERT INTO journal_shards (shard, mark, checkpointed_at) VALUES (%b, %b, clock_timestamp())
    ON CONFLICT DO NOTHING
"""


async def accept(connections: Connections, shard: Shard, batch: Sequence[NewGroupMessage]) -> list[GroupAccepted]:
    """Stores a batch of new messages; completes those that are there."""
    if not batch:
        return []
    number = Int8(shard_number(shard))
    statement = _store(number, batch)
    ((shards, keys),) = await connections.run(statement)
    if not shards:
        # Nobody has said yet that this process lives, or somebody thought that it was dead.
        _, ((shards, keys),) = await connections.run_together(begin(number), statement)
    stored: bytes = keys or b""
    answers = [_stored(message) for message in batch]
    if len(stored) == _KEY_BYTES * len(batch):
        return answers
    new = {stored[start : start + _KEY_BYTES] for start in range(0, len(stored), _KEY_BYTES)}
    left = [n for n, message in enumerate(batch) if message.group_id + message.message_id not in new]
    _, rows = await connections.run_together(begin(number), _complete(number, batch, left))
    if len(rows) < len(left):
        raise UnavailableError(DEPENDENCY, "a message that was there is gone; was history deleted? Send again")
    for row in rows:
        answers[row[0]] = _found(row)
    return answers


def _store(shard: Int8, batch: Sequence[NewGroupMessage]) -> Statement:
    ids, groups, senders, devices, envelopes, hashes, versions, counts, _, positions, times, expiries = zip(
        *sorted(batch), strict=True
    )
    parameters = (
        shard,
        uuids(ids),
        uuids(groups),
        uuids(senders),
        int4s(devices),
        byte_strings(envelopes),
        byte_strings(hashes),
        int8s(versions),
        int4s(counts),
        uuids(positions),
        int8s(times),
    )
    return (
        Statement(_STORE_EXPIRING, (*parameters, int4s(expiries))) if any(expiries) else Statement(_STORE, parameters)
    )


def _complete(shard: Int8, batch: Sequence[NewGroupMessage], left: list[int]) -> Statement:
    taken = [batch[n] for n in left]
    return Statement(
        _COMPLETE,
        (
            shard,
            int4s(left),
            uuids([message.group_id for message in taken]),
            uuids([message.message_id for message in taken]),
            uuids([message.sender_id for message in taken]),
            byte_strings([message.content_hash for message in taken]),
            uuids([message.position for message in taken]),
        ),
    )


def begin(shard: Int8) -> Statement:
    """Returns what begins a shard that is not there yet."""
    return Statement(_BEGIN, (shard, Uuid(NO_POSITION)))


def _stored(message: NewGroupMessage) -> GroupAccepted:
    return GroupAccepted(Verdict.STORED, message.accepted_ms, message.members_version, message.recipient_count)


def _found(row: Row) -> GroupAccepted:
    _, kind, is_same, accepted_ms, *rest = row
    if kind == VOID:
        return GroupAccepted(Verdict.VOID, accepted_ms, 0, 0)
    verdict = Verdict.DUPLICATE if is_same else Verdict.CONFLICT
    return GroupAccepted(verdict, accepted_ms, *rest)
