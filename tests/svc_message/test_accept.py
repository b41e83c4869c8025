"""What is accepted, what is refused, and what a retry gets, by the rules over a store in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chappe.runtime.errors import UnavailableError
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.model import (
    NO_POSITION,
    Answer,
    DeviceId,
    InboxRead,
    MessageEvent,
    MessageId,
    Refused,
    SendMessage,
    SendRequest,
    Stored,
    UserId,
)
from svc_message.protocol import FIRST_ACCEPT_AGE_MS, FUTURE_BOUND_MS, WRITE_WINDOW_S, LedgerClock
from svc_message.service import accept
from svc_message.service.accept import Accepting
from tests.svc_message.fakes import FakeDirectory, FakeDispatcher, ManualClock, message_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.model import Accepted, Found, MessageRef, NewMessage

ALICE, BOB = UserId(b"A" * 16), UserId(b"B" * 16)


class SlowStore(MemoryMessageStore):
    """A store that lets time pass around its writes, or fails after them."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.clock = clock
        self.delays_s: list[float] = []
        self.failures = 0
        self.may_void = True
        self.is_blind = False
        self.step_s = 0.0

    async def find(self, refs: Sequence[MessageRef]) -> list[Found | None]:
        self.clock.step_s(self.step_s)
        return [None] * len(refs) if self.is_blind else await super().find(refs)

    async def declare_void(self, refs: Sequence[MessageRef]) -> list[bool]:
        if not self.may_void:
            raise UnavailableError("store", "the outcome is unknown")
        return await super().declare_void(refs)

    async def accept(self, batch: Sequence[NewMessage]) -> list[Accepted]:
        outcomes = await super().accept(batch)
        if self.delays_s:
            self.clock.pass_s(self.delays_s.pop(0))
        if self.failures:
            self.failures -= 1
            raise UnavailableError("store", "the outcome is unknown")
        return outcomes


class Ledger:
    """The accepting rules with everything around them faked."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = SlowStore(self.clock)
        self.directory = FakeDirectory()
        self.directory.add(ALICE, BOB)
        self.dispatcher = FakeDispatcher()
        ledger_clock = LedgerClock(self.clock, bytes(8))
        self.accepting = Accepting(self.store, self.directory, self.dispatcher, ledger_clock)

    async def send(self, *requests: SendRequest) -> list[Answer]:
        """Submits sends as one batch, and what needs a look-up once more, as the door does."""
        answers = await self.accepting.accept(requests)
        left = [n for n, answer in enumerate(answers) if answer is None]
        later = iter(await self.accepting.accept_after_looking([requests[n] for n in left]))
        return [next(later) if answer is None else answer for answer in answers]

    def request(
        self, number: int = 0, *, text: bytes = b"hi", attempt: int = 1, age_ms: int = 0, to: UserId = BOB
    ) -> SendRequest:
        """Builds a send of Alice's."""
        minted = message_id(ALICE, 1, self.clock.wall_ms() - age_ms, number)
        return SendRequest(ALICE, DeviceId(1), minted, attempt, SendMessage(to, text))

    async def inbox(self, user_id: UserId) -> list[MessageId]:
        """Returns the message ids in an inbox, in the order of the log."""
        (page,) = await self.store.read_inbox([InboxRead(user_id, NO_POSITION, 500)])
        return [event.message_id for event in page.events if isinstance(event, MessageEvent)]


@pytest.fixture
def ledger() -> Ledger:
    """Returns a ledger that knows Alice and Bob."""
    return Ledger()


def reasons(answers: list[Answer]) -> list[str]:
    """Returns the reasons of refusals, and "stored" for the rest."""
    return [answer.reason if isinstance(answer, Refused) else "stored" for answer in answers]


async def test_a_message_is_in_both_inboxes_and_hinted_before_it_is_answered(ledger: Ledger) -> None:
    request = ledger.request()

    (answer,) = await ledger.send(request)

    assert isinstance(answer, Stored)
    assert answer.accepted_ms == ledger.clock.wall_ms()
    assert await ledger.inbox(ALICE) == await ledger.inbox(BOB) == [request.message_id]
    (hint,) = ledger.dispatcher.hints
    assert (set(hint.user_ids), hint.origin_device_id, hint.wants_receipt) == ({ALICE, BOB}, 1, True)


