"""Brings Cassandra onto this machine: the jars, a Java that runs them, and an archive of what every node loads."""

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path

from chappe.runtime.engines.cassandra.jars import fetch_jars
from chappe.runtime.engines.cassandra.java import Java, find_java
from chappe.runtime.engines.cassandra.node import EmbeddedCassandra, Installed
from chappe.runtime.engines.cassandra.options import THROW_AWAY
from chappe.runtime.engines.process import EngineError


def cache_of(environ: Mapping[str, str]) -> Path:
    """Returns the folder of this user in which Chappe keeps what it can fetch again.

    CHAPPE_CACHE names it; else it is a folder of the user's caches.
    """
    named = environ.get("CHAPPE_CACHE")
    caches = environ.get("XDG_CACHE_HOME")
    return Path(named) if named else (Path(caches) if caches else Path.home() / ".cache") / "chappe"


class CassandraInstall:
    """What nodes are started from; call it, and it fetches what is missing."""

    def __init__(
        self, cache: Path, *, java: Path | None = None, report: Callable[[str], None] = lambda _: None
    ) -> None:
        """Prepares; nothing is touched before the first call.

        Args:
            cache: where everything is kept, see `cache_of`.
            java: the Java to take; one that is found by default.
            report: told what is done, a line at a time.
        """
        self._cache = cache.absolute()
        self._java = java
        self._report = report

    async def __call__(self) -> Installed:
        """Returns what a node is started from.

        Raises:
            EngineError: if Java or Maven is missing, the download fails, or a jar is not the one that it should be.
        """
        java = await asyncio.to_thread(find_java, self._java)
        jars = await fetch_jars(self._cache, self._report)
        archive = self._archive(java, jars)
        if not archive.exists():
            self._report("making an archive of Cassandra's classes, this once")
            await self._make_archive(java, jars, archive)
        # A Java that cannot use its archive says so and goes on without.
        return Installed(java.path, jars, (f"-XX:SharedArchiveFile={archive}",))

    def _archive(self, java: Java, jars: tuple[Path, ...]) -> Path:
        # An archive is for one Java and one list of jars.
        stamp = hashlib.sha256(f"{java}{jars}".encode()).hexdigest()[:12]
        return self._cache / f"classes-{stamp}.jsa"

    async def _make_archive(self, java: Java, jars: tuple[Path, ...], archive: Path) -> None:
        """Runs a node that is thrown away; Java writes down at its end what it had loaded."""
        folder = await asyncio.to_thread(_draft, archive)
        draft = folder / "classes.jsa"

        async def recording() -> Installed:
            return Installed(java.path, jars, (f"-XX:ArchiveClassesAtExit={draft}",))

        node = EmbeddedCassandra(folder, recording, options=THROW_AWAY)
        node.stop_s = 120.0  # type: ignore[misc] # this one writes before it ends
        try:
            async with node:
                pass
            if not draft.exists():
                raise EngineError(f"Java wrote no archive of classes; its log is {node.log}")
            draft.replace(archive)
        finally:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)


def _draft(archive: Path) -> Path:
    return Path(tempfile.mkdtemp(prefix=f".{archive.stem}-", dir=archive.parent))
