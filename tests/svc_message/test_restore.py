"""A backup of the ledger is taken and restored, as docs/operate.md says."""

import asyncio
import contextlib
import os
import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from chappe.runtime import migrations
from chappe.runtime.cassandra import Address, open_session
from chappe.runtime.clock import SystemClock
from chappe.runtime.engines import EmbeddedPostgres
from chappe.runtime.engines.binaries import postgres_install
from chappe.runtime.engines.cassandra import DURABLE, CassandraInstall, EmbeddedCassandra
from svc_message.__main__ import main
from svc_message.adapters.ledger_cassandra.connection import Connection
from svc_message.adapters.ledger_cassandra.message_store import CassandraMessageStore
from svc_message.adapters.message_store_postgres import SCHEMA, PostgresMessageStore
from svc_message.model import DeviceId, InboxQuery, NewMessage, Position, Verdict
from svc_message.ports import MessageStore
from svc_message.protocol import LedgerClock
from svc_message.service.sight import Sight
from svc_message.service.sync import Syncing
from tests.svc_message.desk import Desk, event, inbox, ref
from tests.svc_message.fakes import FakeDispatcher, FakeGroupDirectory

NOBODY = 65534


async def back_up(dsn: str, cluster: Path) -> None:
    """Takes a base backup of a server that runs, with the log that belongs to it."""
    program = postgres_install() / "bin" / "pg_basebackup"
    arguments = ("--checkpoint=fast", "--wal-method=stream", f"--dbname={dsn}", f"--pgdata={cluster}")
    process = await asyncio.create_subprocess_exec(program, *arguments)
    assert await process.wait() == 0
    await asyncio.to_thread(give_away, cluster)


def give_away(cluster: Path) -> None:
    """As root the server runs as somebody else, who has to own its files."""
    if os.geteuid() == 0:
        for path in (cluster, *cluster.rglob("*")):
            os.chown(path, NOBODY, NOBODY)


async def is_read_again(
    store: MessageStore, clock: LedgerClock, desk: Desk, kept: NewMessage, lost: NewMessage
) -> None:
    """Looks whether a device reads on, and may send again what the backup has not."""
    syncing = Syncing(store, Sight(FakeGroupDirectory()), FakeDispatcher(), clock)
    await syncing.start()
    found = await store.find([ref(kept), ref(lost)])
    answer = (await syncing.sync([of_a_device_that_had_both(desk, lost.position)]))[0]
    (retried,) = await store.accept([desk.retry(lost)])

    assert [one is not None for one in found] == [True, False]
    assert (answer.events, answer.is_resync) == ([event(kept)], False)
    assert retried.verdict is Verdict.STORED
    assert len(await inbox(store, desk.bob)) == 2


async def test_a_restored_ledger_has_what_was_backed_up_and_devices_read_their_last_hour_again(
    tmp_path: Path, desk: Desk
) -> None:
    clock = LedgerClock(SystemClock(), bytes(8))
    kept, lost = [desk.write()._replace(position=clock.mint().position) for _ in range(2)]
    async with EmbeddedPostgres(tmp_path / "before") as engine:
        await migrations.migrate(engine.dsn, SCHEMA)
        async with contextlib.aclosing(PostgresMessageStore(engine.dsn)) as store:
            await store.accept([kept])
            await back_up(engine.dsn, tmp_path / "after" / "cluster")
            await store.accept([lost])

    async with (
        EmbeddedPostgres(tmp_path / "after") as engine,
        contextlib.aclosing(PostgresMessageStore(engine.dsn)) as store,
    ):
        await store.raise_epoch()
        await is_read_again(store, clock, desk, kept, lost)


@contextlib.asynccontextmanager
async def opened(folder: Path, install: CassandraInstall, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Connection]:
    """Starts a node whose ledger is migrated by the command, and tells commands of it."""
    async with EmbeddedCassandra(folder, install, options=DURABLE) as node:
        monkeypatch.setenv("CHAPPE_MESSAGE_CASSANDRA_HOSTS", node.address)
        assert await asyncio.to_thread(main, ["migrate"]) == 0
        connection = Connection(
            await asyncio.to_thread(open_session, Address((node.address,)), keyspace="chappe_ledger")
        )
        async with contextlib.aclosing(connection):
            yield connection


def put_back(backup: Path, keyspace: Path) -> None:
    """Gives every table the files that it had; its folder is called after it and an id that is new."""
    for table in backup.iterdir():
        (folder,) = keyspace.glob(f"{table.name.rpartition('-')[0]}-*")
        shutil.rmtree(folder)
        shutil.copytree(table, folder)


async def test_a_ledger_in_cassandra_is_restored_from_the_files_of_its_tables(
    tmp_path: Path, cassandra_install: CassandraInstall, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in {"LEDGER": "cassandra", "CASSANDRA_REPLICAS": "1"}.items():
        monkeypatch.setenv(f"CHAPPE_MESSAGE_{name}", value)
    for name in ("IDENTITY_TARGET", "FANOUT_TARGET"):
        monkeypatch.setenv(f"CHAPPE_MESSAGE_{name}", "localhost:1")
    clock = LedgerClock(SystemClock(), bytes(8))
    kept, lost = [desk.write()._replace(position=clock.mint().position) for _ in range(2)]
    async with opened(tmp_path / "before", cassandra_install, monkeypatch) as connection:
        await CassandraMessageStore(connection).accept([kept])
    # A node that stops has written everything into its files, as one does for a snapshot.
    async with opened(tmp_path / "after", cassandra_install, monkeypatch):
        pass
    before, after = (tmp_path / name / "data" / "chappe_ledger" for name in ("before", "after"))
    await asyncio.to_thread(put_back, before, after)

    async with opened(tmp_path / "after", cassandra_install, monkeypatch) as connection:
        assert await asyncio.to_thread(main, ["raise-epoch"]) == 0
        store = CassandraMessageStore(connection)
        await is_read_again(store, clock, desk, kept, lost)


def of_a_device_that_had_both(desk: Desk, cursor: Position) -> InboxQuery:
    """Asks with a cursor from before the restore."""
    return InboxQuery(desk.bob, DeviceId(1), epoch=1, cursor=cursor, after=b"", pass_bound=b"", limit=10)
