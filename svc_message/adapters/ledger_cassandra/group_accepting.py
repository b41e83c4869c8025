"""Makes messages to groups durable: the body with the sender's pointer, and then an entry in the journal.

As with direct messages, a first attempt that is young is written without looking. The entry comes last: whoever reads
it finds what it is about.
"""

from collections.abc import Iterator, Sequence
from typing import Final

from chappe.runtime.errors import UnavailableError
from svc_message.adapters.inbox_rows import MESSAGE
from svc_message.adapters.ledger_cassandra.accepting import Known, is_unsure, look
from svc_message.adapters.ledger_cassandra.bounds import Bounds
from svc_message.adapters.ledger_cassandra.cells import (
    Header,
    Rank,
    bigint,
    body_bucket_of,
    integer,
    pointer_ttl_s,
    smallint,
    stamp,
    stamp_of_content,
    time_to_live_s,
)
from svc_message.adapters.ledger_cassandra.connection import DEPENDENCY, Connection, Write
from svc_message.adapters.ledger_cassandra.entries import EntryRow
from svc_message.adapters.ledger_cassandra.late import note_late
from svc_message.adapters.ledger_cassandra.pointers import Place
from svc_message.adapters.ledger_cassandra.shards import Shards
from svc_message.model import ConversationId, MessageRef, Verdict
from svc_message.model.group import GroupAccepted, NewGroupMessage, Shard

BOUNDS_KEPT: Final = 200_000

_STORE: Final = """
    INSERT INTO bodies (conversation_id, bucket, message_id, header, envelope) VALUES (?, ?, ?, ?, ?) USING TIMESTAMP ?
"""
_STORE_HEADER: Final = """
    INSERT INTO bodies (conversation_id, bucket, message_id, header) VALUES (?, ?, ?, ?) USING TIMESTAMP ?
"""
_STORE_ENVELOPE: Final = """
    UPDATE bodies USING TIMESTAMP ? AND TTL ? SET envelope = ?
    WHERE conversation_id = ? AND bucket = ? AND message_id = ?
"""
_BOUND: Final = """
    INSERT INTO bounds (conversation_id, members_version, bucket, message_id) VALUES (?, ?, ?, ?) USING TIMESTAMP ?
"""

_Bound = tuple[ConversationId, int, int]
"""A version of a group in a bucket."""


class KnownBounds:
    """Remembers which versions of groups were met in which buckets."""

    def __init__(self) -> None:
        self._known: set[_Bound] = set()

    def due(self, message: NewGroupMessage, header: Header) -> list[Write]:
        """Returns the bound that a message makes necessary; nothing when it was written already."""
        bound = _bound_of(message, header)
        if bound in self._known:
            return []
        group_id, version, bucket = bound
        values = (group_id, bigint(version), smallint(bucket), message.message_id, stamp(message.message_id, Rank.SENT))
        return [Write(_BOUND, (group_id,), values)]

    def done(self, messages: Sequence[tuple[NewGroupMessage, Header]]) -> None:
        """Remembers the bounds of messages as written."""
        if len(self._known) + len(messages) > BOUNDS_KEPT:
            self._known.clear()
        self._known.update(_bound_of(message, header) for message, header in messages)


async def accept(
    connection: Connection,
    bounds: Bounds,
    memory: tuple[Shards, KnownBounds],
    shard: Shard,
    batch: Sequence[NewGroupMessage],
) -> list[GroupAccepted]:
    """Stores a batch of new messages; completes those that are there."""
    if not batch:
        return []
    bounds.check(*[message.message_id for message in batch], *[message.position for message in batch])
    shards, known_bounds = memory
    now_ms = bounds.now_ms()
    looks = await _look(connection, [message for message in batch if is_unsure(message)], now_ms)
    answers: list[GroupAccepted] = []
    stored: list[tuple[NewGroupMessage, Header]] = []
    for message in batch:
        known = looks.get(message) if looks else None
        header = Header.of(message) if known is None or known.header is None else known.header
        answer = _answer(message, header, known)
        answers.append(answer)
        if answer.verdict in {Verdict.STORED, Verdict.DUPLICATE} and not (known and known.is_over):
            stored.append((message, header))
    if not stored:
        return answers
    await connection.write(
        [[*_rows(message, header, now_ms), *known_bounds.due(message, header)] for message, header in stored]
    )
    known_bounds.done(stored)
    missing = [message for message, known in looks.items() if known.header is None and not known.is_void]
    standing = await _look_again(connection, missing, now_ms)
    stored = [(message, standing.get(message, header)) for message, header in stored]
    answers = [
        _answer_of(answer, standing[message]) if message in standing else answer
        for message, answer in zip(batch, answers, strict=True)
    ]
    rows = [
        EntryRow(
            message.position,
            message.group_id,
            message.message_id,
            header.sender_id,
            header.members_version,
            MESSAGE,
        )
        for message, header in stored
    ]
    await enter(connection, shards, shard, rows)
    return answers


