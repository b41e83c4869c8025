"""The bytes that are put together by hand are what protobuf itself would write."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from chappe.api.edge.v1 import item_pb2, server_frame_pb2
from chappe.api.type.v1 import envelope_pb2, error_reason_pb2
from svc_message.adapters.item_protobuf import item_bytes, item_key, refused_frame, stored_frame, varint
from svc_message.model import (
    ConversationId,
    DeviceId,
    ForeignEvent,
    GroupReceiptEvent,
    MessageEvent,
    MessageId,
    OwnReadEvent,
    Position,
    ReceiptEvent,
    ReceiptState,
    Refused,
    Stored,
    UserId,
)
from svc_message.model.action import EditEvent, ReactionEvent, RevokeEvent
from svc_message.model.setting import SettingEvent, Settings

ids = st.binary(min_size=16, max_size=16)
times = st.integers(1, 2**48)
POSITION = Position(b"p" * 16)


@st.composite
def messages(draw: st.DrawFn) -> MessageEvent:
    """Draws a message event."""
    envelope = envelope_pb2.Envelope(suite=envelope_pb2.ENCRYPTION_SUITE_NONE, content=draw(st.binary(max_size=300)))
    return MessageEvent(
        POSITION,
        MessageId(draw(ids)),
        ConversationId(draw(ids)),
        UserId(draw(ids)),
        DeviceId(draw(st.integers(1, 32767))),
        UserId(draw(ids)),
        draw(times),
        draw(st.sampled_from((b"", envelope.SerializeToString()))),
        *draw(st.tuples(*[st.sampled_from((0, 1, 2**41))] * 4)),
    )


@given(messages())
def test_a_message_item_is_what_protobuf_writes(event: MessageEvent) -> None:
    expected = item_pb2.Item(
        position=POSITION,
        message=item_pb2.MessageEvent(
            message_id=event.message_id,
            conversation_id=event.conversation_id,
            sender_user_id=event.sender_id,
            sender_device_id=event.sender_device_id,
            recipient_user_id=b"" if event.members_version else event.recipient_id,
            accepted_ms=event.accepted_ms,
            envelope=envelope_pb2.Envelope.FromString(event.envelope) if event.envelope else None,
            group_id=event.conversation_id if event.members_version else b"",
            members_version=event.members_version,
            edited_ms=event.edited_ms,
            revoked_ms=event.revoked_ms,
            expires_ms=event.expires_ms,
        ),
    )
    assert item_bytes(event) == expected.SerializeToString()
    assert item_key(event) == POSITION + event.message_id + event.conversation_id + event.sender_id


@given(ids, ids, times, st.booleans())
def test_an_acknowledging_frame_is_what_protobuf_writes(
    message_id: bytes,
    conversation_id: bytes,
    accepted_ms: int,
    is_duplicate: bool,  # noqa: FBT001 - hypothesis gives it
) -> None:
    expected = server_frame_pb2.ServerFrame(
        send_ack=server_frame_pb2.SendAck(
            message_id=message_id, accepted_ms=accepted_ms, conversation_id=conversation_id, is_duplicate=is_duplicate
        )
    )

    frame = stored_frame(message_id, Stored(accepted_ms, ConversationId(conversation_id), is_duplicate))

    assert frame == expected.SerializeToString()


def test_a_refusing_frame_names_the_reason_and_the_servers_time() -> None:
    frame = server_frame_pb2.ServerFrame.FromString(
        refused_frame(b"m" * 16, Refused("CLOCK_SKEW", "too early", retry_after_ms=3), 77)
    )

    assert frame.send_nack.reason == error_reason_pb2.ERROR_REASON_CLOCK_SKEW
    assert (frame.send_nack.detail, frame.send_nack.server_ms, frame.send_nack.is_retryable) == ("too early", 77, False)


def test_rarer_items_carry_their_position_and_key() -> None:
    receipt = ReceiptEvent(
        POSITION, ConversationId(b"c" * 16), UserId(b"r" * 16), (MessageId(b"m" * 16),), ReceiptState.READ, 5
    )
    own = OwnReadEvent(POSITION, UserId(b"u" * 16), ConversationId(b"c" * 16), MessageId(b"m" * 16), DeviceId(1))
    foreign = ForeignEvent(
        POSITION, b"i" * 16, item_pb2.Item(profile=item_pb2.ProfileEvent(version=3)).SerializeToString()
    )

    items = [item_pb2.Item.FromString(item_bytes(event)) for event in (receipt, own, foreign)]

    assert [item.position for item in items] == [POSITION] * 3
    assert [item.WhichOneof("event") for item in items] == ["receipt", "own_read", "profile"]
    assert list(items[0].receipt.states) == [3]
    assert [len(item_key(event)) for event in (receipt, own, foreign)] == [64, 64, 64]


@given(st.integers(0, 2**63))
def test_numbers_are_written_as_protobuf_writes_them(number: int) -> None:
    expected = server_frame_pb2.Pong(server_ms=number if number < 2**63 else 0)

    written = b"\x10" + varint(number) if 0 < number < 2**63 else b""

    assert written == expected.SerializeToString()


def test_what_was_done_to_a_message_is_named_by_its_action_and_its_actor() -> None:
    envelope = envelope_pb2.Envelope(suite=envelope_pb2.ENCRYPTION_SUITE_NONE, content=b"new")
    place = (POSITION, MessageId(b"a" * 16), ConversationId(b"c" * 16), MessageId(b"m" * 16), UserId(b"u" * 16))
    edit = EditEvent(*place, DeviceId(7), 99, envelope.SerializeToString())
    reaction = ReactionEvent(*place, DeviceId(7), 99, envelope.SerializeToString())
    away = ReactionEvent(*place, DeviceId(7), 99, b"")
    revoke = RevokeEvent(*place, DeviceId(7), 99, is_for_me=True)

    items = [item_pb2.Item.FromString(item_bytes(event)) for event in (edit, reaction, away, revoke)]

    about: dict[str, Any] = {"conversation_id": b"c" * 16, "message_id": b"m" * 16}
    reacted = item_pb2.ReactionEvent(**about, reaction_id=b"a" * 16, user_id=b"u" * 16, device_id=7, reacted_ms=99)
    assert [item.position for item in items] == [POSITION] * 4
    assert items[0].edit == item_pb2.EditEvent(
        **about, edit_id=b"a" * 16, sender_user_id=b"u" * 16, sender_device_id=7, edited_ms=99, envelope=envelope
    )
    assert items[2].reaction == reacted
    reacted.envelope.CopyFrom(envelope)
    assert items[1].reaction == reacted
    assert items[3].revoke == item_pb2.RevokeEvent(
        **about, revoke_id=b"a" * 16, user_id=b"u" * 16, revoked_ms=99, is_for_me=True
    )
    keys = {item_key(event) for event in (edit, reaction, away, revoke)}
    assert keys == {POSITION + b"a" * 16 + b"c" * 16 + b"u" * 16}


def test_settings_are_named_by_their_conversation_and_their_user() -> None:
    settings = Settings(1, 2, is_archived=True, cleared_upto=b"m" * 16, expiry_s=3, cleared_ms=4)
    event = SettingEvent(POSITION, UserId(b"u" * 16), ConversationId(b"c" * 16), settings)

    item = item_pb2.Item.FromString(item_bytes(event))

    assert item == item_pb2.Item(
        position=POSITION,
        conversation_setting=item_pb2.ConversationSettingEvent(
            conversation_id=b"c" * 16,
            settings=item_pb2.ConversationSettings(
                muted_until_ms=1, pinned_ms=2, is_archived=True, cleared_upto=b"m" * 16, expiry_s=3, cleared_ms=4
            ),
        ),
    )
    assert item_key(event) == POSITION + b"c" * 32 + b"u" * 16


def test_words_of_two_groups_at_one_position_are_two_items() -> None:
    one, other = (
        GroupReceiptEvent(POSITION, ConversationId(group), (), (), (), (), 7) for group in (b"g" * 16, b"h" * 16)
    )

    # The first half of a key is all that an edge knows them by.
    assert item_key(one)[:32] != item_key(other)[:32]
    assert len(item_key(one)) == 64
