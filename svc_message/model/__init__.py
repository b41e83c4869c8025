"""What the ledger knows: ids, new messages, receipts, inbox events and the answers of the store.

Ids are raw bytes on the message path (16 for a UUID), typed by `NewType` and never wrapped: a wrapper costs more than
everything else that happens to them. Types that are made once for each message are `NamedTuple`s for the same reason.
"""

from __future__ import annotations

import enum
from typing import NamedTuple

from svc_message.model.action import EditEvent, Reaction, ReactionEvent, RevokeEvent
from svc_message.model.answer import Answer, Refused, Stored
from svc_message.model.ids import NO_POSITION, ConversationId, DeviceId, MessageId, Position, UserId
from svc_message.model.send import (
    Action,
    SendGroupMessage,
    SendGroupRead,
    SendMessage,
    SendRead,
    SendRequest,
)
from svc_message.model.setting import SettingEvent, Settings

__all__ = [
    "NO_POSITION",
    "Action",
    "Answer",
    "ConversationId",
    "DeviceId",
    "MessageId",
    "Position",
    "Refused",
    "SendGroupMessage",
    "SendGroupRead",
    "SendMessage",
    "SendRead",
    "SendRequest",
    "Stored",
    "UserId",
]


def expires_at(accepted_ms: int, expiry_s: int) -> int:
    """Returns when what was accepted at a time disappears, Unix milliseconds; 0 for never."""
    return accepted_ms + expiry_s * 1000 if expiry_s else 0


class ReceiptState(enum.IntEnum):
    """How far a message has come; only ever rises. The numbers are stored and on the wire."""

    SENT = 1
    DELIVERED = 2
    READ = 3


class Verdict(enum.IntEnum):
    """What the store says of a message that it was to accept."""

    STORED = 1
    """Durable for the first time."""
    DUPLICATE = 2
    """An earlier attempt was found; its rows were written again under the fresh position."""
    CONFLICT = 3
    """The id is taken by other content; the first is kept."""
    VOID = 4
    """The id was declared void; it will never be accepted."""


class NewMessage(NamedTuple):
    """A direct message that passed the checks and is to be made durable.

    `position` is fresh at every call; everything else is the same for every attempt, but for `is_withheld`, where the
    first decision that the store finds wins.
    """

    message_id: MessageId
    conversation_id: ConversationId
    sender_id: UserId
    sender_device_id: DeviceId
    recipient_id: UserId
    envelope: bytes
    """Serialised and opaque."""
    content_hash: bytes
    """16 bytes over recipient and envelope: what makes two sends with one id the same."""
    is_withheld: bool
    """The recipient has blocked the sender: only the sender's side is written, for ever."""
    is_retry: bool
    """An earlier attempt may exist: the store looks before it writes."""
    position: Position
    accepted_ms: int
    expiry_s: int = 0
    """It disappears so many seconds after the first attempt was accepted; 0 for never."""


class Accepted(NamedTuple):
    """The store's answer for one `NewMessage`, in the order of the batch."""

    verdict: Verdict
    accepted_ms: int
    """Of the first attempt."""
    is_withheld: bool
    """As the first attempt decided."""
    is_altered: bool = False
    """What the first attempt stored was since edited or taken back, or has disappeared: its content is not shown."""


class MessageRef(NamedTuple):
    """Names a direct message whose fate is asked for, or that is to be declared void."""

    message_id: MessageId
    conversation_id: ConversationId
    sender_id: UserId
    recipient_id: UserId


class Found(NamedTuple):
    """What the store holds under a `MessageRef`."""

    is_void: bool
    content_hash: bytes
    accepted_ms: int
    is_withheld: bool
    is_spent: bool = False
    """It has disappeared: there is nothing to complete."""