async def test_answers_stand_in_the_order_of_the_batch(ledger: Ledger) -> None:
    foreign = SendRequest(ALICE, DeviceId(2), ledger.request().message_id, 1, SendMessage(BOB, b"x"))
    stale = ledger.request(2, age_ms=FIRST_ACCEPT_AGE_MS + 1)

    answers = await ledger.send(ledger.request(1), foreign, stale, ledger.request(3))

    assert reasons(answers) == ["stored", "INVALID_MESSAGE_ID", "STALE_MESSAGE_ID", "stored"]


async def test_a_retry_gets_the_first_answer_and_no_second_message(ledger: Ledger) -> None:
    request = ledger.request()
    (first,) = await ledger.send(request)
    ledger.clock.pass_s(30)

    (second,) = await ledger.send(request._replace(attempt=2))

    assert isinstance(first, Stored)
    assert second == first._replace(is_duplicate=True)
    assert set(await ledger.inbox(BOB)) == {request.message_id}


async def test_a_retry_writes_the_inboxes_again_under_a_fresh_position(ledger: Ledger) -> None:
    request = ledger.request()
    await ledger.send(request)
    ledger.clock.pass_s(30)

    await ledger.send(request._replace(attempt=2))

    first, second = ledger.dispatcher.hints
    assert isinstance(first.event, MessageEvent)
    assert isinstance(second.event, MessageEvent)
    assert second.event.position > first.event.position
    assert await ledger.inbox(BOB) == [request.message_id] * 2


async def test_the_same_id_with_other_content_is_a_conflict_and_the_first_is_kept(ledger: Ledger) -> None:
    request = ledger.request(text=b"first")
    await ledger.send(request)

    answers = await ledger.send(
        request._replace(attempt=2, action=SendMessage(BOB, b"second")),
        request._replace(action=SendMessage(BOB, b"third")),
    )

    assert reasons(answers) == ["DUPLICATE_CONFLICT", "DUPLICATE_CONFLICT"]
    assert await ledger.inbox(BOB) == [request.message_id]


async def test_the_same_send_twice_in_one_batch_is_one_message(ledger: Ledger) -> None:
    request = ledger.request()

    answers = await ledger.send(request, request._replace(attempt=2))

    assert reasons(answers) == ["stored", "stored"]
    assert set(await ledger.inbox(BOB)) == {request.message_id}


async def test_a_retry_hours_later_of_what_was_stored_is_still_acknowledged(ledger: Ledger) -> None:
    request = ledger.request()
    await ledger.send(request)
    ledger.clock.pass_s(5 * 3600)

    assert reasons(await ledger.send(request._replace(attempt=9))) == ["stored"]


async def test_a_retry_of_what_was_not_stored_is_refused_for_ever_once_it_is_too_old(ledger: Ledger) -> None:
    request = ledger.request(age_ms=FIRST_ACCEPT_AGE_MS + 1, attempt=2)

    assert reasons(await ledger.send(request)) == ["STALE_MESSAGE_ID"]
    assert reasons(await ledger.send(request._replace(attempt=1))) == ["STALE_MESSAGE_ID"]
    ledger.clock.pass_s(-600)
    assert reasons(await ledger.send(request._replace(attempt=1))) == ["STALE_MESSAGE_ID"]
    assert await ledger.inbox(BOB) == []


@pytest.mark.parametrize(("age_ms", "to"), [(FIRST_ACCEPT_AGE_MS + 1, BOB), (0, UserId(b"?" * 16))])
async def test_a_retry_is_not_refused_for_ever_while_its_id_cannot_be_declared_void(
    ledger: Ledger, age_ms: int, to: UserId, caplog: pytest.LogCaptureFixture
) -> None:
    ledger.store.may_void = False

    (answer,) = await ledger.send(ledger.request(age_ms=age_ms, attempt=2, to=to))

    assert isinstance(answer, Refused)
    assert (answer.reason, answer.is_retryable) == ("DEPENDENCY_UNAVAILABLE", True)
    assert answer.detail in caplog.text


async def test_a_first_attempt_that_comes_late_and_twice_is_completed_like_a_retry(ledger: Ledger) -> None:
    request = ledger.request()
    (first,) = await ledger.send(request)
    ledger.clock.pass_s(FIRST_ACCEPT_AGE_MS / 1000 + 1)

    (second,) = await ledger.send(request)

    assert isinstance(first, Stored)
    assert second == first._replace(is_duplicate=True)


