"""Reads on in the inboxes, and appends what other services tell.

A row points to what it is about, and events show that as it is now. What a pointer leads to may not be there yet: its
message was not acknowledged then, and will be pointed to again.
"""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final, NamedTuple

from svc_message.adapters.inbox_rows import (
    ACTION,
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
    messages_of,
    own_read_of,
    receipt_of,
)
from svc_message.adapters.ledger_cassandra.actions import (
    ActionKey,
    Deed,
    Reactions,
    StoredAction,
    read_actions,
    read_reactions,
)
from svc_message.adapters.ledger_cassandra.bodies import BodyKey, read_bodies, with_own
from svc_message.adapters.ledger_cassandra.bounds import Bounds
from svc_message.adapters.ledger_cassandra.cells import Edit, integer, ordered, smallint
from svc_message.adapters.ledger_cassandra.connection import Connection, Read
from svc_message.adapters.ledger_cassandra.contents import Contents, read_contents
from svc_message.adapters.ledger_cassandra.copies import Copy, CopyKey, read_copies
from svc_message.adapters.ledger_cassandra.lines import Line, read_lines
from svc_message.adapters.ledger_cassandra.pointers import Place
from svc_message.model import (
    NO_POSITION,
    ConversationId,
    Event,
    ForeignAppend,
    InboxPage,
    InboxRead,
    MessageId,
    Position,
    UserId,
)
from svc_message.model.action import ActionKind, EditEvent, ReactionEvent, RevokeEvent
from svc_message.model.setting import SettingEvent
from svc_message.protocol import is_group

ROWS_APPENDED: Final = 4096
_LATER: Final = frozenset({ActionKind.EDIT, ActionKind.REACTION})
"""What may say something that who has left is not to see."""

_COLUMNS: Final = """
    SELECT uuid_as_blob(pos), kind, uuid_as_blob(conversation_id), uuid_as_blob(item_id), data FROM inbox
    WHERE user_id = ? AND week = ?
"""
_AFTER: Final = f"{_COLUMNS} AND pos > ? LIMIT ?"
_AT: Final = f"{_COLUMNS} AND pos = ?"


