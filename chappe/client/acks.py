"""Counts the items of a connection, and says when to acknowledge them. No I/O."""

from collections.abc import Iterable

from chappe.api.edge.v1 import item_pb2

LATE_ACKS = 64
"""So many items that nobody waits for are acknowledged even if nothing else is."""
LATE_S = (0.1, 0.5)
"""Between these an acknowledgement may be put off, drawn each time: what a thousand members of a group get in one
moment they need not acknowledge in one moment, in which nobody else would be served."""
MOST_IDS = 256
"""So many messages one acknowledgement may name."""
_RECEIPTS = {"receipt", "group_receipt"}


class Acks:
    """The books of one connection, in items since Welcome.

    Receipts, and messages to groups, whose ticks are counts that are told once a second, are acknowledged with what
    comes next, or a moment later: that saves a frame for most messages that a device sends, and most in a busy group.
    Everything else somebody waits for: the sender of a message for its tick, a log for being read on.
    """

    def __init__(self) -> None:
        self.received = 0
        """How many items have come."""
        self._acknowledged = 0
        self._owed = 0
        self._ids: list[bytes] = []

    @property
    def is_owed(self) -> bool:
        """Whether an acknowledgement has been put off."""
        return self._owed > 0

    def begin(self) -> None:
        """Starts anew for a connection."""
        self.received = self._acknowledged = self._owed = 0

    def stored(self, items: Iterable[item_pb2.Item], count: int, *, is_sync: bool) -> int:
        """Learns that items are stored; returns the count to acknowledge now, zero when that has time.

        Args:
            items: What was stored.
            count: How many items of the connection are stored with them.
            is_sync: Whether they came while the log was read on.
        """
        has_time = not is_sync and count - self._acknowledged < LATE_ACKS
        if has_time and all(_has_time(item) for item in items):
            self._owed = count
            return 0
        self._acknowledged, self._owed = count, 0
        return count

    def owe(self, message_ids: Iterable[bytes]) -> None:
        """Learns that messages are stored that came by pages; they are owed until a connection takes them."""
        self._ids += message_ids

    def take_ids(self) -> list[list[bytes]]:
        """Returns the messages to be named now, in as many parts as there are to be acknowledgements."""
        ids, self._ids = self._ids, []
        return [ids[start : start + MOST_IDS] for start in range(0, len(ids), MOST_IDS)]

    def overdue(self) -> int:
        """Returns the count whose acknowledgement was put off, to be sent now; zero when none was."""
        count, self._owed = self._owed, 0
        self._acknowledged = max(self._acknowledged, count)
        return count


def _has_time(item: item_pb2.Item) -> bool:
    event = item.WhichOneof("event")
    return event in _RECEIPTS or (event == "message" and bool(item.message.group_id))
