"""What every store of the ledger does with messages that disappear, and with what is old."""

import os
import time
from uuid import UUID

import pytest

from svc_message.adapters.inbox_rows import OWN_READ
from svc_message.adapters.message_store_postgres import PostgresMessageStore
from svc_message.model import (
    NO_POSITION,
    InboxPage,
    InboxRead,
    NewMessage,
    PageRead,
    Position,
    ReceiptEvent,
    UserId,
    Verdict,
)
from svc_message.model.action import ActionKind, ActionRef
from svc_message.model.group import GroupLine, Window
from svc_message.model.setting import SettingChange
from svc_message.protocol import position_at
from tests.svc_message.desk import START_MS, Book, Desk, action_ref, event, ids, inbox, page, ref
from tests.svc_message.group_desk import Books, GroupDesk, group_ref
from tests.svc_message.test_message_store_postgres import query

EXPIRY_S = 60
NOBODY_YET = Position(bytes(16))
EVERYTHING = Position(b"\xff" * 16)


def disappearing(message: NewMessage, *, is_over: bool = True) -> NewMessage:
    """Makes a message disappear: a minute ago, or in a minute."""
    now_ms = int(time.time() * 1000)
    accepted_ms = now_ms - EXPIRY_S * 1000 - 61_000 if is_over else now_ms
    return message._replace(expiry_s=EXPIRY_S, accepted_ms=accepted_ms)


async def remove(store: Book, spent_before: Position = EVERYTHING) -> None:
    """Removes everything that has disappeared, in steps of two."""
    while await store.retention.expire(2, spent_before):
        pass


@pytest.fixture(params=["just disappeared", "emptied", "removed"])
def stage(request: pytest.FixtureRequest) -> str:
    """Returns how far the retention has come with what has disappeared: everybody sees the same."""
    stage: str = request.param
    return stage


async def reach(store: Book, stage: str) -> None:
    """Lets the retention come so far."""
    if stage != "just disappeared":
        await remove(store, EVERYTHING if stage == "removed" else NOBODY_YET)


async def test_a_message_that_will_disappear_says_when(store: Book, desk: Desk) -> None:
    await store.accept([desk.write()])
    message = disappearing(desk.write(), is_over=False)
    await store.accept([message])
    await remove(store)

    expected = event(message)._replace(expires_ms=message.accepted_ms + EXPIRY_S * 1000)
    assert (await inbox(store, desk.bob))[-1] == expected
    assert (await page(store, desk.bob, message))[0].message == expected._replace(position=NO_POSITION)


async def test_nobody_sees_what_has_disappeared(store: Book, desk: Desk, stage: str) -> None:
    stays, gone = desk.write(), disappearing(desk.write())
    await store.accept([stays, gone])

    await reach(store, stage)

    for user in (desk.alice, desk.bob):
        assert await inbox(store, user) == [event(stays)]
        assert ids(await page(store, user, stays)) == [stays.message_id]
        (chat,) = (await store.list_chats(user, None, 10)).chats
        assert chat.last_message is not None
        assert chat.last_message.message.message_id == stays.message_id
        assert chat.unread_count == (user == desk.bob)


async def test_nothing_is_done_to_what_has_disappeared(store: Book, desk: Desk, stage: str) -> None:
    message = disappearing(desk.write())
    await store.accept([message])
    await reach(store, stage)
    actions = [desk.act(message, kind, b"late") for kind in ActionKind]

    sights = await store.actions.sight([action_ref(action) for action in actions])
    # As if it had disappeared between the look and the deed.
    await store.actions.act(actions)
    await remove(store)

    assert [sight.target for sight in sights] == [None] * len(actions)
    assert await page(store, desk.alice, message) == []
    assert all(not hasattr(event, "envelope") for event in await inbox(store, desk.bob))


async def test_a_retry_of_what_has_disappeared_is_known(store: Book, desk: Desk, stage: str) -> None:
    message = disappearing(desk.write())
    await store.accept([message])

    await reach(store, stage)

    (found,) = await store.find([ref(message)])
    assert found is not None
    assert (found.content_hash, found.accepted_ms, found.is_withheld) == (
        message.content_hash,
        message.accepted_ms,
        False,
    )
    # Some stores know before anything was removed.
    assert found.is_spent or stage == "just disappeared"
    assert await store.declare_void([ref(message)]) == [False]


async def test_a_retry_before_it_is_removed_completes_nothing_that_anybody_sees(store: Book, desk: Desk) -> None:
    message = disappearing(desk.write())
    await store.accept([message])

    (accepted,) = await store.accept([desk.retry(message)])

    assert (accepted.verdict, accepted.is_altered) == (Verdict.DUPLICATE, True)
    assert await inbox(store, desk.bob) == []


async def test_what_belongs_to_it_goes_with_it(store: Book, desk: Desk) -> None:
    message = disappearing(desk.write())
    await store.accept([message])
    await store.actions.act([desk.act(message, kind, b"early", is_withheld=True) for kind in ActionKind])

    await remove(store)

    assert await inbox(store, desk.alice) == []
    assert await store.retention.expire(10, EVERYTHING) == 0


