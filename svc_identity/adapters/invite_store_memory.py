"""Invites in memory."""

from svc_identity.adapters.group_rows_memory import GroupRow, InviteRow
from svc_identity.adapters.groups_memory import GroupTables
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


class MemoryInviteStore:
    """Keeps invites, until the process ends."""

    def __init__(self, tables: GroupTables) -> None:
        self._groups = tables
        self._tables = tables.tables

    async def create_invite(self, actor: GroupActor, invite: Invite) -> Invite:
        """Stores an invite; returns the one that is there already under this id."""
        row, role = self._groups.find(actor)
        check_admin(role)
        if invite.code_hash not in row.invites:
            check_invites(sum(_works(known, actor.now_ms) for known in row.invites.values()))
            row.invites[invite.code_hash] = InviteRow(invite=invite, group_version=row.version)
        return row.invites[invite.code_hash].invite

    async def revoke_invites(self, actor: GroupActor, invite_id: InviteId | None) -> None:
        """Ends an invite, or all of the group."""
        row, role = self._groups.find(actor)
        check_admin(role)
        found = [known for known in row.invites.values() if invite_id in (None, known.invite.invite_id)]
        if invite_id is not None and not found:
            raise invite_missing()
        for known in found:
            known.is_revoked = True

    async def charge_join(self, user_id: UserId, charge: Charge) -> None:
        """Takes an attempt to join from its budget."""
        self._tables.charge(user_id, charge)

    async def join(self, user_id: UserId, code_hash: bytes, now_ms: int) -> GroupId:
        """Makes a user a member; returns which group it is."""
        row = next((row for row in self._tables.groups.values() if code_hash in row.invites), None)
        if row is None:
            raise invite_missing()
        known = row.invites[code_hash]
        if user_id in row.members:
            return row.group_id
        if not row.members or not _works(known, now_ms) or _is_banned(row, user_id, known):
            raise invite_missing()
        check_room(len(row.members), 1)
        known.uses += 1
        actor = GroupActor(row.group_id, user_id, now_ms)
        self._groups.take_in(row, [user_id], GroupRole.MEMBER, now_ms)
        self._groups.record(row, actor, GroupChangeKind.JOINED, [user_id], GroupRole.MEMBER)
        return row.group_id


def _works(known: InviteRow, now_ms: int) -> bool:
    is_used_up = 0 < known.invite.use_limit <= known.uses
    return not known.is_revoked and known.invite.expire_ms > now_ms and not is_used_up


def _is_banned(row: GroupRow, user_id: UserId, known: InviteRow) -> bool:
    return any(
        departure.user_id == user_id and departure.is_removed and departure.window.left_version > known.group_version
        for departure in row.departures
    )
