"""Reads what a Send wants to have done to a message."""

from __future__ import annotations

from chappe.api.edge.v1 import send_pb2
from svc_message.model import ConversationId, MessageId, Refused, UserId
from svc_message.model.action import ActionKind, SendAction, SendGroupAction

MAX_REACTION_BYTES = 1024
"""Of the whole envelope of a reaction."""

ACTIONS = frozenset({"edit", "revoke", "reaction"})
"""The actions of a Send that this door reads."""

_SCOPES = {
    send_pb2.REVOKE_SCOPE_EVERYONE: ActionKind.REVOKE,
    send_pb2.REVOKE_SCOPE_ME: ActionKind.HIDE,
}


def parse_action(send: send_pb2.Send, max_envelope_bytes: int) -> SendAction | SendGroupAction | Refused:
    """Returns what a Send with one of the `ACTIONS` asks for, or why it cannot be taken."""
    name = send.WhichOneof("action")
    asked: send_pb2.SendEdit | send_pb2.SendRevoke | send_pb2.SendReaction = getattr(send, str(name))
    if not asked.peer_user_id and not asked.group_id:
        return Refused("INVALID_FIELD", f"{name}.peer_user_id: must be set, or {name}.group_id")
    kind, envelope, most = ActionKind.EDIT, b"", max_envelope_bytes
    if isinstance(asked, send_pb2.SendRevoke):
        kind = _SCOPES[asked.scope]
    else:
        envelope = asked.envelope.SerializeToString() if asked.HasField("envelope") else b""
    if isinstance(asked, send_pb2.SendReaction):
        kind, most = ActionKind.REACTION, MAX_REACTION_BYTES
    if len(envelope) > most:
        return Refused("TOO_LARGE", f"{name}.envelope: has {len(envelope)} bytes in all, the most is {most}")
    if asked.group_id:
        return SendGroupAction(kind, ConversationId(asked.group_id), MessageId(asked.message_id), envelope)
    return SendAction(kind, UserId(asked.peer_user_id), MessageId(asked.message_id), envelope)
