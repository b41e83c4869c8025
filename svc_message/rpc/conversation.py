"""Reads which conversation a request names."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chappe.runtime.errors import InvalidFieldError
from svc_message.errors import NotInConversationError
from svc_message.model import ConversationId
from svc_message.protocol import direct_conversation, is_group

if TYPE_CHECKING:
    from svc_message.model import UserId


def named_conversation(owner_id: UserId, peer_id: bytes, group_id: bytes, field: str = "") -> ConversationId:
    """Returns the conversation of a user with a peer, or that of a group.

    Raises:
        InvalidFieldError: Not exactly one of the two is named.
        NotInConversationError: What is named as a group is none.
    """
    if bool(peer_id) == bool(group_id):
        name = f"{field}.peer_user_id" if field else "peer_user_id"
        raise InvalidFieldError(name, "name either it or group_id")
    if peer_id:
        return direct_conversation(owner_id, peer_id)
    if not is_group(group_id):
        raise NotInConversationError
    return ConversationId(group_id)
