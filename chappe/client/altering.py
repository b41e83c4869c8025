"""Applies to the local store what people do with messages that are there, and how they keep conversations.

Whatever the order in which events come, the outcome is the same: the greatest edit stands, the greatest reaction of
each user, and what was taken back stays so and is gone from the file.
"""

import sqlite3
from collections.abc import Callable
from typing import Any

from chappe.api.edge.v1 import item_pb2
from chappe.client.changes import LogChange, MessageEdited, MessageReacted, MessageRevoked, SettingsChanged
from chappe.client.mint import time_ms_of

_PUT_EDIT = """
INSERT INTO alterations (message_id, conversation_id, edit_id, edited_ms, suite, content) VALUES (?, ?, ?, ?, ?, ?)
ON CONFLICT (message_id) DO UPDATE SET edit_id = excluded.edit_id, edited_ms = excluded.edited_ms,
    suite = excluded.suite, content = excluded.content
WHERE alterations.revoked_ms = 0 AND alterations.is_hidden = 0 AND alterations.edit_id < excluded.edit_id
"""
_PUT_REVOKE = """
INSERT INTO alterations (message_id, conversation_id, revoked_ms) VALUES (?, ?, ?)
ON CONFLICT (message_id) DO UPDATE SET revoked_ms = excluded.revoked_ms, content = x'' WHERE alterations.revoked_ms = 0
"""
_PUT_HIDING = """
INSERT INTO alterations (message_id, conversation_id, is_hidden) VALUES (?, ?, 1)
ON CONFLICT (message_id) DO UPDATE SET is_hidden = 1, content = x'' WHERE alterations.is_hidden = 0
"""
_PUT_REACTION = """
INSERT INTO reactions (message_id, user_id, conversation_id, reaction_id, reacted_ms, suite, content)
SELECT ?, ?, ?, ?, ?, ?, ?
WHERE NOT EXISTS (SELECT 1 FROM alterations WHERE message_id = ? AND (revoked_ms > 0 OR is_hidden = 1))
ON CONFLICT (message_id, user_id) DO UPDATE SET reaction_id = excluded.reaction_id, reacted_ms = excluded.reacted_ms,
    suite = excluded.suite, content = excluded.content
WHERE reactions.reaction_id < excluded.reaction_id
"""
_PUT_SETTINGS = """
INSERT INTO conversations (conversation_id, peer_id, last_message_id, read_upto, muted_until_ms, pinned_ms, is_archived,
    expiry_s, settings_position) VALUES (?, x'', x'', x'', ?, ?, ?, ?, ?)
ON CONFLICT (conversation_id) DO UPDATE SET muted_until_ms = excluded.muted_until_ms, pinned_ms = excluded.pinned_ms,
    is_archived = excluded.is_archived, expiry_s = excluded.expiry_s, settings_position = excluded.settings_position
WHERE conversations.settings_position < excluded.settings_position OR conversations.settings_position = x''
"""
_ALTERED = "SELECT suite, content, edited_ms, revoked_ms FROM alterations WHERE message_id = ?"
_PEER = "SELECT peer_id FROM conversations WHERE conversation_id = ?"
_CLEAR = """
UPDATE conversations SET cleared_upto = max(cleared_upto, ?), cleared_ms = max(cleared_ms, ?) WHERE conversation_id = ?
"""
_CLEARED = "SELECT message_id FROM messages WHERE conversation_id = ? AND message_id <= ? AND accepted_ms <= ?"
_FOREVER_MS = 1 << 62


