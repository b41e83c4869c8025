"""What only the store on Cassandra has: no transactions, rows in any order, and outcomes that are unknown."""

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from cassandra import OperationTimedOut

from chappe.runtime import migrations_cassandra
from chappe.runtime.cassandra import Address, CassandraSession, open_session
from chappe.runtime.engines.cassandra import EmbeddedCassandra
from chappe.runtime.errors import UnavailableError
from svc_message.adapters.ledger_cassandra import SCHEMA
from svc_message.adapters.ledger_cassandra.actions import read_reactions
from svc_message.adapters.ledger_cassandra.cells import INBOX_TTL_S, LINGER_S, smallint, week_of
from svc_message.adapters.ledger_cassandra.connection import Connection, Read
from svc_message.adapters.ledger_cassandra.copies import CopyKey, read_copies
from svc_message.adapters.ledger_cassandra.message_store import CassandraMessageStore
from svc_message.errors import ClockUntrustedError
from svc_message.model import NO_POSITION, InboxRead, NewMessage, Position, ReceiptState, UserId, Verdict
from svc_message.model.action import ActionKind
from svc_message.model.setting import SettingChange
from svc_message.protocol import WRITE_WINDOW_S, milliseconds_of, position_at
from tests.svc_message.cut import Cut
from tests.svc_message.desk import START_MS, Desk, event, ids, inbox, page, ref, stranger
from tests.svc_message.fakes import ManualClock

DAY_MS = 86_400_000
OWN_KEYSPACE = "ledger_of_its_own"


async def seen(store: CassandraMessageStore, desk: Desk, message: NewMessage) -> list[bytes]:
    """Returns what both sides see of a conversation: they see the same."""
    both = [[one.message.envelope for one in await page(store, who, message)] for who in (desk.alice, desk.bob)]
    assert both[0] == both[1]
    return both[0]


async def test_two_first_attempts_at_once_are_one_message(cassandra_store: CassandraMessageStore, desk: Desk) -> None:
    message = desk.write()
    again = desk.retry(message)._replace(is_retry=False)

    answers = await asyncio.gather(cassandra_store.accept([message]), cassandra_store.accept([again]))

    assert [answer.verdict for (answer,) in answers] == [Verdict.STORED] * 2
    assert await seen(cassandra_store, desk, message) == [b"hello"]
    (found,) = await cassandra_store.find([ref(message)])
    assert found is not None
    assert found.accepted_ms == message.accepted_ms


async def test_crossing_batches_are_all_one_message_each(cassandra_store: CassandraMessageStore, desk: Desk) -> None:
    messages = [desk.write(b"%d" % n) for n in range(100)]
    retries = [desk.retry(message) for message in reversed(messages)]

    await asyncio.gather(cassandra_store.accept(messages), cassandra_store.accept(retries))

    assert await seen(cassandra_store, desk, messages[0]) == [b"%d" % n for n in range(99, -1, -1)]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_of_two_contents_under_one_id_the_earlier_stands_whole_on_every_copy(
    cassandra_store: CassandraMessageStore, desk: Desk, order: tuple[int, int]
) -> None:
    first = desk.write(b"zz earlier")
    second = desk.write(b"aa later, and longer", message_id=first.message_id)
    attempts = [first, second]

    for n in order:
        await cassandra_store.accept([attempts[n]])

    assert await seen(cassandra_store, desk, first) == [b"zz earlier"]
    answers = await cassandra_store.accept([desk.retry(second)])
    assert answers[0].verdict is Verdict.CONFLICT
    answers = await cassandra_store.accept([desk.retry(first)])
    assert (answers[0].verdict, answers[0].accepted_ms) == (Verdict.DUPLICATE, first.accepted_ms)


