"""Counts what a device was sent, what it has acknowledged, and which cursor it may therefore keep."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from svc_edge.errors import CloseCode, SessionClosed

if TYPE_CHECKING:
    from collections.abc import Iterable


class Settlement(NamedTuple):
    """Acknowledgements for the ledger: joined keys, and the count of the first item among them."""

    keys: bytes
    first: int


class Account:
    """The books of one session. Items are counted from 1 in the order in which they were handed to the socket.

    A cursor is promised when every item before it was handed to the socket, and it is released, to the client and to
    the next read of the log, only when the device has acknowledged all of them and the ledger has confirmed the
    receipts of those that ask for one.
    """

    __slots__ = ("_promised", "_settled", "_unconfirmed", "_unsettled", "acked", "cursor", "sent")

    def __init__(self, cursor: bytes) -> None:
        self.cursor = cursor
        self.sent = 0
        self.acked = 0
        self._settled = 0
        self._unsettled: list[bytes] = []
        self._promised: list[tuple[int, bytes]] = []
        self._unconfirmed: dict[int, int] = {}

    def note_sent(self, receipt_keys: Iterable[bytes]) -> None:
        """Counts items that were handed to the socket; the key is empty where no receipt is asked for."""
        before = len(self._unsettled)
        self._unsettled.extend(receipt_keys)
        self.sent += len(self._unsettled) - before

    def acknowledge(self, count: int) -> int:
        """Takes an Ack by count and returns how many items it newly acknowledges; raises `SessionClosed`."""
        if count > self.sent:
            detail = f"ack.count is {count}, and only {self.sent} items of Events were sent since Welcome"
            raise SessionClosed(CloseCode.MALFORMED, detail)
        fresh = max(count - self.acked, 0)
        self.acked += fresh
        return fresh

    @property
    def is_settled(self) -> bool:
        """Whether everything that was acknowledged by count has been settled."""
        return self.acked == self._settled

    def settle(self) -> Settlement | None:
        """Takes the keys that were acknowledged since the last call; None when no receipt is asked for."""
        count = self.acked - self._settled
        if not count:
            return None
        keys = [key for key in self._unsettled[:count] if key]
        del self._unsettled[:count]
        first, self._settled = self._settled + 1, self.acked
        return Settlement(b"".join(keys), first) if keys else None

    def settle_ids(self, message_ids: Iterable[bytes]) -> Settlement | None:
        """Takes the keys of named messages that were sent and not acknowledged yet; others are ignored."""
        wanted = set(message_ids)
        found = [i for i, key in enumerate(self._unsettled) if key[16:32] in wanted and key]
        if not found:
            return None
        settlement = Settlement(b"".join(self._unsettled[i] for i in found), self._settled + found[0] + 1)
        for i in found:
            self._unsettled[i] = b""
        return settlement

    def await_confirmation(self, ack_id: int, settlement: Settlement) -> None:
        """Remembers that the ledger was told; cursors behind its items wait for `confirm`."""
        self._unconfirmed[ack_id] = settlement.first

    def confirm(self, ack_id: int) -> None:
        """Learns that the receipts of an acknowledgement are durable."""
        self._unconfirmed.pop(ack_id, None)

    def promise(self, cursor: bytes) -> None:
        """Promises a cursor for when everything that was sent so far is acknowledged and confirmed."""
        last = self._promised[-1][1] if self._promised else self.cursor
        if cursor and cursor != last:
            self._promised.append((self.sent, cursor))

    def release(self) -> bytes:
        """Returns the newest cursor that may be kept now, and keeps it; empty when there is no new one."""
        if not self._promised:
            return b""
        safe = min(self._settled, min(self._unconfirmed.values(), default=self.sent + 1) - 1)
        released = 0
        for count, _ in self._promised:
            if count > safe:
                break
            released += 1
        if not released:
            return b""
        self.cursor = self._promised[released - 1][1]
        del self._promised[:released]
        return self.cursor
