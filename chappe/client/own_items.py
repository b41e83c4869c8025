"""What a change of one's own becomes once it is durable: the item that every other device of the user gets."""

from chappe.api.edge.v1 import item_pb2, send_pb2
from chappe.client.changes import Sent
from chappe.client.frames import parse_action

_MS = 1000


def own_item(sent: Sent, user_id: bytes, device_id: int) -> item_pb2.Item:
    """Returns the item of a message, an edit, a revoke or a reaction that the server has stored."""
    send = parse_action(sent.outgoing.action)
    kind = send.WhichOneof("action")
    if kind == "edit":
        return item_pb2.Item(edit=_edit(sent, send.edit, user_id, device_id))
    if kind == "revoke":
        return item_pb2.Item(revoke=_revoke(sent, send.revoke, user_id))
    if kind == "reaction":
        return item_pb2.Item(reaction=_reaction(sent, send.reaction, user_id, device_id))
    return item_pb2.Item(message=_message(sent, send.message, user_id, device_id))


def _message(sent: Sent, message: send_pb2.SendMessage, user_id: bytes, device_id: int) -> item_pb2.MessageEvent:
    return item_pb2.MessageEvent(
        message_id=sent.outgoing.message_id,
        conversation_id=sent.outgoing.conversation_id,
        sender_user_id=user_id,
        sender_device_id=device_id,
        recipient_user_id=sent.outgoing.peer_id,
        group_id=b"" if sent.outgoing.peer_id else sent.outgoing.conversation_id,
        accepted_ms=sent.accepted_ms,
        envelope=message.envelope,
        expires_ms=sent.accepted_ms + message.expiry_s * _MS if message.expiry_s else 0,
    )


def _edit(sent: Sent, edit: send_pb2.SendEdit, user_id: bytes, device_id: int) -> item_pb2.EditEvent:
    return item_pb2.EditEvent(
        conversation_id=sent.outgoing.conversation_id,
        message_id=edit.message_id,
        edit_id=sent.outgoing.message_id,
        sender_user_id=user_id,
        sender_device_id=device_id,
        edited_ms=sent.accepted_ms,
        envelope=edit.envelope,
    )


def _revoke(sent: Sent, revoke: send_pb2.SendRevoke, user_id: bytes) -> item_pb2.RevokeEvent:
    return item_pb2.RevokeEvent(
        conversation_id=sent.outgoing.conversation_id,
        message_id=revoke.message_id,
        revoke_id=sent.outgoing.message_id,
        user_id=user_id,
        revoked_ms=sent.accepted_ms,
        is_for_me=revoke.scope == send_pb2.REVOKE_SCOPE_ME,
    )


def _reaction(sent: Sent, reaction: send_pb2.SendReaction, user_id: bytes, device_id: int) -> item_pb2.ReactionEvent:
    event = item_pb2.ReactionEvent(
        conversation_id=sent.outgoing.conversation_id,
        message_id=reaction.message_id,
        reaction_id=sent.outgoing.message_id,
        user_id=user_id,
        device_id=device_id,
        reacted_ms=sent.accepted_ms,
    )
    if reaction.HasField("envelope"):
        event.envelope.CopyFrom(reaction.envelope)
    return event
