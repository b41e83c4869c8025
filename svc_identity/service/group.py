"""Keeps groups."""

import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from chappe.runtime.clock import Clock
from chappe.runtime.errors import InvalidFieldError
from svc_identity.errors import SelfNotAllowedError
from svc_identity.model import Charge, UserId
from svc_identity.model.group import (
    Group,
    GroupActor,
    GroupDraft,
    GroupId,
    GroupMember,
    GroupRole,
    GroupUpdate,
    Refusal,
)
from svc_identity.ports.group import GroupStore
from svc_identity.protocol.group import acting_role
from svc_identity.protocol.identifier import requested_id
from svc_identity.protocol.page import page_size
from svc_identity.service.page import Listing, Page
from svc_identity.service.registration import checked_name

GROUPS = "new groups"
"""The daily budget of groups that an account creates."""
ADDITIONS = "people added to groups"
"""The daily budget of people whom an account adds."""

_GROUP_LIST = "groups"
_MEMBER_LIST = "members/"
# Characters that reorder what follows them, or stand for a line of their own.
_UNSEEMLY = frozenset("\u2028\u2029\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupRequest:
    """What a user asks for when it creates a group."""

    request_id: bytes
    name: str
    description: str
    user_ids: Sequence[UserId]
    is_announcement_only: bool
    expiry_s: int


class GroupLimits(NamedTuple):
    """What an account may do in a day."""

    groups: int
    additions: int


class Outcome(NamedTuple):
    """A group, and who did not get into it."""

    group: Group
    refusals: list[Refusal]


class Members(NamedTuple):
    """A page of members, and the version of the group of which it is."""

    page: Page[GroupMember]
    version: int


class GroupRules:
    """Says who may do what in which group."""

    def __init__(self, store: GroupStore, clock: Clock, pepper: bytes, limits: GroupLimits) -> None:
        self._store = store
        self._clock = clock
        self._pepper = pepper
        self._limits = limits

    async def create(self, user_id: UserId, request: GroupRequest) -> Outcome:
        """Creates a group; the same request gets the same group again."""
        now_ms = self._clock.wall_ms()
        draft = GroupDraft(
            group_id=GroupId(requested_id("chappe-group", user_id, request.request_id)),
            creator_id=user_id,
            name=checked_name(request.name, "group_name"),
            description=checked_text(request.description),
            user_ids=tuple(other for other in dict.fromkeys(request.user_ids) if other != user_id),
            is_announcement_only=request.is_announcement_only,
            expiry_s=request.expiry_s,
            now_ms=now_ms,
        )
        charges = (self._charge(GROUPS, self._limits.groups), self._charge(ADDITIONS, self._limits.additions))
        refusals = await self._store.create_group(draft, charges)
        return Outcome(await self._as_seen(user_id, draft.group_id), refusals)

    async def group(self, viewer_id: UserId, group_id: GroupId) -> Group:
        """Returns a group; raises GroupNotFoundError or NotAMemberError."""
        group = await self._as_seen(viewer_id, group_id)
        acting_role(group.role, is_past=group.is_past)
        return group

    async def groups(self, viewer_id: UserId, group_ids: Sequence[GroupId]) -> list[Group]:
        """Returns groups in order; of one that the viewer is no member of only the id."""
        return await self._store.groups(viewer_id, group_ids)

    async def list(self, user_id: UserId, asked_size: int, token: str) -> Page[Group]:
        """Returns a page of a user's groups, by id."""
        listing = Listing(self._pepper, _GROUP_LIST, user_id)
        found = await self._store.list_groups(user_id, listing.start(token), page_size(asked_size) + 1)
        return listing.page(found, asked_size, lambda group: group.group_id)

    async def update(self, user_id: UserId, group_id: GroupId, update: GroupUpdate) -> Group:
        """Changes what is not None."""
        checked = replace(
            update,
            name=None if update.name is None else checked_name(update.name, "group_name"),
            description=None if update.description is None else checked_text(update.description),
        )
        await self._store.update_group(self._actor(group_id, user_id), checked)
        return await self._as_seen(user_id, group_id)

    async def add(self, user_id: UserId, group_id: GroupId, user_ids: Sequence[UserId]) -> Outcome:
        """Adds people; whoever is not refused is a member afterwards."""
        charge = self._charge(ADDITIONS, self._limits.additions)
        added = list(dict.fromkeys(user_ids))
        refusals = await self._store.add_members(self._actor(group_id, user_id), added, charge)
        return Outcome(await self._as_seen(user_id, group_id), refusals)

    async def remove(self, user_id: UserId, group_id: GroupId, other_id: UserId) -> Group:
        """Removes another.

        Raises:
            SelfNotAllowedError: It is the user itself.
        """
        if other_id == user_id:
            raise SelfNotAllowedError("a user leaves a group, it does not remove itself: call LeaveGroup")
        await self._store.remove_member(self._actor(group_id, user_id), other_id)
        return await self._as_seen(user_id, group_id)

    async def leave(self, user_id: UserId, group_id: GroupId) -> None:
        """Takes the user out, and hands over if it is the owner."""
        await self._store.leave_group(self._actor(group_id, user_id))

    async def set_role(self, user_id: UserId, group_id: GroupId, other_id: UserId, role: GroupRole) -> Group:
        """Gives a member a role."""
        await self._store.set_role(self._actor(group_id, user_id), other_id, role)
        return await self._as_seen(user_id, group_id)

    async def members(self, user_id: UserId, group_id: GroupId, asked_size: int, token: str) -> Members:
        """Returns a page of the members, by id."""
        listing = Listing(self._pepper, _MEMBER_LIST + group_id.hex(), user_id)
        found = await self._store.list_members(user_id, group_id, listing.start(token), page_size(asked_size) + 1)
        return Members(listing.page(found.members, asked_size, lambda member: member.user_id), found.version)

    def _actor(self, group_id: GroupId, user_id: UserId) -> GroupActor:
        return GroupActor(group_id, user_id, self._clock.wall_ms())

    def _charge(self, budget: str, limit: int) -> Charge:
        return Charge(budget=budget, amount=1, limit=limit, now_ms=self._clock.wall_ms())

    async def _as_seen(self, viewer_id: UserId, group_id: GroupId) -> Group:
        (group,) = await self._store.groups(viewer_id, [group_id])
        return group


def checked_text(text: str) -> str:
    """Returns a text of several lines as it is kept, without blanks around it.

    Raises:
        InvalidFieldError: It holds other control characters than ends of lines.
    """
    kept = text.replace("\r\n", "\n").strip()
    if any((unicodedata.category(letter) == "Cc" and letter != "\n") or letter in _UNSEEMLY for letter in kept):
        raise InvalidFieldError("description", "may have several lines, and no other control characters")
    return kept
