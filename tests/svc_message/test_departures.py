"""What every store of the ledger shows to somebody who has left a group: what stood when it left."""

import time

import psycopg
import pytest

from chappe.runtime.clock import SystemClock
from svc_message.adapters.ledger_cassandra.bodies import BodyKey
from svc_message.adapters.ledger_cassandra.cells import LINGER_S
from svc_message.adapters.ledger_cassandra.connection import Connection, Read
from svc_message.adapters.ledger_cassandra.message_store import CassandraMessageStore
from svc_message.model import NO_POSITION, Departure, Event, InboxRead, MessageEvent, PageRead, StoredMessage, UserId
from svc_message.model.action import ActionKind, EditEvent, NewAction, ReactionEvent, event_of
from svc_message.model.group import Expansion, GroupLine, NewGroupMessage, Window
from tests.svc_message.cut import Cut
from tests.svc_message.group_desk import Books, GroupDesk

EDIT, REVOKE, HIDE, REACTION = ActionKind
WHOLE = (Window(1, 0),)
LEFT = (Window(1, 2),)
"""Of somebody whom the second version of the group is without."""
RETURNED = (Window(1, 2), Window(3, 0))


async def said(books: Books, desk: GroupDesk, *, expiry_s: int = 0, accepted_ms: int = 0) -> NewGroupMessage:
    """Stores a message of alice's to the first version of the group, and tells everybody."""
    message = desk.say(b"sent")._replace(expiry_s=expiry_s)
    message = message._replace(accepted_ms=accepted_ms or message.accepted_ms)
    await books.groups.accept(desk.shard, [message])
    await books.groups.expand([desk.expand(message)], [desk.touch(message)])
    return message


async def done(books: Books, desk: GroupDesk, *actions: NewAction) -> None:
    """Carries actions out one by one, and tells bob and carol of each."""
    for action in actions:
        await books.groups.act(desk.shard, [action])
        event = event_of(action, action.accepted_ms)
        await books.groups.expand([Expansion(desk.group_id, desk.position(), (event,), (desk.bob, desk.carol))], [])


async def page(books: Books, desk: GroupDesk, windows: tuple[Window, ...]) -> StoredMessage:
    """Returns the only message as bob sees it in history; the chat list shows the same."""
    (stored,) = await books.groups.read_page(PageRead(desk.bob, desk.group_id, b"", b"", 10), windows)
    (chat,) = await books.groups.read_chats(desk.bob, [GroupLine(desk.group_id, windows)])
    assert chat.last_message == stored
    return stored


async def inbox(books: Books, desk: GroupDesk, left_version: int = 0, reader: UserId | None = None) -> list[Event]:
    departures = (Departure(desk.group_id, left_version),) if left_version else ()
    (found,) = await books.store.read_inbox([InboxRead(reader or desk.bob, NO_POSITION, 100, departures)])
    return found.events


def says(event: Event) -> bytes:
    assert isinstance(event, MessageEvent | EditEvent | ReactionEvent)
    return event.envelope


def reactions(stored: StoredMessage) -> set[bytes]:
    return {reaction.envelope for reaction in stored.reactions}


async def test_who_has_left_sees_a_message_as_it_stood_then(books: Books, group_desk: GroupDesk) -> None:
    message = await said(books, group_desk)
    before, after = (
        group_desk.do(message, EDIT, text)._replace(group_version=version)
        for text, version in ((b"before", 1), (b"after", 2))
    )
    await done(books, group_desk, before, after)

    for windows, edit in ((LEFT, before), (WHOLE, after), (RETURNED, after)):
        event = (await page(books, group_desk, windows)).message
        assert (event.envelope, event.edited_ms) == (edit.envelope, edit.accepted_ms)


