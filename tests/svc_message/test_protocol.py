"""The pure rules: ids, positions, the horizon, and clocks that cannot be trusted."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from svc_identity.protocol.identifier import requested_id
from svc_message.errors import ClockUntrustedError
from svc_message.model import DeviceId, UserId
from svc_message.protocol import (
    HORIZON_S,
    LedgerClock,
    MessageKey,
    TagCache,
    content_hash,
    direct_conversation,
    is_group,
    milliseconds_of,
    position_at,
)
from tests.svc_message.fakes import ManualClock, message_id

ALICE, BOB = UserId(b"a" * 16), UserId(b"b" * 16)
NODE = bytes(range(8))
ids = st.binary(min_size=16, max_size=16)


@given(ids, ids)
def test_both_users_derive_the_same_conversation(one: bytes, other: bytes) -> None:
    conversation = direct_conversation(one, other)

    assert conversation == direct_conversation(other, one)
    assert conversation[6] >> 4 == 8
    assert conversation[8] >> 6 == 2


@given(ids, ids)
def test_a_group_of_the_directory_is_told_from_a_direct_conversation(one: bytes, other: bytes) -> None:
    assert is_group(requested_id("chappe-group", one, other))
    assert not is_group(direct_conversation(one, other))


@given(ids, st.integers(1, 32767), st.integers(0, 2**48 - 1))
def test_a_message_id_carries_the_tag_of_its_device(user_id: bytes, device_id: int, unix_ms: int) -> None:
    minted = message_id(UserId(user_id), device_id, unix_ms)

    assert TagCache().owns(UserId(user_id), device_id, minted)
    assert milliseconds_of(minted) == unix_ms


@pytest.mark.parametrize("bit", [*range(48, 52), *range(64, 66), *range(66, 114)])
def test_one_wrong_bit_of_version_variant_or_tag_makes_an_id_a_strangers(bit: int) -> None:
    minted = int.from_bytes(message_id(ALICE, 1, 1000), "big") ^ 1 << (127 - bit)

    assert not TagCache().owns(ALICE, 1, minted.to_bytes(16, "big"))


@pytest.mark.parametrize("bit", [*range(48), *range(52, 64), *range(114, 128)])
def test_time_counter_and_randomness_of_an_id_are_free(bit: int) -> None:
    minted = int.from_bytes(message_id(ALICE, 1, 1000), "big") ^ 1 << (127 - bit)

    assert TagCache().owns(ALICE, 1, minted.to_bytes(16, "big"))
    assert not TagCache().owns(ALICE, 1, minted.to_bytes(16, "big") + b"x")


def test_another_device_does_not_own_the_id() -> None:
    tags = TagCache(capacity=1)
    minted = message_id(ALICE, 1, 1000)

    assert tags.owns(ALICE, DeviceId(1), minted)
    assert not tags.owns(ALICE, DeviceId(2), minted)
    assert not tags.owns(BOB, DeviceId(1), minted)


def test_content_is_the_same_only_with_the_same_recipient() -> None:
    assert content_hash(ALICE, b"x") == content_hash(ALICE, b"x")
    assert content_hash(ALICE, b"x") != content_hash(BOB, b"x")
    assert content_hash(ALICE, b"x") != content_hash(ALICE, b"y")


def test_a_key_is_taken_apart_where_it_was_joined() -> None:
    key = MessageKey.of(b"p" * 16 + b"m" * 16 + b"c" * 16 + b"s" * 16)

    assert key == (b"p" * 16, b"m" * 16, b"c" * 16, b"s" * 16)


def test_positions_rise_even_while_the_clock_stands_still() -> None:
    clock = ManualClock()
    ledger = LedgerClock(clock, NODE)

    positions = [ledger.mint().position for _ in range(10_000)]

    assert positions == sorted(set(positions))
    assert all((position[6] >> 4, position[8] >> 6) == (7, 2) for position in positions[:10])


def test_a_position_is_too_old_once_its_age_passes_four_seconds() -> None:
    clock = ManualClock()
    ledger = LedgerClock(clock, NODE)
    stamp = ledger.mint()

    clock.pass_s(4.0)
    assert ledger.is_fresh(stamp)
    clock.pass_s(0.01)
    assert not ledger.is_fresh(stamp)


def test_the_age_is_the_larger_of_wall_and_monotonic_age() -> None:
    clock = ManualClock()
    ledger = LedgerClock(clock, NODE)
    stamp = ledger.mint()

    clock.pass_s(5.0)
    clock.step_s(-5.0)

    assert ledger.age_s(stamp) == pytest.approx(5.0)


def test_the_bound_is_ten_seconds_behind() -> None:
    clock = ManualClock()
    ledger = LedgerClock(clock, NODE)

    assert ledger.bound() == position_at(clock.wall_ms() - int(HORIZON_S * 1000))


@pytest.mark.parametrize("step_s", [0.3, -0.3, 3600.0])
def test_a_step_freezes_minting_and_cursors_until_the_store_agrees(step_s: float) -> None:
    clock = ManualClock()
    ledger = LedgerClock(clock, NODE)
    clock.step_s(step_s)

    with pytest.raises(ClockUntrustedError, match="the clock stepped by"):
        ledger.mint()
    with pytest.raises(ClockUntrustedError):
        ledger.bound()
    ledger.compare(clock.wall_ms())

    ledger.mint()


def test_a_clock_that_differs_from_the_stores_is_not_trusted() -> None:
    clock = ManualClock()
    ledger = LedgerClock(clock, NODE)

    ledger.compare(clock.wall_ms() - 600)

    with pytest.raises(ClockUntrustedError, match=r"the clock is \+0.600 s off the store's"):
        ledger.bound()


@given(st.lists(st.sampled_from(["mint", 0.0001, 0.2, 3.0]), max_size=50))
def test_whatever_happens_positions_never_fall(steps: list[float | str]) -> None:
    clock = ManualClock()
    ledger = LedgerClock(clock, NODE)
    positions = []

    for step in steps:
        if isinstance(step, str):
            positions.append(ledger.mint().position)
        else:
            clock.pass_s(step)

    assert positions == sorted(set(positions))
