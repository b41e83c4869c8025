"""A row that cannot be read keeps nobody from what stands beside it, on either engine that keeps rows."""

import secrets
from struct import pack

import pytest

from svc_message.adapters.inbox_rows import FOREIGN, GROUP_RECEIPT, MESSAGES, OWN_READ, RECEIPT
from svc_message.adapters.ledger_cassandra.connection import Connection
from svc_message.model import NO_POSITION, InboxRead, NewMessage, PageRead, ReceiptState, UserId
from svc_message.model.action import ActionKind
from svc_message.model.group import Entry, GroupLine, NewGroupMessage, Shard, Undecodable, Window
from svc_message.model.receipt import Came, MemberAck
from svc_message.ports import MessageStore
from tests.svc_message.desk import Desk, event, ids, inbox, page, stranger
from tests.svc_message.group_desk import Books, GroupDesk, entry_of, placed
from tests.svc_message.spoil import Spoilt, SpoiltCassandra, SpoiltPostgres

LATER = 99
"""A kind that only a later program knows."""
ALWAYS = (Window(1, 0),)
SPOILT_ROWS = [
    pytest.param(LATER, b"?", id="a kind of later"),
    pytest.param(RECEIPT, b"", id="no receipt at all"),
    pytest.param(RECEIPT, b"\0\2", id="a receipt that is cut"),
    pytest.param(RECEIPT, pack("!hq16s", 2, 1, bytes(16)), id="a receipt for nothing"),
    pytest.param(RECEIPT, pack("!hq16s16s", 9, 1, bytes(16), bytes(16)), id="a state of later"),
    pytest.param(OWN_READ, b"\0", id="a read that is cut"),
    pytest.param(FOREIGN, b"\0", id="an event of another service that is cut"),
    pytest.param(MESSAGES, bytes(17), id="a part of an id"),
    pytest.param(MESSAGES, None, id="messages that are none"),
    pytest.param(GROUP_RECEIPT, bytes(9), id="a time that is too long"),
]
SPOILT_CELLS = [
    pytest.param("header", b"?", id="a header that is cut"),
    pytest.param("header", bytes(200), id="a header of later"),
    pytest.param("header", b"\xff" * 85, id="a time that is none"),
    pytest.param("edit", b"?", id="an edit that is cut"),
    pytest.param("edit", b"\xff" * 24, id="an edit of no time"),
    pytest.param("revoked", b"?", id="a time that is cut"),
]
SPOILT_BODIES = [case for case in SPOILT_CELLS if case.id != "a time that is none"]
"""Of messages on Cassandra, where they are bytes; a header of a direct message has 85."""


@pytest.fixture
def spoilt_postgres(ledger_dsn: str, postgres_books: Books) -> SpoiltPostgres:
    return SpoiltPostgres(ledger_dsn, postgres_books)


@pytest.fixture
def spoilt_cassandra(cassandra_connection: Connection, cassandra_books: Books) -> SpoiltCassandra:
    return SpoiltCassandra(cassandra_connection, cassandra_books)


@pytest.fixture(params=["postgres", "cassandra"])
def spoilt(request: pytest.FixtureRequest) -> Spoilt:
    """Returns every store of rows, one after the other."""
    found: Spoilt = request.getfixturevalue(f"spoilt_{request.param}")
    return found


async def three_messages(store: MessageStore, desk: Desk) -> list[NewMessage]:
    messages = [desk.write(b"%d" % n) for n in range(3)]
    await store.accept(messages)
    return messages


@pytest.mark.parametrize(("kind", "data"), SPOILT_ROWS)
async def test_84_a_row_of_an_inbox_that_cannot_be_read_is_passed_over(
    spoilt: Spoilt, desk: Desk, kind: int, data: bytes | None
) -> None:
    store, carol, met = spoilt.books.store, stranger(), spoilt.unreadable.rows
    first = desk.write()
    await store.accept([first])
    await spoilt.inbox(desk.bob, desk.position(), kind, data)
    second, other = desk.write(), desk.write(recipient=carol)
    await store.accept([second, other])

    pages = await store.read_inbox([InboxRead(user, NO_POSITION, 100) for user in (desk.bob, carol)])

    assert [one.events for one in pages] == [[event(first), event(second)], [event(other)]]
    assert pages[0].end == second.position
    assert spoilt.unreadable.rows == met + 1


