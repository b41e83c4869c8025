"""Refuses a Cassandra in which the ledger would not keep its promises, before anything is accepted.

Each refusal says what to do about it. The driver's own parts and the keyspace are looked at when a session is opened,
see `chappe.runtime.cassandra`, the schema by `chappe.runtime.migrations_cassandra`.
"""

import asyncio
import logging
import re
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from cassandra import DriverException, InvalidRequest, OperationTimedOut, ReadTimeout, Unauthorized, Unavailable
from cassandra.cluster import NoHostAvailable

from chappe.runtime.app import StartError
from chappe.runtime.cassandra import DEPENDENCY, CassandraSession, why_no_quorum
from chappe.runtime.errors import UnavailableError
from svc_message.adapters.ledger_cassandra.connection import BYTES_IN_BATCH, PARTITIONS_IN_BATCH

MOST_SKEW_S: Final = 1.0
"""How far this clock and the store's may be apart: positions are minted from the one, and rows end by the other."""

_SETTINGS: Final = "SELECT name, value FROM system_views.settings"
_COMMIT_LOG: Final = "commitlog_sync"
_REFUSES: Final = "batch_size_fail_threshold"
_WARNS: Final = "batch_size_warn_threshold"
_WARNS_OF_PARTITIONS: Final = "unlogged_batch_across_partitions_warn_threshold"
_WARNING_THRESHOLDS: Final = {
    _WARNS: (BYTES_IN_BATCH, f"{BYTES_IN_BATCH // 1024} KiB", "64KiB"),
    _WARNS_OF_PARTITIONS: (PARTITIONS_IN_BATCH, f"{PARTITIONS_IN_BATCH} partitions", "200"),
}
"""What is enough, in a number and in words, and what to set."""
_LEAST_REPLICAS: Final = 2
_SIZE: Final = re.compile(r"(\d+)\s*([KMG]?)i?B?", re.IGNORECASE)
_UNITS: Final = {"": 1, "K": 1024, "M": 1024**2, "G": 1024**3}

_log = logging.getLogger(__name__)


class Node(NamedTuple):
    """What one node says of itself."""

    address: str
    settings: Mapping[str, str]


async def check_cluster(
    session: CassandraSession, *, may_lose: bool = False, wall_s: Callable[[], float] = time.time
) -> None:
    """Returns when a cluster is fit for the ledger; warns of what an operator should know.

    Args:
        session: Opened in the keyspace of the ledger.
        may_lose: Whether a cluster is taken that loses acknowledged messages when one node is killed.
        wall_s: This process's clock.

    Raises:
        StartError: It is not fit; says why, and what to do.
        UnavailableError: It does not answer.
    """
    await asyncio.to_thread(_check, session, may_lose, wall_s)


def _check(session: CassandraSession, may_lose: bool, wall_s: Callable[[], float]) -> None:  # noqa: FBT001 - ours alone
    try:
        check_quorum(session)
        check_clock(session, wall_s)
        nodes = nodes_of(session)
        check_batches(nodes)
        check_commit_log(nodes, replicas_of(session), may_lose=may_lose)
    except (DriverException, NoHostAvailable) as error:
        raise UnavailableError(DEPENDENCY, f"it could not be looked at: {type(error).__name__}: {error}") from error


def check_quorum(session: CassandraSession) -> None:
    """Refuses a cluster of whose replicas too few are alive to write.

    Asked before anything else: without them whatever is read fails, and would be blamed for it.

    Raises:
        StartError: Says how many are, and how many must be.
        UnavailableError: They are taken to be alive, and do not answer.
    """
    try:
        # Rows that do not matter, in a partition whose replicas are as alive as those of any other.
        session.driver.execute("SELECT name FROM schema_migrations WHERE name = 'quorum'")
    except InvalidRequest:
        # Nothing was migrated yet, which is told by whoever looks at the schema.
        return
    except (Unavailable, NoHostAvailable) as error:
        why = why_no_quorum(error, session.datacenter, session.driver.keyspace)
        if not why:
            raise
        raise StartError(why) from error
    except (ReadTimeout, OperationTimedOut) as error:
        # Nodes that died a moment ago count as alive for a while.
        raise UnavailableError(
            DEPENDENCY,
            f"too few replicas answered in time ({error}); look which nodes of data centre {session.datacenter} are "
            "down or overloaded (nodetool status)",
        ) from error


def check_clock(session: CassandraSession, wall_s: Callable[[], float]) -> None:
    """Refuses a clock that is off.

    Raises:
        StartError: Says by how much, and what to do.
    """
    before_s = wall_s()
    ((store_ms,),) = session.driver.execute("SELECT to_unix_timestamp(now()) FROM system.local")
    # Somewhere between asking and hearing the store looked at its clock.
    off_s = max(before_s - store_ms / 1000, store_ms / 1000 - wall_s(), 0.0)
    if off_s > MOST_SKEW_S:
        raise StartError(
            f"the clock of this machine is {off_s:.1f} s off the one of Cassandra, and {MOST_SKEW_S:g} s is the most; "
            "let both follow the same time servers (chronyc tracking)"
        )


