"""Reads the files of spans that a development system writes into its data folder."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

_PREFIX = "chappe."


class Hop(NamedTuple):
    """One span of a message."""

    name: str
    """Like edge.send."""
    peer: str
    """Which process made it, like edge-0."""
    trace: str
    start_ns: int
    end_ns: int
    said: dict[str, Any]
    """Its attributes, without their prefix."""

    @property
    def took_ms(self) -> float:
        """How long it took."""
        return (self.end_ns - self.start_ns) / 1e6


class Sink:
    """The files of one data folder; read anew at every question."""

    def __init__(self, folder: Path) -> None:
        """Prepares.

        Args:
            folder: Where the files lie, `traces` in the data folder.
        """
        self.folder = folder

    @property
    def files(self) -> list[Path]:
        """The files that there are, with those that were rotated."""
        return sorted(self.folder.glob("*.jsonl*"))

    def hops(self, message_id: str) -> list[Hop]:
        """Returns the spans of a message, 32 hexadecimal digits, in the order of their ends."""
        found = [_hop(line) for path in self.files for line in _lines(path) if message_id in line]
        hops = [hop for hop in found if hop is not None and hop.said.get("message_id") == message_id]
        return sorted(hops, key=lambda hop: hop.end_ns)

    def oldest_ns(self) -> int:
        """Returns when the oldest span of the process began whose file reaches back the least; 0 without any.

        Before that moment a message may have had spans that are gone.
        """
        starts: dict[str, int] = {}
        for path in self.files:
            first = _hop(next(_lines(path), ""))
            if first is not None:
                starts[first.peer] = min(first.start_ns, starts.get(first.peer, first.start_ns))
        return max(starts.values(), default=0)


def _lines(path: Path) -> Iterator[str]:
    with path.open(encoding="utf-8", errors="replace") as file:
        yield from file


def _hop(line: str) -> Hop | None:
    """Reads a line; None for one that a process had no time to finish."""
    try:
        span = json.loads(line)
        said = {name.removeprefix(_PREFIX): value for name, value in span["attributes"].items()}
        return Hop(span["name"], span["peer"], span["trace"], span["start_ns"], span["end_ns"], said)
    except (ValueError, LookupError, AttributeError, TypeError):
        return None
