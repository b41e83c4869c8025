"""The store on SQLite: what survives a kill, and what people ask of it."""

import sqlite3
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from chappe.client.changes import SendRefused, Sent
from chappe.client.destination import Destination
from chappe.client.errors import StoreError
from chappe.client.frames import group_message_action, message_action, read_action
from chappe.client.outgoing import Outgoing
from chappe.client.store import Batch, Person
from chappe.client.store_sqlite import SqliteStore
from tests.client.model_edge import CONVERSATION, DEVICE, ME, PEER, message_item, receipt_item

GROUP = b"\x09" * 16

KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from chappe.client.store_sqlite import SqliteStore
from chappe.client.store import Batch
from tests.client.model_edge import DEVICE, ME, message_item

store = SqliteStore(Path(sys.argv[1]), ME, DEVICE)
whole = Batch()
whole.items = [message_item(number) for number in range(1, 6)]
whole.cursor = b"five"
store.commit(whole)


class Poisoned(list):
    def __iter__(self):
        yield from (message_item(number) for number in range(6, 9))
        os.kill(os.getpid(), signal.SIGKILL)


torn = Batch()
torn.items = Poisoned()
torn.cursor = b"eight"
store.commit(torn)
"""


def put(store: SqliteStore, message_id: bytes = b"", draft: int = 1) -> Outgoing:
    outgoing = Outgoing("message", PEER, CONVERSATION, message_action(PEER, 1, b"hello"))
    outgoing.draft = draft
    outgoing.message_id = message_id
    batch = Batch()
    batch.rows = [outgoing.row()]
    store.commit(batch)
    return outgoing


def settle(store: SqliteStore, settled: Sent | SendRefused) -> None:
    batch = Batch()
    batch.settled = [settled]
    store.commit(batch)


def receive(store: SqliteStore, *numbers: int) -> None:
    batch = Batch()
    batch.items = [message_item(number) for number in numbers]
    store.commit(batch)


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "store.db", ME, DEVICE)


def test_a_kill_inside_a_transaction_leaves_the_one_before(tmp_path: Path, root: Path) -> None:
    path = tmp_path / "store.db"

    ended = subprocess.run([sys.executable, "-c", KILLED_WRITER, path], cwd=root, check=False, timeout=30)

    store = SqliteStore(path, ME, DEVICE)
    assert ended.returncode == -9
    assert store.load().cursor == b"five"
    assert len(store.unseen(100)) == 5


def test_an_entry_is_found_again_with_its_bytes_and_as_a_later_attempt(store: SqliteStore) -> None:
    outgoing = put(store, b"i" * 16)

    (found,) = store.load().outgoing

    assert (found.message_id, found.action, found.attempt) == (outgoing.message_id, outgoing.action, 1)
    assert found.is_durable


def test_a_number_of_the_outbox_is_never_used_twice(store: SqliteStore) -> None:
    outgoing = put(store, b"i" * 16, draft=7)
    settle(store, Sent(outgoing, 5, is_duplicate=False))

    restored = store.load()

    assert (list(restored.outgoing), restored.next_draft, restored.last_minted) == ([], 8, b"i" * 16)


def test_a_sent_message_is_in_the_chat(store: SqliteStore) -> None:
    settle(store, Sent(put(store, b"i" * 16), 5, is_duplicate=False))

    (message,) = store.messages(CONVERSATION, b"", 10)

    assert (message.sender_id, message.recipient_id, message.content, message.accepted_ms) == (ME, PEER, b"hello", 5)
    assert store.unseen(10) == []


def test_a_refused_message_is_not_sent_again(store: SqliteStore) -> None:
    settle(store, SendRefused(put(store, b"i" * 16), "RECIPIENT_NOT_FOUND", "nobody"))

    assert list(store.load().outgoing) == []
    assert store.messages(CONVERSATION, b"", 10) == []


def test_pages_run_from_the_newest_back(store: SqliteStore) -> None:
    receive(store, 2, 1, 3)

    page = store.messages(CONVERSATION, b"", 2)
    rest = store.messages(CONVERSATION, page[-1].message_id, 2)

    ids = [message_item(number).message.message_id for number in (3, 2, 1)]
    assert [message.message_id for message in (*page, *rest)] == ids


def test_a_seen_message_is_not_unseen(store: SqliteStore) -> None:
    receive(store, 1, 2)

    store.mark_seen([message_item(1).message.message_id])

    assert [message.message_id for message in store.unseen(10)] == [message_item(2).message.message_id]


def test_a_receipt_may_come_before_its_message(store: SqliteStore) -> None:
    batch = Batch()
    batch.items = [receipt_item(1, [b"i" * 16], 2)]
    store.commit(batch)

    settle(store, Sent(put(store, b"i" * 16), 5, is_duplicate=False))

    assert [message.state for message in store.messages(CONVERSATION, b"", 10)] == [2]


def test_chats_know_how_far_they_were_read(store: SqliteStore) -> None:
    receive(store, 1, 2)
    upto = message_item(1).message.message_id
    outgoing = Outgoing("read", PEER, CONVERSATION, read_action(Destination(CONVERSATION, PEER), upto))
    settle(store, Sent(outgoing, 5, is_duplicate=False))

    (chat,) = store.chats()

    assert (chat.peer_id, chat.read_upto) == (PEER, upto)
    assert chat.last_message_id == message_item(2).message.message_id


def test_people_are_remembered_with_both_names(store: SqliteStore) -> None:
    person = Person(PEER, "+441632960002", "Bob", "Robert")

    store.remember([person])

    assert store.people() == [person]


@pytest.mark.parametrize("is_old", [False, True])
def test_messages_are_for_their_user_alone_whoever_made_the_folder(tmp_path: Path, *, is_old: bool) -> None:
    tmp_path.chmod(0o755)
    if is_old:
        for name in ("store.db", "store.db-wal", "store.db-shm"):
            (tmp_path / name).touch(mode=0o644)

    store = SqliteStore(tmp_path / "store.db", ME, DEVICE)
    put(store)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(("store.db", "store.db-wal", "store.db-shm"), 0o600)
    store.close()


def test_a_store_in_a_folder_that_is_missing_is_said_to_be_one(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="cannot be opened"):
        SqliteStore(tmp_path / "missing" / "store.db", ME, DEVICE)


def test_a_file_of_a_newer_version_is_not_touched(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 99")
    database.close()

    with pytest.raises(StoreError, match="newer version"):
        SqliteStore(path, ME, DEVICE)


def test_a_file_that_is_no_database_is_said_to_be_none(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"not a database" * 100)

    with pytest.raises(StoreError, match=r"store\.db cannot be opened"):
        SqliteStore(path, ME, DEVICE)


def test_a_message_to_a_group_makes_a_chat_with_nobody_in_particular(store: SqliteStore) -> None:
    outgoing = Outgoing("message", b"", GROUP, group_message_action(GROUP, 3, 1, b"hello"))
    outgoing.message_id = b"i" * 16
    settle(store, Sent(outgoing, 5, is_duplicate=False))

    batch = Batch()
    batch.items = [message_item(1)]
    batch.items[0].message.conversation_id = batch.items[0].message.group_id = GROUP
    batch.items[0].message.recipient_user_id = b""
    store.commit(batch)

    (chat,) = store.chats()
    assert (chat.conversation_id, chat.peer_id) == (GROUP, b"")
    assert [message.recipient_id for message in store.messages(GROUP, b"", 10)] == [b"", b""]
