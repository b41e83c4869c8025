"""What devices send: one change each."""

from __future__ import annotations

from typing import NamedTuple

from svc_message.model.action import SendAction, SendGroupAction
from svc_message.model.ids import ConversationId, DeviceId, MessageId, UserId


class SendMessage(NamedTuple):
    """The action of a send: a message for one user."""

    recipient_id: UserId
    envelope: bytes
    expiry_s: int = 0
    """It disappears so many seconds after it was accepted; 0 for never."""


class SendGroupMessage(NamedTuple):
    """The action of a send: a message for a group."""

    recipient_id: ConversationId
    """The group."""
    envelope: bytes
    members_version: int
    """The newest version of the group that the device knows of; 0 for none."""
    expiry_s: int = 0


class SendRead(NamedTuple):
    """The action of a send: the user saw messages of the conversation with a peer."""

    peer_id: UserId
    read_upto: bytes
    """Empty when only ids are named."""
    message_ids: tuple[MessageId, ...]
    read_after: bytes = b""
    """Up to where everything is marked already; empty at the beginning."""


class SendGroupRead(NamedTuple):
    """The action of a send: the user saw messages of a group."""

    group_id: ConversationId
    read_upto: bytes
    """Empty when only ids are named."""
    message_ids: tuple[MessageId, ...]
    read_after: bytes = b""
    """Up to where everything is marked already; empty at the beginning."""


Action = SendMessage | SendGroupMessage | SendRead | SendGroupRead | SendAction | SendGroupAction


class SendRequest(NamedTuple):
    """One change that a device made, with the principal that the edge authenticated."""

    user_id: UserId
    device_id: DeviceId
    message_id: MessageId
    attempt: int
    """1 for the first transmission over any stream."""
    action: Action
