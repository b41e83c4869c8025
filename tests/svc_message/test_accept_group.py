"""Who may write to a group, what is promised, and what a retry gets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chappe.runtime.errors import UnavailableError
from svc_message.adapters.group_store_memory import MemoryGroupStore
from svc_message.adapters.journal_memory import MemoryJournal
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.model import (
    Answer,
    ConversationId,
    DeviceId,
    MessageEvent,
    Refused,
    SendGroupMessage,
    SendRequest,
    Stored,
    UserId,
)
from svc_message.model.group import Shard
from svc_message.protocol import FIRST_ACCEPT_AGE_MS, FUTURE_BOUND_MS, WRITE_WINDOW_S, LedgerClock, milliseconds_of
from svc_message.service.accept_group import GroupAccepting, Stores
from tests.svc_message.desk import inbox
from tests.svc_message.fakes import FakeExpander, FakeGroupDirectory, ManualClock, message_id
from tests.svc_message.group_desk import group_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.model.group import GroupAccepted, NewGroupMessage

ALICE, BOB, CAROL, EVE = (UserId(letter * 16) for letter in (b"A", b"B", b"C", b"E"))
GROUP = ConversationId(b"G" * 16)
SHARD = Shard(7)


class SlowGroupStore(MemoryGroupStore):
    """A store that lets time pass around its writes, or fails after them."""

    def __init__(self, store: MemoryMessageStore, journal: MemoryJournal, clock: ManualClock) -> None:
        super().__init__(store, journal)
        self.clock = clock
        self.delays_s: list[float] = []
        self.failures = 0

    async def accept(self, shard: Shard, batch: Sequence[NewGroupMessage]) -> list[GroupAccepted]:
        outcomes = await super().accept(shard, batch)
        if self.delays_s:
            self.clock.pass_s(self.delays_s.pop(0))
        if self.failures:
            self.failures -= 1
            raise UnavailableError("store", "the outcome is unknown")
        return outcomes


class GroupLedger:
    """The accepting rules for groups with everything around them faked; Alice owns the group, Bob and Carol are in."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryMessageStore(self.clock)
        self.groups = SlowGroupStore(self.store, MemoryJournal(self.clock), self.clock)
        self.directory = FakeGroupDirectory()
        self.directory.add(group_of(GROUP, ALICE, BOB, CAROL, version=5))
        self.expander = FakeExpander()
        stores = Stores(self.store, self.groups)
        ledger_clock = LedgerClock(self.clock, bytes(8))
        self.accepting = GroupAccepting(stores, self.directory, ledger_clock, self.expander, SHARD)

    async def send(self, *requests: SendRequest) -> list[Answer]:
        """Submits sends as one batch, and what needs a look-up once more, as the door does."""
        answers = await self.accepting.accept(requests)
        left = [n for n, answer in enumerate(answers) if answer is None]
        later = iter(await self.accepting.accept_after_looking([requests[n] for n in left]))
        return [next(later) if answer is None else answer for answer in answers]

    def request(
        self, number: int = 0, *, text: bytes = b"hi", attempt: int = 1, age_ms: int = 0, user: UserId = ALICE
    ) -> SendRequest:
        """Builds a send to the group."""
        minted = message_id(user, 1, self.clock.wall_ms() - age_ms, number)
        return SendRequest(user, DeviceId(1), minted, attempt, SendGroupMessage(GROUP, text, 0))

    def promised(self) -> list[tuple[bytes, int]]:
        """Returns what the expander was given: messages and their versions."""
        return [
            (entry.event.message_id, entry.members_version)
            for entry in self.expander.entries
            if isinstance(entry.event, MessageEvent)
        ]


@pytest.fixture
def ledger() -> GroupLedger:
    return GroupLedger()


def knows(request: SendRequest, version: int) -> SendRequest:
    """Returns a request whose device knows a version of the group."""
    return request._replace(action=SendGroupMessage(GROUP, b"hi", version))


def reasons(answers: list[Answer]) -> list[str]:
    return [answer.reason if isinstance(answer, Refused) else "stored" for answer in answers]


async def test_a_message_of_a_member_is_promised_and_handed_to_the_expander(ledger: GroupLedger) -> None:
    request = ledger.request()

    (answer,) = await ledger.send(request)

    assert answer == Stored(ledger.clock.wall_ms(), GROUP, is_duplicate=False)
    (entry,) = ledger.expander.entries
    assert (entry.causer_id, entry.members_version) == (ALICE, 5)
    assert list(ledger.expander.begun) == [entry.position]
    (event,) = await inbox(ledger.store, ALICE)
    assert event == entry.event
    assert ledger.directory.reads == 0


