"""Writes the cells of messages that change: edits, revokes, hidings and reactions.

Each is written into the row of whoever sees it, or into the body of a message to a group; in whatever order they come,
the greatest edit stands, and what was taken back stays so.
"""

from collections.abc import Iterator
from typing import Final

from svc_message.adapters.ledger_cassandra.actions import Deed
from svc_message.adapters.ledger_cassandra.bodies import BodyKey
from svc_message.adapters.ledger_cassandra.cells import (
    AFTER_ALL,
    TRUE,
    Edit,
    Rank,
    boolean,
    bucket_of,
    earliest,
    integer,
    smallint,
    stamp,
    stamp_of_action,
)
from svc_message.adapters.ledger_cassandra.connection import Write
from svc_message.adapters.ledger_cassandra.copies import CopyKey
from svc_message.model import ConversationId, MessageId

RowKey = CopyKey | BodyKey

_COPY: Final = "WHERE user_id = ? AND conversation_id = ? AND bucket = ? AND message_id = ?"
_BODY: Final = "WHERE conversation_id = ? AND bucket = ? AND message_id = ?"
_EDIT: Final = "USING TIMESTAMP ? AND TTL ? SET edit = ?"
_REACTED: Final = "USING TIMESTAMP ? AND TTL ? SET is_reacted = ?"
_REVOKE: Final = "USING TIMESTAMP ? SET revoked = ?, envelope = ?"
_EMPTY_EDIT: Final = "USING TIMESTAMP ? SET edit = ?"
_HIDE: Final = f"UPDATE messages USING TIMESTAMP ? SET is_hidden = ? {_COPY}"  # noqa: S608 - constants
_QUERIES: Final = {
    (kind, change): f"UPDATE {table} {change} {where}"
    for kind, table, where in ((CopyKey, "messages", _COPY), (BodyKey, "bodies", _BODY))
    for change in (_EDIT, _REACTED, _REVOKE, _EMPTY_EDIT)
}
_REACT: Final = """
    INSERT INTO reactions (conversation_id, bucket, message_id, user_id, is_withheld, reaction)
    VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?
"""
_FORGET_REACTIONS: Final = """
    DELETE FROM reactions USING TIMESTAMP ? WHERE conversation_id = ? AND bucket = ? AND message_id = ?
"""


def edit(key: RowKey, change: Edit, ttl_s: int) -> Write:
    """Returns what puts an edit into a row; the greatest stands."""
    return _write(_EDIT, key, stamp_of_action(change.action_id), (integer(ttl_s), change.cell()))


def mark_reacted(key: RowKey, ttl_s: int) -> Write:
    """Returns what lets readers of a row look for reactions."""
    return _write(_REACTED, key, stamp(key.message_id, Rank.CHANGED), (integer(ttl_s), TRUE))


def revoke(key: RowKey, accepted_ms: int) -> Iterator[Write]:
    """Yields what takes a row's content away for ever."""
    yield _write(_REVOKE, key, stamp(key.message_id, Rank.TAKEN_BACK), (earliest(accepted_ms), b""))
    yield empty_edit(key)


def empty_edit(key: RowKey) -> Write:
    """Returns what takes an edit away for ever."""
    return _write(_EMPTY_EDIT, key, AFTER_ALL, (b"",))


def hide(key: CopyKey) -> Write:
    """Returns what hides a message from the user whose row it is."""
    partition = (key.user_id, key.conversation_id, key.bucket)
    return Write(_HIDE, partition, (stamp(key.message_id, Rank.CHANGED), TRUE, *partition, key.message_id))


def react(conversation_id: ConversationId, deed: Deed, reaction: Edit, ttl_s: int) -> Write:
    """Returns what puts a user's reaction in its place; the greatest stands."""
    partition = (conversation_id, smallint(bucket_of(deed.message_id)))
    row = (*partition, deed.message_id, deed.user_id, boolean(deed.is_withheld), reaction.cell())
    return Write(_REACT, partition, (*row, stamp_of_action(reaction.action_id), integer(ttl_s)))


def forget_reactions(conversation_id: ConversationId, message_id: MessageId) -> Write:
    """Returns what takes all reactions to a message away, those that come later too."""
    partition = (conversation_id, smallint(bucket_of(message_id)))
    return Write(_FORGET_REACTIONS, partition, (AFTER_ALL, *partition, message_id))


def changes_of(
    conversation_id: ConversationId, deed: Deed, change: Edit, rows: tuple[list[RowKey], int]
) -> Iterator[Write]:
    """Yields what an action changes.

    Args:
        conversation_id: Of the message.
        deed: What was done.
        change: The action with its content.
        rows: Those in which it is seen, that of its user first, and for how many seconds content is kept in them.
    """
    keys, ttl_s = rows
    if deed.kind is deed.kind.EDIT:
        yield from (edit(key, change, ttl_s) for key in keys)
    elif deed.kind is deed.kind.REACTION:
        yield react(conversation_id, deed, change, ttl_s)
        yield from (mark_reacted(key, ttl_s) for key in keys)
    elif deed.kind is deed.kind.HIDE:
        yield hide(CopyKey(deed.user_id, conversation_id, deed.message_id))
    else:
        for key in keys:
            yield from revoke(key, deed.accepted_ms)
        if not deed.is_withheld:
            yield forget_reactions(conversation_id, deed.message_id)


def _write(change: str, key: RowKey, at: bytes, values: tuple[bytes, ...]) -> Write:
    user = (key.user_id,) if isinstance(key, CopyKey) else ()
    partition = (*user, key.conversation_id, key.bucket)
    stamped = (at, *values, *partition, key.message_id)
    return Write(_QUERIES[type(key), change], partition, stamped)
