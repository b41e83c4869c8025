"""The part of the local store that keeps groups: what they are, who is in them, how far messages to them came."""

import sqlite3
from collections.abc import Iterable

from chappe.api.edge.v1 import item_pb2
from chappe.client.changes import CountsDue, GroupTickRaised, ItemArrived, LogChange
from chappe.client.group_views import Group, GroupChanged, Role, to_group_changed
from chappe.client.membership import KnownGroup, KnownMember, changed, counted, is_complete, learned, members_after
from chappe.client.mint import time_ms_of
from chappe.client.store_file import StoreFile

_PUT_GROUP = "INSERT OR REPLACE INTO groups VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"
_PUT_TICK = """
INSERT INTO group_ticks VALUES (?, ?, ?, ?) ON CONFLICT (message_id) DO UPDATE
SET delivered = max(delivered, excluded.delivered), read = max(read, excluded.read), recipients = excluded.recipients
WHERE excluded.delivered > delivered OR excluded.read > read
RETURNING delivered, read, recipients
"""
_PUT_NOTICE = "INSERT OR IGNORE INTO notices VALUES (?, ?, ?, ?, ?)"
_CLEARED = "SELECT cleared_upto, cleared_ms FROM conversations WHERE conversation_id = ?"
_NOTICES = """
SELECT change FROM notices WHERE group_id = ? AND changed_ms >= ? ORDER BY changed_ms DESC, version DESC LIMIT ?
"""
_UNSEEN_NOTICES = "SELECT change FROM notices WHERE is_seen = 0 ORDER BY changed_ms, group_id, version LIMIT ?"
_UNCERTAIN = """
SELECT m.message_id, coalesce(g.delivered, 0), coalesce(g.read, 0)
FROM messages m LEFT JOIN group_ticks g ON g.message_id = m.message_id
WHERE m.conversation_id = ? AND m.sender_id = ? AND coalesce(g.read < g.recipients, 1) AND m.message_id < ?
ORDER BY m.message_id DESC LIMIT ?
"""
_HEAR = """
INSERT INTO group_news VALUES (?, ?, 1, 0) ON CONFLICT (group_id) DO UPDATE
SET told_ms = max(told_ms, excluded.told_ms), heard = heard + 1
"""
_HEAR_LATE = "UPDATE group_news SET heard = heard + 1 WHERE group_id = ? AND told_ms >= ?"
_ASKED = "UPDATE group_news SET asked = max(asked, ?) WHERE group_id = ?"
_TO_ASK = "SELECT group_id, heard FROM group_news WHERE heard > asked ORDER BY group_id"
_LAST_ID = b"\xff" * 16
_SKEW_MS = 2000
"""More than the clocks of two servers may be apart."""


class GroupWriting:
    """Reads and writes what a device knows of its groups, inside a transaction of the store."""

    def __init__(self, db: sqlite3.Connection, user_id: bytes) -> None:
        self._db = db
        self.user_id = user_id

    def find(self, group_id: bytes) -> KnownGroup | None:
        """Returns a group; None for one of which this device never heard."""
        row = self._db.execute("SELECT * FROM groups WHERE group_id = ?", (group_id,)).fetchone()
        return None if row is None else KnownGroup(*row)

    def all(self) -> list[KnownGroup]:
        """Returns every group that this device ever heard of, by name."""
        return [KnownGroup(*row) for row in self._db.execute("SELECT * FROM groups ORDER BY name, group_id")]

    def members(self, group_id: bytes) -> list[KnownMember]:
        """Returns the members of a group, by user id; true of the version that the group names."""
        rows = self._db.execute(
            "SELECT user_id, role, join_ms FROM group_members WHERE group_id = ? ORDER BY user_id", (group_id,)
        )
        return [KnownMember(*row) for row in rows]

    def put(self, group: KnownGroup) -> None:
        """Puts a group in the place of what was known of it."""
        self._db.execute(_PUT_GROUP, group)

    def put_members(self, group_id: bytes, members: Iterable[KnownMember]) -> None:
        """Puts members in the place of those that were known."""
        self._db.execute("DELETE FROM group_members WHERE group_id = ?", (group_id,))
        rows = [(group_id, *member) for member in members]
        self._db.executemany("INSERT INTO group_members VALUES (?, ?, ?, ?)", rows)

    def heard(self, message: item_pb2.MessageEvent) -> None:
        """Takes note that there is a group of this version, when a message came from it."""
        known = self.find(message.group_id)
        if known is None:
            self.put(KnownGroup(message.group_id, role=Role.MEMBER, version=message.members_version))
        elif message.members_version > known.version:
            self.put(known._replace(version=message.members_version))

    def keep_own(self, group_id: bytes, accepted_ms: int, changes: list[LogChange]) -> None:
        """Takes note of an own message, of which news may have told that were heard before it was known."""
        if self._db.execute(_HEAR_LATE, (group_id, accepted_ms - _SKEW_MS)).rowcount:
            changes.append(CountsDue(group_id))

    def mark_asked(self, group_id: bytes, number: int) -> None:
        """Takes note that the counts of a group are known as they were when so much had been heard."""
        self._db.execute(_ASKED, (number, group_id))

    def apply(self, item: item_pb2.Item, changes: list[LogChange]) -> bool:
        """Applies an event about groups, and adds what of it was new; returns false for one of another kind."""
        kind = item.WhichOneof("event")
        if kind == "group_change":
            self._change(item, changes)
        elif kind == "group_receipt" and item.group_receipt.message_ids:
            changes.extend(self._raise(item.group_receipt))
        elif kind == "group_receipt":
            receipt = item.group_receipt
            self._db.execute(_HEAR, (receipt.group_id, receipt.recorded_ms))
            changes.append(CountsDue(receipt.group_id))
        else:
            return False
        return True

    def _change(self, item: item_pb2.Item, changes: list[LogChange]) -> None:
        event = item.group_change
        known = self.find(event.group_id) or KnownGroup(event.group_id)
        if is_complete(known, event):
            members = {member.user_id: member for member in self.members(event.group_id)}
            members_after(members, event)
            self.put_members(event.group_id, members.values())
        self.put(changed(known, event, self.user_id))
        # Whoever changes a group knows that already.
        is_seen = event.actor_user_id == self.user_id
        row = (event.group_id, event.version, event.changed_ms, event.SerializeToString(), is_seen)
        # A push may be lost, and the log then tells of a change after a later one: what is kept says what is new.
        if not self._is_cleared(event) and self._db.execute(_PUT_NOTICE, row).rowcount:
            changes.append(ItemArrived(item))

    def _is_cleared(self, event: item_pb2.GroupChangeEvent) -> bool:
        row = self._db.execute(_CLEARED, (event.group_id,)).fetchone()
        return row is not None and event.changed_ms <= min(time_ms_of(row[0]), row[1])

    def _raise(self, receipt: item_pb2.GroupReceiptEvent) -> Iterable[GroupTickRaised]:
        for raised in counted(receipt):
            row = (raised.message_id, raised.delivered, raised.read, raised.recipients)
            counts = self._db.execute(_PUT_TICK, row).fetchone()
            if counts is not None:
                delivered, read, recipients = counts
                yield raised._replace(delivered=delivered, read=read, recipients=recipients)


