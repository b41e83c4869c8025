"""What may be done to messages, what is refused, and what a retry gets, by the rules over a store in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chappe.runtime.errors import UnavailableError
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.adapters.message_store_memory.acting import MemoryActionStore
from svc_message.model import (
    NO_POSITION,
    Answer,
    DeviceId,
    Event,
    InboxRead,
    MessageEvent,
    MessageId,
    PageRead,
    Refused,
    SendMessage,
    SendRequest,
    Stored,
    StoredMessage,
    UserId,
)
from svc_message.model.action import ActionKind, EditEvent, ReactionEvent, RevokeEvent, SendAction
from svc_message.protocol import FIRST_ACCEPT_AGE_MS, FUTURE_BOUND_MS, WRITE_WINDOW_S, LedgerClock, direct_conversation
from svc_message.service.accept import Accepting
from svc_message.service.act import Windows
from svc_message.service.act_direct import acting_directly
from tests.svc_message.fakes import FakeDirectory, FakeDispatcher, ManualClock, message_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.model.action import Acted, ActionRef, NewAction, Sight

EDIT, REVOKE, HIDE, REACTION = ActionKind
ALICE, BOB, CAROL = (UserId(name * 16) for name in (b"A", b"B", b"C"))
WINDOWS = Windows(edit_s=900, revoke_s=3600)


class SlowActions(MemoryActionStore):
    """A store that lets time pass after its writes, or fails after them."""

    clock: ManualClock
    delays_s: list[float]
    failures = 0
    is_blind = False

    step_s = 0.0

    async def sight(self, refs: Sequence[ActionRef]) -> list[Sight]:
        self.clock.step_s(self.step_s)
        sights = await super().sight(refs)
        return [sight._replace(earlier=None) for sight in sights] if self.is_blind else sights

    async def act(self, batch: Sequence[NewAction]) -> list[Acted]:
        answers = await super().act(batch)
        if self.delays_s:
            self.clock.pass_s(self.delays_s.pop(0))
        if self.failures:
            self.failures -= 1
            raise UnavailableError("store", "the outcome is unknown")
        return answers


class Ledger:
    """The acting rules with everything around them faked, and a way to write messages."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryMessageStore(self.clock)
        self.actions = SlowActions(self.store.book)
        self.actions.clock, self.actions.delays_s = self.clock, []
        self.directory = FakeDirectory()
        self.directory.add(ALICE, BOB, CAROL)
        self.dispatcher = FakeDispatcher()
        ledger_clock = LedgerClock(self.clock, bytes(8))
        self.accepting = Accepting(self.store, self.directory, self.dispatcher, ledger_clock)
        self.acting = acting_directly(self.actions, self.directory, self.dispatcher, ledger_clock, WINDOWS)
        self._number = 0

    async def say(self, text: bytes = b"hi", *, sender: UserId = ALICE, to: UserId = BOB) -> MessageId:
        """Sends a message, and forgets its hint."""
        request = SendRequest(sender, DeviceId(1), self.new_id(sender), 1, SendMessage(to, text))
        first = await self.accepting.accept([request])
        answers = first if first[0] is not None else await self.accepting.accept_after_looking([request])
        assert isinstance(answers[0], Stored)
        self.dispatcher.hints.clear()
        return request.message_id

    def request(
        self,
        kind: ActionKind,
        target: MessageId,
        envelope: bytes = b"",
        *,
        user: UserId = ALICE,
        peer: UserId = BOB,
        age_ms: int = 0,
    ) -> SendRequest:
        """Builds the first attempt of an action."""
        action = SendAction(kind, peer, target, envelope)
        return SendRequest(user, DeviceId(1), self.new_id(user, age_ms), 1, action)

    def new_id(self, user: UserId, age_ms: int = 0) -> MessageId:
        self._number += 1
        return message_id(user, 1, self.clock.wall_ms() - age_ms, self._number)

    async def do(self, *requests: SendRequest) -> list[Answer]:
        """Submits actions as one batch."""
        return await self.acting.act(requests)

    async def inbox(self, user_id: UserId) -> list[Event]:
        """Returns what is in an inbox beside messages."""
        (page,) = await self.store.read_inbox([InboxRead(user_id, NO_POSITION, 500)])
        return [event for event in page.events if not isinstance(event, MessageEvent)]

    async def page(self, owner: UserId, peer: UserId) -> list[StoredMessage]:
        """Returns a chat as its owner sees it."""
        return await self.store.read_page(PageRead(owner, direct_conversation(owner, peer), b"", b"", 100))


