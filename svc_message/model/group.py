"""What the ledger knows of groups: messages to them, who may see these, the journal, and receipts."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple, NewType

from svc_message.model import (
    ConversationId,
    DeviceId,
    Event,
    MessageEvent,
    MessageId,
    Position,
    StoredMessage,
    UserId,
    Verdict,
    expires_at,
)

Shard = NewType("Shard", int)
"""Names what one process accepted for groups: its boot id, 64 bits."""


class DirectoryGroup(NamedTuple):
    """What the ledger needs to know of a group; comes from svc_identity. The last three stand side by side, by user."""

    group_id: ConversationId
    exists: bool
    version: int
    is_announcement_only: bool
    expiry_s: int
    latest_join: int
    """The greatest of `joined_versions`: whoever is a member was one in this version."""
    user_ids: tuple[UserId, ...]
    is_admin: tuple[bool, ...]
    """Also for the owner."""
    joined_versions: tuple[int, ...]

    def place(self, user_id: bytes) -> int:
        """Returns where a member stands in the columns, or -1."""
        at = bisect_left(self.user_ids, user_id)
        return at if at < len(self.user_ids) and self.user_ids[at] == user_id else -1

    def entitled(self, version: int) -> tuple[UserId, ...]:
        """Returns the members who were members in a version, by id."""
        if self.latest_join <= version:
            return self.user_ids
        pairs = zip(self.user_ids, self.joined_versions, strict=True)
        return tuple([user_id for user_id, joined in pairs if joined <= version])

    def since(self, version: int) -> tuple[UserId, ...]:
        """Returns the members whose membership began after a version, by id."""
        if self.latest_join <= version:
            return ()
        pairs = zip(self.user_ids, self.joined_versions, strict=True)
        return tuple([user_id for user_id, joined in pairs if joined > version])


class Window(NamedTuple):
    """One time of a user in a group: the first version with it, and the first without it, 0 while it lasts."""

    joined_version: int
    left_version: int

    def shows(self, version: int) -> bool:
        """Tells whether a message to the members of a version is visible."""
        return self.joined_version <= version and (self.left_version == 0 or version < self.left_version)


def left_version_of(windows: Sequence[Window]) -> int:
    """Returns the first version without a user after its last time in a group, 0 while that lasts; 1 for a stranger."""
    return windows[-1].left_version if windows else 1


class Membership(NamedTuple):
    """What a user has to do with a group, now and in the past."""

    is_member: bool
    is_admin: bool
    windows: tuple[Window, ...]
    """Empty when it never was a member."""
    group_version: int
    """Of the group when this was true; 0 when there is no such group."""


class GroupLine(NamedTuple):
    """Names a group of a chat list, with the times of the list's owner in it."""

    group_id: ConversationId
    windows: tuple[Window, ...]


class GroupChat(NamedTuple):
    """What a chat list shows of a group."""

    last_message: StoredMessage | None
    unread_count: int
    """Capped at 100."""


class NewGroupMessage(NamedTuple):
    """A message to a group that passed the checks and is to be made durable.

    As with `NewMessage` only `position` differs between attempts; of `members_version` and `recipient_count` the first
    decision that the store finds wins.
    """

    message_id: MessageId
    group_id: ConversationId
    sender_id: UserId
    sender_device_id: DeviceId
    envelope: bytes
    content_hash: bytes
    members_version: int
    recipient_count: int
    """How many members that version has, without the sender."""
    is_retry: bool
    position: Position
    """Of the sender's pointer and of the entry in the journal."""
    accepted_ms: int
    expiry_s: int = 0
    """It disappears so many seconds after the first attempt was accepted; 0 for never."""

    @property
    def conversation_id(self) -> ConversationId:
        """The group is the conversation."""
        return self.group_id

    @property
    def recipient_id(self) -> UserId:
        """The group stands where a recipient would."""
        return UserId(self.group_id)

    @property
    def is_withheld(self) -> bool:
        """No block keeps a message from a group."""
        return False

    def to_event(self) -> MessageEvent:
        """Returns the event that the message becomes."""
        return MessageEvent(
            self.position,
            self.message_id,
            self.group_id,
            self.sender_id,
            self.sender_device_id,
            self.recipient_id,
            self.accepted_ms,
            self.envelope,
            members_version=self.members_version,
            expires_ms=expires_at(self.accepted_ms, self.expiry_s),
        )


class GroupAccepted(NamedTuple):
    """The store's answer for one `NewGroupMessage`; all but the verdict as the first attempt decided."""

    verdict: Verdict
    accepted_ms: int
    members_version: int
    recipient_count: int
    is_altered: bool = False
    """What the first attempt stored was since edited or taken back: the attempt's content is not shown any more."""


class Entry(NamedTuple):
    """An entry of the journal: what the members of a group are to be told, but for whoever caused it."""

    position: Position
    """In the journal."""
    conversation_id: ConversationId
    causer_id: UserId
    members_version: int
    """Entitled are the members of this version who are members still."""
    event: Event
    """Its position is set anew for every inbox."""
    is_quiet: bool = False
    """What the event holds is not shown any more: there are only pointers, which lead to what is."""


class Undecodable(NamedTuple):
    """An entry of the journal that this program cannot read: poison, and nothing else is."""

    position: Position
    why: str


class Orphan(NamedTuple):
    """A shard that nobody takes care of."""

    shard: Shard
    mark: Position
    """Everything before it is done."""


class Expansion(NamedTuple):
    """One row for the inbox of each of some members, all under one position.

    Several events are messages, and share a row.
    """

    conversation_id: ConversationId
    position: Position
    events: tuple[Event, ...]
    user_ids: Sequence[UserId]


class Touch(NamedTuple):
    """Moves a conversation up in the chat lists of members, which may be left out for a minute after the last one."""

    conversation_id: ConversationId
    last_ms: int
    """When its newest message came; a message that was accepted late came after what it stands before."""
    version: int
    """Of the group, whose members they are: what goes to those of another version is not left out."""
    user_ids: Sequence[UserId]
