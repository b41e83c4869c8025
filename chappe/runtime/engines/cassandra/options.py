"""How a node is run: what it is told on the command line and in its files."""

import enum
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from chappe.runtime.engines.cassandra.cql import PORT
from chappe.runtime.engines.cassandra.ring import STORAGE_PORT, Ring

_ALL: Final = "ALL-UNNAMED"
_EXPORTED: Final = (
    *("java.base/java.lang.ref", "java.base/jdk.internal.misc", "java.base/jdk.internal.ref", "java.base/sun.nio.ch"),
    *("java.management.rmi/com.sun.jmx.remote.internal.rmi", "java.rmi/sun.rmi.registry", "java.rmi/sun.rmi.server"),
    *("java.sql/java.sql", "jdk.unsupported/sun.misc"),
)
_OPENED: Final = (
    *("java.base/java.io", "java.base/java.lang", "java.base/java.lang.module", "java.base/java.lang.reflect"),
    *("java.base/java.math", "java.base/java.net", "java.base/java.nio", "java.base/java.util"),
    *("java.base/java.util.concurrent", "java.base/java.util.concurrent.atomic", "java.base/jdk.internal.loader"),
    *("java.base/jdk.internal.math", "java.base/jdk.internal.module", "java.base/jdk.internal.ref"),
    *("java.base/jdk.internal.reflect", "java.base/jdk.internal.util.jar", "java.base/sun.nio.ch"),
    "jdk.management/com.sun.management.internal",
)
_LOGBACK: Final = """<configuration>
  <statusListener class="ch.qos.logback.core.status.NopStatusListener"/>
  <appender name="STDOUT" class="ch.qos.logback.core.ConsoleAppender">
    <encoder><pattern>%d{yyyy-MM-dd HH:mm:ss.SSS} %-5level %logger{0} %msg%n</pattern></encoder>
  </appender>
  <root level="WARN"><appender-ref ref="STDOUT"/></root>
  <logger name="org.apache.cassandra" level="INFO"/>
</configuration>
"""


class CommitLog(enum.Enum):
    """When a write is on disk."""

    BATCH = "batch"
    """Before it is acknowledged."""
    GROUP = "group"
    """Before it is acknowledged, together with those of the next 2 ms: for real fleets."""
    PERIODIC = "periodic"
    """Up to 10 s after it was acknowledged; even `kill -9` loses the last 0.1 s. Only where losing is allowed."""


@dataclass(frozen=True, kw_only=True, slots=True)
class CassandraOptions:
    """What one may choose of a node."""

    commit_log: CommitLog = CommitLog.BATCH
    """When a write is on disk."""
    is_throw_away: bool = False
    """Whether every start begins with nothing. Starts in half of the time, by leaving out what keeps data safe."""
    asks_password: bool = True
    """Whether clients need the role and the password of the data folder; without, everybody on this machine may in."""
    heap_mb: int = 512
    """The most that Java takes for its heap."""
    is_fully_compiled: bool = False
    """Whether Java compiles as well as it can: start-up costs twice as much, and benchmarks mean something."""
    keeps_hints: bool = True
    """Whether nodes keep what another one misses while it is away; without, it comes back as after many hours."""
    takes_flushes: bool = True
    """Whether batches may be as large as a flush of svc_message; without, as large as Cassandra is shipped with."""
    told_network: str = ""
    """The first half of the address at which clients are told to find a node, like 127.1, where something passes their
    connections on; empty for where it is."""

    def __post_init__(self) -> None:
        if self.is_throw_away and self.asks_password:
            raise ValueError("a throw-away node knows no password; give asks_password=False")


THROW_AWAY: Final = CassandraOptions(commit_log=CommitLog.PERIODIC, is_throw_away=True, asks_password=False)
"""For tests that kill nothing: it answers in two seconds."""
DURABLE: Final = CassandraOptions(asks_password=False)
"""For tests that kill nodes and look what is left."""


def write_files(folder: Path, ring: Ring, number: int, options: CassandraOptions) -> None:
    """Writes the files that a node reads when it starts."""
    # YAML reads JSON, and JSON needs no library here.
    settings = json.dumps(_settings(folder, ring, number, options), indent=2)
    (folder / "cassandra.yaml").write_text(settings, encoding="utf-8")
    (folder / "logback.xml").write_text(_LOGBACK, encoding="utf-8")
    (folder / "tmp").mkdir(exist_ok=True)


def java_arguments(folder: Path, options: CassandraOptions) -> list[str]:
    """Returns what stands on the command line between `java` and the class."""
    return [
        *("-XX:+UseSerialGC", "-Xms64m", f"-Xmx{options.heap_mb}m", "-XX:+ExitOnOutOfMemoryError", "-XX:-UsePerfData"),
        *([] if options.is_fully_compiled else ["-XX:TieredStopAtLevel=1"]),
        *(part for module in _EXPORTED for part in ("--add-exports", f"{module}={_ALL}")),
        *(part for module in _OPENED for part in ("--add-opens", f"{module}={_ALL}")),
        *(f"-D{name}={value}" for name, value in _properties(folder, options).items()),
    ]


