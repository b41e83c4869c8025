"""Raises receipts of groups: one statement for what was received, and three more for what was read.

What belongs to a user and a group stands once, in a slot, and each message names the number of its slot.
"""

from collections.abc import Iterator, Sequence
from itertools import islice
from operator import itemgetter
from struct import Struct
from typing import Final, NamedTuple

from psycopg.types.numeric import Int8

from svc_message.adapters.inbox_rows import ID_BYTES, own_read_of
from svc_message.adapters.message_store_postgres.arrays import Uuid, bools, int4s, int8s, uuids
from svc_message.adapters.message_store_postgres.connections import Connections, Statement
from svc_message.adapters.message_store_postgres.receipts import FIRST_LATE, FIRST_UNREAD, PORTION, near
from svc_message.adapters.message_store_postgres.seeing import woven
from svc_message.model import NO_POSITION, MessageId, OwnReadEvent, Position
from svc_message.model.group import Window
from svc_message.model.receipt import Came, MemberAck, MemberRead, MemberReadUpdate, ReadOutcome, Unread, UnreadMessage
from svc_message.ports.receipt import NEWS_INTERVAL_MS

ROWS_RAISED: Final = 4096
_FOR_EVER: Final = 2**62
_UNREAD: Final = Struct(f">{ID_BYTES}s{ID_BYTES}sq")

# Limits and offsets that change nothing keep look-ups as they are: joined freely, a plan that was made while the tables
# were empty may read an index from end to end.

# News that wait already stay due as they are; those that rest are due a minute after they were told last.
_NEWS: Final = """
    INSERT INTO receipt_news AS n (sender_id, conversation_id, changed_pos, told_ms, due_ms)
    SELECT DISTINCT sender_id, conversation_id, %b::uuid, 0, %b::bigint FROM asked {condition}
    ORDER BY sender_id, conversation_id
    ON CONFLICT (sender_id, conversation_id) DO UPDATE SET changed_pos = excluded.changed_pos,
        due_ms = least(n.due_ms, greatest(excluded.due_ms, n.told_ms + {interval_ms}))
"""


def _with_news(statement: str, condition: str) -> bytes:
    """Returns a statement that notes news of the rows of `asked` that a condition names."""
    news = _NEWS.format(condition=condition, interval_ms=NEWS_INTERVAL_MS)
    return statement.format(news=news).encode()


_ACKNOWLEDGE: Final = _with_news(
    """
    WITH asked AS MATERIALIZED (
        SELECT m.conversation_id, m.message_id, m.sender_id, (%b)[t.slot] AS user_id
        FROM unnest(%b, %b) AS t (message_id, slot)
        CROSS JOIN LATERAL (
            SELECT x.* FROM messages x WHERE x.conversation_id = (%b)[t.slot] AND x.message_id = t.message_id LIMIT 1
        ) m
        WHERE m.kind = 1 AND m.members_version >= (%b)[t.slot] AND m.members_version < (%b)[t.slot]
            AND m.sender_id <> (%b)[t.slot] AND NOT EXISTS (
                SELECT FROM group_receipts r WHERE r.conversation_id = m.conversation_id
                    AND r.message_id = m.message_id AND r.user_id = (%b)[t.slot] OFFSET 0)
    ), raised AS (
        INSERT INTO group_receipts (conversation_id, message_id, user_id, delivered_ms, read_ms, state, is_read_told)
        SELECT conversation_id, message_id, user_id, %b, 0, 2, true FROM asked
        ON CONFLICT DO NOTHING
    ), news AS ({news})
    SELECT DISTINCT sender_id, conversation_id, message_id FROM asked
""",
    "",
)