@pytest.fixture
def ledger() -> Ledger:
    """Returns a ledger that knows Alice, Bob and Carol."""
    return Ledger()


def reasons(answers: Sequence[Answer]) -> list[str]:
    """Returns the reason of every refusal, empty for what was stored."""
    return [answer.reason if isinstance(answer, Refused) else "" for answer in answers]


async def test_an_edit_is_in_both_inboxes_and_hinted_before_it_is_answered(ledger: Ledger) -> None:
    target = await ledger.say()

    answers = await ledger.do(ledger.request(EDIT, target, b"edited"))

    assert answers == [Stored(ledger.clock.wall_ms(), direct_conversation(ALICE, BOB), is_duplicate=False)]
    for user in (ALICE, BOB):
        (event,) = await ledger.inbox(user)
        assert isinstance(event, EditEvent)
        assert (event.message_id, event.user_id, event.envelope) == (target, ALICE, b"edited")
    (hint,) = ledger.dispatcher.hints
    assert (hint.event, hint.user_ids) == (event, (BOB, ALICE))
    assert (hint.origin_device_id, hint.wants_receipt) == (1, False)


async def test_both_may_react_and_both_may_hide(ledger: Ledger) -> None:
    target = await ledger.say()

    answers = await ledger.do(
        ledger.request(REACTION, target, b":)", user=BOB, peer=ALICE),
        ledger.request(REACTION, target, b":D"),
        ledger.request(HIDE, target, user=BOB, peer=ALICE),
    )

    assert reasons(answers) == ["", "", ""]
    (stored,) = await ledger.page(ALICE, BOB)
    assert {reaction.envelope for reaction in stored.reactions} == {b":)", b":D"}
    assert await ledger.page(BOB, ALICE) == []
    assert {type(event) for event in await ledger.inbox(ALICE)} == {ReactionEvent}
    assert [hint.user_ids for hint in ledger.dispatcher.hints] == [(ALICE, BOB), (BOB, ALICE), (BOB,)]


async def test_who_has_one_device_is_not_told_of_what_it_did(ledger: Ledger) -> None:
    target = await ledger.say()
    user = ledger.directory.truth[ALICE]._replace(device_ids=frozenset({1}))
    ledger.directory.copies[ALICE] = user

    await ledger.do(ledger.request(EDIT, target, b"edited"), ledger.request(HIDE, target))

    assert [hint.user_ids for hint in ledger.dispatcher.hints] == [(BOB,)]


@pytest.mark.parametrize("kind", [EDIT, REVOKE])
async def test_only_the_sender_may_change_a_message_for_everyone(ledger: Ledger, kind: ActionKind) -> None:
    target = await ledger.say(b"hers")

    answers = await ledger.do(ledger.request(kind, target, b"his", user=BOB, peer=ALICE))

    assert reasons(answers) == ["NOT_OWN_MESSAGE"]
    assert (await ledger.page(BOB, ALICE))[0].message.envelope == b"hers"


@pytest.mark.parametrize(("kind", "window_s"), [(EDIT, WINDOWS.edit_s), (REVOKE, WINDOWS.revoke_s)])
async def test_a_message_may_be_changed_within_its_window_and_not_after(
    ledger: Ledger, kind: ActionKind, window_s: float
) -> None:
    target = await ledger.say()
    ledger.clock.pass_s(window_s)

    in_time = await ledger.do(ledger.request(kind, target, b"in time"))
    ledger.clock.pass_s(0.001)
    late = await ledger.do(ledger.request(kind, target, b"late"))

    assert reasons([*in_time, *late]) == ["", "TOO_LATE"]