def _properties(folder: Path, options: CassandraOptions) -> dict[str, str]:
    found = {
        "cassandra-foreground": "yes",
        "cassandra.config": (folder / "cassandra.yaml").as_uri(),
        "cassandra.storagedir": str(folder),
        "logback.configurationFile": str(folder / "logback.xml"),
        "java.io.tmpdir": str(folder / "tmp"),
        "java.net.preferIPv4Stack": "true",
        "file.encoding": "UTF-8",
        # Also how long a node asks its seeds before it gives up: with 0, one that joins a busy machine dies.
        "cassandra.ring_delay_ms": "10000",
        "cassandra.skip_wait_for_gossip_to_settle": "0",
        "cassandra.superuser_setup_delay_ms": "0",
        "cassandra.test.ignore_sigar": "true",
        "cassandra.skip_paxos_state_rebuild": "true",
        # What it would otherwise find out by making 100,000 rows at every start.
        "cassandra.memtable.row_overhead_size": "181",
        # It still drains: without waiting for peers that are told so.
        "cassandra.shutdown_announce_in_ms": "0",
        "cassandra.test.messagingService.nonGracefulShutdown": "true",
    }
    if options.is_throw_away:
        # A node killed with these comes back without its schema, or with less.
        found |= {"cassandra.test.flush_local_schema_changes": "false", "cassandra.unsafesystem": "true"}
    return found


def _settings(folder: Path, ring: Ring, number: int, options: CassandraOptions) -> dict[str, Any]:
    return {
        "cluster_name": ring.name,
        "num_tokens": 1,
        "initial_token": str(ring.token(number)),
        "auto_bootstrap": False,
        "partitioner": "org.apache.cassandra.dht.Murmur3Partitioner",
        "endpoint_snitch": "SimpleSnitch",
        "listen_address": ring.address(number),
        "rpc_address": ring.address(number),
        "broadcast_rpc_address": ring.told_address(number, options.told_network),
        "hinted_handoff_enabled": options.keeps_hints,
        "native_transport_port": PORT,
        "storage_port": STORAGE_PORT,
        "seed_provider": [
            {
                "class_name": "org.apache.cassandra.locator.SimpleSeedProvider",
                "parameters": [{"seeds": ring.address(1)}],
            }
        ],
        "data_file_directories": [str(folder / "data")],
        "commitlog_directory": str(folder / "commitlog"),
        "hints_directory": str(folder / "hints"),
        "saved_caches_directory": str(folder / "saved_caches"),
        **_durability(options.commit_log),
        **_SIZES,
        **(_FLUSHES if options.takes_flushes else {}),
        **(_PASSWORDS if options.asks_password else {}),
    }


def _durability(commit_log: CommitLog) -> dict[str, Any]:
    found: dict[str, Any] = {
        "commitlog_sync": commit_log.value,
        # A node that cannot write ends, and its launcher sees it, instead of answering without keeping anything.
        "disk_failure_policy": "die",
        "commit_failure_policy": "die",
        "auto_snapshot": False,
    }
    if commit_log is CommitLog.PERIODIC:
        return found | {"commitlog_sync_period": "10000ms", "concurrent_writes": 32}
    # Every write holds one of these threads until it is on disk.
    found["concurrent_writes"] = 128
    return found | ({"commitlog_sync_group_window": "2ms"} if commit_log is CommitLog.GROUP else {})


_SIZES: Final = {
    "commitlog_segment_size": "32MiB",
    "commitlog_total_space": "512MiB",
    "concurrent_reads": 16,
    "key_cache_size": "16MiB",
    "file_cache_size": "32MiB",
    "networking_cache_size": "32MiB",
    "counter_cache_size": "0MiB",
    # Half as long pauses of the collector as with the default.
    "memtable_allocation_type": "offheap_objects",
    "memtable": {"configurations": {"trie": {"class_name": "TrieMemtable"}, "default": {"inherits": "trie"}}},
    "storage_compatibility_mode": "NONE",
    "sstable": {"selected_format": "bti"},
    "crypto_provider": [{"class_name": "org.apache.cassandra.security.JREProvider"}],
}
# A flush of svc_message is one batch: 8 messages or 40 KiB, which the defaults of 5 and 50 KiB are too low for.
_FLUSHES: Final = {
    "batch_size_warn_threshold": "64KiB",
    "batch_size_fail_threshold": "128KiB",
    "unlogged_batch_across_partitions_warn_threshold": 200,
}
_PASSWORDS: Final = {
    "authenticator": "PasswordAuthenticator",
    "authorizer": "CassandraAuthorizer",
    "role_manager": "CassandraRoleManager",
    # For how long a role keeps what was taken from it: asking again costs a local read.
    "roles_validity": "100ms",
    "credentials_validity": "100ms",
    "permissions_validity": "100ms",
}