class ReceiptUpdate(NamedTuple):
    """Messages that a user has received or read in one direct conversation.

    `message_ids` are the messages; `read_upto` (empty for none) stands for every message of the peer up to it, in
    portions of 1,000 messages of the conversation, the oldest first. With `is_forced` the events are written again even
    where the state does not change, of what was read since `forced_since_ms` among the 1,000 messages before
    `forced_upto`, too: the retry of an update whose outcome or age was in doubt. A store that raises a message only
    after what tells of it was written in time has nothing to look for.
    """

    reader_id: UserId
    reader_device_id: DeviceId
    conversation_id: ConversationId
    peer_id: UserId
    """Who sent the messages; the store ignores ids of anybody else's messages, and of the withheld."""
    state: ReceiptState
    message_ids: tuple[MessageId, ...]
    read_upto: bytes
    is_forced: bool
    position: Position
    recorded_ms: int
    is_told: bool = True
    """The peer may know that its messages were read; otherwise they stay delivered for it."""
    read_after: bytes = b""
    """The `rest` of the portion before; empty for the first."""
    forced_since_ms: int = 0
    """When the first attempt was made, at the earliest."""
    forced_upto: bytes = b""
    """Up to where it had read; empty for `read_upto`."""


class MessageEvent(NamedTuple):
    """An inbox event: a message was accepted. Everyone in a conversation gets the same one."""

    position: Position
    message_id: MessageId
    conversation_id: ConversationId
    sender_id: UserId
    sender_device_id: DeviceId
    recipient_id: UserId
    """The group's id in a group."""
    accepted_ms: int
    envelope: bytes
    """As its reader sees it: of the newest edit; empty when the message was taken back."""
    edited_ms: int = 0
    """When the newest edit was accepted; 0 for none."""
    revoked_ms: int = 0
    """When it was taken back for everyone; 0 when it was not."""
    expires_ms: int = 0
    """From when on nobody sees it; 0 when it stays."""
    members_version: int = 0
    """The version of the group whose members it goes to; 0 in a direct conversation."""


class ReceiptEvent(NamedTuple):
    """An inbox event of a sender: messages came further. At most 40 ids."""

    position: Position
    conversation_id: ConversationId
    reader_id: UserId
    message_ids: tuple[MessageId, ...]
    state: ReceiptState
    recorded_ms: int


class GroupReceiptEvent(NamedTuple):
    """An inbox event of a sender: messages to a group came further. Its columns stand side by side, at most 40 long.

    In the log it names no messages: it only says that something has changed.
    """

    position: Position
    group_id: ConversationId
    message_ids: tuple[MessageId, ...]
    delivered_counts: tuple[int, ...]
    read_counts: tuple[int, ...]
    recipient_counts: tuple[int, ...]
    recorded_ms: int


class OwnReadEvent(NamedTuple):
    """An inbox event of a reader: what was read on one of its devices."""

    position: Position
    user_id: UserId
    conversation_id: ConversationId
    read_upto: MessageId
    origin_device_id: DeviceId


class ForeignEvent(NamedTuple):
    """An inbox event that another service caused; `item` is a serialised `chappe.api.edge.v1.Item` without position."""

    position: Position
    change_id: bytes
    item: bytes


Event = (
    MessageEvent
    | ReceiptEvent
    | GroupReceiptEvent
    | OwnReadEvent
    | ForeignEvent
    | EditEvent
    | RevokeEvent
    | ReactionEvent
    | SettingEvent
)


class Applied(NamedTuple):
    """The store's answer for one `ReceiptUpdate`: the events that it wrote, for the hints that follow."""

    receipt_events: tuple[ReceiptEvent, ...]
    """For the inbox of the peer, all with the update's position; several only above 40 messages."""
    own_read: OwnReadEvent | None
    """For the reader's inbox."""
    rest: bytes = b""
    """Where this portion of a `read_upto` ended, up to which everything is read now; empty when it was the last."""


class ForeignAppend(NamedTuple):
    """An event of another service for several users, under one position."""

    change_id: bytes
    user_ids: tuple[UserId, ...]
    item: bytes
    position: Position


