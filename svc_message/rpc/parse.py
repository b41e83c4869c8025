"""Takes the items of a Submit batch apart, and says what is wrong with those that cannot be taken."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, NamedTuple

from google.protobuf.message import DecodeError

from chappe.api.edge.v1 import send_pb2
from chappe.api.message.v1 import message_service_pb2
from chappe.runtime.errors import InvalidFieldError
from svc_message.adapters.item_protobuf import refused_frame
from svc_message.model import (
    ConversationId,
    DeviceId,
    MessageId,
    Refused,
    SendGroupMessage,
    SendGroupRead,
    SendMessage,
    SendRead,
    SendRequest,
    UserId,
)
from svc_message.protocol import KEY_BYTES
from svc_message.rpc.actions import ACTIONS, parse_action
from svc_message.rpc.envelope import take_envelope

if TYPE_CHECKING:
    from chappe.runtime import contract
    from svc_message.model import Action

USER_ID_BYTES = 16
MAX_DEVICE_ID = 2**31 - 1

_CONVERSATION_VERSION = 32 + 6
_GROUP_VERSIONS = frozenset(range(0x70, 0x80))
_REFUSED = message_service_pb2.SUBMIT_VERDICT_REFUSED
_MALFORMED = message_service_pb2.SUBMIT_VERDICT_MALFORMED


class Result(NamedTuple):
    """One answer on its way back; verdict 0 stands for an acknowledgement whose receipts are durable."""

    item_id: int
    verdict: int
    frame: bytes


def check_columns(batch: message_service_pb2.SubmitBatch) -> None:
    """Raises `InvalidFieldError` for columns that do not fit together, and for ids that would spoil a whole flush."""
    sends, acks = len(batch.item_ids), len(batch.ack_item_ids)
    if not len(batch.user_ids) == len(batch.device_ids) == len(batch.sends) == sends:
        raise InvalidFieldError("batch.item_ids", "the columns of the sends have different lengths")
    if not len(batch.ack_user_ids) == len(batch.ack_device_ids) == len(batch.ack_keys) == acks:
        raise InvalidFieldError("batch.ack_item_ids", "the columns of the acknowledgements have different lengths")
    if len(batch.resends) not in {0, sends} or len(batch.ack_resends) not in {0, acks}:
        raise InvalidFieldError("batch.resends", "give one number for each item, or none at all")
    if not {USER_ID_BYTES}.issuperset(map(len, itertools.chain(batch.user_ids, batch.ack_user_ids))):
        raise InvalidFieldError("batch.user_ids", f"every user id must have {USER_ID_BYTES} bytes")
    if max(itertools.chain(batch.device_ids, batch.ack_device_ids), default=0) > MAX_DEVICE_ID:
        raise InvalidFieldError("batch.device_ids", f"no device id is greater than {MAX_DEVICE_ID}")
    if any(len(keys) % KEY_BYTES for keys in batch.ack_keys):
        raise InvalidFieldError("batch.ack_keys", f"every key must have {KEY_BYTES} bytes")


def names_group(keys: bytes) -> bool:
    """Tells whether one of the keys of an acknowledgement is of a message to a group: see `is_group`."""
    return not _GROUP_VERSIONS.isdisjoint(keys[_CONVERSATION_VERSION::KEY_BYTES])


def parse_send(
    user_id: UserId, device_id: DeviceId, raw: bytes, resends: int, find_violation: contract.Check | None
) -> SendRequest | Result:
    """Returns the send, or the answer to one that cannot be taken; the answer still lacks the item's number."""
    try:
        send = send_pb2.Send.FromString(raw)
    except DecodeError:
        refusal = Refused("MALFORMED", "send: the bytes are not a chappe.api.edge.v1.Send")
        return Result(0, _MALFORMED, refused_frame(b"", refusal, 0))
    violation = find_violation(send) if find_violation is not None else None
    if violation is not None:
        refusal = Refused("INVALID_FIELD", InvalidFieldError(*violation).message)
        return Result(0, _REFUSED, refused_frame(send.message_id, refusal, 0))
    action = send.WhichOneof("action")
    if action is None:
        refusal = Refused("INVALID_FIELD", "action: none that this server knows; set message or read")
        return Result(0, _REFUSED, refused_frame(send.message_id, refusal, 0))
    taken: Action | Refused
    if action in ACTIONS:
        taken = parse_action(send)
    else:
        taken = _message(send.message) if action == "message" else _read(send.read)
    if isinstance(taken, Refused):
        return Result(0, _REFUSED, refused_frame(send.message_id, taken, 0))
    return SendRequest(user_id, device_id, MessageId(send.message_id), send.attempt + resends, taken)


def _message(message: send_pb2.SendMessage) -> SendMessage | SendGroupMessage | Refused:
    if not message.user_id and not message.group_id:
        return Refused("INVALID_FIELD", "message.user_id: must be set, or message.group_id")
    envelope = take_envelope(message.envelope, "message.envelope")
    if isinstance(envelope, Refused):
        return envelope
    if message.group_id:
        return SendGroupMessage(ConversationId(message.group_id), envelope, message.members_version, message.expiry_s)
    return SendMessage(UserId(message.user_id), envelope, message.expiry_s)


def _read(read: send_pb2.SendRead) -> SendRead | SendGroupRead | Refused:
    ids = tuple(map(MessageId, read.message_ids))
    if read.group_id:
        return SendGroupRead(ConversationId(read.group_id), read.read_upto, ids)
    if not read.peer_user_id:
        return Refused("INVALID_FIELD", "read.peer_user_id: must be set, or read.group_id")
    return SendRead(UserId(read.peer_user_id), read.read_upto, ids)
