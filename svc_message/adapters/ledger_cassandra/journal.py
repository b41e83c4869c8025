"""Keeps the journal: in each shard one partition for every ten minutes in which something was accepted.

Nothing is deleted while a shard is in use. Who reads begins H before the mark, and entries end by themselves.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple

from svc_message.adapters.ledger_cassandra.bounds import Bounds
from svc_message.adapters.ledger_cassandra.cells import bigint, integer, ordered, stamp_of_position
from svc_message.adapters.ledger_cassandra.connection import Connection, Read, Write
from svc_message.adapters.ledger_cassandra.entries import COLUMNS, EntryRow, decode
from svc_message.adapters.ledger_cassandra.shards import (
    RING,
    Shards,
    begin,
    begin_orphan,
    begin_slot,
    key_of,
    partition_of,
    slot_number,
)
from svc_message.model import NO_POSITION, Position
from svc_message.model.group import Entry, Orphan, Shard, Undecodable
from svc_message.protocol.journal import adopted_from

_RAISE: Final = "UPDATE journal_shards USING TIMESTAMP ? SET mark = ? WHERE ring = ? AND shard = ?"
_ALL: Final = """
    SELECT shard, uuid_as_blob(mark), checkpointed_ms, to_unix_timestamp(now()) FROM journal_shards WHERE ring = ?
"""
_ONE: Final = """
    SELECT uuid_as_blob(mark), writetime(checkpointed_ms), to_unix_timestamp(now()) - checkpointed_ms
    FROM journal_shards WHERE ring = ? AND shard = ?
"""
_SLOTS: Final = "SELECT slot FROM journal_slots WHERE shard = ? AND slot >= ?"
_AFTER: Final = f"SELECT {COLUMNS} FROM journal WHERE shard = ? AND slot = ? AND pos > ? LIMIT ?"  # noqa: S608 - constants
_AT: Final = f"SELECT {COLUMNS} FROM journal WHERE shard = ? AND slot = ? AND pos = ?"  # noqa: S608 - constants
_FORGET: Final = "DELETE FROM journal WHERE shard = ? AND slot = ? AND pos = ?"
_PARK: Final = """
    INSERT INTO journal_parked (
        ring, shard, pos, conversation_id, message_id, sender_id, members_version, kind, why)
    VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
