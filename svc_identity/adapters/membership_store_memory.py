"""Who is in which group, in memory."""

from collections.abc import Sequence

from svc_identity.adapters.groups_memory import GroupTables
from svc_identity.model import UserId
from svc_identity.model.group import DirectoryGroup, GroupId, Membership, NamedGroup, Window


class MemoryMembershipStore:
    """Answers who is in which group."""

    def __init__(self, tables: GroupTables) -> None:
        self._tables = tables.tables

    async def directory_group(self, group_id: GroupId) -> DirectoryGroup:
        """Returns a group with all its members; one that does not exist has version 0."""
        row = self._tables.groups.get(group_id)
        if row is None:
            return DirectoryGroup(group_id=group_id)
        members = sorted(row.members.values())
        return DirectoryGroup(
            group_id=group_id,
            version=row.version,
            name=row.name,
            is_announcement_only=row.is_announcement_only,
            expiry_s=row.expiry_s,
            member_ids=tuple(member.user_id for member in members),
            roles=tuple(member.role for member in members),
            joined_versions=tuple(member.joined_version for member in members),
        )

    async def memberships(self, pairs: Sequence[tuple[GroupId, UserId]]) -> list[Membership]:
        """Returns what users have to do with groups, in order."""
        return [self._membership(group_id, user_id) for group_id, user_id in pairs]

    async def mutual_groups(self, one: UserId, other: UserId, after: bytes, limit: int) -> list[NamedGroup]:
        """Returns the groups that two users are both in, with ids after one, by id."""
        rows = [row for row in self._tables.groups.values() if one in row.members and other in row.members]
        found = sorted(NamedGroup(row.group_id, row.name) for row in rows if row.group_id > after)
        return found[:limit]

    def _membership(self, group_id: GroupId, user_id: UserId) -> Membership:
        row = self._tables.groups.get(group_id)
        if row is None:
            return Membership(group_id, user_id, None, (), 0)
        windows = [window for departed, window, _ in row.departures if departed == user_id]
        member = row.members.get(user_id)
        if member is not None:
            windows.append(Window(member.joined_version, 0))
        return Membership(group_id, user_id, row.role_of(user_id), tuple(windows), row.version)
