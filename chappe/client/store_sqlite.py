"""The local store on SQLite: one file per device, one transaction per batch.

A commit waits for the disk (0.2 ms on a good one, 20 ms on a bad one, more for a big batch), so that the engine runs it
in a thread and gathers the next batch meanwhile. `synchronous=FULL` makes every commit survive a loss of power: an
outbox that forgets an id which has left the device would send a message twice.
"""

import sqlite3
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from pathlib import Path

from chappe.api.edge.v1 import item_pb2
from chappe.client.changes import (
    ItemArrived,
    LogChange,
    MessageArrived,
    ReadElsewhere,
    SendRefused,
    Settled,
    TickRaised,
)
from chappe.client.errors import StoreError
from chappe.client.frames import parse_action
from chappe.client.mint import time_ms_of
from chappe.client.outgoing import OutboxRow
from chappe.client.store import Batch, LocalChat, Person, Restored, StoredMessage

SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value BLOB NOT NULL) WITHOUT ROWID;
-- What has no answer; reason is set once it was refused for good. AUTOINCREMENT: a number is never used twice.
CREATE TABLE outbox (
    draft INTEGER PRIMARY KEY AUTOINCREMENT, kind TEXT NOT NULL, peer_id BLOB NOT NULL, conversation_id BLOB NOT NULL,
    action BLOB NOT NULL, message_id BLOB NOT NULL, attempt INTEGER NOT NULL, reason TEXT, detail TEXT
);
CREATE TABLE messages (
    arrival INTEGER PRIMARY KEY, message_id BLOB NOT NULL UNIQUE, conversation_id BLOB NOT NULL,
    sender_id BLOB NOT NULL, sender_device_id INTEGER NOT NULL, recipient_id BLOB NOT NULL,
    accepted_ms INTEGER NOT NULL, suite INTEGER NOT NULL, content BLOB NOT NULL, is_seen INTEGER NOT NULL
);
CREATE INDEX messages_by_conversation ON messages (conversation_id, message_id);
CREATE INDEX messages_unseen ON messages (arrival) WHERE is_seen = 0;
CREATE TABLE ticks (
    message_id BLOB PRIMARY KEY, state INTEGER NOT NULL, by_user_id BLOB NOT NULL, recorded_ms INTEGER NOT NULL
) WITHOUT ROWID;
CREATE TABLE conversations (
    conversation_id BLOB PRIMARY KEY, peer_id BLOB NOT NULL, last_message_id BLOB NOT NULL, read_upto BLOB NOT NULL
) WITHOUT ROWID;
CREATE TABLE people (
    user_id BLOB PRIMARY KEY, phone_number TEXT NOT NULL, contact_name TEXT NOT NULL, profile_name TEXT NOT NULL
) WITHOUT ROWID;
"""

_PUT_OUTBOX = """
INSERT INTO outbox (draft, kind, peer_id, conversation_id, action, message_id, attempt) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (draft) DO UPDATE SET message_id = excluded.message_id, attempt = excluded.attempt
"""
_PUT_MESSAGE = """
INSERT INTO messages (message_id, conversation_id, sender_id, sender_device_id, recipient_id, accepted_ms, suite,
    content, is_seen) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (message_id) DO NOTHING
"""
_PUT_TICK = """
INSERT INTO ticks VALUES (?, ?, ?, ?) ON CONFLICT (message_id) DO UPDATE
SET state = excluded.state, by_user_id = excluded.by_user_id, recorded_ms = excluded.recorded_ms
WHERE excluded.state > ticks.state
"""
_PUT_CONVERSATION = """
INSERT INTO conversations VALUES (?, ?, ?, ?) ON CONFLICT (conversation_id) DO UPDATE
SET last_message_id = max(last_message_id, excluded.last_message_id), read_upto = max(read_upto, excluded.read_upto),
    peer_id = CASE WHEN length(peer_id) = 0 THEN excluded.peer_id ELSE peer_id END
"""
_MESSAGE_COLUMNS = """
SELECT m.message_id, m.conversation_id, m.sender_id, m.sender_device_id, m.recipient_id, m.accepted_ms, m.suite,
    m.content, coalesce(t.state, 0) FROM messages m LEFT JOIN ticks t ON t.message_id = m.message_id
