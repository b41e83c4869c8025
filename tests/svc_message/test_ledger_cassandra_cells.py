"""The cells of the ledger on Cassandra: of several writes the same one wins, in whatever order they come."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from svc_message.adapters.ledger_cassandra.bounds import Bounds
from svc_message.adapters.ledger_cassandra.cells import (
    AFTER_ALL,
    DAY_MS,
    HOUR_MS,
    LINGER_S,
    Edit,
    Header,
    Rank,
    body_bucket_of,
    bucket_of,
    earliest,
    envelope_of,
    ordered,
    pointer_ttl_s,
    stamp,
    stamp_of_action,
    stamp_of_content,
    stamp_of_id,
    stamp_of_position,
    time_of_earliest,
    time_to_live_s,
    week_of,
)
from svc_message.model import DeviceId, MessageId, UserId
from tests.svc_message.fakes import ManualClock

NOW_MS = 1_800_000_000_000

times = st.integers(0, 2**47)
ids = st.binary(min_size=16, max_size=16)
headers = st.builds(
    Header,
    times,
    ids,
    st.booleans(),
    st.integers(0, 2**31),
    ids.map(UserId),
    ids.map(UserId),
    st.integers(0, 2**31).map(DeviceId),
    st.integers(1, 2**62),
    st.integers(0, 2**31),
)
edits = st.builds(Edit, ids.map(MessageId), times, st.binary())


def uuid7(unix_ms: int, rest: bytes = bytes(10)) -> bytes:
    return unix_ms.to_bytes(6, "big") + bytes([0x70 | rest[0] & 0xF]) + rest[1:]


uuid7s = st.builds(uuid7, times, st.binary(min_size=10, max_size=10))


@given(headers)
def test_what_the_first_attempt_decided_comes_back(header: Header) -> None:
    direct = header._replace(members_version=0, recipient_count=0)

    assert Header.read(header.cell()) == header
    assert Header.read(direct.cell()) == direct


@given(st.lists(st.tuples(headers, st.binary()), min_size=1))
def test_the_earliest_attempt_wins_header_and_envelope(attempts: list[tuple[Header, bytes]]) -> None:
    first_ms = min(header.accepted_ms for header, _ in attempts)

    winner = max(header.cell() for header, _ in attempts)
    envelope = max(header.envelope_cell(envelope) for header, envelope in attempts)

    assert Header.read(winner).accepted_ms == first_ms
    of_winner = {sent for header, sent in attempts if header[:2] == Header.read(winner)[:2]}
    assert envelope_of(envelope) in of_winner


def test_what_was_taken_back_has_no_content() -> None:
    assert envelope_of(b"") == envelope_of(None) == b""
    assert Edit.read(b"") is Edit.read(None) is None


@given(st.lists(edits, min_size=1))
def test_the_greatest_edit_wins(written: list[Edit]) -> None:
    winner = Edit.read(max(edit.cell() for edit in written))

    assert winner is not None
    assert winner.action_id == max(edit.action_id for edit in written)
    assert winner in written


@given(st.lists(times, min_size=1))
def test_the_earliest_time_wins(written: list[int]) -> None:
    assert time_of_earliest(max(map(earliest, written))) == min(written)


@given(uuid7s, uuid7s)
def test_ranks_stay_within_the_millisecond_of_their_message(one: bytes, other: bytes) -> None:
    stamps = [stamp(one, rank) for rank in Rank]

    assert stamps == sorted(set(stamps))
    if one[:6] < other[:6]:
        assert stamps[-1] < stamp(other, Rank.SENT)


@given(st.lists(uuid7s, min_size=1))
def test_of_ids_at_their_own_times_the_greatest_wins(written: list[bytes]) -> None:
    assert max((stamp_of_id(one), one) for one in written)[1] == max(written)


@given(uuid7s, uuid7s)
def test_later_positions_are_never_written_at_an_earlier_time(one: bytes, other: bytes) -> None:
    early, late = sorted((one, other))

    assert stamp_of_position(early) <= stamp_of_position(late)


@given(uuid7s, uuid7s)
def test_what_a_greater_action_sets_is_written_later_and_nothing_after_what_takes_it_away(
    one: bytes, other: bytes
) -> None:
    early, late = sorted((one, other))

    assert stamp_of_action(early) <= stamp_of_action(late) < AFTER_ALL


@given(uuid7s, times, times)
def test_of_content_that_ends_by_itself_the_earlier_is_written_later_and_before_everything_else(
    message_id: bytes, one_ms: int, other_ms: int
) -> None:
    early_ms, late_ms = sorted((one_ms, other_ms))
    early, late = stamp_of_content(message_id, early_ms), stamp_of_content(message_id, late_ms)

    assert late <= early <= stamp(message_id, Rank.SENT)
    sent_ms = int.from_bytes(message_id[:6], "big")
    if sent_ms - HOUR_MS <= early_ms < late_ms <= sent_ms + 30 * DAY_MS and sent_ms > 30 * DAY_MS:
        assert late < early


@given(ids, uuid7s)
def test_a_bound_lies_among_ids_where_its_bytes_do(bound: bytes, message_id: bytes) -> None:
    moved = ordered(bound)

    assert moved[6] >> 4 == 7
    if message_id < bound:
        assert message_id <= moved
    if message_id > bound:
        assert message_id >= moved


@given(uuid7s, uuid7s)
def test_partitions_rise_with_time(one: bytes, other: bytes) -> None:
    early, late = sorted((one, other))

    for partition in (bucket_of, body_bucket_of, week_of):
        assert 0 <= partition(early) <= partition(late) <= 32_767


def test_partitions_are_as_long_as_the_tables_say() -> None:
    day = [uuid7(NOW_MS + n * DAY_MS) for n in range(3600)]

    for partition, days in ((bucket_of, 90), (body_bucket_of, 10), (week_of, 7)):
        lengths = [len(list(group)) for _, group in itertools.groupby(map(partition, day))]
        assert set(lengths[1:-1]) == {days}


def test_content_outlives_its_end_by_a_few_seconds_and_pointers_their_month_never() -> None:
    assert time_to_live_s(0, NOW_MS) == 0
    assert time_to_live_s(NOW_MS + 1500, NOW_MS) == 2 + LINGER_S
    assert time_to_live_s(NOW_MS - 5000, NOW_MS) == LINGER_S
    assert pointer_ttl_s(0, NOW_MS) == pointer_ttl_s(NOW_MS + 90 * DAY_MS, NOW_MS) == 30 * 86_400
    assert pointer_ttl_s(NOW_MS + 1500, NOW_MS) == 2 + LINGER_S


def test_inboxes_are_read_from_the_cursor_to_now_and_not_further_back_than_they_are_kept() -> None:
    bounds = Bounds(ManualClock(NOW_MS))
    recent, long_ago = uuid7(NOW_MS - 60_000), bytes(16)

    assert [week_of(recent)] == list(bounds.weeks_after(recent))
    assert len(bounds.weeks_after(long_ago)) == 6
    assert list(bounds.weeks_after(uuid7(NOW_MS + 90 * DAY_MS))) == [week_of(uuid7(NOW_MS + 90 * DAY_MS))]
