"""Who is in which group, on PostgreSQL."""

from collections.abc import Sequence

from svc_identity.adapters.database_postgres import Database, Row, uuid_of
from svc_identity.model import UserId
from svc_identity.model.group import DirectoryGroup, GroupId, GroupRole, Membership, NamedGroup, Window

_BEFORE_ALL = bytes(16)
_ID_BYTES = 16
# The members travel as one string of bytes: a thousand values would be a thousand objects on the way.
_GROUP = """
    SELECT g.version, g.group_name, g.is_announcement_only, g.expiry_s, m.user_ids, m.roles, m.joined_versions
    FROM groups g, LATERAL (
        SELECT string_agg(uuid_send(user_id), '' ORDER BY user_id) AS user_ids,
               array_agg(role ORDER BY user_id) AS roles, array_agg(joined_version ORDER BY user_id) AS joined_versions
        FROM group_members WHERE group_id = g.group_id
    ) m WHERE g.group_id = %s
"""
_MEMBERSHIPS = """
    SELECT q.group_id, q.user_id, coalesce(g.version, 0), m.role, m.joined_version,
           ARRAY(SELECT joined_version FROM group_departures d
                 WHERE d.group_id = q.group_id AND d.user_id = q.user_id ORDER BY joined_version),
           ARRAY(SELECT left_version FROM group_departures d
                 WHERE d.group_id = q.group_id AND d.user_id = q.user_id ORDER BY joined_version)
    FROM unnest(%s::uuid[], %s::uuid[]) WITH ORDINALITY AS q(group_id, user_id, place)
    LEFT JOIN groups g ON g.group_id = q.group_id
    LEFT JOIN group_members m ON m.group_id = q.group_id AND m.user_id = q.user_id
    ORDER BY q.place
"""
# Query 3 of the source document.
_MUTUAL_GROUPS = """
    SELECT g.group_id, g.group_name
    FROM groups g
    JOIN group_members gm1 ON gm1.group_id = g.group_id
    JOIN group_members gm2 ON gm2.group_id = g.group_id
    WHERE gm1.user_id = %s AND gm2.user_id = %s AND gm1.group_id > %s ORDER BY gm1.group_id LIMIT %s
"""


class PostgresMembershipStore:
    """Answers who is in which group."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def directory_group(self, group_id: GroupId) -> DirectoryGroup:
        """Returns a group with all its members; one that does not exist has version 0."""
        async with self._database.read() as work:
            row = await work.row(_GROUP, uuid_of(group_id))
        if row is None:
            return DirectoryGroup(group_id=group_id)
        ids: bytes = row[4] or b""
        return DirectoryGroup(
            group_id=group_id,
            version=row[0],
            name=row[1],
            is_announcement_only=row[2],
            expiry_s=row[3],
            member_ids=tuple(UserId(ids[at : at + _ID_BYTES]) for at in range(0, len(ids), _ID_BYTES)),
            roles=tuple(GroupRole(role) for role in row[5] or ()),
            joined_versions=tuple(row[6] or ()),
        )

    async def memberships(self, pairs: Sequence[tuple[GroupId, UserId]]) -> list[Membership]:
        """Returns what users have to do with groups, in order."""
        group_ids = [uuid_of(group_id) for group_id, _ in pairs]
        user_ids = [uuid_of(user_id) for _, user_id in pairs]
        async with self._database.read() as work:
            rows = await work.rows(_MEMBERSHIPS, group_ids, user_ids)
        return [_membership_of(row) for row in rows]

    async def mutual_groups(self, one: UserId, other: UserId, after: bytes, limit: int) -> list[NamedGroup]:
        """Returns the groups that two users are both in, with ids after one, by id."""
        start = uuid_of(after or _BEFORE_ALL)
        async with self._database.read() as work:
            rows = await work.rows(_MUTUAL_GROUPS, uuid_of(one), uuid_of(other), start, limit)
        return [NamedGroup(GroupId(row[0]), row[1]) for row in rows]


def _membership_of(row: Row) -> Membership:
    group_id, user_id, version, role, joined_version, joined, left = row
    windows = [Window(*pair) for pair in zip(joined, left, strict=True)]
    if role is None:
        return Membership(GroupId(group_id), UserId(user_id), None, tuple(windows), version)
    windows.append(Window(joined_version, 0))
    return Membership(GroupId(group_id), UserId(user_id), GroupRole(role), tuple(windows), version)
