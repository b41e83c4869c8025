"""Raises receipts and tells of it: one statement for what was received, two more for what was read."""

from collections.abc import Sequence
from typing import Final, NamedTuple

from svc_message.adapters.inbox_rows import own_read_of, receipt_of
from svc_message.adapters.message_store_postgres.arrays import bools, int2s, int4s, int8s, uuids
from svc_message.adapters.message_store_postgres.connections import Connections, Statement
from svc_message.adapters.message_store_postgres.seeing import woven
from svc_message.model import NO_POSITION, Applied, MessageId, OwnReadEvent, ReceiptEvent, ReceiptState, ReceiptUpdate
from svc_message.protocol import LATE_OVERLAP_MS, READ_OVERLAP_MS, TOLD_AGAIN_MS, WRITE_WINDOW_S

EVENT_IDS: Final = 40
PORTION: Final = 1000
"""How many messages one statement goes through."""
_NOTHING: Final = "'00000000-0000-0000-0000-000000000000'::uuid"
"""The id before every other."""
_BEFORE: Final = """
    CASE WHEN c.read_upto IS NOT NULL THEN (lpad(to_hex(greatest(
        ('x' || lpad(encode(substring(uuid_send(c.read_upto) FROM 1 FOR 6), 'hex'), 16, '0'))::bit(64)::bigint
        - {milliseconds}, 0)), 12, '0') || repeat('0', 20))::uuid END
"""
FIRST_UNREAD: Final = _BEFORE.format(milliseconds=READ_OVERLAP_MS)
"""What `first_unread` says, over `conversations c`."""
FIRST_LATE: Final = _BEFORE.format(milliseconds=LATE_OVERLAP_MS)
"""What `first_late` says, over `conversations c`."""
_NEAR: Final = """
            (
                SELECT m.message_id, m.sender_id, {column} FROM messages m
                WHERE m.conversation_id = t.conversation_id AND m.message_id <= seen.message_id
                    AND m.message_id > CASE WHEN t.read_after > {nothing} THEN t.read_after
                        ELSE coalesce(placed.message_id, {nothing}) END
                    AND m.kind = 1 AND {shown}
                ORDER BY m.message_id LIMIT {portion}
            ) UNION ALL (
                SELECT m.message_id, m.sender_id, {column} FROM messages m
                WHERE m.conversation_id = t.conversation_id AND t.read_after = {nothing}
                    AND {late_id} > placed.late AND {late_id} <= least(placed.message_id, seen.message_id)
                    AND m.kind = 1 AND {shown}
                ORDER BY {late_id} LIMIT {portion}
            )
            ORDER BY message_id LIMIT {portion}
"""
_LATE_ID: Final = "late_id(m.message_id, m.accepted_ms)"
"""As the index has it."""
_NEVER: Final = 2**62
_ID_BYTES: Final = 16


def near(column: str, shown: str) -> str:
    """Returns a portion of what a read may find unread: from the place before it on, and of the late ones before that.

    Args:
        column: Of `messages m`, beside the id and the sender.
        shown: The condition on `messages m` under which the reader `t` sees one.

    The statement around it has `t.read_after`, `seen.message_id`, `placed.message_id` and `placed.late`.
    """
    return _NEAR.format(column=column, shown=shown, late_id=_LATE_ID, nothing=_NOTHING, portion=PORTION)


# Offsets that change nothing keep look-ups as they are: joined freely, a plan that was made while the tables were small
# may go through all receipts of a conversation.

