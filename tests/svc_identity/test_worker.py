"""What inboxes are told, and that nothing is lost on the way."""

import asyncio
from collections.abc import AsyncIterator, Callable

import pytest

from chappe.runtime.clock import Seams
from chappe.runtime.tasks import Tasks
from svc_identity.adapters.inbox_memory import MemoryInbox
from svc_identity.model import ChangeKind, UserId
from svc_identity.ports import IdentityStore, InboxEvent
from svc_identity.service.feed import ChangeFeed
from svc_identity.worker import MOST_EVENTS, MOST_RECIPIENTS_OF_CALL, InboxWorker, calls
from tests.svc_identity.groups import by, found
from tests.svc_identity.people import RANDOM, ToldClock, charge, crowd, new_phone, register

KEEP_S = 604_800.0


class PatientClock(ToldClock):
    """Waits a moment instead of what it was told."""

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(min(delay_s, 0.01))


@pytest.fixture
async def tasks() -> AsyncIterator[Tasks]:
    async with Tasks() as tasks:
        yield tasks


def start(store: IdentityStore, changed: asyncio.Event, inbox: MemoryInbox, tasks: Tasks) -> InboxWorker:
    feed = ChangeFeed(store.changes, changed, 0.02)
    worker = InboxWorker(feed, inbox, Seams(PatientClock(), RANDOM), KEEP_S)
    tasks.spawn(feed.run(), name="feed")
    tasks.spawn(worker.run(), name="worker")
    return worker


async def until(is_so: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not is_so():  # noqa: ASYNC110 - whatever is waited for here sets no event
            await asyncio.sleep(0.005)


def kinds(inbox: MemoryInbox, user_id: UserId) -> list[ChangeKind]:
    return [event.kind for event in inbox.of(user_id)]


async def test_own_changes_reach_own_inbox(store: IdentityStore, changed: asyncio.Event, tasks: Tasks) -> None:
    inbox = MemoryInbox()
    start(store, changed, inbox, tasks)

    owner, bob = (await register(store)).user_id, (await register(store)).user_id
    await store.contacts.add_contact(owner, new_phone(), "x", charge())
    await store.contacts.block(owner, bob)

    await until(lambda: ChangeKind.BLOCKS in kinds(inbox, owner))
    expected = [ChangeKind.PROFILE, ChangeKind.DEVICES, ChangeKind.CONTACTS, ChangeKind.BLOCKS]
    assert kinds(inbox, owner) == expected


async def test_new_profile_reaches_those_who_keep_it(
    store: IdentityStore, changed: asyncio.Event, tasks: Tasks
) -> None:
    phone = new_phone()
    star, fan = await register(store, phone), (await register(store)).user_id
    await store.contacts.add_contact(fan, phone, "star", charge())
    inbox = MemoryInbox()
    start(store, changed, inbox, tasks)

    await store.profiles.update_profile(star.user_id, "New", None)

    await until(lambda: any(event.about == star.user_id and event.version > 3 for event in inbox.of(fan)))
    assert all(event.is_for_others for event in inbox.of(fan) if event.about == star.user_id)


async def test_change_of_a_group_reaches_its_members_and_the_removed(
    store: IdentityStore, changed: asyncio.Event, tasks: Tasks
) -> None:
    owner, bob, cid = await crowd(store, 3)
    inbox = MemoryInbox()
    start(store, changed, inbox, tasks)

    group_id = await found(store, owner, bob, cid)
    await store.groups.remove_member(by(group_id, owner), bob)
    await store.groups.leave_group(by(group_id, owner))

    def told(user_id: UserId) -> list[tuple[str, int]]:
        groups = [event.group for event in inbox.of(user_id) if event.group is not None]
        return [(group.kind.name, group.version) for group in groups]

    await until(lambda: len(told(cid)) == 4)
    assert told(bob) == [("CREATED", 1), ("REMOVED", 2)]
    assert told(owner) == [("CREATED", 1), ("REMOVED", 2), ("LEFT", 3)]
    assert told(cid) == [("CREATED", 1), ("REMOVED", 2), ("LEFT", 3), ("ROLE", 4)]


async def test_change_of_a_large_group_is_told_in_portions_under_one_name(
    store: IdentityStore, changed: asyncio.Event, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svc_identity.worker.MOST_RECIPIENTS", 2)
    owner, *others = await crowd(store, 5)
    inbox = MemoryInbox()
    start(store, changed, inbox, tasks)

    await found(store, owner, *others)

    await until(lambda: all(any(event.group for event in inbox.of(user_id)) for user_id in (owner, *others)))
    names = {event.change_id for event in inbox.events.values() if event.group is not None}
    assert len(names) == 1


async def test_change_that_was_forgotten_stops_nothing(
    store: IdentityStore, changed: asyncio.Event, tasks: Tasks, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = (await register(store)).user_id
    await found(store, owner)

    async def forgotten(*_: object) -> None:
        return None

    monkeypatch.setattr(type(store.changes), "group_news", forgotten)
    inbox = MemoryInbox()
    start(store, changed, inbox, tasks)
    await store.profiles.update_profile(owner, "Later", None)

    await until(lambda: len(inbox.of(owner)) == 3)
    assert not any(event.group for event in inbox.of(owner))


async def test_events_wait_while_the_ledger_is_away(store: IdentityStore, changed: asyncio.Event, tasks: Tasks) -> None:
    inbox = MemoryInbox()
    inbox.failures_left = 5
    start(store, changed, inbox, tasks)

    owner = (await register(store)).user_id

    await until(lambda: len(inbox.of(owner)) == 2)
    assert inbox.failures_left == 0


async def test_next_worker_goes_on_where_the_last_one_stopped(store: IdentityStore, changed: asyncio.Event) -> None:
    first, second = MemoryInbox(), MemoryInbox()
    owner = (await register(store)).user_id
    async with Tasks() as tasks:
        worker = start(store, changed, first, tasks)
        await until(lambda: worker.moves == 1)

    await store.profiles.update_profile(owner, "While nobody worked", None)
    async with Tasks() as tasks:
        start(store, changed, second, tasks)
        await until(lambda: len(second.of(owner)) == 1)

    assert kinds(second, owner) == [ChangeKind.PROFILE]
    assert not {event.change_id for event in first.of(owner)} & {event.change_id for event in second.of(owner)}


async def test_two_workers_tell_the_same_once(store: IdentityStore, changed: asyncio.Event, tasks: Tasks) -> None:
    inbox = MemoryInbox()
    workers = [start(store, asyncio.Event(), inbox, tasks) for _ in range(2)]

    owner = (await register(store)).user_id
    await store.profiles.update_profile(owner, "New", None)

    await until(lambda: len(inbox.of(owner)) == 3)
    assert sorted(worker.told for worker in workers) == [0, 3]


def test_calls_are_cut_by_events_and_by_recipients() -> None:
    def event(recipients: int) -> InboxEvent:
        people = tuple(UserId(number.to_bytes(16)) for number in range(recipients))
        return InboxEvent(bytes(16), ChangeKind.PROFILE, UserId(bytes(16)), 1, people, is_for_others=True)

    many = list(calls([event(1)] * (MOST_EVENTS + 1)))
    wide = list(calls([event(1000)] * 9))

    assert [len(call) for call in many] == [MOST_EVENTS, 1]
    assert [sum(len(event.recipients) for event in call) for call in wide] == [MOST_RECIPIENTS_OF_CALL, 1000]
    assert list(calls([])) == []
