"""Lets people into groups by invites."""

from typing import NamedTuple

from chappe.runtime.clock import Clock
from svc_identity.model import Charge, UserId
from svc_identity.model.group import Group, GroupActor, GroupId, Invite, InviteId
from svc_identity.ports.group import GroupStore, InviteStore
from svc_identity.protocol.invite import DEFAULT_LIFE_S, invite_code, invite_hash, invite_id_of

JOINS = "joins by invite"
"""The daily budget of codes that an account tries."""


class InviteTerms(NamedTuple):
    """What a user wants of an invite."""

    request_id: bytes
    lifetime_s: int
    """Zero for a week."""
    use_limit: int
    """Zero for no limit."""


class MadeInvite(NamedTuple):
    """An invite, and the code that nobody keeps but who is given it."""

    invite: Invite
    code: str


class InviteRules:
    """Says who gets in by which code."""

    def __init__(self, store: InviteStore, groups: GroupStore, clock: Clock, pepper: bytes, joins_per_day: int) -> None:
        self._store = store
        self._groups = groups
        self._clock = clock
        self._pepper = pepper
        self._joins_per_day = joins_per_day

    async def create(self, user_id: UserId, group_id: GroupId, terms: InviteTerms) -> MadeInvite:
        """Makes an invite; the same request gets the same one again."""
        now_ms = self._clock.wall_ms()
        code = invite_code(self._pepper, group_id, user_id, terms.request_id)
        code_hash = invite_hash(code)
        invite = Invite(
            invite_id=invite_id_of(code_hash),
            code_hash=code_hash,
            expire_ms=now_ms + (terms.lifetime_s or DEFAULT_LIFE_S) * 1000,
            use_limit=terms.use_limit,
        )
        return MadeInvite(await self._store.create_invite(GroupActor(group_id, user_id, now_ms), invite), code)

    async def revoke(self, user_id: UserId, group_id: GroupId, invite_id: InviteId | None) -> None:
        """Ends an invite, or all of the group."""
        await self._store.revoke_invites(GroupActor(group_id, user_id, self._clock.wall_ms()), invite_id)

    async def join(self, user_id: UserId, code: str) -> Group:
        """Makes the user a member of the group that a code opens."""
        now_ms = self._clock.wall_ms()
        charge = Charge(budget=JOINS, amount=1, limit=self._joins_per_day, now_ms=now_ms)
        await self._store.charge_join(user_id, charge)
        group_id = await self._store.join(user_id, invite_hash(code), now_ms)
        (group,) = await self._groups.groups(user_id, [group_id])
        return group
