"""Decides which items of a user's log a session is sent, from pushes and from reads of the log.

The log is the truth and a push is a hint. A *pass* reads the log from the session's cursor to its end, page by page.
The first pass, and every pass after the session fell behind, holds pushes back until it is through, so that what the
log says comes in the log's order; a pass that only verifies lets them by. A session that falls behind (its window is
full, or its socket takes no more) drops what waits and reads its log on when there is room again.
"""

from __future__ import annotations

import enum
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from svc_edge.model import WANTS_RECEIPT, CaughtUp, identity_of
from svc_edge.protocol.account import Account

if TYPE_CHECKING:
    from svc_edge.model import InboxAnswer

PAGE_ITEMS = 100
MAX_FRAME_ITEMS = 100
MAX_FRAME_BYTES = 192 * 1024
MAX_HELD = 256
MAX_REMEMBERED = 16_384
MAX_KNOWN = 512
"""How many messages a read of the log says that the session has; the contract allows no more."""
EARLY_VERIFY_AT = 4_096
"""With so many items remembered, a session is verified before its turn, so that they may be forgotten."""

_ID_BYTES = 16
"""Of a message, which `identity_of` calls by its id alone."""

Delivered = tuple[bytes, bytes, int]
"""An item, its key and its flags."""


class Reading(enum.Enum):
    """What a session reads its log for."""

    NOTHING = 0
    VERIFY = 1
    CATCH_UP = 2


class Page(NamedTuple):
    """The next read of a pass."""

    number: int
    """Of the pass: the answer to a read of an abandoned pass is thrown away."""
    cursor: bytes
    after: bytes
    bound: bytes
    limit: int
    known: bytes
    """The ids of messages that the log need not look up, for the session has them."""


# Looking a member of an enum up costs ten times a comparison (CPython 3.11), and these are needed for every delivery.
_NOTHING = Reading.NOTHING
_VERIFY = Reading.VERIFY
_CATCH_UP = Reading.CATCH_UP


class Outgoing(NamedTuple):
    """What one Events frame carries, and whether the first pass ends with it."""

    items: list[bytes]
    cursor: bytes
    caught_up: CaughtUp | None


