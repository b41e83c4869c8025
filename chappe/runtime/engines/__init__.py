"""Starts the stores that Chappe needs from Python wheels: PostgreSQL 18 and Valkey 9, no Docker.

Both engines run in the foreground as children of the launcher, keep everything in one folder, listen on a
Unix socket and, only when asked, on one TCP port of 127.0.0.1 with a generated password.
Cassandra 5 comes from its published jars instead and has a package of its own, ``cassandra``.
All survive ``kill -9`` of themselves (crash recovery at the next start) and none survives their launcher.
"""

from chappe.runtime.engines.postgres import EmbeddedPostgres, databases
from chappe.runtime.engines.process import EngineError
from chappe.runtime.engines.valkey import EmbeddedValkey

__all__ = ["EmbeddedPostgres", "EmbeddedValkey", "EngineError", "databases"]
