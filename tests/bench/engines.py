"""Asks the engines that run what they are, and how safely they write."""

import asyncio
from importlib.metadata import version

import psutil
import psycopg

from chappe.cli.launcher.foundation import Foundation
from chappe.runtime.cassandra import Address, CassandraSession, open_session
from chappe.runtime.config import Secret
from chappe.runtime.engines.cassandra import EmbeddedCassandra

_SETTING = "SELECT value FROM system_views.settings WHERE name = %s"
_PACES = {"group": "commitlog_sync_group_window", "periodic": "commitlog_sync_period"}
"""The setting that says how long a commit log of each mode waits."""
_TOLD = ("-Xmx", "-XX:TieredStopAtLevel", "-XX:+Use")
"""The arguments of Java that decide how fast it is."""


async def describe_engines(foundation: Foundation) -> str:
    """Returns the engines with their versions, in a line: first the one that keeps the ledger."""
    async with await psycopg.AsyncConnection.connect(foundation.postgres.dsn) as connection:
        found = await (await connection.execute("SHOW server_version")).fetchone()
    postgres = f"PostgreSQL {found[0] if found else '?'} (fsync and synchronous_commit on)"
    if foundation.cassandra is None:
        return f"{postgres}, Valkey"
    cassandra = await asyncio.to_thread(_describe_cassandra, foundation.cassandra)
    return f"{cassandra}, cassandra-driver {version('cassandra-driver')}, {postgres} for svc_identity alone, Valkey"


def _describe_cassandra(node: EmbeddedCassandra) -> str:
    role, password = node.login or ("", Secret())
    with open_session(Address((node.address,), user=role, password=password)) as session:
        ((release,),) = session.driver.execute("SELECT release_version FROM system.local")
        commit_log = describe_commit_log(session)
    java = " ".join(part for part in psutil.Process(node.pid).cmdline() if part.startswith(_TOLD))
    return f"Cassandra {release} (one node, commit log {commit_log}, Java with {java})"


def describe_commit_log(session: CassandraSession) -> str:
    """Returns the mode of the commit log of the node that answers: batch, or another with what it waits for."""
    mode = _setting(session, "commitlog_sync")
    return f"{mode} of {_setting(session, _PACES[mode])}" if mode in _PACES else mode


def _setting(session: CassandraSession, name: str) -> str:
    ((value,),) = session.driver.execute(_SETTING, (name,))
    return str(value)
