"""The ledger on three nodes: some are killed while people write, and nothing that was acknowledged is lost."""

import asyncio
import re
from collections.abc import AsyncIterator, Iterator

import pytest

from chappe.runtime import migrations_cassandra
from chappe.runtime.app import StartError
from chappe.runtime.cassandra import Address, open_session
from chappe.runtime.engines.cassandra import EmbeddedCassandraCluster
from chappe.runtime.errors import UnavailableError
from svc_message.adapters.cassandra_keyspace import open_ledger
from svc_message.adapters.ledger_cassandra import SCHEMA
from svc_message.adapters.ledger_cassandra.connection import Connection
from svc_message.adapters.ledger_cassandra.message_store import CassandraMessageStore
from svc_message.config import CassandraSettings
from svc_message.model import NewMessage
from tests.svc_message.desk import Desk, ids, inbox, page

BATCHES = 60
BATCH = 8
WRITERS = 4
NO_QUORUM = r"only 1 of the 2 replicas that must answer are alive in data centre datacenter1; start .*nodetool status"


@pytest.fixture
async def store(cassandra_cluster: EmbeddedCassandraCluster) -> AsyncIterator[CassandraMessageStore]:
    """Returns a store of which every row is on three nodes."""
    address = Address(tuple(cassandra_cluster.addresses))
    await migrations_cassandra.migrate(address, "ledger", SCHEMA, replicas=3)
    connection = Connection(await asyncio.to_thread(open_session, address, keyspace="ledger"))
    yield CassandraMessageStore(connection)
    await connection.aclose()


class Writers:
    """People who write, and send again what was not acknowledged, as their outboxes do."""

    def __init__(self, store: CassandraMessageStore, desk: Desk) -> None:
        self._store, self._desk = store, desk
        self.acknowledged: list[NewMessage] = []
        self.refused = 0
        self._some = asyncio.Event()

    async def write(self, batches: int) -> None:
        """Writes so many batches, several at a time."""
        left = iter(range(batches))
        try:
            async with asyncio.timeout(120):
                await asyncio.gather(*(self._write(left) for _ in range(WRITERS)))
        finally:
            # Nobody is to wait for what does not come any more.
            self._some.set()

    async def _write(self, left: Iterator[int]) -> None:
        for _ in left:
            messages = [self._desk.write(b"%d" % n) for n in range(BATCH)]
            while True:
                try:
                    await self._store.accept(messages)
                    break
                except UnavailableError:
                    self.refused += 1
                    messages = [self._desk.retry(message) for message in messages]
                    await asyncio.sleep(0.1)
            self.acknowledged += messages
            if len(self.acknowledged) >= BATCHES * BATCH // 3:
                self._some.set()

    async def until_some(self) -> None:
        """Returns once a third is acknowledged."""
        await self._some.wait()


async def everything_is_there(store: CassandraMessageStore, desk: Desk, written: Writers) -> None:
    """Looks for what was acknowledged in both inboxes and in the history of both."""
    acknowledged = set(ids(written.acknowledged))
    assert len(acknowledged) == BATCHES * BATCH
    for user in (desk.alice, desk.bob):
        assert {event.message_id for event in await inbox(store, user)} == acknowledged  # type: ignore[union-attr]  # messages alone
        assert set(ids(await page(store, user, written.acknowledged[0], limit=BATCHES * BATCH))) == acknowledged


async def test_one_of_three_nodes_is_killed_while_people_send_and_what_it_has_missed_is_read_from_the_others(
    cassandra_cluster: EmbeddedCassandraCluster, store: CassandraMessageStore, desk: Desk
) -> None:
    away, other = cassandra_cluster.nodes[1:]
    written = Writers(store, desk)
    writing = asyncio.gather(written.write(BATCHES))
    await written.until_some()

    await away.kill()
    await writing

    await everything_is_there(store, desk, written)
    await away.start()
    await cassandra_cluster.until_whole()

    # Of the two that have everything one is left.
    await other.kill()
    await _found(store, desk, written)

    await other.start()
    await cassandra_cluster.until_whole()


async def test_two_dead_nodes_are_told_at_start_and_after_all_were_killed_everything_is_there(
    cassandra_cluster: EmbeddedCassandraCluster, store: CassandraMessageStore, desk: Desk
) -> None:
    written = Writers(store, desk)
    await written.write(BATCHES)

    await asyncio.gather(*(node.kill() for node in cassandra_cluster.nodes[1:]))
    told = await told_at_start(cassandra_cluster)
    await cassandra_cluster.kill()
    with pytest.raises(UnavailableError):
        await store.accept([desk.write()])
    await cassandra_cluster.start()

    # Until the one that was left knew that the others were dead it waited for them.
    assert all("too few replicas answered in time" in why for why in told[:-1])
    assert re.search(NO_QUORUM, told[-1])

    await _found(store, desk, written)


async def told_at_start(cluster: EmbeddedCassandraCluster) -> list[str]:
    """Starts until it is refused for good; returns what was said each time."""
    settings = CassandraSettings(
        cassandra_hosts=tuple(cluster.addresses), cassandra_keyspace="ledger", cassandra_may_lose=True
    )
    told: list[str] = []
    async with asyncio.timeout(180):
        while True:
            try:
                session = await open_ledger(settings)
                await asyncio.to_thread(session.close)
            except UnavailableError as error:
                told.append(error.message)
            except StartError as error:
                return [*told, str(error)]


async def _found(store: CassandraMessageStore, desk: Desk, written: Writers) -> None:
    """Returns once everything is there; the driver looks for nodes that were gone now and then."""
    async with asyncio.timeout(180):
        while True:
            try:
                await everything_is_there(store, desk, written)
            except UnavailableError:
                await asyncio.sleep(0.2)
            else:
                return
