"""Turns what a device sends and applies into what a history says of it."""

from chappe.api.edge.v1 import item_pb2, send_pb2
from chappe.client.changes import LogChange, MessageArrived, MessageEdited, MessageReacted, MessageRevoked
from chappe.client.frames import parse_action
from chappe.client.mint import time_ms_of
from chappe.client.outgoing import Outgoing
from chappe.client.recorder import RecordedAction, RecordedEvent, Recorder

_ABOUT = {"edit", "revoke", "reaction"}


def recorded_action(entry: Outgoing) -> RecordedAction:
    """Returns what a history says of an entry of the outbox."""
    kind, target, version = str(entry.kind), b"", 0
    if kind in _ABOUT:
        action = parse_action(entry.action)
        target = getattr(action, kind).message_id
        if action.revoke.scope == send_pb2.REVOKE_SCOPE_ME:
            kind = "hide"
    elif kind == "message" and not entry.peer_id:
        version = parse_action(entry.action).message.members_version
    return RecordedAction(
        entry.message_id, entry.conversation_id, entry.peer_id, kind, str(entry.draft), target, version
    )


def recorded_event(change: LogChange) -> RecordedEvent | None:
    """Returns what a history says of a change of the log; None when it says that otherwise."""
    match change:
        case MessageArrived(message, position):
            id_, sender = message.message_id, message.sender_user_id
            return RecordedEvent(id_, message.conversation_id, sender, position, time_ms_of(id_), "message")
        case MessageEdited(edit):
            return _about(edit, edit.edit_id, edit.sender_user_id, "edit")
        case MessageRevoked(revoke):
            return _about(revoke, revoke.revoke_id, revoke.user_id, "hide" if revoke.is_for_me else "revoke")
        case MessageReacted(reaction):
            return _about(reaction, reaction.reaction_id, reaction.user_id, "reaction")
        case _:
            return None


def record_group_change(recorder: Recorder, change: item_pb2.GroupChangeEvent) -> None:
    """Writes down what a device was told of a group."""
    name = item_pb2.GroupChange.Name(change.change).removeprefix("GROUP_CHANGE_").lower()
    members = [user_id.hex() for user_id in change.user_ids]
    recorder.note("learn", conv=change.group_id.hex(), version=change.version, change=name, members=members)


def _about(
    event: item_pb2.EditEvent | item_pb2.RevokeEvent | item_pb2.ReactionEvent, id_: bytes, sender: bytes, kind: str
) -> RecordedEvent:
    return RecordedEvent(id_, event.conversation_id, sender, b"", time_ms_of(id_), kind, event.message_id)
