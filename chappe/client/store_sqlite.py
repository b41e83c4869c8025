"""The local store on SQLite: one file per device, one transaction per batch.

A commit waits for the disk (0.2 ms on a good one, 20 ms on a bad one, more for a big batch), so that the engine runs it
in a thread and gathers the next batch meanwhile. `synchronous=FULL` makes every commit survive a loss of power: an
outbox that forgets an id which has left the device would send a message twice.
"""

import sqlite3
from collections.abc import Iterable
from pathlib import Path

from chappe.api.edge.v1 import item_pb2
from chappe.client.altering import Altering
from chappe.client.answers import Answers, AnswerWriting
from chappe.client.changes import (
    ItemArrived,
    LogChange,
    MessageArrived,
    MessageExpired,
    ReadElsewhere,
    SendRefused,
    Settled,
    TickRaised,
)
from chappe.client.contact_shelf import ContactShelf
from chappe.client.frames import parse_action
from chappe.client.group_shelf import GroupShelf, GroupWriting
from chappe.client.mint import time_ms_of
from chappe.client.outgoing import OutboxRow
from chappe.client.own_items import own_item
from chappe.client.rebuilds import Rebuilds
from chappe.client.refusals import Refusals
from chappe.client.setting_shelf import SettingShelf
from chappe.client.store import Batch, LocalChat, Person, Restored, StoredMessage, StoredReaction
from chappe.client.store_file import StoreFile

_PUT_OUTBOX = """
INSERT INTO outbox (draft, kind, peer_id, conversation_id, action, message_id, attempt, token)
VALUES (?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (draft) DO UPDATE SET message_id = excluded.message_id, attempt = excluded.attempt
"""
_PUT_MESSAGE = """
INSERT INTO messages (message_id, conversation_id, sender_id, sender_device_id, recipient_id, accepted_ms, suite,
    content, edited_ms, expires_ms, is_seen) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (message_id) DO NOTHING
"""
# A page that is read long after may know of an edit that the log tells of no more.
_PUT_NEWER = "UPDATE messages SET suite = ?, content = ?, edited_ms = ? WHERE message_id = ? AND edited_ms < ?"
_PUT_TICK = """
INSERT INTO ticks VALUES (?, ?, ?, ?) ON CONFLICT (message_id) DO UPDATE
SET state = excluded.state, by_user_id = excluded.by_user_id, recorded_ms = excluded.recorded_ms
WHERE excluded.state > ticks.state
"""
_PUT_CONVERSATION = """
INSERT INTO conversations (conversation_id, peer_id, last_message_id, read_upto) VALUES (?, ?, ?, ?)
ON CONFLICT (conversation_id) DO UPDATE
SET last_message_id = max(last_message_id, excluded.last_message_id), read_upto = max(read_upto, excluded.read_upto),
    peer_id = CASE WHEN length(peer_id) = 0 THEN excluded.peer_id ELSE peer_id END
"""
_READ_UPTO = "SELECT read_upto FROM conversations WHERE conversation_id = ?"
# A message that comes with a newer edit than this device was told of has its content already.
_MESSAGE_COLUMNS = """
SELECT m.message_id, m.conversation_id, m.sender_id, m.sender_device_id, m.recipient_id, m.accepted_ms,
    CASE WHEN a.edited_ms > m.edited_ms THEN a.suite ELSE m.suite END,
    CASE WHEN a.revoked_ms > 0 THEN x'' WHEN a.edited_ms > m.edited_ms THEN a.content ELSE m.content END,
    coalesce(t.state, 0), max(m.edited_ms, coalesce(a.edited_ms, 0)), coalesce(a.revoked_ms, 0), m.expires_ms,
    coalesce(g.delivered, 0), coalesce(g.read, 0), coalesce(g.recipients, 0)
FROM messages m LEFT JOIN ticks t ON t.message_id = m.message_id LEFT JOIN alterations a ON a.message_id = m.message_id
    LEFT JOIN group_ticks g ON g.message_id = m.message_id
"""
_REACTIONS = """
SELECT user_id, reacted_ms, suite, content FROM reactions WHERE message_id = ? AND content <> x''
ORDER BY reaction_id DESC
"""
_CHATS = """
SELECT conversation_id, peer_id, last_message_id, read_upto, muted_until_ms, pinned_ms, is_archived, expiry_s,
    cleared_upto FROM conversations WHERE last_message_id <> x'' ORDER BY pinned_ms DESC, last_message_id DESC
"""


