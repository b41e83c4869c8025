"""Frames that are cut and joined by hand are what protobuf itself would read and write."""

import time

from hypothesis import given
from hypothesis import strategies as st

from chappe.api.edge.v1 import client_frame_pb2, close_code_pb2, item_pb2, send_pb2, server_frame_pb2
from chappe.api.type.v1 import error_reason_pb2, presence_pb2
from svc_edge.errors import CloseCode, Closing
from svc_edge.model import (
    CallDone,
    CallFailed,
    CaughtUp,
    Conversation,
    Frame,
    Pong,
    Presence,
    PresenceDelta,
    Resync,
    SessionId,
    TypingDelta,
    TypingKind,
    Typist,
    UserId,
    View,
    WatchRefused,
    Welcome,
    identity_of,
)
from svc_edge.ws.wire import BinaryCodec, ack_count_of, events_frame, send_of

ALICE = UserId(b"a" * 16)
DIRECT, IN_GROUP = Conversation(b"d", b"p", b""), Conversation(b"g", b"", b"g")
ENVELOPES = st.binary(max_size=70_000)


def item_of(content: bytes) -> bytes:
    event = item_pb2.MessageEvent(message_id=b"m" * 16)
    event.envelope.content = content
    return item_pb2.Item(position=b"p" * 16, message=event).SerializeToString()


@given(st.lists(st.binary(max_size=300), max_size=20), st.binary(max_size=64))
def test_events_are_what_protobuf_writes(contents: list[bytes], cursor: bytes) -> None:
    items = [item_of(content) for content in contents]

    joined = events_frame(items, cursor)

    events = server_frame_pb2.Events(items=[item_pb2.Item.FromString(item) for item in items], cursor=cursor)
    assert joined == server_frame_pb2.ServerFrame(events=events).SerializeToString()


@given(ENVELOPES)
def test_a_frame_with_a_send_is_cut_open_without_parsing(content: bytes) -> None:
    send = send_pb2.Send(message_id=b"i" * 16, attempt=1)
    send.message.envelope.content = content

    cut = send_of(client_frame_pb2.ClientFrame(send=send).SerializeToString())

    assert cut == send.SerializeToString()


@given(st.binary(max_size=300))
def test_whatever_is_cut_open_parses_to_the_same(payload: bytes) -> None:
    cut = send_of(payload)

    if cut is not None:
        field = payload[: len(payload) - len(cut)]
        assert field[0] == 0x12
        assert send_of(payload[:-1]) is None


def test_any_other_frame_is_not_cut_open() -> None:
    send = client_frame_pb2.ClientFrame(send=send_pb2.Send(message_id=b"i" * 16)).SerializeToString()

    others = [b"", b"\x12", b"\x12\x00", b"\x12\x80", b"\x12\x80\x80", b"\x12\x80\x80\x80\x01", send + b"\x08\x01"]

    assert [send_of(payload) for payload in others] == [None] * len(others)


def test_an_item_for_many_sessions_is_joined_once() -> None:
    codec, item = BinaryCodec(lambda: 0), item_of(b"hello")

    frames = [codec.events([item], b"") for _ in range(3)]

    assert frames[0] is frames[2]
    assert frames[0] == events_frame([item], b"")
    assert codec.events([item], b"c") == events_frame([item], b"c")


def test_every_frame_that_the_rules_make_has_its_message() -> None:
    frames: dict[str, Frame | CaughtUp | Closing] = {
        "welcome": Welcome(SessionId(5), None, 32, 256),
        "caught_up": CaughtUp(b""),
        "resync": Resync("why"),
        "pong": Pong(0, b""),
        "call_result": CallDone(0, "m", b""),
        "go_away": Closing(CloseCode.DRAIN, "bye", 7),
        "presence_delta": PresenceDelta({ALICE: View(Presence.OFFLINE, 5)}),
        "typing_delta": TypingDelta({DIRECT: (Typist(ALICE, TypingKind.RECORDING),), IN_GROUP: ()}),
        "watch_refused": WatchRefused("LIST_FULL", "too many", [ALICE], 7),
    }
    codec = BinaryCodec(lambda: 0)

    kinds = {
        kind: server_frame_pb2.ServerFrame.FromString(codec.write(frame)).WhichOneof("frame")
        for kind, frame in frames.items()
    }

    assert kinds == {kind: kind for kind in frames}


