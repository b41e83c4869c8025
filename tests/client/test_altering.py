"""What becomes of messages in the local store: edited, taken back, hidden, reacted to, cleared, expired."""

import itertools
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from chappe.api.edge.v1 import item_pb2
from chappe.api.type.v1 import envelope_pb2
from chappe.client import store_schema
from chappe.client.changes import (
    LogChange,
    MessageArrived,
    MessageEdited,
    MessageExpired,
    MessageReacted,
    MessageRevoked,
    Sent,
    SettingsChanged,
)
from chappe.client.destination import Destination
from chappe.client.frames import edit_action, message_action, reaction_action, revoke_action
from chappe.client.outgoing import Kind, Outgoing
from chappe.client.store import Batch, StoredMessage
from chappe.client.store_sqlite import SqliteStore
from tests.client.model_edge import CONVERSATION, DEVICE, ME, PEER, message_item

CHAT = Destination(CONVERSATION, PEER)
NOW_MS = 1_790_000_000_000


def id_of(number: int, kind: bytes = b"x") -> bytes:
    """Returns the id of an action; a greater number sorts later."""
    return (NOW_MS + number).to_bytes(6, "big") + b"\x70\x00\x80" + kind * 7


def position(number: int) -> bytes:
    return (NOW_MS + number).to_bytes(6, "big") + b"\x70\x00\x80" + bytes(7)


def envelope(content: bytes) -> envelope_pb2.Envelope:
    return envelope_pb2.Envelope(suite=envelope_pb2.ENCRYPTION_SUITE_NONE, content=content)


def edit(message: item_pb2.Item, number: int, content: bytes) -> item_pb2.Item:
    event = item_pb2.EditEvent(
        conversation_id=CONVERSATION,
        message_id=message.message.message_id,
        edit_id=id_of(number),
        sender_user_id=PEER,
        edited_ms=NOW_MS + number,
        envelope=envelope(content),
    )
    return item_pb2.Item(position=position(number), edit=event)


def revoke(message: item_pb2.Item, number: int, *, is_for_me: bool = False) -> item_pb2.Item:
    event = item_pb2.RevokeEvent(
        conversation_id=CONVERSATION,
        message_id=message.message.message_id,
        revoke_id=id_of(number),
        user_id=PEER,
        revoked_ms=NOW_MS + number,
        is_for_me=is_for_me,
    )
    return item_pb2.Item(position=position(number), revoke=event)


def react(message: item_pb2.Item, number: int, content: bytes, user: bytes = PEER) -> item_pb2.Item:
    event = item_pb2.ReactionEvent(
        conversation_id=CONVERSATION,
        message_id=message.message.message_id,
        reaction_id=id_of(number),
        user_id=user,
        reacted_ms=NOW_MS + number,
        envelope=envelope(content) if content else None,
    )
    return item_pb2.Item(position=position(number), reaction=event)


def settings(number: int, **kept: object) -> item_pb2.Item:
    """Returns a change of settings; what they clear they clear at that moment, unless they say otherwise."""
    if "cleared_upto" in kept:
        kept.setdefault("cleared_ms", NOW_MS + number)
    event = item_pb2.ConversationSettingEvent(
        conversation_id=CONVERSATION,
        settings=item_pb2.ConversationSettings(**kept),  # type: ignore[arg-type]  # whatever a test sets
    )
    return item_pb2.Item(position=position(number), conversation_setting=event)


def message(number: int = 1, content: bytes = b"said", **fields: int) -> item_pb2.Item:
    item = message_item(number)
    item.message.envelope.content = content
    item.message.accepted_ms = NOW_MS
    for name, value in fields.items():
        setattr(item.message, name, value)
    return item


def commit(store: SqliteStore, *items: item_pb2.Item, now_ms: int = NOW_MS) -> list[LogChange]:
    batch = Batch()
    batch.items = list(items)
    batch.now_ms = now_ms
    return store.commit(batch)


def seen(store: SqliteStore) -> list[StoredMessage]:
    return store.messages(CONVERSATION, b"", 100)


