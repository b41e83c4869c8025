"""Begins shards of the journal, and remembers which were begun.

A shard that was silent is ended once everything that could be read in it is done. Nothing that was promised may be
written into it after that: a process that did not say for 5 s that it lives begins its shard before it writes, and its
writes are promised within 4 s or not at all. That is less than the 10 s of silence after which others look.
"""

from collections.abc import Iterable, Sequence
from typing import Final

from chappe.runtime.clock import Clock, SystemClock
from svc_message.adapters.ledger_cassandra.cells import bigint, integer
from svc_message.adapters.ledger_cassandra.connection import Unit, Write
from svc_message.model import Position
from svc_message.model.group import Shard

RING: Final = b"\x00"
"""All shards stand in one partition."""
BEGUN_S: Final = 5.0
"""For how long a shard that was begun may be written into."""
_SLOT_MS: Final = 600_000

_BEGIN: Final = """
    INSERT INTO journal_shards (ring, shard, checkpointed_ms) VALUES (?, ?, to_unix_timestamp(now()))
"""
_BEGIN_ORPHAN: Final = "INSERT INTO journal_shards (ring, shard, checkpointed_ms) VALUES (?, ?, ?)"
_BEGIN_SLOT: Final = "INSERT INTO journal_slots (shard, slot) VALUES (?, ?)"


class Shards:
    """Remembers which shards this process has begun, when, and which of their slots."""

    def __init__(self, clock: Clock | None = None) -> None:
        """Knows of none.

        Args:
            clock: By which what was begun grows old.
        """
        self._clock = clock or SystemClock()
        self._begun_s: dict[Shard, float] = {}
        self._slots: dict[Shard, int] = {}

    def now_s(self) -> float:
        """Returns the time, to be taken before a shard is begun."""
        return self._clock.monotonic_s()

    def due(self, shard: Shard, positions: Sequence[Position]) -> list[list[Write]]:
        """Returns what is to be written before entries are written at positions; nothing when that was done."""
        units = [] if self._is_begun(shard) else [[begin(shard)]]
        latest = self._slots.get(shard, -1)
        slots = sorted({slot_number(position) for position in positions})
        return [*units, *[[begin_slot(shard, slot)] for slot in slots if slot != latest]]

    def begun(self, shard: Shard, units: Sequence[Unit], start_s: float, positions: Iterable[Position]) -> None:
        """Remembers what of what was due was written since a time: the beginning, if it was among it, and the slots."""
        if any(write.query == _BEGIN for unit in units for write in unit):
            self._begun_s[shard] = start_s
        latest = max((slot_number(position) for position in positions), default=-1)
        self._slots[shard] = max(self._slots.get(shard, -1), latest)

    def checkpointed(self, shard: Shard, start_s: float) -> None:
        """Remembers that a shard was begun again."""
        self._begun_s[shard] = start_s

    def forget(self, shard: Shard) -> None:
        """Lets the next entry begin the shard anew."""
        self._begun_s.pop(shard, None)

    def _is_begun(self, shard: Shard) -> bool:
        begun_s = self._begun_s.get(shard)
        return begun_s is not None and self.now_s() - begun_s < BEGUN_S


def begin(shard: Shard) -> Write:
    """Returns what begins a shard, or says that its process lives; the store's clock says when."""
    return Write(_BEGIN, (RING,), (RING, key_of(shard)))


def begin_orphan(shard: Shard) -> Write:
    """Returns what begins a shard that nobody takes care of."""
    return Write(_BEGIN_ORPHAN, (RING,), (RING, key_of(shard), bigint(0)))


def begin_slot(shard: Shard, slot: int) -> Write:
    """Returns what says that a slot of a shard holds entries."""
    return Write(_BEGIN_SLOT, (key_of(shard),), (key_of(shard), integer(slot)))


def key_of(shard: Shard) -> bytes:
    """Writes the number of a shard."""
    return shard.to_bytes(8, "big")


def slot_number(position: bytes) -> int:
    """Returns the ten minutes of a place in a shard."""
    return int.from_bytes(position[:6], "big") // _SLOT_MS


def partition_of(shard: Shard, position: bytes) -> tuple[bytes, bytes]:
    """Returns the partition of a place in a shard."""
    return key_of(shard), integer(slot_number(position))
