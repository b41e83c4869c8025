"""The small parts: ids, clocks, frames, proofs, content, methods, close codes, profiles."""

import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from google.protobuf import descriptor_pool
from hypothesis import given
from hypothesis import strategies as st

from chappe.api.edge.v1 import client_frame_pb2, close_code_pb2, send_pb2
from chappe.api.type.v1 import access_pb2, envelope_pb2
from chappe.client import methods
from chappe.client.content import Said, decode, encode, encode_text
from chappe.client.destination import Destination, to_group, to_person
from chappe.client.device import Device, DeviceKey
from chappe.client.errors import ProfileError
from chappe.client.frames import ack_frame, group_message_action, message_action, read_action, send_frame
from chappe.client.mint import MAX_BUMP_MS, IdMint, ServerClock, conversation_of, mint_tag_of, time_ms_of
from chappe.client.outbox import reason_name, retry_s
from chappe.client.profiles import About, Profile, default_root, folder_of, profiles
from chappe.client.reconnect import Comeback, backoff_s, reconnect_policy
from chappe.client.seams import SystemClock, SystemRandomness
from chappe.client.tokens import Token
from tests.client.fakes import Dice
from tests.client.model_edge import CONVERSATION, ME, PEER

NOW_MS = 1_790_000_000_000


def mint(last_id: bytes = b"") -> IdMint:
    return IdMint(mint_tag_of(ME, 1), Dice(), last_id)


def test_an_id_is_a_uuid7_bound_to_its_device() -> None:
    id_ = mint().mint(NOW_MS)

    number = int.from_bytes(id_, "big")
    assert (time_ms_of(id_), id_[6] >> 4, id_[8] >> 6) == (NOW_MS, 7, 2)
    assert (number >> 14 & (1 << 48) - 1).to_bytes(6, "big") == mint_tag_of(ME, 1)


@given(st.lists(st.tuples(st.integers(-50, 50), st.integers(-5000, 5000)), min_size=1, max_size=300))
def test_ids_of_a_device_always_rise(steps: list[tuple[int, int]]) -> None:
    ids, device, now_ms = [b""], mint(), NOW_MS

    for step_ms, seen_ms in steps:
        now_ms += step_ms
        ids.append(device.mint(now_ms, now_ms + seen_ms)[:8])

    assert ids == sorted(set(ids))


def test_more_ids_than_a_millisecond_holds_borrow_from_the_next() -> None:
    device = mint()

    ids = [device.mint(NOW_MS) for _ in range(5000)]

    assert len({id_[:8] for id_ in ids}) == 5000
    assert time_ms_of(ids[-1]) == NOW_MS + 1


def test_an_id_sorts_after_what_was_seen_but_not_far_ahead_of_the_server() -> None:
    assert time_ms_of(mint().mint(NOW_MS, NOW_MS + 700)) == NOW_MS + 701
    assert time_ms_of(mint().mint(NOW_MS, NOW_MS + 60_000)) == NOW_MS + MAX_BUMP_MS


def test_a_restarted_mint_goes_on_after_its_last_id() -> None:
    last = mint().mint(NOW_MS)

    assert mint(last).mint(NOW_MS - 5) > last


def test_it_is_never_earlier_than_what_the_ledger_has_accepted() -> None:
    clock = ServerClock(NOW_MS, 0.0)
    clock.sample(1.0, 1.0, NOW_MS - 30_000)
    assert clock.estimate_ms(2.0) == NOW_MS - 29_000

    clock.accepted(NOW_MS - 60_000, 2.0)
    clock.accepted(NOW_MS + 2_000, 2.0)
    clock.accepted(NOW_MS, 3.0)
    assert clock.estimate_ms(4.0) == NOW_MS + 4_000

    clock.correct(NOW_MS, 4.0)
    assert clock.estimate_ms(4.0) == NOW_MS


def test_the_clock_believes_the_shortest_round_trip_of_the_last_eight() -> None:
    clock = ServerClock(NOW_MS, 0.0)

    clock.sample(10.0, 10.02, NOW_MS + 20_010)
    clock.sample(11.0, 13.0, NOW_MS + 22_900)
    best = clock.estimate_ms(20.0)
    for start in range(8):
        clock.sample(20.0 + start, 20.5 + start, NOW_MS + 31_250 + start * 1000)

    assert best == NOW_MS + 30_000
    assert clock.estimate_ms(30.0) == NOW_MS + 41_000


@pytest.mark.parametrize("slept_ms", [5_000, 7_200_000])
def test_the_clock_believes_no_shorter_round_trip_from_before_the_machine_slept(slept_ms: int) -> None:
    clock = ServerClock(NOW_MS, 0.0)
    for at_s in range(8):
        clock.sample(at_s, at_s + 0.001, NOW_MS + at_s * 1000)

    clock.sample(8.0, 8.5, NOW_MS + 8_250 + slept_ms)

    assert clock.estimate_ms(9.0) == NOW_MS + 9_000 + slept_ms


