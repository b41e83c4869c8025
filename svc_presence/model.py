"""What the registry knows: edges, their sessions, and where they are."""

from __future__ import annotations

import enum
from typing import NamedTuple, NewType

UserId = NewType("UserId", bytes)
DeviceId = NewType("DeviceId", int)
SessionId = NewType("SessionId", int)
GroupId = NewType("GroupId", bytes)
ConversationId = NewType("ConversationId", bytes)

NONCE_BYTES = 16


class Edge(NamedTuple):
    """One life of an edge: its address, and the number of that start of its process."""

    edge_id: str
    """`host:port`, as fanout dials it."""
    boot_id: int


class Session(NamedTuple):
    """Names a session of a device; the number is unique within a boot of its edge."""

    user_id: UserId
    device_id: DeviceId
    session_id: SessionId


class NewSession(NamedTuple):
    """A session that begins, or began while nobody answered."""

    session: Session
    nonce: bytes
    """Of its Hello, 16 bytes."""
    age_ms: int = 0
    """How long ago it began."""


class Changes(NamedTuple):
    """What an edge has to say of its sessions, in one batch; connects come before refreshes, and these before byes."""

    connects: list[NewSession]
    refreshes: list[Session]
    byes: list[Session]


class Replaced(NamedTuple):
    """The session that a new one has taken the place of."""

    edge: Edge
    session_id: SessionId


class Connected(NamedTuple):
    """What became of a `NewSession`."""

    is_refused: bool
    """Another session has used its nonce; nothing was written."""
    replaced: Replaced | None


class Written(NamedTuple):
    """What became of `Changes`."""

    connects: list[Connected]
    """In the order of the changes."""
    replaced: list[Session]
    """Refreshed sessions that were not written, because their device has a newer one."""


class Route(NamedTuple):
    """Where a device is."""

    user_id: UserId
    device_id: DeviceId
    session_id: SessionId
    edge: Edge


class Located(NamedTuple):
    """Where a device is, with its user named by the index in the question. Sorts as answers are ordered."""

    user_index: int
    device_id: DeviceId
    session_id: SessionId
    edge: Edge


class ConnectAnswer(NamedTuple):
    """What an edge is told of a connect."""

    is_refused: bool
    replaced_session_id: int
    """A session of the same boot of the same edge, which it closes; 0 for none."""


class TrackAnswer(NamedTuple):
    """What an edge is told of a batch."""

    connects: list[ConnectAnswer]
    replaced_session_ids: list[int]


class Presence(enum.IntEnum):
    """Whether somebody is there; the numbers are the contract's."""

    UNKNOWN = 1
    """Nobody can say at the moment."""
    ONLINE = 2
    OFFLINE = 3
    HIDDEN = 4
    """The viewer may not see it."""


class View(NamedTuple):
    """What one viewer is told of one person."""

    presence: Presence
    last_seen_ms: int
    """Unix milliseconds; zero unless the person is offline and the viewer may know."""


class Sight(enum.IntEnum):
    """How much of a person a viewer may see; each value allows what the lower ones do."""

    NOTHING = 0
    ONLINE = 1
    """Whether it is online."""
    LAST_SEEN = 2
    """Also when it was last seen."""


class Seen(NamedTuple):
    """What the store knows of a person."""

    online_left_ms: int
    """For how much longer it is online; zero when it is not."""
    last_seen_ms: int
    """When it last showed a sign of life; zero when the store does not know: it may have lost its memory."""
    idle_ms: int
    """How long ago that was."""


class TypingKind(enum.IntEnum):
    """How somebody is writing; the numbers are the contract's."""

    TEXT = 1
    RECORDING = 2


class Conversation(NamedTuple):
    """A conversation as one of its members names it."""

    conversation_id: ConversationId
    group_id: GroupId | None
    """None for the direct one of two people."""


class Typing(NamedTuple):
    """Says that somebody is writing, or no longer."""

    user_id: UserId
    conversation: Conversation
    kind: TypingKind
    is_over: bool = False


class Typist(NamedTuple):
    """Somebody who is writing."""

    user_id: UserId
    kind: TypingKind


class Lasting(NamedTuple):
    """Somebody who is writing, and for how much longer that holds unless it is said again."""

    typist: Typist
    left_ms: int
