"""What the directory knows, in the words of its own."""

import enum
from dataclasses import dataclass
from typing import NamedTuple, NewType

UserId = NewType("UserId", bytes)
"""A UUIDv7, 16 bytes."""
DeviceId = NewType("DeviceId", int)
"""Counts an account's devices from 1."""
SessionId = NewType("SessionId", bytes)
"""A UUIDv7, 16 bytes."""
Phone = NewType("Phone", str)
"""E.164: a plus sign and 7 to 15 digits."""


class DeviceRef(NamedTuple):
    """Names a device."""

    user_id: UserId
    device_id: DeviceId


@dataclass(frozen=True, kw_only=True, slots=True)
class Verification:
    """A one-time code on its way to a phone."""

    verification_id: bytes
    phone: Phone
    code_hmac: bytes
    """The code itself is kept nowhere."""
    send_ms: int
    expire_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SendPolicy:
    """How often a number may be sent a code."""

    wait_ms: int
    """Before the second code."""
    per_day: int


class CodeCharge(NamedTuple):
    """One code, charged to the hourly budget of those whom it comes from or goes to."""

    budget: str
    holder: bytes
    """16 bytes that stand for them."""
    limit: int
    now_ms: int


class Grant(NamedTuple):
    """Something secret that works once: only its hash is stored."""

    secret_hash: bytes
    expire_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Registration:
    """Everything that makes a verified number an account, or takes the account over."""

    token_hash: bytes
    user_id: UserId
    """The id that a new user would get."""
    public_key: bytes
    profile_name: str
    platform: str
    now_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Joining:
    """A device that joins an account by a link code."""

    code_hmac: bytes
    public_key: bytes
    platform: str
    now_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Device:
    """A device of an account."""

    device_id: DeviceId
    public_key: bytes
    platform: str
    generation: int
    """Rises with every revocation."""
    link_ms: int
    is_linked: bool


@dataclass(frozen=True, kw_only=True, slots=True)
class SignIn:
    """A device that has proved to hold its key."""

    device: DeviceRef
    nonce: bytes
    nonce_expire_ms: int
    session_id: SessionId
    """The id that a new session would get."""
    now_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Session:
    """A sign-in session."""

    session_id: SessionId
    device_id: DeviceId
    generation: int
    create_ms: int
    refresh_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SigningKey:
    """A key that signs access tokens."""

    key_id: str
    private_key: bytes
    """The 32 bytes of an Ed25519 seed."""
    create_ms: int
    sign_from_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class BotDraft:
    """A user that is to be made for a service."""

    spiffe_id: str
    user_id: UserId
    """The id that a new user would get."""
    name: str
    platform: str
    public_key: bytes
    now_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Profile:
    """What one user may see of another."""

    user_id: UserId
    profile_name: str = ""
    about: str = ""
    """Empty for those to whom it is not shown."""
    phone: str = ""
    version: int = 0
    """Zero when there is no such user."""
    photo_media_id: bytes = b""
    """Empty without one, and for those to whom it is not shown."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectoryUser:
    """What the other services may know of a user."""

    user_id: UserId
    version: int = 0
    """Zero when there is no such user."""
    blocked: tuple[UserId, ...] = ()
    device_ids: tuple[DeviceId, ...] = ()
    generations: tuple[int, ...] = ()
    gives_read_receipts: bool = False


@dataclass(frozen=True, kw_only=True, slots=True)
class Contact:
    """A person in an address book."""

    phone: Phone
    name: str
    user_id: UserId | None
    """None while the number has no account."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Charge:
    """What a call takes from one of the daily budgets of an account."""

    budget: str
    amount: int
    limit: int
    now_ms: int


class ChangeKind(enum.IntEnum):
    """What a change is about; the numbers are stored."""

    PROFILE = 1
    CONTACTS = 2
    BLOCKS = 3
    DEVICES = 4
    SESSION_REVOKED = 5
    SIGNING_KEYS = 6
    GROUP = 7
    """The change is the group's: its id stands in the place of the user's."""
    SETTINGS = 8


class Change(NamedTuple):
    """One row of the log of changes."""

    xid: int
    number: int
    """Unique for ever within an epoch of the log."""
    kind: ChangeKind
    user_id: UserId
    version: int
    device_id: int = 0
    session_id: bytes = b""


class Cursor(NamedTuple):
    """A snapshot: which transactions a reader has seen the changes of."""

    epoch: int
    """Rises when the store was restored; cursors of another one mean nothing."""
    xmin: int
    """All transactions below were over."""
    xmax: int
    """No transaction from here on was over."""
    running: tuple[int, ...] = ()
    """The transactions in between that were not over, rising."""


class ChangePage(NamedTuple):
    """Changes after a cursor. The cursor of a page that is not the last must not be kept."""

    changes: tuple[Change, ...]
    cursor: Cursor
    complete_until_ms: int
    """The store's time; everything that was committed until then is in this page or before it."""
    is_last: bool


NO_USER = UserId(bytes(16))
"""Whose the changes are that are nobody's."""
