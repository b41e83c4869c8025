"""Whatever was promised to a sender reaches the members, whatever happens to the process that promised it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chappe.runtime.clock import Seams
from chappe.runtime.errors import UnavailableError
from chappe.runtime.tasks import Tasks
from svc_message.adapters.group_store_memory import MemoryGroupStore
from svc_message.adapters.journal_memory import MemoryJournal
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.model import NO_POSITION, ConversationId, DeviceId, MessageEvent, SendGroupMessage, SendRequest, Stored
from svc_message.model.group import Shard
from svc_message.protocol import HORIZON_S, LedgerClock
from svc_message.protocol.journal import SILENCE_S
from svc_message.service.accept_group import GroupAccepting, Stores
from svc_message.service.expand import Expanding
from svc_message.worker import expand
from svc_message.worker.expand import LAST_RETRY_S, JournalWorker
from tests.svc_fanout.fakes import SeededRandomness
from tests.svc_message.desk import inbox, stranger
from tests.svc_message.fakes import FakeDispatcher, FakeGroupDirectory, HandClock, message_id, settle
from tests.svc_message.group_desk import GroupDesk, entry_of, group_of

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from svc_message.model import Position, UserId
    from svc_message.model.group import Entry, Expansion, GroupAccepted, NewGroupMessage, Orphan, Touch, Undecodable


class FaultyGroupStore(MemoryGroupStore):
    """A store that does not expand, or does nothing at all, while it is told so."""

    can_expand = True
    is_down = False
    expansions = 0
    fails_after: int | None = None
    """So many calls are answered."""
    stuck_group: ConversationId | None = None

    def __init__(self, store: MemoryMessageStore, journal: MemoryJournal) -> None:
        super().__init__(store, journal)
        self.stumbles_at: set[bytes] = set()
        """The messages whose pointers end in an error of a kind that no store is to raise."""

    async def accept(self, shard: Shard, batch: Sequence[NewGroupMessage]) -> list[GroupAccepted]:
        self.ask()
        return await super().accept(shard, batch)

    async def expand(self, expansions: Sequence[Expansion], touches: Sequence[Touch]) -> None:
        self.ask()
        self.expansions += 1
        is_over = self.fails_after is not None and self.expansions > self.fails_after
        if is_over or not self.can_expand or any(one.conversation_id == self.stuck_group for one in expansions):
            raise UnavailableError("store", "the outcome is unknown")
        events = [event for one in expansions for event in one.events if isinstance(event, MessageEvent)]
        if any(event.message_id in self.stumbles_at for event in events):
            raise ValueError("an error of a driver")
        await super().expand(expansions, touches)

    def ask(self) -> None:
        if self.is_down:
            raise UnavailableError("store", "it is down")


class FaultyJournal(MemoryJournal):
    """A journal that is down while its store is."""

    store: FaultyGroupStore

    async def checkpoint(self, shard: Shard, mark: Position) -> None:
        self.store.ask()
        await super().checkpoint(shard, mark)

    async def adopt(self, silence_s: float) -> list[Orphan]:
        self.store.ask()
        return await super().adopt(silence_s)

    async def read(self, shard: Shard, after: Position, limit: int) -> list[Entry | Undecodable]:
        self.store.ask()
        return await super().read(shard, after, limit)


class Process:
    """One ledger process; a crash ends its tasks without a word."""

    def __init__(self, house: House, shard: int) -> None:
        self.house = house
        self.tasks = Tasks()
        self.dispatcher = FakeDispatcher()
        self.clock = clock = LedgerClock(house.clock, bytes([shard] * 8))
        expanding = Expanding(house.groups, house.directory, self.dispatcher, clock)
        seams = Seams(house.clock, SeededRandomness())
        self.worker = JournalWorker(expanding, house.journal, Shard(shard), clock=clock, seams=seams, tasks=self.tasks)
        stores = Stores(house.store, house.groups)
        self.accepting = GroupAccepting(stores, house.directory, clock, self.worker, Shard(shard))

    async def send(self, number: int) -> bytes:
        """Sends a message of Alice's to the group, and returns its id once it is promised."""
        desk = self.house.desk
        minted = message_id(desk.alice, 1, self.house.clock.wall_ms(), number)
        request = SendRequest(desk.alice, DeviceId(1), minted, 1, SendGroupMessage(desk.group_id, b"hi", 0))
        (answer,) = await self.accepting.accept([request])
        assert isinstance(answer, Stored)
        return minted

    async def crash(self) -> None:
        await self.tasks.aclose()


