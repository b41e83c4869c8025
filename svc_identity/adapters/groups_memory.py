"""What the stores of groups in memory share."""

from collections.abc import Sequence

from svc_identity.adapters.group_rows_memory import Departure, GroupRow
from svc_identity.adapters.tables_memory import Tables
from svc_identity.model import ChangeKind, UserId
from svc_identity.model.group import (
    GroupActor,
    GroupChange,
    GroupChangeKind,
    GroupMember,
    GroupRole,
    Refusal,
    RefusalReason,
    Window,
)
from svc_identity.model.privacy import PrivacyAspect
from svc_identity.protocol.group import acting_role, group_missing, named


class GroupTables:
    """Every group, over the tables of accounts."""

    def __init__(self, tables: Tables) -> None:
        self.tables = tables

    def find(self, actor: GroupActor) -> tuple[GroupRow, GroupRole]:
        """Returns the group of an actor, and its role there."""
        row = self.tables.groups.get(actor.group_id)
        if row is None:
            raise group_missing()
        return row, acting_role(row.role_of(actor.user_id), is_past=row.is_past(actor.user_id))

    def record(
        self, row: GroupRow, actor: GroupActor, kind: GroupChangeKind, user_ids: Sequence[UserId], role: GroupRole
    ) -> None:
        """Raises the version of a group, and appends to the log what has changed."""
        row.version += 1
        row.changes[row.version] = GroupChange(
            group_id=row.group_id,
            version=row.version,
            kind=kind,
            actor_id=actor.user_id,
            user_ids=named(user_ids),
            group_name=row.name,
            role=role,
            member_count=len(row.members),
            change_ms=actor.now_ms,
        )
        self.tables.append(ChangeKind.GROUP, UserId(row.group_id), row.version)

    def take_in(self, row: GroupRow, user_ids: Sequence[UserId], role: GroupRole, now_ms: int) -> None:
        """Makes members, from the version on that is recorded next."""
        for user_id in user_ids:
            row.members[user_id] = GroupMember(user_id, role, row.version + 1, now_ms)

    def let_go(self, row: GroupRow, user_id: UserId, *, is_removed: bool) -> None:
        """Ends a membership, with the version that is recorded next."""
        member = row.members.pop(user_id)
        row.departures.append(Departure(user_id, Window(member.joined_version, row.version + 1), is_removed))

    def judge(self, actor_id: UserId, user_ids: Sequence[UserId]) -> list[Refusal]:
        """Returns those whom a user may not add to a group, in order."""
        refusals: list[Refusal] = []
        for user_id in user_ids:
            if user_id not in self.tables.users:
                refusals.append(Refusal(user_id, RefusalReason.USER_NOT_FOUND))
            elif (actor_id, user_id) in self.tables.blocks:
                refusals.append(Refusal(user_id, RefusalReason.BLOCKED))
            elif not self.tables.may_see(PrivacyAspect.GROUPS, actor_id, user_id):
                refusals.append(Refusal(user_id, RefusalReason.NOT_ALLOWED))
        return refusals