_READ: Final = _with_news(
    """
    WITH asked AS MATERIALIZED (
        SELECT m.conversation_id, m.message_id, m.sender_id, (%b)[t.slot] AS user_id, (%b)[t.slot] AS recorded_ms,
            t.is_told, t.is_told OR r.state IS NULL AS is_news
        FROM unnest(%b, %b, %b) AS t (message_id, slot, is_told)
        CROSS JOIN LATERAL (
            SELECT x.* FROM messages x WHERE x.conversation_id = (%b)[t.slot] AND x.message_id = t.message_id LIMIT 1
        ) m
        LEFT JOIN LATERAL (
            SELECT x.state FROM group_receipts x WHERE x.conversation_id = m.conversation_id
                AND x.message_id = m.message_id AND x.user_id = (%b)[t.slot] LIMIT 1
        ) r ON true
        WHERE m.kind = 1 AND coalesce(r.state, 1) < 3
    ), raised AS (
        INSERT INTO group_receipts AS r (
            conversation_id, message_id, user_id, delivered_ms, read_ms, state, is_read_told)
        SELECT conversation_id, message_id, user_id, recorded_ms, recorded_ms, 3, is_told FROM asked
        ON CONFLICT (conversation_id, message_id, user_id) DO UPDATE
        SET state = 3, read_ms = excluded.read_ms, is_read_told = excluded.is_read_told WHERE r.state < 3
    ), news AS ({news})
    SELECT DISTINCT sender_id, conversation_id, message_id FROM asked WHERE is_news
""",
    "WHERE is_news",
)

_NAMED: Final = b"""
    SELECT t.slot, uuid_send(m.message_id) || uuid_send(m.sender_id) || int8send(m.members_version)
    FROM unnest(%b, %b) AS t (message_id, slot)
    CROSS JOIN LATERAL (
        SELECT x.* FROM messages x WHERE x.conversation_id = (%b)[t.slot] AND x.message_id = t.message_id LIMIT 1
    ) m
    WHERE m.kind = 1 AND m.sender_id <> (%b)[t.slot] AND m.members_version <@ (%b::int8multirange[])[t.slot]
"""

# So the index by version is left alone: by a plan that was made while there were few messages, a whole group is gone
# through in it to find the newest.
_SHOWN: Final = "coalesce(m.members_version, 0) <@ t.windows"

# As of direct messages: the next 1,000 messages, the oldest first.
_UPTO: Final = woven(
    """
    SELECT t.slot, seen.message_id, portion.last, portion.count, portion.ids
    FROM unnest(%b, %b, %b, %b, %b::int8multirange[], %b) AS t (
        slot, user_id, conversation_id, read_upto, windows, read_after)
    CROSS JOIN LATERAL (
        SELECT m.message_id FROM messages m
        WHERE m.conversation_id = t.conversation_id AND m.message_id <= t.read_upto AND m.kind = 1
            AND {shown}
        ORDER BY m.message_id DESC LIMIT 1
    ) seen
    LEFT JOIN LATERAL (
        SELECT {first_unread} AS message_id, {first_late} AS late
        FROM conversations c WHERE c.user_id = t.user_id AND c.conversation_id = t.conversation_id
    ) placed ON true
    CROSS JOIN LATERAL (
        SELECT (array_agg(near.message_id ORDER BY near.message_id DESC))[1] AS last, count(*) AS count,
            string_agg(
                uuid_send(near.message_id) || uuid_send(near.sender_id) || int8send(near.members_version), ''::bytea
            ) FILTER (
                WHERE near.sender_id <> t.user_id AND NOT EXISTS (
                    SELECT FROM group_receipts r
                    WHERE r.conversation_id = t.conversation_id AND r.message_id = near.message_id
                        AND r.user_id = t.user_id AND r.state >= 3 OFFSET 0)) AS ids
        FROM ({near}) near
    ) portion
""",
    first_unread=FIRST_UNREAD,
    first_late=FIRST_LATE,
    near=near("m.members_version", _SHOWN),
    shown=_SHOWN,
)

