"""The log of changes under overlapping transactions, on PostgreSQL, and its pages, feed and pruning."""

import asyncio
import random
import time
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection

from chappe.runtime.errors import UnavailableError
from chappe.runtime.tasks import Tasks
from svc_identity.adapters.change_log_postgres import PostgresChangeLog, PostgresLead
from svc_identity.adapters.database_postgres import Database
from svc_identity.adapters.identity_store_postgres import postgres_identity_store
from svc_identity.errors import CursorExpiredError
from svc_identity.model import ChangePage, Cursor
from svc_identity.model.group import GroupUpdate
from svc_identity.ports import ChangeLog, IdentityStore
from svc_identity.protocol.cursor import decode_cursor, encode_cursor
from svc_identity.service import feed as feeds
from svc_identity.service.feed import ChangeFeed
from tests.svc_identity.groups import add, by, found, membership
from tests.svc_identity.groups import version as version_of
from tests.svc_identity.people import register

INSERT = "INSERT INTO identity_changes (kind, entity, version) VALUES (1, gen_random_uuid(), %s)"


async def drain(log: ChangeLog, cursor: Cursor) -> tuple[list[int], Cursor]:
    """Reads everything after a cursor, which travels as bytes; returns the versions and the new cursor."""
    versions: list[int] = []
    async for page in feeds.pages(log, decode_cursor(encode_cursor(cursor))):
        versions += [change.version for change in page.changes]
        cursor = page.cursor
    return versions, cursor


class Writer:
    """One connection that writes changes and takes its time to commit."""

    def __init__(self, connection: AsyncConnection[Any]) -> None:
        self.connection = connection
        self.open: list[int] = []

    async def step(self, rng: random.Random, version: int, committed: set[int]) -> None:
        if self.open and rng.random() < 0.4:
            await self._finish(rng, committed)
            return
        if self.open and rng.random() < 0.3:
            async with self.connection.transaction():
                await self.connection.execute(INSERT, (version,))
        else:
            await self.connection.execute(INSERT, (version,))
        self.open.append(version)

    async def _finish(self, rng: random.Random, committed: set[int]) -> None:
        if rng.random() < 0.8:
            await self.connection.commit()
            committed.update(self.open)
        else:
            await self.connection.rollback()
        self.open = []


@pytest.mark.parametrize("seed", range(6))
async def test_snapshot_cursor_loses_nothing_and_doubles_nothing(
    database: Database, postgres_dsn: str, seed: int
) -> None:
    rng = random.Random(seed)
    log = PostgresChangeLog(database, page_size=rng.choice([1, 3, 1000]))
    connections = [await AsyncConnection.connect(postgres_dsn) for _ in range(5)]
    writers, committed, seen = [Writer(connection) for connection in connections], set[int](), list[int]()
    cursor = (await log.read(None)).cursor

    for version in range(150):
        await rng.choice(writers).step(rng, version, committed)
        if rng.random() < 0.3:
            found, cursor = await drain(log, cursor)
            assert set(found) <= committed
            seen += found
    for connection in connections:
        await connection.close()
    seen += (await drain(log, cursor))[0]

    assert sorted(seen) == sorted(committed)


async def test_id_order_would_have_lost_what_commits_late(database: Database, postgres_dsn: str) -> None:
    log = PostgresChangeLog(database)
    cursor = (await log.read(None)).cursor
    async with await AsyncConnection.connect(postgres_dsn) as slow, await AsyncConnection.connect(postgres_dsn) as fast:
        await slow.execute(INSERT, (1,))
        await fast.execute(INSERT, (2,))
        await fast.commit()
        first, cursor = await drain(log, cursor)
        await slow.commit()
        second, _ = await drain(log, cursor)

    assert (first, second) == ([2], [1])


