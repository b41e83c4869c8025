"""What the registry knows: edges, their sessions, and where they are."""

from __future__ import annotations

from typing import NamedTuple, NewType

UserId = NewType("UserId", bytes)
DeviceId = NewType("DeviceId", int)
SessionId = NewType("SessionId", int)

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
    """A session that begins, with the nonce of its Hello, 16 bytes."""

    session: Session
    nonce: bytes


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
