"""The part of the local store that remembers after which Resync the history is still to be read."""

from chappe.client.store import Batch
from chappe.client.store_file import StoreFile

RESYNCED = "resynced"
"""Under this key the store keeps how many Resyncs there were."""

_BYTES = 8
_COUNT = "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)"


class Rebuilds:
    """Counts the Resyncs, and those after which everything was read."""

    def __init__(self, file: StoreFile) -> None:
        self._file = file

    def due(self) -> int:
        """Returns the number of the Resync after which the history is still to be read; zero when it was."""
        with self._file.guard("read"):
            resynced = self._count(RESYNCED)
            return resynced if resynced > self._count("rebuilt") else 0

    def write(self, batch: Batch) -> None:
        """Takes note, inside a transaction of the store, of a Resync, or that everything was read after one."""
        if batch.resynced is not None:
            self._put(RESYNCED, self._count(RESYNCED) + 1)
        if batch.rebuilt:
            self._put("rebuilt", batch.rebuilt)

    def _count(self, key: str) -> int:
        row = self._file.db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return 0 if row is None else int.from_bytes(row[0], "big")

    def _put(self, key: str, count: int) -> None:
        self._file.db.execute(_COUNT, (key, count.to_bytes(_BYTES, "big")))
