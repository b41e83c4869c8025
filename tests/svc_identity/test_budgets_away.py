"""What budgets bound is not done while nobody can say what is left of them, and nothing is forgotten meanwhile."""

import asyncio
from contextlib import suppress
from pathlib import Path

import pytest

from chappe.runtime import migrations
from chappe.runtime.clock import Seams, SystemRandomness
from chappe.runtime.engines import EmbeddedPostgres, databases
from chappe.runtime.errors import RateLimitedError, UnavailableError
from svc_identity.adapters.database_postgres import Database
from svc_identity.adapters.identity_store_postgres import postgres_identity_store
from svc_identity.adapters.sms_sender_memory import MemorySmsSender
from svc_identity.app import SCHEMA
from svc_identity.model import SendPolicy
from svc_identity.service.registration import CodeLimits, RegistrationRules
from tests.svc_identity.people import ToldClock, new_phone


async def test_83_no_code_is_sent_while_the_database_is_away_and_the_budget_is_remembered(
    tmp_path: Path, clock: ToldClock, changed: asyncio.Event
) -> None:
    engine, sms = EmbeddedPostgres(tmp_path), MemorySmsSender()
    await engine.start()
    dsn = (await databases(engine.dsn, ["svc_identity"]))["svc_identity"]
    await migrations.migrate(dsn, SCHEMA)
    async with Database(dsn, size=1, changed=changed) as database:
        limits = CodeLimits(SendPolicy(wait_ms=1000, per_day=10), per_address=1, per_range=0)
        store = postgres_identity_store(database).registrations
        rules = RegistrationRules(store, sms, Seams(clock, SystemRandomness()), limits, b"pepper")
        await rules.start(new_phone(), "192.0.2.1", shows_code=False)
        await engine.kill()
        await _until_away(database)

        with pytest.raises(UnavailableError):
            await rules.start(new_phone(), "192.0.2.2", shows_code=False)
        await engine.start()
        with pytest.raises(RateLimitedError):
            await rules.start(new_phone(), "192.0.2.1", shows_code=False)
        await rules.start(new_phone(), "192.0.2.2", shows_code=False)

    assert len(sms.sent) == 2
    await engine.stop()


async def _until_away(database: Database) -> None:
    """Waits for the process behind a connection, which outlives the server that was killed by a moment."""
    with suppress(UnavailableError):
        async with asyncio.timeout(10):
            while True:
                async with database.read() as work:
                    await work.row("SELECT 1")
