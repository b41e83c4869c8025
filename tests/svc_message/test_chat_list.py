"""What is on long chat lists, and in which order, whatever people do for years; the same on every store."""

import random
from typing import NamedTuple

import pytest

from chappe.runtime.clock import SystemClock
from svc_message.adapters.ledger_cassandra.connection import Connection
from svc_message.adapters.ledger_cassandra.message_store import CassandraMessageStore
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.model import NO_POSITION, ChatCursor, ConversationId, Position, UserId
from svc_message.model.setting import SettingChange
from svc_message.ports.group import GroupStore
from tests.svc_message.desk import START_MS, Book, Desk, stranger
from tests.svc_message.group_desk import Books, GroupDesk

DAY_MS = 86_400_000
CHANGES = (
    SettingChange(is_pinned=True),
    SettingChange(is_pinned=False),
    SettingChange(is_archived=True),
    SettingChange(is_archived=False),
)


class Kept(NamedTuple):
    """What a chat list is to say of one person."""

    last_ms: int = 0
    pinned_ms: int = 0
    is_archived: bool = False

    def changed(self, change: SettingChange, at_ms: int) -> "Kept":
        """Returns what its owner makes of it."""
        if change.is_archived is not None:
            return self._replace(is_archived=change.is_archived)
        return self._replace(pinned_ms=(self.pinned_ms or at_ms) if change.is_pinned else 0)


class Years:
    """The time in which alice keeps a chat list, and what is to be on it."""

    def __init__(self, store: Book, desk: Desk) -> None:
        self.kept: dict[UserId, Kept] = {}
        self._store = store
        self._desk = desk
        self._now_ms = START_MS - 900 * DAY_MS

    async def write(self, people: list[UserId]) -> None:
        """Lets people write to alice, one after another."""
        messages = []
        for person in people:
            self._now_ms += 1
            message_id = self._desk.uuid7(self._now_ms)
            message = self._desk.write(sender=person, recipient=self._desk.alice, message_id=message_id)
            messages.append(message._replace(accepted_ms=self._now_ms))
            before = self.kept.get(person, Kept())
            self.kept[person] = before._replace(last_ms=self._now_ms, is_archived=False)
        await self._store.accept(messages)

    async def withhold(self, person: UserId, *, is_own: bool) -> None:
        """Lets a person write what alice never sees, or alice what that person never does."""
        self._now_ms += 1
        people = (self._desk.alice, person) if is_own else (person, self._desk.alice)
        message_id = self._desk.uuid7(self._now_ms)
        message = self._desk.write(sender=people[0], recipient=people[1], message_id=message_id, is_withheld=True)
        await self._store.accept([message._replace(accepted_ms=self._now_ms)])
        if is_own:
            before = self.kept.get(person, Kept())
            self.kept[person] = before._replace(last_ms=self._now_ms, is_archived=False)

    async def say(self, groups: GroupStore, group: GroupDesk, version: int, *, is_member: bool) -> None:
        """Lets somebody write to a group, which alice may have left."""
        self._now_ms += 1
        said = group.say(message_id=group.uuid7(self._now_ms), version=version)._replace(accepted_ms=self._now_ms)
        await groups.accept(group.shard, [said])
        members = (group.alice, self._desk.alice) if is_member else (group.alice,)
        await groups.expand([], [group.touch(said, version=version, to=members)])
        if is_member:
            before = self.kept.get(UserId(group.group_id), Kept())
            self.kept[UserId(group.group_id)] = before._replace(last_ms=self._now_ms, is_archived=False)

    async def change(self, person: UserId, change: SettingChange, *, is_of_group: bool = False) -> None:
        """Lets alice keep a chat otherwise."""
        self._now_ms += 1
        update = self._desk.keep(change, user=self._desk.alice, peer=person)
        update = update._replace(position=Position(self._desk.uuid7(self._now_ms)), changed_ms=self._now_ms)
        if is_of_group:
            update = update._replace(conversation_id=ConversationId(person))
        assert await self._store.settings.change(update, NO_POSITION)
        self.kept[person] = self.kept[person].changed(change, self._now_ms)

    def pass_days(self, days: float) -> None:
        """Lets time pass; lines may be a minute behind."""
        self._now_ms += max(int(days * DAY_MS), 120_000)

    def expected(self, *, is_archived: bool) -> list[UserId]:
        """Returns who is on a list, in order."""
        on_list = [(kept, person) for person, kept in self.kept.items() if kept.is_archived == is_archived]
        return [person for kept, person in sorted(on_list, key=lambda one: (-one[0].pinned_ms, -one[0].last_ms))]

    async def listed(self, *, is_archived: bool, size: int) -> list[UserId]:
        """Goes through a list window by window."""
        return [person for window in await self.windows(is_archived=is_archived, size=size) for person in window]

    async def windows(self, *, is_archived: bool, size: int) -> list[list[UserId]]:
        """Goes through a list and returns its windows."""
        found: list[list[UserId]] = []
        cursor: ChatCursor | None = None
        while True:
            window = await self._store.list_chats(self._desk.alice, cursor, size, is_archived=is_archived)
            found.append([chat.peer_id for chat in window.chats])
            cursor = window.next_cursor
            if cursor is None:
                return found


