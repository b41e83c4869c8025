"""Knows the bytes of what stands in an inbox besides messages."""

from struct import Struct
from typing import Final

from svc_message.model import (
    ConversationId,
    DeviceId,
    ForeignEvent,
    MessageId,
    OwnReadEvent,
    Position,
    ReceiptEvent,
    ReceiptState,
    UserId,
)

MESSAGE: Final = 1
RECEIPT: Final = 2
OWN_READ: Final = 3
FOREIGN: Final = 4
ACTION: Final = 5
CHANGE_ID_BYTES: Final = 16
_ID_BYTES: Final = 16
# The statements write the first two with int2send, int8send, uuid_send and int4send.
_RECEIPT: Final = Struct("!hq16s")
_OWN_READ: Final = Struct("!16si")


def receipt_of(position: Position, conversation_id: ConversationId, data: bytes) -> ReceiptEvent:
    """Reads a receipt event."""
    state, recorded_ms, reader_id = _RECEIPT.unpack_from(data)
    ids = tuple(MessageId(data[n : n + _ID_BYTES]) for n in range(_RECEIPT.size, len(data), _ID_BYTES))
    return ReceiptEvent(position, conversation_id, UserId(reader_id), ids, ReceiptState(state), recorded_ms)


def own_read_of(position: Position, user_id: UserId, conversation_id: ConversationId, data: bytes) -> OwnReadEvent:
    """Reads what a user read on one of its devices."""
    read_upto, device_id = _OWN_READ.unpack(data)
    return OwnReadEvent(position, user_id, conversation_id, MessageId(read_upto), DeviceId(device_id))


def foreign_of(position: Position, data: bytes) -> ForeignEvent:
    """Reads the event of another service."""
    return ForeignEvent(position, data[:CHANGE_ID_BYTES], data[CHANGE_ID_BYTES:])