async def test_84_a_log_that_ends_with_rows_that_cannot_be_read_is_read_to_its_end(spoilt: Spoilt, desk: Desk) -> None:
    store = spoilt.books.store
    (message, *_) = await three_messages(store, desk)
    positions = [desk.position() for _ in range(5)]
    for position in positions:
        await spoilt.inbox(desk.bob, position, LATER, b"?")

    after, ends, has_more = message.position, list[bytes](), True
    while has_more:
        (found,) = await store.read_inbox([InboxRead(desk.bob, after, 2)])
        after, has_more = found.end, found.has_more
        ends.append(after)

    assert ends == [(await inbox(store, desk.bob))[-1].position, positions[1], positions[3], positions[4]]


@pytest.mark.parametrize("data", [None, b"?"])
async def test_84_messages_that_are_none_do_not_end_a_log(spoilt: Spoilt, desk: Desk, data: bytes | None) -> None:
    store = spoilt.books.store
    await store.accept([desk.write()])
    await spoilt.inbox(desk.bob, desk.position(), MESSAGES, data)
    await store.accept([desk.write() for _ in range(2)])

    (found,) = await store.read_inbox([InboxRead(desk.bob, NO_POSITION, 3)])

    assert found.has_more


async def test_84_what_was_done_in_a_way_of_later_is_passed_over(spoilt: Spoilt, desk: Desk) -> None:
    store = spoilt.books.store
    first, second, third = await three_messages(store, desk)
    actions = [desk.act(message, ActionKind.EDIT, b"new") for message in (first, second, third)]
    await store.actions.act(actions)
    await spoilt.action(actions[1])

    events = await inbox(store, desk.bob, third.position)

    assert [one.position for one in events] == [actions[0].position, actions[2].position]
    assert len(await page(store, desk.bob, first)) == 3


@pytest.mark.parametrize(("column", "cell"), SPOILT_CELLS)
async def test_84_a_message_that_cannot_be_read_leaves_the_others_of_its_page(
    spoilt_cassandra: SpoiltCassandra, desk: Desk, column: str, cell: bytes
) -> None:
    store, carol = spoilt_cassandra.books.store, stranger()
    first, second, third = await three_messages(store, desk)
    other = desk.write(recipient=carol)
    await store.accept([other])
    for user in (desk.alice, desk.bob):
        await spoilt_cassandra.copy(user, second, column, cell)

    for user in (desk.alice, desk.bob):
        assert ids(await page(store, user, first)) == [third.message_id, first.message_id]
        assert ids(await page(store, user, first, before=third.message_id, limit=1)) == [first.message_id]
    reads = [InboxRead(user, NO_POSITION, 100) for user in (desk.bob, carol)]
    pages = await store.read_inbox(reads)
    assert [one.events for one in pages] == [[event(first), event(third)], [event(other)]]


@pytest.mark.parametrize(("column", "cell"), SPOILT_CELLS)
async def test_84_a_chat_whose_newest_message_cannot_be_read_shows_the_one_before(
    spoilt_cassandra: SpoiltCassandra, desk: Desk, column: str, cell: bytes
) -> None:
    store = spoilt_cassandra.books.store
    _, second, third = await three_messages(store, desk)
    await spoilt_cassandra.copy(desk.bob, third, column, cell)

    (chat,) = (await store.list_chats(desk.bob, None, 10)).chats

    assert chat.last_message is not None
    assert (chat.last_message.message.message_id, chat.unread_count) == (second.message_id, 2)


