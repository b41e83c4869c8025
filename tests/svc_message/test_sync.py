"""Logs are read on from cursors, and a cursor never passes what can still appear behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from chappe.runtime.errors import UnavailableError
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.errors import ClockUntrustedError
from svc_message.model import (
    NO_POSITION,
    DeviceId,
    ForeignAppend,
    ForeignEvent,
    InboxAnswer,
    InboxPage,
    InboxQuery,
    InboxRead,
    MessageEvent,
    OwnReadEvent,
    Position,
)
from svc_message.protocol import (
    EPOCH_REWIND_MS,
    HORIZON_S,
    RESYNC_AGE_MS,
    WRITE_WINDOW_S,
    LedgerClock,
    milliseconds_of,
    position_at,
)
from svc_message.service.sight import Sight
from svc_message.service.sync import MAX_EVENTS, Syncing
from tests.svc_message.desk import Desk
from tests.svc_message.fakes import FakeDispatcher, FakeGroupDirectory, ManualClock
from tests.svc_message.log_model import Model

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.model import Event

HORIZON_MS = int(HORIZON_S * 1000)


class SlowStore(MemoryMessageStore):
    """A store that lets time pass while it appends, and remembers how much was asked for."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock, epoch=3)
        self.clock = clock
        self.append_s = 0.0
        self.reads: list[InboxRead] = []

    async def append_events(self, batch: Sequence[ForeignAppend]) -> None:
        await super().append_events(batch)
        self.clock.pass_s(self.append_s)

    async def read_inbox(self, reads: Sequence[InboxRead]) -> list[InboxPage]:
        self.reads.extend(reads)
        return await super().read_inbox(reads)


class Log:
    """Bob's log, and the rules by which it is read."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = SlowStore(self.clock)
        self.dispatcher = FakeDispatcher()
        self.desk = Desk()
        self.ledger_clock = LedgerClock(self.clock, bytes(8))
        self.directory = FakeGroupDirectory()
        self.syncing = Syncing(self.store, Sight(self.directory), self.dispatcher, self.ledger_clock)

    async def write(self, count: int = 1, *, own: bool = False) -> None:
        """Writes messages to Bob, or from Bob's first device to Alice, each at a later millisecond."""
        for _ in range(count):
            self.clock.pass_s(0.001)
            bob, alice = self.desk.bob, self.desk.alice
            sender, recipient = (bob, alice) if own else (alice, bob)
            message = self.desk.write(sender=sender, recipient=recipient)
            await self.store.accept([message._replace(position=self.ledger_clock.mint().position)])

    def query(self, **fields: Any) -> InboxQuery:
        """Asks for what is new for Bob's first device."""
        asked = {"epoch": 3, "cursor": b"", "after": b"", "pass_bound": b"", "limit": 2, **fields}
        return InboxQuery(user_id=self.desk.bob, device_id=DeviceId(1), **asked)

    async def sync(self, **fields: Any) -> InboxAnswer:
        (answer,) = await self.syncing.sync([self.query(**fields)])
        return answer

    def ago(self, milliseconds: int) -> Position:
        """Returns the least position of a time in the past."""
        return position_at(self.clock.wall_ms() - milliseconds)


@pytest.fixture
async def log() -> Log:
    log = Log()
    await log.syncing.start()
    return log


def messages_in(answer: InboxAnswer) -> frozenset[bytes]:
    return frozenset(event.message_id for event in answer.events if isinstance(event, MessageEvent))


def times(events: list[Event]) -> list[int]:
    return [milliseconds_of(event.position) for event in events]


async def test_what_is_new_comes_oldest_first(log: Log) -> None:
    await log.write(3)

    answer = await log.sync(limit=10)

    assert times(answer.events) == sorted(times(answer.events))
    assert (len(answer.events), answer.has_more, answer.is_resync, answer.epoch) == (3, False, False, 3)


async def test_a_cursor_stays_ten_seconds_behind_and_what_is_younger_comes_again(log: Log) -> None:
    await log.write()

    first = await log.sync()
    second = await log.sync(cursor=first.cursor)
    log.clock.pass_s(HORIZON_S + 0.01)
    third = await log.sync(cursor=second.cursor)
    fourth = await log.sync(cursor=third.cursor)

    assert first.cursor < log.ago(HORIZON_MS)
    assert [len(answer.events) for answer in (first, second, third, fourth)] == [1, 1, 1, 0]


