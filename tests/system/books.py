"""What a crowd expects: who must have which message, and how far each one's ticks must come."""

from collections import Counter
from collections.abc import Iterator
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


class Books:
    """Follows all devices of a crowd; tells when nothing is outstanding, and what is."""

    def __init__(self) -> None:
        self.acknowledged = 0
        self.refusals: Counter[str] = Counter()
        """Final refusals by reason."""
        self._open: dict[bytes, Due] = {}
        self._applied: dict[bytes, set[str]] = {}
        self._ticks: dict[bytes, dict[str, int]] = {}
        self._read: set[bytes] = set()

    def stored(self, message_id: bytes, due: Due) -> None:
        """Takes note that a message was acknowledged."""
        self.acknowledged += 1
        self._open[message_id] = due

    def applied(self, message_id: bytes, actor: str) -> None:
        """Takes note that a device has a message."""
        self._applied.setdefault(message_id, set()).add(actor)

    def ticked(self, message_id: bytes, actor: str, state: int) -> None:
        """Takes note that a device shows a state."""
        self._ticks.setdefault(message_id, {})[actor] = state

    def read(self, message_ids: list[bytes]) -> None:
        """Takes note that the server has taken a read: its ticks must show."""
        self._read.update(message_ids)

    def is_settled(self, absent: frozenset[str]) -> bool:
        """Returns whether all that was acknowledged has arrived everywhere but at these devices, with its ticks."""
        return next(self._gaps(absent), None) is None

    def outstanding(self, absent: frozenset[str]) -> str:
        """Says for people what is missing."""
        gaps = list(self._gaps(absent))
        return "\n".join([f"{len(gaps)} messages are not settled", *gaps[:10]])

    def _gaps(self, absent: frozenset[str]) -> Iterator[str]:
        for message_id, due in list(self._open.items()):
            has, ticks = self._applied.get(message_id, set()), self._ticks.get(message_id, {})
            missing = (due.peers | due.others) - has - absent
            level = READ if message_id in self._read else DELIVERED if due.peers - absent else 0
            low = {actor for actor in due.own - absent if ticks.get(actor, 0) < level}
            if missing or low:
                yield f"{message_id.hex()}: not at {sorted(missing)}, below {level} at {sorted(low)}"
