"""Groups on PostgreSQL."""

from collections.abc import Sequence
from dataclasses import replace
from uuid import UUID

from svc_identity.adapters.database_postgres import Database, Row, Work, uuid_of
from svc_identity.adapters.groups_postgres import JUDGED, Held, hold, refusals_of
from svc_identity.model import ChangeKind, Charge, UserId
from svc_identity.model.group import (
    Group,
    GroupActor,
    GroupChangeKind,
    GroupDraft,
    GroupId,
    GroupMember,
    GroupRole,
    GroupUpdate,
    MemberPage,
    Refusal,
)
from svc_identity.protocol.group import (
    MOST_NAMED,
    RoleStep,
    acting_role,
    check_admin,
    check_room,
    group_missing,
    is_removal,
    role_steps,
)

_BEFORE_ALL = bytes(16)
# The whole group, with its members and what the log says of it, in one statement, however many there are.
_CREATE_TEMPLATE = """
    WITH p AS (
        SELECT %s::uuid AS group_id, %s::uuid AS creator_id, %s AS group_name, %s AS description,
               %s::boolean AS is_announcement_only, %s::integer AS expiry_s, %s::bigint AS now_ms
    ), q AS (
        SELECT creator_id AS viewer, id AS target, place FROM p, unnest(%s::uuid[]) WITH ORDINALITY AS t(id, place)
    ), judged AS ({judged}), made AS (
        INSERT INTO groups (group_id, group_name, description, creator_id, create_ms, is_announcement_only, expiry_s,
                            member_count)
        SELECT group_id, group_name, description, creator_id, now_ms, is_announcement_only, expiry_s,
               1 + (SELECT count(*) FROM judged WHERE reason = 0)
        FROM p ON CONFLICT DO NOTHING RETURNING *
    ), joined AS (
        INSERT INTO group_members (group_id, user_id, role, joined_version, join_ms)
        SELECT group_id, creator_id, {owner}, 1, create_ms FROM made
        UNION ALL SELECT group_id, target, {member}, 1, create_ms FROM made, judged WHERE reason = 0
    ), told AS (
        INSERT INTO group_changes
        SELECT group_id, 1, {created}, creator_id,
               ARRAY(SELECT target FROM judged WHERE reason = 0 ORDER BY place LIMIT {named}),
               group_name, {member}, member_count, create_ms FROM made
    ), logged AS (INSERT INTO identity_changes (kind, entity, version) SELECT {kind}, group_id, 1 FROM made)
    SELECT (SELECT member_count FROM made), target, reason FROM p LEFT JOIN judged ON true ORDER BY place
"""
_CREATE = _CREATE_TEMPLATE.format(
    judged=JUDGED,
    owner=int(GroupRole.OWNER),
    member=int(GroupRole.MEMBER),
    created=int(GroupChangeKind.CREATED),
    kind=int(ChangeKind.GROUP),
    named=MOST_NAMED,
)
_JUDGE_TEMPLATE = """
    WITH q AS (SELECT %s::uuid AS viewer, id AS target, place FROM unnest(%s::uuid[]) WITH ORDINALITY AS t(id, place))
    {judged} ORDER BY q.place
"""
_JUDGE = _JUDGE_TEMPLATE.format(judged=JUDGED)
_PRESENT = "SELECT user_id FROM group_members WHERE group_id = %s AND user_id = ANY(%s)"
_HEIR = """
    SELECT user_id FROM group_members WHERE group_id = %s ORDER BY role DESC, joined_version, user_id LIMIT 1
"""
_COLUMNS = """
    g.group_id, g.group_name, g.description, g.creator_id, owner.user_id, g.create_ms, g.member_count, g.version,
    g.is_announcement_only, g.expiry_s, me.role, me.joined_version
"""
_GROUPS_TEMPLATE = """
    SELECT {columns}, q.id,
           EXISTS (SELECT 1 FROM group_departures d WHERE d.group_id = q.id AND d.user_id = %s)
    FROM unnest(%s::uuid[]) WITH ORDINALITY AS q(id, place)
    LEFT JOIN groups g ON g.group_id = q.id
    LEFT JOIN group_members me ON me.group_id = q.id AND me.user_id = %s
    LEFT JOIN group_members owner ON owner.group_id = q.id AND owner.role = 3
    ORDER BY q.place
"""
_GROUPS = _GROUPS_TEMPLATE.format(columns=_COLUMNS)
_GROUPS_OF_TEMPLATE = """
    SELECT {columns} FROM group_members me JOIN groups g ON g.group_id = me.group_id
    LEFT JOIN group_members owner ON owner.group_id = g.group_id AND owner.role = 3
    WHERE me.user_id = %s AND me.group_id > %s ORDER BY me.group_id LIMIT %s
"""
_GROUPS_OF = _GROUPS_OF_TEMPLATE.format(columns=_COLUMNS)
_MEMBERS = """
    SELECT g.version, me.role,
           EXISTS (SELECT 1 FROM group_departures d WHERE d.group_id = g.group_id AND d.user_id = %s),
           m.user_id, m.role, m.joined_version, m.join_ms
    FROM groups g LEFT JOIN group_members me ON me.group_id = g.group_id AND me.user_id = %s
    LEFT JOIN LATERAL (
        SELECT * FROM group_members WHERE group_id = g.group_id AND user_id > %s ORDER BY user_id LIMIT %s
    ) m ON true
    WHERE g.group_id = %s ORDER BY m.user_id
"""


