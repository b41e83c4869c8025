"""Invites on PostgreSQL."""

from svc_identity.adapters.database_postgres import Database, Work, uuid_of
from svc_identity.adapters.groups_postgres import hold
from svc_identity.model import Charge, UserId
from svc_identity.model.group import (
    GroupActor,
    GroupChangeKind,
    GroupId,
    GroupRole,
    Invite,
    InviteId,
)
from svc_identity.protocol.group import check_admin, check_invites, check_room, invite_missing

# Changes of an invite are made under the lock of its group, too.
_FIND = "SELECT invite_id, code_hash, expire_ms, use_limit FROM group_invites WHERE code_hash = %s"
_COUNT = """
    SELECT count(*) FROM group_invites WHERE group_id = %s AND NOT is_revoked AND expire_ms > %s
    AND (use_limit = 0 OR uses < use_limit)
"""
_INSERT = """
    INSERT INTO group_invites
        (code_hash, group_id, invite_id, creator_id, group_version, create_ms, expire_ms, use_limit)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)
"""
# One more use of an invite that works, unless the user was removed after it was made.
_USE = """
    UPDATE group_invites i SET uses = uses + 1
    WHERE code_hash = %s AND NOT is_revoked AND expire_ms > %s AND (use_limit = 0 OR uses < use_limit)
    AND NOT EXISTS (
        SELECT 1 FROM group_departures d
        WHERE d.group_id = i.group_id AND d.user_id = %s AND d.is_removed AND d.left_version > i.group_version
    )
"""


class PostgresInviteStore:
    """Keeps invites."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def create_invite(self, actor: GroupActor, invite: Invite) -> Invite:
        """Stores an invite; returns the one that is there already under this id."""

        async def work(work: Work) -> Invite:
            held = await hold(work, actor)
            check_admin(held.acting_role())
            known = await work.row(_FIND, invite.code_hash)
            if known is not None:
                return Invite(invite_id=InviteId(known[0]), code_hash=known[1], expire_ms=known[2], use_limit=known[3])
            count = await work.row(_COUNT, uuid_of(actor.group_id), actor.now_ms)
            check_invites(count[0] if count is not None else 0)
            await work.run(
                _INSERT,
                *(invite.code_hash, uuid_of(actor.group_id), uuid_of(invite.invite_id), uuid_of(actor.user_id)),
                *(held.version, actor.now_ms, invite.expire_ms, invite.use_limit),
            )
            return invite

        return await self._database.write(work)

    async def revoke_invites(self, actor: GroupActor, invite_id: InviteId | None) -> None:
        """Ends an invite, or all of the group."""
        wanted = None if invite_id is None else uuid_of(invite_id)

        async def work(work: Work) -> None:
            check_admin((await hold(work, actor)).acting_role())
            ended = await work.run(
                "UPDATE group_invites SET is_revoked = true "
                "WHERE group_id = %s AND coalesce(invite_id = %s::uuid, true)",
                *(uuid_of(actor.group_id), wanted),
            )
            if invite_id is not None and not ended:
                raise invite_missing()

        await self._database.write(work)

    async def charge_join(self, user_id: UserId, charge: Charge) -> None:
        """Takes an attempt to join from its budget."""

        async def work(work: Work) -> None:
            await work.charge(user_id, charge)

        await self._database.write(work)

    async def join(self, user_id: UserId, code_hash: bytes, now_ms: int) -> GroupId:
        """Makes a user a member; returns which group it is."""

        async def work(work: Work) -> GroupId:
            found = await work.row("SELECT group_id FROM group_invites WHERE code_hash = %s", code_hash)
            if found is None:
                raise invite_missing()
            held = await hold(work, GroupActor(GroupId(found[0]), user_id, now_ms))
            if user_id in held.roles:
                return held.actor.group_id
            if not held.member_count or not await work.run(_USE, code_hash, now_ms, uuid_of(user_id)):
                raise invite_missing()
            check_room(held.member_count, 1)
            await held.take_in([user_id], GroupRole.MEMBER)
            await held.record(GroupChangeKind.JOINED, [user_id], GroupRole.MEMBER, 1)
            return held.actor.group_id

        return await self._database.write(work)