"""


class _File:
    """The database and the way in which it fails."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        with self.guard("opened"):
            self.db = sqlite3.connect(path or ":memory:", isolation_level=None, check_same_thread=False)
            self.db.execute("PRAGMA journal_mode = WAL")
            self.db.execute("PRAGMA synchronous = FULL")
            self._migrate()

    def _migrate(self) -> None:
        version = self.db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise StoreError(
                f"{self._path} was written by a newer version (schema {version}, this one knows {SCHEMA_VERSION});"
                " update the chappe package"
            )
        if version == 0:
            self.db.executescript(f"BEGIN;{_SCHEMA}PRAGMA user_version = {SCHEMA_VERSION};COMMIT;")

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
        """Turns the driver's errors into StoreError."""
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(
                f"{self._path} cannot be {what}: {error}; is the disk full, or the folder read-only?"
            ) from error


class _Writer:
    """Writes answers and events inside a transaction."""

    def __init__(self, db: sqlite3.Connection, user_id: bytes, device_id: int) -> None:
        self._db = db
        self._user_id = user_id
        self._device_id = device_id

    def settle(self, settled: Settled) -> None:
        """Stores the answer to an entry of the outbox."""
        outgoing = settled.outgoing
        if isinstance(settled, SendRefused):
            self._db.execute(
                "UPDATE outbox SET reason = ?, detail = ? WHERE draft = ?",
                (settled.reason, settled.detail, outgoing.draft),
            )
            return
        self._db.execute("DELETE FROM outbox WHERE draft = ?", (outgoing.draft,))
        send = parse_action(outgoing.action)
        if outgoing.kind == "read":
            self._keep_conversation(outgoing.conversation_id, outgoing.peer_id, b"", send.read.read_upto)
            return
        message = item_pb2.MessageEvent(
            message_id=outgoing.message_id,
            conversation_id=outgoing.conversation_id,
            sender_user_id=self._user_id,
            sender_device_id=self._device_id,
            recipient_user_id=outgoing.peer_id,
            group_id=b"" if outgoing.peer_id else outgoing.conversation_id,
            accepted_ms=settled.accepted_ms,
            envelope=send.message.envelope,
        )
        self._put_message(message, is_seen=True)

    def apply(self, item: item_pb2.Item, changes: list[LogChange]) -> None:
        """Stores one event, and adds what of it was new."""
        kind = item.WhichOneof("event")
        if kind == "message":
            if self._put_message(item.message, is_seen=False):
                changes.append(MessageArrived(item.message, item.position))
        elif kind == "receipt":
            self._raise_ticks(item.receipt, changes)
        elif kind == "own_read":
            read = item.own_read
            self._keep_conversation(read.conversation_id, b"", b"", read.read_upto)
            changes.append(ReadElsewhere(read.conversation_id, read.read_upto))
        else:
            changes.append(ItemArrived(item))

    def _put_message(self, message: item_pb2.MessageEvent, *, is_seen: bool) -> bool:
        envelope = message.envelope
        row = (
            message.message_id,
            message.conversation_id,
            message.sender_user_id,
            message.sender_device_id,
            message.recipient_user_id,
            message.accepted_ms,
            envelope.suite,
            envelope.content,
            is_seen,
        )
        if not self._db.execute(_PUT_MESSAGE, row).rowcount:
            return False
        is_mine = message.sender_user_id == self._user_id
        peer_id = b"" if message.group_id else message.recipient_user_id if is_mine else message.sender_user_id
        self._keep_conversation(message.conversation_id, peer_id, message.message_id, b"")
        return True

    def _raise_ticks(self, receipt: item_pb2.ReceiptEvent, changes: list[LogChange]) -> None:
        for message_id, state in zip(receipt.message_ids, receipt.states, strict=False):
            row = (message_id, state, receipt.user_id, receipt.recorded_ms)
            if self._db.execute(_PUT_TICK, row).rowcount:
                changes.append(
                    TickRaised(message_id, receipt.conversation_id, state, receipt.user_id, receipt.recorded_ms)
                )

    def _keep_conversation(self, conversation_id: bytes, peer_id: bytes, last: bytes, read_upto: bytes) -> None:
        self._db.execute(_PUT_CONVERSATION, (conversation_id, peer_id, last, read_upto))

    def keep(self, key: str, value: bytes) -> None:
        """Raises a value that only ever rises."""
        self._db.execute(
            "INSERT INTO meta VALUES (?, ?) ON CONFLICT (key) DO UPDATE SET value = max(value, excluded.value)",
            (key, value),
        )


