"""Builds the bytes of items: the one place from which push, sync and history get them.

A message's item is put together by hand because it is built once for every message: its layout is fixed, and a test
holds it to what protobuf itself would write. Everything rarer goes through the generated classes.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any

from chappe.api.edge.v1 import item_pb2, server_frame_pb2
from chappe.api.type.v1 import envelope_pb2, error_reason_pb2
from svc_message.model import ForeignEvent, GroupReceiptEvent, MessageEvent, OwnReadEvent, ReceiptEvent
from svc_message.model.action import EditEvent, ReactionEvent, RevokeEvent
from svc_message.model.setting import SettingEvent, Settings

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from svc_message.model import Event, Refused, Stored

FLAG_WANTS_RECEIPT = 1
FLAG_SAMPLED = 2
_NO_ID = bytes(16)
_SINGLE_BYTE = 0x80
_FATE_TAGS = (b"\x50", b"\x58", b"\x60")


def item_bytes(event: Event) -> bytes:
    """Returns the serialised `chappe.api.edge.v1.Item` of an event."""
    if isinstance(event, MessageEvent):
        body = message_bytes(event)
        return b"".join((b"\x0a\x10", event.position, b"\x12", varint(len(body)), body))
    if isinstance(event, ForeignEvent):
        return b"\x0a\x10" + event.position + event.item
    item = _RARE[type(event)](event)
    item.position = event.position
    return item.SerializeToString()


def checked(event: Event) -> Event:
    """Returns an event whose stored bytes every client can read.

    One that no client can read would end each connection that it was sent on, and be sent on the next one.

    Raises:
        DecodeError: What was stored of it was spoilt.
    """
    if isinstance(event, MessageEvent | EditEvent | ReactionEvent):
        envelope_pb2.Envelope.FromString(event.envelope)
    elif isinstance(event, ForeignEvent):
        item_pb2.Item.FromString(event.item)
    return event


def message_bytes(event: MessageEvent) -> bytes:
    """Returns the serialised `chappe.api.edge.v1.MessageEvent` of an event, written by hand."""
    _, message_id, conversation_id, sender_id, device_id, recipient_id, accepted_ms, envelope, *times, version = event
    return b"".join(
        (
            b"\x0a\x10",
            message_id,
            b"\x12\x10",
            conversation_id,
            b"\x1a\x10",
            sender_id,
            b"\x20",
            varint(device_id),
            b"\x30" if version else b"\x2a\x10" + recipient_id + b"\x30",
            varint(accepted_ms),
            # No envelope is empty, so that none stands for a message that was taken back.
            b"\x3a" + varint(len(envelope)) if envelope else b"",
            envelope,
            b"\x42\x10" + conversation_id + b"\x48" + varint(version) if version else b"",
            _fate(times) if any(times) else b"",
        )
    )


def _fate(times: Sequence[int]) -> bytes:
    """Returns the fields that say when a message was edited and taken back, and when it disappears."""
    return b"".join(tag + varint(time_ms) for tag, time_ms in zip(_FATE_TAGS, times, strict=True) if time_ms)


def item_key(event: Event) -> bytes:
    """Returns the 64 bytes that name an item: position, message id, conversation id, user id of its causer."""
    if isinstance(event, MessageEvent):
        return b"".join(event[:4])
    if isinstance(event, ReceiptEvent):
        return event.position + event.message_ids[0] + event.conversation_id + event.reader_id
    if isinstance(event, OwnReadEvent):
        return event.position + event.read_upto + event.conversation_id + event.user_id
    if isinstance(event, GroupReceiptEvent):
        # One place in a log may hold a word of several groups; an edge tells items by the first half of their keys.
        name = event.message_ids[0] if event.message_ids else event.group_id
        return event.position + name + event.group_id + _NO_ID
    if isinstance(event, ForeignEvent | SettingEvent):
        names = _NO_ID * 2 if isinstance(event, ForeignEvent) else event.conversation_id + event.user_id
        return event.position + _change_id(event) + names
    return event.position + event.action_id + event.conversation_id + event.user_id


def _change_id(event: ForeignEvent | SettingEvent) -> bytes:
    return event.change_id if isinstance(event, ForeignEvent) else event.conversation_id


def stored_frame(message_id: bytes, answer: Stored) -> bytes:
    """Returns the serialised `ServerFrame` with the SendAck of a durable send, written by hand."""
    accepted_ms, conversation_id, is_duplicate = answer
    mark = b"\x20\x01" if is_duplicate else b""
    body = b"".join((b"\x0a\x10", message_id, b"\x10", varint(accepted_ms), b"\x1a\x10", conversation_id, mark))
    return b"".join((b"\x12", varint(len(body)), body))


def refused_frame(message_id: bytes, answer: Refused, now_ms: int) -> bytes:
    """Returns the serialised `ServerFrame` with the SendNack of a refused send."""
    nack = server_frame_pb2.SendNack(
        message_id=message_id,
        reason=error_reason_pb2.ErrorReason.Value(f"ERROR_REASON_{answer.reason}"),
        detail=answer.detail,
        is_retryable=answer.is_retryable,
        retry_after_ms=answer.retry_after_ms,
        server_ms=now_ms,
    )
    return server_frame_pb2.ServerFrame(send_nack=nack).SerializeToString()


@functools.lru_cache(maxsize=4096)
def varint(value: int) -> bytes:
    """Returns a number as a protobuf varint; lengths, devices and the time of a flush come again and again."""
    parts = bytearray()
    while value >= _SINGLE_BYTE:
        parts.append(value & 0x7F | _SINGLE_BYTE)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def _own_read(event: OwnReadEvent) -> item_pb2.Item:
    own_read = item_pb2.OwnReadEvent(conversation_id=event.conversation_id, read_upto=event.read_upto)
    return item_pb2.Item(own_read=own_read)


def _group_receipt(event: GroupReceiptEvent) -> item_pb2.Item:
    group_receipt = item_pb2.GroupReceiptEvent(
        group_id=event.group_id,
        message_ids=event.message_ids,
        delivered_counts=event.delivered_counts,
        read_counts=event.read_counts,
        recipient_counts=event.recipient_counts,
        recorded_ms=event.recorded_ms,
    )
    return item_pb2.Item(group_receipt=group_receipt)


def _receipt(event: ReceiptEvent) -> item_pb2.Item:
    receipt = item_pb2.ReceiptEvent(
        conversation_id=event.conversation_id,
        user_id=event.reader_id,
        message_ids=event.message_ids,
        states=[int(event.state)] * len(event.message_ids),  # type: ignore[list-item]  # the numbers are the contract's
        recorded_ms=event.recorded_ms,
    )
    return item_pb2.Item(receipt=receipt)


def _edit(event: EditEvent) -> item_pb2.Item:
    edit = item_pb2.EditEvent(
        conversation_id=event.conversation_id,
        message_id=event.message_id,
        edit_id=event.action_id,
        sender_user_id=event.user_id,
        sender_device_id=event.device_id,
        edited_ms=event.accepted_ms,
        envelope=envelope_pb2.Envelope.FromString(event.envelope),
    )
    return item_pb2.Item(edit=edit)


def _revoke(event: RevokeEvent) -> item_pb2.Item:
    revoke = item_pb2.RevokeEvent(
        conversation_id=event.conversation_id,
        message_id=event.message_id,
        revoke_id=event.action_id,
        user_id=event.user_id,
        revoked_ms=event.accepted_ms,
        is_for_me=event.is_for_me,
    )
    return item_pb2.Item(revoke=revoke)


def _reaction(event: ReactionEvent) -> item_pb2.Item:
    reaction = item_pb2.ReactionEvent(
        conversation_id=event.conversation_id,
        message_id=event.message_id,
        reaction_id=event.action_id,
        user_id=event.user_id,
        device_id=event.device_id,
        reacted_ms=event.accepted_ms,
        envelope=envelope_pb2.Envelope.FromString(event.envelope) if event.envelope else None,
    )
    return item_pb2.Item(reaction=reaction)


def _setting(event: SettingEvent) -> item_pb2.Item:
    setting = item_pb2.ConversationSettingEvent(
        conversation_id=event.conversation_id, settings=settings_message(event.settings)
    )
    return item_pb2.Item(conversation_setting=setting)


def settings_message(settings: Settings) -> item_pb2.ConversationSettings:
    """Returns the wire form of how a user keeps a conversation."""
    return item_pb2.ConversationSettings(
        muted_until_ms=settings.muted_until_ms,
        pinned_ms=settings.pinned_ms,
        is_archived=settings.is_archived,
        cleared_upto=settings.cleared_upto,
        expiry_s=settings.expiry_s,
        cleared_ms=settings.cleared_ms,
    )


_RARE: dict[type, Callable[[Any], item_pb2.Item]] = {
    OwnReadEvent: _own_read,
    GroupReceiptEvent: _group_receipt,
    ReceiptEvent: _receipt,
    EditEvent: _edit,
    RevokeEvent: _revoke,
    ReactionEvent: _reaction,
    SettingEvent: _setting,
}
