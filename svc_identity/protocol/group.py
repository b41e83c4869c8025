"""Who may change what of a group."""

from collections.abc import Iterable
from typing import NamedTuple

from svc_identity.errors import (
    GroupFullError,
    GroupNotFoundError,
    InviteNotFoundError,
    ListFullError,
    MemberNotFoundError,
    NotAMemberError,
    OwnerProtectedError,
    RoleRequiredError,
)
from svc_identity.model import UserId
from svc_identity.model.group import GroupMember, GroupRole

MOST_MEMBERS = 1024
MOST_NAMED = 64
"""How many of those to whom a change happened are named in it."""
MOST_INVITES = 100
"""That work at one time."""


class RoleStep(NamedTuple):
    """One member gets another role."""

    user_id: UserId
    role: GroupRole


def acting_role(role: GroupRole | None, *, is_past: bool) -> GroupRole:
    """Returns the role of an actor.

    Args:
        role: Its role; None when it is no member.
        is_past: It was one.

    Raises:
        GroupNotFoundError: It may not know of the group.
        NotAMemberError: It was a member and is no more.
    """
    if role is not None:
        return role
    if is_past:
        raise NotAMemberError("you are not a member of this group any more")
    raise group_missing()


def group_missing() -> GroupNotFoundError:
    """Returns the refusal of a group that is not there, or not for the caller."""
    return GroupNotFoundError("the group does not exist, or you never were a member of it")


def invite_missing() -> InviteNotFoundError:
    """Returns the refusal of an invite that does not work, or not for the caller."""
    return InviteNotFoundError("this invite does not work; ask an admin of the group for a new one")


def check_admin(role: GroupRole) -> None:
    """Returns when a member may change the group.

    Raises:
        RoleRequiredError: It may not.
    """
    if role < GroupRole.ADMIN:
        raise RoleRequiredError(GroupRole.ADMIN.name)


def is_removal(actor: GroupRole, target: GroupRole | None, *, is_past: bool) -> bool:
    """Tells whether there is somebody to remove, and the actor may.

    Args:
        actor: The role of who removes.
        target: The role of who is removed; None when it is no member.
        is_past: It was one.

    Raises:
        RoleRequiredError: The actor may not.
        OwnerProtectedError: It is the owner.
        MemberNotFoundError: It never was a member.
    """
    check_admin(actor)
    if target is GroupRole.OWNER:
        raise OwnerProtectedError("the owner cannot be removed; it can hand over, or leave")
    if target is None and not is_past:
        raise member_missing()
    return target is not None


def role_steps(actor: RoleStep, target_role: GroupRole | None, wanted: RoleStep) -> list[RoleStep]:
    """Returns who gets which role, one change each; none when all is as it should be.

    Args:
        actor: Who gives, and its own role.
        target_role: The role of whom it is given to; None when it is no member.
        wanted: To whom, and which.

    Raises:
        RoleRequiredError: The actor may not.
        OwnerProtectedError: It is the owner, who would not be one any more.
        MemberNotFoundError: It is no member.
    """
    check_admin(actor.role)
    if wanted.role is GroupRole.OWNER and actor.role is not GroupRole.OWNER:
        raise RoleRequiredError(GroupRole.OWNER.name)
    if target_role is None:
        raise member_missing()
    if target_role is wanted.role:
        return []
    if target_role is GroupRole.OWNER:
        raise OwnerProtectedError("the owner stays the owner until another is made it, or it leaves")
    if wanted.role is GroupRole.OWNER:
        return [RoleStep(actor.user_id, GroupRole.ADMIN), wanted]
    return [wanted]


def member_missing() -> MemberNotFoundError:
    """Returns the refusal of somebody who is no member."""
    return MemberNotFoundError("this user is not a member of the group; list its members")


def heir_of(members: Iterable[GroupMember]) -> GroupMember | None:
    """Returns who owns the group after its owner has left: the oldest admin, else the oldest member.

    Of those who came at once it is the one with the lower id.
    """
    order = sorted(members, key=lambda member: (-member.role, member.joined_version, member.user_id))
    return order[0] if order else None


def check_room(member_count: int, added: int) -> None:
    """Returns when a group has room for so many more.

    Raises:
        GroupFullError: It has not.
    """
    if member_count + added > MOST_MEMBERS:
        raise GroupFullError(MOST_MEMBERS, MOST_MEMBERS - member_count)


def check_invites(count: int) -> None:
    """Returns when a group may have one more invite.

    Raises:
        ListFullError: It may not.
    """
    if count >= MOST_INVITES:
        raise ListFullError("invites", MOST_INVITES)


def named(user_ids: Iterable[UserId]) -> tuple[UserId, ...]:
    """Returns those of many who are named in a change."""
    return tuple(user_ids)[:MOST_NAMED]
