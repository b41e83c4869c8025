"""What stands before a service can start: the engines, the databases, and what the services are told of them."""

import os
from pathlib import Path

import psycopg
import pytest

from chappe.cli.launcher import LaunchError, Mesh, Plan
from chappe.cli.launcher.environment import Environment, Stores
from chappe.cli.launcher.foundation import Foundation
from chappe.cli.launcher.plan import Ports
from chappe.runtime.config import load
from chappe.runtime.engines.cassandra import CassandraInstall, cache_of
from svc_message.adapters.cassandra_keyspace import address_of, open_ledger
from svc_message.config import Config

pytestmark = pytest.mark.system


async def test_a_ledger_in_cassandra_is_migrated_told_to_the_service_and_fit_for_it(
    tmp_path: Path, root: Path, cassandra_install: CassandraInstall
) -> None:
    lines: list[str] = []
    schemas = {service: root / f"svc_{service}" / "schema" for service in ("message", "identity")}
    foundation = Foundation(tmp_path, ledger="cassandra", cache=cache_of(os.environ), report=lines.append)
    foundation.take()
    try:
        stores = await foundation.lay(schemas)
        config = message_config(Plan(data=tmp_path, ledger="cassandra"), stores)

        (await open_ledger(config.cassandra)).close()

        assert address_of(config.cassandra).user == "chappe"
        assert "PostgreSQL, Valkey and Cassandra answer" in lines
        assert "svc_message: applied 0001_ledger.cql" in lines
        assert any(line.startswith("svc_identity: applied 0001_") for line in lines)

        await foundation.kill()
        lines.clear()
        foundation.take()
        await foundation.lay(schemas)
        assert not any("applied" in line for line in lines)
    finally:
        await foundation.stop()


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


def message_config(plan: Plan, stores: Stores) -> Config:
    """Returns what svc_message makes of what it is told."""
    return load(Config, "message", Environment(plan, Ports(plan), stores, None).of("message", 0))
