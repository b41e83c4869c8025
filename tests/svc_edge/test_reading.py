"""Reading many logs in a few calls: those that cannot be read take no others along, and an outage is not made worse."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest

from chappe.runtime.clock import Seams
from chappe.runtime.errors import TooLargeError, UnavailableError
from chappe.runtime.tasks import Tasks
from svc_edge.model import DeviceId, InboxAnswer, InboxQuery, Member, SignInId, UserId
from svc_edge.protocol.delivery import Reading
from svc_edge.protocol.session import Session
from svc_edge.service.reading import MAX_SESSIONS_PER_CALL, PARALLEL_CALLS, LogReader
from svc_edge.service.sessions import Sessions
from tests.svc_edge.test_protocol import LIMITS, NoDoor
from tests.svc_fanout.fakes import HandClock, SeededRandomness, settle

LONGEST_ROUND_S = 2.0


class FakeLedger:
    """Reads empty logs, and refuses a call as a whole for one log that it cannot read."""

    def __init__(self) -> None:
        self.calls: list[int] = []
        """How many logs each call asked for."""
        self.limits: list[int] = []
        """How many items were asked for of each log."""
        self.unreadable: set[UserId] = set()
        self.is_up = True
        self.bug: Exception | None = None
        """What the next call fails with."""
        self.most_logs = MAX_SESSIONS_PER_CALL

    async def sync(self, queries: Sequence[InboxQuery]) -> list[InboxAnswer]:
        self.calls.append(len(queries))
        self.limits += [query.limit for query in queries]
        bug, self.bug = self.bug, None
        if bug is not None:
            raise bug
        if len(queries) > self.most_logs:
            raise TooLargeError("too much", limit=self.most_logs)
        if not self.is_up or any(query.user_id in self.unreadable for query in queries):
            raise UnavailableError("svc_identity", "who was in a group is not known")
        return [InboxAnswer([], [], [], has_more=False, cursor=b"c", bound=b"b" * 16, is_resync=False) for _ in queries]


class Desk:
    """A reader over a fake ledger, and a clock that stands still until it is moved."""

    def __init__(self, tasks: Tasks) -> None:
        seams = Seams(HandClock(), SeededRandomness())
        self.clock: HandClock = seams.clock  # type: ignore[assignment]  # it was just made
        self.ledger = FakeLedger()
        self._sessions = Sessions(seams, LIMITS)
        unused: Any = self.ledger
        self.reader = LogReader(unused, self._sessions, seams=seams, tasks=tasks)

    def signed_in(self, number: int) -> Session:
        """Returns a session whose log is to be read."""
        session = self._sessions.open(NoDoor())
        session.begin_hello()
        member = Member(UserId(number.to_bytes(16, "big")), DeviceId(1), SignInId(b"s" * 16))
        session.begin_delivery(member, b"", 0)
        session.delivery.request_pass(Reading.CATCH_UP)
        session.begin_live(0.0, 0.0)
        self.reader.pump(session)
        return session

    def signed_in_unreadable(self, number: int) -> Session:
        """Returns a session whose log cannot be read."""
        self.ledger.unreadable.add(UserId(number.to_bytes(16, "big")))
        return self.signed_in(number)

    def drop(self, session: Session) -> None:
        """Ends a session."""
        self._sessions.drop(session)

    async def rounds(self, count: int) -> None:
        """Lets so many of the longest first pauses go by."""
        for _ in range(count):
            await self.clock.advance(LONGEST_ROUND_S)


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    crashes: list[tuple[str, BaseException]] = []
    async with Tasks(lambda name, error: crashes.append((name, error))) as tasks:
        yield Desk(tasks)
    assert not crashes


def are_read(sessions: list[Session]) -> bool:
    return all(session.delivery.has_output for session in sessions)


async def test_a_log_that_cannot_be_read_holds_up_no_other_of_its_call(desk: Desk) -> None:
    unwell, well = desk.signed_in_unreadable(0), desk.signed_in(1)

    await desk.rounds(4)

    assert [desk.ledger.calls[0], are_read([well]), are_read([unwell])] == [2, True, False]


@pytest.mark.parametrize("unreadable", [{0}, {255}, {0, 100, 101, 102, 255}])
async def test_the_others_of_a_full_call_are_read_within_seconds(desk: Desk, unreadable: set[int]) -> None:
    sessions = [
        desk.signed_in_unreadable(number) if number in unreadable else desk.signed_in(number)
        for number in range(MAX_SESSIONS_PER_CALL)
    ]

    await desk.rounds(8)

    assert desk.ledger.calls[0] == MAX_SESSIONS_PER_CALL
    assert {number for number, session in enumerate(sessions) if not are_read([session])} == unreadable


async def test_while_many_logs_cannot_be_read_one_that_comes_later_is_read_at_once(desk: Desk) -> None:
    for number in range(2 * PARALLEL_CALLS):
        desk.signed_in_unreadable(number)
        await settle()

    well = desk.signed_in(100)
    await settle()

    assert are_read([well])


async def test_a_log_that_could_not_be_read_is_read_once_it_can_be(desk: Desk) -> None:
    unwell = desk.signed_in_unreadable(0)
    await desk.rounds(30)

    desk.ledger.unreadable.clear()
    await desk.rounds(4)

    assert are_read([unwell])


async def test_a_ledger_that_is_away_is_asked_for_one_log_at_a_time_and_for_everybody_once_it_is_back(
    desk: Desk,
) -> None:
    desk.ledger.is_up = False
    sessions = [desk.signed_in(number) for number in range(2 * MAX_SESSIONS_PER_CALL)]
    await settle()
    await desk.rounds(30)
    asked = desk.ledger.calls.copy()

    desk.ledger.is_up = True
    await desk.rounds(4)

    assert asked[:2] == [MAX_SESSIONS_PER_CALL] * 2
    assert set(asked[2:]) == {1}
    assert len(asked) < 80
    assert are_read(sessions)
    assert len(desk.ledger.calls) - len(asked) < 20


async def test_a_fault_that_nobody_expected_is_no_end_of_reading(desk: Desk) -> None:
    desk.ledger.bug = KeyError("a bug")
    sessions = [desk.signed_in(number) for number in range(3)]
    await settle()
    desk.ledger.bug = KeyError("a bug")

    await desk.rounds(6)

    assert are_read(sessions)


async def test_what_is_too_much_for_one_answer_is_asked_for_in_parts_and_what_fails_of_it_later(desk: Desk) -> None:
    desk.ledger.most_logs = 3
    sessions = [desk.signed_in(number) for number in range(10)]
    unwell = desk.signed_in_unreadable(10)
    await settle()
    at_once = sum(are_read([session]) for session in sessions)

    await desk.rounds(4)

    assert at_once > 5
    assert are_read(sessions)
    assert not are_read([unwell])


async def test_a_session_that_ended_is_not_asked_for_again(desk: Desk) -> None:
    unwell = desk.signed_in_unreadable(0)
    await desk.rounds(2)
    asked = len(desk.ledger.calls)

    desk.drop(unwell)
    await desk.rounds(10)

    assert len(desk.ledger.calls) == asked


async def test_a_read_that_waits_for_its_turn_asks_for_no_more_than_there_is_room_for_by_then(desk: Desk) -> None:
    desk.ledger.is_up = False
    session = desk.signed_in(0)
    await settle()
    session.delivery.room -= 5

    desk.ledger.is_up = True
    await desk.rounds(1)

    assert desk.ledger.limits == [20, 15]


async def test_a_log_of_which_one_item_is_too_much_is_asked_for_again_after_a_pause(desk: Desk) -> None:
    desk.ledger.most_logs = 0
    desk.signed_in(0)
    for _ in range(3):
        await settle()
    asked = len(desk.ledger.calls)

    await settle()

    assert desk.ledger.limits == [20, 5, 1]
    assert len(desk.ledger.calls) == asked