# What `read_upto` stands for: the newest message at or before it that the reader sees, and which of the next 1,000
# messages up to there are the peer's and unread, the oldest first. They begin where the portion before ended, or before
# the place up to which everything was read by what may not have been there then, or where what is to be told again
# does; late ones lie further back, and are found by themselves.
_EXPAND: Final = woven(
    """
    SELECT t.n, seen.message_id, portion.last, portion.count, portion.ids
    FROM unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b) AS t (
        n, reader_id, conversation_id, peer_id, read_upto, is_forced, read_after, told_since_ms, told_upto)
    CROSS JOIN LATERAL (
        SELECT m.message_id FROM messages m
        WHERE m.conversation_id = t.conversation_id AND m.message_id <= t.read_upto AND m.kind = 1
            AND (m.sender_id = t.reader_id OR m.recipient_id = t.reader_id AND NOT m.is_withheld)
        ORDER BY m.message_id DESC LIMIT 1
    ) seen
    LEFT JOIN LATERAL (
        SELECT {first_late} AS late, least({first_unread}, CASE WHEN t.is_forced THEN coalesce((
            SELECT m.message_id FROM messages m
            WHERE m.conversation_id = t.conversation_id AND m.message_id <= least(c.read_upto, t.told_upto)
            ORDER BY m.message_id DESC OFFSET 1000 LIMIT 1), {nothing}) END) AS message_id
        FROM conversations c WHERE c.user_id = t.reader_id AND c.conversation_id = t.conversation_id
    ) placed ON true
    CROSS JOIN LATERAL (
        SELECT (array_agg(near.message_id ORDER BY near.message_id DESC))[1] AS last, count(*) AS count,
            string_agg(uuid_send(near.message_id), ''::bytea) FILTER (
                WHERE near.sender_id = t.peer_id AND near.recipient_id = t.reader_id AND NOT EXISTS (
                    SELECT FROM receipts r
                    WHERE r.conversation_id = t.conversation_id AND r.message_id = near.message_id
                        AND r.user_id = t.reader_id AND r.state >= 3 AND r.read_ms < t.told_since_ms OFFSET 0)) AS ids
        FROM ({near}) near
    ) portion
""",
    first_unread=FIRST_UNREAD,
    first_late=FIRST_LATE,
    nothing=_NOTHING,
    near=near("m.recipient_id", "(m.sender_id = t.reader_id OR m.recipient_id = t.reader_id AND NOT m.is_withheld)"),
)

# Ids that are not the peer's messages to the reader fall out of the join with `messages`. What the peer may not know of
# is delivered to it, and no news when it was delivered before. What `may_be_untold` says is told again. What is told of
# messages that all disappear goes with the last of them.
_RAISE: Final = f"""
    WITH asked AS MATERIALIZED (
        SELECT t.part, t.reader_id, t.peer_id, t.state, t.recorded_ms, t.pos, m.conversation_id, m.message_id,
            m.expires_ms, t.is_forced OR t.state = 2 AND coalesce(
                t.recorded_ms - r.delivered_ms BETWEEN {int(WRITE_WINDOW_S * 1000)} AND {TOLD_AGAIN_MS}, false
            ) AS is_forced,
            coalesce(r.state, 1) < t.state AS is_rising,
            CASE WHEN r.state >= 3 THEN r.is_read_told ELSE t.is_told END AS is_told,
            coalesce(r.state, 1) < 2 AS is_first
        FROM unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b, %b) AS t (
            part, message_id, conversation_id, reader_id, peer_id, state, is_forced, recorded_ms, pos, is_told)
        JOIN messages m ON m.conversation_id = t.conversation_id AND m.message_id = t.message_id
            AND m.sender_id = t.peer_id AND m.recipient_id = t.reader_id AND m.kind = 1 AND NOT m.is_withheld
        LEFT JOIN receipts r ON r.conversation_id = m.conversation_id AND r.message_id = m.message_id
            AND r.user_id = m.recipient_id
    ), raised AS (
        INSERT INTO receipts AS r (conversation_id, message_id, user_id, delivered_ms, read_ms, state, is_read_told)
        SELECT conversation_id, message_id, reader_id, recorded_ms, CASE state WHEN 3 THEN recorded_ms ELSE 0 END,
            state, is_told
        FROM asked WHERE is_rising
        ON CONFLICT (conversation_id, message_id, user_id) DO UPDATE
        SET state = excluded.state, read_ms = excluded.read_ms, is_read_told = excluded.is_read_told
        WHERE r.state < excluded.state
    ), told AS (
        SELECT part, peer_id, pos, conversation_id, is_told OR is_forced OR is_first AS is_news,
            int2send(CASE WHEN is_told THEN state ELSE 2::smallint END) || int8send(recorded_ms) || uuid_send(reader_id)
                || string_agg(uuid_send(message_id), ''::bytea) AS data,
            CASE WHEN bool_and(expires_ms IS NOT NULL) THEN max(expires_ms) END AS expires_ms
        FROM asked WHERE is_rising OR is_forced
        GROUP BY part, peer_id, pos, conversation_id, reader_id, state, recorded_ms, is_told,
            is_told OR is_forced OR is_first
    ), pointers AS (
        INSERT INTO inbox (user_id, pos, conversation_id, kind, data, expires_ms)
        SELECT peer_id, pos, conversation_id, 2, data, expires_ms FROM told WHERE is_news
    )
    SELECT part, data, is_news FROM told
""".encode()  # noqa: S608 - constants

