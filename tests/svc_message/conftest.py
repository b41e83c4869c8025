"""Fixtures of the ledger's tests: the store in memory and on PostgreSQL, and people who write."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterator

import pytest

from chappe.runtime import migrations, migrations_cassandra
from chappe.runtime.cassandra import Address as CassandraAddress
from chappe.runtime.cassandra import open_session
from chappe.runtime.clock import SystemClock
from chappe.runtime.engines import EmbeddedPostgres, databases
from chappe.runtime.engines.cassandra import EmbeddedCassandra
from svc_message.adapters.group_store_memory import MemoryGroupStore
from svc_message.adapters.group_store_postgres import PostgresGroupStore
from svc_message.adapters.journal_memory import MemoryJournal
from svc_message.adapters.journal_postgres import PostgresJournal
from svc_message.adapters.ledger_cassandra import SCHEMA as CASSANDRA_SCHEMA
from svc_message.adapters.ledger_cassandra.connection import Connection
from svc_message.adapters.ledger_cassandra.message_store import CassandraMessageStore
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.adapters.message_store_postgres import SCHEMA, PostgresMessageStore
from svc_message.adapters.receipt_store_memory import MemoryReceiptStore
from svc_message.adapters.receipt_store_postgres import PostgresReceiptStore
from tests.simulation.replicas import Prompt, ReplicatedConnection
from tests.svc_message.cassandra_exceptions import EXCEPTIONS
from tests.svc_message.cut import Cut
from tests.svc_message.desk import Book, Desk
from tests.svc_message.group_desk import Books, GroupDesk, spoil_cassandra, spoil_memory, spoil_postgres, spoil_replicas
from tests.svc_message.plans import Eavesdropper


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leaves out what the ledger on Cassandra answers otherwise."""
    for item in items:
        reason = EXCEPTIONS.get(item.name.replace("replicas", "cassandra"))
        if reason is not None:
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture(scope="session")
def ledger_engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedPostgres]:
    """Returns a running PostgreSQL 18 for tests that leave it running."""
    with asyncio.Runner() as runner:
        engine = EmbeddedPostgres(tmp_path_factory.mktemp("ledger"))
        runner.run(engine.start())
        yield engine
        runner.run(engine.stop())


@pytest.fixture(scope="session")
def ledger_dsn(ledger_engine: EmbeddedPostgres) -> str:
    """Returns the address of a database with the ledger's schema; every test brings its own people."""
    with asyncio.Runner() as runner:
        dsn = runner.run(databases(ledger_engine.dsn, ["svc_message"]))["svc_message"]
        runner.run(migrations.migrate(dsn, SCHEMA))
    return dsn


@pytest.fixture
async def postgres_store(ledger_dsn: str) -> AsyncIterator[PostgresMessageStore]:
    """Returns the store on PostgreSQL."""
    store = PostgresMessageStore(ledger_dsn)
    yield store
    await store.aclose()


@pytest.fixture(scope="session")
def ledger_keyspace(cassandra: EmbeddedCassandra) -> str:
    """Returns a keyspace with the ledger's schema; every test brings its own people."""
    name = "ledger"
    asyncio.run(
        migrations_cassandra.migrate(CassandraAddress((cassandra.address,)), name, CASSANDRA_SCHEMA, replicas=1)
    )
    return name


@pytest.fixture(scope="session")
def cassandra_connection(cassandra: EmbeddedCassandra, ledger_keyspace: str) -> Iterator[Connection]:
    """Returns a connection to it."""
    connection = Connection(open_session(CassandraAddress((cassandra.address,)), keyspace=ledger_keyspace))
    yield connection
    asyncio.run(connection.aclose())


@pytest.fixture
def cut(cassandra_connection: Connection) -> Cut:
    """Returns a connection to the same keyspace of which rows may be lost."""
    return Cut(cassandra_connection)


@pytest.fixture
def cut_store(cut: Cut) -> CassandraMessageStore:
    """Returns a store over a connection that may be cut."""
    return CassandraMessageStore(cut)  # type: ignore[arg-type]  # it stands for a connection


class PatientClock(SystemClock):
    """By which nothing takes long: a machine that runs other tests, too, may write for seconds."""

    def monotonic_s(self) -> float:
        return 0.0


@pytest.fixture
def cassandra_store(cassandra_connection: Connection) -> CassandraMessageStore:
    """Returns the store on Cassandra."""
    return CassandraMessageStore(cassandra_connection, clock=PatientClock())


@pytest.fixture
def replicas() -> Prompt:
    """Returns the nodes of the simulation, which know everything at once here."""
    return Prompt(time.time)


@pytest.fixture
def replicas_store(replicas: Prompt) -> CassandraMessageStore:
    """Returns the store on Cassandra, over the replicas of the simulation; to it every chat list is a long one."""
    return CassandraMessageStore(ReplicatedConnection(replicas), clock=PatientClock(), read_whole=0)


@pytest.fixture(params=["memory", "postgres", "cassandra", "replicas"])
def store(request: pytest.FixtureRequest) -> Book:
    """Returns every store there is, one after the other."""
    if request.param == "memory":
        return MemoryMessageStore(SystemClock())
    found: Book = request.getfixturevalue(f"{request.param}_store")
    return found


@pytest.fixture
def desk() -> Desk:
    """Returns alice, bob and what they write."""
    return Desk()


@pytest.fixture
def eavesdropper(monkeypatch: pytest.MonkeyPatch) -> Eavesdropper:
    """Returns somebody who knows every connection that the test opens from here on."""
    return Eavesdropper(monkeypatch)


@pytest.fixture
async def postgres_books(ledger_dsn: str, postgres_store: PostgresMessageStore) -> AsyncIterator[Books]:
    """Returns everything that keeps groups on PostgreSQL."""
    groups, journal, receipts = (
        PostgresGroupStore(ledger_dsn),
        PostgresJournal(ledger_dsn),
        PostgresReceiptStore(ledger_dsn),
    )
    yield Books(postgres_store, groups, journal, receipts, spoil_postgres(ledger_dsn))
    for opened in (groups, journal, receipts):
        await opened.aclose()


@pytest.fixture
def cassandra_books(cassandra_connection: Connection, cassandra_store: CassandraMessageStore) -> Books:
    """Returns everything that keeps groups on Cassandra."""
    store = cassandra_store
    return Books(store, store.groups, store.journal, store.receipts, spoil_cassandra(cassandra_connection))


@pytest.fixture
def replicas_books(replicas: Prompt, replicas_store: CassandraMessageStore) -> Books:
    """Returns everything that keeps groups on Cassandra, over the replicas of the simulation."""
    store = replicas_store
    return Books(store, store.groups, store.journal, store.receipts, spoil_replicas(replicas))


@pytest.fixture(params=["memory", "postgres", "cassandra", "replicas"])
def books(request: pytest.FixtureRequest) -> Books:
    """Returns the book and the journal, of every kind that there is."""
    if request.param == "memory":
        clock = SystemClock()
        store, journal = MemoryMessageStore(clock), MemoryJournal(clock)
        receipts = MemoryReceiptStore(store)
        return Books(store, MemoryGroupStore(store, journal), journal, receipts, spoil_memory(journal))
    found: Books = request.getfixturevalue(f"{request.param}_books")
    return found


@pytest.fixture
def group_desk() -> GroupDesk:
    """Returns a group of three, and what they write."""
    return GroupDesk()
