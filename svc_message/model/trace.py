"""What operators may know of a message: where it stands and how far it has come, never what it says."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from svc_message.model.ids import ConversationId, DeviceId, MessageId, Position, UserId

if TYPE_CHECKING:
    from svc_message.model import ReceiptState


class TracedKind(enum.IntEnum):
    """What is stored under a message id; the numbers are the contract's."""

    MESSAGE = 1
    VOID = 2


class TraceQuery(NamedTuple):
    """Asks for one message; the ledger keeps messages by conversation."""

    conversation_id: ConversationId
    message_id: MessageId


class InboxPointer(NamedTuple):
    """A place of a message in the log of one user."""

    position: Position
    user_id: UserId


class UserReceipt(NamedTuple):
    """How far a message has come with one user."""

    user_id: UserId
    state: ReceiptState
    delivered_ms: int
    read_ms: int
    """0 when it was not read."""


class MessageTrace(NamedTuple):
    """What the ledger knows of one message; of a void one its kind alone."""

    kind: TracedKind
    accepted_ms: int
    """Of the first attempt."""
    sender_id: UserId
    sender_device_id: DeviceId
    recipient_id: UserId
    """Empty outside of direct conversations."""
    recipient_count: int
    """How many members of a group it was for; 0 in a direct conversation."""
    is_withheld: bool
    pointers: tuple[InboxPointer, ...]
    """By position; looked for among the 10,000 events of each inbox that follow its acceptance. Of a message to a
    group those of its sender alone."""
    receipts: tuple[UserReceipt, ...]
    """By user."""
