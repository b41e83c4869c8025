"""What only the store on PostgreSQL has: plans, large batches, and a server that goes away."""

import asyncio
import contextlib
import os
import signal
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import psycopg
import pytest

from chappe.runtime import migrations
from chappe.runtime.engines import EmbeddedPostgres, databases
from chappe.runtime.errors import ChappeError, UnavailableError
from chappe.runtime.migrations import SchemaOutdatedError
from svc_message.adapters.message_store_postgres import SCHEMA, PostgresMessageStore, history, receipts
from svc_message.adapters.message_store_postgres.arrays import binary_adapters, byte_strings, int8s, uuids
from svc_message.adapters.message_store_postgres.connections import _PREPARE, Connections, Row, Statement
from svc_message.adapters.receipt_store_postgres import raising
from svc_message.adapters.timings import StoreTimings
from svc_message.adapters.trace_store_postgres import PostgresTraceStore
from svc_message.model import ChatCursor, ForeignAppend, NewMessage, UserId, Verdict
from svc_message.model.action import ActionKind
from svc_message.model.group import Window
from svc_message.model.receipt import MemberRead
from svc_message.model.setting import SettingChange
from svc_message.model.trace import TraceQuery
from svc_message.protocol import direct_conversation, position_at
from tests.svc_message.desk import START_MS, Desk, action_ref, event, ids, inbox, page, ref, stranger
from tests.svc_message.group_desk import GroupDesk
from tests.svc_message.plans import Eavesdropper, Scan

SCANS = """
    SELECT relname, seq_scan FROM pg_stat_user_tables
    WHERE relname IN (
        'messages', 'inbox', 'receipts', 'conversations', 'actions', 'private_views', 'reactions', 'disappeared')
    ORDER BY relname
"""


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[EmbeddedPostgres]:
    """Returns a PostgreSQL of the test's own, with the schema."""
    async with EmbeddedPostgres(tmp_path / "pg") as engine:
        await migrations.migrate(engine.dsn, SCHEMA)
        yield engine


@pytest.fixture
async def store(engine: EmbeddedPostgres) -> AsyncIterator[PostgresMessageStore]:
    """Returns a store whose server the test may ill-treat."""
    store = PostgresMessageStore(engine.dsn)
    yield store
    await store.aclose()


