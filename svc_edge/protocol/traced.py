"""Follows the drawn messages of one session: from the push to the socket, and from there to the device's receipt."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, NamedTuple

from svc_edge.model import KEY_BYTES, WANTS_RECEIPT

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chappe.runtime.tracing import Sampled

MOST_WAITING: Final = 64
"""So many drawn messages of one session are followed at each step; beyond that the oldest are forgotten."""

_POSITION: Final = slice(2, 18)
"""Where the position stands in a serialised Item."""


class Handed(NamedTuple):
    """An item on its way to the socket, with the drawn messages that it is or tells of."""

    drawn: tuple[Sampled, ...]
    flags: int
    is_own: bool
    """The session is of the user whose doing the item is: nobody has to be told that its device has it."""

    @property
    def owes_receipt(self) -> bool:
        """Whether the device's acknowledgement is a receipt."""
        return bool(self.flags & WANTS_RECEIPT) and not self.is_own


class Traced:
    """The drawn messages that a session has in hand; a session without any has no `Traced` either.

    What is never written or acknowledged, because the log had brought it before, is forgotten when newer ones come.
    """

    __slots__ = ("_acks", "_writes")

    def __init__(self) -> None:
        self._writes: dict[bytes, Handed] = {}
        self._acks: dict[bytes, Sampled] = {}

    @property
    def is_empty(self) -> bool:
        """Whether nothing is followed any more."""
        return not self._writes and not self._acks

    def hand(self, item: bytes, handed: Handed) -> None:
        """Takes a pushed item."""
        _make_room(self._writes)
        self._writes[item[_POSITION]] = handed

    def written(self, items: Sequence[bytes], now_ns: int) -> list[tuple[bytes, Handed]]:
        """Learns which items go to the socket; returns those that carry drawn messages.

        From `now_ns` on a device that owes a receipt for them is waited for.
        """
        if not self._writes:
            return []
        found: list[tuple[bytes, Handed]] = []
        for item in items:
            handed = self._writes.pop(item[_POSITION], None)
            if handed is None:
                continue
            found.append((item, handed))
            for sampled in handed.drawn if handed.owes_receipt else ():
                _make_room(self._acks)
                self._acks[sampled.message_id] = sampled._replace(since_ns=now_ns)
        return found

    def acknowledged(self, keys: bytes) -> list[Sampled]:
        """Learns which items the device has stored, by their joined keys; returns the drawn messages among them."""
        if not self._acks:
            return []
        ids = [keys[start + 16 : start + 32] for start in range(0, len(keys), KEY_BYTES)]
        return [self._acks.pop(message_id) for message_id in ids if message_id in self._acks]


def _make_room(waiting: dict[bytes, Handed] | dict[bytes, Sampled]) -> None:
    if len(waiting) >= MOST_WAITING:
        del waiting[next(iter(waiting))]
