"""Whom an entry reaches, in which rows, and what happens when a store is slow or a directory behind."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chappe.runtime.errors import UnavailableError
from svc_message.adapters.group_store_memory import MemoryGroupStore
from svc_message.adapters.group_store_postgres.expanding import Touches
from svc_message.adapters.journal_memory import MemoryJournal
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.model import DeviceId, MessageEvent, UserId
from svc_message.model.action import ActionKind, event_of
from svc_message.model.group import Entry, Window
from svc_message.protocol import WRITE_WINDOW_S, LedgerClock
from svc_message.service import expand
from svc_message.service.expand import MAX_ROWS, MAX_SHARED, Expanding
from tests.svc_message.desk import START_MS, inbox, stranger
from tests.svc_message.fakes import FakeDispatcher, FakeGroupDirectory, ManualClock
from tests.svc_message.group_desk import GroupDesk, entry_of, group_of

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from svc_message.model import Position
    from svc_message.model.group import DirectoryGroup, Expansion, NewGroupMessage, Touch


class WatchedGroupStore(MemoryGroupStore):
    """A store that writes down its calls, lets time pass, and fails at those it is told."""

    def __init__(self, store: MemoryMessageStore, clock: ManualClock) -> None:
        super().__init__(store, MemoryJournal(clock))
        self.clock = clock
        self.calls: list[Sequence[Expansion]] = []
        self.touched: list[Touch] = []
        self.delays_s: list[float] = []
        self.fails_at: set[int] = set()

    async def expand(self, expansions: Sequence[Expansion], touches: Sequence[Touch]) -> None:
        self.calls.append(expansions)
        self.touched += touches
        await super().expand(expansions, touches)
        if self.delays_s:
            self.clock.pass_s(self.delays_s.pop(0))
        if len(self.calls) in self.fails_at:
            raise UnavailableError("store", "the outcome is unknown")


class Expansions:
    """The expanding rules with everything around them faked."""

    def __init__(self, desk: GroupDesk) -> None:
        self.desk = desk
        self.clock = ManualClock()
        self.store = MemoryMessageStore(self.clock)
        self.groups = WatchedGroupStore(self.store, self.clock)
        self.directory = FakeGroupDirectory()
        self.directory.add(group_of(desk.group_id, *desk.members))
        self.dispatcher = FakeDispatcher()
        ledger_clock = LedgerClock(self.clock, bytes(8))
        self.expanding = Expanding(self.groups, self.directory, self.dispatcher, ledger_clock)
        self.done: list[Position] = []

    async def expand(self, *messages: NewGroupMessage) -> None:
        for message in messages:
            self.store.book.messages[message.group_id].setdefault(message.message_id, message)
        await self.expanding.expand([entry_of(message) for message in messages], self.note)

    def note(self, positions: Iterable[Position]) -> None:
        self.done += positions

    async def has(self, user_id: UserId) -> list[bytes]:
        """Returns the ids of the messages in an inbox."""
        events = await inbox(self.store, user_id)
        return [event.message_id for event in events if isinstance(event, MessageEvent)]


@pytest.fixture
def expansions(group_desk: GroupDesk) -> Expansions:
    return Expansions(group_desk)


async def test_everybody_but_the_sender_gets_a_row_and_one_hint_names_all(expansions: Expansions) -> None:
    desk = expansions.desk
    message = desk.say()

    await expansions.expand(message)

    assert await expansions.has(desk.bob) == await expansions.has(desk.carol) == [message.message_id]
    assert await expansions.has(desk.alice) == []
    assert expansions.done == [message.position]
    (hint,) = expansions.dispatcher.hints
    assert (hint.user_ids, hint.origin_device_id, hint.wants_receipt) == (desk.members, DeviceId(1), True)
    (event,) = await inbox(expansions.store, desk.bob)
    assert hint.event == event


async def test_messages_of_one_sender_share_a_row(expansions: Expansions) -> None:
    messages = [expansions.desk.say() for _ in range(3)]

    await expansions.expand(*messages)

    ((expansion,),) = expansions.groups.calls
    assert [event.message_id for event in expansion.events if isinstance(event, MessageEvent)] == [
        message.message_id for message in messages
    ]
    assert len(expansions.dispatcher.hints) == 3


async def test_messages_of_several_senders_share_a_row_that_the_senders_get_too(expansions: Expansions) -> None:
    desk = expansions.desk
    messages = [desk.say(), desk.say(sender=desk.bob)]

    await expansions.expand(*messages)

    ((expansion,),) = expansions.groups.calls
    assert expansion.user_ids == desk.members


async def test_not_too_many_messages_share_a_row(expansions: Expansions) -> None:
    messages = [expansions.desk.say() for _ in range(MAX_SHARED + 1)]
    large = [expansions.desk.say(bytes(40_000)) for _ in range(3)]

    await expansions.expand(*messages, *large)

    (rows,) = expansions.groups.calls
    assert [len(row.events) for row in rows] == [MAX_SHARED, 2, 1, 1]


async def test_an_entry_that_came_twice_is_one_event(expansions: Expansions) -> None:
    message = expansions.desk.say()
    again = expansions.desk.say_again(message)._replace(members_version=1)

    await expansions.expand(message, again)

    assert await expansions.has(expansions.desk.bob) == [message.message_id]
    assert expansions.done == [message.position, again.position]


async def test_who_was_removed_since_gets_nothing(expansions: Expansions) -> None:
    desk = expansions.desk
    expansions.directory.add(group_of(desk.group_id, desk.alice, desk.carol, version=2))

    await expansions.expand(desk.say())

    assert await expansions.has(desk.bob) == []
    assert len(await expansions.has(desk.carol)) == 1


async def test_a_sender_that_was_removed_since_is_told_of_its_own_on_its_other_devices(expansions: Expansions) -> None:
    desk = expansions.desk
    expansions.directory.add(group_of(desk.group_id, desk.bob, desk.carol, version=2))
    message = desk.say()

    await expansions.expand(message)

    assert await expansions.has(desk.alice) == []
    to_members, to_sender = expansions.dispatcher.hints
    assert (to_members.user_ids, to_sender.user_ids) == ((desk.bob, desk.carol), (desk.alice,))
    assert to_sender.event._replace(position=to_members.event.position) == to_members.event
    assert to_sender.origin_device_id == DeviceId(1)


async def test_who_joined_later_gets_only_what_came_later(expansions: Expansions) -> None:
    desk, dave = expansions.desk, stranger()
    expansions.directory.add(joined(group_of(desk.group_id, *desk.members, dave, version=2), dave, 2))
    before, after = desk.say(version=1), desk.say(version=2)

    await expansions.expand(before, after)

    assert await expansions.has(dave) == [after.message_id]
    assert await expansions.has(desk.bob) == [before.message_id, after.message_id]
    assert {hint.user_ids for hint in expansions.dispatcher.hints} == {desk.members, (dave,)}


async def test_what_was_altered_since_is_not_hinted(expansions: Expansions) -> None:
    message = expansions.desk.say()
    expansions.store.book.messages[message.group_id][message.message_id] = message

    await expansions.expanding.expand([entry_of(message)._replace(is_quiet=True)], expansions.note)

    assert expansions.dispatcher.hints == []
    assert await expansions.has(expansions.desk.bob) == [message.message_id]


async def test_a_list_that_is_older_than_an_entry_is_read_anew(expansions: Expansions) -> None:
    desk, dave = expansions.desk, stranger()
    expansions.directory.change(joined(group_of(desk.group_id, *desk.members, dave, version=2), dave, 2))

    await expansions.expand(desk.say(version=2))

    assert len(await expansions.has(dave)) == 1
    assert expansions.directory.reads == 1


async def test_a_directory_that_is_behind_makes_the_entries_wait(expansions: Expansions) -> None:
    with pytest.raises(UnavailableError, match="as they were only"):
        await expansions.expand(expansions.desk.say(version=2))

    assert expansions.done == []


async def test_of_a_group_that_is_gone_the_sender_alone_is_told(expansions: Expansions) -> None:
    expansions.directory.truth.clear()
    expansions.directory.copies.clear()
    message = expansions.desk.say(version=3)

    await expansions.expand(message)

    assert expansions.done == [message.position]
    assert await expansions.has(expansions.desk.bob) == []
    assert [hint.user_ids for hint in expansions.dispatcher.hints] == [(expansions.desk.alice,)]


async def test_rows_that_took_too_long_leave_the_entry_open_and_do_not_count(expansions: Expansions) -> None:
    expansions.groups.delays_s = [WRITE_WINDOW_S + 1]
    message = expansions.desk.say()

    with pytest.raises(UnavailableError):
        await expansions.expand(message)
    assert (expansions.done, expansions.dispatcher.hints) == ([], [])
    await expansions.expand(message)

    first, second = await inbox(expansions.store, expansions.desk.bob)
    assert first.position < second.position
    (hint,) = expansions.dispatcher.hints
    assert hint.event == second


async def test_who_is_removed_while_rows_take_too_long_gets_none_when_they_are_written_again(
    expansions: Expansions,
) -> None:
    desk, message = expansions.desk, expansions.desk.say()
    expansions.groups.delays_s = [WRITE_WINDOW_S + 1]
    with pytest.raises(UnavailableError):
        await expansions.expand(message)
    expansions.directory.add(group_of(desk.group_id, desk.alice, desk.bob, version=2))

    await expansions.expand(message)

    assert await expansions.has(desk.bob) == [message.message_id] * 2
    assert await expansions.has(desk.carol) == [message.message_id]


async def test_what_was_written_before_a_failure_is_done(expansions: Expansions) -> None:
    crowd = [stranger() for _ in range(MAX_ROWS)]
    other = GroupDesk()
    expansions.directory.add(group_of(expansions.desk.group_id, *crowd))
    expansions.directory.add(group_of(other.group_id, *other.members))
    first, second = expansions.desk.say(), other.say()
    expansions.groups.fails_at = {2}

    with pytest.raises(UnavailableError):
        await expansions.expand(first, second)

    assert expansions.done == [first.position]


async def test_much_that_is_done_in_a_large_group_is_written_in_several_calls_and_none_is_repeated(
    expansions: Expansions,
) -> None:
    desk, message = expansions.desk, expansions.desk.say()
    crowd = [desk.alice, *(stranger() for _ in range(MAX_ROWS // 4 - 1))]
    expansions.directory.add(group_of(desk.group_id, *crowd))
    expansions.store.book.messages[message.group_id][message.message_id] = message
    entries = [await done(expansions, message, ActionKind.REACTION, user) for user in crowd[:10]]
    expansions.groups.fails_at = {2}

    with pytest.raises(UnavailableError):
        await expansions.expanding.expand(entries, expansions.note)
    assert expansions.done == [entry.position for entry in entries[:4]]
    await expansions.expanding.expand(entries[4:], expansions.note)

    assert expansions.done == [entry.position for entry in entries]
    assert max(sum(len(row.user_ids) for row in call) for call in expansions.groups.calls) <= MAX_ROWS
    assert [len(call) for call in expansions.groups.calls] == [4, 4, 4, 2]
    written = [row for call in (expansions.groups.calls[0], *expansions.groups.calls[2:]) for row in call]
    assert [row.events for row in written] == [(entry.event,) for entry in entries]
    assert written == sorted(written, key=lambda row: row.position)


async def test_a_call_moves_a_group_up_in_chat_lists_once(expansions: Expansions) -> None:
    desk = expansions.desk
    crowd = [desk.alice, *(stranger() for _ in range(MAX_ROWS - 1))]
    # All but Alice joined later, so the rows are few.
    late = group_of(desk.group_id, *crowd, version=2)._replace(latest_join=2)
    versions = tuple(1 if user_id == desk.alice else 2 for user_id in late.user_ids)
    expansions.directory.add(late._replace(joined_versions=versions))
    first = [desk.say() for _ in range(MAX_SHARED)]
    again, second = desk.say_again(first[0])._replace(members_version=1), desk.say()

    await expansions.expand(*first, second, again)

    assert len(expansions.groups.touched) == len(expansions.groups.calls) == 2
    assert set(expansions.done) == {message.position for message in (*first, second, again)}


async def test_a_group_that_is_known_as_older_holds_up_no_other(expansions: Expansions) -> None:
    other = GroupDesk()
    expansions.directory.add(group_of(other.group_id, *other.members))
    ahead, behind = expansions.desk.say(version=2), other.say()

    with pytest.raises(UnavailableError):
        await expansions.expand(ahead, behind)

    assert expansions.done == [behind.position]
    assert await expansions.has(other.bob) == [behind.message_id]


async def test_a_group_that_cannot_be_read_holds_up_no_other(expansions: Expansions) -> None:
    broken, unknown = GroupDesk(), GroupDesk()
    expansions.directory.change(group_of(unknown.group_id, *unknown.members))
    expansions.directory.broken.add(broken.group_id)
    said = [broken.say(), expansions.desk.say(), unknown.say()]

    with pytest.raises(UnavailableError, match="this group"):
        await expansions.expand(*said)

    assert expansions.done == [said[1].position, said[2].position]
    assert await expansions.has(expansions.desk.bob) == [said[1].message_id]
    assert await expansions.has(unknown.bob) == [said[2].message_id]


async def test_groups_of_which_there_are_copies_do_not_wait_for_the_others(expansions: Expansions) -> None:
    unknown = GroupDesk()
    expansions.directory.change(group_of(unknown.group_id, *unknown.members))
    said = [unknown.say(), expansions.desk.say()]
    done_before: list[Position] = []
    expansions.directory.before_read = lambda: done_before.extend(expansions.done)

    await expansions.expand(*said)

    assert done_before == [said[1].position]
    assert expansions.done == [said[1].position, said[0].position]


async def test_a_group_whose_past_cannot_be_read_holds_up_no_other(expansions: Expansions) -> None:
    desk, others = expansions.desk, [GroupDesk(), GroupDesk()]
    for one in (desk, *others):
        newcomer = stranger()
        expansions.directory.add(joined(group_of(one.group_id, *one.members, newcomer, version=2), newcomer, 2))
    entries = [
        Entry(action.position, one.group_id, one.bob, 1, event_of(action, action.accepted_ms))
        for one in (desk, *others)
        for action in [one.do(one.say(), ActionKind.REACTION, b"+1", user=one.bob)]
    ]
    expansions.directory.broken.add(desk.group_id)

    with pytest.raises(UnavailableError, match="this group"):
        await expansions.expanding.expand(entries, expansions.note)

    assert expansions.done == [entry.position for entry in entries[1:]]


async def test_the_chat_list_is_moved_up_for_who_sees_the_newest_message(expansions: Expansions) -> None:
    desk, dave, erin = expansions.desk, stranger(), stranger()
    grown = group_of(desk.group_id, *desk.members, dave, erin, version=3)
    expansions.directory.add(joined(joined(grown, dave, 2), erin, 3))
    before, after = desk.say(version=1), desk.say(version=2)

    await expansions.expand(before, after)

    (touch,) = expansions.groups.touched
    assert (touch.version, set(touch.user_ids)) == (2, {*desk.members, dave})
    assert touch.last_ms == after.accepted_ms


async def test_a_late_message_moves_the_chat_list_up_to_when_it_came(expansions: Expansions) -> None:
    desk = expansions.desk
    late_id, first = desk.uuid7(START_MS - 300_000), desk.say()
    late = desk.say(message_id=late_id)

    await expansions.expand(first, late)

    (touch,) = expansions.groups.touched
    assert touch.last_ms == late.accepted_ms


async def test_a_message_to_those_before_keeps_no_newcomer_from_the_chat_list(expansions: Expansions) -> None:
    desk, dave = expansions.desk, stranger()
    expansions.directory.add(joined(group_of(desk.group_id, *desk.members, dave, version=2), dave, 2))
    memory = Touches()
    written: set[bytes] = set()

    for message in (desk.say(version=1), desk.say(version=2)):
        await expansions.expand(message)
        due = memory.due([expansions.groups.touched[-1]])
        memory.done(due)
        written.update(*(touch.user_ids for touch in due))

    assert written == {*desk.members, dave}


async def test_a_group_is_large_by_its_copy(expansions: Expansions) -> None:
    entry = entry_of(expansions.desk.say())

    assert expansions.expanding.is_large(entry, 2)
    assert not expansions.expanding.is_large(entry, 3)
    assert not expansions.expanding.is_large(entry_of(GroupDesk().say()), 2)


versions = st.integers(1, 5)


@given(
    joins=st.lists(versions, min_size=1, max_size=8),
    messages=st.lists(st.tuples(versions, st.integers(0, 7)), min_size=1, max_size=8),
    max_shared=st.sampled_from([1, MAX_SHARED]),
    max_rows=st.sampled_from([1, 8, MAX_ROWS]),
)
async def test_every_member_gets_exactly_what_it_may_see(
    joins: list[int], messages: list[tuple[int, int]], max_shared: int, max_rows: int
) -> None:
    users = sorted(stranger() for _ in joins)
    desk = GroupDesk()
    expansions = Expansions(desk)
    group = group_of(desk.group_id, *users, version=5)
    expansions.directory.add(group._replace(joined_versions=tuple(joins), latest_join=max(joins)))
    said = [desk.say(version=version, sender=users[who % len(users)]) for version, who in messages]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(expand, "MAX_SHARED", max_shared)
        patch.setattr(expand, "MAX_ROWS", max_rows)
        await expansions.expand(*said)

    assert expansions.done == [message.position for message in said]
    for user_id, join in zip(users, joins, strict=True):
        entitled = {message.message_id for message in said if join <= message.members_version}
        own = {message.message_id for message in said if message.sender_id == user_id}
        got = await expansions.has(user_id)
        assert len(got) == len(set(got))
        assert entitled - own <= set(got) <= entitled
        hinted = {
            hint.event.message_id
            for hint in expansions.dispatcher.hints
            if user_id in hint.user_ids and isinstance(hint.event, MessageEvent)
        }
        assert hinted == entitled | own


def joined(group: DirectoryGroup, user_id: UserId, version: int) -> DirectoryGroup:
    """Returns a group that a member joined in a version."""
    versions = list(group.joined_versions)
    versions[group.place(user_id)] = version
    return group._replace(joined_versions=tuple(versions), latest_join=max(versions))


async def done(expansions: Expansions, message: NewGroupMessage, kind: ActionKind, user: UserId) -> Entry:
    """Returns the entry of something that was done to a message, as it stands in the journal."""
    action = expansions.desk.do(message, kind, b"+1", user=user)
    expansions.store.book.actions[action.conversation_id, action.action_id] = action
    expansions.store.book.altered.carry_out(action)
    event = event_of(action, action.accepted_ms)
    return Entry(action.position, action.conversation_id, user, message.members_version, event)


async def test_each_action_is_a_row_of_its_own_and_its_device_is_not_told(expansions: Expansions) -> None:
    desk, message = expansions.desk, expansions.desk.say()
    await expansions.expand(message)
    entries = [
        await done(expansions, message, ActionKind.REACTION, desk.bob),
        await done(expansions, message, ActionKind.EDIT, desk.alice),
    ]
    expansions.dispatcher.hints.clear()

    await expansions.expanding.expand(entries, expansions.note)

    assert [len(expansion.events) for expansion in expansions.groups.calls[-1]] == [1, 1]
    assert [hint.user_ids for hint in expansions.dispatcher.hints] == [desk.members] * 2
    assert {(hint.origin_device_id, hint.wants_receipt) for hint in expansions.dispatcher.hints} == {(1, False)}
    assert len(await inbox(expansions.store, desk.carol)) == 3
    assert expansions.done[-2:] == [entry.position for entry in entries]


async def test_an_action_reaches_those_who_could_see_its_message_and_are_members_still(
    expansions: Expansions,
) -> None:
    desk, message = expansions.desk, expansions.desk.say()
    await expansions.expand(message)
    entry = await done(expansions, message, ActionKind.EDIT, desk.alice)
    came_back, newcomer = desk.bob, stranger()
    # Carol has left, Bob has left and come back, somebody is new.
    members = sorted((desk.alice, came_back, newcomer))
    group = group_of(desk.group_id, *members, version=9)
    joined = tuple(1 if user_id == desk.alice else 8 for user_id in members)
    expansions.directory.add(group._replace(joined_versions=joined, latest_join=8))
    expansions.directory.past[desk.group_id, came_back] = (Window(1, 4),)
    expansions.dispatcher.hints.clear()

    await expansions.expanding.expand([entry], expansions.note)

    assert [hint.user_ids for hint in expansions.dispatcher.hints] == [(desk.alice,), (came_back,)]
    has = {user_id: len(await inbox(expansions.store, user_id)) for user_id in (came_back, newcomer, desk.carol)}
    assert has == {came_back: 2, newcomer: 0, desk.carol: 1}


async def test_nobody_asks_for_the_past_of_members_who_were_there(expansions: Expansions) -> None:
    desk, message = expansions.desk, expansions.desk.say()
    entry = await done(expansions, message, ActionKind.EDIT, desk.alice)

    await expansions.expanding.expand([entry], expansions.note)

    assert expansions.directory.reads == 0
