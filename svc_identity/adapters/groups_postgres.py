"""What the stores of groups on PostgreSQL share: the lock of a group, and the log of its changes."""

from collections.abc import Sequence
from dataclasses import dataclass

from svc_identity.adapters.database_postgres import Work, uuid_of
from svc_identity.adapters.sight_postgres import JOINS, sees
from svc_identity.model import ChangeKind, UserId
from svc_identity.model.group import GroupActor, GroupChangeKind, GroupRole, Refusal, RefusalReason
from svc_identity.model.privacy import PrivacyAspect
from svc_identity.protocol.group import acting_role, group_missing, named

_LOCK = """
    SELECT version, member_count, group_name, description, is_announcement_only, expiry_s FROM groups
    WHERE group_id = %s FOR NO KEY UPDATE
"""
# Asked after the lock was taken, so that it is as the change before this one left it.
_ROLES = """
    SELECT q.id, m.role, EXISTS (SELECT 1 FROM group_departures d WHERE d.group_id = %s AND d.user_id = q.id)
    FROM unnest(%s::uuid[]) AS q(id) LEFT JOIN group_members m ON m.group_id = %s AND m.user_id = q.id
"""
_JUDGED_TEMPLATE = """
    SELECT q.target, q.place, CASE WHEN u.user_id IS NULL THEN 1
        WHEN EXISTS (SELECT 1 FROM blocks b WHERE b.blocker_id = q.viewer AND b.blocked_id = q.target) THEN 3
        WHEN {sees} THEN 0 ELSE 2 END AS reason
    FROM q {joins}
"""
JUDGED = _JUDGED_TEMPLATE.format(sees=sees(PrivacyAspect.GROUPS), joins=JOINS)
"""Over `q(viewer, target, place)`, an actor and those whom it wants to add: why it may not; zero when it may."""
_RECORD = """
    WITH bumped AS (
        UPDATE groups SET version = version + 1, member_count = member_count + %s WHERE group_id = %s
        RETURNING group_id, version, group_name, member_count
    ), told AS (
        INSERT INTO group_changes
        SELECT group_id, version, %s, %s, %s::uuid[], group_name, %s, member_count, %s FROM bumped
    )
    INSERT INTO identity_changes (kind, entity, version) SELECT %s, group_id, version FROM bumped
"""
_TAKE_IN = """
    INSERT INTO group_members (group_id, user_id, role, joined_version, join_ms)
    SELECT %s, id, %s, %s, %s FROM unnest(%s::uuid[]) AS t(id)
"""
_LET_GO = """
    WITH gone AS (DELETE FROM group_members WHERE group_id = %s AND user_id = %s RETURNING *)
    INSERT INTO group_departures (group_id, user_id, joined_version, left_version, leave_ms, is_removed)
    SELECT group_id, user_id, joined_version, %s, %s, %s FROM gone
"""


@dataclass(kw_only=True, slots=True)
class Held:
    """A group that is locked until the end of the transaction."""

    work: Work
    actor: GroupActor
    version: int
    member_count: int
    settings: tuple[str, str, bool, int]
    """Name, description, whether it is for announcements only, timer."""
    roles: dict[UserId, GroupRole]
    """Of those that were asked for and are members."""
    past: set[UserId]
    """Those that were asked for and were members once."""

    def acting_role(self) -> GroupRole:
        """Returns the role of the actor; raises GroupNotFoundError or NotAMemberError."""
        user_id = self.actor.user_id
        return acting_role(self.roles.get(user_id), is_past=user_id in self.past)

    async def take_in(self, user_ids: Sequence[UserId], role: GroupRole) -> None:
        """Makes members, from the version on that is recorded next."""
        added = [uuid_of(user_id) for user_id in user_ids]
        group_id = uuid_of(self.actor.group_id)
        await self.work.run(_TAKE_IN, group_id, int(role), self.version + 1, self.actor.now_ms, added)

    async def let_go(self, user_id: UserId, *, is_removed: bool) -> None:
        """Ends a membership, with the version that is recorded next."""
        key = (uuid_of(self.actor.group_id), uuid_of(user_id))
        await self.work.run(_LET_GO, *key, self.version + 1, self.actor.now_ms, is_removed)

    async def record(self, kind: GroupChangeKind, user_ids: Sequence[UserId], role: GroupRole, more: int = 0) -> None:
        """Raises the version of the group, and appends to the log what has changed.

        Args:
            kind: What happened.
            user_ids: To whom.
            role: The role of those, after the change.
            more: How many members there are more than before.
        """
        actor = self.actor
        await self.work.run(
            _RECORD,
            *(more, uuid_of(actor.group_id), int(kind), uuid_of(actor.user_id)),
            *([uuid_of(user_id) for user_id in named(user_ids)], int(role), actor.now_ms, int(ChangeKind.GROUP)),
        )
        self.version += 1
        self.member_count += more


async def hold(work: Work, actor: GroupActor, *others: UserId) -> Held:
    """Locks a group, and finds out about its actor and others.

    Raises:
        GroupNotFoundError: There is no such group.
    """
    row = await work.row(_LOCK, uuid_of(actor.group_id))
    if row is None:
        raise group_missing()
    group_id, asked = uuid_of(actor.group_id), [uuid_of(user_id) for user_id in {actor.user_id, *others}]
    found = await work.rows(_ROLES, group_id, asked, group_id)
    return Held(
        work=work,
        actor=actor,
        version=row[0],
        member_count=row[1],
        settings=(row[2], row[3], row[4], row[5]),
        roles={UserId(user_id): GroupRole(role) for user_id, role, _ in found if role is not None},
        past={UserId(user_id) for user_id, _, is_past in found if is_past},
    )


def refusals_of(judged: Sequence[tuple[bytes, int]]) -> list[Refusal]:
    """Returns those who may not be added, of users and why they may not."""
    return [Refusal(UserId(user_id), RefusalReason(reason)) for user_id, reason in judged if reason]