def test_what_is_told_of_people_and_typing_is_what_the_contract_says() -> None:
    codec = BinaryCodec(lambda: 0)

    def written(frame: Frame) -> server_frame_pb2.ServerFrame:
        return server_frame_pb2.ServerFrame.FromString(codec.write(frame))

    presences = written(PresenceDelta({ALICE: View(Presence.OFFLINE, 5)})).presence_delta.presences
    typing = TypingDelta({DIRECT: (Typist(ALICE, TypingKind.RECORDING),), IN_GROUP: ()})
    direct, group = written(typing).typing_delta.conversations
    refused = written(WatchRefused("LIST_FULL", "too many", [ALICE], 7)).watch_refused

    assert [(one.user_id, one.state, one.last_seen_ms) for one in presences] == [
        (ALICE, presence_pb2.PRESENCE_STATE_OFFLINE, 5)
    ]
    assert (direct.conversation.peer_user_id, [(one.user_id, one.kind) for one in direct.typists]) == (
        b"p",
        [(ALICE, 2)],
    )
    assert (group.conversation.group_id, list(group.typists)) == (b"g", [])
    assert (refused.reason, list(refused.user_ids), refused.retry_after_ms) == (
        error_reason_pb2.ERROR_REASON_LIST_FULL,
        [ALICE],
        7,
    )


def test_the_numbers_of_presence_and_typing_are_those_of_the_contract() -> None:
    assert {f"PRESENCE_STATE_{one.name}": int(one) for one in Presence} == {
        name: number for name, number in presence_pb2.PresenceState.items() if number
    }
    assert {f"TYPING_KIND_{one.name}": int(one) for one in TypingKind} == {
        name: number for name, number in presence_pb2.TypingKind.items() if number
    }


def test_a_failed_call_carries_code_reason_and_facts() -> None:
    failed = CallFailed(9, "NOT_FOUND", "USER_NOT_FOUND", "no such user", {"user": "x"}, 0)

    result = server_frame_pb2.ServerFrame.FromString(BinaryCodec(lambda: 0).write(failed)).call_result

    assert (result.id, result.error.code, result.error.detail) == (9, 5, "no such user")
    assert (result.error.reason, dict(result.error.metadata)) == (30, {"user": "x"})


def test_the_close_codes_are_those_of_the_contract() -> None:
    ours = {f"CLOSE_CODE_{code.name}": int(code) for code in CloseCode if code >= 4000}

    assert ours == {name: number for name, number in close_code_pb2.CloseCode.items() if number}


def test_a_message_is_told_from_other_items_by_its_tag() -> None:
    message, key = item_of(b"x"), bytes(range(64))
    receipt = item_pb2.Item(position=b"p" * 16, receipt=item_pb2.ReceiptEvent()).SerializeToString()

    assert (identity_of(message, key), identity_of(receipt, key)) == (key[16:32], key[:32])


def test_joining_an_event_is_cheap() -> None:
    item = item_of(bytes(200))
    begun = time.process_time()

    for _ in range(10_000):
        events_frame([item], b"")

    assert (time.process_time() - begun) / 10_000 < 20e-6


@given(st.integers(0, 2**64 - 1))
def test_an_ack_by_count_is_read_without_being_parsed(count: int) -> None:
    frame = client_frame_pb2.ClientFrame(ack=client_frame_pb2.Ack(count=count)).SerializeToString()

    assert ack_count_of(frame) in ({count} if count < 2**49 else {count, 0})


@given(st.binary(max_size=16))
def test_what_is_read_as_an_ack_is_one(payload: bytes) -> None:
    for frame in (payload, b"\x1a" + payload, b"\x1a" + bytes([len(payload) + 1]) + b"\x08" + payload):
        count = ack_count_of(frame)
        if count:
            parsed = client_frame_pb2.ClientFrame.FromString(frame)
            assert (parsed.ack.count, list(parsed.ack.message_ids)) == (count, [])


def test_an_ack_that_names_messages_is_parsed() -> None:
    ack = client_frame_pb2.Ack(count=1, message_ids=[bytes(16)])

    assert ack_count_of(client_frame_pb2.ClientFrame(ack=ack).SerializeToString()) == 0