async def query(dsn: str, text: str) -> list[Row]:
    """Asks the server something on a connection of its own."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        cursor = await connection.execute(text.encode())
        return await cursor.fetchall() if cursor.description else []


async def within(timeout_s: float, succeeds: Callable[[], Awaitable[object]]) -> None:
    """Tries until it works."""
    async with asyncio.timeout(timeout_s):
        while True:
            try:
                await succeeds()
            except ChappeError:
                await asyncio.sleep(0.05)
            else:
                return


@pytest.mark.parametrize("count", [1, 2, 64, 512])
async def test_batches_of_every_size_are_stored(postgres_store: PostgresMessageStore, desk: Desk, count: int) -> None:
    messages = [desk.write(b"%d" % n) for n in range(count)]

    answers = await postgres_store.accept(messages)

    assert {answer.verdict for answer in answers} == {Verdict.STORED}
    assert await inbox(postgres_store, desk.bob) == [event(message) for message in messages]


async def test_envelopes_of_64_kib_come_back_whole(postgres_store: PostgresMessageStore, desk: Desk) -> None:
    message = desk.write(os.urandom(65536))

    await postgres_store.accept([message])

    assert await inbox(postgres_store, desk.bob) == [event(message)]


async def work(store: PostgresMessageStore, traces: PostgresTraceStore, desk: Desk) -> None:
    """Does everything that is done for direct messages once."""
    messages = [desk.write(), desk.write()]
    await store.accept([*messages, desk.write(message_id=messages[0].message_id[:15] + b"?")])
    await store.accept([desk.retry(message) for message in messages])
    await store.declare_void([ref(messages[0])])
    await store.apply_receipts([desk.receive(messages[0]), desk.read(messages[0])])
    await store.apply_receipts([desk.read(upto=messages[1].message_id)])
    await store.append_events([ForeignAppend(desk.uuid7(), (desk.bob,), b"", desk.position())])
    actions = [
        desk.act(messages[1], kind, b"?", is_withheld=withheld) for kind in ActionKind for withheld in (True, False)
    ]
    await store.actions.sight([action_ref(action) for action in actions])
    await store.actions.act(actions)
    await store.actions.declare_actions_void([action_ref(action) for action in actions])
    await inbox(store, desk.bob)
    await page(store, desk.bob, messages[0], after=messages[0].message_id)
    await page(store, desk.bob, messages[0])
    await store.list_chats(desk.bob, None, 10)
    await store.list_chats(desk.bob, None, 10, is_archived=True)
    await store.settings.change(desk.keep(SettingChange(expiry_s=1), reaches_peer=True), bytes(16))
    await traces.read_trace(TraceQuery(messages[1].conversation_id, messages[1].message_id))


async def test_every_statement_finds_its_rows_by_an_index(ledger_dsn: str, desk: Desk) -> None:
    before = await query(ledger_dsn, SCANS)
    store, traces = PostgresMessageStore(ledger_dsn), PostgresTraceStore(ledger_dsn)

    for _ in range(10):
        await work(store, traces, desk)
        await store.accept([desk.write()._replace(expiry_s=1, accepted_ms=1)])
        await store.retention.expire(10, position_at(START_MS * 2))
        await store.retention.wake(START_MS, position_at(START_MS))
        await store.retention.forget(position_at(1), desk.bob, 10)
    await store.aclose()
    await traces.aclose()

    # A server process reports what it did when its connection has ended.
    await within(5, lambda: gone(ledger_dsn))
    assert await query(ledger_dsn, SCANS) == before


@pytest.mark.untraced
async def test_plans_that_were_made_for_empty_tables_pass_over_nobody_elses_rows(
    engine: EmbeddedPostgres, eavesdropper: Eavesdropper
) -> None:
    store, traces = PostgresMessageStore(engine.dsn), PostgresTraceStore(engine.dsn)
    scans: set[Scan] = set()

    await work(store, traces, Desk())
    scans |= await eavesdropper.wide_scans()
    for _ in range(2):
        # The server counts rows by itself once some fifty have changed.
        for _ in range(50):
            await work(store, traces, Desk())
        await query(engine.dsn, "ANALYZE messages, inbox, receipts, conversations")
        scans |= await eavesdropper.wide_scans()

    assert scans == set()
    await store.aclose()
    await traces.aclose()


async def rows_read(dsn: str, statement: Statement) -> int:
    """Returns how many rows of tables a statement reads, by the plan that the store makes."""
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True, context=binary_adapters()) as connection:
        await connection.execute(_PREPARE)
        cursor = await connection.execute(
            b"EXPLAIN (ANALYZE, FORMAT JSON) " + statement.query, statement.parameters, prepare=True
        )
        ((plan,),) = await cursor.fetchall()
    nodes, read = [plan[0]["Plan"]], 0
    while nodes:
        node = nodes.pop()
        nodes += node.get("Plans", [])
        if "Relation Name" in node:
            removed = node.get("Rows Removed by Filter", 0) + node.get("Rows Removed by Index Recheck", 0)
            read += round((node["Actual Rows"] + removed) * node["Actual Loops"])
    return read


async def test_a_window_of_a_chat_list_reads_as_much_of_5000_chats_as_of_100(ledger_dsn: str, desk: Desk) -> None:
    store = PostgresMessageStore(ledger_dsn)
    few, many = desk.alice, desk.bob
    for owner, count in ((few, 100), (many, 5000)):
        for start in range(0, count, 500):
            people = [stranger() for _ in range(min(count - start, 500))]
            await store.accept([desk.write(sender=person, recipient=owner) for person in people])
        for person in people[:3]:
            await store.settings.change(desk.keep(SettingChange(is_pinned=True), user=owner, peer=person), bytes(16))

    async def read(owner: UserId, windows: int) -> int:
        cursor: ChatCursor | None = None
        for _ in range(windows):
            cursor = (await store.list_chats(owner, cursor, 20)).next_cursor
        return await rows_read(ledger_dsn, history.listing(owner, cursor, 20, is_archived=False))

    first_of_few, first_of_many, later_of_few, later_of_many = [
        await read(owner, windows) for windows in (0, 3) for owner in (few, many)
    ]
    await store.aclose()

    assert first_of_few == first_of_many
    assert later_of_few == later_of_many
    assert later_of_many <= first_of_many < 10 * 21


async def test_what_is_withheld_from_somebody_is_not_gone_through_for_its_chat_list(
    postgres_store: PostgresMessageStore, ledger_dsn: str, desk: Desk
) -> None:
    times = [START_MS - 3_600_000, *range(START_MS - 2000, START_MS)]
    said = [desk.write(message_id=desk.uuid7(sent_ms))._replace(accepted_ms=sent_ms) for sent_ms in times]
    await postgres_store.accept([said[0], *(one._replace(is_withheld=True) for one in said[1:])])

    (chat,) = (await postgres_store.list_chats(desk.bob, None, 10)).chats

    assert chat.last_message is not None
    assert (chat.last_message.message.message_id, chat.unread_count) == (said[0].message_id, 1)
    assert await rows_read(ledger_dsn, history.listing(desk.bob, None, 10, is_archived=False)) < 10


@pytest.mark.parametrize("is_group", [False, True])
async def test_a_read_does_not_look_again_through_the_minutes_before_the_place_read(
    ledger_dsn: str, *, is_group: bool
) -> None:
    desk = GroupDesk()
    conversation_id = desk.group_id if is_group else direct_conversation(desk.alice, desk.bob)
    recipient, version = (conversation_id, 1) if is_group else (desk.bob, None)
    start_ms = START_MS - 600_000
    written = [desk.uuid7(start_ms + n * 40) for n in range(15_000)]
    say = """
        INSERT INTO messages (conversation_id, message_id, sender_id, recipient_id, pos, accepted_ms,
            sender_device_id, kind, is_withheld, content_hash, envelope, members_version)
        SELECT %s, id, %s, %s, id, %s, 1, 1, false, '', '', %s FROM unnest(%s::uuid[]) AS t (id)
    """
    place = """
        INSERT INTO conversations (user_id, conversation_id, peer_id, last_ms, read_upto) VALUES (%s, %s, %s, 0, %s)
    """
    async with await psycopg.AsyncConnection.connect(ledger_dsn, autocommit=True) as connection:
        for accepted_ms, found in ((START_MS, written[:1]), (start_ms, written[1:])):
            people = (conversation_id.hex(), desk.alice.hex(), recipient.hex())
            await connection.execute(say.encode(), (*people, accepted_ms, version, [one.hex() for one in found]))
        last = (desk.bob.hex(), conversation_id.hex(), desk.alice.hex(), written[-1].hex())
        await connection.execute(place.encode(), last)
        await connection.execute(b"ANALYZE messages")

    statement = receipts.expanding([(0, desk.read(upto=written[-1]))])
    if is_group:
        _, statement = raising.looking([MemberRead(desk.bob, desk.group_id, (Window(1, 0),), written[-1], ())])

    # A portion of those of 95 s, and the late one.
    assert 1000 <= await rows_read(ledger_dsn, statement) <= 1010


async def gone(dsn: str) -> None:
    """Raises while a store is connected."""
    if await query(dsn, "SELECT 1 FROM pg_stat_activity WHERE application_name = 'svc_message'"):
        raise UnavailableError("test", "a store is still connected")


async def test_a_batch_whose_second_statement_fails_leaves_nothing(
    engine: EmbeddedPostgres, store: PostgresMessageStore, desk: Desk
) -> None:
    await query(engine.dsn, "ALTER TABLE conversations ADD CONSTRAINT broken CHECK (false)")
    message = desk.write()

    with pytest.raises(UnavailableError, match="CheckViolation"):
        await store.accept([message])

    assert await store.find([ref(message)]) == [None]
    assert await inbox(store, desk.bob) == []
    await query(engine.dsn, "ALTER TABLE conversations DROP CONSTRAINT broken")
    assert (await store.accept([desk.retry(message)]))[0].verdict is Verdict.STORED


async def until_refused(store: PostgresMessageStore, message: NewMessage) -> None:
    """Sends until it fails: what serves a connection outlives its server by some milliseconds, and may commit."""
    while True:
        await store.accept([message])


async def test_a_killed_server_is_unavailable_and_used_again_once_it_is_back(
    engine: EmbeddedPostgres, store: PostgresMessageStore, desk: Desk
) -> None:
    before, during = desk.write(), desk.write()
    await store.accept([before])
    await engine.kill()

    with pytest.raises(UnavailableError, match="PostgreSQL ledger") as refused:
        await until_refused(store, during)
    with pytest.raises(UnavailableError):
        await inbox(store, desk.bob)
    await engine.start()
    await within(5, lambda: store.accept([desk.retry(during)]))

    assert refused.value.dependency == "PostgreSQL ledger"
    assert ids(await page(store, desk.bob, before)) == [during.message_id, before.message_id]


async def test_what_was_answered_survives_a_kill_under_load(
    engine: EmbeddedPostgres, store: PostgresMessageStore, desk: Desk
) -> None:
    answered: list[bytes] = []
    is_flowing = asyncio.Event()

    async def send() -> None:
        while True:
            batch = [desk.write() for _ in range(8)]
            await store.accept(batch)
            answered.extend(message.message_id for message in batch)
            if len(answered) > 400:
                is_flowing.set()

    senders = [asyncio.create_task(send()) for _ in range(3)]
    await is_flowing.wait()
    await engine.kill()
    ends = await asyncio.gather(*senders, return_exceptions=True)
    await engine.start()

    assert {type(end) for end in ends} == {UnavailableError}
    stored = {e.message_id for e in await inbox(store, desk.bob)}  # type: ignore[union-attr]  # messages only
    assert set(answered) <= stored


async def test_a_silent_server_counts_as_gone(engine: EmbeddedPostgres, desk: Desk) -> None:
    store = PostgresMessageStore(engine.dsn, writers=1, timeout_s=0.5)
    await store.accept([desk.write()])
    ((pid,),) = await query(engine.dsn, "SELECT pid FROM pg_stat_activity WHERE application_name = 'svc_message'")
    os.kill(pid, signal.SIGSTOP)

    with pytest.raises(UnavailableError, match="PostgreSQL ledger"):
        await store.accept([desk.write()])

    os.kill(pid, signal.SIGCONT)
    assert len(await store.accept([desk.write()])) == 1
    await store.aclose()


async def test_a_terminated_connection_costs_one_error_at_most(
    engine: EmbeddedPostgres, store: PostgresMessageStore, desk: Desk
) -> None:
    await store.accept([desk.write()])
    await query(
        engine.dsn,
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE application_name = 'svc_message'",
    )

    with pytest.raises(UnavailableError):
        await store.accept([desk.write()])

    assert len(await store.accept([desk.write()])) == 1


@pytest.mark.parametrize("after_s", [0.0, 0.001, 0.003, 0.01])
async def test_a_cancelled_caller_leaves_a_store_that_works(
    postgres_store: PostgresMessageStore, desk: Desk, after_s: float
) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(postgres_store.accept([desk.write() for _ in range(512)]), after_s)

    answers = await asyncio.gather(*(postgres_store.accept([desk.write()]) for _ in range(8)))

    assert [answer.verdict for (answer,) in answers] == [Verdict.STORED] * 8


async def test_waiting_for_a_connection_has_an_end(ledger_dsn: str) -> None:
    connections = Connections(ledger_dsn, size=1, timeout_s=0.3)
    slow = Statement(b"SELECT 1 FROM (SELECT pg_sleep(0.29) FROM generate_series(1, 1)) s")

    results = await asyncio.gather(*(connections.run(slow) for _ in range(4)), return_exceptions=True)

    assert any("no connection was free" in str(result) for result in results)
    await connections.aclose()


async def test_statements_are_timed_and_those_of_unknown_outcome_counted(ledger_dsn: str, desk: Desk) -> None:
    timings = StoreTimings()
    store = PostgresMessageStore(ledger_dsn, timings=timings)

    await store.accept([desk.write()])
    await inbox(store, desk.bob)
    await store.aclose()
    with pytest.raises(UnavailableError):
        await store.accept([desk.write()])

    assert [sum(one.seconds.counts) for one in (timings.writes, timings.reads)] == [2, 1]
    assert (timings.writes.failures, timings.reads.failures) == (1, 0)
    assert timings.writes.seconds.total > 0


async def test_a_closed_store_refuses(ledger_dsn: str) -> None:
    store = PostgresMessageStore(ledger_dsn)
    await store.epoch()

    await store.aclose()

    with pytest.raises(UnavailableError, match="closed"):
        await store.epoch()


async def test_switched_off_durability_is_switched_on_again(engine: EmbeddedPostgres) -> None:
    await query(engine.dsn, "ALTER DATABASE postgres SET synchronous_commit = off")
    connections = Connections(engine.dsn, size=1, timeout_s=5)

    shown = await connections.run(Statement(b"SHOW synchronous_commit"))

    assert shown == [("on",)]
    await connections.aclose()


async def test_an_old_schema_is_refused_with_the_command(ledger_engine: EmbeddedPostgres) -> None:
    dsn = (await databases(ledger_engine.dsn, ["without_schema"]))["without_schema"]
    store = PostgresMessageStore(dsn)

    with pytest.raises(SchemaOutdatedError, match="run: python -m svc_message migrate"):
        await store.ready()
    with pytest.raises(UnavailableError, match="run: python -m svc_message migrate"):
        await store.epoch()

    await store.aclose()


async def test_a_restore_raises_the_epoch(store: PostgresMessageStore) -> None:
    raised = await store.raise_epoch()

    assert await store.epoch() == raised > 1
    assert await store.raise_epoch() > raised


async def test_two_restores_of_one_backup_do_not_begin_the_same_epoch(
    engine: EmbeddedPostgres, store: PostgresMessageStore
) -> None:
    before_s = int(time.time())
    raised = await store.raise_epoch()
    await query(engine.dsn, "UPDATE ledger SET epoch = 1")

    # A cursor counts epochs in 32 bits.
    assert before_s <= raised < 2**32
    assert await store.raise_epoch() >= raised


def test_ids_of_a_wrong_length_are_refused() -> None:
    with pytest.raises(ValueError, match="16 bytes"):
        uuids([b"short"])


async def test_packed_arrays_are_what_postgres_reads(ledger_dsn: str) -> None:
    connections = Connections(ledger_dsn, size=1, timeout_s=5)
    values = (byte_strings([b"", b"\0", b"ab"]), int8s([-1, 0, 2**40]), byte_strings([]))

    ((texts, numbers, nothing),) = await connections.run(Statement(b"SELECT %b, %b, %b", values))

    assert (texts, numbers, nothing) == ([b"", b"\0", b"ab"], [-1, 0, 2**40], [])
    await connections.aclose()