class Departure(NamedTuple):
    """Says that a user is not in a group any more: of its messages it sees what was said of them until it left."""

    group_id: ConversationId
    left_version: int
    """The first version without it after its last time in the group."""


class InboxRead(NamedTuple):
    """Asks for the events of one inbox after a position, oldest first, at most `limit`."""

    user_id: UserId
    after: Position
    limit: int
    departures: tuple[Departure, ...] = ()
    """Of the reader, from groups that an earlier page named as `altered_groups`."""
    known_ids: frozenset[bytes] = frozenset()
    """Messages that may be left out, for their reader has them."""


class InboxPage(NamedTuple):
    """Events of one inbox; `has_more` when the limit cut it.

    What nobody may see any more is left out, so that a page with more may be empty.
    """

    events: list[Event]
    has_more: bool
    end: Position
    """The last place that was read, whether its events were left out or not; `NO_POSITION` when none was."""
    altered_groups: frozenset[ConversationId] = frozenset()
    """The groups of which the page has an edit, a reaction or a message that was edited, shown or left out. It is not
    for those who have left one of them: for these it is read again with their departures."""


class PageRead(NamedTuple):
    """Asks for messages of a conversation as one user sees it, newest first.

    `before` and `after` are message ids or empty; with `after` the page holds the *oldest* messages after it, still
    ordered newest first.
    """

    owner_id: UserId
    conversation_id: ConversationId
    before: bytes
    after: bytes
    limit: int


class StoredMessage(NamedTuple):
    """A message with how far it has come: for the owner's own what the peer did, for the peer's what the owner did."""

    message: MessageEvent
    """Its position is `NO_POSITION`."""
    state: ReceiptState
    delivered_ms: int
    """0 when unknown."""
    read_ms: int
    """0 when unknown."""
    reactions: tuple[Reaction, ...] = ()
    """The newest 50, the newest first."""


class Chat(NamedTuple):
    """One line of a chat list."""

    conversation_id: ConversationId
    peer_id: UserId
    last_message: StoredMessage | None
    unread_count: int
    """Capped at 100."""
    read_upto: bytes
    """Empty when nothing was read."""
    settings: Settings = Settings()
    settings_position: bytes = b""
    """Of the newest change of them; empty when there was none."""


class ChatCursor(NamedTuple):
    """Where a window of a chat list ends: the sort key of its last line. Pinned ones come first, the latest before."""

    last_ms: int
    conversation_id: ConversationId
    pinned_ms: int = 0


class ChatPage(NamedTuple):
    """A window of a chat list, newest first; `next_cursor` is None when it was the last."""

    chats: list[Chat]
    next_cursor: ChatCursor | None


class DirectoryUser(NamedTuple):
    """What the ledger needs to know of a user; comes from svc_identity."""

    user_id: UserId
    is_active: bool
    version: int
    blocked_user_ids: frozenset[bytes]
    device_ids: frozenset[int]
    gives_read_receipts: bool


class DeviceAck(NamedTuple):
    """What a device has stored: keys of 64 bytes, one after the other, of other people's messages."""

    user_id: UserId
    device_id: DeviceId
    keys: bytes
    is_resent: bool


class InboxQuery(NamedTuple):
    """Asks what is new for one device."""

    user_id: UserId
    device_id: DeviceId
    epoch: int
    """0 with an empty cursor."""
    cursor: bytes
    """The position of the cursor; empty to start at the beginning of the log."""
    after: bytes
    """Where the page before ended; empty for the first of a pass."""
    pass_bound: bytes
    """The bound of the pass; empty for its first page."""
    limit: int
    is_garbled: bool = False
    """The cursor's bytes were not a cursor."""
    known_ids: frozenset[bytes] = frozenset()
    """Messages that the device has."""


class InboxAnswer(NamedTuple):
    """What is new for one device; `cursor` is verified, nothing can still appear at or before it."""

    events: list[Event]
    has_more: bool
    epoch: int
    cursor: Position
    pass_bound: Position
    is_resync: bool