class GroupShelf:
    """The `GroupBook` of a store on SQLite."""

    def __init__(self, file: StoreFile, writing: GroupWriting) -> None:
        self._file = file
        self._writing = writing

    def find(self, group_id: bytes) -> KnownGroup | None:
        """Returns a group; None for one of which this device never heard."""
        with self._file.guard("read"):
            return self._writing.find(group_id)

    def all(self) -> list[KnownGroup]:
        """Returns every group that this device ever heard of, by name."""
        with self._file.guard("read"):
            return self._writing.all()

    def members(self, group_id: bytes) -> list[KnownMember]:
        """Returns the members of a group, by user id; true of the version that the group names."""
        with self._file.guard("read"):
            return self._writing.members(group_id)

    def uncertain(self, group_id: bytes, before: bytes, limit: int) -> list[tuple[bytes, int, int]]:
        """Returns the newest own messages to a group, before an id unless that is empty, that not all have read.

        Each with how many have it and have read it, as far as this device knows.
        """
        with self._file.guard("read"):
            values = (group_id, self._writing.user_id, before or _LAST_ID, limit)
            return self._file.db.execute(_UNCERTAIN, values).fetchall()

    def to_ask(self) -> list[tuple[bytes, int]]:
        """Returns the groups whose counts are to be asked for, each with the number of what was heard of it."""
        with self._file.guard("read"):
            return self._file.db.execute(_TO_ASK).fetchall()

    def notices(self, group_id: bytes, since_ms: int, limit: int) -> list[GroupChanged]:
        """Returns what happened to a group since a moment, the newest so many, the oldest of them first."""
        with self._file.guard("read"):
            rows = self._file.db.execute(_NOTICES, (group_id, since_ms, limit)).fetchall()
        return [_notice(*row) for row in reversed(rows)]

    def unseen(self, limit: int) -> list[GroupChanged]:
        """Returns what others did to groups and was never handed to the application, by time."""
        with self._file.guard("read"):
            rows = self._file.db.execute(_UNSEEN_NOTICES, (limit,)).fetchall()
        return [_notice(*row) for row in rows]

    def mark_seen(self, group_id: bytes, version: int) -> None:
        """Takes note that the application has had the change that led to this version of a group."""
        with self._file.guard("written"), self._file.transaction():
            self._file.db.execute(
                "UPDATE notices SET is_seen = 1 WHERE group_id = ? AND version = ?", (group_id, version)
            )

    def learn(self, group: Group) -> KnownGroup:
        """Takes an answer of the directory, unless something newer is known; returns what is known then."""
        with self._file.guard("written"), self._file.transaction():
            known = learned(self._writing.find(group.group_id) or KnownGroup(group.group_id), group)
            self._writing.put(known)
        return known

    def learn_members(self, group_id: bytes, version: int, members: Iterable[KnownMember]) -> None:
        """Takes the members of a version of a group, unless those of a newer one are known."""
        with self._file.guard("written"), self._file.transaction():
            known = self._writing.find(group_id) or KnownGroup(group_id)
            if version >= known.members_version:
                self._writing.put_members(group_id, members)
                self._writing.put(known._replace(members_version=version, version=max(known.version, version)))

    def leave(self, group_id: bytes, version: int | None = None) -> None:
        """Takes note that the user is no member any more; with a version, unless the group has changed since that."""
        with self._file.guard("written"), self._file.transaction():
            known = self._writing.find(group_id)
            if known is not None and version in {None, known.version}:
                self._writing.put(known._replace(role=Role.NONE))


def _notice(change: bytes) -> GroupChanged:
    return to_group_changed(item_pb2.GroupChangeEvent.FromString(change))