class Altering:
    """Writes alterations inside a transaction."""

    def __init__(self, db: sqlite3.Connection) -> None:
        self._db = db
        self._handlers: dict[str, Callable[[Any, bytes, list[LogChange]], None]] = {
            "edit": self._edit,
            "revoke": self._revoke,
            "reaction": self._react,
            "conversation_setting": self._keep,
        }

    def apply(self, item: item_pb2.Item, changes: list[LogChange]) -> bool:
        """Applies an event, and adds it where it was new; returns false for one of another kind."""
        kind = str(item.WhichOneof("event"))
        handler = self._handlers.get(kind)
        if handler is None:
            return False
        handler(getattr(item, kind), item.position, changes)
        return True

    def is_gone(self, message: item_pb2.MessageEvent, now_ms: int) -> bool:
        """Tells whether a message that comes is one that was hidden, was cleared, or has disappeared."""
        if message.expires_ms and message.expires_ms <= now_ms:
            return True
        (is_gone,) = self._db.execute(
            "SELECT EXISTS (SELECT 1 FROM alterations WHERE message_id = ? AND is_hidden = 1) OR EXISTS ("
            "SELECT 1 FROM conversations WHERE conversation_id = ? AND cleared_upto >= ? AND cleared_ms >= ?)",
            (message.message_id, message.conversation_id, message.message_id, message.accepted_ms),
        ).fetchone()
        return bool(is_gone)

    def arrive(self, message: item_pb2.MessageEvent, *, is_logged: bool) -> bool:
        """Takes note that a message comes and its chat is out of sight no more; returns whether it was taken back.

        Args:
            message: It.
            is_logged: It comes from the log, not from a page of history.
        """
        if message.revoked_ms and is_logged and self._is_known(message.message_id):
            # The log tells later who took it back, which is news then. What it said is gone at once.
            self._empty(message.message_id)
        elif message.revoked_ms:
            self._take_back(message.message_id, message.conversation_id, message.revoked_ms)
        # The time of a place in the log is later than that of every message before it.
        self._db.execute(
            "UPDATE conversations SET is_archived = 0 WHERE conversation_id = ? AND is_archived = 1"
            " AND settings_position < ?",
            (message.conversation_id, message.accepted_ms.to_bytes(6, "big")),
        )
        revoked = self._db.execute(
            "SELECT 1 FROM alterations WHERE message_id = ? AND revoked_ms > 0", (message.message_id,)
        )
        return revoked.fetchone() is not None

    def shown(self, message: item_pb2.MessageEvent) -> item_pb2.MessageEvent:
        """Returns a message that has come as it is by now: what was done to it may have come before it."""
        found = self._db.execute(_ALTERED, (message.message_id,)).fetchone()
        if found is None:
            return message
        suite, content, edited_ms, revoked_ms = found
        shown = item_pb2.MessageEvent()
        shown.CopyFrom(message)
        if revoked_ms:
            shown.ClearField("envelope")
            shown.edited_ms, shown.revoked_ms = 0, revoked_ms
        elif edited_ms > message.edited_ms:
            shown.envelope.suite, shown.envelope.content, shown.edited_ms = suite, content, edited_ms
        return shown

    def expire(self, now_ms: int) -> list[tuple[bytes, bytes]]:
        """Removes what has disappeared; returns the conversations and messages."""
        gone = self._db.execute(
            "SELECT conversation_id, message_id FROM messages WHERE expires_ms > 0 AND expires_ms <= ?", (now_ms,)
        ).fetchall()
        for _, message_id in gone:
            self._remove(message_id)
            self._db.execute("DELETE FROM alterations WHERE message_id = ?", (message_id,))
        return gone

    def _edit(self, edit: item_pb2.EditEvent, _position: bytes, changes: list[LogChange]) -> None:
        envelope = edit.envelope
        row = (edit.message_id, edit.conversation_id, edit.edit_id, edit.edited_ms, envelope.suite, envelope.content)
        if self._db.execute(_PUT_EDIT, row).rowcount:
            changes.append(MessageEdited(edit))

    def _revoke(self, revoke: item_pb2.RevokeEvent, _position: bytes, changes: list[LogChange]) -> None:
        if revoke.is_for_me:
            row = (revoke.message_id, revoke.conversation_id)
            is_new = self._db.execute(_PUT_HIDING, row).rowcount > 0
            self._remove(revoke.message_id)
        else:
            is_new = self._take_back(revoke.message_id, revoke.conversation_id, revoke.revoked_ms)
        if is_new:
            changes.append(MessageRevoked(revoke))

    def _take_back(self, message_id: bytes, conversation_id: bytes, revoked_ms: int) -> bool:
        is_new = self._db.execute(_PUT_REVOKE, (message_id, conversation_id, revoked_ms)).rowcount > 0
        self._empty(message_id)
        return is_new

    def _empty(self, message_id: bytes) -> None:
        self._db.execute("UPDATE messages SET content = x'' WHERE message_id = ?", (message_id,))
        self._db.execute("DELETE FROM reactions WHERE message_id = ?", (message_id,))

    def _is_known(self, message_id: bytes) -> bool:
        return self._db.execute("SELECT 1 FROM messages WHERE message_id = ?", (message_id,)).fetchone() is not None

    def _react(self, reaction: item_pb2.ReactionEvent, _position: bytes, changes: list[LogChange]) -> None:
        envelope = reaction.envelope
        row = (
            reaction.message_id,
            reaction.user_id,
            reaction.conversation_id,
            reaction.reaction_id,
            reaction.reacted_ms,
            envelope.suite,
            envelope.content,
            reaction.message_id,
        )
        if self._db.execute(_PUT_REACTION, row).rowcount:
            changes.append(MessageReacted(reaction))

    def _keep(self, event: item_pb2.ConversationSettingEvent, position: bytes, changes: list[LogChange]) -> None:
        settings, conversation_id = event.settings, event.conversation_id
        row = (
            conversation_id,
            settings.muted_until_ms,
            settings.pinned_ms,
            settings.is_archived,
            settings.expiry_s,
            position,
        )
        if self._db.execute(_PUT_SETTINGS, row).rowcount:
            (peer_id,) = self._db.execute(_PEER, (conversation_id,)).fetchone()
            changes.append(SettingsChanged(conversation_id, settings, peer_id))
        if settings.cleared_upto:
            # What is accepted later was not there to be cleared.
            cleared_ms = settings.cleared_ms if position else _FOREVER_MS
            self._clear(conversation_id, settings.cleared_upto, cleared_ms, is_watermark=bool(position))

    def _clear(self, conversation_id: bytes, upto: bytes, until_ms: int, *, is_watermark: bool) -> None:
        if is_watermark:
            self._db.execute(_CLEAR, (upto, until_ms, conversation_id))
        notices_gone = "DELETE FROM notices WHERE group_id = ? AND changed_ms <= ?"
        self._db.execute(notices_gone, (conversation_id, min(until_ms, time_ms_of(upto))))
        for (message_id,) in self._db.execute(_CLEARED, (conversation_id, upto, until_ms)).fetchall():
            # With what it was edited to, and without what others still do to it: for this user it is hidden.
            self._db.execute(_PUT_HIDING, (message_id, conversation_id))
            self._remove(message_id)

    def _remove(self, message_id: bytes) -> None:
        for table in ("messages", "reactions", "ticks"):
            self._db.execute(f"DELETE FROM {table} WHERE message_id = ?", (message_id,))  # noqa: S608 - of three names
