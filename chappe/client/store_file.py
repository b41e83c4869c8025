"""The file of the local store: how it is opened, brought up to date and written, and how it fails."""

import sqlite3
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from chappe.client import store_schema
from chappe.client.errors import StoreError

BUSY_S = 15.0
"""How long one process of a profile waits for another that is writing."""

_OF_OTHERS = 0o077


class StoreFile:
    """The database and the way in which it fails."""

    def __init__(self, path: Path | None, *, may_migrate: bool = True) -> None:
        self._path = path
        with self.guard("opened"):
            if path is not None:
                _make_private(path)
            self.db = sqlite3.connect(path or ":memory:", timeout=BUSY_S, isolation_level=None, check_same_thread=False)
            self.db.execute("PRAGMA journal_mode = WAL")
            self.db.execute("PRAGMA synchronous = FULL")
            # What was taken back or has disappeared is overwritten, not only passed over.
            self.db.execute("PRAGMA secure_delete = ON")
            version = store_schema.version_of(self.db)
            if version > store_schema.VERSION:
                raise StoreError(
                    f"{path} was written by a newer version (schema {version}, this one knows {store_schema.VERSION});"
                    " update the chappe package"
                )
            if version < store_schema.VERSION and not may_migrate:
                raise StoreError(f"{path} is in use by a process of an older version; end that one first")
            store_schema.migrate(self.db)

    @contextmanager
    def transaction(self) -> Generator[None]:
        """Commits what the block does, or takes all of it back."""
        self.db.execute("BEGIN IMMEDIATE")
        try:
            yield
        except BaseException:
            self.db.execute("ROLLBACK")
            raise
        self.db.execute("COMMIT")

    @contextmanager
    def guard(self, what: str) -> Generator[None]:
        """Turns the errors of the driver and of the file system into StoreError."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            raise StoreError(
                f"{self._path} cannot be {what}: {error}; is the disk full, or the folder read-only?"
            ) from error


def _make_private(path: Path) -> None:
    """Keeps the messages to their user, in whatever folder; SQLite makes the files beside the first one like it."""
    # One that exists is not opened: when it is closed again, the locks of this process on it would be gone.
    with suppress(FileExistsError):
        path.touch(mode=0o600, exist_ok=False)
    for name in (path.name, f"{path.name}-wal", f"{path.name}-shm"):
        file = path.with_name(name)
        with suppress(FileNotFoundError):
            if file.stat().st_mode & _OF_OTHERS:
                file.chmod(0o600)
