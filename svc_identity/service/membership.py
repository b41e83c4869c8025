"""Answers the other services who is in which group, and who may see what of whom."""

from collections.abc import Sequence

from chappe.runtime.errors import InvalidFieldError
from svc_identity.model import UserId
from svc_identity.model.group import DirectoryGroup, GroupId, Membership
from svc_identity.model.privacy import PrivacyAspect
from svc_identity.ports.group import MembershipStore
from svc_identity.ports.privacy import PrivacyStore


class MembershipRules:
    """Answers about pairs."""

    def __init__(self, memberships: MembershipStore, privacy: PrivacyStore) -> None:
        self._memberships = memberships
        self._privacy = privacy

    async def group(self, group_id: GroupId) -> DirectoryGroup:
        """Returns a group with all its members; one that does not exist has version 0."""
        return await self._memberships.directory_group(group_id)

    async def memberships(self, group_ids: Sequence[GroupId], user_ids: Sequence[UserId]) -> list[Membership]:
        """Returns what users have to do with groups, in order.

        Raises:
            InvalidFieldError: There are not as many of the ones as of the others.
        """
        if len(group_ids) != len(user_ids):
            raise InvalidFieldError("user_ids", "name one user for each group, in one order")
        return await self._memberships.memberships(list(zip(group_ids, user_ids, strict=True)))

    async def may_see(
        self, aspect: PrivacyAspect, viewer_ids: Sequence[UserId], target_ids: Sequence[UserId]
    ) -> list[bool]:
        """Says for pairs whether the one may see that aspect of the other, in order.

        Raises:
            InvalidFieldError: There are not as many viewers as targets.
        """
        if len(viewer_ids) != len(target_ids):
            raise InvalidFieldError("target_user_ids", "name one target for each viewer, in one order")
        return await self._privacy.may_see(aspect, list(zip(viewer_ids, target_ids, strict=True)))