async def test_a_page_with_more_moves_the_cursor_no_further_than_its_last_event(log: Log) -> None:
    await log.write(5)
    log.clock.pass_s(60)

    answer = await log.sync(limit=2)

    assert (answer.has_more, answer.cursor) == (True, answer.events[-1].position)


async def test_the_bound_of_a_pass_is_kept_over_its_pages(log: Log) -> None:
    await log.write(3)
    first = await log.sync(limit=2)

    log.clock.pass_s(60)
    second = await log.sync(limit=2, after=first.events[-1].position, pass_bound=first.pass_bound)

    assert (second.has_more, second.pass_bound) == (False, first.pass_bound)
    assert second.cursor == first.pass_bound


async def test_a_page_that_does_not_say_when_its_pass_began_moves_nothing(log: Log) -> None:
    await log.write(3)
    cursor = log.ago(3_600_000)
    first = await log.sync(limit=2, cursor=cursor)
    log.clock.pass_s(60)

    second = await log.sync(limit=2, cursor=cursor, after=first.events[-1].position)

    assert (len(second.events), second.cursor) == (1, cursor)


async def test_a_bound_in_the_future_is_not_believed(log: Log) -> None:
    answer = await log.sync(pass_bound=log.ago(-3_600_000))

    assert answer.cursor == log.ago(HORIZON_MS)


async def test_a_cursor_never_goes_back(log: Log) -> None:
    cursor = log.ago(HORIZON_MS - 300)

    assert (await log.sync(cursor=cursor)).cursor == cursor


@pytest.mark.parametrize("age_ms", [RESYNC_AGE_MS + 1, -1])
async def test_a_cursor_that_is_too_old_or_of_a_time_to_come_starts_anew(log: Log, age_ms: int) -> None:
    await log.write(3)
    cursor = log.ago(age_ms)

    first = await log.sync(cursor=cursor)
    second = await log.sync(cursor=cursor, after=first.events[-1].position, pass_bound=first.pass_bound)

    assert (first.is_resync, len(first.events), second.is_resync) == (True, 2, False)
    assert first.cursor <= first.pass_bound
    assert second.cursor <= first.pass_bound


async def test_a_garbled_cursor_starts_anew(log: Log) -> None:
    await log.write()

    answer = await log.sync(is_garbled=True)

    assert (answer.is_resync, len(answer.events)) == (True, 1)


async def test_a_cursor_of_another_epoch_is_set_back_by_an_hour(log: Log) -> None:
    await log.write()
    log.clock.pass_s(EPOCH_REWIND_MS / 1000 - 60)
    cursor = log.ago(HORIZON_MS)

    same = await log.sync(cursor=cursor)
    other = await log.sync(cursor=cursor, epoch=2)

    assert (len(same.events), len(other.events), other.is_resync, other.epoch) == (0, 1, False, 3)


async def test_what_the_device_did_itself_is_left_out_but_not_for_the_others(log: Log) -> None:
    await log.write(own=True)
    await log.write()

    answer = await log.sync(limit=10)
    (others,) = await log.syncing.sync([log.query()._replace(device_id=DeviceId(2))])

    assert [event.sender_id for event in answer.events if isinstance(event, MessageEvent)] == [log.desk.alice]
    assert len(others.events) == 2


async def test_a_read_of_the_device_itself_is_left_out(log: Log) -> None:
    await log.write()
    (event,) = (await log.sync()).events
    assert isinstance(event, MessageEvent)
    update = log.desk.read(upto=event.message_id)._replace(position=log.ledger_clock.mint().position)
    await log.store.apply_receipts([update])

    readers, others = await log.syncing.sync(
        [log.query()._replace(device_id=update.reader_device_id), log.query()._replace(device_id=DeviceId(1))]
    )

    assert (len(readers.events), len(others.events)) == (1, 2)


async def test_a_page_of_the_devices_own_doing_is_read_past(log: Log) -> None:
    await log.write(7, own=True)
    await log.write()

    answer = await log.sync(limit=2)

    assert (len(answer.events), answer.has_more) == (1, False)


async def test_messages_that_the_device_has_are_read_past_but_not_what_is_done_to_them(log: Log) -> None:
    await log.write(7)
    known = messages_in(await log.sync(limit=10))
    await log.write()
    (*_, last) = (await log.sync(limit=10)).events
    assert isinstance(last, MessageEvent)
    read = log.desk.read(upto=last.message_id)._replace(position=log.ledger_clock.mint().position)
    await log.store.apply_receipts([read])

    answer = await log.sync(limit=3, known_ids=known)

    assert [type(event) for event in answer.events] == [MessageEvent, OwnReadEvent]
    assert answer.events[0] == last
    assert all(one.known_ids == known for one in log.store.reads[-3:])