async def test_a_read_does_not_look_again_through_the_minutes_before_the_place_read(
    cut: Cut, cut_store: CassandraMessageStore, desk: Desk
) -> None:
    ages_ms = range(599_000, 99_000, -1000)
    written = [desk.write(message_id=desk.uuid7(START_MS - age_ms)) for age_ms in ages_ms]
    prompt = [one._replace(accepted_ms=START_MS - age_ms) for one, age_ms in zip(written, ages_ms, strict=True)]
    place, late, newest = desk.write(), prompt[0]._replace(accepted_ms=START_MS), desk.write()
    await cut_store.accept([*prompt[1:], place])
    await cut_store.apply_receipts([desk.read(upto=place.message_id)])
    await cut_store.accept([late, newest])

    cut.rows_read.clear()
    (applied,) = await cut_store.apply_receipts([desk.read(upto=newest.message_id)])

    assert [set(one.message_ids) for one in applied.receipt_events] == [{late.message_id, newest.message_id}]
    assert cut.rows_read.total() <= 12


@pytest.mark.parametrize("kept", list(itertools.chain(*(itertools.combinations(range(4), n) for n in range(4)))))
async def test_a_message_that_was_cut_is_completed_by_its_retry(
    cut: Cut, cut_store: CassandraMessageStore, desk: Desk, kept: tuple[int, ...]
) -> None:
    message = desk.write()
    cut.lost = lambda unit: [row for n, row in enumerate(unit) if n in kept]
    with pytest.raises(UnavailableError):
        await cut_store.accept([message])
    cut.lost = lambda unit: unit
    again = desk.retry(message)

    (answer,) = await cut_store.accept([again])

    assert answer.verdict in {Verdict.STORED, Verdict.DUPLICATE}
    accepted = message._replace(accepted_ms=answer.accepted_ms)
    for user in (desk.alice, desk.bob):
        assert (await inbox(cut_store, user))[-1] == event(accepted, again.position)
        assert ids(await page(cut_store, user, message)) == [message.message_id]
        assert len((await cut_store.list_chats(user, None, 10)).chats) == 1


async def test_a_void_that_meets_its_message_is_withdrawn(
    cut: Cut, cut_store: CassandraMessageStore, desk: Desk, cassandra_store: CassandraMessageStore
) -> None:
    message = desk.write()
    cut.before_write = lambda: cassandra_store.accept([message])

    assert await cut_store.declare_void([ref(message)]) == [False]

    assert await seen(cut_store, desk, message) == [b"hello"]
    answers = await cut_store.accept([desk.retry(message)])
    assert answers[0].verdict is Verdict.DUPLICATE


async def test_a_retry_that_meets_a_void_is_not_acknowledged(
    cut: Cut, cut_store: CassandraMessageStore, desk: Desk, cassandra_store: CassandraMessageStore
) -> None:
    message = desk.write()
    cut.before_write = lambda: cassandra_store.declare_void([ref(message)])

    with pytest.raises(UnavailableError, match="void"):
        await cut_store.accept([desk.retry(message)])

    assert await seen(cut_store, desk, message) == []
    answers = await cut_store.accept([desk.retry(message)])
    assert answers[0].verdict is Verdict.VOID


async def test_a_late_first_attempt_looks(cassandra_store: CassandraMessageStore, desk: Desk) -> None:
    message = desk.write()
    await cassandra_store.accept([message])
    late = message._replace(accepted_ms=message.accepted_ms + 3_000, position=desk.position())

    (answer,) = await cassandra_store.accept([late])

    assert (answer.verdict, answer.accepted_ms) == (Verdict.DUPLICATE, message.accepted_ms)


async def test_what_fails_together_is_written_one_by_one(
    cassandra_connection: Connection, monkeypatch: pytest.MonkeyPatch, desk: Desk
) -> None:
    send, sent = Connection._send, list[int]()

    async def fail_once(self: Connection, statements: Sequence[Any]) -> list[Any]:
        sent.append(len(statements))
        if len(sent) == 1:
            return [OperationTimedOut()] * len(statements)
        return await send(self, statements)

    store, messages = CassandraMessageStore(cassandra_connection), [desk.write() for _ in range(20)]
    monkeypatch.setattr(Connection, "_send", fail_once)
    await store.accept(messages)
    monkeypatch.undo()

    assert sent == [3, 20]
    assert await inbox(store, desk.bob) == [event(message) for message in messages]