class House:
    """The store, the journal and the directory of several processes; time passes when the test lets it."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.desk = GroupDesk()
        self.store = MemoryMessageStore(self.clock)
        self.journal = FaultyJournal(self.clock)
        self.groups = self.journal.store = FaultyGroupStore(self.store, self.journal)
        self.directory = FakeGroupDirectory()
        self.directory.add(group_of(self.desk.group_id, *self.desk.members))
        self.processes: list[Process] = []

    async def process(self) -> Process:
        process = Process(self, len(self.processes) + 1)
        self.processes.append(process)
        await process.worker.start()
        return process

    async def has(self, user_id: UserId) -> list[bytes]:
        events = await inbox(self.store, user_id)
        return [event.message_id for event in events if isinstance(event, MessageEvent)]

    def put_ahead(self, shard: Shard, at: int) -> Entry:
        """Makes an entry of a shard one of a group that the directory knows as it was only."""
        entries = self.journal._entries[shard]
        entry = entries[sorted(entries)[at]]
        group_id = ConversationId(stranger())
        self.directory.add(group_of(group_id, *self.desk.members))
        entries[entry.position] = ahead = entry._replace(conversation_id=group_id, members_version=2)
        return ahead

    async def mark(self, shard: Shard) -> Position:
        (mark,) = [orphan.mark for orphan in await self.journal.adopt(-1.0) if orphan.shard == shard]
        return mark

    async def shards(self) -> set[Shard]:
        return {orphan.shard for orphan in await self.journal.adopt(-1.0)}


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    yield house
    for process in house.processes:
        await process.crash()


async def test_what_was_accepted_is_expanded_at_once(house: House) -> None:
    process = await house.process()

    sent = [await process.send(number) for number in range(3)]
    await settle()

    assert await house.has(house.desk.bob) == sent
    assert (process.worker.begun, process.worker.expanded) == (0, 3)
    assert len(process.dispatcher.hints) == 3


async def test_what_was_promised_before_a_crash_is_expanded_by_another_process(house: House) -> None:
    first, second = await house.process(), await house.process()
    house.groups.can_expand = False
    sent = await first.send(1)
    await first.crash()
    house.groups.can_expand = True

    await house.clock.advance(SILENCE_S + 5)

    assert await house.has(house.desk.bob) == [sent]
    assert second.worker.adopted == 1
    assert [hint.user_ids for hint in second.dispatcher.hints] == [house.desk.members]
    assert await house.shards() == {Shard(2)}


async def test_a_crash_between_two_of_many_entries_loses_none(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expand, "PAGE_ENTRIES", 3)
    first = await house.process()
    sent = [await first.send(number) for number in range(4)]
    await settle()
    house.groups.can_expand = False
    sent += [await first.send(number) for number in range(4, 11)]
    await first.crash()
    house.groups.can_expand = True
    await house.process()

    await house.clock.advance(SILENCE_S + 5)

    assert set(await house.has(house.desk.carol)) == set(sent)


async def test_a_process_that_lives_is_left_alone(house: House) -> None:
    first, second = await house.process(), await house.process()
    await first.send(1)

    await house.clock.advance(60)

    assert (first.worker.adopted, second.worker.adopted) == (0, 0)
    assert await house.shards() == {Shard(1), Shard(2)}


async def test_a_store_that_is_away_for_half_a_minute_loses_nothing(house: House) -> None:
    process = await house.process()
    house.groups.can_expand = False
    sent = await process.send(1)
    house.groups.is_down = True
    await house.clock.advance(30)
    assert process.worker.begun == 1

    house.groups.is_down, house.groups.can_expand = False, True
    await house.clock.advance(5)

    assert set(await house.has(house.desk.bob)) == {sent}
    assert (process.worker.begun, process.worker.parked) == (0, 0)


async def test_tries_grow_rarer_while_the_store_is_away(house: House) -> None:
    process = await house.process()
    house.groups.can_expand = False
    await process.send(1)

    await house.clock.advance(60)

    assert 20 <= house.groups.expansions <= 50


async def test_two_adopters_do_the_same_work_and_nobody_is_harmed(house: House) -> None:
    first = await house.process()
    house.groups.can_expand = False
    sent = [await first.send(number) for number in range(3)]
    await first.crash()
    house.groups.can_expand = True
    adopters = [await house.process(), await house.process()]
    await house.clock.advance(SILENCE_S - 1)
    await first.house.journal.advance(Shard(1), NO_POSITION)
    (orphan,) = [orphan for orphan in await house.journal.adopt(-1.0) if orphan.shard == 1]

    for adopter in adopters:
        await adopter.worker.adopt(orphan)

    assert set(await house.has(house.desk.bob)) == set(sent)
    assert await house.has(house.desk.alice) == sent
    await house.clock.advance(5)
    assert Shard(1) not in await house.shards()


async def test_an_entry_that_commits_behind_an_adopter_is_not_forgotten(house: House) -> None:
    first = await house.process()
    house.groups.can_expand = False
    late = house.desk.say()._replace(position=first.clock.mint().position)
    sent = await first.send(1)
    await first.crash()
    house.groups.can_expand = True
    adopter, read = await house.process(), house.journal.read

    async def read_before_the_commit(shard: Shard, after: Position, limit: int) -> list[Entry | Undecodable]:
        house.journal.read = read  # type: ignore[method-assign]  # as it was
        page = await read(shard, after, limit)
        await house.groups.accept(shard, [late])
        return page

    house.journal.read = read_before_the_commit  # type: ignore[method-assign]  # a moment before a commit
    (orphan,) = [orphan for orphan in await house.journal.adopt(-1.0) if orphan.shard == 1]
    await adopter.worker.adopt(orphan)

    await house.clock.advance(SILENCE_S + 5)

    assert set(await house.has(house.desk.bob)) == {late.message_id, sent}
    assert await house.shards() == {Shard(2)}


async def test_a_mark_of_an_orphan_stays_behind_what_may_still_commit(house: House) -> None:
    first = await house.process()
    house.groups.can_expand = False
    await first.send(1)
    await first.crash()
    house.groups.can_expand = True
    adopter = await house.process()
    (orphan,) = [orphan for orphan in await house.journal.adopt(-1.0) if orphan.shard == 1]

    await adopter.worker.adopt(orphan)

    (left,) = [orphan for orphan in await house.journal.adopt(-1.0) if orphan.shard == 1]
    assert left.mark <= adopter.clock.bound()


async def test_84_a_shard_that_nobody_can_read_holds_up_no_other(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = await house.process(), await house.process()
    house.groups.can_expand = False
    await first.send(1)
    sent = await second.send(2)
    await first.crash()
    await second.crash()
    house.groups.can_expand = True
    read = house.journal.read

    async def stumble(shard: Shard, after: Position, limit: int) -> list[Entry | Undecodable]:
        if shard == 1:
            raise ValueError("not a header")
        return await read(shard, after, limit)

    house.journal.read = stumble  # type: ignore[method-assign]  # as a journal with a fault of its own
    adopter = await house.process()
    await house.clock.advance(SILENCE_S + 10)

    assert await house.has(house.desk.bob) == [sent]
    assert "shard 1 of the journal cannot be adopted" in caplog.text
    assert adopter.worker.adopted == 1
    house.journal.read = read  # type: ignore[method-assign]
    await house.clock.advance(SILENCE_S)
    assert len(await house.has(house.desk.bob)) == 2


async def test_an_adopter_whose_clock_cannot_be_trusted_leaves_the_shard_to_others(house: House) -> None:
    first, adopter = await house.process(), await house.process()
    house.groups.can_expand = False
    await first.send(1)
    await first.crash()
    adopter.clock._distrust = "for the test"

    await house.clock.advance(SILENCE_S + 5)

    assert Shard(1) in await house.shards()


async def test_a_process_that_was_only_asleep_goes_on_after_it_was_adopted(house: House) -> None:
    first = await house.process()
    house.groups.can_expand = False
    before = await first.send(1)
    await settle()
    sleeping = list(house.clock._sleepers)
    house.clock._sleepers.clear()
    house.groups.can_expand = True
    await house.process()
    await house.clock.advance(SILENCE_S + 5)
    assert await house.shards() == {Shard(2)}

    house.clock._sleepers += sleeping
    after = await first.send(2)
    await first.crash()
    await house.clock.advance(SILENCE_S + 5)

    assert set(await house.has(house.desk.bob)) == {before, after}


async def test_who_was_removed_before_the_expansion_gets_nothing(house: House) -> None:
    process = await house.process()
    house.groups.can_expand = False
    sent = await process.send(1)
    house.directory.add(group_of(house.desk.group_id, house.desk.alice, house.desk.carol, version=2))
    house.groups.can_expand = True

    await house.clock.advance(5)

    assert await house.has(house.desk.bob) == []
    assert await house.has(house.desk.carol) == [sent]


async def test_poison_is_put_aside_and_the_rest_goes_on(house: House, caplog: pytest.LogCaptureFixture) -> None:
    first = await house.process()
    house.groups.can_expand = False
    poison, healthy = await first.send(1), await first.send(2)
    await first.crash()
    house.groups.can_expand = True
    entries = await house.journal.read(Shard(1), NO_POSITION, 10)
    house.journal.unreadable.add(entries[0].position)
    second = await house.process()

    await house.clock.advance(SILENCE_S + 5)

    assert await house.has(house.desk.bob) == [healthy]
    assert second.worker.parked == 1
    assert "replay-parked" in caplog.text
    house.journal.unreadable.clear()
    assert await house.journal.replay(Shard(99)) == 1
    await house.clock.advance(5)
    assert set(await house.has(house.desk.bob)) == {healthy, poison}


async def test_one_orphan_that_has_to_wait_does_not_hold_up_the_others(house: House) -> None:
    first, second = await house.process(), await house.process()
    house.groups.can_expand = False
    await first.send(1)
    sent = await second.send(2)
    for process in (first, second):
        await process.crash()
    house.groups.can_expand = True
    entries = house.journal._entries[Shard(1)]
    for position, entry in entries.items():
        entries[position] = entry._replace(members_version=99)
    await house.process()

    await house.clock.advance(SILENCE_S + 5)

    assert await house.has(house.desk.bob) == [sent]
    assert Shard(1) in await house.shards()


async def test_an_entry_that_has_to_wait_holds_up_no_other_of_its_orphan_and_repeats_none(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expand, "PAGE_ENTRIES", 3)
    first = await house.process()
    house.groups.can_expand = False
    sent = [await first.send(number) for number in range(1, 8)]
    await first.crash()
    house.groups.can_expand = True
    ahead = house.put_ahead(Shard(1), 1)
    second = await house.process()

    await house.clock.advance(SILENCE_S + 60)

    assert await house.has(house.desk.bob) == [sent[0], *sent[2:]]
    assert second.worker.adopted == 6
    assert await house.mark(Shard(1)) <= ahead.position
    house.directory.add(group_of(ahead.conversation_id, *house.desk.members, version=2))
    await house.clock.advance(SILENCE_S)
    assert len(await house.has(house.desk.bob)) == 7
    assert second.worker.adopted == 7
    assert await house.shards() == {Shard(2)}
    assert second.worker._settled == {}


async def test_an_error_that_nobody_expected_holds_up_nothing_else_of_an_orphan(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(expand, "PAGE_ENTRIES", 3)
    first = await house.process()
    house.groups.can_expand = False
    sent = [await first.send(number) for number in range(1, 6)]
    await first.crash()
    house.groups.can_expand = True
    house.groups.stumbles_at = {sent[1]}
    await house.process()

    await house.clock.advance(SILENCE_S + 60)

    assert await house.has(house.desk.bob) == [sent[0], *sent[2:]]
    assert "shard 1 of the journal cannot be adopted" in caplog.text
    house.groups.stumbles_at.clear()
    await house.clock.advance(SILENCE_S)
    assert await house.has(house.desk.bob) == [sent[0], *sent[2:], sent[1]]
    assert await house.shards() == {Shard(2)}


async def test_what_an_orphan_has_promised_lately_is_expanded_once(house: House) -> None:
    first = await house.process()
    house.groups.can_expand = False
    sent = await first.send(1)
    await first.crash()
    house.groups.can_expand = True
    adopter = await house.process()
    (orphan,) = [orphan for orphan in await house.journal.adopt(-1.0) if orphan.shard == 1]

    for _ in range(2):
        await adopter.worker.adopt(orphan)

    assert await house.has(house.desk.bob) == [sent]


async def test_the_mark_stays_before_what_is_not_done(house: House) -> None:
    process = await house.process()
    house.groups.can_expand = False
    await process.send(1)
    (entry,) = await house.journal.read(Shard(1), NO_POSITION, 10)

    await house.clock.advance(HORIZON_S * 3)

    ((_, mark),) = await house.journal.adopt(-1.0)
    assert mark <= entry.position
    assert len(await house.journal.read(Shard(1), NO_POSITION, 10)) == 1


async def test_what_is_done_is_forgotten_after_a_while(house: House) -> None:
    process = await house.process()
    await process.send(1)

    await house.clock.advance(HORIZON_S * 3)

    assert await house.journal.read(Shard(1), NO_POSITION, 10) == []


async def test_a_drain_waits_for_the_expansion_and_ends_the_shard(house: House) -> None:
    process = await house.process()
    sent = await process.send(1)

    await process.worker.drain()

    assert await house.has(house.desk.bob) == [sent]
    assert await house.shards() == set()


async def test_a_drain_that_leaves_something_open_leaves_the_shard_to_others(house: House) -> None:
    process = await house.process()
    process.worker.begin([house.desk.position()])

    await process.worker.drain()

    assert await house.shards() == {Shard(1)}


async def test_a_drain_forgets_nothing_that_is_accepted_while_it_ends_the_shard(house: House) -> None:
    process = await house.process()
    end = house.journal.end

    async def end_late(shard: Shard, last: Position, silence_s: float = 0.0) -> bool:
        house.journal.end = end  # type: ignore[method-assign]  # as it was
        house.groups.can_expand = False
        sent.append(await process.send(1))
        return await end(shard, last, silence_s)

    sent: list[bytes] = []
    house.journal.end = end_late  # type: ignore[method-assign]  # a moment before the store's own lock

    await process.worker.drain()
    await process.crash()
    house.groups.can_expand = True
    await house.process()
    await house.clock.advance(SILENCE_S + 5)

    assert await house.has(house.desk.bob) == sent


async def test_large_groups_do_not_hold_up_the_small_ones(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expand, "LARGE_GROUP", 3)
    process = await house.process()
    crowd = GroupDesk()
    house.directory.add(group_of(crowd.group_id, crowd.alice, *(stranger() for _ in range(9))))
    house.groups.stuck_group = crowd.group_id
    process.worker.add([entry_of(crowd.say())])

    sent = await process.send(1)
    await settle()

    assert await house.has(house.desk.bob) == [sent]


async def test_a_group_that_cannot_be_expanded_holds_up_no_other(house: House) -> None:
    process = await house.process()
    ahead = GroupDesk()
    house.directory.add(group_of(ahead.group_id, *ahead.members))
    process.worker.add([entry_of(ahead.say(version=2))])
    await settle()

    sent = await process.send(1)
    await house.clock.advance(LAST_RETRY_S + 1)

    assert await house.has(house.desk.bob) == [sent]


async def test_an_error_that_nobody_expected_loses_no_entry_and_holds_up_no_other(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    process = await house.process()
    sent = [await process.send(number) for number in range(1, 4)]
    house.groups.stumbles_at = {sent[1]}

    await house.clock.advance(LAST_RETRY_S * 3)

    assert await house.has(house.desk.bob) == [sent[0], sent[2]]
    assert process.worker.begun == 1
    assert "an error of a driver" in caplog.text
    house.groups.stumbles_at.clear()
    await house.clock.advance(LAST_RETRY_S + 1)
    assert await house.has(house.desk.bob) == [sent[0], sent[2], sent[1]]
    assert (process.worker.begun, process.worker.expanded) == (0, 3)


async def test_tries_after_an_error_that_nobody_expected_grow_rarer(house: House) -> None:
    process = await house.process()
    house.groups.stumbles_at = {await process.send(1)}

    await house.clock.advance(60)

    assert 20 <= house.groups.expansions <= 50


async def test_a_store_that_fails_while_entries_are_tried_one_by_one_is_left_alone(house: House) -> None:
    process = await house.process()
    sent = [await process.send(number) for number in range(1, 4)]
    house.groups.stumbles_at, house.groups.fails_after = {sent[0]}, 1

    await settle()

    assert house.groups.expansions == 2
    assert process.worker.begun == 3


async def test_a_clock_that_cannot_be_trusted_keeps_the_shard_alive(house: House) -> None:
    process = await house.process()
    process.worker._clock._distrust = "for the test"

    await house.clock.advance(SILENCE_S * 2)

    assert await house.journal.adopt(SILENCE_S) == []


async def test_nothing_more_is_taken_while_too_much_waits(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expand, "MAX_BEGUN", 2)
    process = await house.process()
    house.groups.can_expand = False

    for number in range(2):
        assert not process.worker.is_full
        await process.send(number)

    assert process.worker.is_full
