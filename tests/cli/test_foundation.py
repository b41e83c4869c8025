"""What stands before a service can start: the engines, the databases, and what the services are told of them."""

from pathlib import Path

import psycopg
import pytest

from chappe.cli.launcher import LaunchError, Mesh, Plan
from chappe.cli.launcher.foundation import Foundation

pytestmark = pytest.mark.system


async def test_a_ledger_in_postgres_needs_no_cassandra(tmp_path: Path, root: Path) -> None:
    foundation = Foundation(tmp_path, cache=tmp_path / "cache", report=lambda _: None)
    foundation.take()
    try:
        stores = await foundation.lay({"message": root / "svc_message" / "schema"})

        async with await psycopg.AsyncConnection.connect(stores.ledger["STORE_DSN"]) as connection:
            await connection.execute("SELECT 1 FROM inbox")
        assert sorted(foundation.engines) == ["postgres", "valkey"]
        assert not (tmp_path / "cache").exists()
    finally:
        await foundation.stop()


def test_an_unknown_ledger_is_refused(tmp_path: Path) -> None:
    with pytest.raises(LaunchError, match="--ledger is mongo; there are postgres and cassandra"):
        Mesh(Plan(data=tmp_path, ledger="mongo"))
