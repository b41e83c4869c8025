"""Reads what was done to messages, and what people reacted."""

from collections.abc import Iterable
from struct import Struct
from typing import Final, NamedTuple

from svc_message.adapters.ledger_cassandra.cells import (
    Edit,
    Rank,
    boolean,
    bucket_of,
    checked_ms,
    list_of_ids,
    smallint,
    stamp,
)
from svc_message.adapters.ledger_cassandra.connection import Connection, Read, Row, Write
from svc_message.adapters.ledger_cassandra.copies import chunks
from svc_message.model import ConversationId, DeviceId, MessageId, UserId
from svc_message.model.action import ActionKind, NewAction

_LATEST: Final = 2**63 - 1
_NOBODY: Final = bytes(16)
# The earliest acceptance first, so that of several first attempts it wins whole.
_HEADER: Final = Struct("!Q16sBB16s16s16sIQ")
_GROUP_HEADER: Final = Struct("!Q16sBB16s16s16sIQQ")
_NAMED: Final = """
    SELECT uuid_as_blob(action_id), header, is_void FROM actions
    WHERE conversation_id = ? AND bucket = ? AND action_id IN ?
"""
_REACTION: Final = """
    SELECT uuid_as_blob(message_id), uuid_as_blob(user_id), is_withheld, reaction FROM reactions
    WHERE conversation_id = ? AND bucket = ? AND message_id IN ?
"""
_STORE: Final = """
    INSERT INTO actions (conversation_id, bucket, action_id, header) VALUES (?, ?, ?, ?) USING TIMESTAMP ?
"""
_SET_VOID: Final = """
    UPDATE actions USING TIMESTAMP ? SET is_void = ? WHERE conversation_id = ? AND bucket = ? AND action_id = ?
"""


class ActionKey(NamedTuple):
    """Names an action."""

    conversation_id: ConversationId
    action_id: MessageId

    @property
    def partition(self) -> tuple[bytes, bytes]:
        """The partition key."""
        return self.conversation_id, smallint(bucket_of(self.action_id))


class Deed(NamedTuple):
    """What an action did, as its first attempt decided."""

    accepted_ms: int
    content_hash: bytes
    kind: ActionKind
    is_withheld: bool
    message_id: MessageId
    user_id: UserId
    peer_id: UserId | None
    device_id: DeviceId
    expires_ms: int
    """Of the message; 0 when it stays."""
    group_version: int = 0
    """Of the group when it was done; 0 in a direct conversation."""

    @classmethod
    def of(cls, action: NewAction, expires_ms: int) -> "Deed":
        """Returns what an attempt decides when it is the first."""
        return cls(
            action.accepted_ms,
            action.content_hash,
            action.kind,
            action.is_withheld,
            action.message_id,
            action.user_id,
            action.peer_id,
            action.device_id,
            expires_ms,
            action.group_version,
        )

    @classmethod
    def read(cls, cell: bytes) -> "Deed":
        """Reads the cell of an action; raises as `Header.read` when it is none."""
        version = 0
        if len(cell) == _HEADER.size:
            left_ms, hashed, kind, withheld, message, user, peer, device, expires_ms = _HEADER.unpack(cell)
        else:
            left_ms, hashed, kind, withheld, message, user, peer, device, expires_ms, version = _GROUP_HEADER.unpack(
                cell
            )
        peer_id = None if peer == _NOBODY else UserId(peer)
        place = (message, user, peer_id, DeviceId(device))
        accepted_ms = checked_ms(_LATEST - left_ms)
        return cls(accepted_ms, hashed, ActionKind(kind), withheld == 1, *place, checked_ms(expires_ms), version)

    def cell(self) -> bytes:
        """Writes the cell."""
        common = (
            _LATEST - self.accepted_ms,
            self.content_hash,
            self.kind,
            self.is_withheld,
            self.message_id,
            self.user_id,
            self.peer_id or _NOBODY,
            self.device_id,
            self.expires_ms,
        )
        if not self.group_version:
            return _HEADER.pack(*common)
        return _GROUP_HEADER.pack(*common, self.group_version)


class StoredAction(NamedTuple):
    """What stands under the id of an action."""

    deed: Deed | None
    is_void: bool


Reactions = dict[tuple[UserId, bool], Edit]
"""By who reacted, and whether it is for its own eyes: the reaction that stands, empty when it was taken away."""


async def read_actions(connection: Connection, keys: Iterable[ActionKey]) -> dict[ActionKey, StoredAction]:
    """Reads the actions that are there."""
    partitions: dict[tuple[bytes, bytes], dict[MessageId, None]] = {}
    for key in keys:
        partitions.setdefault(key.partition, {})[key.action_id] = None
    reads = [
        (place, Read(_NAMED, (*place, list_of_ids(ids))))
        for place, all_ids in partitions.items()
        for ids in chunks(all_ids)
    ]
    found: dict[ActionKey, StoredAction] = {}
    for (place, _), rows in zip(reads, await connection.read([read for _, read in reads]), strict=True):
        for action_id, action in connection.unreadable.each(_action, rows, _no_deed):
            found[ActionKey(ConversationId(place[0]), action_id)] = action
    return found


async def read_reactions(
    connection: Connection, places: Iterable[tuple[ConversationId, MessageId]]
) -> dict[tuple[ConversationId, MessageId], Reactions]:
    """Reads the reactions to messages."""
    partitions: dict[tuple[ConversationId, bytes], dict[MessageId, None]] = {}
    for conversation_id, message_id in places:
        bucket = smallint(bucket_of(message_id))
        partitions.setdefault((conversation_id, bucket), {})[message_id] = None
    reads = [
        (place, Read(_REACTION, (*place, list_of_ids(ids))))
        for place, all_ids in partitions.items()
        for ids in chunks(all_ids)
    ]
    found: dict[tuple[ConversationId, MessageId], Reactions] = {}
    for (place, _), rows in zip(reads, await connection.read([read for _, read in reads]), strict=True):
        for message_id, user_id, is_withheld, reaction in connection.unreadable.each(_reaction, rows):
            if reaction is not None:
                found.setdefault((place[0], message_id), {})[user_id, is_withheld] = reaction
    return found


def _action(row: Row) -> tuple[MessageId, StoredAction]:
    action_id, header, is_void = row
    return action_id, StoredAction(Deed.read(header) if header else None, is_void is True)


def _no_deed(row: Row) -> tuple[MessageId, StoredAction]:
    action_id, _, is_void = row
    return action_id, StoredAction(None, is_void is True)


def _reaction(row: Row) -> tuple[MessageId, UserId, bool, Edit | None]:
    message_id, user_id, is_withheld, cell = row
    return message_id, user_id, is_withheld, Edit.read(cell)


def store_action(key: ActionKey, deed: Deed) -> Write:
    """Returns what stores an action."""
    return Write(_STORE, key.partition, (*key.partition, key.action_id, deed.cell(), stamp(key.action_id, Rank.SENT)))


def set_action_void(key: ActionKey, *, is_withdrawn: bool = False) -> Write:
    """Returns what declares an action void, or withdraws that."""
    rank = Rank.WITHDRAWN if is_withdrawn else Rank.VOID
    values = (stamp(key.action_id, rank), boolean(not is_withdrawn), *key.partition, key.action_id)
    return Write(_SET_VOID, key.partition, values)