class SqliteStore:
    """A `LocalStore` in a file, or in memory without one."""

    def __init__(self, path: Path | None, user_id: bytes, device_id: int) -> None:
        """Opens the store of a device, and makes it if there is none.

        Args:
            path: The file; None keeps everything in memory.
            user_id: The user, to tell own messages from those of others.
            device_id: The device.

        Raises:
            StoreError: The file cannot be opened, or a newer version of the SDK has written it.
        """
        self._file = _File(path)
        self._db = self._file.db
        self._is_blocking = path is not None
        self._writer = _Writer(self._db, user_id, device_id)

    @property
    def is_blocking(self) -> bool:
        """Whether commits wait for a disk."""
        return self._is_blocking

    def load(self) -> Restored:
        """Returns what a core needs to go on."""
        with self._file.guard("read"):
            meta: dict[str, bytes] = dict(self._db.execute("SELECT key, value FROM meta"))
            rows = self._db.execute(
                "SELECT draft, kind, peer_id, conversation_id, action, message_id, attempt FROM outbox"
                " WHERE reason IS NULL ORDER BY draft"
            ).fetchall()
            last_draft = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
            newest = self._db.execute(
                "SELECT conversation_id, last_message_id FROM conversations WHERE length(last_message_id) = 16"
            ).fetchall()
        return Restored(
            cursor=meta.get("cursor", b""),
            outgoing=[OutboxRow(*row).outgoing() for row in rows],
            last_minted=meta.get("last_minted", b""),
            next_draft=(last_draft[0] if last_draft else 0) + 1,
            seen_ms=[(conversation_id, time_ms_of(message_id)) for conversation_id, message_id in newest],
        )

    def commit(self, batch: Batch) -> list[LogChange]:
        """Stores a batch in one transaction and returns what of its items was new."""
        changes: list[LogChange] = []
        with self._file.guard("written"), self._file.transaction():
            if batch.rows:
                self._db.executemany(_PUT_OUTBOX, batch.rows)
                self._writer.keep("last_minted", max(row.message_id for row in batch.rows))
            for settled in batch.settled:
                self._writer.settle(settled)
            for item in batch.items:
                self._writer.apply(item, changes)
            if batch.cursor is not None:
                self._db.execute("INSERT OR REPLACE INTO meta VALUES ('cursor', ?)", (batch.cursor,))
        return changes

    def unseen(self, limit: int) -> list[StoredMessage]:
        """Returns messages that were never handed to the application, in the order in which they came."""
        return self._messages("WHERE m.is_seen = 0 ORDER BY m.arrival LIMIT ?", (limit,))

    def mark_seen(self, message_ids: Iterable[bytes]) -> None:
        """Takes note that the application has had these messages."""
        with self._file.guard("written"), self._file.transaction():
            self._db.executemany(
                "UPDATE messages SET is_seen = 1 WHERE message_id = ?", [(message_id,) for message_id in message_ids]
            )

    def messages(self, conversation_id: bytes, before: bytes, limit: int) -> list[StoredMessage]:
        """Returns messages of a conversation, newest first, before an id unless that is empty."""
        return self._messages(
            "WHERE m.conversation_id = ? AND (? = x'' OR m.message_id < ?) ORDER BY m.message_id DESC LIMIT ?",
            (conversation_id, before, before, limit),
        )

    def chats(self) -> list[LocalChat]:
        """Returns the conversations, the one with the newest message first."""
        with self._file.guard("read"):
            rows = self._db.execute("SELECT * FROM conversations ORDER BY last_message_id DESC").fetchall()
        return [LocalChat(*row) for row in rows]

    def people(self) -> list[Person]:
        """Returns everybody that is remembered."""
        with self._file.guard("read"):
            rows = self._db.execute("SELECT user_id, phone_number, contact_name, profile_name FROM people").fetchall()
        return [Person(*row) for row in rows]

    def remember(self, people: Iterable[Person]) -> None:
        """Remembers people, in place of what was known of the same users."""
        with self._file.guard("written"), self._file.transaction():
            self._db.executemany("INSERT OR REPLACE INTO people VALUES (?, ?, ?, ?)", people)

    def close(self) -> None:
        """Closes the file."""
        with self._file.guard("closed"):
            self._db.close()

    def _messages(self, clause: str, values: tuple[object, ...]) -> list[StoredMessage]:
        with self._file.guard("read"):
            rows = self._db.execute(_MESSAGE_COLUMNS + clause, values).fetchall()
        return [StoredMessage(*row) for row in rows]
