"""Keeps what was said in which version of a group, for those who leave."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Final, NamedTuple

from svc_message.adapters.ledger_cassandra.actions import Deed, Reactions
from svc_message.adapters.ledger_cassandra.bodies import BodyKey
from svc_message.adapters.ledger_cassandra.cells import (
    AFTER_ALL,
    NO_ID,
    Edit,
    bigint,
    integer,
    list_of_ids,
    stamp_of_action,
)
from svc_message.adapters.ledger_cassandra.connection import Connection, Read, Row, Write
from svc_message.adapters.ledger_cassandra.copies import Copy, chunks
from svc_message.model import ConversationId, MessageId, UserId
from svc_message.model.action import ActionKind

_MESSAGE: Final = UserId(NO_ID)
"""Stands where a user would for what the message itself says."""
_KEEP: Final = """
    INSERT INTO group_contents (conversation_id, bucket, message_id, user_id, members_version, content)
    VALUES (?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?
"""
_FORGET: Final = """
    DELETE FROM group_contents USING TIMESTAMP ? WHERE conversation_id = ? AND bucket = ? AND message_id = ?
"""
_NAMED: Final = """
    SELECT uuid_as_blob(message_id), uuid_as_blob(user_id), members_version, content FROM group_contents
    WHERE conversation_id = ? AND bucket = ? AND message_id IN ?
"""


class Said(NamedTuple):
    """What was said in one version of a group; by whom matters of reactions alone."""

    user_id: UserId
    members_version: int
    content: Edit


class Contents:
    """What was said of messages to groups in each version, for those who have left one."""

    def __init__(self, said: Mapping[BodyKey, Sequence[Said]]) -> None:
        self._said = said

    def body(self, key: BodyKey, body: Copy, left_version: int) -> Copy:
        """Returns a message as it stood before a version: with the last edit before, or as it was sent."""
        return body._replace(edit=self._before(key, left_version).get(_MESSAGE))

    def reactions(self, key: BodyKey, left_version: int) -> Reactions:
        """Returns the reactions that stood before a version."""
        before = self._before(key, left_version)
        return {(user_id, False): reaction for user_id, reaction in before.items() if user_id != _MESSAGE}

    def _before(self, key: BodyKey, left_version: int) -> dict[UserId, Edit]:
        standing: dict[UserId, Edit] = {}
        for user_id, version, content in self._said.get(key, ()):
            if version < left_version:
                standing[user_id] = max(content, standing.get(user_id, content))
        return standing


async def read_contents(connection: Connection, keys: Iterable[BodyKey]) -> Contents:
    """Reads what was said of messages; nothing is read when none is named."""
    partitions: dict[tuple[ConversationId, bytes], dict[MessageId, None]] = {}
    for key in keys:
        partitions.setdefault((key.conversation_id, key.bucket), {})[key.message_id] = None
    reads = [
        (place[0], Read(_NAMED, (*place, list_of_ids(ids))))
        for place, all_ids in partitions.items()
        for ids in chunks(all_ids)
    ]
    said: dict[BodyKey, list[Said]] = {}
    for (group_id, _), rows in zip(reads, await connection.read([read for _, read in reads]), strict=True):
        for message_id, user_id, version, content in connection.unreadable.each(_said, rows):
            if content is not None:
                said.setdefault(BodyKey(group_id, message_id), []).append(Said(user_id, version, content))
    return Contents(said)


def _said(row: Row) -> tuple[MessageId, UserId, int, Edit | None]:
    message_id, user_id, version, cell = row
    return message_id, user_id, version, Edit.read(cell)


def keep(key: BodyKey, deed: Deed, change: Edit, ttl_s: int) -> Write:
    """Returns what keeps an edit, or a reaction, in the version in which it was done; the greatest of it stands."""
    partition = (key.conversation_id, key.bucket)
    user_id = deed.user_id if deed.kind is ActionKind.REACTION else _MESSAGE
    row = (*partition, key.message_id, user_id, bigint(deed.group_version), change.cell())
    return Write(_KEEP, partition, (*row, stamp_of_action(change.action_id), integer(ttl_s)))


def forget_contents(key: BodyKey) -> Write:
    """Returns what takes everything away that was said of a message, what comes later too."""
    partition = (key.conversation_id, key.bucket)
    return Write(_FORGET, partition, (AFTER_ALL, *partition, key.message_id))
