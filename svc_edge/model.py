"""What the edge knows: sessions, who is behind them, what travels through them, and why one ends."""

from __future__ import annotations

import enum
import hashlib
from typing import NamedTuple, NewType

UserId = NewType("UserId", bytes)
DeviceId = NewType("DeviceId", int)
SessionId = NewType("SessionId", int)
SignInId = NewType("SignInId", bytes)

KEY_BYTES = 64
"""The length of an item's key: position, message id, conversation id, sender's user id."""
WANTS_RECEIPT = 1
"""The flag of an item whose acknowledgement by the device is a delivered receipt."""

# An item starts with its position, a field of 18 bytes; what follows is the tag of what happened.
_EVENT_TAG = slice(18, 19)
_MESSAGE_TAG = b"\x12"


class SignedHello(NamedTuple):
    """A token and the proof that the device's key is at hand."""

    access_token: str
    timestamp_ms: int
    nonce: bytes
    host: str
    signature: bytes


class Hello(NamedTuple):
    """How a client opens its session; `signed` is None for an anonymous one."""

    signed: SignedHello | None
    cursor: bytes
    receive_window: int
    """Zero for the default."""


class Claims(NamedTuple):
    """What a verified access token says."""

    user_id: UserId
    device_id: DeviceId
    sign_in_id: SignInId
    generation: int
    """Of the device's credentials; a revocation raises it."""
    device_key: bytes
    """Ed25519, 32 bytes."""
    issued_s: int
    expires_s: int


class Member(NamedTuple):
    """Who is behind a signed session."""

    user_id: UserId
    device_id: DeviceId
    sign_in_id: SignInId


class SessionRef(NamedTuple):
    """Names a session of a device, for the registry."""

    user_id: UserId
    device_id: DeviceId
    session_id: SessionId


class ConnectOutcome(NamedTuple):
    """What the registry says of a session that begins."""

    refusal: str
    """The reason without its prefix; empty when the route is registered."""
    replaced_session_id: SessionId
    """The session of this boot that it replaced; zero for none."""


class Revocation(NamedTuple):
    """A sign-in session that was ended."""

    user_id: UserId
    device_id: DeviceId
    sign_in_id: SignInId
    """Empty for every sign-in session of the device."""


class InboxQuery(NamedTuple):
    """Asks what is new for one device."""

    user_id: UserId
    device_id: DeviceId
    cursor: bytes
    after: bytes
    """Where an earlier answer of the same pass ended; empty to start at the cursor."""
    bound: bytes
    """The bound of the pass; empty at its start."""
    limit: int
    known: bytes = b""
    """The ids of messages that need not be in the answer."""


class InboxAnswer(NamedTuple):
    """What is new for one device; items, keys and flags stand side by side."""

    items: list[bytes]
    keys: list[bytes]
    flags: list[int]
    has_more: bool
    cursor: bytes
    bound: bytes
    is_resync: bool


class Verdict(enum.IntEnum):
    """What became of a Send; the numbers are the contract's."""

    STORED = 1
    REFUSED = 2
    MALFORMED = 3


class Welcome(NamedTuple):
    """The session stands."""

    session_id: SessionId
    member: Member | None
    send_window: int
    receive_window: int


class CaughtUp(NamedTuple):
    """The log has been read to its end."""

    cursor: bytes


class Resync(NamedTuple):
    """The cursor cannot be resumed from."""

    detail: str


class Pong(NamedTuple):
    """Answers a Ping."""

    client_ms: int
    newest_position: bytes


class RateClass(enum.IntEnum):
    """The budget that a call is charged to; the numbers are the contract's."""

    READ = 1
    WRITE = 2
    SENSITIVE = 3


class Presence(enum.IntEnum):
    """Whether somebody is there; the numbers are the contract's."""

    UNKNOWN = 1
    ONLINE = 2
    OFFLINE = 3
    HIDDEN = 4


class View(NamedTuple):
    """What one viewer is told of one person."""

    presence: Presence
    last_seen_ms: int


class TypingKind(enum.IntEnum):
    """How somebody is writing; the numbers are the contract's."""

    TEXT = 1
    RECORDING = 2


class Typist(NamedTuple):
    """Somebody who is writing."""

    user_id: UserId
    kind: TypingKind


class Conversation(NamedTuple):
    """A conversation as one of its members names it: by the peer or by the group, of which the other is empty."""

    conversation_id: bytes
    peer_id: bytes
    group_id: bytes


class Watched(NamedTuple):
    """A viewer that is told how a person is."""

    viewer_id: UserId
    target_id: UserId


class Opened(NamedTuple):
    """A viewer that is told who is writing in a conversation."""

    viewer_id: UserId
    conversation: Conversation


Topic = Watched | Opened
"""What somebody on this edge is told of by svc_presence."""


class Typing(NamedTuple):
    """Says that a user is writing, or no longer."""

    user_id: UserId
    conversation: Conversation
    kind: TypingKind
    is_over: bool


class PresenceDelta(NamedTuple):
    """How watched people are now."""

    views: dict[UserId, View]


class TypingDelta(NamedTuple):
    """Who is writing now in open conversations."""

    typists: dict[Conversation, tuple[Typist, ...]]


class WatchRefused(NamedTuple):
    """Some people are not watched: the reason without its prefix, and when to ask again."""

    reason: str
    detail: str
    user_ids: list[UserId]
    retry_after_ms: int


class Call(NamedTuple):
    """A unary call that a client makes."""

    call_id: int
    method: str
    payload: bytes


class CallDone(NamedTuple):
    """A call succeeded."""

    call_id: int
    method: str
    payload: bytes


class CallFailed(NamedTuple):
    """A call failed: the gRPC code, the reason without its prefix, and what a program or a person may do."""

    call_id: int
    code: str
    reason: str
    detail: str
    metadata: dict[str, str]
    retry_after_ms: int


PresenceFrame = PresenceDelta | TypingDelta | WatchRefused
Frame = bytes | Welcome | Resync | Pong | CallDone | CallFailed | PresenceFrame
"""A frame to a client: ready-made bytes of a ServerFrame, or what the door still has to encode."""


def mint_tag(user_id: UserId, device_id: DeviceId) -> bytes:
    """Returns the 6 bytes that every message id of a device carries."""
    return hashlib.sha256(b"chappe-mid" + user_id + device_id.to_bytes(4, "big")).digest()[:6]


def user_tag(user_id: UserId) -> int:
    """Returns the 32 bits by which a push is checked to be for the user of its session."""
    return int.from_bytes(hashlib.sha256(b"chappe-user" + user_id).digest()[:4], "big")


def identity_of(item: bytes, key: bytes) -> bytes:
    """Returns what makes two items the same for a session.

    A message is itself under every position: a retry may write it again under a fresh one. Anything else is named by
    its position and its own id: one place in the log may hold the receipts of many messages, as several items.
    """
    return key[16:32] if item[_EVENT_TAG] == _MESSAGE_TAG else key[:32]