async def test_answers_stand_in_the_order_of_the_batch(ledger: GroupLedger) -> None:
    foreign = ledger.request(1)._replace(device_id=DeviceId(2))
    stale = ledger.request(2, age_ms=FIRST_ACCEPT_AGE_MS + 1)
    early = ledger.request(3, age_ms=-FUTURE_BOUND_MS - 1)

    answers = await ledger.send(ledger.request(4), foreign, stale, early, ledger.request(5))

    assert reasons(answers) == ["stored", "INVALID_MESSAGE_ID", "STALE_MESSAGE_ID", "CLOCK_SKEW", "stored"]


async def test_a_stranger_is_refused_after_asking_the_directory(ledger: GroupLedger) -> None:
    assert reasons(await ledger.send(ledger.request(user=EVE))) == ["NOT_IN_CONVERSATION"]

    assert ledger.directory.reads == 1
    assert ledger.expander.entries == []


async def test_a_group_that_does_not_exist_is_refused_like_one_of_others(ledger: GroupLedger) -> None:
    nowhere = ConversationId(b"?" * 16)
    request = ledger.request()._replace(action=SendGroupMessage(nowhere, b"hi", 0))

    assert reasons(await ledger.send(request)) == ["NOT_IN_CONVERSATION"]


async def test_a_member_whom_the_copy_does_not_know_yet_may_write(ledger: GroupLedger) -> None:
    ledger.directory.change(group_of(GROUP, ALICE, BOB, CAROL, EVE, version=6))

    assert reasons(await ledger.send(ledger.request(user=EVE))) == ["stored"]
    assert [version for _, version in ledger.promised()] == [6]


async def test_a_sender_who_knows_a_newer_version_reaches_its_members(ledger: GroupLedger) -> None:
    ledger.directory.change(group_of(GROUP, ALICE, BOB, CAROL, EVE, version=6))

    await ledger.send(knows(ledger.request(1), 5), knows(ledger.request(2), 6))

    assert [version for _, version in ledger.promised()] == [5, 6]
    assert ledger.directory.reads == 1


async def test_a_version_that_nobody_else_knows_is_no_reason_to_refuse(ledger: GroupLedger) -> None:
    assert reasons(await ledger.send(knows(ledger.request(), 99))) == ["stored"]
    assert [version for _, version in ledger.promised()] == [5]


async def test_a_group_without_a_copy_is_read_through(ledger: GroupLedger) -> None:
    ledger.directory.copies.clear()

    assert reasons(await ledger.send(ledger.request())) == ["stored"]
    assert ledger.directory.reads == 1


async def test_a_directory_that_does_not_answer_makes_the_send_retryable(ledger: GroupLedger) -> None:
    ledger.directory.copies.clear()
    ledger.directory.is_down = True

    (answer,) = await ledger.send(ledger.request())

    assert isinstance(answer, Refused)
    assert (answer.reason, answer.is_retryable) == ("DEPENDENCY_UNAVAILABLE", True)


async def test_only_admins_write_in_a_group_of_announcements(ledger: GroupLedger) -> None:
    ledger.directory.add(ledger.directory.truth[GROUP]._replace(is_announcement_only=True))

    answers = await ledger.send(ledger.request(user=ALICE), ledger.request(user=BOB))

    assert reasons(answers) == ["stored", "ROLE_REQUIRED"]


async def test_who_has_become_an_admin_may_announce_at_once(ledger: GroupLedger) -> None:
    quiet = ledger.directory.truth[GROUP]._replace(is_announcement_only=True)
    ledger.directory.add(quiet)
    ledger.directory.change(quiet._replace(version=6, is_admin=(True, True, False)))

    assert reasons(await ledger.send(ledger.request(user=BOB))) == ["stored"]


async def test_a_retry_gets_the_first_answer_and_another_entry(ledger: GroupLedger) -> None:
    request = ledger.request()
    (first,) = await ledger.send(request)
    ledger.clock.pass_s(30)

    (second,) = await ledger.send(request._replace(attempt=2))

    assert isinstance(first, Stored)
    assert second == first._replace(is_duplicate=True)
    assert ledger.promised() == [(request.message_id, 5)] * 2
    assert len({entry.position for entry in ledger.expander.entries}) == 2