async def test_an_id_in_the_future_is_refused_with_the_way_out(ledger: Ledger) -> None:
    (answer,) = await ledger.send(ledger.request(age_ms=-FUTURE_BOUND_MS - 10))

    assert isinstance(answer, Refused)
    assert (answer.reason, answer.is_retryable) == ("CLOCK_SKEW", False)
    assert "correct the clock" in answer.detail


async def test_a_recipient_that_does_not_exist_is_refused_after_asking_the_directory(ledger: Ledger) -> None:
    request = ledger.request(to=UserId(b"?" * 16))

    assert reasons(await ledger.send(request)) == ["RECIPIENT_NOT_FOUND"]
    assert ledger.directory.reads == 1


async def test_a_refusal_of_the_first_attempt_holds_for_a_later_one_that_is_under_way(ledger: Ledger) -> None:
    early = ledger.request(age_ms=-FUTURE_BOUND_MS - 10)
    assert reasons(await ledger.send(early)) == ["CLOCK_SKEW"]

    ledger.clock.pass_s(1)

    assert reasons(await ledger.send(early._replace(attempt=2))) == ["STALE_MESSAGE_ID"]
    assert await ledger.inbox(BOB) == []


async def test_a_blocked_sender_sees_one_tick_and_the_recipient_nothing(ledger: Ledger) -> None:
    ledger.directory.block(BOB, ALICE)

    assert reasons(await ledger.send(ledger.request())) == ["stored"]

    assert await ledger.inbox(BOB) == []
    assert [hint.user_ids for hint in ledger.dispatcher.hints] == [(ALICE,)]


async def test_completing_a_withheld_message_after_the_unblock_does_not_deliver_it(ledger: Ledger) -> None:
    ledger.directory.block(BOB, ALICE)
    request = ledger.request()
    await ledger.send(request)
    ledger.directory.unblock(BOB, ALICE)
    ledger.directory.copies[BOB] = ledger.directory.truth[BOB]

    assert reasons(await ledger.send(request._replace(attempt=2))) == ["stored"]

    assert await ledger.inbox(BOB) == []
    assert all(hint.user_ids == (ALICE,) for hint in ledger.dispatcher.hints)


async def test_a_block_that_only_the_copy_knows_is_read_through_before_it_withholds(ledger: Ledger) -> None:
    ledger.directory.block(BOB, ALICE)
    ledger.directory.unblock(BOB, ALICE)
    request = ledger.request()

    await ledger.send(request)

    assert await ledger.inbox(BOB) == [request.message_id]


async def test_a_message_found_is_acknowledged_whatever_has_changed_since(ledger: Ledger) -> None:
    request = ledger.request()
    await ledger.send(request)
    ledger.directory.truth.clear()
    ledger.directory.copies.clear()

    assert reasons(await ledger.send(request._replace(attempt=2))) == ["stored"]


async def test_a_note_to_self_is_one_event(ledger: Ledger) -> None:
    request = ledger.request(to=ALICE)

    await ledger.send(request)

    assert await ledger.inbox(ALICE) == [request.message_id]
    assert [hint.user_ids for hint in ledger.dispatcher.hints] == [(ALICE,)]


async def test_a_write_that_took_too_long_is_written_again_before_it_is_acknowledged(ledger: Ledger) -> None:
    ledger.store.delays_s = [WRITE_WINDOW_S + 0.1]
    request = ledger.request()

    assert reasons(await ledger.send(request)) == ["stored"]

    assert await ledger.inbox(BOB) == [request.message_id] * 2
    assert len(ledger.dispatcher.hints) == 1


async def test_a_store_that_is_always_too_slow_gets_retryable_refusals(ledger: Ledger) -> None:
    ledger.store.delays_s = [WRITE_WINDOW_S + 0.1] * 3

    (answer,) = await ledger.send(ledger.request())

    assert isinstance(answer, Refused)
    assert (answer.reason, answer.is_retryable) == ("DEPENDENCY_UNAVAILABLE", True)