class PostgresGroupStore:
    """Keeps groups and who is in them."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_group(self, draft: GroupDraft, charges: Sequence[Charge]) -> list[Refusal]:
        """Creates a group unless there is one of that id; returns who is not in it."""
        of_group, of_member = charges

        async def work(work: Work) -> list[Refusal]:
            rows = await work.rows(_CREATE, *_values_of(draft))
            refusals = refusals_of([(user_id, reason) for _, user_id, reason in rows if user_id is not None])
            count = rows[0][0]
            if count is None:
                present = await work.rows(_PRESENT, uuid_of(draft.group_id), _uuids(draft.user_ids))
                return [refusal for refusal in refusals if (refusal.user_id,) not in present]
            await work.charge(draft.creator_id, of_group)
            await work.charge(draft.creator_id, replace(of_member, amount=count - 1))
            return refusals

        return await self._database.write(work)

    async def update_group(self, actor: GroupActor, update: GroupUpdate) -> None:
        """Changes what is not None; what is so already is no change."""
        wanted = (update.name, update.description, update.is_announcement_only, update.expiry_s)

        async def work(work: Work) -> None:
            held = await hold(work, actor)
            check_admin(held.acting_role())
            settings = tuple(old if new is None else new for old, new in zip(held.settings, wanted, strict=True))
            if settings == held.settings:
                return
            await work.run(
                "UPDATE groups SET group_name = %s, description = %s, is_announcement_only = %s, expiry_s = %s "
                "WHERE group_id = %s",
                *(*settings, uuid_of(actor.group_id)),
            )
            await held.record(GroupChangeKind.UPDATED, (), GroupRole.MEMBER)

        await self._database.write(work)

    async def add_members(self, actor: GroupActor, user_ids: Sequence[UserId], charge: Charge) -> list[Refusal]:
        """Adds people; returns who may not be added."""

        async def work(work: Work) -> list[Refusal]:
            held = await hold(work, actor, *user_ids)
            check_admin(held.acting_role())
            asked = _uuids([user_id for user_id in user_ids if user_id not in held.roles])
            judged = await work.rows(_JUDGE, uuid_of(actor.user_id), asked)
            added = [UserId(user_id) for user_id, _, reason in judged if not reason]
            if added:
                check_room(held.member_count, len(added))
                await work.charge(actor.user_id, replace(charge, amount=len(added)))
                await held.take_in(added, GroupRole.MEMBER)
                await held.record(GroupChangeKind.ADDED, added, GroupRole.MEMBER, len(added))
            return refusals_of([(user_id, reason) for user_id, _, reason in judged])

        return await self._database.write(work)

    async def remove_member(self, actor: GroupActor, user_id: UserId) -> None:
        """Removes another; one who is no member any more stays so."""

        async def work(work: Work) -> None:
            held = await hold(work, actor, user_id)
            if is_removal(held.acting_role(), held.roles.get(user_id), is_past=user_id in held.past):
                await held.let_go(user_id, is_removed=True)
                await held.record(GroupChangeKind.REMOVED, [user_id], GroupRole.MEMBER, -1)

        await self._database.write(work)

    async def leave_group(self, actor: GroupActor) -> None:
        """Takes the actor out and hands over if it is the owner; one who is no member any more stays so."""

        async def work(work: Work) -> None:
            held = await hold(work, actor)
            if actor.user_id not in held.roles and actor.user_id in held.past:
                return
            role = held.acting_role()
            await held.let_go(actor.user_id, is_removed=False)
            await held.record(GroupChangeKind.LEFT, [actor.user_id], GroupRole.MEMBER, -1)
            if role is GroupRole.OWNER and held.member_count:
                heir = await work.row(_HEIR, uuid_of(actor.group_id))
                if heir is None:
                    raise AssertionError("a group that counts members has some")
                await _set(held, RoleStep(UserId(heir[0]), GroupRole.OWNER))

        await self._database.write(work)

    async def set_role(self, actor: GroupActor, user_id: UserId, role: GroupRole) -> None:
        """Gives a member a role; a new owner takes it from the old one, who becomes an admin."""
        wanted = RoleStep(user_id, role)

        async def work(work: Work) -> None:
            held = await hold(work, actor, user_id)
            own = RoleStep(actor.user_id, held.acting_role())
            for step in role_steps(own, held.roles.get(user_id), wanted):
                await _set(held, step)

        await self._database.write(work)

    async def groups(self, viewer_id: UserId, group_ids: Sequence[GroupId]) -> list[Group]:
        """Returns groups in order; one that the viewer is no member of has version 0."""
        viewer = uuid_of(viewer_id)
        async with self._database.read() as work:
            rows = await work.rows(_GROUPS, viewer, [uuid_of(group_id) for group_id in group_ids], viewer)
        return [
            Group(group_id=GroupId(row[12]), is_past=row[13]) if row[10] is None else _group_of(row) for row in rows
        ]

    async def list_groups(self, user_id: UserId, after: bytes, limit: int) -> list[Group]:
        """Returns the groups of a user with ids after one, by id."""
        async with self._database.read() as work:
            rows = await work.rows(_GROUPS_OF, uuid_of(user_id), uuid_of(after or _BEFORE_ALL), limit)
        return [_group_of(row) for row in rows]

    async def list_members(self, viewer_id: UserId, group_id: GroupId, after: bytes, limit: int) -> MemberPage:
        """Returns members with ids after one, by id."""
        viewer, start = uuid_of(viewer_id), uuid_of(after or _BEFORE_ALL)
        async with self._database.read() as work:
            rows = await work.rows(_MEMBERS, viewer, viewer, start, limit, uuid_of(group_id))
        if not rows:
            raise group_missing()
        acting_role(None if rows[0][1] is None else GroupRole(rows[0][1]), is_past=rows[0][2])
        members = tuple(
            GroupMember(UserId(row[3]), GroupRole(row[4]), row[5], row[6]) for row in rows if row[3] is not None
        )
        return MemberPage(members, rows[0][0])


async def _set(held: Held, step: RoleStep) -> None:
    await held.work.run(
        "UPDATE group_members SET role = %s WHERE group_id = %s AND user_id = %s",
        *(int(step.role), uuid_of(held.actor.group_id), uuid_of(step.user_id)),
    )
    await held.record(GroupChangeKind.ROLE, [step.user_id], step.role)


def _uuids(user_ids: Sequence[UserId]) -> list[UUID]:
    return [uuid_of(user_id) for user_id in user_ids]


def _values_of(draft: GroupDraft) -> tuple[object, ...]:
    return (
        *(uuid_of(draft.group_id), uuid_of(draft.creator_id), draft.name, draft.description),
        *(draft.is_announcement_only, draft.expiry_s, draft.now_ms, _uuids(draft.user_ids)),
    )


def _group_of(row: Row) -> Group:
    return Group(
        group_id=GroupId(row[0]),
        name=row[1],
        description=row[2],
        creator_id=UserId(row[3]),
        owner_id=UserId(row[4]),
        create_ms=row[5],
        member_count=row[6],
        version=row[7],
        is_announcement_only=row[8],
        expiry_s=row[9],
        role=GroupRole(row[10]),
        joined_version=row[11],
    )