async def test_nothing_is_answered_on_an_unknown_outcome(
    cassandra_connection: Connection, monkeypatch: pytest.MonkeyPatch, desk: Desk
) -> None:
    async def fail(self: Connection, statements: Sequence[Any]) -> list[Any]:
        return [OperationTimedOut()] * len(statements)

    store = CassandraMessageStore(cassandra_connection)
    await store.accept([desk.write()])
    monkeypatch.setattr(Connection, "_send", fail)

    with pytest.raises(UnavailableError, match="OperationTimedOut"):
        await store.accept([desk.write()])
    with pytest.raises(UnavailableError, match="OperationTimedOut"):
        await store.read_inbox([InboxRead(desk.bob, NO_POSITION, 1)])


async def test_what_lies_too_far_ahead_is_refused(cassandra_store: CassandraMessageStore, desk: Desk) -> None:
    ahead = desk.uuid7(START_MS + 2 * 3_600_000)

    with pytest.raises(ClockUntrustedError, match="ahead of the store"):
        await cassandra_store.accept([desk.write(message_id=ahead)])
    with pytest.raises(ClockUntrustedError, match="ahead of the store"):
        await cassandra_store.accept([desk.write()._replace(position=Position(ahead))])


async def test_an_inbox_is_read_over_weeks(cassandra_store: CassandraMessageStore, desk: Desk) -> None:
    days = (29, 22, 21, 20, 14, 8, 7, 1, 0)
    messages = [desk.write()._replace(position=Position(desk.uuid7(START_MS - day * DAY_MS))) for day in days]
    await cassandra_store.accept(messages)

    assert await inbox(cassandra_store, desk.bob) == [event(message) for message in messages]
    read: list[bytes] = []
    after = NO_POSITION
    while len(read) < len(days):
        (found,) = await cassandra_store.read_inbox([InboxRead(desk.bob, after, 2)])
        read += [one.position for one in found.events]
        after = found.end
    assert read == [message.position for message in messages]


async def test_messages_that_their_reader_has_are_not_looked_up(
    cut: Cut, cut_store: CassandraMessageStore, desk: Desk
) -> None:
    messages = [desk.write() for _ in range(3)]
    await cut_store.accept(messages)
    known = frozenset(message.message_id for message in messages[:2])

    cut.rows_read.clear()
    (found,) = await cut_store.read_inbox([InboxRead(desk.bob, NO_POSITION, 10, known_ids=known)])

    assert (found.events, found.end) == ([event(messages[2])], messages[2].position)
    assert cut.rows_read.total() == len(messages) + 1


async def test_pages_go_on_in_older_buckets(cassandra_store: CassandraMessageStore, desk: Desk) -> None:
    messages = [desk.write(b"%d" % n, message_id=desk.uuid7(START_MS - n * 40 * DAY_MS)) for n in range(12)]
    await cassandra_store.accept(messages)

    newest = await page(cassandra_store, desk.bob, messages[0], limit=7)
    rest = await page(cassandra_store, desk.bob, messages[0], before=newest[-1].message.message_id)
    oldest = await page(cassandra_store, desk.bob, messages[0], after=messages[-1].message_id, limit=4)

    assert [one.message.envelope for one in newest + rest] == [b"%d" % n for n in range(12)]
    assert [one.message.envelope for one in oldest] == [b"7", b"8", b"9", b"10"]


async def test_what_was_cleared_is_not_gone_through_again(
    cut: Cut, cut_store: CassandraMessageStore, desk: Desk
) -> None:
    times = range(START_MS - DAY_MS, START_MS - DAY_MS + 300)
    old = [desk.write(message_id=desk.uuid7(sent_ms))._replace(accepted_ms=sent_ms) for sent_ms in times]
    await cut_store.accept(old)
    clear = desk.keep(SettingChange(cleared_upto=old[-1].message_id))
    await cut_store.settings.change(clear, position_at(START_MS - 660_000))

    cut.rows_read.clear()
    (chat,) = (await cut_store.list_chats(desk.bob, None, 10)).chats
    pages = [await page(cut_store, desk.bob, old[0], after=after, limit=3) for after in (b"", old[0].message_id)]

    assert (chat.last_message, pages) == (None, [[], []])
    # The list and twice a line, and the newest two messages.
    assert cut.rows_read.total() <= 5


