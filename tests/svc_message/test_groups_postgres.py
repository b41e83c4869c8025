"""What only the books of groups on PostgreSQL have: plans, atomic batches, and a server that goes away."""

import contextlib
from collections.abc import AsyncIterator
from typing import NamedTuple

import psycopg
import pytest

from chappe.runtime.clock import Seams, SystemRandomness
from chappe.runtime.engines import EmbeddedPostgres
from chappe.runtime.errors import UnavailableError
from chappe.runtime.tasks import Tasks
from svc_message.adapters.group_store_postgres import PostgresGroupStore
from svc_message.adapters.group_store_postgres.reading import listing
from svc_message.adapters.journal_postgres import PostgresJournal
from svc_message.adapters.message_store_postgres import PostgresMessageStore
from svc_message.adapters.receipt_store_postgres import PostgresReceiptStore
from svc_message.model import NO_POSITION, Departure, DeviceId, InboxRead, MessageEvent, PageRead, Position, Verdict
from svc_message.model.action import ActionKind
from svc_message.model.group import GroupLine, Orphan, Shard, Window
from svc_message.model.receipt import MemberAck, MemberRead, MemberReadUpdate, MessageName, ReadMessage
from svc_message.protocol import HORIZON_S, LedgerClock
from svc_message.service.expand import Expanding
from svc_message.worker.expand import JournalWorker
from tests.svc_message.desk import START_MS, inbox
from tests.svc_message.fakes import FakeDispatcher, FakeGroupDirectory, ManualClock
from tests.svc_message.group_desk import Books, GroupDesk, group_of, group_ref
from tests.svc_message.plans import Eavesdropper, Scan
from tests.svc_message.test_message_store_postgres import engine, gone, query, rows_read, within

__all__ = ["engine"]

SCANS = """
    SELECT relname, seq_scan FROM pg_stat_user_tables
    WHERE relname IN ('messages', 'inbox', 'conversations', 'journal', 'journal_shards', 'group_receipts',
        'receipt_news', 'private_views', 'actions', 'reactions', 'disappeared', 'group_contents')
    ORDER BY relname
"""
ALWAYS = (Window(1, 0),)
EDIT, REACTION = ActionKind.EDIT, ActionKind.REACTION


def before(position: Position) -> Position:
    """Returns the position before one."""
    return Position((int.from_bytes(position, "big") - 1).to_bytes(16, "big"))


@pytest.fixture
async def groups(engine: EmbeddedPostgres) -> AsyncIterator[PostgresGroupStore]:
    """Returns a store whose server the test may ill-treat."""
    store = PostgresGroupStore(engine.dsn)
    yield store
    await store.aclose()


class Opened(NamedTuple):
    """Everything that is kept for groups, on connections that keep their plans."""

    groups: PostgresGroupStore
    journal: PostgresJournal
    receipts: PostgresReceiptStore
    store: PostgresMessageStore

    async def aclose(self) -> None:
        """Closes all of it."""
        for opened in self:
            await opened.aclose()


def opened_on(dsn: str) -> Opened:
    """Returns books that have not dialled yet."""
    return Opened(PostgresGroupStore(dsn), PostgresJournal(dsn), PostgresReceiptStore(dsn), PostgresMessageStore(dsn))


async def talk(books: Opened, desk: GroupDesk) -> None:
    """Does everything that is done for groups once."""
    groups, journal, receipts, store = books
    first, second = desk.say(), desk.say()
    names = [MessageName(desk.group_id, message.message_id) for message in (first, second)]
    await journal.checkpoint(desk.shard, NO_POSITION)
    await groups.accept(desk.shard, [first, second])
    await groups.accept(desk.shard, [desk.say_again(first), desk.say()])
    await groups.expand([desk.expand(first, second), desk.expand(second)], [desk.touch(second)])
    await groups.act(desk.shard, [desk.do(second, kind, b"?")._replace(group_version=1) for kind in (EDIT, REACTION)])
    await groups.act(desk.shard, [desk.do(first, kind, b"?")._replace(group_version=1) for kind in ActionKind])
    await inbox(store, desk.bob, after=before(first.position))
    departure = Departure(desk.group_id, 1)
    await store.read_inbox([InboxRead(desk.bob, before(first.position), 10, (departure,))])
    await groups.read_page(PageRead(desk.bob, desk.group_id, b"", b"", 10), (Window(1, 2),))
    await journal.read(desk.shard, before(first.position), 10)
    await journal.advance(desk.shard, first.position)
    await journal.checkpoint(desk.shard, first.position)
    await journal.adopt(10.0)
    await receipts.acknowledge(
        [MemberAck(desk.bob, desk.group_id, ALWAYS, (first.message_id,))], desk.position(), START_MS
    )
    await receipts.unread([MemberRead(desk.bob, desk.group_id, ALWAYS, second.message_id, (first.message_id,))])
    read = (ReadMessage(second.message_id, is_told=True),)
    await receipts.read(
        [MemberReadUpdate(desk.bob, DeviceId(1), desk.group_id, ALWAYS, b"", read, False, desk.position(), START_MS)]  # noqa: FBT003 - not forced
    )
    await groups.read_page(PageRead(desk.bob, desk.group_id, b"", b"", 10), (Window(1, 1), Window(2, 0)))
    await groups.read_page(PageRead(desk.bob, desk.group_id, b"", first.message_id, 10), ALWAYS)
    await groups.read_chats(desk.bob, [GroupLine(desk.group_id, (Window(1, 1), Window(1, 0)))])
    await receipts.tally(names)
    await receipts.list_receipts(names[0], desk.alice, 10)
    await receipts.settle_news(await receipts.claim_news(desk.position(), START_MS, START_MS), START_MS)
    await journal.end(desk.shard, second.position)


