"""Groups in memory."""

from collections.abc import Sequence
from dataclasses import replace

from svc_identity.adapters.group_rows_memory import GroupRow
from svc_identity.adapters.groups_memory import GroupTables
from svc_identity.model import Charge, UserId
from svc_identity.model.group import (
    Group,
    GroupActor,
    GroupChangeKind,
    GroupDraft,
    GroupId,
    GroupRole,
    GroupUpdate,
    MemberPage,
    Refusal,
)
from svc_identity.protocol.group import (
    RoleStep,
    acting_role,
    check_admin,
    check_room,
    group_missing,
    heir_of,
    is_removal,
    role_steps,
)


class MemoryGroupStore:
    """Keeps groups and who is in them, until the process ends."""

    def __init__(self, tables: GroupTables) -> None:
        self._groups = tables
        self._tables = tables.tables

    async def create_group(self, draft: GroupDraft, charges: Sequence[Charge]) -> list[Refusal]:
        """Creates a group unless there is one of that id; returns who is not in it."""
        refusals = self._groups.judge(draft.creator_id, draft.user_ids)
        known = self._tables.groups.get(draft.group_id)
        if known is not None:
            return [refusal for refusal in refusals if refusal.user_id not in known.members]
        refused = {refusal.user_id for refusal in refusals}
        others = [user_id for user_id in draft.user_ids if user_id not in refused]
        of_group, of_member = charges
        self._tables.charge_all(draft.creator_id, [of_group, replace(of_member, amount=len(others))])
        row = GroupRow(
            group_id=draft.group_id,
            creator_id=draft.creator_id,
            create_ms=draft.now_ms,
            name=draft.name,
            description=draft.description,
            is_announcement_only=draft.is_announcement_only,
            expiry_s=draft.expiry_s,
        )
        self._tables.groups[draft.group_id] = row
        self._groups.take_in(row, [draft.creator_id], GroupRole.OWNER, draft.now_ms)
        self._groups.take_in(row, others, GroupRole.MEMBER, draft.now_ms)
        actor = GroupActor(draft.group_id, draft.creator_id, draft.now_ms)
        self._groups.record(row, actor, GroupChangeKind.CREATED, others, GroupRole.MEMBER)
        return refusals

    async def update_group(self, actor: GroupActor, update: GroupUpdate) -> None:
        """Changes what is not None; what is so already is no change."""
        row, role = self._groups.find(actor)
        check_admin(role)
        before = (row.name, row.description, row.is_announcement_only, row.expiry_s)
        row.name = row.name if update.name is None else update.name
        row.description = row.description if update.description is None else update.description
        if update.is_announcement_only is not None:
            row.is_announcement_only = update.is_announcement_only
        row.expiry_s = row.expiry_s if update.expiry_s is None else update.expiry_s
        if (row.name, row.description, row.is_announcement_only, row.expiry_s) != before:
            self._groups.record(row, actor, GroupChangeKind.UPDATED, (), GroupRole.MEMBER)

    async def add_members(self, actor: GroupActor, user_ids: Sequence[UserId], charge: Charge) -> list[Refusal]:
        """Adds people; returns who may not be added."""
        row, role = self._groups.find(actor)
        check_admin(role)
        asked = [user_id for user_id in user_ids if user_id not in row.members]
        refusals = self._groups.judge(actor.user_id, asked)
        refused = {refusal.user_id for refusal in refusals}
        added = [user_id for user_id in asked if user_id not in refused]
        if added:
            check_room(len(row.members), len(added))
            self._tables.charge(actor.user_id, replace(charge, amount=len(added)))
            self._groups.take_in(row, added, GroupRole.MEMBER, actor.now_ms)
            self._groups.record(row, actor, GroupChangeKind.ADDED, added, GroupRole.MEMBER)
        return refusals

    async def remove_member(self, actor: GroupActor, user_id: UserId) -> None:
        """Removes another; one who is no member any more stays so."""
        row, role = self._groups.find(actor)
        if is_removal(role, row.role_of(user_id), is_past=row.is_past(user_id)):
            self._groups.let_go(row, user_id, is_removed=True)
            self._groups.record(row, actor, GroupChangeKind.REMOVED, [user_id], GroupRole.MEMBER)

    async def leave_group(self, actor: GroupActor) -> None:
        """Takes the actor out and hands over if it is the owner; one who is no member any more stays so."""
        row = self._tables.groups.get(actor.group_id)
        if row is None or (actor.user_id not in row.members and not row.is_past(actor.user_id)):
            raise group_missing()
        role = row.role_of(actor.user_id)
        if role is None:
            return
        self._groups.let_go(row, actor.user_id, is_removed=False)
        self._groups.record(row, actor, GroupChangeKind.LEFT, [actor.user_id], GroupRole.MEMBER)
        heir = heir_of(row.members.values())
        if heir is not None and role is GroupRole.OWNER:
            self._set(row, actor, RoleStep(heir.user_id, GroupRole.OWNER))

    async def set_role(self, actor: GroupActor, user_id: UserId, role: GroupRole) -> None:
        """Gives a member a role; a new owner takes it from the old one, who becomes an admin."""
        row, own_role = self._groups.find(actor)
        wanted = RoleStep(user_id, role)
        for step in role_steps(RoleStep(actor.user_id, own_role), row.role_of(user_id), wanted):
            self._set(row, actor, step)

    async def groups(self, viewer_id: UserId, group_ids: Sequence[GroupId]) -> list[Group]:
        """Returns groups in order; one that the viewer is no member of has version 0."""
        rows = ((group_id, self._tables.groups.get(group_id)) for group_id in group_ids)
        return [Group(group_id=group_id) if row is None else row.seen_by(viewer_id) for group_id, row in rows]

    async def list_groups(self, user_id: UserId, after: bytes, limit: int) -> list[Group]:
        """Returns the groups of a user with ids after one, by id."""
        rows = [row for row in self._tables.groups.values() if user_id in row.members and row.group_id > after]
        rows.sort(key=lambda row: row.group_id)
        return [row.seen_by(user_id) for row in rows[:limit]]

    async def list_members(self, viewer_id: UserId, group_id: GroupId, after: bytes, limit: int) -> MemberPage:
        """Returns members with ids after one, by id."""
        row = self._tables.groups.get(group_id)
        if row is None:
            raise group_missing()
        acting_role(row.role_of(viewer_id), is_past=row.is_past(viewer_id))
        found = sorted(member for member in row.members.values() if member.user_id > after)
        return MemberPage(tuple(found[:limit]), row.version)

    def _set(self, row: GroupRow, actor: GroupActor, step: RoleStep) -> None:
        row.members[step.user_id] = row.members[step.user_id]._replace(role=step.role)
        self._groups.record(row, actor, GroupChangeKind.ROLE, [step.user_id], step.role)
