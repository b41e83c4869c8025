"""What must stand before a service can start: folders, engines, certificates, secrets, databases and schemas."""

import asyncio
import importlib
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Final

from chappe.cli.launcher.environment import Stores, issue_certificates, make_secrets
from chappe.cli.launcher.plan import LaunchError
from chappe.runtime.engines import EmbeddedPostgres, EmbeddedValkey, databases
from chappe.runtime.engines.process import FolderLock
from chappe.runtime.migrations import migrate

_LEDGER: Final = "chappe_ledger"
IDENTITY: Final = "chappe_identity"
"""The database of svc_identity."""
_SCHEMAS: Final = {"message": _LEDGER, "identity": IDENTITY}


class Foundation:
    """One data folder, held by one live launcher, with two engines in it."""

    def __init__(self, data: Path) -> None:
        """Prepares; nothing is touched before `lay`."""
        self.data = data
        self.pki = data / "pki"
        self.logs = data / "logs"
        self.postgres = EmbeddedPostgres(data / "postgres")
        self.valkey = EmbeddedValkey(data / "valkey")
        self._lock = FolderLock("Chappe")

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

    async def lay(self, schemas: dict[str, Path], report: Callable[[str], None]) -> Stores:
        """Starts the engines, makes certificates and databases, and brings the schemas up to date.

        Args:
            schemas: The folder of the migrations of each service that has some.
            report: Told what is done.

        Raises:
            EngineError: An engine does not start.
            ChappeError: A migration fails.
        """
        await asyncio.gather(
            self.postgres.start(),
            self.valkey.start(),
            asyncio.to_thread(make_secrets, self.data / "secrets"),
            asyncio.to_thread(issue_certificates, self.pki),
            # Needed for the first question to a service; now is the time at which nobody waits for it.
            asyncio.to_thread(importlib.import_module, "chappe.cli.launcher.health"),
        )
        report("PostgreSQL and Valkey answer")
        dsns = await databases(self.postgres.dsn, _SCHEMAS.values())
        for service, folder in schemas.items():
            for applied in await migrate(dsns[_SCHEMAS[service]], folder):
                report(f"svc_{service}: applied {applied}")
        return Stores(dsns[_LEDGER], dsns[IDENTITY], self.valkey.url)

    async def stop(self) -> None:
        """Stops the engines cleanly and lets go of the folder; idempotent."""
        await asyncio.gather(self.postgres.stop(), self.valkey.stop())
        self._lock.release()

    async def kill(self) -> None:
        """Kills the engines with SIGKILL and lets go of the folder; idempotent."""
        await asyncio.gather(self.postgres.kill(), self.valkey.kill())
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