@pytest.mark.parametrize("kind", [HIDE, REACTION])
async def test_other_things_may_be_done_at_any_time(ledger: Ledger, kind: ActionKind) -> None:
    target = await ledger.say()
    ledger.clock.pass_s(400 * 24 * 3600)

    assert reasons(await ledger.do(ledger.request(kind, target))) == [""]


@pytest.mark.parametrize("kind", list(ActionKind))
async def test_a_message_that_is_not_in_the_conversation_is_not_found(ledger: Ledger, kind: ActionKind) -> None:
    target = await ledger.say()
    of_others = await ledger.say(sender=ALICE, to=CAROL)
    unknown = ledger.new_id(ALICE)

    answers = await ledger.do(
        ledger.request(kind, unknown, b"?"),
        ledger.request(kind, of_others, b"?"),
        ledger.request(kind, target, b"?", user=CAROL, peer=ALICE),
        ledger.request(kind, target, b"?", user=CAROL, peer=BOB),
        ledger.request(kind, target, b"?", peer=UserId(b"?" * 16)),
    )

    assert reasons(answers) == ["MESSAGE_NOT_FOUND"] * 5
    assert ledger.dispatcher.hints == []


@pytest.mark.parametrize(
    ("kind", "reason"), [(EDIT, "MESSAGE_NOT_FOUND"), (REACTION, "MESSAGE_NOT_FOUND"), (REVOKE, ""), (HIDE, "")]
)
async def test_what_was_hidden_may_be_taken_back_and_nothing_else(
    ledger: Ledger, kind: ActionKind, reason: str
) -> None:
    target = await ledger.say()
    await ledger.do(ledger.request(HIDE, target))

    assert reasons(await ledger.do(ledger.request(kind, target, b"?"))) == [reason]


@pytest.mark.parametrize("kind", list(ActionKind))
async def test_a_retry_is_acknowledged_whatever_has_changed_since(ledger: Ledger, kind: ActionKind) -> None:
    target = await ledger.say()
    request = ledger.request(kind, target, b"new")
    first = await ledger.do(request)
    ledger.clock.pass_s(10 * 24 * 3600)
    ledger.directory.block(BOB, ALICE)
    await ledger.do(ledger.request(HIDE, target))

    for attempt in (1, 2, 3):
        answers = await ledger.do(request._replace(attempt=attempt))

        assert isinstance(first[0], Stored)
        assert answers == [first[0]._replace(is_duplicate=True)]


async def test_a_retry_of_a_found_action_needs_no_directory(ledger: Ledger) -> None:
    target = await ledger.say()
    request = ledger.request(EDIT, target, b"new")
    await ledger.do(request)
    ledger.directory.copies.clear()
    reads = ledger.directory.reads

    answers = await ledger.do(request._replace(attempt=2))

    assert reasons(answers) == [""]
    assert ledger.directory.reads == reads


async def test_an_edit_that_is_not_the_newest_any_more_is_not_hinted_again(ledger: Ledger) -> None:
    target = await ledger.say()
    old, new = ledger.request(EDIT, target, b"old"), ledger.request(EDIT, target, b"new")
    await ledger.do(old)
    await ledger.do(new)
    ledger.dispatcher.hints.clear()

    await ledger.do(old._replace(attempt=2))

    assert ledger.dispatcher.hints == []


@pytest.mark.parametrize("attempt", [1, 2])
async def test_the_same_id_with_other_content_is_a_conflict(ledger: Ledger, attempt: int) -> None:
    target, other = await ledger.say(), await ledger.say()
    request = ledger.request(EDIT, target, b"first")
    await ledger.do(request)

    answers = await ledger.do(
        *(
            request._replace(attempt=attempt, action=SendAction(kind, BOB, message, content))
            for kind, message, content in (
                (EDIT, target, b"other"),
                (EDIT, other, b"first"),
                (REACTION, target, b"first"),
            )
        )
    )

    assert reasons(answers) == ["DUPLICATE_CONFLICT"] * 3