async def test_who_has_left_sees_what_was_sent_when_every_edit_is_later(books: Books, group_desk: GroupDesk) -> None:
    message = await said(books, group_desk)
    edits = [group_desk.do(message, EDIT, text)._replace(group_version=2) for text in (b"later", b"latest")]
    await done(books, group_desk, *edits)

    event = (await page(books, group_desk, LEFT)).message

    assert (event.envelope, event.edited_ms) == (b"sent", 0)
    assert (await page(books, group_desk, WHOLE)).message.envelope == b"latest"


@pytest.mark.parametrize("is_late_first", [False, True])
async def test_what_stood_is_the_same_in_whatever_order_edits_come(
    books: Books, group_desk: GroupDesk, *, is_late_first: bool
) -> None:
    message = await said(books, group_desk)
    small = group_desk.do(message, EDIT, b"small")._replace(group_version=1)
    middle = group_desk.do(message, EDIT, b"middle")._replace(group_version=1)
    great = group_desk.do(message, EDIT, b"great")._replace(group_version=2)
    await done(books, group_desk, *((great, middle, small) if is_late_first else (small, middle, great)))

    assert (await page(books, group_desk, LEFT)).message.envelope == b"middle"
    assert (await page(books, group_desk, WHOLE)).message.envelope == b"great"
    assert [says(event) for event in await inbox(books, group_desk, 2) if isinstance(event, EditEvent)] == [b"middle"]


async def test_a_retry_of_a_later_version_repeats_the_first_decision(books: Books, group_desk: GroupDesk) -> None:
    message = await said(books, group_desk)
    edit = group_desk.do(message, EDIT, b"before")._replace(group_version=1)
    again = edit._replace(position=group_desk.position(), group_version=2)
    late = group_desk.do(message, EDIT, b"after")._replace(group_version=2)
    await done(books, group_desk, edit, again, late)
    late_again = late._replace(position=group_desk.position(), group_version=1)
    await done(books, group_desk, late_again)

    assert (await page(books, group_desk, LEFT)).message.envelope == b"before"
    assert (await page(books, group_desk, WHOLE)).message.envelope == b"after"


async def test_edits_of_one_batch_are_kept_by_version(books: Books, group_desk: GroupDesk) -> None:
    message = await said(books, group_desk)
    edits = [
        group_desk.do(message, EDIT, text)._replace(group_version=version)
        for text, version in ((b"one", 1), (b"two", 1), (b"three", 2))
    ]

    await books.groups.act(group_desk.shard, edits)

    assert (await page(books, group_desk, LEFT)).message.envelope == b"two"
    assert (await page(books, group_desk, WHOLE)).message.envelope == b"three"


async def test_who_has_left_sees_the_reactions_that_stood_then(books: Books, group_desk: GroupDesk) -> None:
    message = await said(books, group_desk)
    plan = [
        (group_desk.carol, b"heart", 1),
        (group_desk.bob, b"smile", 1),
        (group_desk.carol, b"frown", 2),
        (group_desk.bob, b"", 2),
        (group_desk.alice, b"thumb", 2),
    ]
    actions = [
        group_desk.do(message, REACTION, text, user=user)._replace(group_version=version)
        for user, text, version in plan
    ]
    await done(books, group_desk, *actions)

    assert reactions(await page(books, group_desk, LEFT)) == {b"heart", b"smile"}
    assert reactions(await page(books, group_desk, WHOLE)) == {b"frown", b"thumb"}
    assert reactions(await page(books, group_desk, RETURNED)) == {b"frown", b"thumb"}
    shown = [says(event) for event in await inbox(books, group_desk, 2) if isinstance(event, ReactionEvent)]
    assert set(shown) == {b"heart", b"smile"}


async def test_an_inbox_shows_to_who_has_left_what_stood_then(books: Books, group_desk: GroupDesk) -> None:
    message = await said(books, group_desk)
    before = group_desk.do(message, EDIT, b"before")._replace(group_version=1)
    after = group_desk.do(message, EDIT, b"after")._replace(group_version=2)
    await done(books, group_desk, before, after)

    assert [says(event) for event in await inbox(books, group_desk)] == [b"after", b"after"]
    assert [says(event) for event in await inbox(books, group_desk, 2)] == [b"before", b"before"]


