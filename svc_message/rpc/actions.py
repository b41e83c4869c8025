"""Reads what a Send wants to have done to a message."""

from __future__ import annotations

from chappe.api.edge.v1 import send_pb2
from svc_message.model import ConversationId, MessageId, Refused, UserId
from svc_message.model.action import ActionKind, SendAction, SendGroupAction
from svc_message.rpc.envelope import MAX_ENVELOPE_BYTES, take_envelope

MAX_REACTION_BYTES = 1024
"""Of the whole envelope of a reaction."""

ACTIONS = frozenset({"edit", "revoke", "reaction"})
"""The actions of a Send that this door reads."""

_SEALED = {
    send_pb2.SendEdit: (ActionKind.EDIT, MAX_ENVELOPE_BYTES),
    send_pb2.SendReaction: (ActionKind.REACTION, MAX_REACTION_BYTES),
}
_SCOPES = {
    send_pb2.REVOKE_SCOPE_EVERYONE: ActionKind.REVOKE,
    send_pb2.REVOKE_SCOPE_ME: ActionKind.HIDE,
}


def parse_action(send: send_pb2.Send) -> SendAction | SendGroupAction | Refused:
    """Returns what a Send with one of the `ACTIONS` asks for, or why it cannot be taken."""
    name = send.WhichOneof("action")
    asked: send_pb2.SendEdit | send_pb2.SendRevoke | send_pb2.SendReaction = getattr(send, str(name))
    if not asked.peer_user_id and not asked.group_id:
        return Refused("INVALID_FIELD", f"{name}.peer_user_id: must be set, or {name}.group_id")
    envelope: bytes | Refused = b""
    if isinstance(asked, send_pb2.SendRevoke):
        kind = _SCOPES[asked.scope]
    else:
        kind, most = _SEALED[type(asked)]
        if asked.HasField("envelope"):
            envelope = take_envelope(asked.envelope, f"{name}.envelope", most)
    if isinstance(envelope, Refused):
        return envelope
    if asked.group_id:
        return SendGroupAction(kind, ConversationId(asked.group_id), MessageId(asked.message_id), envelope)
    return SendAction(kind, UserId(asked.peer_user_id), MessageId(asked.message_id), envelope)