class _Writer:
    """Writes answers and events inside a transaction."""

    def __init__(self, db: sqlite3.Connection, user_id: bytes, device_id: int) -> None:
        self._db = db
        self._user_id = user_id
        self._device_id = device_id
        self.altering = Altering(db)
        self._answers = AnswerWriting(db)
        self.groups = GroupWriting(db, user_id)

    def settle(self, settled: Settled, changes: list[LogChange]) -> None:
        """Stores the answer to an entry of the outbox, and adds what follows from it."""
        outgoing = settled.outgoing
        self._answers.put(settled)
        if isinstance(settled, SendRefused) and outgoing.kind != "read":
            self._db.execute(
                "UPDATE outbox SET reason = ?, detail = ? WHERE draft = ?",
                (settled.reason, settled.detail, outgoing.draft),
            )
            return
        self._db.execute("DELETE FROM outbox WHERE draft = ?", (outgoing.draft,))
        if isinstance(settled, SendRefused):
            # That something was read is nothing that anybody misses.
            return
        if outgoing.kind == "read":
            read_upto = parse_action(outgoing.action).read.read_upto
            self._keep_conversation(outgoing.conversation_id, outgoing.peer_id, b"", read_upto)
            return
        item = own_item(settled, self._user_id, self._device_id)
        if item.HasField("message"):
            if self._put_message(item, is_seen=True, now_ms=settled.accepted_ms):
                self._keep_own(item.message, changes)
        else:
            self.altering.apply(item, [])

    def apply(self, item: item_pb2.Item, changes: list[LogChange], now_ms: int) -> None:
        """Stores one event, and adds what of it was new."""
        kind = item.WhichOneof("event")
        if kind == "message":
            if self._put_message(item, is_seen=False, now_ms=now_ms):
                changes.append(MessageArrived(self.altering.shown(item.message), item.position))
                self._keep_own(item.message, changes)
        elif kind == "receipt":
            self._raise_ticks(item.receipt, changes)
        elif kind == "own_read":
            self._read_on(item.own_read, changes)
        elif not self.altering.apply(item, changes) and not self.groups.apply(item, changes):
            # Whoever shows that person next asks for the name; an empty one is asked for.
            self._db.execute("UPDATE people SET profile_name = '' WHERE user_id = ?", (item.profile.user_id,))
            changes.append(ItemArrived(item))

    def expire(self, now_ms: int) -> list[LogChange]:
        """Removes what has disappeared."""
        return [MessageExpired(*gone) for gone in self.altering.expire(now_ms)]

    def _put_message(self, item: item_pb2.Item, *, is_seen: bool, now_ms: int) -> bool:
        message = item.message
        if self.altering.is_gone(message, now_ms):
            return False
        is_revoked = self.altering.arrive(message, is_logged=bool(item.position))
        envelope = message.envelope
        row = (
            message.message_id,
            message.conversation_id,
            message.sender_user_id,
            message.sender_device_id,
            message.recipient_user_id,
            message.accepted_ms,
            envelope.suite,
            b"" if is_revoked else envelope.content,
            message.edited_ms,
            message.expires_ms,
            is_seen,
        )
        if not self._db.execute(_PUT_MESSAGE, row).rowcount:
            if message.edited_ms and not is_revoked:
                newer = (envelope.suite, envelope.content, message.edited_ms, message.message_id, message.edited_ms)
                self._db.execute(_PUT_NEWER, newer)
            return False
        if message.group_id:
            self.groups.heard(message)
        is_mine = message.sender_user_id == self._user_id
        peer_id = b"" if message.group_id else message.recipient_user_id if is_mine else message.sender_user_id
        self._keep_conversation(message.conversation_id, peer_id, message.message_id, b"")
        return True

    def _read_on(self, read: item_pb2.OwnReadEvent, changes: list[LogChange]) -> None:
        row = self._db.execute(_READ_UPTO, (read.conversation_id,)).fetchone()
        if row is None or row[0] < read.read_upto:
            self._keep_conversation(read.conversation_id, b"", b"", read.read_upto)
            changes.append(ReadElsewhere(read.conversation_id, read.read_upto))

    def _keep_own(self, message: item_pb2.MessageEvent, changes: list[LogChange]) -> None:
        if message.group_id and message.sender_user_id == self._user_id:
            self.groups.keep_own(message.group_id, message.accepted_ms, changes)

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

    def __init__(self, path: Path | None, user_id: bytes, device_id: int, *, may_migrate: bool = True) -> None:
        """Opens the store of a device, and makes it if there is none.

        Args:
            path: The file; None keeps everything in memory.
            user_id: The user, to tell own messages from those of others.
            device_id: The device.
            may_migrate: Whether an older file is brought up to date; no while another process uses it.

        Raises:
            StoreError: The file cannot be opened, or a newer version of the SDK has written it.
        """
        self._file = StoreFile(path, may_migrate=may_migrate)
        self._db = self._file.db
        self._is_blocking = path is not None
        self._writer = _Writer(self._db, user_id, device_id)
        self.groups = GroupShelf(self._file, self._writer.groups)
        """What this device knows of its groups."""
        self.settings = SettingShelf(self._file, self._writer.altering)
        """How chats are kept."""
        self.answers = Answers(self._file)
        """What became of changes that were handed over."""
        self.rebuilds = Rebuilds(self._file)
        """Whether what is older than the log is still to be read."""
        self.contacts = ContactShelf(self._file)
        """Whether the address book was changed."""
        self.refusals = Refusals(self._file)
        """What was refused for good, until somebody was told."""

    @property
    def is_blocking(self) -> bool:
        """Whether commits wait for a disk."""
        return self._is_blocking

    def load(self) -> Restored:
        """Returns what a core needs to go on."""
        with self._file.guard("read"):
            meta: dict[str, bytes] = dict(self._db.execute("SELECT key, value FROM meta"))
            rows = self._db.execute(
                "SELECT draft, kind, peer_id, conversation_id, action, message_id, attempt, token FROM outbox"
                " WHERE reason IS NULL ORDER BY draft"
            ).fetchall()
            last_draft = self._db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'outbox'").fetchone()
            newest = self._db.execute(
                "SELECT conversation_id, last_message_id FROM conversations WHERE length(last_message_id) = 16"
            ).fetchall()
            (accepted_ms,) = self._db.execute(
                "SELECT max(accepted_ms) FROM (SELECT accepted_ms FROM messages ORDER BY message_id DESC LIMIT 100)"
            ).fetchone()
        return Restored(
            cursor=meta.get("cursor", b""),
            outgoing=[OutboxRow(*row).outgoing() for row in rows],
            last_minted=meta.get("last_minted", b""),
            next_draft=(last_draft[0] if last_draft else 0) + 1,
            seen_ms=[(conversation_id, time_ms_of(message_id)) for conversation_id, message_id in newest],
            accepted_ms=accepted_ms or 0,
        )

    def commit(self, batch: Batch) -> list[LogChange]:
        """Stores a batch in one transaction and returns what of its items was new."""
        changes: list[LogChange] = []
        with self._file.guard("written"), self._file.transaction():
            if batch.rows:
                self._db.executemany(_PUT_OUTBOX, batch.rows)
                self._writer.keep("last_minted", max(row.message_id for row in batch.rows))
            for settled in batch.settled:
                self._writer.settle(settled, changes)
            for item in batch.items:
                self._writer.apply(item, changes, batch.now_ms)
                self.contacts.hear(item.account)
            for group_id, number in batch.asked:
                self._writer.groups.mark_asked(group_id, number)
            self.rebuilds.write(batch)
            if batch.is_caught_up:
                # The server has just said what time it is, and what came before is about to be shown.
                changes += self._writer.expire(batch.now_ms)
            if batch.cursor is not None:
                self._db.execute("INSERT OR REPLACE INTO meta VALUES ('cursor', ?)", (batch.cursor,))
        return changes

    def expire(self, now_ms: int) -> list[LogChange]:
        """Removes the messages that have disappeared, and returns which."""
        with self._file.guard("written"), self._file.transaction():
            return self._writer.expire(now_ms)

    def next_expiry_ms(self) -> int:
        """Returns when the next message disappears; zero when none does."""
        with self._file.guard("read"):
            (expires_ms,) = self._db.execute("SELECT min(expires_ms) FROM messages WHERE expires_ms > 0").fetchone()
        return expires_ms or 0

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
            rows = self._db.execute(_CHATS).fetchall()
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
            self.contacts.change()

    def close(self) -> None:
        """Closes the file."""
        with self._file.guard("closed"):
            self._db.close()

    def _messages(self, clause: str, values: tuple[object, ...]) -> list[StoredMessage]:
        with self._file.guard("read"):
            rows = self._db.execute(_MESSAGE_COLUMNS + clause, values).fetchall()
            reactions = [self._db.execute(_REACTIONS, row[:1]).fetchall() for row in rows]
        return [
            StoredMessage(*row)._replace(reactions=tuple(StoredReaction(*reaction) for reaction in found))
            for row, found in zip(rows, reactions, strict=True)
        ]