async def test_a_retry_after_the_group_has_changed_keeps_the_first_decision(ledger: GroupLedger) -> None:
    request = ledger.request(user=BOB)
    await ledger.send(request)
    ledger.directory.add(group_of(GROUP, ALICE, EVE, version=9))

    assert reasons(await ledger.send(request._replace(attempt=2))) == ["stored"]

    assert ledger.promised() == [(request.message_id, 5)] * 2


async def test_a_retry_that_was_never_stored_is_judged_as_things_are_now(ledger: GroupLedger) -> None:
    ledger.directory.add(group_of(GROUP, ALICE, version=9))
    request = ledger.request(user=BOB, attempt=2)

    assert reasons(await ledger.send(request)) == ["NOT_IN_CONVERSATION"]

    ledger.directory.add(group_of(GROUP, ALICE, BOB, version=10))
    assert reasons(await ledger.send(request._replace(attempt=3))) == ["STALE_MESSAGE_ID"]


async def test_a_refusal_of_the_first_attempt_holds_for_a_later_one_that_is_under_way(ledger: GroupLedger) -> None:
    ledger.directory.add(group_of(GROUP, ALICE, version=9))
    request = ledger.request(user=BOB)

    assert reasons(await ledger.send(request)) == ["NOT_IN_CONVERSATION"]

    ledger.directory.add(group_of(GROUP, ALICE, BOB, version=10))
    assert reasons(await ledger.send(request._replace(attempt=2))) == ["STALE_MESSAGE_ID"]
    assert not ledger.promised()


async def test_other_content_under_a_taken_id_is_a_conflict(ledger: GroupLedger) -> None:
    request = ledger.request()
    await ledger.send(request)
    other = request._replace(action=SendGroupMessage(GROUP, b"other", 0))

    assert reasons(await ledger.send(other, other._replace(attempt=2))) == ["DUPLICATE_CONFLICT"] * 2
    assert len(ledger.promised()) == 1
    assert len(ledger.expander.begun) == 1


async def test_the_same_send_twice_in_one_batch_is_one_message(ledger: GroupLedger) -> None:
    request = ledger.request()

    assert reasons(await ledger.send(request, request._replace(attempt=2))) == ["stored", "stored"]
    assert len({name for name, _ in ledger.promised()}) == 1


async def test_a_write_that_took_too_long_is_written_again_before_it_is_promised(ledger: GroupLedger) -> None:
    ledger.groups.delays_s = [WRITE_WINDOW_S + 1]
    request = ledger.request()

    (answer,) = await ledger.send(request)

    assert isinstance(answer, Stored)
    assert not answer.is_duplicate
    assert ledger.promised() == [(request.message_id, 5)]
    (entry,) = ledger.expander.entries
    assert list(ledger.expander.begun) == [entry.position]
    assert milliseconds_of(entry.position) == ledger.clock.wall_ms()


async def test_a_store_that_is_always_too_slow_promises_nothing(ledger: GroupLedger) -> None:
    ledger.groups.delays_s = [WRITE_WINDOW_S + 1] * 3

    (answer,) = await ledger.send(ledger.request())

    assert isinstance(answer, Refused)
    assert answer.is_retryable
    assert (ledger.expander.entries, ledger.expander.begun) == ([], {})


async def test_an_unknown_outcome_promises_nothing_and_the_retry_completes_it(ledger: GroupLedger) -> None:
    ledger.groups.failures = 1
    request = ledger.request()

    (answer,) = await ledger.send(request)
    assert isinstance(answer, Refused)
    assert (answer.is_retryable, ledger.expander.begun) == (True, {})

    assert reasons(await ledger.send(request._replace(attempt=2))) == ["stored"]
    assert ledger.promised() == [(request.message_id, 5)]


async def test_nothing_is_taken_while_too_much_waits(ledger: GroupLedger) -> None:
    ledger.expander.is_full = True

    (answer,) = await ledger.send(ledger.request())

    assert isinstance(answer, Refused)
    assert (answer.is_retryable, answer.retry_after_ms) == (True, 1000)


@pytest.mark.parametrize("attempt", [1, 2])
async def test_nothing_is_accepted_while_the_clock_cannot_be_trusted(ledger: GroupLedger, attempt: int) -> None:
    request = ledger.request(attempt=attempt)
    ledger.clock.step_s(3600)

    assert reasons(await ledger.send(request)) == ["CLOCK_UNTRUSTED"]
