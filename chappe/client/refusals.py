"""The part of the local store that keeps what the server refused for good until somebody was told."""

from typing import Final

from chappe.client.changes import SendRefused
from chappe.client.outgoing import OutboxRow
from chappe.client.store_file import StoreFile

_UNSEEN: Final = """
SELECT draft, kind, peer_id, conversation_id, action, message_id, attempt, token, reason, detail FROM outbox
WHERE reason IS NOT NULL ORDER BY draft LIMIT ?
"""


class Refusals:
    """The `RefusalBook` of a store on SQLite."""

    def __init__(self, file: StoreFile) -> None:
        self._file = file

    def unseen(self, limit: int) -> list[SendRefused]:
        """Returns what was refused and nobody was told of, in the order of composition."""
        with self._file.guard("read"):
            rows = self._file.db.execute(_UNSEEN, (limit,)).fetchall()
        return [SendRefused(OutboxRow(*row[:-2]).outgoing(), row[-2], row[-1]) for row in rows]

    def mark_seen(self, draft: int) -> None:
        """Takes note that the application has had the event of a refusal."""
        self._forget("draft", draft)

    def mark_answered(self, token: bytes) -> None:
        """Takes note that whoever had handed a change over was told that it was refused; harmless when it was not."""
        self._forget("token", token)

    def _forget(self, column: str, value: int | bytes) -> None:
        with self._file.guard("written"), self._file.transaction():
            self._file.db.execute(
                f"DELETE FROM outbox WHERE {column} = ? AND reason IS NOT NULL",  # noqa: S608 - of two names
                (value,),
            )
