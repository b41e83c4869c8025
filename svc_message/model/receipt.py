"""What the ledger knows of how far messages have come, beyond the ticks of a direct conversation."""

from __future__ import annotations

from typing import NamedTuple

from svc_message.model import OwnReadEvent, ReceiptState
from svc_message.model.group import Window
from svc_message.model.ids import ConversationId, DeviceId, MessageId, Position, UserId


class MemberAck(NamedTuple):
    """Messages to one group that the devices of one member have stored."""

    user_id: UserId
    group_id: ConversationId
    windows: tuple[Window, ...]
    """Its times in the group: the store ignores messages of any other, and the user's own."""
    message_ids: tuple[MessageId, ...]


class MemberRead(NamedTuple):
    """Asks what it means that a member has read messages of a group."""

    user_id: UserId
    group_id: ConversationId
    windows: tuple[Window, ...]
    read_upto: bytes
    """Stands for every message up to it, in portions of 1,000, the oldest first; empty for none."""
    message_ids: tuple[MessageId, ...]
    read_after: bytes = b""
    """The `rest` of the portion before; empty for the first."""


class UnreadMessage(NamedTuple):
    """A message of somebody else that a member has read now."""

    message_id: MessageId
    sender_id: UserId
    members_version: int
    """It is for the members of this version of the group."""


class Unread(NamedTuple):
    """What a `MemberRead` stands for."""

    upto: bytes
    """The newest message at or before `read_upto`, or of the portion, that the member sees; empty for none."""
    messages: tuple[UnreadMessage, ...]
    """Those that were named, and the unread ones of the portion."""
    rest: bytes = b""
    """Where the portion ended; empty when it was the last."""


class ReadMessage(NamedTuple):
    """A message that was read."""

    message_id: MessageId
    is_told: bool
    """The sender may know: both it and the reader give read receipts."""


class MemberReadUpdate(NamedTuple):
    """Messages that a member has read, and the place up to which it has read everything."""

    user_id: UserId
    device_id: DeviceId
    group_id: ConversationId
    windows: tuple[Window, ...]
    upto: bytes
    """Empty when only single messages were named."""
    messages: tuple[ReadMessage, ...]
    is_forced: bool
    """Write the event again even where nothing changes."""
    position: Position
    recorded_ms: int


class Came(NamedTuple):
    """A message of a sender that came further, as far as the sender may know."""

    sender_id: UserId
    group_id: ConversationId
    message_id: MessageId


class ReadOutcome(NamedTuple):
    """The store's answer for a batch of reads."""

    came: list[Came]
    own_reads: list[OwnReadEvent | None]
    """One for each update: the event in the reader's inbox."""


class MessageName(NamedTuple):
    """Names a message."""

    conversation_id: ConversationId
    message_id: MessageId


class Tally(NamedTuple):
    """How far one message has come."""

    sender_id: UserId
    recipients: int
    delivered: int
    """To how many of them; the readers are among them."""
    read: int


class MemberReceipt(NamedTuple):
    """How far one message has come with one recipient, as far as its sender may know."""

    user_id: UserId
    state: ReceiptState
    delivered_ms: int
    read_ms: int
    """0 when it was not read."""


class News(NamedTuple):
    """That messages of a sender to a group came further, which its inbox does not say yet."""

    sender_id: UserId
    group_id: ConversationId
    changed: Position
    """Of the latest change."""
