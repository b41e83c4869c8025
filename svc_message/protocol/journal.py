"""The pure rules of the journal: which of a shard's entries are done, and where those who adopt it read from."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svc_message.model import NO_POSITION, Position
from svc_message.protocol import HORIZON_S, milliseconds_of, position_at

if TYPE_CHECKING:
    from collections.abc import Iterable

CHECKPOINT_INTERVAL_S = 1.0
SILENCE_S = 10.0
"""A shard that was not checkpointed for so long, and was not ended, is adopted."""


class LowWater:
    """The low-water mark of a shard: everything before it is done.

    An entry is begun before it is written, so that none can be passed that is on its way. What failed stays begun.
    """

    def __init__(self) -> None:
        self._begun: dict[Position, None] = {}
        self._mark = NO_POSITION

    @property
    def begun(self) -> int:
        """How many entries are not done."""
        return len(self._begun)

    def begin(self, positions: Iterable[Position]) -> None:
        """Holds the mark before entries that are about to be written."""
        self._begun.update(dict.fromkeys(positions))

    def done(self, positions: Iterable[Position]) -> None:
        """Lets the mark pass entries that are done, or that were never promised to anybody."""
        for position in positions:
            self._begun.pop(position, None)

    def mark(self, bound: Position) -> Position:
        """Returns the mark, which never passes the bound (now minus H) and never goes back."""
        self._mark = max(self._mark, min(bound, min(self._begun, default=bound)))
        return self._mark


def adopted_from(mark: Position) -> Position:
    """Returns the place from which a shard with a mark is read: H before it. What lies before is never read again."""
    return position_at(milliseconds_of(mark) - int(HORIZON_S * 1000))
