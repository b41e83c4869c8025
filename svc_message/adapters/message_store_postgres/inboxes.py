"""Reads on in the inboxes, and appends what other services tell."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from typing import Final

from svc_message.adapters.inbox_rows import (
    ACTION,
    CHANGE_ID_BYTES,
    FOREIGN,
    GROUP_RECEIPT,
    ID_BYTES,
    MESSAGE,
    MESSAGES,
    RECEIPT,
    SETTING,
    check,
    foreign_of,
    group_receipt_of,
    own_read_of,
    receipt_of,
)
from svc_message.adapters.message_store_postgres.arrays import byte_strings, int4s, int8s, uuids
from svc_message.adapters.message_store_postgres.connections import Connections, Row, Statement
from svc_message.adapters.message_store_postgres.seeing import FOR_EVER, woven
from svc_message.adapters.message_store_postgres.settings import setting_of
from svc_message.adapters.message_store_postgres.shared import Shared, Wanted, take_apart
from svc_message.model import (
    NO_POSITION,
    ConversationId,
    Event,
    ForeignAppend,
    InboxPage,
    InboxRead,
    MessageEvent,
    Position,
)
from svc_message.model.action import ActionKind, EditEvent, ReactionEvent, RevokeEvent

ROWS_APPENDED: Final = 4096
_N, _KIND, _POSITION, _CONVERSATION, _ENVELOPE, _EDITED, _EXPIRES = 0, 1, 2, 4, 9, 10, 12
_VERSION, _DATA, _IS_SEEN, _ACTION = 13, 14, 15, 16
_LATER: Final = frozenset({ActionKind.EDIT, ActionKind.REACTION})
"""What may say something that who has left is not to see."""

# One row more than asked for tells whether there are more; its whole position comes with it, and all or nothing of a
# position is given, because who reads on does so after a position. A pointer to an action leads to its message.
_READ_TEXT: Final = """
    SELECT t.n, i.kind, i.pos, i.message_id, i.conversation_id, m.sender_id, m.sender_device_id, m.recipient_id,
        m.accepted_ms, {content}, CASE WHEN i.kind = {setting} THEN {packed_settings} ELSE i.data END,
        coalesce({is_seen}, false),
        a.kind, a.message_id, a.user_id, a.device_id, a.accepted_ms, {reaction},
        CASE a.kind
            WHEN 2 THEN {edit_id} = a.action_id AND NOT {is_revoked}
            WHEN 5 THEN {reaction_id} = a.action_id AND NOT {is_revoked}
            ELSE true
        END
    FROM unnest(%b, %b, %b, %b) AS t (n, user_id, after, count)
    CROSS JOIN LATERAL (
        SELECT * FROM inbox WHERE user_id = t.user_id AND pos > t.after
        ORDER BY pos FETCH FIRST (t.count) ROWS WITH TIES
    ) i
    LEFT JOIN actions a ON a.conversation_id = CASE i.kind WHEN {action} THEN i.conversation_id END
        AND a.action_id = i.message_id
    LEFT JOIN messages m ON m.conversation_id = i.conversation_id
        AND m.message_id = coalesce(a.message_id, i.message_id)
    {view} {departures}
    LEFT JOIN reactions r ON r.conversation_id = CASE a.kind WHEN 5 THEN a.conversation_id END
        AND r.message_id = a.message_id AND r.user_id = a.user_id AND r.is_withheld = a.is_withheld
    {reactions_before}
    LEFT JOIN conversations c ON c.user_id = CASE i.kind WHEN {setting} THEN i.user_id END
        AND c.conversation_id = i.conversation_id
"""
_READ: Final = woven(
    _READ_TEXT,
    reader="t.user_id",
    action=ACTION,
    setting=SETTING,
    reaction="r.envelope",
    reaction_id="r.reaction_id",
    departures="",
    reactions_before="",
)
# Who has left groups sees what stood then.
_DEPARTURES: Final = """
    LEFT JOIN LATERAL (
        SELECT x.left_version FROM unnest(%b, %b, %b) AS x (n, conversation_id, left_version)
        WHERE x.n = t.n AND x.conversation_id = i.conversation_id LIMIT 1
    ) d ON true {before}