async def test_a_short_page_goes_through_what_has_disappeared_in_long_steps(
    cut: Cut, cut_store: CassandraMessageStore, desk: Desk
) -> None:
    times = range(START_MS - DAY_MS, START_MS - DAY_MS + 301)
    said = [desk.write(message_id=desk.uuid7(sent_ms))._replace(accepted_ms=sent_ms) for sent_ms in times]
    await cut_store.accept([said[0], *(one._replace(expiry_s=60) for one in said[1:])])

    cut.partitions_read = 0

    assert ids(await page(cut_store, desk.bob, said[0], limit=1)) == ids(said[:1])
    assert cut.partitions_read <= 5


async def test_a_read_goes_through_all_buckets(cassandra_store: CassandraMessageStore, desk: Desk) -> None:
    messages = [desk.write(message_id=desk.uuid7(START_MS - n * 40 * DAY_MS)) for n in reversed(range(12))]
    await cassandra_store.accept(messages)

    (applied,) = await cassandra_store.apply_receipts([desk.read(upto=messages[-1].message_id)])

    assert sorted(i for told in applied.receipt_events for i in told.message_ids) == ids(messages)
    assert applied.own_read is not None
    assert (applied.own_read.read_upto, applied.rest) == (messages[-1].message_id, b"")


async def test_bounds_that_are_no_ids_lie_where_their_bytes_do(
    cassandra_store: CassandraMessageStore, desk: Desk
) -> None:
    messages = [desk.write(b"%d" % n) for n in range(3)]
    await cassandra_store.accept(messages)
    for version, expected in ((0x00, 1), (0x40, 1), (0x80, 2), (0xF0, 2)):
        middle = messages[1].message_id
        before = middle[:6] + bytes([version]) + middle[7:]

        assert len(await page(cassandra_store, desk.bob, messages[0], before=before)) == expected


async def test_envelopes_of_64_kib_come_back_whole(cassandra_store: CassandraMessageStore, desk: Desk) -> None:
    messages = [desk.write(os.urandom(65_536)) for _ in range(9)]

    await cassandra_store.accept(messages)

    assert await inbox(cassandra_store, desk.bob) == [event(message) for message in messages]


@pytest.mark.parametrize("count", [1, 2, 64, 512])
async def test_batches_of_every_size_are_stored(cassandra_store: CassandraMessageStore, desk: Desk, count: int) -> None:
    messages = [desk.write(b"%d" % n) for n in range(count)]

    answers = await cassandra_store.accept(messages)

    assert {answer.verdict for answer in answers} == {Verdict.STORED}
    assert await inbox(cassandra_store, desk.bob) == [event(message) for message in messages]


async def test_receipts_of_a_message_that_was_cut_make_no_message(
    cut: Cut, cut_store: CassandraMessageStore, desk: Desk
) -> None:
    message = desk.write()
    cut.lost = lambda unit: [row for row in unit if row.key[0] == desk.bob]
    with pytest.raises(UnavailableError):
        await cut_store.accept([message])
    cut.lost = lambda unit: unit

    await cut_store.apply_receipts([desk.receive(message)])

    assert await page(cut_store, desk.alice, message) == []
    await cut_store.accept([desk.retry(message)])
    (row,) = await page(cut_store, desk.alice, message)
    assert row.delivered_ms > 0


