"""What people see of other people: whether they are there, and that they are typing."""

import enum
from dataclasses import dataclass

from chappe.api.type.v1 import presence_pb2
from chappe.client.changes import PresenceTold, Told, TypingTold


class Presence(enum.IntEnum):
    """Whether somebody is there."""

    UNKNOWN = 1
    """Nobody can say at the moment."""
    ONLINE = 2
    OFFLINE = 3
    HIDDEN = 4
    """It is not for you to see; the same for somebody who does not exist."""

    @classmethod
    def of(cls, state: int) -> "Presence":
        """Returns a PresenceState; one that this version does not know is unknown."""
        return cls(state) if state in cls._value2member_map_ else cls.UNKNOWN


@dataclass(frozen=True, kw_only=True, slots=True)
class PersonPresence:
    """How somebody is."""

    user_id: bytes
    presence: Presence
    last_seen_ms: int = 0
    """When it was last there; 0 unless it is offline and you may know."""


@dataclass(frozen=True, kw_only=True, slots=True)
class PresenceChanged:
    """Somebody who is watched came or went; when the session ends, everybody is unknown."""

    user_id: bytes
    presence: Presence
    last_seen_ms: int = 0


@dataclass(frozen=True, kw_only=True, slots=True)
class Typist:
    """Somebody who is writing."""

    user_id: bytes
    is_recording: bool = False
    """It records a voice message."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TypingChanged:
    """Others began or stopped writing in a chat that is looked at."""

    conversation_id: bytes
    peer_id: bytes
    """Empty in a group."""
    typists: tuple[Typist, ...]
    """Everybody who is writing now."""


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchRefused:
    """Some people are not watched."""

    user_ids: tuple[bytes, ...]
    reason: str
    """LIST_FULL: unwatch others first. RATE_LIMITED: try again after the delay."""
    detail: str
    retry_after_ms: int


def to_typist(user_id: bytes, kind: int) -> Typist:
    """Returns somebody who is writing; a kind that this version does not know is text."""
    return Typist(user_id=user_id, is_recording=kind == presence_pb2.TYPING_KIND_RECORDING)


def from_told(change: Told) -> PresenceChanged | TypingChanged | WatchRefused:
    """Returns what people see of what the core was told of others."""
    if isinstance(change, PresenceTold):
        return PresenceChanged(
            user_id=change.user_id, presence=Presence.of(change.state), last_seen_ms=change.last_seen_ms
        )
    if isinstance(change, TypingTold):
        typists = tuple(to_typist(user_id, kind) for user_id, kind in change.typists)
        return TypingChanged(conversation_id=change.chat.conversation_id, peer_id=change.chat.peer_id, typists=typists)
    return WatchRefused(
        user_ids=change.user_ids, reason=change.reason, detail=change.detail, retry_after_ms=change.retry_after_ms
    )
