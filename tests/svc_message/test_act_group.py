"""What may be done to messages of groups, and who learns of it, by the rules over a store in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chappe.runtime.errors import UnavailableError
from svc_message.adapters.group_store_memory import MemoryGroupStore
from svc_message.adapters.journal_memory import MemoryJournal
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.model import (
    Answer,
    DeviceId,
    MessageId,
    PageRead,
    Refused,
    SendGroupMessage,
    SendRequest,
    Stored,
    UserId,
)
from svc_message.model.action import ActionKind, EditEvent, ReactionEvent, RevokeEvent, SendGroupAction
from svc_message.model.group import Window
from svc_message.protocol import WRITE_WINDOW_S, LedgerClock, milliseconds_of
from svc_message.service.accept_group import GroupAccepting, Stores
from svc_message.service.act import Acting, Windows
from svc_message.service.act_group import GroupActionRules, Groups, Ways
from svc_message.service.sight import Sight
from tests.svc_message.desk import inbox
from tests.svc_message.fakes import FakeDispatcher, FakeExpander, FakeGroupDirectory, ManualClock, message_id
from tests.svc_message.group_desk import group_of
from tests.svc_message.test_accept_group import ALICE, BOB, CAROL, EVE, GROUP, SHARD

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.model.action import Acted, NewAction
    from svc_message.model.group import Shard

EDIT, REVOKE, HIDE, REACTION = ActionKind
WINDOWS = Windows(edit_s=900, revoke_s=3600)


class SlowGroupStore(MemoryGroupStore):
    """A store that lets time pass after its writes, or fails after them."""

    clock: ManualClock
    delays_s: list[float]
    failures = 0

    async def act(self, shard: Shard, batch: Sequence[NewAction]) -> list[Acted]:
        answers = await super().act(shard, batch)
        if self.delays_s:
            self.clock.pass_s(self.delays_s.pop(0))
        if self.failures:
            self.failures -= 1
            raise UnavailableError("store", "the outcome is unknown")
        return answers


class GroupLedger:
    """The acting rules for groups with everything around them faked; Bob owns the group, Alice and Carol are in."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryMessageStore(self.clock)
        self.groups = SlowGroupStore(self.store, MemoryJournal(self.clock))
        self.groups.clock, self.groups.delays_s = self.clock, []
        self.directory = FakeGroupDirectory()
        self.directory.add(group_of(GROUP, BOB, ALICE, CAROL, version=5))
        self.expander, self.dispatcher = FakeExpander(), FakeDispatcher()
        ledger_clock = LedgerClock(self.clock, bytes(8))
        stores = Stores(self.store, self.groups)
        self.accepting = GroupAccepting(stores, self.directory, ledger_clock, FakeExpander(), SHARD)
        ways = Ways(self.expander, SHARD, self.dispatcher)
        groups = Groups(self.directory, Sight(self.directory))
        rules = GroupActionRules(self.groups, groups, ways, ledger_clock, WINDOWS)
        self.acting = Acting(self.store.actions, rules, ledger_clock)
        self._number = 0

    def new_id(self, user: UserId) -> MessageId:
        self._number += 1
        return message_id(user, 1, self.clock.wall_ms(), self._number)

    async def say(self, text: bytes = b"hi", sender: UserId = ALICE) -> MessageId:
        """Sends a message to the group."""
        request = SendRequest(sender, DeviceId(1), self.new_id(sender), 1, SendGroupMessage(GROUP, text, 0))
        (answer,) = await self.accepting.accept([request])
        assert isinstance(answer, Stored)
        return request.message_id

    def request(
        self, kind: ActionKind, target: MessageId, envelope: bytes = b"", *, user: UserId = ALICE
    ) -> SendRequest:
        """Builds the first attempt of an action."""
        action = SendGroupAction(kind, GROUP, target, envelope)
        return SendRequest(user, DeviceId(1), self.new_id(user), 1, action)

    async def do(self, *requests: SendRequest) -> list[Answer]:
        """Submits actions as one batch."""
        return await self.acting.act(requests)

    def told(self) -> list[tuple[type, bytes, int]]:
        """Returns what the expander was given: events, who caused them, versions."""
        return [(type(entry.event), entry.causer_id, entry.members_version) for entry in self.expander.entries]


@pytest.fixture
def ledger() -> GroupLedger:
    """Returns a ledger with the group."""
    return GroupLedger()


def reasons(answers: Sequence[Answer]) -> list[str]:
    """Returns the reason of every refusal, empty for what was stored."""
    return [answer.reason if isinstance(answer, Refused) else "" for answer in answers]