async def test_messages_that_share_a_row_are_shown_as_they_stood_then(books: Books, group_desk: GroupDesk) -> None:
    one, two = group_desk.say(b"one"), group_desk.say(b"two")
    await books.groups.accept(group_desk.shard, [one, two])
    await books.groups.expand([group_desk.expand(one, two)], [])
    await books.groups.act(group_desk.shard, [group_desk.do(one, EDIT, b"later")._replace(group_version=2)])

    assert [says(event) for event in await inbox(books, group_desk)] == [b"later", b"two"]
    assert [says(event) for event in await inbox(books, group_desk, 2)] == [b"one", b"two"]


async def test_readers_of_one_batch_see_each_what_stood_for_it(books: Books, group_desk: GroupDesk) -> None:
    message = await said(books, group_desk)
    await done(books, group_desk, group_desk.do(message, EDIT, b"after")._replace(group_version=2))
    departure = Departure(group_desk.group_id, 2)

    pages = await books.store.read_inbox(
        [
            InboxRead(group_desk.bob, NO_POSITION, 10, (departure,)),
            InboxRead(group_desk.carol, NO_POSITION, 10),
        ]
    )

    assert [[says(event) for event in one.events] for one in pages] == [[b"sent"], [b"after", b"after"]]


async def test_a_page_names_the_groups_of_which_something_was_altered(books: Books, group_desk: GroupDesk) -> None:
    message = await said(books, group_desk)

    async def named() -> list[frozenset[bytes]]:
        reads = [InboxRead(user_id, NO_POSITION, 10) for user_id in (group_desk.bob, group_desk.alice)]
        return [frozenset(one.altered_groups) for one in await books.store.read_inbox(reads)]

    assert await named() == [frozenset(), frozenset()]
    await done(books, group_desk, group_desk.do(message, REACTION, b"+1")._replace(group_version=1))
    assert await named() == [{group_desk.group_id}, {group_desk.group_id}]


async def test_a_direct_page_names_no_group(books: Books, group_desk: GroupDesk) -> None:
    message = group_desk.write()
    await books.store.accept([message])
    await books.store.actions.act([group_desk.act(message, EDIT, b"new")])

    (found,) = await books.store.read_inbox([InboxRead(group_desk.bob, NO_POSITION, 10)])

    assert found.altered_groups == frozenset()
    assert len(found.events) == 2


async def test_what_is_taken_back_is_so_for_who_has_left(books: Books, group_desk: GroupDesk) -> None:
    message = await said(books, group_desk)
    revoke = group_desk.do(message, REVOKE)._replace(group_version=3)
    edit = group_desk.do(message, EDIT, b"after")._replace(group_version=2)
    reaction = group_desk.do(message, REACTION, b"+1")._replace(group_version=1)
    await done(books, group_desk, reaction, edit, revoke)

    stored = await page(books, group_desk, LEFT)

    assert (stored.message.envelope, stored.message.revoked_ms) == (b"", revoke.accepted_ms)
    assert stored.reactions == ()


async def test_no_row_holds_what_was_taken_back(postgres_books: Books, group_desk: GroupDesk, ledger_dsn: str) -> None:
    message = await said(postgres_books, group_desk)
    edit = group_desk.do(message, EDIT, b"after")._replace(group_version=2)
    reaction = group_desk.do(message, REACTION, b"+1")._replace(group_version=2)
    revoke = group_desk.do(message, REVOKE)._replace(group_version=2)

    await done(
        postgres_books, group_desk, edit, reaction, revoke, group_desk.do(message, EDIT)._replace(group_version=3)
    )

    assert await contents_left(ledger_dsn, message) == 0