async def test_one_id_twice_in_a_batch_is_carried_out_once(ledger: Ledger) -> None:
    target = await ledger.say()
    request = ledger.request(EDIT, target, b"edited")

    answers = await ledger.do(request, request._replace(attempt=2), request._replace(attempt=3))

    assert [isinstance(answer, Stored) and answer.is_duplicate for answer in answers] == [False, True, True]
    assert len({type(event) for event in await ledger.inbox(BOB)}) == 1


@pytest.mark.parametrize("attempt", [1, 2])
@pytest.mark.parametrize(
    ("age_ms", "reason"), [(FIRST_ACCEPT_AGE_MS + 1, "STALE_MESSAGE_ID"), (-FUTURE_BOUND_MS - 1, "CLOCK_SKEW")]
)
async def test_ids_of_another_time_are_refused(ledger: Ledger, age_ms: int, reason: str, attempt: int) -> None:
    target = await ledger.say()
    request = ledger.request(EDIT, target, b"?", age_ms=age_ms)

    assert reasons(await ledger.do(request._replace(attempt=attempt))) == [reason]


async def test_an_id_of_another_device_is_refused(ledger: Ledger) -> None:
    target = await ledger.say()
    request = ledger.request(EDIT, target, b"?")._replace(message_id=ledger.new_id(BOB))

    assert reasons(await ledger.do(request)) == ["INVALID_MESSAGE_ID"]


async def test_a_refused_retry_can_never_be_carried_out(ledger: Ledger) -> None:
    target = await ledger.say()
    request = ledger.request(EDIT, target, b"late")
    ledger.clock.pass_s(FIRST_ACCEPT_AGE_MS / 1000 + 1)

    refused = await ledger.do(request._replace(attempt=2))
    ledger.clock.step_s(-FIRST_ACCEPT_AGE_MS / 1000)
    ledger.acting._clock.compare(ledger.clock.wall_ms())
    again = await ledger.do(request)

    assert reasons([*refused, *again]) == ["STALE_MESSAGE_ID", "STALE_MESSAGE_ID"]


async def test_a_retry_that_was_there_after_all_is_not_refused(ledger: Ledger) -> None:
    target = await ledger.say()
    request = ledger.request(EDIT, target, b"edited")
    await ledger.do(request)
    ledger.clock.pass_s(WINDOWS.edit_s + 1)
    ledger.actions.is_blind = True

    answers = await ledger.do(request._replace(attempt=2))

    assert reasons(answers) == [""]


async def test_what_a_blocked_person_does_looks_accepted_and_reaches_nobody(ledger: Ledger) -> None:
    target = await ledger.say(b"before")
    ledger.directory.block(BOB, ALICE)

    answers = await ledger.do(
        ledger.request(EDIT, target, b"after"),
        ledger.request(REACTION, target, b":("),
        ledger.request(REVOKE, target),
    )

    assert reasons(answers) == ["", "", ""]
    assert await ledger.inbox(BOB) == []
    assert [hint.user_ids for hint in ledger.dispatcher.hints] == [(ALICE,)]
    (stored,) = await ledger.page(BOB, ALICE)
    assert (stored.message.envelope, stored.message.revoked_ms, stored.reactions) == (b"before", 0, ())
    assert (await ledger.page(ALICE, BOB))[0].message.revoked_ms > 0
    assert [type(event) for event in await ledger.inbox(ALICE)] == [RevokeEvent]


async def test_an_old_no_is_read_through_before_anything_is_withheld(ledger: Ledger) -> None:
    target = await ledger.say()
    ledger.directory.block(BOB, ALICE)
    ledger.directory.unblock(BOB, ALICE)

    await ledger.do(ledger.request(EDIT, target, b"after"))

    assert (await ledger.page(BOB, ALICE))[0].message.envelope == b"after"