def holds(folder: Path, words: bytes) -> bool:
    """Tells whether words stand anywhere in the files of a store."""
    return any(words in file.read_bytes() for file in folder.iterdir())


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    return SqliteStore(tmp_path / "store.db", ME, DEVICE)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_the_greatest_edit_stands_in_whatever_order_events_come(store: SqliteStore, order: tuple[int, ...]) -> None:
    said = message()
    items = [said, *(edit(said, number, b"edit %d" % number) for number in (1, 2, 3))]

    for n in order:
        commit(store, items[n])

    (stored,) = seen(store)
    assert (stored.content, stored.edited_ms) == (b"edit 3", NOW_MS + 3)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4))))
def test_what_was_taken_back_stays_so_in_whatever_order_events_come(
    store: SqliteStore, tmp_path: Path, order: tuple[int, ...]
) -> None:
    said = message(content=b"planted secret")
    items = [said, edit(said, 1, b"planted secret, too"), revoke(said, 2), react(said, 3, b"planted secret reaction")]

    for n in order:
        commit(store, items[n])

    (stored,) = seen(store)
    assert (stored.content, stored.revoked_ms, stored.reactions) == (b"", NOW_MS + 2, ())
    store.close()
    assert not holds(tmp_path, b"planted secret")


def test_events_are_told_once(store: SqliteStore) -> None:
    said = message()
    items = [said, edit(said, 1, b"new"), react(said, 2, b":)"), settings(3, pinned_ms=5), revoke(said, 4)]

    changes = commit(store, *items)
    again = commit(store, *items[1:])

    kinds = [MessageArrived, MessageEdited, MessageReacted, SettingsChanged, MessageRevoked]
    assert [type(change) for change in changes] == kinds
    assert again == []


def test_a_message_that_comes_with_a_newer_edit_than_was_told_has_its_content(store: SqliteStore) -> None:
    said = message(content=b"newest", edited_ms=NOW_MS + 9)

    commit(store, edit(said, 1, b"older"), said)

    assert seen(store)[0].content == b"newest"


def test_a_page_that_knows_of_a_newer_edit_than_the_store_brings_it(store: SqliteStore) -> None:
    commit(store, message(1, b"helo"))

    changes = commit(store, message(1, b"hello", edited_ms=NOW_MS + 9))
    changes += commit(store, message(1, b"hell", edited_ms=NOW_MS + 5), message(1, b"helo"))

    assert changes == []
    assert [(one.content, one.edited_ms) for one in seen(store)] == [(b"hello", NOW_MS + 9)]


def test_a_page_brings_no_content_back_that_was_taken_back(store: SqliteStore) -> None:
    said = message(1, b"helo")

    commit(store, said, revoke(said, 2), message(1, b"hello", edited_ms=NOW_MS + 1))

    assert [one.content for one in seen(store)] == [b""]


def test_a_message_that_comes_taken_back_has_no_content(store: SqliteStore) -> None:
    said = message(revoked_ms=NOW_MS)
    said.message.ClearField("envelope")

    commit(store, said)

    assert [(stored.content, stored.revoked_ms) for stored in seen(store)] == [(b"", NOW_MS)]


def test_a_message_that_comes_behind_what_was_done_to_it_is_told_as_it_is(store: SqliteStore) -> None:
    edited, taken_back = message(1), message(2, b"planted secret")
    commit(store, edit(edited, 5, b"new"), edit(taken_back, 6, b"planted secret, too"), revoke(taken_back, 7))

    changes = commit(store, edited, taken_back)

    told = [change.message for change in changes if isinstance(change, MessageArrived)]
    assert [(one.envelope.content, one.edited_ms, one.revoked_ms) for one in told] == [
        (b"new", NOW_MS + 5, 0),
        (b"", 0, NOW_MS + 7),
    ]
    assert not told[1].HasField("envelope")


def test_who_took_a_message_back_is_told_though_the_log_shows_the_message_again_before(store: SqliteStore) -> None:
    said = message()
    commit(store, said)
    again = message(revoked_ms=NOW_MS)
    again.message.ClearField("envelope")

    assert commit(store, again) == []
    assert seen(store)[0].content == b""

    assert [type(change) for change in commit(store, revoke(said, 1))] == [MessageRevoked]
    assert commit(store, again, revoke(said, 1)) == []
    assert seen(store)[0].revoked_ms > 0


