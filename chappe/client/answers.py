"""The part of the local store that remembers what became of changes which one process handed over to another."""

import sqlite3

from chappe.client.changes import Sent, Settled
from chappe.client.errors import RefusedError
from chappe.client.link import Stored
from chappe.client.store_file import StoreFile

REMEMBERED = 1000
"""So many answers: whoever hands a change over again does it within seconds."""


class AnswerWriting:
    """Writes answers inside a transaction of the store."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db

    def put(self, settled: Settled) -> None:
        """Remembers the answer to a change that has a token."""
        outgoing = settled.outgoing
        if not outgoing.token:
            return
        if isinstance(settled, Sent):
            row = (outgoing.token, outgoing.message_id, settled.accepted_ms, "", "")
        else:
            row = (outgoing.token, b"", 0, settled.reason, settled.detail)
        self._db.execute(
            "INSERT OR REPLACE INTO answers (token, message_id, accepted_ms, reason, detail) VALUES (?, ?, ?, ?, ?)",
            row,
        )
        self._db.execute("DELETE FROM answers WHERE number <= (SELECT max(number) - ? FROM answers)", (REMEMBERED,))


class Answers:
    """Reads them."""

    def __init__(self, file: StoreFile) -> None:
        self._file = file

    def find(self, token: bytes) -> Stored | RefusedError | None:
        """Returns what became of a change; None when it has no answer."""
        with self._file.guard("read"):
            row = self._file.db.execute(
                "SELECT message_id, accepted_ms, reason, detail FROM answers WHERE token = ?", (token,)
            ).fetchone()
        if row is None:
            return None
        return RefusedError(row[2], row[3]) if row[2] else Stored(row[0], row[1])

    def is_kept(self, token: bytes) -> bool:
        """Tells whether a change is in the outbox."""
        with self._file.guard("read"):
            row = self._file.db.execute("SELECT 1 FROM outbox WHERE token = ? AND reason IS NULL", (token,)).fetchone()
        return row is not None

    def are_missing(self) -> bool:
        """Tells whether anything in the outbox is to be sent."""
        with self._file.guard("read"):
            row = self._file.db.execute("SELECT 1 FROM outbox WHERE reason IS NULL LIMIT 1").fetchone()
        return row is not None