"""
_PARKED: Final = f"SELECT {COLUMNS}, shard FROM journal_parked WHERE ring = ?"  # noqa: S608 - constants
_UNPARK: Final = "DELETE FROM journal_parked WHERE ring = ? AND shard = ? AND pos = ?"
_END: Final = "DELETE FROM journal_shards USING TIMESTAMP ? WHERE ring = ? AND shard = ?"


class _State(NamedTuple):
    """What stands of a shard that was begun."""

    mark: Position
    written_us: int
    """The write timestamp of its newest beginning."""
    silent_ms: int
    """How long ago that was."""


class CassandraJournal:
    """The port `Journal` on Cassandra."""

    def __init__(self, connection: Connection, bounds: Bounds, shards: Shards) -> None:
        """Prepares; nothing is dialled.

        Args:
            connection: To the cluster.
            bounds: What lies too far ahead is refused.
            shards: What this process has begun; its `GroupStore` has the same.
        """
        self._connection = connection
        self._shards = shards
        self._bounds = bounds

    async def checkpoint(self, shard: Shard, mark: Position) -> None:
        """Begins a shard, or says that its process lives."""
        self._bounds.check(mark)
        start_s = self._shards.now_s()
        await self._connection.write([[begin(shard), _raise(shard, mark)]])
        self._shards.checkpointed(shard, start_s)

    async def adopt(self, silence_s: float) -> list[Orphan]:
        """Returns the shards that were not checkpointed for so long."""
        (rows,) = await self._connection.read([Read(_ALL, (RING,))])
        return [
            Orphan(Shard(shard % 2**64), mark or NO_POSITION)
            for shard, mark, checkpointed_ms, now_ms in rows
            if checkpointed_ms is not None and checkpointed_ms <= now_ms - silence_s * 1000
        ]

    async def read(self, shard: Shard, after: Position, limit: int) -> list[Entry | Undecodable]:
        """Reads on in a shard, slot by slot; of what has disappeared nobody is told any more."""
        state = await self._state(shard)
        if state is None:
            return []
        start, found = max(ordered(after), _before(adopted_from(state.mark))), list[Entry | Undecodable]()
        (slots,) = await self._connection.read([Read(_SLOTS, partition_of(shard, start))])
        for (slot,) in slots:
            place, is_more = start, True
            while is_more and len(found) < limit:
                wanted = limit - len(found)
                values = (key_of(shard), integer(slot), place, integer(wanted))
                (raw,) = await self._connection.read([Read(_AFTER, values)])
                rows = [EntryRow(*row) for row in raw]
                found += await decode(self._connection, rows, self._bounds.now_ms())
                is_more = len(rows) == wanted
                place = rows[-1].position if rows else place
        return found

    async def advance(self, shard: Shard, mark: Position) -> None:
        """Raises the mark of an orphan."""
        self._bounds.check(mark)
        if await self._state(shard) is not None:
            await self._connection.write([[_raise(shard, mark)]])

    async def park(self, shard: Shard, entries: Sequence[Undecodable]) -> None:
        """Moves entries to where replay finds them: they are there before they are gone here."""
        places = [partition_of(shard, entry.position) for entry in entries]
        found = await self._connection.read(
            [Read(_AT, (*place, entry.position)) for place, entry in zip(places, entries, strict=True)]
        )
        why = {entry.position: entry.why for entry in entries}
        rows = [EntryRow(*row) for raw in found for row in raw]
        await self._connection.write(
            [[Write(_PARK, (RING,), (RING, key_of(shard), *row.cells(), why[row.position].encode()))] for row in rows]
        )
        await self._connection.write([[_forget(shard, row.position)] for row in rows])

    async def replay(self, shard: Shard) -> int:
        """Moves everything that was parked into a new shard without an owner."""
        (raw,) = await self._connection.read([Read(_PARKED, (RING,))])
        if not raw:
            return 0
        rows = [EntryRow(*row[:-1]) for row in raw]
        slots = sorted({slot_number(row.position) for row in rows})
        await self._connection.write([[begin_slot(shard, slot)] for slot in slots])
        await self._connection.write([[row.store(shard)] for row in rows])
        # Only now: whoever adopts a shard ends it when it finds nothing there.
        await self._connection.write([[begin_orphan(shard)]])
        await self._connection.write([[Write(_UNPARK, (RING,), (RING, bigint(row[-1]), row[0]))] for row in raw])
        return len(rows)

    async def end(self, shard: Shard, last: Position, silence_s: float = 0.0) -> bool:
        """Ends a shard unless something was written after a position, or its process has spoken of late.

        What this process is about to write into it begins it anew.
        """
        self._shards.forget(shard)
        state = await self._state(shard)
        if state is None:
            return True
        if state.silent_ms < silence_s * 1000 or await self.read(shard, last, 1):
            return False
        await self._connection.write([[Write(_END, (RING,), (bigint(state.written_us), RING, key_of(shard)))]])
        return await self._state(shard) is None

    async def _state(self, shard: Shard) -> _State | None:
        (rows,) = await self._connection.read([Read(_ONE, (RING, key_of(shard)))])
        # A mark may be left of what was ended.
        if not rows or rows[0][1] is None:
            return None
        mark, written_us, silent_ms = rows[0]
        return _State(mark or NO_POSITION, written_us, silent_ms)


def _raise(shard: Shard, mark: Position) -> Write:
    """Returns what raises the mark of a shard: the greatest stands."""
    return Write(_RAISE, (RING,), (stamp_of_position(mark), mark, RING, key_of(shard)))


def _forget(shard: Shard, position: Position) -> Write:
    partition = partition_of(shard, position)
    return Write(_FORGET, partition, (*partition, position))


def _before(position: Position) -> bytes:
    """Returns the bytes before a position, so that what lies after them includes it."""
    return (int.from_bytes(position, "big") - 1).to_bytes(16, "big")