# A place that was named by single ids counts only when nothing before it is unread.
_MOVE: Final = b"""
    WITH asked AS MATERIALIZED (
        SELECT t.n, t.reader_id, t.conversation_id, t.device_id, t.pos, greatest(t.read_upto, c.read_upto) AS read_upto,
            c.read_upto IS NULL OR c.read_upto < t.read_upto AS is_rising, t.is_forced
        FROM unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b) AS t (
            reader_id, conversation_id, n, peer_id, device_id, read_upto, is_whole, is_forced, pos)
        JOIN conversations c ON c.user_id = t.reader_id AND c.conversation_id = t.conversation_id
        WHERE t.is_whole OR NOT EXISTS (
            SELECT FROM messages m
            WHERE m.conversation_id = t.conversation_id AND m.message_id < t.read_upto AND m.kind = 1
                AND m.message_id > coalesce(c.read_upto, '00000000-0000-0000-0000-000000000000')
                AND m.sender_id = t.peer_id AND m.recipient_id = t.reader_id AND NOT m.is_withheld
                AND NOT EXISTS (
                    SELECT FROM receipts r
                    WHERE r.conversation_id = m.conversation_id AND r.message_id = m.message_id
                        AND r.user_id = t.reader_id AND r.state >= 3 OFFSET 0))
    ), moved AS (
        UPDATE conversations c SET read_upto = a.read_upto FROM asked a
        WHERE c.user_id = a.reader_id AND c.conversation_id = a.conversation_id AND a.is_rising
            AND (c.read_upto IS NULL OR c.read_upto < a.read_upto)
    ), told AS (
        SELECT n, reader_id, conversation_id, pos, uuid_send(read_upto) || int4send(device_id) AS data
        FROM asked WHERE is_rising OR is_forced
    ), pointers AS (
        INSERT INTO inbox (user_id, pos, conversation_id, kind, data)
        SELECT reader_id, pos, conversation_id, 3, data FROM told
    )
    SELECT n, data FROM told
"""


class _Part(NamedTuple):
    """Up to 40 messages of one update: what becomes one event."""

    n: int
    """The update's place in the batch."""
    message_ids: list[MessageId]


class _Place(NamedTuple):
    """Up to where one reader has read one conversation, by the update at place `n`; the larger one stands."""

    is_whole: bool
    """Everything before it is read too; or else it was named by single ids."""
    read_upto: bytes
    n: int
    is_forced: bool


_Raised = dict[int, list[tuple[ReceiptEvent, bool]]]


async def apply_receipts(connections: Connections, batch: Sequence[ReceiptUpdate]) -> list[Applied]:
    """Raises what a batch raises; at most three round trips, one when nothing was read."""
    seen, expanded, rest = await _expand(connections, batch)
    raised = await _raise(connections, batch, _parts(batch, expanded))
    reads = await _move(connections, batch, _places(batch, seen, raised))
    events = {n: [event for event, is_news in found if is_news] for n, found in raised.items()}
    return [Applied(tuple(events.get(n, ())), reads.get(n), rest.get(n, b"")) for n in range(len(batch))]


async def _expand(
    connections: Connections, batch: Sequence[ReceiptUpdate]
) -> tuple[dict[int, bytes], dict[int, list[MessageId]], dict[int, bytes]]:
    """Returns by update the message that `read_upto` comes down to, the messages that it stands for, and the rest."""
    named = [(n, update) for n, update in enumerate(batch) if update.read_upto and update.state is ReceiptState.READ]
    if not named:
        return {}, {}, {}
    rows = await connections.run(expanding(named))
    rest = {n: last for n, upto, last, count, _ in rows if count == PORTION and last < upto}
    seen = {n: upto for n, upto, *_ in rows} | rest
    return seen, {n: _split(ids or b"") for n, *_, ids in rows}, rest


def expanding(named: Sequence[tuple[int, ReceiptUpdate]]) -> Statement:
    """Returns what looks up what the `read_upto` of numbered updates stands for."""
    updates = [update for _, update in named]
    parameters = (
        int4s([n for n, _ in named]),
        uuids([update.reader_id for update in updates]),
        uuids([update.conversation_id for update in updates]),
        uuids([update.peer_id for update in updates]),
        uuids([update.read_upto for update in updates]),
        bools([update.is_forced for update in updates]),
        uuids([update.read_after or NO_POSITION for update in updates]),
        int8s([update.forced_since_ms if update.is_forced else _NEVER for update in updates]),
        uuids([update.forced_upto or update.read_upto for update in updates]),
    )
    return Statement(_EXPAND, parameters)