@pytest.mark.parametrize("kept", [0, 1])
@pytest.mark.parametrize("state", [ReceiptState.DELIVERED, ReceiptState.READ])
@pytest.mark.parametrize("is_forced", [False, True])
async def test_a_receipt_that_was_cut_is_completed_by_whoever_acknowledges_next(
    cut: Cut, cut_store: CassandraMessageStore, desk: Desk, state: ReceiptState, kept: int, *, is_forced: bool
) -> None:
    message = desk.write()
    await cut_store.accept([message])
    side = (desk.alice, desk.bob)[kept]
    cut.lost = lambda unit: [row for row in unit if row.key[0] == side]
    receipt = desk.read(message) if state is ReceiptState.READ else desk.receive(message)
    with pytest.raises(UnavailableError):
        await cut_store.apply_receipts([receipt])
    cut.lost = lambda unit: unit

    again = receipt._replace(is_forced=is_forced, position=desk.position())
    (applied,) = await cut_store.apply_receipts([again])

    for owner in (desk.alice, desk.bob):
        (row,) = await page(cut_store, owner, message)
        assert (row.state, row.delivered_ms) == (state, receipt.recorded_ms)
    assert set(applied.receipt_events) <= set(await inbox(cut_store, desk.alice))
    if state is ReceiptState.READ:
        assert applied.own_read in await inbox(cut_store, desk.bob)


async def test_a_receipt_that_took_too_long_is_told_again_by_whoever_acknowledges_next(cut: Cut, desk: Desk) -> None:
    clock = ManualClock(START_MS + 1000)
    store = CassandraMessageStore(cut, clock=clock)  # type: ignore[arg-type]  # it stands for one
    message = desk.write()
    await store.accept([message])

    async def pass_by() -> None:
        clock.pass_s(WRITE_WINDOW_S)

    cut.before_write = pass_by
    with pytest.raises(UnavailableError, match="took longer"):
        await store.apply_receipts([desk.receive(message)])

    (applied,) = await store.apply_receipts([desk.receive(message)])

    assert [event.message_ids for event in applied.receipt_events] == [(message.message_id,)]


@pytest.fixture
def own_store(cut: Cut) -> CassandraMessageStore:
    """Returns the store of a process to which the messages of these tests are young."""
    return CassandraMessageStore(cut, clock=ManualClock(START_MS + 1000))  # type: ignore[arg-type]  # it stands for one


async def test_the_first_receipt_of_what_this_process_has_just_stored_reads_nothing(
    cut: Cut, own_store: CassandraMessageStore, desk: Desk
) -> None:
    message = desk.write()
    await own_store.accept([message])
    (first,) = await own_store.apply_receipts([desk.receive(message)])
    before_second = cut.partitions_read
    (second,) = await own_store.apply_receipts([desk.receive(message)])

    assert before_second == 0
    assert cut.partitions_read == 1
    assert [one.message_ids for one in first.receipt_events] == [(message.message_id,)]
    assert second.receipt_events == ()
    for owner in (desk.alice, desk.bob):
        (row,) = await page(own_store, owner, message)
        assert row.state is ReceiptState.DELIVERED


async def test_what_another_process_raised_is_not_lowered_by_who_remembers_it_unread(
    cassandra_store: CassandraMessageStore, own_store: CassandraMessageStore, desk: Desk
) -> None:
    message = desk.write()
    await own_store.accept([message])
    read = desk.read(message)
    await cassandra_store.apply_receipts([read])

    await own_store.apply_receipts([desk.receive(message)])

    for owner in (desk.alice, desk.bob):
        (row,) = await page(cassandra_store, owner, message)
        assert (row.state, row.read_ms) == (ReceiptState.READ, read.recorded_ms)


async def test_who_was_withheld_a_message_cannot_say_that_it_arrived(
    own_store: CassandraMessageStore, desk: Desk
) -> None:
    message = desk.write()._replace(is_withheld=True)
    await own_store.accept([message])

    (applied,) = await own_store.apply_receipts([desk.receive(message)])

    assert applied.receipt_events == ()


async def test_many_inboxes_are_read_in_one_call(cassandra_store: CassandraMessageStore, desk: Desk) -> None:
    messages = [desk.write(recipient=UserId(desk.uuid7())) for _ in range(300)]
    await cassandra_store.accept(messages)

    pages = await cassandra_store.read_inbox([InboxRead(one.recipient_id, NO_POSITION, 5) for one in messages])

    assert [found.events for found in pages] == [[event(message)] for message in messages]