@pytest.mark.parametrize(("column", "cell"), SPOILT_CELLS)
async def test_84_receipts_of_many_are_raised_beside_a_message_that_cannot_be_read(
    spoilt_cassandra: SpoiltCassandra, desk: Desk, column: str, cell: bytes
) -> None:
    store, connection = spoilt_cassandra.books.store, spoilt_cassandra.connection
    first, second, third = await three_messages(store, desk)
    other = desk.write(sender=desk.bob, recipient=desk.alice)
    await store.accept([other])
    await spoilt_cassandra.copy(desk.bob, second, column, cell)
    # What this process has stored it need not read.
    store = type(store)(connection)  # type: ignore[call-arg]  # of Cassandra

    applied = await store.apply_receipts(
        [desk.read(upto=third.message_id), desk.receive(other, reader=desk.alice), desk.receive(second)]
    )

    assert [[one.message_ids for one in done.receipt_events] for done in applied] == [
        [(first.message_id, third.message_id)],
        [(other.message_id,)],
        [],
    ]


async def test_84_a_message_with_a_row_that_cannot_be_read_can_still_be_sent_again(
    spoilt_cassandra: SpoiltCassandra, desk: Desk
) -> None:
    store = spoilt_cassandra.books.store
    first, second, _ = await three_messages(store, desk)
    await spoilt_cassandra.copy(desk.bob, second, "header", b"?")

    answers = await store.accept([desk.retry(first), desk.retry(second)])

    assert [answer.accepted_ms for answer in answers] == [first.accepted_ms, second.accepted_ms]


async def test_84_a_reaction_that_cannot_be_read_leaves_the_others(
    spoilt_cassandra: SpoiltCassandra, desk: Desk
) -> None:
    store = spoilt_cassandra.books.store
    message, *_ = await three_messages(store, desk)
    reactions = [desk.act(message, ActionKind.REACTION, b":)", user=user) for user in (desk.alice, desk.bob)]
    await store.actions.act(reactions)
    await spoilt_cassandra.reaction(reactions[0], b"?")

    shown = (await page(store, desk.alice, message))[-1]

    assert [one.user_id for one in shown.reactions] == [desk.bob]
    assert len(await inbox(store, desk.bob)) == 4


async def test_84_a_state_of_later_counts_as_the_last_that_is_known(
    spoilt_postgres: SpoiltPostgres, desk: Desk
) -> None:
    store = spoilt_postgres.books.store
    first, second, _ = await three_messages(store, desk)
    await store.apply_receipts([desk.receive(first, second)])
    await spoilt_postgres.receipts(second, LATER)

    states = [one.state for one in await page(store, desk.alice, first)]

    assert states == [ReceiptState.SENT, ReceiptState.READ, ReceiptState.DELIVERED]


async def test_84_a_state_that_is_none_leaves_the_others_of_the_page_and_its_chat(
    spoilt_postgres: SpoiltPostgres, desk: Desk
) -> None:
    store = spoilt_postgres.books.store
    first, second, third = await three_messages(store, desk)
    await store.apply_receipts([desk.receive(first, second, third)])
    await spoilt_postgres.receipts(third, -1)

    assert ids(await page(store, desk.alice, first)) == [second.message_id, first.message_id]
    (chat,) = (await store.list_chats(desk.alice, None, 10)).chats
    assert chat.last_message is None


async def test_84_a_state_that_is_none_does_not_end_a_history(spoilt_postgres: SpoiltPostgres, desk: Desk) -> None:
    store = spoilt_postgres.books.store
    first, second, third = await three_messages(store, desk)
    await store.apply_receipts([desk.receive(first, second, third)])
    await spoilt_postgres.receipts(second, -1)

    assert ids(await page(store, desk.alice, first, limit=2)) == [third.message_id, first.message_id]
    assert ids(await page(store, desk.alice, first, before=third.message_id, limit=1)) == [first.message_id]
    assert ids(await page(store, desk.alice, first, after=first.message_id, limit=1)) == [third.message_id]


async def three_in_a_group(books: Books, desk: GroupDesk) -> list[NewGroupMessage]:
    messages = [desk.say(b"%d" % n) for n in range(3)]
    await books.groups.accept(desk.shard, messages)
    return messages


