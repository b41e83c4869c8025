"""Opens sessions to a Cassandra cluster, and refuses a driver that would be several times slower than it should be."""

import importlib.util
import math
import ssl
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from cassandra import DriverException, Unavailable
from cassandra.auth import PlainTextAuthProvider
from cassandra.cluster import (
    EXEC_PROFILE_DEFAULT,
    Cluster,
    ConsistencyLevel,
    ExecutionProfile,
    NoHostAvailable,
    Session,
)
from cassandra.policies import ConstantReconnectionPolicy, DCAwareRoundRobinPolicy, TokenAwarePolicy
from cassandra.query import tuple_factory  # pyright: ignore[reportUnknownVariableType] - the driver has no types

from chappe.runtime.app import StartError
from chappe.runtime.config import Secret
from chappe.runtime.errors import UnavailableError

DEPENDENCY: Final = "Cassandra"
RECONNECT_S: Final = 1.0
"""How often a node that is gone is dialled. The driver by itself waits up to ten minutes, and gives up in the end."""
_FOR_EVER: Final = ConstantReconnectionPolicy(
    RECONNECT_S,
    max_attempts=None,  # pyright: ignore[reportArgumentType] - the driver takes it for no end
)
_COMPILED: Final = ("cassandra.io.libevwrapper", "cassandra.row_parser", "cassandra.protocol")


class Address(NamedTuple):
    """Where a cluster is, and how to get in."""

    hosts: tuple[str, ...]
    """Some of its nodes; the others are found."""
    port: int = 9042
    datacenter: str = "datacenter1"
    """Whose replicas answer."""
    user: str = ""
    """Empty where nobody is asked who they are."""
    password: Secret = Secret()
    ca_file: Path | None = None
    """Who signs the certificates of the nodes, PEM; None without TLS."""


class CassandraSession:
    """An open session, with the cluster that its threads belong to; a context manager that closes both."""

    def __init__(self, cluster: Cluster, session: Session, datacenter: str) -> None:
        """Takes what was opened together, in a data centre."""
        self.cluster: Any = cluster
        """The driver's cluster."""
        self.driver: Any = session
        """The driver's session."""
        self.datacenter = datacenter
        """Whose replicas answer."""

    def close(self) -> None:
        """Ends the threads of the driver; takes a while."""
        self.cluster.shutdown()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def open_session(address: Address, *, keyspace: str | None = None, timeout_s: float = 10.0) -> CassandraSession:
    """Opens a session; blocks, so call it in a thread.

    Rows are tuples, and everything is asked at LOCAL_QUORUM.

    Args:
        address: Where the cluster is.
        keyspace: Which one statements mean that name none.
        timeout_s: After how long an answer that has not come counts as unknown.

    Raises:
        StartError: The driver is not compiled, or the keyspace is not there.
        UnavailableError: No node answers, or none lets in.
    """
    check_driver()
    # Raises on import where it is not compiled.
    from cassandra.io.libevreactor import LibevConnection  # noqa: PLC0415 - see above

    profile = ExecutionProfile(
        load_balancing_policy=TokenAwarePolicy(DCAwareRoundRobinPolicy(local_dc=address.datacenter)),
        consistency_level=ConsistencyLevel.LOCAL_QUORUM,
        request_timeout=timeout_s,
        row_factory=tuple_factory,
    )
    cluster = Cluster(
        address.hosts,
        port=address.port,
        # Version 5 costs the driver 8 to 15 % more on small requests.
        protocol_version=4,
        connection_class=LibevConnection,
        compression=False,
        auth_provider=PlainTextAuthProvider(address.user, address.password.reveal()) if address.user else None,
        ssl_context=None if address.ca_file is None else ssl.create_default_context(cafile=address.ca_file),
        reconnection_policy=_FOR_EVER,
        execution_profiles={EXEC_PROFILE_DEFAULT: profile},
        connect_timeout=math.ceil(timeout_s),
        control_connection_timeout=timeout_s,
    )
    try:
        session = CassandraSession(cluster, cluster.connect(), address.datacenter)
        if keyspace is not None:
            _enter(session, keyspace, address)
    except (DriverException, NoHostAvailable) as error:
        cluster.shutdown()
        raise UnavailableError(DEPENDENCY, _why(error, address)) from error
    except BaseException:
        cluster.shutdown()
        raise
    session.driver.default_fetch_size = None
    return session


def check_driver() -> None:
    """Refuses to work with a driver that was installed without its compiled parts.

    Raises:
        StartError: Says how to install it.
    """
    for module in _COMPILED:
        try:
            spec = importlib.util.find_spec(module)
        except ModuleNotFoundError:
            spec = None
        if spec is None or not (spec.origin or "").endswith((".so", ".pyd")):
            raise StartError(
                f"{module} is not compiled, so cassandra-driver would be four times slower; install it from its wheel: "
                "pip install --force-reinstall --only-binary :all: 'cassandra-driver>=3.30.1'"
            )


def causes(error: NoHostAvailable) -> list[Exception]:
    """Returns what went wrong at each node that was asked."""
    held: Any = error.errors
    # A list of addresses when nobody was asked.
    return [] if isinstance(held, list) else list(held.values())


def why_no_quorum(error: Exception, datacenter: str, keyspace: str) -> str:
    """Returns how many replicas are missing, and what to do; empty if a cluster refused for another reason.

    Args:
        error: What the driver raised.
        datacenter: Whose replicas were asked.
        keyspace: Whose replicas they are.
    """
    held = causes(error) if isinstance(error, NoHostAvailable) else [error]
    why: Any = next((one for one in held if isinstance(one, Unavailable)), None)
    if why is None:
        return ""
    return (
        f"only {why.alive_replicas} of the {why.required_replicas} replicas that must answer are alive in data centre "
        f"{datacenter}; start the nodes that are down (nodetool status), or let ALTER KEYSPACE {keyspace} ask for no "
        "more replicas than that data centre has nodes"
    )


def _enter(session: CassandraSession, keyspace: str, address: Address) -> None:
    found: dict[str, Any] = session.cluster.metadata.keyspaces
    if keyspace not in found:
        there = ", ".join(sorted(name for name in found if not name.startswith("system"))) or "none of its own"
        raise StartError(
            f"the cluster at {','.join(address.hosts)} has no keyspace {keyspace}, it has {there}; "
            "name the right one, or make it by migrating"
        )
    session.driver.set_keyspace(keyspace)


def _why(error: Exception, address: Address) -> str:
    at = ", ".join(f"{host}:{address.port}" for host in address.hosts)
    if isinstance(error, NoHostAvailable):
        told = "; ".join(sorted({f"{type(one).__name__}: {one}" for one in causes(error)})) or str(error)
        return (
            f"no node of data centre {address.datacenter} answers at {at} ({told}); "
            "look whether it runs, and whether hosts, port, data centre, user and certificates are the right ones"
        )
    return f"{at}: {type(error).__name__}: {error}"