"""
_REACTIONS_BEFORE: Final = """
    LEFT JOIN LATERAL (
        SELECT x.* FROM group_contents x
        WHERE r.members_version >= d.left_version AND x.conversation_id = r.conversation_id
            AND x.message_id = r.message_id AND x.user_id = r.user_id AND x.members_version < d.left_version
        ORDER BY x.action_id DESC LIMIT 1
    ) rb ON true
"""
_READ_LEFT: Final = woven(
    _READ_TEXT.replace("{departures}", _DEPARTURES),
    reader="t.user_id",
    left="d.left_version",
    action=ACTION,
    setting=SETTING,
    reaction="CASE WHEN r.members_version >= d.left_version THEN rb.envelope ELSE r.envelope END",
    reaction_id="CASE WHEN r.members_version >= d.left_version THEN rb.action_id ELSE r.reaction_id END",
    reactions_before=_REACTIONS_BEFORE,
)

_APPEND: Final = b"""
    WITH items AS (SELECT %b AS data)
    INSERT INTO inbox (user_id, pos, kind, data)
    SELECT t.user_id, t.pos, 4, items.data[t.n] FROM items, unnest(%b, %b, %b) AS t (n, user_id, pos)
"""


async def read_inbox(connections: Connections, reads: Sequence[InboxRead]) -> list[InboxPage]:
    """Reads on in many inboxes; a page ends between positions, so it may be longer than asked for."""
    if not reads:
        return []
    parameters = (
        int4s(range(len(reads))),
        uuids([read.user_id for read in reads]),
        uuids([read.after for read in reads]),
        int4s([read.limit + 1 for read in reads]),
    )
    found: list[list[Row]] = [[] for _ in reads]
    for row in await connections.run(_reading(reads, parameters)):
        found[row[_N]].append(row)
    pages = [_cut(read, rows) for read, rows in zip(reads, found, strict=True)]
    known = [connections.unreadable.each(_known, rows) for rows, _ in pages]
    wanted = [
        _wanted(read, row) for read, rows in zip(reads, known, strict=True) for row in rows if row[_KIND] == MESSAGES
    ]
    shared = await take_apart(connections, wanted) if wanted else Shared({}, set())
    return [
        InboxPage(
            list(chain.from_iterable(connections.unreadable.each(partial(_events, read, shared), rows))),
            has_more,
            met[-1][_POSITION] if met else NO_POSITION,
            _altered(read, rows, shared),
        )
        for read, rows, (met, has_more) in zip(reads, known, pages, strict=True)
    ]


async def append_events(connections: Connections, batch: Sequence[ForeignAppend]) -> None:
    """Appends events for all of their users."""
    if any(len(append.change_id) != CHANGE_ID_BYTES for append in batch):
        raise ValueError("a change id is not 16 bytes long")
    wanted = [(n, user_id) for n, append in enumerate(batch) for user_id in append.user_ids]
    for start in range(0, len(wanted), ROWS_APPENDED):
        rows = wanted[start : start + ROWS_APPENDED]
        first, last = rows[0][0], rows[-1][0]
        parameters = (
            byte_strings([append.change_id + append.item for append in batch[first : last + 1]]),
            int4s([n - first + 1 for n, _ in rows]),
            uuids([user_id for _, user_id in rows]),
            uuids([batch[n].position for n, _ in rows]),
        )
        await connections.run(Statement(_APPEND, parameters))


def _reading(reads: Sequence[InboxRead], parameters: tuple[object, ...]) -> Statement:
    departures = [(n, *departure) for n, read in enumerate(reads) for departure in read.departures]
    if not departures:
        return Statement(_READ, parameters)
    places, groups, versions = zip(*departures, strict=True)
    return Statement(_READ_LEFT, (*parameters, int4s(places), uuids(groups), int8s(versions)))


def _wanted(read: InboxRead, row: Row) -> Wanted:
    conversation_id = row[_CONVERSATION]
    left = (one.left_version for one in read.departures if one.group_id == conversation_id)
    return Wanted(read.user_id, conversation_id, next(left, FOR_EVER), row[_DATA])


def _known(row: Row) -> Row:
    """Returns a row; raises when it is not one that this program knows."""
    check(row[_KIND], row[_DATA])
    return row


def _cut(read: InboxRead, rows: list[Row]) -> tuple[list[Row], bool]:
    """Returns the rows of a page and whether there are more; it ends between positions."""
    rows.sort(key=_position)
    left = read.limit
    for row in rows:
        # One that is spoilt counts as well, for the store has counted it.
        left -= max(len(row[_DATA] or b"") // ID_BYTES, 1) if row[_KIND] == MESSAGES else 1
        if left < 0:
            end = row[_POSITION]
            # A position with more events than the limit is given whole; the next page may then be empty.
            kept = [row for row in rows if row[_POSITION] < end] or [row for row in rows if row[_POSITION] == end]
            return kept, True
    return rows, False


def _position(row: Row) -> Position:
    position: Position = row[_POSITION]
    return position


def _altered(read: InboxRead, rows: list[Row], shared: Shared) -> frozenset[ConversationId]:
    """Returns the groups of which something was edited or reacted to."""
    altered: set[ConversationId] = set()
    for row in rows:
        if row[_KIND] == MESSAGES:
            messages = shared.messages_in(_wanted(read, row), row[_POSITION])
            altered.update(message.conversation_id for message in messages if message.edited_ms)
        elif row[_VERSION] and (row[_EDITED] or row[_ACTION] in _LATER):
            altered.add(row[_CONVERSATION])
    return frozenset(altered)


def _events(read: InboxRead, shared: Shared, row: Row) -> list[Event]:
    """Returns what a row stands for."""
    if row[_KIND] == MESSAGES:
        return list(shared.messages_in(_wanted(read, row), row[_POSITION]))
    event = _event(read, row)
    return [] if event is None else [event]


def _event(read: InboxRead, row: Row) -> Event | None:
    """Returns an event as its reader sees it; None when it is not to be seen any more."""
    kind = row[_KIND]
    if kind == MESSAGE:
        return MessageEvent(*row[_POSITION:_DATA]) if row[_IS_SEEN] else None
    if kind == ACTION:
        return _action(row)
    if kind == FOREIGN:
        return foreign_of(row[_POSITION], row[_DATA])
    place = (row[_POSITION], row[_CONVERSATION], row[_DATA])
    if kind in _OF_EVERYBODY:
        return _OF_EVERYBODY[kind](*place)
    position, conversation_id, data = place
    of_reader = setting_of if kind == SETTING else own_read_of
    return of_reader(position, read.user_id, conversation_id, data)


_OF_EVERYBODY: dict[int, Callable[..., Event]] = {RECEIPT: receipt_of, GROUP_RECEIPT: group_receipt_of}


def _action(row: Row) -> Event | None:
    kind, message_id, user_id, device_id, accepted_ms, reaction, is_standing = row[_ACTION:]
    if not is_standing or not (row[_IS_SEEN] or kind in {ActionKind.REVOKE, ActionKind.HIDE}):
        return None
    position, action_id, conversation_id = row[_POSITION : _CONVERSATION + 1]
    place = (position, action_id, conversation_id, message_id, user_id, device_id, accepted_ms)
    # Raises for a kind that this program does not know.
    kind = ActionKind(kind)
    if kind is ActionKind.EDIT:
        return EditEvent(*place, row[_ENVELOPE], row[_EXPIRES])
    if kind is ActionKind.REACTION:
        return ReactionEvent(*place, reaction, row[_EXPIRES])
    return RevokeEvent(*place, kind is ActionKind.HIDE, row[_EXPIRES] or 0)