async def test_receipts_of_what_has_disappeared_change_nothing(store: Book, desk: Desk, stage: str) -> None:
    stays, gone = desk.write(), disappearing(desk.write())
    await store.accept([stays, gone])
    await reach(store, stage)

    await store.apply_receipts([desk.receive(gone), desk.read(upto=gone.message_id)])
    await remove(store)

    (stored,) = await page(store, desk.alice, stays)
    assert stored.read_ms > 0
    (chat,) = (await store.list_chats(desk.bob, None, 10)).chats
    assert chat.unread_count == 0


async def test_a_receipt_goes_with_the_last_of_its_messages(store: Book, desk: Desk) -> None:
    stays, *gone = desk.write(), disappearing(desk.write()), disappearing(desk.write())
    await store.accept([stays, *gone])
    alone, mixed = desk.receive(*gone), desk.read(stays, *gone)
    for update in (alone, mixed):
        await store.apply_receipts([update])
    assert await receipts_of(store, desk) == [alone.position, mixed.position]

    await remove(store)

    assert await receipts_of(store, desk) == [mixed.position]


async def receipts_of(store: Book, desk: Desk) -> list[Position]:
    """Returns where alice's inbox tells of receipts."""
    return [event.position for event in await inbox(store, desk.alice) if isinstance(event, ReceiptEvent)]


async def test_what_has_just_disappeared_is_not_stored_anew_by_who_has_found_it_before(store: Book, desk: Desk) -> None:
    message = disappearing(desk.write())
    message = message._replace(accepted_ms=message.accepted_ms + 60_000)
    await store.accept([message])
    await remove(store)

    again = desk.retry(message)._replace(accepted_ms=int(time.time() * 1000))
    (answer,) = await store.accept([again])

    assert answer.verdict is not Verdict.STORED
    assert await inbox(store, desk.bob) == []


async def test_what_stays_is_left_alone(store: Book, desk: Desk) -> None:
    message = disappearing(desk.write(), is_over=False)
    await store.accept([message])
    await store.actions.act([desk.act(message, ActionKind.REACTION, b"+1", user=desk.bob)])
    await store.apply_receipts([desk.receive(message)])

    await remove(store)

    (stored,) = await page(store, desk.alice, message)
    assert stored.delivered_ms > 0
    assert [reaction.envelope for reaction in stored.reactions] == [b"+1"]


async def test_messages_to_groups_disappear_too(books: Books, group_desk: GroupDesk) -> None:
    store, gone = books.store, group_desk.say(b"hush")
    gone = gone._replace(expiry_s=EXPIRY_S, accepted_ms=int(time.time() * 1000) - EXPIRY_S * 1000 - 61_000)
    await books.journal.checkpoint(group_desk.shard, NO_POSITION)
    await books.groups.accept(group_desk.shard, [gone])
    await books.groups.expand([group_desk.expand(gone)], [group_desk.touch(gone)])
    assert await inbox(store, group_desk.bob) == []

    for _ in range(2):
        always = Window(1, 0)
        read = PageRead(group_desk.bob, group_desk.group_id, b"", b"", 10)
        assert await books.groups.read_page(read, [always]) == []
        (chat,) = await books.groups.read_chats(group_desk.bob, [GroupLine(group_desk.group_id, (always,))])
        assert (chat.last_message, chat.unread_count) == (None, 0)
        await remove(store)

    (found,) = await store.find([group_ref(gone)])
    assert found is not None
    assert found.is_spent


async def test_what_has_disappeared_is_not_told_by_those_who_adopt_its_shard(
    postgres_books: Books, group_desk: GroupDesk
) -> None:
    store, groups, journal = postgres_books.store, postgres_books.groups, postgres_books.journal
    gone, stays = group_desk.say(b"hush"), group_desk.say()
    gone = gone._replace(expiry_s=EXPIRY_S, accepted_ms=int(time.time() * 1000) - EXPIRY_S * 1000 - 61_000)
    await journal.checkpoint(group_desk.shard, NO_POSITION)
    await groups.accept(group_desk.shard, [gone, stays])

    await remove(store)

    (left,) = await journal.read(group_desk.shard, NO_POSITION, 10)
    assert left.position == stays.position
    assert not await journal.end(group_desk.shard, NO_POSITION)
    assert await journal.end(group_desk.shard, stays.position)


async def read_all(store: Book, user: UserId) -> InboxPage:
    (read,) = await store.read_inbox([InboxRead(user, NO_POSITION, 10_000)])
    return read


async def test_old_events_are_forgotten(store: Book, desk: Desk) -> None:
    day_ms = 86_400_000
    old = [desk.write()._replace(position=Position(desk.uuid7(START_MS - n * day_ms))) for n in range(300, 40, -1)]
    new = desk.write()
    await store.accept([*old, new])
    before, previous = position_at(START_MS - 30 * day_ms), UserId((int.from_bytes(desk.bob) - 1).to_bytes(16))

    last = await store.retention.forget(before, previous, 1)

    assert last == desk.bob
    assert await inbox(store, desk.bob) == [event(new)]
    assert len(await inbox(store, desk.alice)) == len(old) + 1
    assert ids(await page(store, desk.bob, new, limit=2)) == sorted(ids([*old, new]), reverse=True)[:2]