async def left_s(session: CassandraSession, column: str, table: str) -> int | None:
    """Returns for how long the only cell of a column is kept; None for ever."""
    rows: Any = await asyncio.to_thread(
        session.driver.execute,
        f"SELECT ttl({column}) FROM {table} WHERE {column} > 0x ALLOW FILTERING",  # noqa: S608 - by constants
    )
    (found,) = {row[0] for row in rows}
    return found


@pytest.fixture(scope="module")
def own_address(cassandra: EmbeddedCassandra) -> Address:
    """Returns the address of a cluster with a keyspace of these tests' own."""
    address = Address((cassandra.address,))
    asyncio.run(migrations_cassandra.migrate(address, OWN_KEYSPACE, SCHEMA, replicas=1))
    return address


@pytest.fixture
async def own_session(own_address: Address) -> AsyncIterator[CassandraSession]:
    session = await asyncio.to_thread(open_session, own_address, keyspace=OWN_KEYSPACE)
    yield session
    await asyncio.to_thread(session.close)


async def test_a_node_is_dialled_once_in_a_second_however_long_it_is_gone(own_session: CassandraSession) -> None:
    schedule = own_session.cluster.reconnection_policy.new_schedule()

    assert set(itertools.islice(schedule, 100_000)) == {1.0}


