"""Knows the bytes of what stands in an inbox besides messages, in every store that keeps rows."""

from collections.abc import Sequence
from struct import Struct
from typing import Final, NamedTuple

from svc_message.model import (
    ConversationId,
    DeviceId,
    Event,
    ForeignEvent,
    GroupReceiptEvent,
    MessageEvent,
    MessageId,
    OwnReadEvent,
    Position,
    ReceiptEvent,
    ReceiptState,
    UserId,
)
from svc_message.model.action import EditEvent, ReactionEvent, RevokeEvent

MESSAGE: Final = 1
RECEIPT: Final = 2
OWN_READ: Final = 3
FOREIGN: Final = 4
ACTION: Final = 5
MESSAGES: Final = 6
GROUP_RECEIPT: Final = 7
SETTING: Final = 8
CHANGE_ID_BYTES: Final = 16
ID_BYTES: Final = 16
_TIME_BYTES: Final = 8
_KINDS: Final = frozenset({MESSAGE, RECEIPT, OWN_READ, FOREIGN, ACTION, MESSAGES, GROUP_RECEIPT, SETTING})
# On PostgreSQL statements write these two with int2send, int8send, uuid_send and int4send.
_RECEIPT: Final = Struct("!hq16s")
_OWN_READ: Final = Struct("!16si")


class Row(NamedTuple):
    """What a row of an inbox says; `data` is empty for none."""

    kind: int
    message_id: bytes
    data: bytes
    expires_ms: int = 0
    """When the last message that it stands for disappears; 0 when one of them stays."""


def row_of(events: Sequence[Event]) -> Row:
    """Writes what the members of a group are told; several events are messages, and share a row."""
    if len(events) == 1 and isinstance(events[0], EditEvent | RevokeEvent | ReactionEvent):
        return Row(ACTION, events[0].action_id, b"", events[0].expires_ms)
    messages = [event for event in events if isinstance(event, MessageEvent)]
    if len(messages) != len(events):
        raise TypeError(f"{events[0]!r}: not one that members of a group are told")
    ids = [message.message_id for message in messages]
    expires_ms = last_end([message.expires_ms for message in messages])
    return Row(MESSAGE, ids[0], b"", expires_ms) if len(ids) == 1 else Row(MESSAGES, ids[0], b"".join(ids), expires_ms)


def last_end(ends: Sequence[int]) -> int:
    """Returns when the last of some messages disappears, in milliseconds; 0 when one of them stays."""
    return max(ends) if all(ends) else 0


def check(kind: int, data: bytes | None) -> None:
    """Looks whether a row is one that this program knows, before anybody follows it.

    Raises:
        ValueError: It is not.
    """
    if kind not in _KINDS:
        raise ValueError(f"kind {kind} of a row of an inbox: not one that this program knows")
    if kind == MESSAGES:
        messages_of(data or b"")


def messages_of(data: bytes) -> list[MessageId]:
    """Reads which messages share a row; raises `ValueError` when these are not whole ids, or none."""
    if not data or len(data) % ID_BYTES:
        raise ValueError(f"{len(data)} bytes: not the ids of messages")
    return [MessageId(data[n : n + ID_BYTES]) for n in range(0, len(data), ID_BYTES)]


def group_receipt_of(position: Position, conversation_id: ConversationId, data: bytes) -> GroupReceiptEvent:
    """Reads that messages to a group came further."""
    if len(data) > _TIME_BYTES:
        raise ValueError(f"{len(data)} bytes: not a time")
    return GroupReceiptEvent(position, conversation_id, (), (), (), (), int.from_bytes(data, "big"))


def receipt_of(position: Position, conversation_id: ConversationId, data: bytes) -> ReceiptEvent:
    """Reads a receipt event."""
    state, recorded_ms, reader_id = _RECEIPT.unpack_from(data)
    ids = tuple(messages_of(data[_RECEIPT.size :]))
    return ReceiptEvent(position, conversation_id, UserId(reader_id), ids, ReceiptState(state), recorded_ms)


def receipt_data(event: ReceiptEvent) -> bytes:
    """Writes what `receipt_of` reads."""
    return _RECEIPT.pack(event.state, event.recorded_ms, event.reader_id) + b"".join(event.message_ids)


def own_read_of(position: Position, user_id: UserId, conversation_id: ConversationId, data: bytes) -> OwnReadEvent:
    """Reads what a user read on one of its devices."""
    read_upto, device_id = _OWN_READ.unpack(data)
    return OwnReadEvent(position, user_id, conversation_id, MessageId(read_upto), DeviceId(device_id))


def own_read_data(event: OwnReadEvent) -> bytes:
    """Writes what `own_read_of` reads."""
    return _OWN_READ.pack(event.read_upto, event.origin_device_id)


def foreign_of(position: Position, data: bytes) -> ForeignEvent:
    """Reads the event of another service."""
    if len(data) < CHANGE_ID_BYTES:
        raise ValueError(f"{len(data)} bytes: not the event of another service")
    return ForeignEvent(position, data[:CHANGE_ID_BYTES], data[CHANGE_ID_BYTES:])