def test_an_edge_that_fell_behind_does_not_make_it_earlier_than_what_the_ledger_has_accepted() -> None:
    clock = ServerClock(NOW_MS, 0.0)
    clock.sample(1.0, 1.0, NOW_MS)
    clock.accepted(NOW_MS, 1.0)

    clock.sample(2.0, 2.0, NOW_MS - 30_000)

    assert clock.estimate_ms(3.0) == NOW_MS + 2_000


def test_what_was_accepted_by_a_clock_that_was_set_back_since_keeps_no_one_from_signing_in() -> None:
    clock = ServerClock(NOW_MS, 0.0)
    clock.sample(1.0, 1.0, NOW_MS)
    clock.accepted(NOW_MS, 1.0)

    clock.sample(2.0, 2.0, NOW_MS - 7_200_000)

    assert clock.estimate_ms(3.0) == NOW_MS - 7_199_000


def test_conversations_are_the_same_from_both_sides_and_a_uuid8() -> None:
    id_ = conversation_of(ME, PEER)

    assert id_ == conversation_of(PEER, ME)
    assert (len(id_), id_[6] >> 4, id_[8] >> 6) == (16, 8, 2)


@given(st.binary(max_size=70_000), st.integers(1, 1_000_000), st.integers(1, 2**40))
def test_frames_built_by_hand_are_what_protobuf_writes(content: bytes, attempt: int, count: int) -> None:
    id_, content = bytes(range(16)), content or b"x"
    envelope = envelope_pb2.Envelope(suite=envelope_pb2.ENCRYPTION_SUITE_NONE, content=content)
    message = send_pb2.SendMessage(user_id=PEER, envelope=envelope)
    send = send_pb2.Send(message_id=id_, attempt=attempt, message=message)
    read = send_pb2.Send(message_id=id_, attempt=attempt, read=send_pb2.SendRead(peer_user_id=PEER, read_upto=id_))
    ack = client_frame_pb2.ClientFrame(ack=client_frame_pb2.Ack(count=count))

    framed = [client_frame_pb2.ClientFrame(send=each).SerializeToString() for each in (send, read)]

    assert framed[0] == send_frame(id_, attempt, message_action(PEER, 1, content))
    assert framed[1] == send_frame(id_, attempt, read_action(Destination(CONVERSATION, PEER), id_))
    assert ack_frame(count) == ack.SerializeToString()


@given(st.binary(min_size=1, max_size=300), st.integers(0, 1 << 40))
def test_a_message_to_a_group_built_by_hand_is_what_protobuf_writes(content: bytes, version: int) -> None:
    envelope = envelope_pb2.Envelope(suite=envelope_pb2.ENCRYPTION_SUITE_NONE, content=content)
    message = send_pb2.SendMessage(group_id=PEER, envelope=envelope, members_version=version)

    assert group_message_action(PEER, version, 1, content) == send_pb2.Send(message=message).SerializeToString()


def test_a_group_is_named_by_its_own_field() -> None:
    read = send_pb2.SendRead(group_id=PEER, read_upto=ME)

    assert to_group(PEER).group_id == PEER
    assert read_action(to_group(PEER), ME) == send_pb2.Send(read=read).SerializeToString()
    assert (to_person(ME, PEER).group_id, to_person(ME, PEER).conversation_id) == (b"", CONVERSATION)


def test_the_proof_for_a_session_is_what_the_contract_says() -> None:
    device = Device(ME, 3, DeviceKey.generate())

    request = device.session_request(NOW_MS, b"n" * 16)

    signed = b"chappe-session/1\0" + ME + (3).to_bytes(4, "big") + NOW_MS.to_bytes(8, "big") + b"n" * 16
    Ed25519PublicKey.from_public_bytes(device.key.public).verify(request.signature, signed)


def test_a_link_code_is_signed_the_same_however_it_was_typed() -> None:
    key = DeviceKey.generate()

    assert key.link_proof("abcd-2345") == key.link_proof("ABCD 2345") == key.sign(b"chappe-link/1\0ABCD2345")


def test_a_key_survives_its_file_and_another_kind_is_refused() -> None:
    key = DeviceKey.generate()
    curve = generate_private_key(SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )

    assert DeviceKey.from_pem(key.to_pem()).public == key.public
    for pem in (curve, b"nonsense"):
        with pytest.raises(ProfileError, match="device key"):
            DeviceKey.from_pem(pem)


@pytest.mark.parametrize("text", ["hello", "", "Grüße 👋", "a\nb"])
def test_text_comes_back_as_it_was_written(text: str) -> None:
    said = Said(text, reply_to=b"r" * 16, forward_count=3)

    assert decode(1, encode(said)) == said
    assert decode(1, encode_text(text)) == Said(text)


