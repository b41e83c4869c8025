"""What an envelope may hold: its content, what later clients know, and nothing whose meaning is not settled yet."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chappe.api.edge.v1 import send_pb2, server_frame_pb2
from chappe.api.type.v1 import envelope_pb2, error_reason_pb2
from svc_message.model import DeviceId, Refused, SendMessage
from svc_message.model.action import SendAction
from svc_message.rpc.envelope import MAX_ENVELOPE_BYTES, MAX_UNKNOWN_BYTES, take_envelope
from svc_message.rpc.parse import Result, parse_send
from tests.svc_message.doors import ALICE, BOB, GROUP

RESERVED = range(3, 10)
NEXT = 10


def field(number: int, value: bytes = b"") -> bytes:
    """Returns a field of bytes with a number below 16."""
    return bytes((number << 3 | 2, len(value))) + value


def with_fields(extra: bytes, content: bytes = b"x") -> envelope_pb2.Envelope:
    plain = envelope_pb2.Envelope(suite=envelope_pb2.ENCRYPTION_SUITE_NONE, content=content)
    return envelope_pb2.Envelope.FromString(plain.SerializeToString() + extra)


def why(taken: bytes | Refused) -> tuple[str, str]:
    assert isinstance(taken, Refused)
    return taken.reason, taken.detail


@given(size=st.one_of(st.integers(1, 300), st.integers(16_000, 17_000), st.integers(65_000, 65_536)))
def test_an_envelope_without_more_than_its_content_is_taken_as_it_is(size: int) -> None:
    envelope = with_fields(b"", bytes(size))

    assert take_envelope(envelope, "message.envelope") == envelope.SerializeToString()


@pytest.mark.parametrize("number", RESERVED)
@pytest.mark.parametrize("size", [1, 127, 128, 16_383, 16_384, 65_536])
def test_a_reserved_field_is_refused_and_named_whatever_the_size_of_the_content(number: int, size: int) -> None:
    taken = take_envelope(with_fields(field(number), bytes(size)), "message.envelope")

    assert why(taken) == (
        "INVALID_FIELD",
        f"message.envelope: has the field {number}, which is reserved for a later version",
    )


@pytest.mark.parametrize(
    "extra",
    [
        pytest.param(b"\x38\x01", id="a number"),
        pytest.param(b"\x39" + bytes(8), id="eight bytes"),
        pytest.param(b"\x3d" + bytes(4), id="four bytes"),
        pytest.param(b"\x3b\x3c", id="a group"),
        pytest.param(field(NEXT, b"new") + field(7), id="behind one that is not reserved"),
        pytest.param(field(7) * 511, id="many"),
    ],
)
def test_a_reserved_field_is_refused_in_every_form_and_place(extra: bytes) -> None:
    reason, detail = why(take_envelope(with_fields(extra), "edit.envelope"))

    assert (reason, detail.startswith("edit.envelope: has the field 7,")) == ("INVALID_FIELD", True)


@pytest.mark.parametrize("extra", [field(NEXT, b"new"), field(NEXT) * 512, b"\x9a\x06\x03new"])
def test_fields_of_clients_that_know_more_are_stored_as_they_came(extra: bytes) -> None:
    taken = take_envelope(with_fields(extra), "message.envelope")

    assert taken == with_fields(b"").SerializeToString() + extra


def test_fields_that_nobody_knows_may_have_a_kibibyte_beside_any_content() -> None:
    unknown = take_envelope(with_fields(field(NEXT) * 513), "message.envelope")
    in_all = take_envelope(with_fields(field(NEXT) * 512, bytes(65_536)), "message.envelope")

    assert why(unknown) == (
        "TOO_LARGE",
        f"message.envelope: has 1026 bytes of fields that this server does not know, the most is {MAX_UNKNOWN_BYTES}",
    )
    assert why(in_all) == (
        "TOO_LARGE",
        f"message.envelope: has 66566 bytes in all, the most is {MAX_ENVELOPE_BYTES}",
    )


ABOUT: Any = {"peer_user_id": BOB, "message_id": bytes(16)}
ACTIONS: list[Any] = [
    pytest.param("message", send_pb2.SendMessage(user_id=BOB), id="message"),
    pytest.param("message", send_pb2.SendMessage(group_id=GROUP), id="message to a group"),
    pytest.param("edit", send_pb2.SendEdit(**ABOUT), id="edit"),
    pytest.param("reaction", send_pb2.SendReaction(**ABOUT), id="reaction"),
]


@pytest.mark.parametrize(("name", "action"), ACTIONS)
def test_whatever_carries_an_envelope_is_held_to_it(name: str, action: Any) -> None:
    action.envelope.CopyFrom(with_fields(field(7)))
    send = send_pb2.Send(message_id=bytes(16), attempt=1, **{name: action}).SerializeToString()

    parsed = parse_send(ALICE, DeviceId(1), send, 0, None)

    assert isinstance(parsed, Result)
    nack = server_frame_pb2.ServerFrame.FromString(parsed.frame).send_nack
    assert (nack.reason, nack.is_retryable) == (error_reason_pb2.ERROR_REASON_INVALID_FIELD, False)
    assert nack.detail.startswith(f"{name}.envelope: has the field 7,")


def test_what_is_not_reserved_passes_the_door_with_a_message_and_an_edit() -> None:
    envelope = with_fields(field(NEXT, b"new"))
    message = send_pb2.Send(message=send_pb2.SendMessage(user_id=BOB, envelope=envelope))
    edit = send_pb2.Send(edit=send_pb2.SendEdit(**ABOUT, envelope=envelope))

    taken = [parse_send(ALICE, DeviceId(1), send.SerializeToString(), 1, None) for send in (message, edit)]

    actions = [one.action for one in taken if not isinstance(one, Result)]
    assert [type(action) for action in actions] == [SendMessage, SendAction]
    assert [getattr(action, "envelope", None) for action in actions] == [envelope.SerializeToString()] * 2
