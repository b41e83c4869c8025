"""Makes and opens the ledger's keyspace, as it is configured."""

import asyncio
from typing import TYPE_CHECKING

from chappe.runtime import migrations_cassandra
from chappe.runtime.cassandra import Address, CassandraSession, open_session
from chappe.runtime.migrations import migrations
from svc_message.adapters.cassandra_checks import check_cluster, commit_logs_of
from svc_message.adapters.ledger_cassandra import SCHEMA

if TYPE_CHECKING:
    from svc_message.config import CassandraSettings


def address_of(settings: "CassandraSettings") -> Address:
    """Returns where the cluster is, and how to get in."""
    return Address(
        settings.cassandra_hosts,
        settings.cassandra_port,
        settings.cassandra_datacenter,
        settings.cassandra_user,
        settings.cassandra_password,
        settings.cassandra_ca_file,
    )


async def open_ledger(settings: "CassandraSettings", *, timeout_s: float = 10.0) -> CassandraSession:
    """Returns a session in the keyspace of the ledger, which is up to date and kept by a cluster that is fit for it.

    Args:
        settings: Where it is.
        timeout_s: After how long an answer that has not come counts as unknown.

    Raises:
        StartError: The driver, the keyspace or the cluster is not fit; says what to do.
        SchemaOutdatedError: The keyspace lacks migrations; names the command.
        UnavailableError: The cluster does not answer.
    """
    keyspace = settings.cassandra_keyspace
    session = await asyncio.to_thread(open_session, address_of(settings), keyspace=keyspace, timeout_s=timeout_s)
    try:
        # First: of a cluster without a quorum the schema cannot be read.
        await check_cluster(session, may_lose=settings.cassandra_may_lose)
        await migrations_cassandra.check(session, SCHEMA)
    except BaseException:
        await asyncio.to_thread(session.close)
        raise
    return session


async def migrate_ledger(settings: "CassandraSettings") -> list[str]:
    """Makes the keyspace if it is missing and applies what it lacks; returns the names of the files applied.

    Raises:
        SchemaOutdatedError: A file fails, or one that was applied has been edited since.
        UnavailableError: The cluster does not answer.
    """
    address, keyspace = address_of(settings), settings.cassandra_keyspace
    return await migrations_cassandra.migrate(address, keyspace, SCHEMA, replicas=settings.cassandra_replicas)


async def describe_ledger(settings: "CassandraSettings", *, timeout_s: float = 5.0) -> str:
    """Returns what keeps the ledger, in a sentence, after the same looks as at a start; raises what `open_ledger` does.

    Args:
        settings: Where it is.
        timeout_s: After how long a silent cluster counts as gone.
    """
    session = await open_ledger(settings, timeout_s=timeout_s)
    try:
        return await asyncio.to_thread(_describe, session)
    finally:
        await asyncio.to_thread(session.close)


def _describe(session: CassandraSession) -> str:
    ((version,),) = session.driver.execute("SELECT release_version FROM system.local")
    schema = migrations(SCHEMA, "cql")[-1].name
    modes = ", ".join(sorted(commit_logs_of(session)))
    return (
        f"Cassandra {version} answers and is fit for the ledger: "
        f"keyspace {session.driver.keyspace} at {schema}, commit log {modes}"
    )
