"""What happened to groups: kept until it was shown, and in the history after that."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from chappe import client as chappe_client
from chappe.api.edge.v1 import item_pb2
from chappe.client import Client, GroupChanged, GroupEvent, Message, methods
from chappe.client.changes import ItemArrived, LogChange
from chappe.client.mint import time_ms_of
from chappe.client.store import Batch
from chappe.client.store_sqlite import SqliteStore
from tests.client.group_model import ADDED, CREATED, GROUP, REMOVED, event, group_item, user
from tests.client.model_edge import DEVICE, ME, message_item
from tests.client.socket_edge import SocketEdge
from tests.client.test_api import edge, folder, hello_item

__all__ = ["edge", "folder"]
START_MS = 1_790_000_000_000


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SqliteStore]:
    path = tmp_path / "store.db" if request.param == "file" else None
    store = SqliteStore(path, ME, DEVICE)
    yield store
    store.close()


def happen(store: SqliteStore, *changes: item_pb2.GroupChangeEvent) -> list[LogChange]:
    batch = Batch()
    batch.items = [group_item(change) for change in changes]
    return store.commit(batch)


def versions(changes: list[GroupChanged]) -> list[int]:
    return [change.version for change in changes]


def test_what_others_did_is_unseen_until_the_application_had_it(store: SqliteStore) -> None:
    happen(store, event(1, CREATED, ME), event(2, ADDED, user(3)), event(3, REMOVED, user(3)))

    first = store.groups.unseen(2)
    store.groups.mark_seen(GROUP, 1)

    assert versions(first) == [1, 2]
    assert versions(store.groups.unseen(10)) == [2, 3]
    assert versions(store.groups.notices(GROUP, 0, 10)) == [1, 2, 3]


def test_what_one_did_oneself_is_kept_and_not_told(store: SqliteStore) -> None:
    happen(store, event(1, CREATED, user(3), actor=ME))

    assert store.groups.unseen(10) == []
    assert versions(store.groups.notices(GROUP, 0, 10)) == [1]


def test_a_notice_that_comes_again_is_told_once(store: SqliteStore) -> None:
    happen(store, event(1, CREATED, ME), event(1, CREATED, ME))
    store.groups.mark_seen(GROUP, 1)
    happen(store, event(1, CREATED, ME))

    assert store.groups.unseen(10) == []
    assert len(store.groups.notices(GROUP, 0, 10)) == 1


def test_a_change_that_comes_after_a_later_one_is_told(store: SqliteStore) -> None:
    happen(store, event(1, CREATED, ME), event(3, REMOVED, user(4)))

    told = happen(store, event(2, ADDED, user(4)))

    assert told == [ItemArrived(group_item(event(2, ADDED, user(4))))]
    assert versions(store.groups.unseen(10)) == [1, 2, 3]


def test_notices_are_found_from_a_moment_on_and_of_many_the_newest(store: SqliteStore) -> None:
    happen(store, *(event(version, ADDED, user(3)) for version in range(1, 6)))

    assert versions(store.groups.notices(GROUP, 1003, 10)) == [3, 4, 5]
    assert versions(store.groups.notices(GROUP, 0, 2)) == [4, 5]
    assert store.groups.notices(user(1), 0, 10) == []


def clear(store: SqliteStore, upto: bytes) -> None:
    cleared_ms = time_ms_of(message_item(6).message.message_id)
    settings = item_pb2.ConversationSettings(cleared_upto=upto, cleared_ms=cleared_ms)
    cleared = item_pb2.ConversationSettingEvent(conversation_id=GROUP, settings=settings)
    batch = Batch()
    batch.items = [item_pb2.Item(position=message_item(6).message.message_id, conversation_setting=cleared)]
    store.commit(batch)


def test_clearing_a_chat_takes_its_older_notices_away(store: SqliteStore) -> None:
    older, newer = event(1, CREATED, ME), event(2, ADDED, user(3))
    older.changed_ms, newer.changed_ms = START_MS, START_MS + 9
    happen(store, older, newer)

    clear(store, message_item(5).message.message_id)

    assert versions(store.groups.notices(GROUP, 0, 10)) == [2]


def test_what_was_cleared_does_not_come_back_when_the_log_is_replayed(store: SqliteStore) -> None:
    older, newer = event(1, CREATED, ME), event(2, ADDED, user(3))
    older.changed_ms, newer.changed_ms = START_MS, START_MS + 9
    happen(store, older, newer)
    clear(store, message_item(5).message.message_id)

    assert happen(store, older, newer) == []
    assert versions(store.groups.notices(GROUP, 0, 10)) == [2]
    assert versions(store.groups.unseen(10)) == [2]


def said(number: int, text: str) -> item_pb2.Item:
    """Returns a message to the group."""
    item = hello_item(number, text)
    item.message.ClearField("recipient_user_id")
    item.message.group_id = item.message.conversation_id = GROUP
    return item


def noticed(version: int, change: int, changed_ms: int, *user_ids: bytes) -> item_pb2.Item:
    change_event = event(version, change, *user_ids)
    change_event.changed_ms = START_MS + changed_ms
    return group_item(change_event)


async def heard(me: Client, count: int) -> list[str]:
    """Returns the next so many messages and notices, in short."""
    found: list[str] = []
    async for one in me.events():
        if isinstance(one, Message):
            found.append(one.text)
        elif isinstance(one, GroupChanged):
            found.append(one.what.name)
        if len(found) == count:
            break
    return found


async def test_what_happened_while_nobody_listened_is_told_by_a_later_process_in_order(
    edge: SocketEdge, folder: Path
) -> None:
    # The log has what was said before what happened, as it may when both come within a moment.
    edge.model.log += [said(20, "welcome"), noticed(1, CREATED, 10, ME), noticed(2, REMOVED, 30, ME)]
    edge.answers[methods.LIST_GROUPS.name] = lambda _: b""
    async with chappe_client.connect(edge.address, profile=folder) as me:
        await me.groups.list()

    async with chappe_client.connect(edge.address, profile=folder) as me:
        first = await heard(me, 2)
    async with chappe_client.connect(edge.address, profile=folder) as me:
        second = await heard(me, 1)
        kept = await me.notices(GROUP)

    assert (first, second) == (["CREATED", "welcome"], ["REMOVED"])
    assert [change.what for change in kept] == [GroupEvent.CREATED, GroupEvent.REMOVED]


async def test_a_notice_that_is_pushed_to_who_listens_is_told_once(edge: SocketEdge, folder: Path) -> None:
    async with chappe_client.connect(edge.address, profile=folder) as me:
        edge.model.log += [noticed(1, CREATED, 10, ME), said(20, "welcome"), noticed(2, ADDED, 30, user(3))]
        edge.push(3)
        told = await heard(me, 3)

    async with chappe_client.connect(edge.address, profile=folder) as me:
        edge.model.log.append(said(40, "later"))
        edge.push()
        assert await heard(me, 1) == ["later"]
    assert told == ["CREATED", "welcome", "ADDED"]
