"""Fixtures of the directory's tests: stores in memory and on PostgreSQL, people, and a clock that is told the time."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from chappe.runtime import migrations
from chappe.runtime.engines import EmbeddedPostgres, databases
from svc_identity.adapters.database_postgres import Database
from svc_identity.adapters.identity_store_memory import memory_identity_store
from svc_identity.adapters.identity_store_postgres import postgres_identity_store
from svc_identity.app import SCHEMA
from svc_identity.ports import IdentityStore
from tests.svc_identity.people import ToldClock

PAGE_SIZE = 3


@pytest.fixture(scope="session")
def postgres_dsn(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Returns the address of a PostgreSQL 18 that has the directory's schema."""
    with asyncio.Runner() as runner:
        engine = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"))
        runner.run(engine.start())
        try:
            dsn = runner.run(databases(engine.dsn, ["svc_identity"]))["svc_identity"]
            runner.run(migrations.migrate(dsn, SCHEMA))
            yield dsn
        finally:
            runner.run(engine.stop())


def empty(dsn: str) -> None:
    """Forgets everything but the schema."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "TRUNCATE users, devices, verifications, registration_tokens, link_codes, auth_sessions, session_nonces, "
            "signing_keys, contacts, blocks, account_budgets, identity_changes, user_settings, groups, group_members, "
            "group_departures, group_invites, group_changes, bots, code_budgets CASCADE"
        )
        connection.execute("UPDATE identity_log SET floor_xid = '0', mark = NULL")


@pytest.fixture
async def database(postgres_dsn: str, changed: asyncio.Event) -> AsyncIterator[Database]:
    """Returns an open, empty database."""
    empty(postgres_dsn)
    async with Database(postgres_dsn, size=8, changed=changed) as database:
        yield database


@pytest.fixture
def changed() -> asyncio.Event:
    """Returns the event that a store sets after every write."""
    return asyncio.Event()


@pytest.fixture
def clock() -> ToldClock:
    """Returns a clock that only moves when it is told to."""
    return ToldClock()


@pytest.fixture(params=["memory", "postgres"])
def store(request: pytest.FixtureRequest, changed: asyncio.Event, clock: ToldClock) -> IdentityStore:
    """Returns an empty store, once of each kind."""
    if request.param == "memory":
        return memory_identity_store(changed, clock.wall_ms, PAGE_SIZE)
    return postgres_identity_store(request.getfixturevalue("database"), PAGE_SIZE)
