"""The rows of groups in memory."""

from dataclasses import dataclass, field
from typing import NamedTuple

from svc_identity.model import UserId
from svc_identity.model.group import (
    Group,
    GroupChange,
    GroupId,
    GroupMember,
    GroupNews,
    GroupRole,
    Invite,
    Window,
)


class Departure(NamedTuple):
    """Somebody who was a member."""

    user_id: UserId
    window: Window
    is_removed: bool


@dataclass(kw_only=True, slots=True)
class InviteRow:
    """An invite, and what became of it."""

    invite: Invite
    group_version: int
    uses: int = 0
    is_revoked: bool = False


@dataclass(kw_only=True, slots=True)
class GroupRow:
    """A group."""

    group_id: GroupId
    creator_id: UserId
    create_ms: int
    name: str
    description: str
    is_announcement_only: bool
    expiry_s: int
    version: int = 0
    members: dict[UserId, GroupMember] = field(default_factory=dict[UserId, GroupMember])
    departures: list[Departure] = field(default_factory=list[Departure])
    changes: dict[int, GroupChange] = field(default_factory=dict[int, GroupChange])
    invites: dict[bytes, InviteRow] = field(default_factory=dict[bytes, InviteRow])

    def is_past(self, user_id: UserId) -> bool:
        """Tells whether a user was a member once."""
        return any(departure.user_id == user_id for departure in self.departures)

    def role_of(self, user_id: UserId) -> GroupRole | None:
        """Returns the role of a user; None when it is no member."""
        member = self.members.get(user_id)
        return None if member is None else member.role

    def seen_by(self, viewer_id: UserId) -> Group:
        """Returns the group as a user sees it."""
        me = self.members.get(viewer_id)
        if me is None:
            return Group(group_id=self.group_id, is_past=self.is_past(viewer_id))
        return Group(
            group_id=self.group_id,
            name=self.name,
            description=self.description,
            creator_id=self.creator_id,
            owner_id=next(member.user_id for member in self.members.values() if member.role is GroupRole.OWNER),
            create_ms=self.create_ms,
            member_count=len(self.members),
            version=self.version,
            is_announcement_only=self.is_announcement_only,
            expiry_s=self.expiry_s,
            role=me.role,
            joined_version=me.joined_version,
        )

    def news(self, version: int) -> GroupNews | None:
        """Returns what made a version, and who learns of it."""
        change = self.changes.get(version)
        if change is None:
            return None
        there = {member.user_id for member in self.members.values() if member.joined_version <= version}
        for user_id, (joined_version, left_version), _ in self.departures:
            if joined_version <= version <= left_version:
                there.add(user_id)
        return GroupNews(change, tuple(sorted(there)))
