"""A directory that was away is back for whoever asks."""

import asyncio
from pathlib import Path

import pytest

from chappe.runtime.engines import EmbeddedPostgres
from chappe.runtime.errors import UnavailableError
from svc_identity.adapters.database_postgres import Database, Work


async def test_after_a_long_outage_the_database_answers_as_soon_as_it_is_back(
    tmp_path: Path, changed: asyncio.Event
) -> None:
    engine = EmbeddedPostgres(tmp_path)
    await engine.start()
    async with Database(engine.dsn, size=1, changed=changed) as database:
        await engine.stop()
        # They wait for 10 seconds, after which a pool that waits longer and longer would not dial for another 5.
        for _ in range(3):
            with pytest.raises(UnavailableError) as refusal:
                await database.check()
        said = refusal.value.message

        await engine.start()

        async with asyncio.timeout(3):
            await database.check()
    await engine.stop()
    assert said == "postgres: it does not answer; try again"


async def test_database_that_takes_no_writes_is_unavailable(database: Database) -> None:
    async def write(work: Work) -> None:
        # As on a server that was the primary until another one took over.
        await work.run("SET TRANSACTION READ ONLY")
        await work.run("UPDATE identity_log SET mark = NULL")

    with pytest.raises(UnavailableError):
        await database.write(write)
