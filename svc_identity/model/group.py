"""Groups, in the directory's own words."""

import enum
from dataclasses import dataclass
from typing import NamedTuple, NewType

from svc_identity.model import NO_USER, UserId

GroupId = NewType("GroupId", bytes)
"""16 bytes, made of the creator and its request."""
InviteId = NewType("InviteId", bytes)
"""16 bytes; names an invite and opens nothing."""


class GroupRole(enum.IntEnum):
    """What a member may do; the numbers are stored."""

    MEMBER = 1
    ADMIN = 2
    OWNER = 3


class GroupActor(NamedTuple):
    """Who changes which group, and when."""

    group_id: GroupId
    user_id: UserId
    now_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A group as one of its members sees it."""

    group_id: GroupId
    name: str = ""
    description: str = ""
    creator_id: UserId = NO_USER
    owner_id: UserId = NO_USER
    create_ms: int = 0
    member_count: int = 0
    version: int = 0
    """Zero when the viewer is no member."""
    is_announcement_only: bool = False
    expiry_s: int = 0
    role: GroupRole | None = None
    """The viewer's."""
    joined_version: int = 0
    """The viewer's."""
    is_past: bool = False
    """The viewer was a member and is no more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupDraft:
    """A group that is to be created."""

    group_id: GroupId
    creator_id: UserId
    name: str
    description: str
    user_ids: tuple[UserId, ...]
    """Who else is to be in it, each once, without the creator."""
    is_announcement_only: bool
    expiry_s: int
    now_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupUpdate:
    """What of a group is to be changed; None stays."""

    name: str | None = None
    description: str | None = None
    is_announcement_only: bool | None = None
    expiry_s: int | None = None


class GroupMember(NamedTuple):
    """A member."""

    user_id: UserId
    role: GroupRole
    joined_version: int
    join_ms: int


class MemberPage(NamedTuple):
    """Some members of a group, and the version of which they are."""

    members: tuple[GroupMember, ...]
    version: int


class RefusalReason(enum.IntEnum):
    """Why somebody was not added."""

    USER_NOT_FOUND = 1
    NOT_ALLOWED = 2
    """By the person's settings, or because it has blocked who adds it."""
    BLOCKED = 3
    """Who adds has blocked the person."""


class Refusal(NamedTuple):
    """Somebody who was not added."""

    user_id: UserId
    reason: RefusalReason


@dataclass(frozen=True, kw_only=True, slots=True)
class Invite:
    """What lets whoever has its code join a group."""

    invite_id: InviteId
    code_hash: bytes
    """The code itself is kept nowhere."""
    expire_ms: int
    use_limit: int
    """Zero for no limit."""


class GroupChangeKind(enum.IntEnum):
    """What happened to a group; the numbers are stored, and are those of the contract."""

    CREATED = 1
    ADDED = 2
    JOINED = 3
    REMOVED = 4
    LEFT = 5
    ROLE = 6
    UPDATED = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupChange:
    """One change of a group."""

    group_id: GroupId
    version: int
    """Of the group after the change."""
    kind: GroupChangeKind
    actor_id: UserId
    user_ids: tuple[UserId, ...]
    """To whom it happened; of many only the first."""
    group_name: str
    role: GroupRole
    """Of those named, after the change."""
    member_count: int
    change_ms: int


class GroupNews(NamedTuple):
    """A change, and everybody who was there before or after it."""

    change: GroupChange
    recipients: tuple[UserId, ...]


class Window(NamedTuple):
    """One time in a group, by its versions."""

    joined_version: int
    left_version: int
    """The first version without the member; zero while it lasts."""


class Membership(NamedTuple):
    """What a user has to do with a group."""

    group_id: GroupId
    user_id: UserId
    role: GroupRole | None
    """None when it is no member."""
    windows: tuple[Window, ...]
    """Rising."""
    group_version: int
    """Zero when there is no such group."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DirectoryGroup:
    """What the other services may know of a group; what stands at one index of the last three belongs to one member."""

    group_id: GroupId
    version: int = 0
    """Zero when there is no such group."""
    name: str = ""
    is_announcement_only: bool = False
    expiry_s: int = 0
    member_ids: tuple[UserId, ...] = ()
    """Rising."""
    roles: tuple[GroupRole, ...] = ()
    joined_versions: tuple[int, ...] = ()


class NamedGroup(NamedTuple):
    """A group and its name."""

    group_id: GroupId
    name: str