async def test_page_in_progress_ignores_what_is_committed_meanwhile(database: Database, postgres_dsn: str) -> None:
    log = PostgresChangeLog(database, page_size=2)
    start = (await log.read(None)).cursor
    async with await AsyncConnection.connect(postgres_dsn, autocommit=True) as writer:
        for version in range(3):
            await writer.execute(INSERT, (version,))
        first = await log.read(start)
        await writer.execute(INSERT, (3,))
        second = await log.read(start, first)

    later, _ = await drain(log, second.cursor)
    assert [change.version for change in first.changes + second.changes] == [0, 1, 2]
    assert (first.is_last, second.is_last) == (False, True)
    assert later == [3]


async def test_heartbeat_time_is_before_what_is_not_in_it(database: Database, postgres_dsn: str) -> None:
    log = PostgresChangeLog(database)
    cursor = (await log.read(None)).cursor
    async with await AsyncConnection.connect(postgres_dsn, autocommit=True) as writer:
        for version in range(200):
            reading = asyncio.ensure_future(log.read(cursor))
            await writer.execute(INSERT, (version,))
            committed_ms = time.time() * 1000
            page = await reading
            if not page.changes:
                assert page.complete_until_ms <= committed_ms
            cursor = page.cursor


async def test_very_old_snapshot_is_rounded_down_when_it_is_too_long() -> None:
    crowded = Cursor(1, 1000, 5000, tuple(range(1000, 4900, 3)))

    kept = decode_cursor(encode_cursor(crowded))

    assert kept == Cursor(1, 1000, 1000)
    assert len(encode_cursor(Cursor(1, 1, 1 << 62, tuple(range(1, 800))))) <= 1024


async def test_a_restore_begins_an_epoch_and_inboxes_are_told_on_from_where_they_were(database: Database) -> None:
    log = PostgresChangeLog(database)
    start = (await log.read(None)).cursor
    async with log.lead() as lead:
        assert lead is not None
        await lead.move(start)

        raised = await log.raise_epoch()

        assert await lead.mark() == start._replace(epoch=raised)
    assert raised > start.epoch
    with pytest.raises(CursorExpiredError):
        await log.read(start)
    assert (await log.read(start._replace(epoch=raised))).cursor.epoch == raised


async def test_after_a_restore_no_version_of_a_group_is_one_that_was_lost(database: Database) -> None:
    store = postgres_identity_store(database)
    owner, member = [(await register(store)).user_id for _ in range(2)]
    group_id = await found(store, owner)
    before = await version_of(store, group_id)

    raised = await PostgresChangeLog(database).raise_epoch()
    again = await PostgresChangeLog(database).raise_epoch()
    await add(store, group_id, owner, member)

    assert before < raised < again
    assert await version_of(store, group_id) == again + 1
    assert (await membership(store, group_id, member)).windows[-1].joined_version == again + 1


async def test_lead_on_a_database_that_takes_no_writes_is_unavailable(database: Database) -> None:
    log = PostgresChangeLog(database)
    start = (await log.read(None)).cursor
    async with log.lead() as lead:
        assert isinstance(lead, PostgresLead)
        await lead._connection.execute("SET default_transaction_read_only = on")

        with pytest.raises(UnavailableError):
            await lead.move(start)


async def test_pruning_spares_what_inboxes_were_not_told_of(store: IdentityStore) -> None:
    owner = (await register(store)).user_id
    start = (await store.changes.read(None)).cursor
    async with store.changes.lead() as lead:
        assert lead is not None
        unmarked = await lead.prune(4_000_000_000_000)
        await lead.move(start)
        await store.profiles.update_profile(owner, "Later", None)
        removed = await lead.prune(4_000_000_000_000)

    left, _ = await drain(store.changes, start)
    assert (unmarked, removed, len(left)) == (0, 2, 1)
    with pytest.raises(CursorExpiredError):
        await store.changes.read(start._replace(xmin=1, xmax=1, running=()))