async def test_what_is_done_to_a_message_that_was_withheld_reaches_nobody_and_leaves_nothing(ledger: Ledger) -> None:
    ledger.directory.block(BOB, ALICE)
    target = await ledger.say(b"unheard")
    ledger.directory.unblock(BOB, ALICE)
    ledger.directory.copies[BOB] = ledger.directory.truth[BOB]

    answers = await ledger.do(ledger.request(EDIT, target, b"still"), ledger.request(REVOKE, target))

    assert reasons(answers) == ["", ""]
    assert await ledger.inbox(BOB) == []
    assert reasons(await ledger.do(ledger.request(REACTION, target, b"?", user=BOB, peer=ALICE))) == [
        "MESSAGE_NOT_FOUND"
    ]
    assert (await ledger.page(ALICE, BOB))[0].message.envelope == b""


async def test_a_retry_tells_nobody_of_what_reached_nobody(ledger: Ledger) -> None:
    ledger.directory.block(BOB, ALICE)
    target = await ledger.say(b"unheard")
    ledger.directory.unblock(BOB, ALICE)
    ledger.directory.copies[BOB] = ledger.directory.truth[BOB]
    edit = ledger.request(EDIT, target, b"still")
    await ledger.do(edit)

    await ledger.do(edit._replace(attempt=2))

    assert [hint.user_ids for hint in ledger.dispatcher.hints] == [(ALICE,), (ALICE,)]
    assert await ledger.inbox(BOB) == []


async def test_notes_to_oneself_are_edited_once(ledger: Ledger) -> None:
    target = await ledger.say(b"note", to=ALICE)

    await ledger.do(ledger.request(EDIT, target, b"edited", peer=ALICE))

    assert len(await ledger.inbox(ALICE)) == 1
    assert [hint.user_ids for hint in ledger.dispatcher.hints] == [(ALICE,)]


async def test_a_write_that_was_too_slow_is_repeated_under_a_fresh_position(ledger: Ledger) -> None:
    target = await ledger.say()
    ledger.actions.delays_s = [WRITE_WINDOW_S + 1]

    answers = await ledger.do(ledger.request(EDIT, target, b"edited"))

    assert isinstance(answers[0], Stored)
    assert not answers[0].is_duplicate
    assert len(await ledger.inbox(BOB)) == 2
    assert len(ledger.dispatcher.hints) == 1


async def test_a_store_that_stays_too_slow_is_answered_for_as_retryable(ledger: Ledger) -> None:
    target = await ledger.say()
    ledger.actions.delays_s = [WRITE_WINDOW_S + 1] * 3

    (answer,) = await ledger.do(ledger.request(EDIT, target, b"edited"))

    assert isinstance(answer, Refused)
    assert (answer.reason, answer.is_retryable) == ("DEPENDENCY_UNAVAILABLE", True)


async def test_an_unknown_outcome_is_answered_as_retryable_and_completed_later(ledger: Ledger) -> None:
    target = await ledger.say()
    ledger.actions.failures = 1
    request = ledger.request(EDIT, target, b"edited")

    (first,) = await ledger.do(request)
    (second,) = await ledger.do(request._replace(attempt=2))

    assert isinstance(first, Refused)
    assert (first.reason, first.is_retryable) == ("DEPENDENCY_UNAVAILABLE", True)
    assert isinstance(second, Stored)


async def test_a_clock_that_steps_during_a_look_judges_nobodys(ledger: Ledger) -> None:
    target = await ledger.say()
    ledger.actions.step_s = -30.0

    assert reasons(await ledger.do(ledger.request(EDIT, target, b"edited"))) == ["CLOCK_UNTRUSTED"]


async def test_nothing_is_carried_out_while_the_clock_is_not_trusted(ledger: Ledger) -> None:
    target = await ledger.say()
    ledger.clock.step_s(60)

    assert reasons(await ledger.do(ledger.request(EDIT, target, b"edited"))) == ["CLOCK_UNTRUSTED"]