async def enter(connection: Connection, shards: Shards, shard: Shard, rows: Sequence[EntryRow]) -> None:
    """Writes entries into a shard that was begun, and still is when they are there."""
    if not rows:
        return
    positions = [row.position for row in rows]
    start_s = shards.now_s()
    if units := shards.due(shard, positions):
        await connection.write(units)
        shards.begun(shard, units, start_s, positions)
    await connection.write([[row.store(shard)] for row in rows])
    # This process may have ended it meanwhile.
    start_s = shards.now_s()
    if units := shards.due(shard, positions):
        await connection.write(units)
        shards.begun(shard, units, start_s, positions)


async def _look(
    connection: Connection, messages: Sequence[NewGroupMessage], now_ms: int
) -> dict[NewGroupMessage, Known]:
    if not messages:
        return {}
    refs = [
        MessageRef(message.message_id, message.group_id, message.sender_id, message.recipient_id)
        for message in messages
    ]
    return dict(zip(messages, await look(connection, refs, now_ms), strict=True))


async def _look_again(
    connection: Connection, messages: Sequence[NewGroupMessage], now_ms: int
) -> dict[NewGroupMessage, Header]:
    """Returns what was decided of messages that were not there, and are now: another attempt may have been earlier.

    Raises `UnavailableError` when one of them was declared void meanwhile.
    """
    found = await _look(connection, messages, now_ms)
    if any(known.is_void for known in found.values()):
        raise UnavailableError(DEPENDENCY, "an id is being declared void at this moment; send again")
    return {message: known.header for message, known in found.items() if known.header is not None}


def _answer(message: NewGroupMessage, header: Header, known: Known | None) -> GroupAccepted:
    place = (header.accepted_ms, header.members_version, header.recipient_count)
    if known is not None and known.is_void:
        return GroupAccepted(Verdict.VOID, 0, 0, 0)
    if known is None or known.header is None:
        return GroupAccepted(Verdict.STORED, *place)
    is_same = (header.content_hash, header.sender_id) == (message.content_hash, message.sender_id)
    verdict = Verdict.DUPLICATE if is_same else Verdict.CONFLICT
    return GroupAccepted(verdict, *place, known.is_altered or known.is_over)


def _answer_of(answer: GroupAccepted, header: Header) -> GroupAccepted:
    return answer._replace(
        accepted_ms=header.accepted_ms, members_version=header.members_version, recipient_count=header.recipient_count
    )


def _rows(message: NewGroupMessage, header: Header, now_ms: int) -> Iterator[Write]:
    message_id, group_id, sent = message.message_id, message.group_id, stamp(message.message_id, Rank.SENT)
    partition = (group_id, smallint(body_bucket_of(message_id)))
    envelope = header.envelope_cell(message.envelope)
    if header.expiry_s:
        yield Write(_STORE_HEADER, partition, (*partition, message_id, header.cell(), sent))
        ttl = integer(time_to_live_s(header.expires_ms, now_ms))
        at = stamp_of_content(message_id, header.accepted_ms)
        yield Write(_STORE_ENVELOPE, partition, (at, ttl, envelope, *partition, message_id))
    else:
        yield Write(_STORE, partition, (*partition, message_id, header.cell(), envelope, sent))
    ttl_s = pointer_ttl_s(header.expires_ms, now_ms)
    yield Place(message.position).message(header.sender_id, group_id, message_id, ttl_s)
    yield from note_late(message, header, now_ms)


def _bound_of(message: NewGroupMessage, header: Header) -> _Bound:
    return message.group_id, header.members_version, body_bucket_of(message.message_id)
