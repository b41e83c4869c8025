"""The door of DirectoryService."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from chappe.api.identity.v1 import directory_service_pb2 as wire
from chappe.api.identity.v1 import directory_service_pb2_grpc
from svc_identity.model import DirectoryUser, UserId
from svc_identity.model.group import GroupId, Membership
from svc_identity.model.privacy import PrivacyAspect
from svc_identity.rpc.group import role_to_wire
from svc_identity.rpc.watch import Watch, WatchSettings
from svc_identity.service.bot import BotRules
from svc_identity.service.feed import ChangeFeed
from svc_identity.service.membership import MembershipRules
from svc_identity.service.profile import ProfileRules


class DirectoryRpc(directory_service_pb2_grpc.DirectoryServiceServicer):
    """Tells the other services who people are and what they allow."""

    def __init__(
        self, rules: ProfileRules, pairs: MembershipRules, bots: BotRules, feed: ChangeFeed, settings: WatchSettings
    ) -> None:
        self._rules = rules
        self._pairs = pairs
        self._bots = bots
        self._feed = feed
        self._settings = settings
        self._watches: set[Watch] = set()
        self._is_draining = False

    @property
    def reader_count(self) -> int:
        """How many readers of changes there are."""
        return len(self._watches)

    async def BatchGetUsers(self, request: wire.BatchGetUsersRequest, context: Any) -> wire.BatchGetUsersResponse:
        """Returns what the other services need to know of users."""
        users = await self._rules.users([UserId(user_id) for user_id in request.user_ids])
        return wire.BatchGetUsersResponse(users=[_to_wire(user) for user in users])

    async def CheckPrivacy(self, request: wire.CheckPrivacyRequest, context: Any) -> wire.CheckPrivacyResponse:
        """Says for pairs of users whether the one may see something of the other."""
        viewer_ids = [UserId(user_id) for user_id in request.viewer_user_ids]
        target_ids = [UserId(user_id) for user_id in request.target_user_ids]
        seen = await self._pairs.may_see(PrivacyAspect(request.aspect), viewer_ids, target_ids)
        return wire.CheckPrivacyResponse(may_see=seen)

    async def BatchGetMemberships(
        self, request: wire.BatchGetMembershipsRequest, context: Any
    ) -> wire.BatchGetMembershipsResponse:
        """Says for pairs of a group and a user whether the user is a member, and which messages it may see."""
        group_ids = [GroupId(group_id) for group_id in request.group_ids]
        found = await self._pairs.memberships(group_ids, [UserId(user_id) for user_id in request.user_ids])
        return wire.BatchGetMembershipsResponse(memberships=[_membership(membership) for membership in found])

    async def ListGroupMembers(
        self, request: wire.ListGroupMembersRequest, context: Any
    ) -> wire.ListGroupMembersResponse:
        """Returns a group with all its members."""
        group = await self._pairs.group(GroupId(request.group_id))
        return wire.ListGroupMembersResponse(
            group=wire.DirectoryGroup(
                group_id=group.group_id,
                exists=bool(group.version),
                version=group.version,
                is_announcement_only=group.is_announcement_only,
                expiry_s=group.expiry_s,
                member_user_ids=group.member_ids,
                roles=[role_to_wire(role) for role in group.roles],
                joined_versions=group.joined_versions,
                group_name=group.name,
            )
        )

    async def GetBot(self, request: wire.GetBotRequest, context: Any) -> wire.GetBotResponse:
        """Returns the user as which a service of the trust domain speaks."""
        bot = await self._bots.bot(request.spiffe_id)
        return wire.GetBotResponse(user_id=bot.user_id, device_id=bot.device_id)

    async def WatchChanges(self, request_iterator: Any, context: Any) -> AsyncIterator[wire.WatchChangesResponse]:
        """Carries every change of users and sessions after a cursor."""
        watch = Watch(self._feed, self._settings)
        self._watches.add(watch)
        if self._is_draining:
            watch.drain()
        try:
            async for response in watch.serve(aiter(request_iterator)):
                yield response
        finally:
            self._watches.discard(watch)
            watch.closed.set()

    async def drain(self) -> None:
        """Ends every stream politely: its reader gets the marker and half-closes; returns when all have."""
        self._is_draining = True
        watches = list(self._watches)
        for watch in watches:
            watch.drain()
        await asyncio.gather(*(watch.closed.wait() for watch in watches))


def _to_wire(user: DirectoryUser) -> wire.DirectoryUser:
    return wire.DirectoryUser(
        user_id=user.user_id,
        state=wire.USER_STATE_ACTIVE if user.version else wire.USER_STATE_UNKNOWN,
        version=user.version,
        blocked_user_ids=user.blocked,
        device_ids=user.device_ids,
        device_generations=user.generations,
        gives_read_receipts=user.gives_read_receipts,
    )


def _membership(membership: Membership) -> wire.Membership:
    return wire.Membership(
        group_id=membership.group_id,
        user_id=membership.user_id,
        is_member=membership.role is not None,
        role=role_to_wire(membership.role),
        windows=[
            wire.MembershipWindow(joined_version=window.joined_version, left_version=window.left_version)
            for window in membership.windows
        ],
        group_version=membership.group_version,
    )