# A place that was named by single messages counts only when nothing before it is unread. As `_SHOWN`.
_MOVE: Final = b"""
    WITH asked AS MATERIALIZED (
        SELECT t.n, t.user_id, t.conversation_id, t.device_id, t.pos, greatest(t.read_upto, c.read_upto) AS read_upto,
            c.read_upto IS NULL OR c.read_upto < t.read_upto AS is_rising, t.is_forced
        FROM unnest(%b, %b, %b, %b, %b, %b, %b, %b, %b::int8multirange[]) AS t (
            user_id, conversation_id, n, device_id, read_upto, is_whole, is_forced, pos, windows)
        CROSS JOIN LATERAL (
            SELECT x.read_upto FROM conversations x
            WHERE x.user_id = t.user_id AND x.conversation_id = t.conversation_id LIMIT 1
        ) c
        WHERE t.is_whole OR NOT EXISTS (
            SELECT FROM messages m
            WHERE m.conversation_id = t.conversation_id AND m.message_id < t.read_upto AND m.kind = 1
                AND m.message_id > coalesce(c.read_upto, '00000000-0000-0000-0000-000000000000')
                AND m.sender_id <> t.user_id AND coalesce(m.members_version, 0) <@ t.windows
                AND NOT EXISTS (
                    SELECT FROM group_receipts r
                    WHERE r.conversation_id = m.conversation_id AND r.message_id = m.message_id
                        AND r.user_id = t.user_id AND r.state >= 3 OFFSET 0)
            OFFSET 0)
    ), moved AS (
        UPDATE conversations c SET read_upto = a.read_upto FROM asked a
        WHERE c.user_id = a.user_id AND c.conversation_id = a.conversation_id AND a.is_rising
            AND (c.read_upto IS NULL OR c.read_upto < a.read_upto)
    ), told AS (
        SELECT n, user_id, conversation_id, pos, uuid_send(read_upto) || int4send(device_id) AS data
        FROM asked WHERE is_rising OR is_forced
    ), pointers AS (
        INSERT INTO inbox (user_id, pos, conversation_id, kind, data)
        SELECT user_id, pos, conversation_id, 3, data FROM told
    )
    SELECT n, data FROM told
"""


class _Slot(NamedTuple):
    """What several messages have in common."""

    user_id: bytes
    group_id: bytes
    window: Window


class _Place(NamedTuple):
    """Up to where one member has read one group, by the update at place `n`; the larger one stands."""

    is_whole: bool
    upto: bytes
    n: int
    is_forced: bool


async def acknowledge(
    connections: Connections, batch: Sequence[MemberAck], change: Position, recorded_ms: int
) -> list[Came]:
    """Raises what a batch raises, by message and member, so that two flushes never wait for each other in a circle."""
    by_member = sorted(batch)
    slots = [_Slot(ack.user_id, ack.group_id, window) for ack in by_member for window in ack.windows]
    ids = (ack.message_ids for ack in by_member for _ in ack.windows)
    rows = iter(sorted((message_id, slot) for slot, found in enumerate(ids, start=1) for message_id in found))
    came: list[Came] = []
    while chunk := list(islice(rows, ROWS_RAISED)):
        statement = _acknowledge(slots, chunk, change, recorded_ms)
        came += [Came(*row) for row in await connections.run(statement)]
    return came


def _acknowledge(
    slots: list[_Slot], rows: list[tuple[MessageId, int]], change: Position, recorded_ms: int
) -> Statement:
    users = uuids([slot.user_id for slot in slots])
    now = Int8(recorded_ms)
    parameters = (
        users,
        uuids([message_id for message_id, _ in rows]),
        int4s([slot for _, slot in rows]),
        uuids([slot.group_id for slot in slots]),
        int8s([slot.window.joined_version for slot in slots]),
        int8s([slot.window.left_version or _FOR_EVER for slot in slots]),
        users,
        users,
        now,
        Uuid(change),
        now,
    )
    return Statement(_ACKNOWLEDGE, parameters)


async def unread(connections: Connections, batch: Sequence[MemberRead]) -> list[Unread]:
    """Looks up what reads stand for; one round trip."""
    found, seen = await connections.run_together(*looking(batch))
    messages: list[dict[bytes, UnreadMessage]] = [{} for _ in batch]
    places, rest = [b""] * len(batch), [b""] * len(batch)
    for slot, packed in found:
        messages[slot - 1].update(_unread(packed))
    for slot, place, last, count, packed in seen:
        if count == PORTION and last < place:
            rest[slot - 1] = last
        places[slot - 1] = rest[slot - 1] or place
        messages[slot - 1].update(_unread(packed or b""))
    return [Unread(place, tuple(one.values()), end) for place, one, end in zip(places, messages, rest, strict=True)]


