"""Makes messages durable: one statement stores a batch and points to it from the inboxes."""

from collections.abc import Sequence
from typing import Final

from chappe.runtime.errors import UnavailableError
from svc_message.adapters.message_store_postgres.arrays import bools, byte_strings, int4s, int8s, uuids
from svc_message.adapters.message_store_postgres.connections import DEPENDENCY, Connections, Row, Statement
from svc_message.model import (
    Accepted,
    ConversationId,
    Found,
    MessageId,
    MessageRef,
    NewMessage,
    UserId,
    Verdict,
)

DISAPPEARED: Final = 14
VOID: Final = 15
TOUCH_INTERVAL_MS: Final = 60_000
TOUCHES_KEPT: Final = 200_000
_KEY_BYTES: Final = 32

# Ids that are taken are passed over, after waiting for whoever is writing them at the moment. Rows come sorted by
# message id, so that two batches with the same ids never wait for each other in a circle.
_STORE_TEXT: Final = """
    WITH stored AS (
        INSERT INTO messages (
            conversation_id, message_id, sender_id, recipient_id, pos, accepted_ms, sender_device_id, kind,
            is_withheld, content_hash, envelope{expires})
        SELECT conversation_id, message_id, sender_id, recipient_id, pos, accepted_ms, sender_device_id, 1,
            is_withheld, content_hash, envelope{expiry}
        FROM unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b, %b{parameter}) AS t (
            message_id, conversation_id, sender_id, sender_device_id, recipient_id, envelope, content_hash,
            is_withheld, pos, accepted_ms{name})
        ON CONFLICT DO NOTHING
        RETURNING conversation_id, message_id, sender_id, recipient_id, pos, is_withheld{expires}
    ), pointers AS (
        INSERT INTO inbox (user_id, pos, conversation_id, message_id, kind{expires})
        SELECT sender_id, pos, conversation_id, message_id, 1{expires} FROM stored
        UNION ALL
        SELECT recipient_id, pos, conversation_id, message_id, 1{expires} FROM stored
        WHERE NOT is_withheld AND recipient_id <> sender_id
    )
    SELECT string_agg(uuid_send(conversation_id) || uuid_send(message_id), ''::bytea) FROM stored
"""
# What stays says nothing of an end, which is cheaper; a batch with a message that disappears takes the longer one.
STAYING: Final = {"expires": "", "expiry": "", "parameter": "", "name": ""}
EXPIRING: Final = {
    "expires": ", expires_ms",
    "expiry": ", CASE WHEN expiry_s > 0 THEN accepted_ms + expiry_s * 1000::bigint END",
    "parameter": ", %b",
    "name": ", expiry_s",
}
_STORE: Final = _STORE_TEXT.format(**STAYING).encode()
_STORE_EXPIRING: Final = _STORE_TEXT.format(**EXPIRING).encode()

# What is found gets its pointers again, for those whom the first decision entitled.
_COMPLETE: Final = b"""
    WITH found AS (
        SELECT t.n, t.pos, m.conversation_id, m.message_id, m.sender_id, m.recipient_id, m.kind, m.accepted_ms,
            m.is_withheld, m.content_hash = t.content_hash AND m.sender_id = t.sender_id AS is_same,
            m.expires_ms, coalesce(m.edited_ms, m.revoked_ms) IS NOT NULL
                OR m.expires_ms <= extract(epoch FROM statement_timestamp()) * 1000 AS is_altered
        FROM unnest(%b, %b, %b, %b, %b, %b) AS t (n, conversation_id, message_id, sender_id, content_hash, pos)
        JOIN messages m ON m.conversation_id = t.conversation_id AND m.message_id = t.message_id
    ), pointers AS (
        INSERT INTO inbox (user_id, pos, conversation_id, message_id, kind, expires_ms)
        SELECT sender_id, pos, conversation_id, message_id, 1, expires_ms FROM found WHERE kind = 1 AND is_same
        UNION ALL
        SELECT recipient_id, pos, conversation_id, message_id, 1, expires_ms FROM found
        WHERE kind = 1 AND is_same AND NOT is_withheld AND recipient_id <> sender_id
    )
    SELECT n, kind, is_same, accepted_ms, is_withheld, is_altered IS TRUE FROM found
"""