def _parts(batch: Sequence[ReceiptUpdate], expanded: dict[int, list[MessageId]]) -> list[_Part]:
    """Cuts a batch into events. Of two updates for one message the higher state stands, or the later one."""
    winners: dict[tuple[bytes, bytes, MessageId], int] = {}
    for n, update in enumerate(batch):
        for message_id in (*update.message_ids, *expanded.get(n, ())):
            key = (update.reader_id, update.conversation_id, message_id)
            rival = winners.get(key)
            if rival is None or batch[rival].state <= update.state:
                winners[key] = n
    ids: dict[int, list[MessageId]] = {}
    for (_, _, message_id), n in winners.items():
        ids.setdefault(n, []).append(message_id)
    return [
        _Part(n, sorted(found)[start : start + EVENT_IDS])
        for n, found in ids.items()
        for start in range(0, len(found), EVENT_IDS)
    ]


async def _raise(connections: Connections, batch: Sequence[ReceiptUpdate], parts: list[_Part]) -> _Raised:
    """Returns by update what was raised, as the peer may know it, and whether that is news to the peer."""
    if not parts:
        return {}
    forced = {(u.reader_id, u.conversation_id) for u in batch if u.is_forced}
    # Sorted, so that two batches with the same messages never wait for each other in a circle.
    rows = sorted((message_id, number) for number, part in enumerate(parts) for message_id in part.message_ids)
    updates = [batch[parts[number].n] for _, number in rows]
    parameters = (
        int4s([number for _, number in rows]),
        uuids([message_id for message_id, _ in rows]),
        uuids([update.conversation_id for update in updates]),
        uuids([update.reader_id for update in updates]),
        uuids([update.peer_id for update in updates]),
        int2s([update.state for update in updates]),
        bools([(update.reader_id, update.conversation_id) in forced for update in updates]),
        int8s([update.recorded_ms for update in updates]),
        uuids([update.position for update in updates]),
        bools([update.is_told for update in updates]),
    )
    raised: _Raised = {}
    for number, data, is_news in await connections.run(Statement(_RAISE, parameters)):
        n = parts[int(number)].n
        event = receipt_of(batch[n].position, batch[n].conversation_id, data)
        raised.setdefault(n, []).append((event, is_news))
    return raised


def _places(
    batch: Sequence[ReceiptUpdate], seen: dict[int, bytes], raised: _Raised
) -> dict[tuple[bytes, bytes], _Place]:
    """Returns for each reader and conversation the furthest place that a batch names; single ids come second."""
    places: dict[tuple[bytes, bytes], _Place] = {}
    for n, update in enumerate(batch):
        told = [message_id for event, _ in raised.get(n, ()) for message_id in event.message_ids]
        read_upto = seen.get(n) or max(told, default=b"")
        if update.state is not ReceiptState.READ or not read_upto:
            continue
        key = (update.reader_id, update.conversation_id)
        place = _Place(n in seen, read_upto, n, update.is_forced)
        rival = places.get(key, place)
        places[key] = max(rival, place)._replace(is_forced=rival.is_forced or place.is_forced)
    return places


async def _move(
    connections: Connections, batch: Sequence[ReceiptUpdate], places: dict[tuple[bytes, bytes], _Place]
) -> dict[int, OwnReadEvent]:
    if not places:
        return {}
    keys = sorted(places)
    updates = [batch[places[key].n] for key in keys]
    parameters = (
        uuids([reader for reader, _ in keys]),
        uuids([conversation for _, conversation in keys]),
        int4s([places[key].n for key in keys]),
        uuids([update.peer_id for update in updates]),
        int4s([update.reader_device_id for update in updates]),
        uuids([places[key].read_upto for key in keys]),
        bools([places[key].is_whole for key in keys]),
        bools([places[key].is_forced for key in keys]),
        uuids([update.position for update in updates]),
    )
    reads: dict[int, OwnReadEvent] = {}
    for n, data in await connections.run(Statement(_MOVE, parameters)):
        update = batch[int(n)]
        reads[n] = own_read_of(update.position, update.reader_id, update.conversation_id, data)
    return reads


def _split(ids: bytes) -> list[MessageId]:
    return [MessageId(ids[start : start + _ID_BYTES]) for start in range(0, len(ids), _ID_BYTES)]
