"""Keeps the journal in memory, for tests and simulations."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from chappe.runtime.clock import Clock
from svc_message.model import NO_POSITION, Position
from svc_message.model.group import Entry, Orphan, Shard, Undecodable
from svc_message.protocol.journal import adopted_from


class _State(NamedTuple):
    """What is known of a shard."""

    mark: Position
    checkpointed_s: float


class MemoryJournal:
    """The port `Journal` in memory."""

    def __init__(self, clock: Clock) -> None:
        """Makes an empty journal.

        Args:
            clock: The store's own clock.
        """
        self._clock = clock
        self._shards: dict[Shard, _State] = {}
        self._entries: defaultdict[Shard, dict[Position, Entry]] = defaultdict(dict)
        self._parked: dict[Position, Entry] = {}
        self.unreadable: set[Position] = set()
        """The entries that this program cannot read."""

    def write(self, shard: Shard, entry: Entry) -> None:
        """Adds an entry; the store does so with the message."""
        self._shards.setdefault(shard, _State(NO_POSITION, self._clock.monotonic_s()))
        self._entries[shard][entry.position] = entry

    async def checkpoint(self, shard: Shard, mark: Position) -> None:
        """Begins a shard, or says that its process lives; forgets what lies H before the mark."""
        self._raise(shard, mark, self._clock.monotonic_s())
        kept = {place: entry for place, entry in self._entries[shard].items() if place >= adopted_from(mark)}
        self._entries[shard] = kept

    async def adopt(self, silence_s: float) -> list[Orphan]:
        """Returns the shards that were not checkpointed for so long."""
        latest_s = self._clock.monotonic_s() - silence_s
        return [Orphan(shard, state.mark) for shard, state in self._shards.items() if state.checkpointed_s < latest_s]

    async def read(self, shard: Shard, after: Position, limit: int) -> list[Entry | Undecodable]:
        """Reads on in a shard."""
        rest = sorted(place for place in self._entries[shard] if place > after)
        return [self._decode(self._entries[shard][place]) for place in rest[:limit]]

    async def advance(self, shard: Shard, mark: Position) -> None:
        """Raises the mark of an orphan."""
        if shard in self._shards:
            self._raise(shard, mark, self._shards[shard].checkpointed_s)

    async def park(self, shard: Shard, entries: Sequence[Undecodable]) -> None:
        """Moves entries to where replay finds them."""
        for entry in entries:
            found = self._entries[shard].pop(entry.position, None)
            if found is not None:
                self._parked[entry.position] = found

    async def replay(self, shard: Shard) -> int:
        """Moves everything that was parked into a new shard without an owner."""
        parked, self._parked = self._parked, {}
        if parked:
            self._shards[shard] = _State(NO_POSITION, float("-inf"))
            self._entries[shard].update(parked)
        return len(parked)

    async def end(self, shard: Shard, last: Position, silence_s: float = 0.0) -> bool:
        """Ends a shard unless something was written after a position, or its process has spoken of late."""
        state = self._shards.get(shard)
        is_alive = state is not None and state.checkpointed_s > self._clock.monotonic_s() - silence_s
        if is_alive or any(place > last for place in self._entries[shard]):
            return False
        self._shards.pop(shard, None)
        del self._entries[shard]
        return True

    def _raise(self, shard: Shard, mark: Position, checkpointed_s: float) -> None:
        state = self._shards.get(shard, _State(NO_POSITION, 0.0))
        self._shards[shard] = _State(max(state.mark, mark), checkpointed_s)

    def _decode(self, entry: Entry) -> Entry | Undecodable:
        if entry.position in self.unreadable:
            return Undecodable(entry.position, "not one that this program knows")
        return entry