async def test_every_statement_for_groups_finds_its_rows_by_an_index(ledger_dsn: str, group_desk: GroupDesk) -> None:
    before = await query(ledger_dsn, SCANS)

    for _ in range(10):
        books = opened_on(ledger_dsn)
        await talk(books, group_desk)
        await books.aclose()

    # A server process reports what it did when its connection has ended.
    await within(5, lambda: gone(ledger_dsn))
    assert await query(ledger_dsn, SCANS) == before


@pytest.mark.untraced
async def test_plans_that_were_made_for_empty_tables_pass_over_nobody_elses_rows(
    engine: EmbeddedPostgres, eavesdropper: Eavesdropper
) -> None:
    books = opened_on(engine.dsn)
    scans: set[Scan] = set()

    await talk(books, GroupDesk())
    scans |= await eavesdropper.wide_scans()
    for _ in range(2):
        # The server counts rows by itself once some fifty have changed.
        for _ in range(50):
            await talk(books, GroupDesk())
        await query(engine.dsn, "ANALYZE messages, inbox, group_receipts, receipt_news, conversations, journal")
        scans |= await eavesdropper.wide_scans()

    assert scans == set()
    await books.aclose()


async def test_what_was_said_while_somebody_was_away_is_not_gone_through_for_its_chat_list(
    ledger_dsn: str, postgres_books: Books, group_desk: GroupDesk
) -> None:
    desk, bob, groups = group_desk, group_desk.bob, postgres_books.groups
    first, *later = [desk.say(b"%d" % n, version=min(n + 1, 2)) for n in range(1101)]
    await groups.accept(desk.shard, [first, *later])
    await groups.expand([], [desk.touch(first, to=(bob,))])

    for windows in ((Window(1, 2),), (Window(1, 2), Window(3, 0))):
        line = GroupLine(desk.group_id, windows)
        (chat,) = await groups.read_chats(bob, [line])
        assert chat.last_message is not None
        assert (chat.last_message.message.message_id, chat.unread_count) == (first.message_id, 1)
        assert await rows_read(ledger_dsn, listing(bob, [line])) < 10


async def test_a_message_whose_entry_cannot_be_written_is_not_there(
    engine: EmbeddedPostgres, groups: PostgresGroupStore, group_desk: GroupDesk
) -> None:
    await query(engine.dsn, "ALTER TABLE journal ADD CONSTRAINT broken CHECK (false)")
    message = group_desk.say()

    with pytest.raises(UnavailableError, match="CheckViolation"):
        await groups.accept(group_desk.shard, [message])

    store = PostgresMessageStore(engine.dsn)
    assert await store.find([group_ref(message)]) == [None]
    assert await inbox(store, group_desk.alice) == []
    await query(engine.dsn, "ALTER TABLE journal DROP CONSTRAINT broken")
    assert (await groups.accept(group_desk.shard, [message]))[0].verdict is Verdict.STORED
    await store.aclose()


async def test_pointers_whose_lines_cannot_be_written_are_not_there(
    engine: EmbeddedPostgres, groups: PostgresGroupStore, group_desk: GroupDesk
) -> None:
    message = group_desk.say()
    await groups.accept(group_desk.shard, [message])
    await query(engine.dsn, "ALTER TABLE conversations ADD CONSTRAINT broken CHECK (false)")

    with pytest.raises(UnavailableError, match="CheckViolation"):
        await groups.expand([group_desk.expand(message)], [group_desk.touch(message)])

    store = PostgresMessageStore(engine.dsn)
    assert await inbox(store, group_desk.bob) == []
    await store.aclose()


