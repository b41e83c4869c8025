"""Everything that an operator of the ledger can set."""

from __future__ import annotations

import dataclasses
import enum
from pathlib import Path

from chappe.runtime.config import Secret, ServerSettings, limited


class Ledger(enum.Enum):
    """What keeps the book of the ledger."""

    POSTGRES = "postgres"
    CASSANDRA = "cassandra"


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class CassandraSettings:
    """Where the ledger is when it is kept in Cassandra."""

    cassandra_hosts: tuple[str, ...] = ()
    """Some nodes of the cluster, which tell of the others; required when it is in Cassandra."""
    cassandra_port: int = limited(9042, least=1, most=65_535)
    """The port on which every node speaks CQL."""
    cassandra_keyspace: str = "chappe_ledger"
    """The keyspace of the ledger, which nobody else uses; `migrate` makes it."""
    cassandra_datacenter: str = "datacenter1"
    """The data centre whose nodes are asked, and of whose replicas most must answer."""
    cassandra_replicas: int = limited(3, least=1, most=15)
    """How many nodes of that data centre hold each row, when `migrate` makes the keyspace."""
    cassandra_user: str = ""
    """The role of the ledger; empty where the cluster asks for none."""
    cassandra_password: Secret = dataclasses.field(default_factory=Secret)
    """Its password."""
    cassandra_ca_file: Path | None = None
    """The authorities that sign the certificates of the nodes, PEM; empty for no TLS."""
    cassandra_may_lose: bool = False
    """Whether a cluster is taken that loses what was acknowledged when one node is killed; for development."""


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """The settings of svc_message."""

    server: ServerSettings = dataclasses.field(default_factory=ServerSettings)
    """What every service has."""
    ledger: Ledger = Ledger.POSTGRES
    """What keeps the messages: postgres or cassandra."""
    store_dsn: Secret = dataclasses.field(default_factory=Secret)
    """The PostgreSQL database of the ledger, as a libpq string or URL; required unless it is in Cassandra."""
    cassandra: CassandraSettings = dataclasses.field(default_factory=CassandraSettings)
    """Where it is otherwise."""
    identity_target: str
    """Where svc_identity answers: dns:///name:port of a headless Service, or host:port,host:port."""
    fanout_target: str
    """Where the replicas of svc_fanout are: dns:///name:port of a headless Service, or host:port,host:port."""
    store_writers: int = limited(2, least=1, most=16)
    """How many connections write; two keep one commit in flight while the next gathers."""
    store_group_writers: int = limited(2, least=1, most=16)
    """How many connections write messages to groups."""
    store_expanders: int = limited(2, least=1, most=16)
    """How many connections write what the members of groups get; more write faster and leave less for the others."""
    store_readers: int = limited(2, least=1, most=64)
    """How many connections read pages, inboxes and chat lists."""
    retention_interval_s: float = limited(20.0, least=1, most=3600)
    """How often what has disappeared is removed, seconds; nobody sees it from its end on."""
    edit_window_s: float = limited(900.0, least=0)
    """For how long after it was accepted its sender may edit a message, seconds."""
    revoke_window_s: float = limited(172_800.0, least=0)
    """For how long after it was accepted a message may be taken back for everyone, seconds.

    Two days, as WhatsApp has had it since 2022; guides to it say "2 days and 12 hours".
    """

    def __post_init__(self) -> None:
        if self.ledger is Ledger.POSTGRES and not self.store_dsn:
            raise ValueError("STORE_DSN is not set: the ledger is in PostgreSQL unless LEDGER is cassandra")
        if self.ledger is Ledger.CASSANDRA and not self.cassandra.cassandra_hosts:
            raise ValueError("CASSANDRA_HOSTS is not set: name some nodes of the cluster in which the ledger is")
