"""Cassandra 5 as an engine: fetched once, started in seconds, one node or three."""

from chappe.runtime.engines.cassandra.cluster import EmbeddedCassandraCluster
from chappe.runtime.engines.cassandra.cql import PORT, Login
from chappe.runtime.engines.cassandra.install import CassandraInstall, cache_of
from chappe.runtime.engines.cassandra.node import DATACENTER, EmbeddedCassandra
from chappe.runtime.engines.cassandra.options import DURABLE, THROW_AWAY, CassandraOptions, CommitLog

__all__ = [
    "DATACENTER",
    "DURABLE",
    "PORT",
    "THROW_AWAY",
    "CassandraInstall",
    "CassandraOptions",
    "CommitLog",
    "EmbeddedCassandra",
    "EmbeddedCassandraCluster",
    "Login",
    "cache_of",
]