class _Row(NamedTuple):
    position: Position
    kind: int
    conversation_id: ConversationId
    item_id: MessageId
    data: bytes | None

    @property
    def weight(self) -> int:
        """How many events it stands for; one that is spoilt counts as well, for the store has counted it."""
        return max(len(self.data or b"") // ID_BYTES, 1) if self.kind == MESSAGES else 1


_Placed = tuple[UserId, _Row]
"""A row of a user's inbox."""
_Departures = dict[tuple[UserId, ConversationId], int]
"""The versions of groups in which users left them."""


class _Pointed(NamedTuple):
    """What rows are about, as each of their readers sees it."""

    actions: dict[ActionKey, StoredAction]
    copies: dict[CopyKey, Copy]
    reactions: dict[tuple[ConversationId, MessageId], Reactions]
    lines: dict[tuple[UserId, ConversationId], Line]
    departures: _Departures
    contents: Contents
    """Of what is shown to who has left."""
    now_ms: int

    def reaction(self, user_id: UserId, conversation_id: ConversationId, deed: Deed) -> Edit | None:
        """Returns the reaction of whoever did a deed, as a reader sees it."""
        place = BodyKey(conversation_id, deed.message_id)
        if left_version := self.departures.get((user_id, conversation_id)):
            return self.contents.reactions(place, left_version).get((deed.user_id, False))
        return self.reactions.get(place, {}).get((deed.user_id, deed.is_withheld))

    def alters_group(self, user_id: UserId, row: _Row) -> bool:
        """Tells whether a row is about an edit of a message to a group, a reaction, or a message that was edited."""
        if not is_group(row.conversation_id):
            return False
        if row.kind == ACTION:
            action = self.actions.get(ActionKey(row.conversation_id, row.item_id))
            return action is not None and action.deed is not None and action.deed.kind in _LATER
        copies = [self.copies.get(key) for key in _copy_keys(user_id, row, self.actions)]
        return any(copy is not None and copy.edit is not None for copy in copies)

    def events(self, placed: _Placed) -> list[Event]:
        """Returns what a row tells its reader; nothing when it is not to be seen any more."""
        user_id, row = placed
        if row.kind in {MESSAGE, MESSAGES}:
            copies = [self.copies.get(key) for key in _copy_keys(user_id, row, self.actions)]
            seen = [copy for copy in copies if copy is not None and copy.is_seen(self.now_ms)]
            return [copy.event(row.conversation_id, row.position) for copy in seen]
        event: Event | None
        if row.kind == ACTION:
            event = _action(placed, self)
        elif row.kind == SETTING:
            line = self.lines.get((user_id, row.conversation_id))
            event = None if line is None else SettingEvent(row.position, user_id, row.conversation_id, line.settings())
        else:
            event = _other(placed)
        return [] if event is None else [event]


async def read_inbox(connection: Connection, bounds: Bounds, reads: Sequence[InboxRead]) -> list[InboxPage]:
    """Reads on in many inboxes; a page ends between positions, so it may be longer than asked for."""
    pages = [_cut(read, rows) for read, rows in zip(reads, await _rows(connection, bounds, reads), strict=True)]
    known = [
        [row for row in connection.unreadable.each(_known, rows) if not _is_there(row, read.known_ids)]
        for read, (rows, _) in zip(reads, pages, strict=True)
    ]
    placed = [(read.user_id, row) for read, rows in zip(reads, known, strict=True) for row in rows]
    departures = {(read.user_id, one.group_id): one.left_version for read in reads for one in read.departures}
    pointed = await _pointed(connection, placed, departures, bounds.now_ms())
    return [
        InboxPage(
            list(
                chain.from_iterable(connection.unreadable.each(pointed.events, [(read.user_id, row) for row in rows]))
            ),
            has_more,
            met[-1].position if met else NO_POSITION,
            frozenset(row.conversation_id for row in rows if pointed.alters_group(read.user_id, row)),
        )
        for read, rows, (met, has_more) in zip(reads, known, pages, strict=True)
    ]


async def append_events(connection: Connection, bounds: Bounds, batch: Sequence[ForeignAppend]) -> None:
    """Appends events for all of their users."""
    if not batch:
        return
    bounds.check(*[append.position for append in batch])
    places = [Place(append.position) for append in batch]
    rows = [
        [place.foreign(user_id, append)]
        for place, append in zip(places, batch, strict=True)
        for user_id in append.user_ids
    ]
    for start in range(0, len(rows), ROWS_APPENDED):
        await connection.write(rows[start : start + ROWS_APPENDED])


async def _rows(connection: Connection, bounds: Bounds, reads: Sequence[InboxRead]) -> list[list[_Row]]:
    """Reads one row more than asked for, which tells whether there are more, and all of its position."""
    weeks = [(n, week) for n, read in enumerate(reads) for week in bounds.weeks_after(read.after)]
    found = await connection.read(
        [
            Read(
                _AFTER,
                (reads[n].user_id, smallint(week), ordered(reads[n].after), integer(reads[n].limit + 1)),
            )
            for n, week in weeks
        ]
    )
    # A position that the limit cut is read as a whole.
    cut = [(slot, rows[-1][0]) for slot, rows in enumerate(found) if len(rows) > reads[weeks[slot][0]].limit]
    last = await connection.read(
        [Read(_AT, (reads[weeks[slot][0]].user_id, smallint(weeks[slot][1]), position)) for slot, position in cut]
    )
    for (slot, position), rows in zip(cut, last, strict=True):
        found[slot] = [row for row in found[slot] if row[0] != position] + rows
    inboxes: list[list[_Row]] = [[] for _ in reads]
    for (n, _), rows in zip(weeks, found, strict=True):
        inboxes[n] += [_Row(*row) for row in rows]
    return inboxes


def _cut(read: InboxRead, rows: list[_Row]) -> tuple[list[_Row], bool]:
    """Returns the rows of a page and whether there are more; it ends between positions."""
    left = read.limit
    for row in rows:
        left -= row.weight
        if left < 0:
            end = row.position
            # A position with more events than the limit is given whole; the next page may then be empty.
            kept = [row for row in rows if row.position < end] or [row for row in rows if row.position == end]
            return kept, True
    return rows, False


async def _pointed(connection: Connection, placed: Sequence[_Placed], departures: _Departures, now_ms: int) -> _Pointed:
    actions = await read_actions(
        connection, [ActionKey(row.conversation_id, row.item_id) for _, row in placed if row.kind == ACTION]
    )
    keys = {key for user_id, row in placed for key in _copy_keys(user_id, row, actions)}
    reacted = [
        (key.conversation_id, action.deed.message_id)
        for key, action in actions.items()
        if action.deed is not None and action.deed.kind is ActionKind.REACTION
    ]
    changed = list({(user_id, row.conversation_id) for user_id, row in placed if row.kind == SETTING})
    lines = await read_lines(connection, changed)
    left = [BodyKey(*key[1:]) for key in keys if key[:2] in departures]
    contents = await read_contents(connection, left)
    return _Pointed(
        actions,
        await _seen(connection, keys, departures, contents),
        await read_reactions(connection, reacted),
        {place: line for place, line in zip(changed, lines, strict=True) if line is not None},
        departures,
        contents,
        now_ms,
    )


async def _seen(
    connection: Connection, keys: Iterable[CopyKey], departures: _Departures, contents: Contents
) -> dict[CopyKey, Copy]:
    """Reads messages as each of their readers sees them; those of groups are read once for all of them."""
    wanted = list(keys)
    found = await read_copies(connection, wanted, is_whole=True)
    of_groups = [key for key in wanted if is_group(key.conversation_id)]
    bodies = await read_bodies(connection, {BodyKey(key.conversation_id, key.message_id) for key in of_groups})
    for key in of_groups:
        place = BodyKey(key.conversation_id, key.message_id)
        body, own = bodies.get(place), found.pop(key, None)
        if body is not None:
            if left_version := departures.get((key.user_id, key.conversation_id)):
                body = contents.body(place, body, left_version)
            found[key] = with_own(body, own)
    return found


def _known(row: _Row) -> _Row:
    """Returns a row; raises when it is not one that this program knows."""
    check(row.kind, row.data)
    return row


def _is_there(row: _Row, known_ids: frozenset[bytes]) -> bool:
    """Tells whether a row is about nothing but messages that its reader has."""
    if not known_ids or row.kind not in {MESSAGE, MESSAGES}:
        return False
    return known_ids.issuperset([row.item_id] if row.kind == MESSAGE else messages_of(row.data or b""))


def _copy_keys(user_id: UserId, row: _Row, actions: dict[ActionKey, StoredAction]) -> list[CopyKey]:
    return [CopyKey(user_id, row.conversation_id, message_id) for message_id in _messages_of(row, actions)]


def _messages_of(row: _Row, actions: dict[ActionKey, StoredAction]) -> list[MessageId]:
    if row.kind == MESSAGE:
        return [row.item_id]
    if row.kind == MESSAGES:
        return messages_of(row.data or b"")
    if row.kind == ACTION:
        action = actions.get(ActionKey(row.conversation_id, row.item_id))
        return [action.deed.message_id] if action is not None and action.deed is not None else []
    return []


def _other(placed: _Placed) -> Event:
    """Returns an event that holds everything itself."""
    user_id, (position, kind, conversation_id, _, data) = placed
    said = data or b""
    if kind == FOREIGN:
        return foreign_of(position, said)
    if kind == RECEIPT:
        return receipt_of(position, conversation_id, said)
    if kind == GROUP_RECEIPT:
        return group_receipt_of(position, conversation_id, said)
    return own_read_of(position, user_id, conversation_id, said)


def _action(placed: _Placed, pointed: _Pointed) -> Event | None:
    user_id, row = placed
    action = pointed.actions.get(ActionKey(row.conversation_id, row.item_id))
    if action is None or action.deed is None or action.is_void:
        return None
    deed = action.deed
    if 0 < deed.expires_ms <= pointed.now_ms:
        return None
    place = (row.position, row.item_id, row.conversation_id, deed.message_id, deed.user_id, deed.device_id)
    if deed.kind in {ActionKind.REVOKE, ActionKind.HIDE}:
        return RevokeEvent(*place, deed.accepted_ms, deed.kind is ActionKind.HIDE, deed.expires_ms)
    copy = pointed.copies.get(CopyKey(user_id, row.conversation_id, deed.message_id))
    if copy is None or copy.revoked_ms or not copy.is_seen(pointed.now_ms):
        return None
    standing = copy.edit
    if deed.kind is ActionKind.REACTION:
        standing = pointed.reaction(user_id, row.conversation_id, deed)
    if standing is None or standing.action_id != row.item_id:
        return None
    make = EditEvent if deed.kind is ActionKind.EDIT else ReactionEvent
    return make(*place, deed.accepted_ms, standing.envelope, deed.expires_ms)