def test_a_page_of_history_takes_a_message_back(store: SqliteStore) -> None:
    said = message()
    commit(store, said)
    page = message(revoked_ms=NOW_MS)
    page.ClearField("position")

    commit(store, page)

    assert [(stored.content, stored.revoked_ms) for stored in seen(store)] == [(b"", NOW_MS)]


def test_a_hidden_message_is_gone_and_does_not_come_back(store: SqliteStore) -> None:
    said, other = message(1), message(2)
    commit(store, said, other)

    commit(store, revoke(said, 1, is_for_me=True))
    changes = commit(store, said)

    assert changes == []
    assert [stored.message_id for stored in seen(store)] == [other.message.message_id]


def test_nothing_that_is_done_to_a_hidden_message_is_kept_or_told(store: SqliteStore, tmp_path: Path) -> None:
    said = message()
    commit(store, said, revoke(said, 1, is_for_me=True))

    # A push knows nothing of what one of its readers has hidden.
    changes = commit(store, edit(said, 2, b"planted secret"), react(said, 3, b"planted secret reaction"))

    assert changes == []
    store.close()
    assert not holds(tmp_path, b"planted secret")


def test_of_each_person_the_greatest_reaction_stands(store: SqliteStore) -> None:
    said = message()

    commit(store, said, react(said, 2, b":)"), react(said, 1, b":("), react(said, 3, b":D", user=ME))

    assert [(one.user_id, one.content) for one in seen(store)[0].reactions] == [(ME, b":D"), (PEER, b":)")]
    commit(store, react(said, 4, b""))
    assert [one.user_id for one in seen(store)[0].reactions] == [ME]


def test_a_cleared_chat_is_empty_but_for_what_was_accepted_later(store: SqliteStore) -> None:
    first, second, late = message(1), message(5), message(3, b"late", accepted_ms=NOW_MS + 20)
    commit(store, first, second)

    commit(store, settings(10, cleared_upto=second.message.message_id))
    commit(store, first, late)

    assert [stored.content for stored in seen(store)] == [b"late"]


def test_what_came_after_a_chat_was_cleared_stays_when_its_settings_change_later(store: SqliteStore) -> None:
    first, second, late = message(1), message(5), message(3, b"late", accepted_ms=NOW_MS + 20)
    commit(store, first, second)
    upto = second.message.message_id
    commit(store, settings(10, cleared_upto=upto))
    commit(store, late)

    commit(store, settings(30, cleared_upto=upto, cleared_ms=NOW_MS + 10, is_archived=True))

    assert [stored.content for stored in seen(store)] == [b"late"]


def test_what_was_cleared_is_nowhere_in_the_file(store: SqliteStore, tmp_path: Path) -> None:
    said = message(content=b"planted secret")
    commit(store, said, edit(said, 1, b"planted secret, too"), react(said, 2, b"planted secret reaction"))

    commit(store, settings(5, cleared_upto=said.message.message_id))
    changes = commit(store, edit(said, 6, b"planted secret, later"), react(said, 7, b"planted secret reaction"))

    assert (seen(store), changes) == ([], [])
    store.close()
    assert not holds(tmp_path, b"planted secret")


def test_settings_of_an_earlier_place_in_the_log_change_nothing(store: SqliteStore) -> None:
    commit(store, message(), settings(2, expiry_s=60, is_archived=True, muted_until_ms=7))

    commit(store, settings(1, expiry_s=30))

    (chat,) = store.chats()
    assert (chat.expiry_s, chat.is_archived, chat.muted_until_ms) == (60, True, 7)
    assert store.settings.expiry_s(CONVERSATION) == 60
    assert store.settings.expiry_s(b"?" * 16) == 0


def test_an_archived_chat_comes_back_when_somebody_writes(store: SqliteStore) -> None:
    commit(store, message(1), settings(5, is_archived=True))
    commit(store, message(2, accepted_ms=NOW_MS + 4))
    is_archived_before = store.chats()[0].is_archived

    commit(store, message(3, accepted_ms=NOW_MS + 6))

    assert (is_archived_before, store.chats()[0].is_archived) == (True, False)


def test_pinned_chats_come_first(store: SqliteStore) -> None:
    other = message(9)
    other.message.conversation_id = b"o" * 16
    commit(store, message(1), other, settings(5, pinned_ms=NOW_MS))

    assert [chat.conversation_id for chat in store.chats()] == [CONVERSATION, b"o" * 16]


