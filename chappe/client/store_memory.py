"""A store that forgets everything with its process: for load generation, and as the model of the one on disk."""

from collections.abc import Iterable
from operator import attrgetter

from chappe.api.edge.v1 import item_pb2
from chappe.client.changes import (
    GroupTickRaised,
    ItemArrived,
    LogChange,
    MessageArrived,
    MessageEdited,
    MessageReacted,
    MessageRevoked,
    ReadElsewhere,
    TickRaised,
)
from chappe.client.membership import counted
from chappe.client.mint import time_ms_of
from chappe.client.outgoing import OutboxRow
from chappe.client.store import Batch, Restored


class RecentStates:
    """Remembers how far each of at least the last so many messages came, and of at most twice as many."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._new: dict[bytes, int] = {}
        self._old: dict[bytes, int] = {}

    def advance(self, id_: bytes, state: int = 1) -> bool:
        """Raises the state of a message; returns whether it was lower."""
        if state <= self._new.get(id_, 0) or state <= self._old.get(id_, 0):
            return False
        if len(self._new) >= self._limit:
            self._old, self._new = self._new, {}
        self._new[id_] = state
        return True

    def of(self, id_: bytes) -> int:
        """Returns how far a message came."""
        return max(self._new.get(id_, 0), self._old.get(id_, 0))


_message_id = attrgetter("message_id")


class LeanStore:
    """Keeps the least that a device needs while its process lives: what it has seen, its outbox and its cursor.

    It is a `DeviceStore` and no `LocalStore`: it answers no questions about messages. A second core may be started on
    it, as after a restart of a client, and finds what the first had stored.
    """

    is_blocking = False

    def __init__(self, remembered: int = 50_000) -> None:
        """Makes an empty store that notices doubles among the last `remembered` messages."""
        self.cursor = b""
        self.outbox: dict[int, OutboxRow] = {}
        self._seen = RecentStates(remembered)
        self._ticks = RecentStates(remembered)
        self._delivered = RecentStates(remembered)
        self._readers = RecentStates(remembered)
        self._read_upto: dict[bytes, bytes] = {}
        self._newest_ms: dict[bytes, int] = {}
        self._accepted_ms = 0
        self._last_minted = b""
        self._last_draft = 0

    def load(self) -> Restored:
        """Returns what a core needs to go on."""
        outgoing = [row.outgoing() for _, row in sorted(self.outbox.items())]
        seen_ms = list(self._newest_ms.items())
        return Restored(self.cursor, outgoing, self._last_minted, self._last_draft + 1, seen_ms, self._accepted_ms)

    def commit(self, batch: Batch) -> list[LogChange]:
        """Stores a batch and returns what of its items was new."""
        rows = batch.rows
        if rows:
            self.outbox.update(zip(batch.puts, rows, strict=True))
            self._last_draft = max(self._last_draft, *batch.puts)
            self._last_minted = max(self._last_minted, max(rows, key=_message_id).message_id)
        for settled in batch.settled:
            self.outbox.pop(settled.outgoing.draft, None)
        changes: list[LogChange] = []
        for item in batch.items:
            self._apply(item, changes)
        if batch.cursor is not None:
            self.cursor = batch.cursor
        return changes

    def close(self) -> None:
        """Does nothing."""

    def _apply(self, item: item_pb2.Item, changes: list[LogChange]) -> None:
        kind = item.WhichOneof("event")
        if kind == "message":
            message = item.message
            conversation_id, minted_ms = message.conversation_id, time_ms_of(message.message_id)
            self._newest_ms[conversation_id] = max(self._newest_ms.get(conversation_id, 0), minted_ms)
            self._accepted_ms = max(self._accepted_ms, message.accepted_ms)
            if self._seen.advance(message.message_id):
                changes.append(MessageArrived(message, item.position))
        elif kind == "receipt":
            changes.extend(self._raise(item.receipt))
        elif kind == "group_receipt":
            changes.extend(self._count(item.group_receipt))
            if not item.group_receipt.message_ids:
                changes.append(ItemArrived(item))
        elif kind == "own_read":
            self._read_on(item.own_read, changes)
        elif kind in {"edit", "revoke", "reaction", "group_change"}:
            self._alter(item, changes)
        else:
            changes.append(ItemArrived(item))

    def _read_on(self, read: item_pb2.OwnReadEvent, changes: list[LogChange]) -> None:
        if read.read_upto > self._read_upto.get(read.conversation_id, b""):
            self._read_upto[read.conversation_id] = read.read_upto
            changes.append(ReadElsewhere(read.conversation_id, read.read_upto))

    def _count(self, receipt: item_pb2.GroupReceiptEvent) -> Iterable[GroupTickRaised]:
        for raised in counted(receipt):
            id_ = raised.message_id
            # Both are advanced: a hint that was overtaken may be higher in one and lower in the other.
            has_come = self._delivered.advance(id_, raised.delivered)
            if self._readers.advance(id_, raised.read) or has_come:
                yield raised._replace(delivered=self._delivered.of(id_), read=self._readers.of(id_))

    def _alter(self, item: item_pb2.Item, changes: list[LogChange]) -> None:
        """Passes on what altered a message or a group and has not come before; what stands is for whoever keeps it."""
        if item.HasField("edit"):
            if self._seen.advance(item.edit.edit_id):
                changes.append(MessageEdited(item.edit))
        elif item.HasField("revoke"):
            if self._seen.advance(item.revoke.revoke_id):
                changes.append(MessageRevoked(item.revoke))
        elif item.HasField("reaction"):
            if self._seen.advance(item.reaction.reaction_id):
                changes.append(MessageReacted(item.reaction))
        elif self._seen.advance(_change_id(item.group_change)):
            changes.append(ItemArrived(item))

    def _raise(self, receipt: item_pb2.ReceiptEvent) -> Iterable[TickRaised]:
        for message_id, state in zip(receipt.message_ids, receipt.states, strict=False):
            if self._ticks.advance(message_id, state):
                yield TickRaised(message_id, receipt.conversation_id, state, receipt.user_id, receipt.recorded_ms)


def _change_id(change: item_pb2.GroupChangeEvent) -> bytes:
    return b"%b/%d" % (change.group_id, change.version)