async def test_a_killed_server_is_used_again_once_it_is_back(
    engine: EmbeddedPostgres, groups: PostgresGroupStore, group_desk: GroupDesk
) -> None:
    message = group_desk.say()
    await groups.accept(group_desk.shard, [message])
    await engine.kill()

    with pytest.raises(UnavailableError, match="PostgreSQL ledger"):
        await groups.expand([group_desk.expand(message)], [])
    await engine.start()
    await within(5, lambda: groups.expand([group_desk.expand(message)], []))

    store = PostgresMessageStore(engine.dsn)
    assert len(await inbox(store, group_desk.bob)) >= 1
    await store.aclose()


async def test_lines_of_chat_lists_are_written_once_a_minute_and_for_new_members_at_once(
    engine: EmbeddedPostgres, groups: PostgresGroupStore, group_desk: GroupDesk
) -> None:
    first, second = group_desk.say(), group_desk.say()
    late = group_desk.say(message_id=group_desk.uuid7(START_MS + 120_000))
    await groups.accept(group_desk.shard, [first, second, late])

    await groups.expand([], [group_desk.touch(first, to=(group_desk.bob,))])
    await groups.expand([], [group_desk.touch(second, to=(group_desk.bob,))])
    assert await lines(engine, group_desk) == {group_desk.bob: first.accepted_ms}
    await groups.expand([], [group_desk.touch(second, version=2, to=(group_desk.bob, group_desk.carol))])
    assert await lines(engine, group_desk) == dict.fromkeys((group_desk.bob, group_desk.carol), second.accepted_ms)
    await groups.expand([], [group_desk.touch(late, version=2, to=(group_desk.bob,))])

    assert (await lines(engine, group_desk))[group_desk.bob] == START_MS + 120_000


async def lines(engine: EmbeddedPostgres, desk: GroupDesk) -> dict[bytes, int]:
    """Returns the times of the group in chat lists."""
    rows = await query(engine.dsn, "SELECT user_id, conversation_id, last_ms FROM conversations")
    return {user.bytes: last_ms for user, group, last_ms in rows if group.bytes == desk.group_id}


async def test_shards_with_the_highest_bit_are_numbers_like_others(
    groups: PostgresGroupStore, engine: EmbeddedPostgres
) -> None:
    desk, journal = GroupDesk(), PostgresJournal(engine.dsn)
    shard = Shard(2**64 - 1)

    await groups.accept(shard, [desk.say()])

    assert [orphan.shard for orphan in await journal.adopt(-1.0)] == [shard]
    await journal.aclose()


async def test_an_entry_whose_transaction_outlasts_an_adopters_read_is_not_forgotten(
    engine: EmbeddedPostgres, groups: PostgresGroupStore, group_desk: GroupDesk
) -> None:
    manual, directory = ManualClock(), FakeGroupDirectory()
    directory.add(group_of(group_desk.group_id, *group_desk.members))
    clock = LedgerClock(manual, bytes(8))
    late, sent = (group_desk.say()._replace(position=clock.mint().position) for _ in range(2))
    await groups.accept(group_desk.shard, [sent])
    elsewhere = Shard(group_desk.shard ^ 1)
    await groups.accept(elsewhere, [late])

    class Journal(PostgresJournal):
        """A journal in which somebody commits once a page was read."""

        async def advance(self, shard: Shard, mark: Position) -> None:
            await writing.commit()
            await super().advance(shard, mark)

        async def end(self, shard: Shard, last: Position, silence_s: float = 0.0) -> bool:
            # Its process is gone, although it has spoken a moment ago by the clock of the database.
            return await super().end(shard, last)

    shards = tuple(shard - 2**64 if shard >= 2**63 else shard for shard in (group_desk.shard, elsewhere))
    expanding = Expanding(groups, directory, FakeDispatcher(), clock)
    async with (
        await psycopg.AsyncConnection.connect(engine.dsn) as writing,
        contextlib.aclosing(Journal(engine.dsn)) as journal,
        contextlib.aclosing(PostgresMessageStore(engine.dsn)) as store,
        contextlib.aclosing(Tasks()) as tasks,
    ):
        await writing.execute("SELECT FROM journal_shards WHERE shard = %s FOR KEY SHARE", shards[:1])
        await writing.execute("UPDATE journal SET shard = %s WHERE shard = %s", shards)
        seams = Seams(manual, SystemRandomness())
        worker = JournalWorker(expanding, journal, Shard(1), clock=clock, seams=seams, tasks=tasks)

        await worker.adopt(Orphan(group_desk.shard, NO_POSITION))
        manual.pass_s(HORIZON_S + 1)
        for orphan in await journal.adopt(-1.0):
            if orphan.shard == group_desk.shard:
                await worker.adopt(orphan)

        seen = {event.message_id for event in await inbox(store, group_desk.bob) if isinstance(event, MessageEvent)}
        assert seen == {late.message_id, sent.message_id}
        assert group_desk.shard not in {orphan.shard for orphan in await journal.adopt(-1.0)}