@pytest.fixture(params=["memory", "postgres", "cassandra", "replicas"])
def long_store(request: pytest.FixtureRequest) -> Book:
    """Returns every store there is; to the one on Cassandra every list is a long one."""
    if request.param == "memory":
        return MemoryMessageStore(SystemClock())
    if request.param == "cassandra":
        connection: Connection = request.getfixturevalue("cassandra_connection")
        return CassandraMessageStore(connection, read_whole=0)
    found: Book = request.getfixturevalue(f"{request.param}_store")
    return found


@pytest.mark.parametrize("seed", range(3))
async def test_lists_hold_every_chat_once_and_in_order_after_years(long_store: Book, desk: Desk, seed: int) -> None:
    lots = random.Random(seed)
    years = Years(long_store, desk)
    people = [stranger() for _ in range(150)]
    # More in a day than are read at once.
    await years.write(people)
    for _ in range(120):
        years.pass_days(lots.expovariate(0.2))
        person = lots.choice(people)
        if lots.random() < 0.5:
            await years.write([person])
        else:
            await years.change(person, lots.choice(CHANGES))

    for is_archived in (False, True):
        expected = years.expected(is_archived=is_archived)
        for size in (7, 60):
            assert await years.listed(is_archived=is_archived, size=size) == expected


async def test_whoever_is_pinned_while_archived_is_pinned_when_it_comes_back(long_store: Book, desk: Desk) -> None:
    years = Years(long_store, desk)
    people = [stranger() for _ in range(130)]
    await years.write(people)
    await years.change(people[0], SettingChange(is_archived=True))
    await years.change(people[0], SettingChange(is_pinned=True))
    years.pass_days(1)
    await years.write(people[:1])
    years.pass_days(40)
    await years.write(people[1:])

    assert (await years.listed(is_archived=False, size=2))[0] == people[0]
    assert await years.listed(is_archived=False, size=50) == years.expected(is_archived=False)


async def test_whoever_was_pinned_when_it_was_archived_comes_first_there(long_store: Book, desk: Desk) -> None:
    years = Years(long_store, desk)
    pinned, *others = [stranger() for _ in range(130)]
    await years.write([pinned])
    await years.change(pinned, SettingChange(is_pinned=True))
    await years.change(pinned, SettingChange(is_archived=True))
    years.pass_days(40)
    await years.write(others)
    for person in others:
        await years.change(person, SettingChange(is_archived=True))

    assert (await years.listed(is_archived=True, size=50))[0] == pinned
    assert await years.listed(is_archived=True, size=50) == years.expected(is_archived=True)


@pytest.mark.parametrize("seed", range(2))
async def test_lists_hold_groups_that_were_left_and_notes_and_nothing_of_what_is_withheld(
    books: Books, desk: Desk, seed: int
) -> None:
    lots = random.Random(seed)
    years = Years(books.store, desk)
    people = [desk.alice, *(stranger() for _ in range(110))]
    groups = [GroupDesk() for _ in range(8)]
    versions = dict.fromkeys(range(len(groups)), 1)
    await years.write(people)
    for group in groups:
        await years.say(books.groups, group, 1, is_member=True)
    for _ in range(120):
        years.pass_days(lots.expovariate(0.2))
        person, number, lot = lots.choice(people), lots.randrange(len(groups)), lots.random()
        if lot < 0.1:
            await years.withhold(people[lots.randrange(1, 110)], is_own=lots.random() < 0.5)
        elif lot < 0.2:
            # Alice leaves, and is there again in the next version.
            versions[number] += 1
        elif lot < 0.5:
            version = versions[number]
            await years.say(books.groups, groups[number], version, is_member=version % 2 == 1)
        else:
            is_of_group = lot < 0.8
            chat = UserId(groups[number].group_id) if is_of_group else person
            await years.change(chat, lots.choice(CHANGES), is_of_group=is_of_group)

    for is_archived in (False, True):
        expected = years.expected(is_archived=is_archived)
        windows = await years.windows(is_archived=is_archived, size=7)
        # Inside a window newest messages decide, and those of groups are read apart.
        in_windows = [set(expected[start : start + 7]) for start in range(0, len(expected), 7)]
        assert [set(window) for window in windows if window] == in_windows