async def test_a_node_that_has_forgotten_the_statements_of_a_batch_is_taught_them_again(
    cassandra: EmbeddedCassandra, ledger_keyspace: str, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = await asyncio.to_thread(open_session, Address((cassandra.address,)), keyspace=ledger_keyspace)
    prepared: list[str] = []
    prepare = session.driver.prepare

    def counted(query: str) -> object:
        prepared.append(query)
        return prepare(query)

    monkeypatch.setattr(session.driver, "prepare", counted)
    async with contextlib.aclosing(Connection(session)) as connection:
        store = CassandraMessageStore(connection)
        await asyncio.gather(*(store.accept([desk.write()]) for _ in range(8)))
        # Of two that are prepared under one id the driver forgets both once the later one is dropped.
        assert len(prepared) == len(set(prepared))
        for table in ("messages", "inbox"):
            # After a change of its table a node knows no statement about it any more.
            await asyncio.to_thread(session.driver.execute, f"ALTER TABLE {table} WITH comment = 'changed'")
        message = desk.write(b"once more")

        await store.accept([message])

        assert await seen(store, desk, message) == [b"once more", *[b"hello"] * 8]


async def test_an_epoch_that_is_begun_is_greater_than_any_before(own_session: CassandraSession) -> None:
    store = CassandraMessageStore(Connection(own_session))

    first, second = await store.raise_epoch(), await store.raise_epoch()

    assert 1 < first < second == await store.epoch()
    assert abs(first - time.time()) < 5


async def test_an_epoch_that_was_inserted_by_hand_is_followed_by_a_greater_one(own_session: CassandraSession) -> None:
    store = CassandraMessageStore(Connection(own_session))
    for statement in ("TRUNCATE ledger", "INSERT INTO ledger (id, epoch) VALUES (0, 7)"):
        await asyncio.to_thread(own_session.driver.execute, statement)

    raised = await store.raise_epoch()

    assert await store.epoch() == raised > 7


async def test_content_ends_by_itself_and_what_a_retry_is_known_by_stays(
    own_session: CassandraSession, desk: Desk
) -> None:
    session, store = own_session, CassandraMessageStore(Connection(own_session))
    message = desk.write()._replace(expiry_s=60, accepted_ms=time.time_ns() // 1_000_000)
    await store.accept([message])
    edit, reaction = (desk.act(message, kind, b"!") for kind in (ActionKind.EDIT, ActionKind.REACTION))
    await store.actions.act([edit, reaction])

    for column, table in (("envelope", "messages"), ("edit", "messages"), ("reaction", "reactions")):
        left = await left_s(session, column, table)
        assert left is not None
        assert 0 < left <= 60 + LINGER_S
    assert await left_s(session, "header", "messages") is None
    assert await left_s(session, "header", "actions") is None


async def test_what_another_process_archived_comes_back_though_its_line_was_not_moved(
    cassandra_store: CassandraMessageStore, cassandra_connection: Connection, desk: Desk
) -> None:
    other = CassandraMessageStore(cassandra_connection)
    late = desk.write(message_id=desk.uuid7(START_MS - 300_000))
    await cassandra_store.accept([late])
    update = desk.keep(SettingChange(is_archived=True))
    await other.settings.change(update, NO_POSITION)
    assert (await other.list_chats(desk.bob, None, 10)).chats == []

    # Within a minute of the first, which moved the line: this one does not.
    await cassandra_store.accept([desk.write(message_id=desk.uuid7(START_MS - 299_000))])

    (chat,) = (await other.list_chats(desk.bob, None, 10)).chats
    assert not chat.settings.is_archived


async def test_a_chat_list_holds_every_chat_once_though_messages_have_moved_some_in_part(cut: Cut, desk: Desk) -> None:
    store = CassandraMessageStore(cut, read_whole=0)  # type: ignore[arg-type]  # it stands for a connection
    people = [stranger() for _ in range(130)]

    def said(person: UserId, days_ago: int) -> NewMessage:
        said_ms = START_MS - days_ago * DAY_MS
        message = desk.write(sender=person, recipient=desk.alice, message_id=desk.uuid7(said_ms))
        return message._replace(accepted_ms=said_ms)

    await store.accept([said(person, 200 - day) for day, person in enumerate(people)])
    # Of the first two it is known where their lines would stand now, and the lines are where they were.
    cut.lost = lambda unit: [row for row in unit if "INSERT INTO chat_order" in row.query]
    for person in people[:2]:
        with pytest.raises(UnavailableError):
            await store.accept([said(person, 1)])

    # Some of these windows need one chat more than there are in what is read at once without those two.
    for limit in range(95, 115):
        first = await store.list_chats(desk.alice, None, limit)
        second = await store.list_chats(desk.alice, first.next_cursor, limit)
        assert [chat.peer_id for window in (first, second) for chat in window.chats] == people[::-1]


async def test_a_chat_that_was_archived_in_part_is_on_one_of_the_lists(cut: Cut, desk: Desk) -> None:
    store = CassandraMessageStore(cut, read_whole=0)  # type: ignore[arg-type]  # it stands for a connection
    await store.accept([desk.write()])
    cut.lost = lambda unit: [row for row in unit if "INSERT INTO chat_order" not in row.query]

    with pytest.raises(UnavailableError):
        await store.settings.change(desk.keep(SettingChange(is_archived=True)), NO_POSITION)

    lists = [await store.list_chats(desk.bob, None, 10, is_archived=is_archived) for is_archived in (False, True)]
    assert [chat.conversation_id for window in lists for chat in window.chats] == [desk.write().conversation_id]


async def test_a_chat_that_was_moved_up_while_it_was_archived_is_met_where_it_stands(cut: Cut, desk: Desk) -> None:
    store = CassandraMessageStore(cut, read_whole=0)  # type: ignore[arg-type]  # it stands for a connection
    moved, *others = people = [stranger() for _ in range(130)]

    def said(person: UserId, days_ago: int) -> NewMessage:
        said_ms = START_MS - days_ago * DAY_MS
        message = desk.write(sender=person, recipient=desk.alice, message_id=desk.uuid7(said_ms))
        return message._replace(accepted_ms=said_ms)

    await store.accept([said(person, 200 - day) for day, person in enumerate(people)])
    for person in others:
        await store.settings.change(
            desk.keep(SettingChange(is_archived=True), user=desk.alice, peer=person), NO_POSITION
        )
    cut.before_write = lambda: store.accept([said(moved, 1)])
    await store.settings.change(desk.keep(SettingChange(is_archived=True), user=desk.alice, peer=moved), NO_POSITION)

    first = await store.list_chats(desk.alice, None, 20, is_archived=True)
    assert first.chats[0].peer_id == moved


async def test_a_window_of_a_chat_list_reads_as_much_of_1200_chats_as_of_300(cut: Cut, desk: Desk) -> None:
    store = CassandraMessageStore(cut)  # type: ignore[arg-type]  # it stands for a connection

    async def fill(owner: UserId, chats: int) -> None:
        """Lets one person after another write, one a day, and the first five each day."""
        friends = [stranger() for _ in range(5)]
        messages = [
            desk.write(sender=person, recipient=owner, message_id=desk.uuid7(START_MS - day * DAY_MS))
            for day in range(chats)
            for person in (stranger(), *friends)
        ]
        for start in range(0, len(messages), 500):
            part = messages[start : start + 500]
            await store.accept([message._replace(accepted_ms=milliseconds_of(message.message_id)) for message in part])

    async def read(owner: UserId, windows: int) -> tuple[int, int]:
        cursor = None
        for _ in range(windows):
            cut.rows_read.clear()
            cursor = (await store.list_chats(owner, cursor, 50)).next_cursor
        return cut.rows_read["conversations"], cut.rows_read["chat_order"]

    await fill(desk.alice, 300)
    await fill(desk.bob, 1200)
    few, many = [[await read(owner, windows) for windows in (1, 4)] for owner in (desk.alice, desk.bob)]

    assert few == many
    assert max(lines for lines, _ in many) < 201 + 2 * 50 + 5
    assert max(places for _, places in many) < 200


async def test_what_was_taken_back_is_in_no_row(
    cassandra_store: CassandraMessageStore, cassandra_connection: Connection, desk: Desk
) -> None:
    message = desk.write(b"secret")
    await cassandra_store.accept([message])
    actions = [desk.act(message, kind, b"secret") for kind in (ActionKind.EDIT, ActionKind.REACTION, ActionKind.REVOKE)]
    for order in itertools.permutations(actions):
        for action in order:
            await cassandra_store.actions.act([desk.act_again(action)])
    await cassandra_store.accept([desk.retry(message)])

    for user in (desk.alice, desk.bob):
        key = CopyKey(user, message.conversation_id, message.message_id)
        copy = (await read_copies(cassandra_connection, [key], is_whole=True))[key]
        assert (copy.envelope, copy.edit, copy.revoked_ms > 0) == (b"", None, True)
    place = (message.conversation_id, message.message_id)
    assert await read_reactions(cassandra_connection, [place]) == {}


async def test_a_receipt_of_what_disappears_does_so_too(
    cassandra_store: CassandraMessageStore, cassandra_connection: Connection, desk: Desk
) -> None:
    stays, goes = desk.write(), desk.write()._replace(expiry_s=600)
    await cassandra_store.accept([stays, goes])
    updates = [desk.receive(goes), desk.read(stays, goes)]
    for update in updates:
        await cassandra_store.apply_receipts([update])
    left = "SELECT ttl(data) FROM inbox WHERE user_id = ? AND week = ? AND pos = ?"

    asked = [(desk.alice, smallint(week_of(one.position)), one.position) for one in updates]
    ((alone_s,),), ((mixed_s,),) = await cassandra_connection.read([Read(left, one) for one in asked])

    assert 0 < alone_s <= 600 + LINGER_S
    assert mixed_s > INBOX_TTL_S - 600


async def test_how_far_a_message_came_is_forgotten_with_it(
    cassandra_store: CassandraMessageStore, cassandra_connection: Connection, desk: Desk
) -> None:
    stays, goes = desk.write(), desk.write()._replace(expiry_s=600)
    await cassandra_store.accept([stays, goes])
    for update in (desk.receive(stays, goes), desk.read(stays, goes)):
        await cassandra_store.apply_receipts([update])
    left = """
        SELECT ttl(delivered_ms), ttl(read_ms), ttl(is_read_told) FROM messages
        WHERE user_id = ? AND conversation_id = ? AND bucket = ? AND message_id = ?
    """

    for user in (desk.alice, desk.bob):
        keys = [CopyKey(user, one.conversation_id, one.message_id) for one in (stays, goes)]
        asked = [Read(left, (*key[:2], key.bucket, key.message_id)) for key in keys]
        (for_ever,), (cells,) = await cassandra_connection.read(asked)
        assert tuple(for_ever) == (None, None, None)
        assert all(0 < left_s <= 600 + LINGER_S for left_s in cells)