async def test_what_was_said_before_disappears_with_its_message(
    postgres_books: Books, group_desk: GroupDesk, ledger_dsn: str
) -> None:
    now_ms = int(time.time() * 1000)
    message = await said(postgres_books, group_desk, expiry_s=60, accepted_ms=now_ms - 59_900)
    await done(postgres_books, group_desk, group_desk.do(message, EDIT, b"after")._replace(group_version=2))
    assert await contents_left(ledger_dsn, message) == 2

    while time.time() * 1000 < now_ms + 110 or await contents_left(ledger_dsn, message):
        await postgres_books.store.retention.expire(1000, NO_POSITION)


async def test_nothing_on_cassandra_holds_what_was_taken_back(
    cut: Cut, cassandra_books: Books, cassandra_connection: Connection, group_desk: GroupDesk
) -> None:
    message = await said(cassandra_books, group_desk)
    edit = group_desk.do(message, EDIT, b"after")._replace(group_version=2)
    reaction = group_desk.do(message, REACTION, b"+1")._replace(group_version=2)
    await done(cassandra_books, group_desk, edit, reaction)
    assert await kept(cassandra_connection, message) == [None, None]
    revoke = group_desk.do(message, REVOKE)._replace(group_version=2)

    async def meanwhile() -> None:
        await cassandra_books.groups.act(group_desk.shard, [revoke])

    cut.before_write = meanwhile
    late = group_desk.do(message, EDIT, b"late")._replace(group_version=3)
    await CassandraMessageStore(cut).groups.act(group_desk.shard, [late])  # type: ignore[arg-type]  # it stands for one

    assert await kept(cassandra_connection, message) == []
    assert (await page(cassandra_books, group_desk, LEFT)).message.envelope == b""


async def test_what_was_said_before_ends_on_cassandra_with_its_message(
    cassandra_books: Books, cassandra_connection: Connection, group_desk: GroupDesk
) -> None:
    message = await said(cassandra_books, group_desk, expiry_s=600, accepted_ms=int(time.time() * 1000))
    await done(
        cassandra_books,
        group_desk,
        group_desk.do(message, EDIT, b"after")._replace(group_version=2),
        group_desk.do(message, REACTION, b"+1")._replace(group_version=2),
    )

    left_s = await kept(cassandra_connection, message)

    assert len(left_s) == 2
    assert all(one is not None and 0 < one <= 600 + LINGER_S for one in left_s)


class FastClock(SystemClock):
    """A clock that is five seconds ahead: what it lets end does so earlier."""

    def wall_ms(self) -> int:
        return super().wall_ms() + 5000


async def test_the_greatest_edit_of_a_version_stands_on_cassandra_whichever_ends_last(
    cassandra_books: Books, cassandra_connection: Connection, group_desk: GroupDesk
) -> None:
    message = await said(cassandra_books, group_desk, expiry_s=600, accepted_ms=int(time.time() * 1000))
    small, great = (group_desk.do(message, EDIT, text)._replace(group_version=1) for text in (b"small", b"great"))

    await CassandraMessageStore(cassandra_connection, clock=FastClock()).groups.act(group_desk.shard, [great])
    await cassandra_books.groups.act(group_desk.shard, [small])

    assert (await page(cassandra_books, group_desk, LEFT)).message.envelope == b"great"


async def kept(connection: Connection, message: NewGroupMessage) -> list[int | None]:
    """Returns of what a message said once for how many seconds it is kept; None for ever."""
    query = "SELECT ttl(content) FROM group_contents WHERE conversation_id = ? AND bucket = ? AND message_id = ?"
    key = BodyKey(message.group_id, message.message_id)
    (rows,) = await connection.read([Read(query, (key.conversation_id, key.bucket, key.message_id))])
    return [left_s for (left_s,) in rows]


async def contents_left(dsn: str, message: NewGroupMessage) -> int:
    """Returns how many rows say what a message said once."""
    query = b"SELECT count(*) FROM group_contents WHERE message_id = %s"
    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        cursor = await connection.execute(query, (message.message_id.hex(),))
        found = await cursor.fetchone()
    assert found is not None
    return int(found[0])
