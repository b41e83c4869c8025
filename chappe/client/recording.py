"""Turns what a device sends and applies into what a history says of it."""

from collections.abc import Iterable

from chappe.api.edge.v1 import item_pb2, send_pb2
from chappe.api.type.v1 import presence_pb2, receipt_state_pb2
from chappe.client.changes import (
    GroupTickRaised,
    LogChange,
    MessageArrived,
    MessageEdited,
    MessageReacted,
    MessageRevoked,
    PresenceTold,
    ReadElsewhere,
    TickRaised,
)
from chappe.client.frames import parse_action
from chappe.client.mint import time_ms_of
from chappe.client.outgoing import Outgoing
from chappe.client.recorder import RecordedAction, RecordedEvent, Recorder
from chappe.client.store import Batch

_ABOUT = {"edit", "revoke", "reaction"}
_PRESENCES: dict[int, str] = {
    presence_pb2.PRESENCE_STATE_ONLINE: "online",
    presence_pb2.PRESENCE_STATE_OFFLINE: "offline",
}
_STATES: dict[int, str] = {
    receipt_state_pb2.RECEIPT_STATE_DELIVERED: "delivered",
    receipt_state_pb2.RECEIPT_STATE_READ: "read",
}


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


def record(recorder: Recorder, batch: Batch, changes: Iterable[LogChange]) -> None:
    """Writes down what was stored: what is shown of it, what was learned of groups, and what is acknowledged."""
    how = "history" if batch.history_ids else "sync" if batch.is_sync else "push"
    for change in changes:
        if isinstance(change, TickRaised | GroupTickRaised):
            _record_tick(recorder, change)
        elif isinstance(change, ReadElsewhere):
            recorder.note("elsewhere", conv=change.conversation_id.hex(), upto=change.read_upto.hex())
        elif (event := recorded_event(change)) is not None:
            recorder.apply(event, how)
    for item in batch.items:
        if item.HasField("group_change"):
            _record_group_change(recorder, item.group_change)
    ids = [item.message.message_id for item in batch.items if item.message.message_id]
    if ids:
        recorder.ack(ids)


def record_presences(recorder: Recorder, told: Iterable[PresenceTold]) -> None:
    """Writes down how watched people are shown; of whoever is hidden nothing is shown."""
    for one in told:
        recorder.note("presence", whom=one.user_id.hex(), state=_PRESENCES.get(one.state, "unknown"))


def _record_tick(recorder: Recorder, change: TickRaised | GroupTickRaised) -> None:
    if isinstance(change, GroupTickRaised):
        counts = {"delivered": change.delivered, "read": change.read, "of": change.recipients}
        recorder.note("tally", id=change.message_id.hex(), **counts)
    elif change.state in _STATES:
        recorder.tick(change.message_id, _STATES[change.state], change.by_user_id)


def _record_group_change(recorder: Recorder, change: item_pb2.GroupChangeEvent) -> None:
    name = item_pb2.GroupChange.Name(change.change).removeprefix("GROUP_CHANGE_").lower()
    members = [user_id.hex() for user_id in change.user_ids]
    recorder.note("learn", conv=change.group_id.hex(), version=change.version, change=name, members=members)


def _about(
    event: item_pb2.EditEvent | item_pb2.RevokeEvent | item_pb2.ReactionEvent, id_: bytes, sender: bytes, kind: str
) -> RecordedEvent:
    return RecordedEvent(id_, event.conversation_id, sender, b"", time_ms_of(id_), kind, event.message_id)