class Delivery:
    """The way of a log's items into one session."""

    __slots__ = (
        "_after",
        "_bound",
        "_complete_bound",
        "_cursor_out",
        "_ended_bound",
        "_held",
        "_is_again",
        "_is_caught_up",
        "_number",
        "_older_bound",
        "_page_cursor",
        "_queue",
        "_reserved",
        "_seen",
        "account",
        "is_behind",
        "is_paused",
        "is_read_pending",
        "newest",
        "page_items",
        "reading",
        "room",
        "window",
    )

    def __init__(self, cursor: bytes, window: int) -> None:
        self.account = Account(cursor)
        self.window = window
        self.room = window
        self.reading = _NOTHING
        self.is_paused = False
        self.is_behind = False
        self.newest = b""
        self.page_items = PAGE_ITEMS
        self._number = 0
        self._reserved = 0
        self._queue: list[Delivered] = []
        self._held: list[Delivered] = []
        self._seen: dict[bytes, bytes] = {}
        self._is_again = False
        self._is_caught_up = False
        self.is_read_pending = False
        self._after = self._bound = self._page_cursor = self._cursor_out = b""
        self._ended_bound = self._complete_bound = self._older_bound = b""

    @property
    def remembered(self) -> int:
        """How many items are remembered so that none is sent twice."""
        return len(self._seen)

    @property
    def has_output(self) -> bool:
        """Whether `take` would return something."""
        return bool(self._queue or self._cursor_out or self._ended_bound or self._page_cursor)

    def offer(self, item: bytes, key: bytes, flags: int) -> bool:
        """Takes a pushed item; returns False when the session drops it because it is behind."""
        position = key[:16]
        if position > self.newest:  # noqa: PLR1730 - max() costs twice as much, for every delivery
            self.newest = position
        if self.reading is _CATCH_UP:
            if len(self._held) < MAX_HELD:
                self._held.append((item, key, flags))
                return True
            self._is_again = True
            return False
        if self.is_behind:
            return False
        if self.room > 0 and not self.is_paused:
            self._enqueue(item, key, flags)
            return True
        self.is_behind = position > self._complete_bound and identity_of(item, key) not in self._seen
        return not self.is_behind

    def request_pass(self, kind: Reading) -> None:
        """Begins to read the log from the cursor; a pass that is under way is followed by another."""
        if self.reading is _NOTHING:
            self.reading, self._after, self._bound = kind, b"", b""
            self._number += 1
        else:
            self._is_again = True

    def next_page(self) -> Page | None:
        """Returns the read that is due now, if any; the answer goes to `take_page`, or none to `drop_page`.

        What it may bring is kept free, so that pushes that come before it leave room for it. It names the first
        messages that it may hold and the session has.
        """
        if self.is_read_pending or self.is_paused or self._page_cursor or self._ended_bound:
            return None
        if self.is_behind and self.reading is _NOTHING and self.room * 2 >= self.window:
            self.is_behind = False
            self.request_pass(_CATCH_UP)
        if self.reading is _NOTHING or self.room < min(self.page_items, (self.window + 1) // 2):
            return None
        self.is_read_pending = True
        place = (self._number, self.account.cursor, self._after, self._bound)
        limit = min(self.page_items, self.room)
        self.room -= limit
        self._reserved = limit
        after = max(self._after, self._complete_bound)
        known = (name for name, position in self._seen.items() if position > after and len(name) == _ID_BYTES)
        return Page(*place, limit, b"".join(islice(known, MAX_KNOWN)))

    def drop_page(self) -> None:
        """Learns that there is no answer to a read: the same page is due again."""
        self.is_read_pending = False
        self.room += self._reserved
        self._reserved = 0

    def take_page(self, page: Page, answer: InboxAnswer) -> int:
        """Takes what a read found; returns how many items a verification found that no push had brought."""
        self.drop_page()
        if page.number != self._number or self.reading is _NOTHING:
            return 0
        before = len(self._queue)
        for delivered in zip(answer.items, answer.keys, answer.flags, strict=True):
            self._enqueue(*delivered)
        found = len(self._queue) - before
        if answer.is_resync:
            self.account.cursor = b""
        if answer.keys:
            self._after = answer.keys[-1][:16]
            self.newest = max(self.newest, self._after)
        self._bound = self._bound or answer.bound
        self._page_cursor = answer.cursor
        if not answer.has_more:
            self._ended_bound = self._bound or b"\0"
        return found if self.reading is _VERIFY else 0

    def take(self) -> Outgoing:
        """Takes what goes into the next Events frame, counts it as sent, and promises what it completes."""
        items: list[bytes] = []
        keys: list[bytes] = []
        size = 0
        for item, key, flags in self._queue:
            size += len(item) + 4
            if items and (size > MAX_FRAME_BYTES or len(items) == MAX_FRAME_ITEMS):
                break
            items.append(item)
            keys.append(key if flags & WANTS_RECEIPT else b"")
        del self._queue[: len(items)]
        self.account.note_sent(keys)
        caught_up = None
        if not self._queue:
            caught_up = self._complete()
        if not caught_up:
            self.note_release()
        cursor, self._cursor_out = self._cursor_out, b""
        return Outgoing(items, cursor, caught_up)

    def acknowledge(self, count: int) -> None:
        """Takes an Ack by count; raises `SessionClosed`."""
        self.room += self.account.acknowledge(count)

    def confirm(self, ack_id: int) -> None:
        """Learns that the ledger has made the receipts of an acknowledgement durable."""
        self.account.confirm(ack_id)
        self.note_release()

    def note_release(self) -> None:
        """Looks whether a cursor may be released, after acknowledgements were settled or confirmed."""
        self._cursor_out = self.account.release() or self._cursor_out

    def pause(self) -> None:
        """Learns that the socket takes no more: drops what waits, for the log has it."""
        self.is_paused = self.is_behind = True
        for item, key, _ in self._queue:
            self._seen.pop(identity_of(item, key), None)
        self.room += len(self._queue)
        self._queue.clear()
        self._held.clear()
        self.reading = _NOTHING
        self._page_cursor = self._ended_bound = b""

    def _enqueue(self, item: bytes, key: bytes, flags: int) -> None:
        position = key[:16]
        if position <= self._complete_bound:
            return
        identity = identity_of(item, key)
        if identity in self._seen:
            return
        if len(self._seen) >= MAX_REMEMBERED:
            del self._seen[next(iter(self._seen))]
        self._seen[identity] = position
        self._queue.append((item, key, flags))
        self.room -= 1

    def _complete(self) -> CaughtUp | None:
        """Promises the cursor of a page whose items are all sent, and ends the pass with its last page."""
        if self._page_cursor:
            self.account.promise(self._page_cursor)
            self._page_cursor = b""
        if not self._ended_bound:
            return None
        self._older_bound, self._complete_bound = self._complete_bound, max(self._complete_bound, self._ended_bound)
        self._ended_bound = b""
        self.page_items = PAGE_ITEMS
        self._seen = {name: position for name, position in self._seen.items() if position > self._older_bound}
        held, self._held = self._held, []
        self.reading = _NOTHING
        if self._is_again:
            self._is_again = False
            self.request_pass(_CATCH_UP if not self._is_caught_up or len(held) == MAX_HELD else _VERIFY)
        for delivered in held:
            self.offer(*delivered)
        if self._is_caught_up:
            return None
        self._is_caught_up = True
        self.account.release()
        return CaughtUp(self.account.cursor)
