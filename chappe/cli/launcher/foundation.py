"""What must stand before a service can start: folders, engines, certificates, secrets, databases and schemas."""

import asyncio
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from chappe.cli.launcher.environment import Stores, issue_certificates, make_secrets
from chappe.cli.launcher.plan import LaunchError
from chappe.runtime.config import Secret
from chappe.runtime.engines import EmbeddedPostgres, EmbeddedValkey, databases
from chappe.runtime.engines.cassandra import PORT, CassandraInstall, CassandraOptions, EmbeddedCassandra
from chappe.runtime.engines.engine import Engine
from chappe.runtime.engines.process import FolderLock
from chappe.runtime.migrations import migrate

_LEDGER: Final = "chappe_ledger"
IDENTITY: Final = "chappe_identity"
"""The database of svc_identity."""
_SCHEMAS: Final = {"message": _LEDGER, "identity": IDENTITY}


def ledger_in_cassandra(address: str, password_file: Path) -> dict[str, str]:
    """Returns what svc_message is told of a ledger in Cassandra, by the names of its settings.

    Args:
        address: As in `Foundation.addresses`.
        password_file: Of the role, where the address names one.
    """
    url = urlsplit(address)
    told = {
        "LEDGER": "cassandra",
        "CASSANDRA_HOSTS": url.hostname or "",
        "CASSANDRA_PORT": str(url.port),
        "CASSANDRA_KEYSPACE": url.path.strip("/"),
    }
    if url.username:
        told |= {"CASSANDRA_USER": url.username, "CASSANDRA_PASSWORD_FILE": str(password_file)}
    return told


class Foundation:
    """One data folder, held by one live launcher, with the engines in it."""

    def __init__(
        self,
        data: Path,
        *,
        ledger: str = "postgres",
        cassandra: CassandraOptions | None = None,
        cache: Path,
        report: Callable[[str], None] = lambda _: None,
    ) -> None:
        """Prepares; nothing is touched before `lay`.

        Args:
            data: The folder.
            ledger: The engine that keeps the ledger, postgres or cassandra.
            cassandra: How Cassandra is run, if it is.
            cache: Where an engine is kept that has to be fetched.
            report: Told what is done, a line at a time.
        """
        self.data = data
        self.pki = data / "pki"
        self.logs = data / "logs"
        self.postgres = EmbeddedPostgres(data / "postgres")
        self.valkey = EmbeddedValkey(data / "valkey")
        self.cassandra: EmbeddedCassandra | None = None
        if ledger == "cassandra":
            self.cassandra = EmbeddedCassandra(
                data / "cassandra", CassandraInstall(cache, report=report), options=cassandra
            )
        self._report = report
        self._lock = FolderLock("Chappe")

    @property
    def engines(self) -> dict[str, Engine]:
        """The engines by name."""
        found: dict[str, Engine] = {"postgres": self.postgres, "valkey": self.valkey}
        return found if self.cassandra is None else found | {"cassandra": self.cassandra}

    @property
    def addresses(self) -> dict[str, str]:
        """Where each engine is, once started; no address holds a password."""
        found = {"postgres": self.postgres.dsn, "valkey": self.valkey.url}
        if self.cassandra is None:
            return found
        role = f"{self.cassandra.login.role}@" if self.cassandra.login else ""
        return found | {"cassandra": f"cassandra://{role}{self.cassandra.address}:{PORT}/{_LEDGER}"}

    def take(self) -> None:
        """Makes the folder and takes hold of it, until `stop`, `kill` or the end of this process.

        Raises:
            EngineError: Another launcher holds it.
            OSError: It cannot be made.
        """
        self.data.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._lock.acquire(self.data)
        # The folder ignores itself: it may stand in somebody's repository.
        (self.data / ".gitignore").write_text("*\n", encoding="utf-8")
        self.logs.mkdir(exist_ok=True)
        for log in self.logs.glob("*.log"):
            # Of each log, that of the run before is kept.
            log.replace(log.with_suffix(".log.1"))

    async def lay(self, schemas: dict[str, Path]) -> Stores:
        """Starts the engines, makes certificates and databases, and brings the schemas up to date.

        Args:
            schemas: The folder of the migrations of each service that has some.

        Raises:
            EngineError: An engine does not start.
            ChappeError: A migration fails.
        """
        await asyncio.gather(
            *(engine.start() for engine in self.engines.values()),
            asyncio.to_thread(make_secrets, self.data / "secrets"),
            asyncio.to_thread(issue_certificates, self.pki),
            # Needed for the first question to a service; now is the time at which nobody waits for it.
            asyncio.to_thread(importlib.import_module, "chappe.cli.launcher.health"),
        )
        names = [engine.name for engine in self.engines.values()]
        self._report(f"{', '.join(names[:-1])} and {names[-1]} answer")
        dsns = await databases(self.postgres.dsn, _SCHEMAS.values())
        for service, folder in schemas.items():
            for applied in await self._migrate(service, dsns[_SCHEMAS[service]], folder):
                self._report(f"svc_{service}: applied {applied}")
        return Stores(self._ledger(dsns[_LEDGER]), dsns[IDENTITY], self.valkey.url)

    async def _migrate(self, service: str, dsn: str, folder: Path) -> list[str]:
        if service != "message" or self.cassandra is None:
            return await migrate(dsn, folder)
        # Needs the driver, which nobody else here waits for.
        from chappe.runtime import cassandra, migrations_cassandra

        user, password = self.cassandra.login or ("", Secret())
        address = cassandra.Address((self.cassandra.address,), user=user, password=password)
        return await migrations_cassandra.migrate(address, _LEDGER, folder / "cassandra", replicas=1)

    def _ledger(self, dsn: str) -> dict[str, str]:
        """Returns what svc_message is told of its store."""
        if self.cassandra is None:
            return {"STORE_DSN": dsn}
        return ledger_in_cassandra(self.addresses["cassandra"], self.cassandra.password_file)

    async def stop(self) -> None:
        """Stops the engines cleanly and lets go of the folder; idempotent."""
        await asyncio.gather(*(engine.stop() for engine in self.engines.values()))
        self._lock.release()

    async def kill(self) -> None:
        """Kills the engines with SIGKILL and lets go of the folder; idempotent."""
        await asyncio.gather(*(engine.kill() for engine in self.engines.values()))
        self._lock.release()


def find_packages(modules: list[str]) -> dict[str, Path]:
    """Finds the folders of packages without importing them; a plain module has none.

    Raises:
        LaunchError: One is missing.
    """
    found: dict[str, Path] = {}
    for module in modules:
        spec = importlib.util.find_spec(module)
        if spec is None:
            raise LaunchError(
                f"the package {module} is not here: `chappe up` starts the services from a checkout of Chappe. "
                "Clone the repository and type `make run` in it, or run the images, see docs/run.md"
            )
        if spec.submodule_search_locations:
            found[module] = Path(next(iter(spec.submodule_search_locations)))
    return found