async def test_what_a_group_change_was_goes_with_its_row_of_the_log(store: IdentityStore) -> None:
    owner = (await register(store)).user_id
    group_id = await found(store, owner)
    async with store.changes.lead() as lead:
        assert lead is not None
        await lead.move((await store.changes.read(None)).cursor)
        await store.groups.update_group(by(group_id, owner), GroupUpdate(name="Hills"))
        await lead.prune(4_000_000_000_000)

    assert await store.changes.group_news(group_id, 1) is None
    assert await store.changes.group_news(group_id, 2) is not None


class FlakyLog:
    """A log that fails when it is told to."""

    def __init__(self, log: ChangeLog) -> None:
        self._log = log
        self.is_down = False
        self.is_new = False

    async def read(self, after: Cursor | None, page: ChangePage | None = None) -> ChangePage:
        if self.is_down:
            raise UnavailableError("postgres", "down")
        if self.is_new and after is not None:
            self.is_new = False
            raise CursorExpiredError("begun anew")
        return await self._log.read(after, page)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._log, name)


async def next_change(pages: Any) -> list[int]:
    async with asyncio.timeout(30):
        async for page in pages:
            if page.changes:
                return [change.version for change in page.changes]
    raise AssertionError("the feed ended")


async def test_feed_goes_on_after_the_store_was_away(store: IdentityStore, changed: asyncio.Event) -> None:
    owner, log = (await register(store)).user_id, FlakyLog(store.changes)
    feed = ChangeFeed(log, changed, 0.01)
    async with Tasks() as tasks:
        tasks.spawn(feed.run(), name="feed")
        await feed.tail()
        pages = feed.follow(None).pages()
        await anext(pages)
        log.is_down = True
        await store.profiles.update_profile(owner, "Meanwhile", None)
        log.is_down = False

        assert len(await next_change(pages)) == 1


async def test_follower_that_lags_reads_the_log_itself(
    store: IdentityStore, changed: asyncio.Event, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feeds, "MEMORY_PAGES", 1)
    owner = (await register(store)).user_id
    feed = ChangeFeed(store.changes, changed, 0.005)
    feed._pages = type(feed._pages)(maxlen=1)
    async with Tasks() as tasks:
        tasks.spawn(feed.run(), name="feed")
        pages = feed.follow(None).pages()
        await anext(pages)
        for number in range(4):
            await store.profiles.update_profile(owner, f"Name {number}", None)
            count = feed.count
            while feed.count < count + 2:
                await feed._published.wait()

        found: list[int] = []
        while len(found) < 4:
            found += await next_change(pages)

    assert found == sorted(set(found))


async def test_feed_that_lost_its_place_sends_followers_to_the_log(
    store: IdentityStore, changed: asyncio.Event
) -> None:
    owner, log = (await register(store)).user_id, FlakyLog(store.changes)
    feed = ChangeFeed(log, changed, 0.01)
    async with Tasks() as tasks:
        tasks.spawn(feed.run(), name="feed")
        pages = feed.follow(None).pages()
        await anext(pages)
        log.is_new = True
        while feed.newest is not None:  # noqa: ASYNC110 - the moment sets no event
            await asyncio.sleep(0)
        await store.profiles.update_profile(owner, "Meanwhile", None)

        assert len(await next_change(pages)) == 1


async def test_store_that_is_gone_is_unavailable_not_a_crash(postgres_dsn: str, changed: asyncio.Event) -> None:
    async with Database(postgres_dsn, size=2, changed=changed) as database:
        log = PostgresChangeLog(database)
        async with await AsyncConnection.connect(postgres_dsn, autocommit=True) as other:
            await log.read(None)
            await other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE pid <> pg_backend_pid() AND datname = current_database()"
            )

        failures = 0
        for _ in range(5):
            try:
                await log.read(None)
            except UnavailableError:
                failures += 1

    assert failures <= 2
    assert not issubclass(UnavailableError, psycopg.Error)