async def test_there_is_an_end_of_inboxes(store: Book, desk: Desk) -> None:
    await store.accept([desk.write()])

    assert await store.retention.forget(NO_POSITION, UserId(b"\xff" * 16), 10) is None


async def test_what_was_archived_while_somebody_wrote_comes_back(store: Book, desk: Desk) -> None:
    await store.accept([desk.write()])
    update = desk.keep(SettingChange(is_archived=True))
    await store.settings.change(update, NOBODY_YET)
    assert (await store.list_chats(desk.bob, None, 10)).chats == []
    await store.retention.wake(START_MS, position_at(START_MS - 1000))
    assert (await store.list_chats(desk.bob, None, 10)).chats == []

    await store.accept([desk.write()])
    await store.retention.wake(START_MS, position_at(START_MS - 1000))

    assert len((await store.list_chats(desk.bob, None, 10)).chats) == 1


async def test_what_was_archived_comes_back_for_a_message_that_was_long_on_its_way(store: Book, desk: Desk) -> None:
    late_id = desk.uuid7(START_MS - 300_000)
    await store.accept([desk.write() for _ in range(3)])
    await store.settings.change(desk.keep(SettingChange(is_archived=True)), NOBODY_YET)

    await store.accept([desk.write(message_id=late_id)])
    await store.retention.wake(START_MS, position_at(START_MS - 600_000))

    assert len((await store.list_chats(desk.bob, None, 10)).chats) == 1


async def test_an_action_on_what_has_disappeared_is_known_for_ever(store: Book, desk: Desk) -> None:
    message = disappearing(desk.write())
    await store.accept([message])
    action = desk.act(message, ActionKind.REACTION, b"+1")
    await store.actions.act([action])
    await remove(store)

    (sight,) = await store.actions.sight([action_ref(action)])
    (acted,) = await store.actions.act([desk.act_again(action)])

    assert sight.earlier is not None
    assert acted.verdict is Verdict.DUPLICATE
    assert not acted.is_standing
    assert await store.actions.declare_actions_void([ActionRef(*action_ref(action))]) == [False]


async def tables_with(dsn: str, text: str) -> set[str]:
    """Returns which tables say something, in any column of any row, large values included."""
    tables = await query(dsn, "SELECT relname FROM pg_stat_user_tables")
    asked = " UNION ALL ".join(
        f"SELECT '{table}' FROM {table} t WHERE strpos(t::text, '{text}') > 0"  # noqa: S608 - by names from the server
        for (table,) in tables
    )
    return {table for (table,) in await query(dsn, asked)}


async def test_nothing_of_what_has_disappeared_is_in_any_table(
    ledger_dsn: str, postgres_store: PostgresMessageStore, desk: Desk
) -> None:
    secret, large = os.urandom(16), os.urandom(16)
    texts = [secret, large * 4000, b"?", b"!"]
    messages = [disappearing(desk.write(text), is_over=False) for text in texts]
    await postgres_store.accept(messages)
    actions = [
        desk.act(messages[0], ActionKind.REACTION, secret),
        desk.act(messages[2], ActionKind.EDIT, secret),
        desk.act(messages[3], ActionKind.EDIT, large * 4000, is_withheld=True),
        desk.act(messages[3], ActionKind.REACTION, secret, user=desk.bob, is_withheld=True),
    ]
    await postgres_store.actions.act(actions)
    await postgres_store.apply_receipts([desk.receive(*messages), desk.read(upto=messages[-1].message_id)])
    assert await tables_with(ledger_dsn, secret.hex()) == {"messages", "reactions"}
    assert await tables_with(ledger_dsn, large.hex()) == {"messages", "private_views"}

    for table in ("messages", "reactions", "private_views", "inbox"):
        await query(ledger_dsn, f"UPDATE {table} SET expires_ms = 1 WHERE expires_ms IS NOT NULL")  # noqa: S608 - constants
    await postgres_store.retention.expire(100, NOBODY_YET)
    assert await tables_with(ledger_dsn, secret.hex()) == set()
    assert await tables_with(ledger_dsn, large.hex()) == set()
    await remove(postgres_store)

    # What tells a retry is a hash, and that something was done, or received, is no content.
    assert await tables_with(ledger_dsn, messages[0].content_hash.hex()) == {"disappeared"}
    conversation = str(UUID(bytes=messages[0].conversation_id))
    assert await tables_with(ledger_dsn, conversation) == {"disappeared", "actions", "conversations", "inbox"}
    # How far bob has read, for his other devices: the receipts that alice was told of have gone.
    kinds = f"SELECT DISTINCT kind FROM inbox WHERE conversation_id = '{conversation}'"  # noqa: S608 - an id
    assert await query(ledger_dsn, kinds) == [(OWN_READ,)]