# Only for whom a message of the conversation can be seen; runs after the messages were stored, in their transaction.
_TOUCH: Final = b"""
    INSERT INTO conversations AS c (user_id, conversation_id, peer_id, last_ms)
    SELECT DISTINCT ON (t.user_id, t.conversation_id) t.user_id, t.conversation_id, t.peer_id, t.last_ms
    FROM unnest(%b, %b, %b, %b, %b) AS t (user_id, conversation_id, peer_id, message_id, last_ms)
    JOIN messages m ON m.conversation_id = t.conversation_id AND m.message_id = t.message_id AND m.kind = 1
        AND (m.sender_id = t.user_id OR m.recipient_id = t.user_id AND NOT m.is_withheld)
    ORDER BY t.user_id, t.conversation_id, t.last_ms DESC
    ON CONFLICT (user_id, conversation_id) DO UPDATE
    SET last_ms = excluded.last_ms,
        archived_ms = CASE WHEN c.archived_ms < excluded.last_ms THEN 0 ELSE c.archived_ms END
    WHERE c.last_ms < excluded.last_ms
"""

_FIND: Final = b"""
    SELECT t.n, coalesce(m.kind, 14), coalesce(m.content_hash, d.content_hash), coalesce(m.accepted_ms, d.accepted_ms),
        coalesce(m.is_withheld, d.is_withheld)
    FROM unnest(%b, %b, %b) AS t (n, conversation_id, message_id)
    LEFT JOIN messages m ON m.conversation_id = t.conversation_id AND m.message_id = t.message_id
    LEFT JOIN disappeared d ON d.conversation_id = t.conversation_id AND d.message_id = t.message_id
    WHERE m.message_id IS NOT NULL OR d.message_id IS NOT NULL
"""

_DECLARE_VOID: Final = b"""
    INSERT INTO messages (
        conversation_id, message_id, sender_id, recipient_id, pos, accepted_ms, sender_device_id, kind, is_withheld,
        content_hash, envelope)
    SELECT conversation_id, message_id, sender_id, recipient_id, '00000000-0000-0000-0000-000000000000', 0, 0, 15,
        false, '', ''
    FROM unnest(%b, %b, %b, %b) AS t (message_id, conversation_id, sender_id, recipient_id)
    WHERE NOT EXISTS (
        SELECT FROM disappeared d WHERE d.conversation_id = t.conversation_id AND d.message_id = t.message_id)
    ON CONFLICT DO NOTHING
"""


class Touches:
    """Remembers which conversations were moved up in the chat lists within the last minute.

    A conversation whose message is withheld is remembered apart: its recipient has no line for it.
    """

    def __init__(self) -> None:
        self._last_ms: dict[bytes, int] = {}

    def due(self, batch: Sequence[NewMessage]) -> list[NewMessage]:
        """Returns the messages of a batch for which lines are to be written."""
        known = self._last_ms
        due: list[NewMessage] = []
        for message in batch:
            last_ms = known.get(_touch_key(message))
            if last_ms is None or not 0 <= message.accepted_ms - last_ms < TOUCH_INTERVAL_MS:
                due.append(message)
        return due

    def forget(self, conversation_id: bytes) -> None:
        """Lets the next message of a conversation bring it back into the lists, whatever was written just now."""
        self._last_ms.pop(conversation_id, None)

    def done(self, messages: Sequence[NewMessage]) -> None:
        """Remembers the lines of messages as written."""
        if len(self._last_ms) + len(messages) > TOUCHES_KEPT:
            self._last_ms.clear()
        for message in messages:
            self._last_ms[_touch_key(message)] = message.accepted_ms


async def accept(connections: Connections, touches: Touches, batch: Sequence[NewMessage]) -> list[Accepted]:
    """Stores a batch of new messages; completes those that are there."""
    if not batch:
        return []
    due = touches.due(batch)
    if due:
        (row,), _ = await connections.run_together(_store(batch), _touch(due))
    else:
        (row,) = await connections.run(_store(batch))
    stored: bytes = row[0] or b""
    if len(stored) == _KEY_BYTES * len(batch):
        touches.done(due)
        verdict = Verdict.STORED
        return [Accepted(verdict, message.accepted_ms, message.is_withheld) for message in batch]
    keys = {stored[start : start + _KEY_BYTES] for start in range(0, len(stored), _KEY_BYTES)}
    # An older decision may have kept a found message from its recipient, so only what is new counts as written.
    touches.done([message for message in due if _key(message) in keys])
    return await _complete(connections, batch, keys)


