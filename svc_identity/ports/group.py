"""What the directory needs in order to keep groups."""

from collections.abc import Sequence
from typing import Protocol

from svc_identity.model import Charge, UserId
from svc_identity.model.group import (
    DirectoryGroup,
    Group,
    GroupActor,
    GroupDraft,
    GroupId,
    GroupRole,
    GroupUpdate,
    Invite,
    InviteId,
    MemberPage,
    Membership,
    NamedGroup,
    Refusal,
)


class GroupStore(Protocol):
    """Keeps groups and who is in them.

    Changes of one group wait for each other. Of each, and of reading members, the actor learns as little as it may: all
    of them raise GroupNotFoundError when there is no such group or the actor never was in it, and NotAMemberError when
    it was and is no more.
    """

    async def create_group(self, draft: GroupDraft, charges: Sequence[Charge]) -> list[Refusal]:
        """Creates a group unless there is one of that id; returns who is not in it.

        Args:
            draft: What it is to be.
            charges: Of a group, and of a member of it; a group that is there already costs nothing.

        Raises:
            RateLimitedError: A charge is too much.
        """
        ...

    async def update_group(self, actor: GroupActor, update: GroupUpdate) -> None:
        """Changes what is not None; what is so already is no change.

        Raises:
            RoleRequiredError: The actor is no admin.
        """
        ...

    async def add_members(self, actor: GroupActor, user_ids: Sequence[UserId], charge: Charge) -> list[Refusal]:
        """Adds people; returns who may not be added. All the others are members afterwards, or none is added.

        Args:
            actor: Who adds.
            user_ids: Whom, each once.
            charge: Of one that is added.

        Raises:
            RoleRequiredError: The actor is no admin.
            GroupFullError: They do not fit.
            RateLimitedError: The charge is too much.
        """
        ...

    async def remove_member(self, actor: GroupActor, user_id: UserId) -> None:
        """Removes another; one who is no member any more stays so.

        Raises:
            RoleRequiredError: The actor is no admin.
            OwnerProtectedError: It is the owner.
            MemberNotFoundError: It never was a member.
        """
        ...

    async def leave_group(self, actor: GroupActor) -> None:
        """Takes the actor out and hands over if it is the owner; one who is no member any more stays so."""
        ...

    async def set_role(self, actor: GroupActor, user_id: UserId, role: GroupRole) -> None:
        """Gives a member a role; a new owner takes it from the old one, who becomes an admin.

        Raises:
            RoleRequiredError: The actor is no admin, or not the owner where it hands over.
            OwnerProtectedError: It is the owner, who would not be one any more.
            MemberNotFoundError: It is no member.
        """
        ...

    async def groups(self, viewer_id: UserId, group_ids: Sequence[GroupId]) -> list[Group]:
        """Returns groups in order; one that the viewer is no member of has version 0."""
        ...

    async def list_groups(self, user_id: UserId, after: bytes, limit: int) -> list[Group]:
        """Returns the groups of a user with ids after one, by id."""
        ...

    async def list_members(self, viewer_id: UserId, group_id: GroupId, after: bytes, limit: int) -> MemberPage:
        """Returns members with ids after one, by id."""
        ...


class InviteStore(Protocol):
    """Keeps invites; its errors of groups and actors are those of GroupStore."""

    async def create_invite(self, actor: GroupActor, invite: Invite) -> Invite:
        """Stores an invite; returns the one that is there already under this id.

        Raises:
            RoleRequiredError: The actor is no admin.
            ListFullError: The group has too many that work.
        """
        ...

    async def revoke_invites(self, actor: GroupActor, invite_id: InviteId | None) -> None:
        """Ends an invite, or all of the group.

        Raises:
            RoleRequiredError: The actor is no admin.
            InviteNotFoundError: The group never had it.
        """
        ...

    async def charge_join(self, user_id: UserId, charge: Charge) -> None:
        """Takes an attempt to join from its budget; it counts whatever comes of it.

        Raises:
            RateLimitedError: The charge is too much.
        """
        ...

    async def join(self, user_id: UserId, code_hash: bytes, now_ms: int) -> GroupId:
        """Makes a user a member; one that is a member stays so, and no use is counted. Returns which group it is.

        Raises:
            InviteNotFoundError: The invite does not work, or not for this user.
            GroupFullError: There is no room.
        """
        ...


class MembershipStore(Protocol):
    """Answers who is in which group."""

    async def directory_group(self, group_id: GroupId) -> DirectoryGroup:
        """Returns a group with all its members; one that does not exist has version 0."""
        ...

    async def memberships(self, pairs: Sequence[tuple[GroupId, UserId]]) -> list[Membership]:
        """Returns what users have to do with groups, in order."""
        ...

    async def mutual_groups(self, one: UserId, other: UserId, after: bytes, limit: int) -> list[NamedGroup]:
        """Returns the groups that two users are both in, with ids after one, by id."""
        ...
