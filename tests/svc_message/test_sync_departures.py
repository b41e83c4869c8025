"""A log shows nothing that was said in a group after its reader has left."""

from __future__ import annotations

import pytest

from chappe.runtime.errors import UnavailableError
from svc_message.adapters.group_store_memory import MemoryGroupStore
from svc_message.adapters.journal_memory import MemoryJournal
from svc_message.model import DeviceId, Event, InboxPage, InboxQuery, InboxRead, MessageEvent, UserId
from svc_message.model.action import ActionKind, EditEvent, event_of
from svc_message.model.group import Expansion, NewGroupMessage, Window
from svc_message.protocol import LedgerClock
from svc_message.service.sight import Sight
from svc_message.service.sync import Syncing
from tests.svc_message.fakes import FakeDispatcher, FakeGroupDirectory, ManualClock
from tests.svc_message.group_desk import GroupDesk, group_of
from tests.svc_message.test_sync import SlowStore


class Room:
    """A group that bob has left in version 2, with the rules by which logs are read."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store, self.desk = SlowStore(self.clock), GroupDesk()
        self.groups = MemoryGroupStore(self.store, MemoryJournal(self.clock))
        self.directory = FakeGroupDirectory()
        self.ledger_clock = LedgerClock(self.clock, bytes(8))
        self.syncing = Syncing(self.store, Sight(self.directory), FakeDispatcher(), self.ledger_clock)
        self.directory.add(group_of(self.desk.group_id, self.desk.alice, self.desk.carol, version=2))
        self.directory.past[self.desk.group_id, self.desk.bob] = (Window(1, 2),)

    async def say(self, text: bytes) -> NewGroupMessage:
        message = self.desk.say(text)._replace(position=self.ledger_clock.mint().position)
        await self.groups.accept(self.desk.shard, [message])
        await self.groups.expand([self.desk.expand(message)], [])
        return message

    async def edit(self, message: NewGroupMessage, text: bytes, *, version: int) -> None:
        edit = self.desk.do(message, ActionKind.EDIT, text)._replace(group_version=version)
        await self.groups.act(self.desk.shard, [edit])
        event = event_of(edit, edit.accepted_ms)
        readers = (self.desk.bob, self.desk.carol) if version == 1 else (self.desk.carol,)
        await self.groups.expand(
            [Expansion(self.desk.group_id, self.ledger_clock.mint().position, (event,), readers)], []
        )

    async def sync(self, *readers: UserId) -> list[list[bytes]]:
        queries = [
            InboxQuery(reader, DeviceId(1), epoch=0, cursor=b"", after=b"", pass_bound=b"", limit=0)
            for reader in readers
        ]
        return [[said(event) for event in answer.events] for answer in await self.syncing.sync(queries)]


@pytest.fixture
def room() -> Room:
    return Room()


def said(event: Event) -> bytes:
    assert isinstance(event, MessageEvent | EditEvent)
    return event.envelope


async def test_who_has_left_syncs_what_stood_then(room: Room) -> None:
    message = await room.say(b"sent")
    await room.edit(message, b"before", version=1)
    await room.edit(message, b"after", version=2)

    assert await room.sync(room.desk.bob, room.desk.carol) == [
        [b"before", b"before"],
        [b"after", b"after"],
    ]


async def test_nobody_is_asked_for_while_nothing_was_altered(room: Room) -> None:
    await room.say(b"sent")

    await room.sync(room.desk.bob, room.desk.carol)

    assert room.directory.reads == 0
    assert len(room.store.reads) == 2


async def test_who_is_a_member_is_read_for_once(room: Room) -> None:
    await room.edit(await room.say(b"sent"), b"after", version=2)

    assert await room.sync(room.desk.carol) == [[b"after", b"after"]]
    assert len(room.store.reads) == 1


async def test_a_stranger_to_the_group_sees_no_edit(room: Room) -> None:
    await room.edit(await room.say(b"sent"), b"after", version=2)
    room.directory.past.clear()

    assert await room.sync(room.desk.bob) == [[b"sent"]]


async def test_a_log_waits_while_nobody_says_who_is_in_the_group(room: Room) -> None:
    await room.edit(await room.say(b"sent"), b"after", version=2)
    room.directory.is_down = True

    with pytest.raises(UnavailableError):
        await room.sync(room.desk.bob)


async def test_what_comes_between_two_reads_is_judged_too(room: Room, monkeypatch: pytest.MonkeyPatch) -> None:
    await room.edit(await room.say(b"sent"), b"after", version=2)
    other = GroupDesk()
    other.bob = room.desk.bob
    room.directory.add(group_of(other.group_id, other.alice, version=2))
    room.directory.past[other.group_id, other.bob] = (Window(1, 2),)
    late = other.say(b"late")._replace(position=room.ledger_clock.mint().position)
    await room.groups.accept(other.shard, [late])
    edit = other.do(late, ActionKind.EDIT, b"edited")._replace(group_version=2)
    await room.groups.act(other.shard, [edit])
    read_inbox = room.store.read_inbox

    async def read(reads: list[InboxRead]) -> list[InboxPage]:
        pages = await read_inbox(reads)
        if len(room.store.reads) == 1:
            await room.groups.expand([other.expand(late, to=(other.bob,))], [])
        return pages

    monkeypatch.setattr(room.store, "read_inbox", read)

    assert sorted((await room.sync(room.desk.bob))[0]) == [b"late", b"sent"]
    assert len(room.store.reads) == 3