async def find(connections: Connections, refs: Sequence[MessageRef]) -> list[Found | None]:
    """Looks messages up, in order."""
    found: list[Found | None] = [None] * len(refs)
    for n, kind, content_hash, accepted_ms, is_withheld in await connections.run(_find(refs)):
        found[n] = Found(kind == VOID, content_hash, accepted_ms, is_withheld, kind == DISAPPEARED)
    return found


async def declare_void(connections: Connections, refs: Sequence[MessageRef]) -> list[bool]:
    """Writes void where nothing is; says of each whether it is void now."""
    if not refs:
        return []
    columns = zip(*sorted(refs), strict=True)
    await connections.run(Statement(_DECLARE_VOID, tuple(map(uuids, columns))))
    found = await find(connections, refs)
    return [ref is not None and ref.is_void for ref in found]


def _store(batch: Sequence[NewMessage]) -> Statement:
    ids, conversations, senders, devices, recipients, envelopes, hashes, withheld, _, positions, times, expiries = zip(
        *sorted(batch), strict=True
    )
    parameters = (
        uuids(ids),
        uuids(conversations),
        uuids(senders),
        int4s(devices),
        uuids(recipients),
        byte_strings(envelopes),
        byte_strings(hashes),
        bools(withheld),
        uuids(positions),
        int8s(times),
    )
    return (
        Statement(_STORE_EXPIRING, (*parameters, int4s(expiries))) if any(expiries) else Statement(_STORE, parameters)
    )


def _touch(messages: list[NewMessage]) -> Statement:
    lines: list[tuple[UserId, ConversationId, UserId, MessageId]] = []
    for message in messages:
        lines.append((message.sender_id, message.conversation_id, message.recipient_id, message.message_id))
        if not message.is_withheld:
            lines.append((message.recipient_id, message.conversation_id, message.sender_id, message.message_id))
    users, conversations, peers, ids = zip(*lines, strict=True)
    times = [int.from_bytes(message_id[:6], "big") for message_id in ids]
    return Statement(_TOUCH, (uuids(users), uuids(conversations), uuids(peers), uuids(ids), int8s(times)))


def _find(refs: Sequence[MessageRef]) -> Statement:
    ids = [ref.message_id for ref in refs]
    conversations = [ref.conversation_id for ref in refs]
    return Statement(_FIND, (int4s(range(len(refs))), uuids(conversations), uuids(ids)))


async def _complete(connections: Connections, batch: Sequence[NewMessage], stored: set[bytes]) -> list[Accepted]:
    answers = [
        Accepted(Verdict.STORED, message.accepted_ms, message.is_withheld) if _key(message) in stored else None
        for message in batch
    ]
    left = [n for n, answer in enumerate(answers) if answer is None]
    taken = [batch[n] for n in left]
    parameters = (
        int4s(left),
        uuids([message.conversation_id for message in taken]),
        uuids([message.message_id for message in taken]),
        uuids([message.sender_id for message in taken]),
        byte_strings([message.content_hash for message in taken]),
        uuids([message.position for message in taken]),
    )
    for row in await connections.run(Statement(_COMPLETE, parameters)):
        answers[row[0]] = _answer(row)
    settled = [answer for answer in answers if answer is not None]
    if len(settled) < len(batch):
        raise UnavailableError(DEPENDENCY, "a message that was there is gone; was history deleted? Send again")
    return settled


def _answer(row: Row) -> Accepted:
    _, kind, is_same, accepted_ms, is_withheld, is_altered = row
    if kind == VOID:
        return Accepted(Verdict.VOID, accepted_ms, is_withheld)
    return Accepted(Verdict.DUPLICATE if is_same else Verdict.CONFLICT, accepted_ms, is_withheld, is_altered)


def _key(message: NewMessage) -> bytes:
    return message.conversation_id + message.message_id


def _touch_key(message: NewMessage) -> bytes:
    return message.conversation_id + message.sender_id if message.is_withheld else message.conversation_id
