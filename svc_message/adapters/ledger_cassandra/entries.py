"""Reads and writes the entries of the journal, and what they are about."""

from collections.abc import Callable, Sequence
from typing import Any, Final, NamedTuple

from svc_message.adapters.inbox_rows import ACTION, MESSAGE
from svc_message.adapters.ledger_cassandra.actions import (
    ActionKey,
    Deed,
    Reactions,
    StoredAction,
    read_actions,
    read_reactions,
)
from svc_message.adapters.ledger_cassandra.bodies import BodyKey, read_bodies
from svc_message.adapters.ledger_cassandra.cells import bigint, stamp_of_position
from svc_message.adapters.ledger_cassandra.connection import UNSET, Connection, Write
from svc_message.adapters.ledger_cassandra.copies import Copy
from svc_message.adapters.ledger_cassandra.shards import partition_of
from svc_message.model import NO_POSITION, ConversationId, MessageId, Position, UserId
from svc_message.model.action import ActionEvent, ActionKind, EditEvent, ReactionEvent, RevokeEvent
from svc_message.model.group import Entry, Shard, Undecodable

COLUMNS: Final = """
    uuid_as_blob(pos), uuid_as_blob(conversation_id), uuid_as_blob(message_id), uuid_as_blob(sender_id),
    members_version, kind
"""
_STORE: Final = """
    INSERT INTO journal (shard, slot, pos, conversation_id, message_id, sender_id, members_version, kind)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?
"""


class EntryRow(NamedTuple):
    """What stands in the journal: in the order of the columns."""

    position: Position
    conversation_id: ConversationId
    item_id: MessageId
    """The message, or the action."""
    causer_id: UserId
    members_version: int
    kind: int

    def cells(self) -> tuple[Any, ...]:
        """Writes the cells of the columns; what is missing of an entry that was spoilt stays missing."""
        return (*map(_cell, self[:4]), _cell(self.members_version, bigint), _cell(self.kind, _tinyint))

    def store(self, shard: Shard) -> Write:
        """Returns what writes the row into a shard."""
        partition = partition_of(shard, self.position)
        return Write(_STORE, partition, (*partition, *self.cells(), stamp_of_position(self.position)))


class _About(NamedTuple):
    """What entries are about, as nobody in particular sees it."""

    actions: dict[ActionKey, StoredAction]
    bodies: dict[BodyKey, Copy]
    reactions: dict[tuple[ConversationId, MessageId], Reactions]
    now_ms: int


async def decode(connection: Connection, rows: Sequence[EntryRow], now_ms: int) -> list[Entry | Undecodable]:
    """Reads what rows are about; without those about what has disappeared or was never to be accepted."""
    known = [row for row in rows if not _fault(row)]
    actions = await read_actions(
        connection, [ActionKey(row.conversation_id, row.item_id) for row in known if row.kind == ACTION]
    )
    keys = {key for row in known if (key := _message_of(row, actions)) is not None}
    reacted = [
        (key.conversation_id, action.deed.message_id)
        for key, action in actions.items()
        if action.deed is not None and action.deed.kind is ActionKind.REACTION
    ]
    about = _About(actions, await read_bodies(connection, keys), await read_reactions(connection, reacted), now_ms)
    entries = [_entry(row, about) for row in rows]
    return [entry for entry in entries if entry is not None]


def _cell(value: Any, written: Callable[[Any], bytes] = bytes) -> Any:
    return UNSET if value is None else written(value)


def _tinyint(value: int) -> bytes:
    return value.to_bytes(1, "big", signed=True)


def _fault(row: EntryRow) -> str:
    """Says why a row is not an entry that this program knows; empty when it is one."""
    if None in row:
        return "it is not whole"
    return "" if row.kind in {MESSAGE, ACTION} else f"kind {row.kind}: not one that this program knows"


def _message_of(row: EntryRow, actions: dict[ActionKey, StoredAction]) -> BodyKey | None:
    """Returns the message that an entry is about, or that its action was done to."""
    if row.kind == MESSAGE:
        return BodyKey(row.conversation_id, row.item_id)
    action = actions.get(ActionKey(row.conversation_id, row.item_id))
    return BodyKey(row.conversation_id, action.deed.message_id) if action is not None and action.deed else None


def _entry(row: EntryRow, about: _About) -> Entry | Undecodable | None:
    if fault := _fault(row):
        return Undecodable(row.position, fault)
    key = _message_of(row, about.actions)
    body = about.bodies.get(key) if key is not None else None
    if body is None or body.header is None:
        return Undecodable(row.position, "what it is about is gone, or cannot be read")
    if not body.is_there(about.now_ms):
        return None
    message = body.event(row.conversation_id, NO_POSITION)
    entry = Entry(row.position, row.conversation_id, row.causer_id, row.members_version, message)
    action = about.actions.get(ActionKey(row.conversation_id, row.item_id)) if row.kind == ACTION else None
    if action is None or action.deed is None:
        return entry
    return None if action.is_void else _with_action(entry, row.item_id, action.deed, (body, about))


def _with_action(entry: Entry, action_id: MessageId, deed: Deed, seen: tuple[Copy, _About]) -> Entry:
    """Returns an entry about an action; what does not stand any more is told by its pointer alone."""
    body, about = seen
    conversation_id = entry.conversation_id
    place = (NO_POSITION, action_id, conversation_id, deed.message_id, deed.user_id, deed.device_id, deed.accepted_ms)
    if deed.kind is ActionKind.REVOKE:
        return entry._replace(event=RevokeEvent(*place, is_for_me=False, expires_ms=deed.expires_ms))
    standing = body.edit
    if deed.kind is ActionKind.REACTION:
        standing = about.reactions.get((conversation_id, deed.message_id), {}).get((deed.user_id, False))
    make = EditEvent if deed.kind is ActionKind.EDIT else ReactionEvent
    event: ActionEvent = make(*place, standing.envelope if standing else b"", deed.expires_ms)
    is_standing = standing is not None and standing.action_id == action_id and not body.revoked_ms
    return entry._replace(event=event, is_quiet=not is_standing)