async def test_what_is_done_is_promised_and_handed_to_the_expander(ledger: GroupLedger) -> None:
    target = await ledger.say()
    edit, reaction = ledger.request(EDIT, target, b"new"), ledger.request(REACTION, target, b"+1", user=BOB)

    answers = await ledger.do(edit, reaction, ledger.request(REVOKE, target))

    now_ms = ledger.clock.wall_ms()
    assert answers == [Stored(now_ms, GROUP, is_duplicate=False)] * 3
    # An edit and a reaction do not stand once the message was taken back: no content of theirs is told.
    assert ledger.told() == [(RevokeEvent, ALICE, 5)]
    assert set(ledger.expander.begun) == {entry.position for entry in ledger.expander.entries}
    assert ledger.dispatcher.hints == []


async def test_members_are_told_of_everything_with_the_version_of_the_message(ledger: GroupLedger) -> None:
    target = await ledger.say()
    ledger.directory.add(group_of(GROUP, BOB, ALICE, CAROL, EVE, version=9))

    await ledger.do(ledger.request(EDIT, target, b"new"), ledger.request(REACTION, target, b"+1", user=BOB))

    assert ledger.told() == [(EditEvent, ALICE, 5), (ReactionEvent, BOB, 5)]


async def test_only_the_sender_edits_and_admins_take_back_what_anybody_wrote(ledger: GroupLedger) -> None:
    target, admins = await ledger.say(), await ledger.say(sender=BOB)

    answers = await ledger.do(
        ledger.request(EDIT, target, b"?", user=BOB),
        ledger.request(REVOKE, target, user=CAROL),
        ledger.request(REVOKE, admins, user=CAROL),
        ledger.request(REVOKE, target, user=BOB),
    )

    assert reasons(answers) == ["NOT_OWN_MESSAGE"] * 3 + [""]


async def test_where_only_admins_write_nobody_else_edits(ledger: GroupLedger) -> None:
    target, admins = await ledger.say(), await ledger.say(sender=BOB)
    quiet = ledger.directory.truth[GROUP]._replace(is_announcement_only=True)
    ledger.directory.add(quiet)

    answers = await ledger.do(
        ledger.request(EDIT, target, b"what only admins may say"),
        ledger.request(EDIT, admins, b"new", user=BOB),
        ledger.request(REACTION, admins, b"+1"),
        ledger.request(REVOKE, target),
    )

    assert reasons(answers) == ["ROLE_REQUIRED", "", "", ""]


async def test_an_old_word_that_only_admins_write_is_read_through(ledger: GroupLedger) -> None:
    target = await ledger.say()
    truth = ledger.directory.truth[GROUP]
    ledger.directory.copies[GROUP] = truth._replace(is_announcement_only=True)

    assert reasons(await ledger.do(ledger.request(EDIT, target, b"new"))) == [""]


@pytest.mark.parametrize("user", [ALICE, BOB], ids=["the sender", "an admin"])
@pytest.mark.parametrize(("kind", "window_s"), [(EDIT, WINDOWS.edit_s), (REVOKE, WINDOWS.revoke_s)])
async def test_windows_hold_for_everybody(ledger: GroupLedger, kind: ActionKind, window_s: float, user: UserId) -> None:
    target = await ledger.say(sender=user)
    ledger.clock.pass_s(window_s)

    in_time = await ledger.do(ledger.request(kind, target, b"in time", user=user))
    ledger.clock.pass_s(0.001)
    late = await ledger.do(ledger.request(kind, target, b"late", user=user))

    assert reasons([*in_time, *late]) == ["", "TOO_LATE"]


async def test_who_joined_later_finds_nothing_to_act_on(ledger: GroupLedger) -> None:
    target = await ledger.say()
    group = group_of(GROUP, BOB, ALICE, CAROL, EVE, version=9)
    at = group.place(EVE)
    joined = tuple(9 if place == at else 1 for place in range(4))
    ledger.directory.add(group._replace(joined_versions=joined, latest_join=9))

    answers = await ledger.do(*(ledger.request(kind, target, b"?", user=EVE) for kind in ActionKind))

    assert reasons(answers) == ["MESSAGE_NOT_FOUND"] * 4


async def test_who_has_left_hides_what_it_has_and_does_nothing_else(ledger: GroupLedger) -> None:
    target, own = await ledger.say(), await ledger.say(sender=CAROL)
    ledger.directory.add(group_of(GROUP, BOB, ALICE, version=6))
    ledger.directory.past[GROUP, CAROL] = (Window(1, 6),)

    answers = await ledger.do(
        ledger.request(REACTION, target, b"+1", user=CAROL),
        ledger.request(EDIT, own, b"new", user=CAROL),
        ledger.request(REVOKE, own, user=CAROL),
        ledger.request(HIDE, own, user=CAROL),
    )

    assert reasons(answers) == ["NOT_IN_CONVERSATION"] * 3 + [""]


async def test_strangers_cannot_tell_a_group_from_none(ledger: GroupLedger) -> None:
    target = await ledger.say()
    nowhere = ledger.request(REACTION, ledger.new_id(ALICE), b"+1", user=EVE)

    answers = await ledger.do(ledger.request(REACTION, target, b"+1", user=EVE), nowhere)

    assert answers[0] == answers[1]
    assert reasons(answers) == ["MESSAGE_NOT_FOUND"] * 2