def looking(batch: Sequence[MemberRead]) -> tuple[Statement, Statement]:
    """Returns what looks up the messages that reads name, and what their `read_upto` stands for."""
    windows = [multirange(read.windows) for read in batch]
    users, groups = uuids([read.user_id for read in batch]), uuids([read.group_id for read in batch])
    named = [(message_id, slot) for slot, read in enumerate(batch, start=1) for message_id in read.message_ids]
    whole = [(slot, read) for slot, read in enumerate(batch, start=1) if read.read_upto]
    upto = (
        int4s([slot for slot, _ in whole]),
        uuids([read.user_id for _, read in whole]),
        uuids([read.group_id for _, read in whole]),
        uuids([read.read_upto for _, read in whole]),
        [windows[slot - 1] for slot, _ in whole],
        uuids([read.read_after or NO_POSITION for _, read in whole]),
    )
    ids = (uuids([message_id for message_id, _ in named]), int4s([slot for _, slot in named]), groups, users, windows)
    return Statement(_NAMED, ids), Statement(_UPTO, upto)


async def read(connections: Connections, batch: Sequence[MemberReadUpdate]) -> ReadOutcome:
    """Raises what a batch raises, then moves the places; one transaction."""
    if not batch:
        return ReadOutcome([], [])
    raised, moved = await connections.run_together(_read(batch), _move(batch))
    own_reads: list[OwnReadEvent | None] = [None] * len(batch)
    for n, data in moved:
        update = batch[int(n)]
        own_reads[n] = own_read_of(update.position, update.user_id, update.group_id, data)
    return ReadOutcome([Came(*row) for row in raised], own_reads)


def _read(batch: Sequence[MemberReadUpdate]) -> Statement:
    named = {
        (message.message_id, update.user_id, update.group_id): (slot, message.is_told)
        for slot, update in enumerate(batch, start=1)
        for message in update.messages
    }
    # By message and member, as acknowledgements are raised: no two flushes wait for each other in a circle.
    rows = [(key[0], *named[key]) for key in sorted(named)]
    users = uuids([update.user_id for update in batch])
    latest = max(batch, key=lambda update: update.position)
    parameters = (
        users,
        int8s([update.recorded_ms for update in batch]),
        uuids([message_id for message_id, _, _ in rows]),
        int4s([slot for _, slot, _ in rows]),
        bools([is_told for _, _, is_told in rows]),
        uuids([update.group_id for update in batch]),
        users,
        Uuid(latest.position),
        Int8(latest.recorded_ms),
    )
    return Statement(_READ, parameters)


def _move(batch: Sequence[MemberReadUpdate]) -> Statement:
    places: dict[tuple[bytes, bytes], _Place] = {}
    for n, update in enumerate(batch):
        upto = update.upto or max((message.message_id for message in update.messages), default=b"")
        if upto:
            key = (update.user_id, update.group_id)
            place = _Place(bool(update.upto), upto, n, update.is_forced)
            rival = places.get(key, place)
            places[key] = max(rival, place)._replace(is_forced=rival.is_forced or place.is_forced)
    # Lines of chat lists are locked by group first, as by those who move them up.
    keys = sorted(places, key=itemgetter(1, 0))
    updates = [batch[places[key].n] for key in keys]
    parameters = (
        uuids([user_id for user_id, _ in keys]),
        uuids([group_id for _, group_id in keys]),
        int4s([places[key].n for key in keys]),
        int4s([update.device_id for update in updates]),
        uuids([places[key].upto for key in keys]),
        bools([places[key].is_whole for key in keys]),
        bools([places[key].is_forced for key in keys]),
        uuids([update.position for update in updates]),
        [multirange(update.windows) for update in updates],
    )
    return Statement(_MOVE, parameters)


def multirange(windows: Sequence[Window]) -> str:
    """Returns times in a group as an `int8multirange` of versions."""
    ranges = (f"[{window.joined_version},{window.left_version or ''})" for window in windows)
    return "{" + ",".join(ranges) + "}"


def _unread(packed: bytes) -> Iterator[tuple[bytes, UnreadMessage]]:
    for message_id, sender_id, members_version in _UNREAD.iter_unpack(packed):
        yield message_id, UnreadMessage(message_id, sender_id, members_version)
