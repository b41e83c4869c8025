"""The hook by which a client writes down what it does, for the history checker; `HistoryWriter` fits."""

from collections.abc import Iterable
from typing import Any, NamedTuple, Protocol

KINDS = ("message", "edit", "revoke", "reaction", "read", "hide")


class RecordedAction(NamedTuple):
    """What a device sends, as a history names it."""

    id: bytes
    conv: bytes
    to: bytes
    kind: str = "message"
    draft: str = ""
    target: bytes = b""
    version: int = 0


class RecordedEvent(NamedTuple):
    """What a device applied, as a history names it."""

    id: bytes
    conv: bytes
    sender: bytes
    pos: bytes
    ms: int
    kind: str
    target: bytes = b""


class Recorder(Protocol):
    """Writes the history of one device. Its types are loose so that it needs no import from here."""

    def send(self, action: Any, attempt: int = 1) -> None:
        """Says that an action is handed to the edge."""
        ...

    def stored(self, id_: bytes, accepted_ms: int, *, is_duplicate: bool = False) -> None:
        """Says that a SendAck has come."""
        ...

    def refused(self, id_: bytes, reason: str, *, is_final: bool) -> None:
        """Says that a SendNack has come."""
        ...

    def apply(self, event: Any, how: Any) -> None:
        """Says that the application was given an event."""
        ...

    def ack(self, ids: Iterable[bytes]) -> None:
        """Says that events are on the device's disk."""
        ...

    def read_upto(self, conv: bytes, upto: bytes) -> None:
        """Says that the user has read a conversation up to this id."""
        ...

    def tick(self, id_: bytes, state: Any, by: bytes) -> None:
        """Says that a state is shown for a message of one's own."""
        ...

    def note(self, op: str, **fields: object) -> None:
        """Writes any other line."""
        ...
