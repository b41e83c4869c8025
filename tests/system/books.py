"""What a crowd expects: who must have which message, and how far each one's ticks must come."""

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

DELIVERED = 2
READ = 3


class Due(NamedTuple):
    """What an acknowledged message owes."""

    peers: frozenset[str]
    """The recipient's devices, which must apply it."""
    others: frozenset[str]
    """The sender's other devices, which must apply it too."""
    own: frozenset[str]
    """All devices of the sender, which must show its ticks."""
    group: bytes = b""
    """The group to which it was sent."""
    sent_s: float = 0.0
    """When, on the monotonic clock; known for groups."""


class Change(NamedTuple):
    """What an acknowledged edit, revoke or reaction owes."""

    kind: str
    target: bytes
    """The message."""
    by: bytes
    """Whose reaction it is; empty for what the message says."""
    due: Due


class Tally(NamedTuple):
    """How many recipients of a message to a group have it, and have read it."""

    delivered: int = 0
    read: int = 0


class Gap(NamedTuple):
    """What an acknowledged message still owes."""

    message_id: bytes
    missing: frozenset[str]
    """The devices that have not got it."""
    low: frozenset[str]
    """Those that do not show how far it came."""
    level: Tally | int
    """How far."""

    def __str__(self) -> str:
        return f"{self.message_id.hex()}: not at {sorted(self.missing)}, below {self.level} at {sorted(self.low)}"


class Books:
    """Follows all devices of a crowd; tells when nothing is outstanding, and what is."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.steps = 0
        """Whatever came of something: as long as this grows, all is not quiet yet."""
        self.refusals: Counter[str] = Counter()
        """Final refusals by reason."""
        self._open: dict[bytes, Due] = {}
        self._wanting: list[bytes] = []
        """Of what was missing something when it was looked at last."""
        self._applied: dict[bytes, set[str]] = {}
        self._ticks: dict[bytes, dict[str, int]] = {}
        self._released: dict[tuple[bytes, str], float] = {}
        self._tallies: dict[bytes, dict[str, Tally]] = {}
        self._read: dict[bytes, set[str]] = {}
        self._taken_back: set[bytes] = set()
        self._standing: dict[tuple[str, bytes, bytes], bytes] = {}
        """By what is changed, the greatest id of those that change it: the others need not arrive any more."""

    def stored(self, message_id: bytes, due: Due) -> None:
        """Takes note that a message was acknowledged."""
        self.steps += 1
        self.acknowledged += 1
        self._open[message_id] = due

    def changed(self, action_id: bytes, change: Change) -> None:
        """Takes note that a change of a message was acknowledged."""
        self.steps += 1
        kind, target, by, due = change
        if kind == "revoke":
            self._taken_back.add(target)
            for place in [place for place in self._standing if place[1] == target]:
                self._open.pop(self._standing.pop(place), None)
        elif target in self._taken_back or self._standing.get((kind, target, by), b"") > action_id:
            return
        else:
            self._open.pop(self._standing.get((kind, target, by), b""), None)
            self._standing[kind, target, by] = action_id
        self._open[action_id] = due

    def has(self, message_id: bytes, actor: str) -> bool:
        """Returns whether a device has a message."""
        return actor in self._applied.get(message_id, ())

    def applied(self, message_id: bytes, actor: str) -> None:
        """Takes note that a device has a message."""
        self.steps += 1
        self._applied.setdefault(message_id, set()).add(actor)

    def ticked(self, message_id: bytes, actor: str, state: int) -> None:
        """Takes note that a device shows a state."""
        self.steps += 1
        self._ticks.setdefault(message_id, {})[actor] = state

    def counted(self, message_id: bytes, actor: str, tally: Tally) -> None:
        """Takes note that a device shows how many have a message."""
        self.steps += 1
        self._tallies.setdefault(message_id, {})[actor] = tally

    def read(self, message_ids: list[bytes], actor: str) -> None:
        """Takes note that the server has taken a read: its ticks must show."""
        self.steps += 1
        for message_id in message_ids:
            self._read.setdefault(message_id, set()).add(actor)

    def release(self, group: bytes, actors: Iterable[str]) -> None:
        """Expects of devices nothing that others sent to a group before: their users are being removed."""
        self._released.update(dict.fromkeys(((group, actor) for actor in actors), time.monotonic()))

    def is_settled(self, absent: frozenset[str]) -> bool:
        """Returns whether all that was acknowledged has arrived everywhere but at these devices, with its ticks."""
        return not self._are_wanting(absent, lambda gap: bool(gap.missing or gap.low))

    def has_arrived(self, absent: frozenset[str]) -> bool:
        """Returns whether all that was acknowledged has arrived everywhere but at these devices."""
        return not self._are_wanting(absent, lambda gap: bool(gap.missing))

    def outstanding(self, absent: frozenset[str]) -> str:
        """Says for people what is missing."""
        gaps = list(self._gaps(absent, self._open))
        return "\n".join([f"{len(gaps)} messages are not settled", *map(str, gaps[:10])])

    def _are_wanting(self, absent: frozenset[str], counts: Callable[[Gap], bool]) -> bool:
        """Looks at what was wanting last time, and at everything only once nothing of that is wanting any more.

        Of a hundred thousand messages it takes seconds, in which no line of the wiring passes anything on.
        """
        for message_ids in (self._wanting, self._open):
            self._wanting = [gap.message_id for gap in self._gaps(absent, message_ids) if counts(gap)]
            if self._wanting:
                return True
        return False

    def _gaps(self, absent: frozenset[str], message_ids: Iterable[bytes]) -> Iterator[Gap]:
        for message_id, due in [(one, self._open[one]) for one in message_ids if one in self._open]:
            has, ticks = self._applied.get(message_id, set()), self._ticks.get(message_id, {})
            missing = due.others - has - absent
            missing |= {actor for actor in due.peers - has - absent if self._is_due(due, actor)}
            level: Tally | int
            if due.group:
                level, low = self._low_tallies(message_id, due, absent)
            else:
                level = READ if message_id in self._read else DELIVERED if due.peers - absent else 0
                low = {actor for actor in due.own - absent if ticks.get(actor, 0) < level}
            if missing or low:
                yield Gap(message_id, frozenset(missing), frozenset(low), level)

    def _is_due(self, due: Due, actor: str) -> bool:
        return not due.group or self._released.get((due.group, actor), 0.0) <= due.sent_s

    def _low_tallies(self, message_id: bytes, due: Due, absent: frozenset[str]) -> tuple[Tally, set[str]]:
        sender = users_of(due.own)
        has = users_of(self._applied.get(message_id, set()) - absent) - sender
        read = users_of(self._read.get(message_id, set())) - sender
        level = Tally(len(has | read), len(read))
        tallies = self._tallies.get(message_id, {})
        shown = {actor: tallies.get(actor, Tally()) for actor in due.own - absent}
        return level, {actor for actor, tally in shown.items() if tally.delivered < level[0] or tally.read < level[1]}


def users_of(actors: Iterable[str]) -> set[str]:
    """Returns whose devices these are."""
    return {actor.partition("/")[0] for actor in actors}