def check_batches(nodes: list[Node]) -> None:
    """Refuses nodes that would refuse what is written in one batch; warns of those that would complain of each.

    Raises:
        StartError: Names the node and the setting.
    """
    for node in nodes:
        limit = size_of(node.settings.get(_REFUSES, ""))
        if limit is not None and limit < BYTES_IN_BATCH:
            raise StartError(
                f"the node {node.address} refuses batches above {node.settings[_REFUSES]}, and the ledger writes up to "
                f"{BYTES_IN_BATCH // 1024} KiB at once; set {_REFUSES}: 128KiB and {_WARNS}: 64KiB in its "
                "cassandra.yaml, and start it again"
            )
    for setting, (enough, words, fix) in _WARNING_THRESHOLDS.items():
        low = {node.address: node.settings[setting] for node in nodes if _is_below(node.settings.get(setting), enough)}
        if low:
            where = ", ".join(f"{address} ({told})" for address, told in low.items())
            _log.warning(
                "%s is below what the ledger writes at once, %s, at %s: warnings of it fill the log and hide others; "
                "set %s: %s in cassandra.yaml, and start it again",
                *(setting, words, where, setting, fix),
            )


def check_commit_log(nodes: list[Node], replicas: int, *, may_lose: bool) -> None:
    """Refuses a cluster in which one killed node takes acknowledged messages with it; warns where it takes two.

    Raises:
        StartError: Says what to set.
    """
    periodic = [node.address for node in nodes if node.settings.get(_COMMIT_LOG) == "periodic"]
    if not periodic:
        return
    fix = f"set {_COMMIT_LOG}: group and commitlog_sync_group_window: 2ms in cassandra.yaml"
    where = f"{', '.join(periodic)} acknowledge before anything is on disk ({_COMMIT_LOG}: periodic)"
    if replicas >= _LEAST_REPLICAS:
        _log.warning("%s: nodes that are killed at the same moment may take messages with them; %s", where, fix)
    elif may_lose:
        _log.warning("%s, and there is one replica: a killed node loses acknowledged messages, as was allowed", where)
    else:
        raise StartError(
            f"{where}, and {replicas} replica holds each row: a killed node would lose acknowledged messages. {fix}, "
            "or keep 3 replicas; CHAPPE_MESSAGE_CASSANDRA_MAY_LOSE=true takes it as it is, for development"
        )


def nodes_of(session: CassandraSession) -> list[Node]:
    """Asks every node of the data centre for its settings.

    Raises:
        StartError: The role may not read them; says what to grant.
    """
    found: list[Node] = []
    for host in session.driver.hosts:
        if not host.is_up:
            continue
        try:
            rows: Any = session.driver.execute(_SETTINGS, host=host)
            found.append(Node(host.address, dict(rows)))
        except Unauthorized as error:
            raise StartError(
                "the role of CHAPPE_MESSAGE_CASSANDRA_USER may not see how the nodes are set up; let an administrator "
                "run: GRANT SELECT ON TABLE system_views.settings TO that role"
            ) from error
        except (NoHostAvailable, InvalidRequest) as error:
            _log.warning("the settings of %s could not be read, so they are not checked: %s", host.address, error)
    return found


def commit_logs_of(session: CassandraSession) -> set[str]:
    """Returns the modes of the nodes' commit logs: batch, group or periodic.

    Raises:
        StartError: The role may not read them; says what to grant.
    """
    return {node.settings.get(_COMMIT_LOG, "unknown") for node in nodes_of(session)}


def replicas_of(session: CassandraSession) -> int:
    """Returns on how many nodes of the session's data centre each row of its keyspace is."""
    query = "SELECT replication FROM system_schema.keyspaces WHERE keyspace_name = %s"
    ((replication,),) = session.driver.execute(query, (session.driver.keyspace,))
    return replicas_in(session.datacenter, replication)


def replicas_in(datacenter: str, replication: Mapping[str, str]) -> int:
    """Returns how many replicas of a keyspace are in a data centre: those of others are never waited for.

    Args:
        datacenter: Its name.
        replication: Of the keyspace, by data centre; or one factor that knows no data centres.
    """
    told = replication.get(datacenter, replication.get("replication_factor", "0"))
    # Of 3/1 one is transient, and one of the three.
    return int(told.split("/")[0])


def size_of(told: str) -> int | None:
    """Returns the bytes of a setting like 128KiB; None if it is none."""
    match = _SIZE.fullmatch(told.strip())
    return None if match is None else int(match[1]) * _UNITS[match[2].upper()]


def _is_below(told: str | None, enough: int) -> bool:
    size = size_of(told or "")
    return size is not None and size < enough