@pytest.mark.parametrize(("suite", "content"), [(49, b"sealed"), (1, b"\x0a\xff")])
def test_what_cannot_be_read_is_said_to_be_unreadable(suite: int, content: bytes) -> None:
    assert "cannot read" in decode(suite, content).text


@pytest.mark.parametrize("name", [name for name in dir(methods) if isinstance(getattr(methods, name), methods.Method)])
def test_methods_are_those_of_the_contract(name: str) -> None:
    method = getattr(methods, name)
    found = descriptor_pool.Default().FindMethodByName(method.name.replace("/", "."))

    options = found.GetOptions()
    own = options.Extensions[access_pb2.access]
    shared = found.containing_service.GetOptions().Extensions[access_pb2.service_access]
    callers = set(own.callers or shared.callers)
    assert (found.input_type, found.output_type) == (method.question.DESCRIPTOR, method.answer.DESCRIPTOR)
    assert callers & {access_pb2.CALLER_CLIENT, access_pb2.CALLER_OPEN}
    assert method.is_idempotent is bool(options.idempotency_level)


@pytest.mark.parametrize(
    ("codes", "comeback"),
    [
        ((4000, 4001, 4002, 4099), Comeback.AT_ONCE),
        ((1000, 1001, 1006, 1011, 3999, 4100, 4101, 4399, 4500), Comeback.AFTER_DELAY),
        ((4400, 4401, 4403, 4409, 4413), Comeback.NEVER),
    ],
)
def test_a_close_code_says_whether_to_come_back(codes: tuple[int, ...], comeback: Comeback) -> None:
    assert {reconnect_policy(code) for code in codes} == {comeback}


def test_every_close_code_of_the_contract_has_a_policy() -> None:
    numbers = [number for number in close_code_pb2.CloseCode.values() if number]

    assert all((reconnect_policy(number) is Comeback.NEVER) == (number >= 4400) for number in numbers)


def test_waits_grow_up_to_their_caps() -> None:
    assert [backoff_s(failures, Dice()) for failures in (0, 1, 2, 5, 6, 99)] == [0, 1.0, 2.0, 16.0, 30.0, 30.0]
    assert [retry_s(unanswered) for unanswered in (1, 2, 3, 4, 5, 99)] == [4, 8, 16, 32, 60, 60]


def test_a_reason_that_is_not_known_has_its_number() -> None:
    assert [reason_name(number) for number in (22, 9999)] == ["CLOCK_SKEW", "REASON_9999"]


def test_the_machines_own_seams_work() -> None:
    clock, randomness = SystemClock(), SystemRandomness()

    assert clock.wall_ms() > NOW_MS - 10**11
    assert clock.monotonic_s() <= clock.monotonic_s()
    assert len(randomness.token(16)) == 16
    assert 1 <= randomness.uniform(1, 2) <= 2


def test_a_profile_keeps_its_key_to_itself_and_comes_back(tmp_path: Path) -> None:
    key = DeviceKey.generate()
    about = About(user_id=ME.hex(), device_id=2, phone_number="+441632960001", name="Alice", addresses=("ws://a",))
    with_token = Profile.create(tmp_path / "alice", about, key)
    with_token.keep_token(Token("secret", 5))
    with_token.close()

    profile = Profile.open(tmp_path / "alice")

    assert (profile.about, profile.device.key.public, profile.token()) == (about, key.public, Token("secret", 5))
    for name in ("key.pem", "token.json"):
        assert stat.S_IMODE((profile.folder / name).stat().st_mode) == 0o600
    assert profiles(tmp_path) == ["alice"]
    profile.keep_token(None)
    assert profile.token() is None
    profile.close()


def test_a_profile_that_is_missing_or_damaged_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(ProfileError, match="register or link it first"):
        Profile.open(tmp_path)

    (tmp_path / "profile.json").write_text("{}")
    with pytest.raises(ProfileError, match="damaged"):
        Profile.open(tmp_path)


def test_a_profile_whose_lock_cannot_be_written_is_said_to_be_one_and_is_not_held(tmp_path: Path) -> None:
    Profile.create(tmp_path, About(user_id=ME.hex(), device_id=2), DeviceKey.generate()).close()
    (tmp_path / "lock").unlink()
    (tmp_path / "lock").symlink_to("/dev/full")

    for _ in range(2):
        with pytest.raises(ProfileError, match="cannot be held"):
            Profile.open(tmp_path)


@pytest.mark.parametrize("name", ["", ".", "../x", "a/b", ".hidden"])
def test_a_name_that_hides_a_path_is_refused(name: str) -> None:
    with pytest.raises(ProfileError, match="no name for a profile"):
        folder_of(name)


def test_a_plain_name_lies_below_the_default_root() -> None:
    assert folder_of("alice") == default_root() / "alice"