async def test_an_unknown_outcome_is_never_acknowledged_and_the_retry_completes_it(ledger: Ledger) -> None:
    ledger.store.failures = 1
    request = ledger.request()

    (answer,) = await ledger.send(request)
    assert isinstance(answer, Refused)
    assert answer.is_retryable
    assert ledger.dispatcher.hints == []

    assert reasons(await ledger.send(request._replace(attempt=2))) == ["stored"]
    assert set(await ledger.inbox(BOB)) == {request.message_id}


@pytest.mark.parametrize("seconds", [-30.0, 3600.0])
async def test_a_clock_that_steps_during_a_look_judges_nobodys(ledger: Ledger, seconds: float) -> None:
    ledger.store.step_s = seconds

    (answer,) = await ledger.send(ledger.request(attempt=2))

    assert isinstance(answer, Refused)
    assert (answer.reason, answer.is_retryable) == ("CLOCK_UNTRUSTED", True)


async def test_nothing_is_accepted_while_the_clock_cannot_be_trusted(ledger: Ledger) -> None:
    ledger.clock.step_s(3600)

    (answer,) = await ledger.send(ledger.request())

    assert isinstance(answer, Refused)
    assert (answer.reason, answer.is_retryable) == ("CLOCK_UNTRUSTED", True)


async def test_who_cannot_be_asked_about_makes_the_send_retryable(ledger: Ledger) -> None:
    ledger.directory.copies.clear()
    ledger.directory.is_down = True

    (answer,) = await ledger.send(ledger.request())

    assert isinstance(answer, Refused)
    assert (answer.reason, answer.is_retryable) == ("DEPENDENCY_UNAVAILABLE", True)
    assert await ledger.inbox(BOB) == []


async def test_who_has_one_device_is_not_told_of_what_it_did(ledger: Ledger) -> None:
    ledger.directory.copies[ALICE] = ledger.directory.copies[ALICE]._replace(device_ids=frozenset({1}))

    await ledger.send(ledger.request(1), ledger.request(2, to=ALICE))

    assert [hint.user_ids for hint in ledger.dispatcher.hints] == [(BOB,)]


async def test_who_is_not_known_by_heart_is_told_to_be_sure(ledger: Ledger) -> None:
    del ledger.directory.copies[ALICE]

    await ledger.send(ledger.request())

    assert [set(hint.user_ids) for hint in ledger.dispatcher.hints] == [{ALICE, BOB}]


async def test_a_retry_of_what_was_declared_void_is_refused_by_the_look_up(ledger: Ledger) -> None:
    request = ledger.request(age_ms=FIRST_ACCEPT_AGE_MS + 1, attempt=2)
    await ledger.send(request)

    assert reasons(await ledger.send(request._replace(attempt=3))) == ["STALE_MESSAGE_ID"]


async def test_a_message_that_commits_while_it_is_declared_void_is_acknowledged(ledger: Ledger) -> None:
    first = ledger.request()
    await ledger.send(first)
    ledger.clock.pass_s(FIRST_ACCEPT_AGE_MS / 1000 + 1)
    never = ledger.request(2, age_ms=FIRST_ACCEPT_AGE_MS + 1, attempt=2)
    ledger.store.is_blind = True

    answers = await ledger.send(first._replace(attempt=2), never)

    assert reasons(answers) == ["stored", "STALE_MESSAGE_ID"]


async def test_a_conflict_is_final_however_slow_the_store_was(ledger: Ledger) -> None:
    request = ledger.request(text=b"first")
    await ledger.send(request)
    ledger.store.delays_s = [WRITE_WINDOW_S + 1]

    (answer,) = await ledger.send(request._replace(action=SendMessage(BOB, b"second")))

    assert reasons([answer]) == ["DUPLICATE_CONFLICT"]
    assert await ledger.inbox(BOB) == [request.message_id]


async def test_conversations_beyond_the_capacity_are_derived_again(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(accept, "_CONVERSATIONS_KEPT", 1)

    answers = await ledger.send(ledger.request(1), ledger.request(2, to=ALICE), ledger.request(3))

    first, own, third = (answer.conversation_id for answer in answers if isinstance(answer, Stored))
    assert first == third != own


async def test_nothing_is_looked_up_while_the_clock_cannot_be_trusted(ledger: Ledger) -> None:
    request = ledger.request(attempt=2)
    ledger.clock.step_s(3600)

    (answer,) = await ledger.accepting.accept_after_looking([request])

    assert reasons([answer]) == ["CLOCK_UNTRUSTED"]