def test_what_has_disappeared_is_nowhere_in_the_file(store: SqliteStore, tmp_path: Path) -> None:
    said = message(content=b"planted secret", expires_ms=NOW_MS + 1000)
    commit(store, said, edit(said, 1, b"planted secret, too"), react(said, 2, b"planted secret reaction"))
    assert store.next_expiry_ms() == NOW_MS + 1000
    assert store.expire(NOW_MS + 999) == []

    changes = store.expire(NOW_MS + 1000)

    assert changes == [MessageExpired(CONVERSATION, said.message.message_id)]
    assert (seen(store), store.next_expiry_ms()) == ([], 0)
    store.close()
    assert not holds(tmp_path, b"planted secret")


def test_an_edit_of_what_was_hidden_is_not_told_and_nowhere_in_the_file(store: SqliteStore, tmp_path: Path) -> None:
    said = message()
    commit(store, said, revoke(said, 1, is_for_me=True))

    assert commit(store, edit(said, 2, b"planted secret")) == []

    store.close()
    assert not holds(tmp_path, b"planted secret")


def test_what_disappeared_on_its_way_is_never_shown(store: SqliteStore) -> None:
    assert commit(store, message(expires_ms=NOW_MS + 1), now_ms=NOW_MS + 1) == []
    assert seen(store) == []


@pytest.mark.parametrize(
    ("kind", "action", "shown"),
    [
        ("edit", lambda id_: edit_action(CHAT, id_, 1, b"new"), (b"new", 0, 0)),
        ("revoke", lambda id_: revoke_action(CHAT, id_, is_for_me=False), (b"", NOW_MS + 7, 0)),
        ("revoke", lambda id_: revoke_action(CHAT, id_, is_for_me=True), None),
        ("reaction", lambda id_: reaction_action(CHAT, id_, 1, b":)"), (b"said", 0, 1)),
        ("reaction", lambda id_: reaction_action(CHAT, id_, 1, b""), (b"said", 0, 0)),
    ],
)
def test_what_one_did_oneself_is_applied_once_it_is_durable(
    store: SqliteStore, kind: Kind, action: Callable[[bytes], bytes], shown: tuple[bytes, int, int] | None
) -> None:
    said = message()
    commit(store, said)
    outgoing = Outgoing(kind, PEER, CONVERSATION, action(said.message.message_id))
    outgoing.draft, outgoing.message_id = 1, id_of(5)
    batch = Batch()
    batch.settled = [Sent(outgoing, NOW_MS + 7, is_duplicate=False)]

    store.commit(batch)

    found = [(stored.content, stored.revoked_ms, len(stored.reactions)) for stored in seen(store)]
    assert found == ([] if shown is None else [shown])


def test_an_own_message_knows_when_it_disappears(store: SqliteStore) -> None:
    outgoing = Outgoing("message", PEER, CONVERSATION, message_action(PEER, 1, b"brief", expiry_s=60))
    outgoing.draft, outgoing.message_id = 1, id_of(1)
    batch = Batch()
    batch.settled = [Sent(outgoing, NOW_MS, is_duplicate=False)]

    store.commit(batch)

    assert [stored.expires_ms for stored in seen(store)] == [NOW_MS + 60_000]


def test_a_file_of_the_first_version_is_brought_up_to_date(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    old = sqlite3.connect(path)
    old.executescript(f"BEGIN;{store_schema._FIRST}PRAGMA user_version = 1;COMMIT;")
    said = message(1).message
    old.execute(
        "INSERT INTO messages VALUES (1, ?, ?, ?, 1, ?, ?, 1, x'61', 0)",
        (said.message_id, CONVERSATION, PEER, ME, NOW_MS),
    )
    old.execute("INSERT INTO conversations VALUES (?, ?, ?, x'')", (CONVERSATION, PEER, said.message_id))
    old.commit()
    old.close()

    for _ in range(2):
        store = SqliteStore(path, ME, DEVICE)
        assert [stored.content for stored in seen(store)] == [b"a"]
        assert [chat.peer_id for chat in store.chats()] == [PEER]
        store.close()