async def test_a_no_of_a_copy_is_read_through(ledger: GroupLedger) -> None:
    target = await ledger.say()
    await ledger.do(ledger.request(REACTION, target, b"+1", user=CAROL))
    ledger.directory.change(group_of(GROUP, CAROL, BOB, ALICE, version=6))

    answers = await ledger.do(ledger.request(REVOKE, target, user=CAROL))

    assert reasons(answers) == [""]


async def test_what_a_member_hides_its_other_devices_hear_and_nobody_else(ledger: GroupLedger) -> None:
    target = await ledger.say()

    answers = await ledger.do(ledger.request(HIDE, target, user=BOB))

    assert reasons(answers) == [""]
    assert ledger.expander.entries == []
    assert ledger.expander.begun == {}
    (hint,) = ledger.dispatcher.hints
    assert (hint.user_ids, hint.origin_device_id, hint.wants_receipt) == ((BOB,), 1, False)
    assert await inbox(ledger.store, BOB) == [hint.event]
    assert reasons(await ledger.do(ledger.request(REACTION, target, b"+1", user=BOB))) == ["MESSAGE_NOT_FOUND"]


async def test_a_retry_is_completed_whatever_has_changed_since(ledger: GroupLedger) -> None:
    target = await ledger.say()
    edit = ledger.request(EDIT, target, b"new")
    (first,) = await ledger.do(edit)
    assert isinstance(first, Stored)
    ledger.directory.add(group_of(GROUP, BOB, CAROL, version=6))
    ledger.clock.pass_s(100_000)

    (again,) = await ledger.do(edit._replace(attempt=2))
    (other,) = await ledger.do(edit._replace(attempt=2, action=SendGroupAction(EDIT, GROUP, target, b"?")))

    assert again == first._replace(is_duplicate=True)
    assert reasons([other]) == ["DUPLICATE_CONFLICT"]
    assert ledger.told() == [(EditEvent, ALICE, 5)] * 2


async def test_an_unknown_outcome_is_never_acknowledged_and_promises_nothing(ledger: GroupLedger) -> None:
    target = await ledger.say()
    edit = ledger.request(EDIT, target, b"new")
    ledger.groups.failures = 1

    unknown = await ledger.do(edit)
    begun = dict(ledger.expander.begun)
    answers = await ledger.do(edit._replace(attempt=2))

    assert reasons(unknown) == ["DEPENDENCY_UNAVAILABLE"]
    assert begun == {}
    assert reasons(answers) == [""]
    assert ledger.told() == [(EditEvent, ALICE, 5)]


async def test_a_write_that_took_too_long_is_written_again_before_it_is_acknowledged(ledger: GroupLedger) -> None:
    target = await ledger.say()
    ledger.groups.delays_s = [WRITE_WINDOW_S + 0.1]

    answers = await ledger.do(ledger.request(EDIT, target, b"new"))

    assert reasons(answers) == [""]
    (entry,) = ledger.expander.entries
    assert list(ledger.expander.begun) == [entry.position]
    assert milliseconds_of(entry.position) == ledger.clock.wall_ms()


async def test_nothing_is_taken_while_too_much_waits_for_members(ledger: GroupLedger) -> None:
    target = await ledger.say()
    ledger.expander.is_full = True

    (answer,) = await ledger.do(ledger.request(EDIT, target, b"new"))

    assert isinstance(answer, Refused)
    assert answer.is_retryable


async def test_an_action_is_done_in_the_version_that_is_known(ledger: GroupLedger) -> None:
    target = await ledger.say()
    ledger.directory.add(group_of(GROUP, BOB, ALICE, version=7))
    await ledger.do(ledger.request(EDIT, target, b"later"))

    (seen,) = await ledger.groups.read_page(PageRead(CAROL, GROUP, b"", b"", 10), (Window(1, 7),))
    (stood,) = await ledger.groups.read_page(PageRead(BOB, GROUP, b"", b"", 10), (Window(1, 0),))

    assert (seen.message.envelope, stood.message.envelope) == (b"hi", b"later")


async def test_an_action_that_was_read_through_for_is_done_in_the_version_that_was_read(ledger: GroupLedger) -> None:
    target = await ledger.say(sender=CAROL)
    ledger.directory.add(group_of(GROUP, BOB, ALICE, version=6))
    ledger.directory.past[GROUP, CAROL] = (Window(1, 6),)
    ledger.directory.change(group_of(GROUP, BOB, ALICE, CAROL, version=7))
    assert reasons(await ledger.do(ledger.request(EDIT, target, b"later", user=CAROL))) == [""]

    (seen,) = await ledger.groups.read_page(PageRead(ALICE, GROUP, b"", b"", 10), (Window(1, 7),))

    assert seen.message.envelope == b"hi"