async def test_a_log_of_nothing_but_known_messages_moves_the_cursor(log: Log) -> None:
    await log.write(7)
    known = messages_in(await log.sync(limit=10))
    log.clock.pass_s(60)

    answer = await log.sync(limit=2, known_ids=known)

    assert (answer.events, answer.has_more, answer.cursor) == ([], False, log.ago(HORIZON_MS))


async def test_a_log_of_nothing_but_own_doing_ends(log: Log) -> None:
    await log.write(7, own=True)
    log.clock.pass_s(60)

    answer = await log.sync(limit=2)

    assert (answer.events, answer.has_more, answer.cursor) == ([], False, log.ago(HORIZON_MS))


async def test_many_logs_at_once_share_what_one_answer_can_hold(log: Log) -> None:
    await log.syncing.sync([log.query(limit=500)] * 512)

    assert sum(read.limit for read in log.store.reads) <= MAX_EVENTS
    assert min(read.limit for read in log.store.reads) >= 1


async def test_no_cursor_moves_while_the_clock_cannot_be_trusted(log: Log) -> None:
    log.clock.step_s(-3600)

    with pytest.raises(ClockUntrustedError):
        await log.sync()


async def test_an_event_of_another_service_is_in_the_log_and_hinted(log: Log) -> None:
    append = ForeignAppend(b"c" * 16, (log.desk.alice, log.desk.bob), b"item", NO_POSITION)

    await log.syncing.append([append])

    (event,) = (await log.sync()).events
    assert event == ForeignEvent(event.position, b"c" * 16, b"item")
    assert [(hint.event, hint.user_ids) for hint in log.dispatcher.hints] == [(event, append.user_ids)]


async def test_an_event_that_took_too_long_is_appended_again_and_at_last_refused(log: Log) -> None:
    append = ForeignAppend(b"c" * 16, (log.desk.bob,), b"item", NO_POSITION)
    log.store.append_s = WRITE_WINDOW_S + 1

    with pytest.raises(UnavailableError, match="append again"):
        await log.syncing.append([append])

    assert len((await log.sync(limit=10)).events) == 3


@settings(max_examples=40)
@given(st.integers(0, 2**32))
def test_whatever_the_delays_no_acknowledged_message_is_lost(seed: int) -> None:
    outcome = Model(seed).run()

    assert outcome.acknowledged == 80
    assert outcome.lost == 0


class LastSeen(Syncing):
    """The rule that everybody writes first: a cursor is the last position that was seen."""

    def _answer(self, query: InboxQuery, page: InboxPage, bound: Position, *, is_resync: bool) -> InboxAnswer:
        answer = super()._answer(query, page, bound, is_resync=is_resync)
        last = page.events[-1].position if page.events else query.after or query.cursor or NO_POSITION
        return answer._replace(cursor=Position(max(query.cursor, last)))


class ForgetfulOfBounds(Syncing):
    """A rule that takes a new bound for each page of a pass."""

    async def sync(self, queries: Sequence[InboxQuery]) -> list[InboxAnswer]:
        return await super().sync([query._replace(pass_bound=self._clock.bound()) for query in queries])


def losses(rules: Any = Syncing, runs: int = 120) -> int:
    """Returns how many acknowledged messages are lost in some runs of the model."""
    return sum(Model(seed, rules).run().lost for seed in range(runs))


@pytest.mark.untraced
def test_a_cursor_at_the_last_position_seen_loses_messages() -> None:
    assert losses(LastSeen) > 0


@pytest.mark.untraced
def test_a_new_bound_for_each_page_loses_messages() -> None:
    assert losses(ForgetfulOfBounds) > 0


@pytest.mark.untraced
@pytest.mark.parametrize(("parameter", "value"), [("HORIZON_S", 0.0), ("WRITE_WINDOW_S", 1000.0)])
def test_without_the_horizon_or_the_write_window_messages_are_lost(
    monkeypatch: pytest.MonkeyPatch, parameter: str, value: float
) -> None:
    monkeypatch.setattr(f"svc_message.protocol.{parameter}", value)

    assert losses() > 0