@pytest.mark.parametrize(("column", "cell"), SPOILT_BODIES)
async def test_84_a_message_to_a_group_that_cannot_be_read_leaves_the_others(
    spoilt_cassandra: SpoiltCassandra, group_desk: GroupDesk, column: str, cell: bytes
) -> None:
    books, desk = spoilt_cassandra.books, group_desk
    first, second, third = await three_in_a_group(books, desk)
    expansion = desk.expand(first, second, third)
    await books.groups.expand([expansion], [desk.touch(third)])
    await spoilt_cassandra.body(third, column, cell)

    read = PageRead(desk.bob, desk.group_id, b"", b"", 10)
    assert ids(await books.groups.read_page(read, ALWAYS)) == [second.message_id, first.message_id]
    (chat,) = await books.groups.read_chats(desk.bob, [GroupLine(desk.group_id, ALWAYS)])
    assert chat.last_message is not None
    assert (chat.last_message.message.message_id, chat.unread_count) == (second.message_id, 2)
    assert await inbox(books.store, desk.bob) == [placed(message, expansion) for message in (first, second)]
    acks = [
        MemberAck(user, desk.group_id, ALWAYS, tuple(m.message_id for m in (first, third)))
        for user in (desk.bob, desk.carol)
    ]
    came = await books.receipts.acknowledge(acks, desk.position(), first.accepted_ms)
    assert came == [Came(desk.alice, desk.group_id, first.message_id)]


@pytest.mark.parametrize(("column", "cell"), SPOILT_BODIES)
async def test_84_an_entry_of_the_journal_whose_message_cannot_be_read_is_poison(
    spoilt_cassandra: SpoiltCassandra, group_desk: GroupDesk, column: str, cell: bytes
) -> None:
    books, desk = spoilt_cassandra.books, group_desk
    first, second, third = await three_in_a_group(books, desk)
    await spoilt_cassandra.body(second, column, cell)

    await holds_poison(books, desk, [first, second, third])


async def test_84_an_entry_of_the_journal_that_is_not_whole_is_poison(
    spoilt_cassandra: SpoiltCassandra, group_desk: GroupDesk
) -> None:
    books, desk = spoilt_cassandra.books, group_desk
    messages = await three_in_a_group(books, desk)
    await spoilt_cassandra.entry(desk.shard, messages[1].position, "members_version")

    await holds_poison(books, desk, messages)


async def holds_poison(books: Books, desk: GroupDesk, messages: list[NewGroupMessage]) -> None:
    """Finds the second of three entries to be poison, and puts it aside and back."""
    first, second, third = messages
    entries = await books.journal.read(desk.shard, NO_POSITION, 100)
    assert [type(entry) for entry in entries] == [Entry, Undecodable, Entry]
    assert [entries[0], entries[2]] == [entry_of(first), entry_of(third)]
    poison = [entry for entry in entries if isinstance(entry, Undecodable)]

    await books.journal.park(desk.shard, poison)

    assert await books.journal.read(desk.shard, NO_POSITION, 100) == [entry_of(first), entry_of(third)]
    fresh = Shard(secrets.randbits(64))
    assert await books.journal.replay(fresh) >= 1
    again = await books.journal.read(fresh, NO_POSITION, 100)
    assert second.position in {entry.position for entry in again if isinstance(entry, Undecodable)}


async def test_84_an_entry_about_what_was_done_in_a_way_of_later_is_poison(
    spoilt: Spoilt, group_desk: GroupDesk
) -> None:
    books, desk = spoilt.books, group_desk
    (message, *_) = await three_in_a_group(books, desk)
    edit = desk.do(message, ActionKind.EDIT, b"new")
    reaction = desk.do(message, ActionKind.REACTION, b":)", user=UserId(desk.bob))
    await books.groups.act(desk.shard, [edit, reaction])
    await spoilt.action(edit)

    entries = await books.journal.read(desk.shard, NO_POSITION, 100)

    assert [entry.position for entry in entries if isinstance(entry, Undecodable)] == [edit.position]
    assert entries[-1].position == reaction.position
