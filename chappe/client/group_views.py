"""What people see of groups: who is in them, what they may do, and what happened to them."""

import enum
from dataclasses import dataclass

from chappe.api.edge.v1 import item_pb2
from chappe.api.identity.v1 import group_pb2


class Role(enum.IntEnum):
    """What somebody may do in a group."""

    NONE = 0
    """Nothing: no member, or none any more."""
    MEMBER = 1
    """Reads and writes."""
    ADMIN = 2
    """Adds, removes, invites, and changes the group."""
    OWNER = 3
    """An admin who cannot be removed; exactly one."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Group:
    """A group as this device knows it."""

    group_id: bytes
    """The chat's id, too."""
    name: str
    description: str = ""
    owner_id: bytes = b""
    member_count: int = 0
    role: Role = Role.NONE
    """What the user itself may do in it."""
    is_announcement_only: bool = False
    """Only admins may write."""
    expiry_s: int = 0
    """After how long new messages disappear; 0 for never."""
    create_ms: int = 0
    version: int = 0
    """Rises with every change of the group."""

    @property
    def id(self) -> str:
        """The group id as text."""
        return self.group_id.hex()


@dataclass(frozen=True, kw_only=True, slots=True)
class Member:
    """Somebody in a group."""

    user_id: bytes
    role: Role
    join_ms: int
    """When the membership began; 0 when this device was not told."""


class RefusalReason(enum.IntEnum):
    """Why somebody is not in a group."""

    UNKNOWN = 0
    USER_NOT_FOUND = 1
    """There is no such user."""
    NOT_ALLOWED = 2
    """The person does not let this user add it; send it an invite."""
    BLOCKED = 3
    """This user has blocked the person."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Refusal:
    """Somebody who was not added."""

    user_id: bytes
    reason: RefusalReason


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupOutcome:
    """A group after people were added, and who was not."""

    group: Group
    refusals: list[Refusal]


@dataclass(frozen=True, kw_only=True, slots=True)
class Invite:
    """What lets whoever has its code join a group."""

    invite_id: bytes
    """Names the invite, to revoke it; opens nothing."""
    code: str
    expire_ms: int
    use_limit: int
    """How many may join by it; 0 for as many as there is room for."""


class GroupEvent(enum.IntEnum):
    """What happened to a group."""

    CHANGED = 0
    """Something that this version does not know."""
    CREATED = 1
    ADDED = 2
    JOINED = 3
    REMOVED = 4
    LEFT = 5
    ROLE = 6
    UPDATED = 7


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupChanged:
    """A group that the user is or was a member of has changed."""

    group_id: bytes
    what: GroupEvent
    by_user_id: bytes
    user_ids: tuple[bytes, ...]
    """To whom it happened; of many only the first 64."""
    name: str
    """Of the group, after the change."""
    role: Role
    """Of those to whom it happened, after the change."""
    member_count: int
    changed_ms: int
    version: int


def to_group_view(group: group_pb2.Group) -> Group:
    """Returns a group of the directory."""
    return Group(
        group_id=group.group_id,
        name=group.group_name,
        description=group.description,
        owner_id=group.owner_user_id,
        member_count=group.member_count,
        role=to_role(group.role),
        is_announcement_only=group.is_announcement_only,
        expiry_s=group.expiry_s,
        create_ms=group.create_ms,
        version=group.version,
    )


def to_role(role: int) -> Role:
    """Returns a GroupRole; one that this version does not know is at least a member's."""
    return Role(role) if role <= max(Role) else Role.MEMBER


def to_refusals(refusals: list[group_pb2.MemberRefusal]) -> list[Refusal]:
    """Returns who was not added, and why."""
    return [
        Refusal(user_id=each.user_id, reason=RefusalReason(each.reason if each.reason <= max(RefusalReason) else 0))
        for each in refusals
    ]


def to_group_changed(event: item_pb2.GroupChangeEvent) -> GroupChanged:
    """Returns what happened to a group."""
    return GroupChanged(
        group_id=event.group_id,
        what=GroupEvent(event.change if event.change <= max(GroupEvent) else GroupEvent.CHANGED),
        by_user_id=event.actor_user_id,
        user_ids=tuple(event.user_ids),
        name=event.group_name,
        role=to_role(event.role),
        member_count=event.member_count,
        changed_ms=event.changed_ms,
        version=event.version,
    )
