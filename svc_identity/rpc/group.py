"""The door of GroupService."""

from typing import Any

from chappe.api.edge.v1 import item_pb2
from chappe.api.identity.v1 import group_pb2, group_service_pb2_grpc
from chappe.api.identity.v1 import group_service_pb2 as wire
from chappe.runtime.principal import principal
from svc_identity.model import UserId
from svc_identity.model.group import Group, GroupId, GroupRole, GroupUpdate, InviteId, Refusal
from svc_identity.service.group import GroupRequest, GroupRules
from svc_identity.service.invite import InviteRules, InviteTerms


class GroupRpc(group_service_pb2_grpc.GroupServiceServicer):
    """Keeps groups."""

    def __init__(self, groups: GroupRules, invites: InviteRules) -> None:
        self._groups = groups
        self._invites = invites

    async def CreateGroup(self, request: wire.CreateGroupRequest, context: Any) -> wire.CreateGroupResponse:
        """Creates a group that the user owns."""
        asked = GroupRequest(
            request_id=request.request_id,
            name=request.group_name,
            description=request.description,
            user_ids=[UserId(user_id) for user_id in request.user_ids],
            is_announcement_only=request.is_announcement_only,
            expiry_s=request.expiry_s,
        )
        group, refusals = await self._groups.create(_user_id(), asked)
        return wire.CreateGroupResponse(group=_to_wire(group), refusals=_refusals(refusals))

    async def GetGroup(self, request: wire.GetGroupRequest, context: Any) -> wire.GetGroupResponse:
        """Returns a group."""
        group = await self._groups.group(_user_id(), GroupId(request.group_id))
        return wire.GetGroupResponse(group=_to_wire(group))

    async def BatchGetGroups(self, request: wire.BatchGetGroupsRequest, context: Any) -> wire.BatchGetGroupsResponse:
        """Returns many groups."""
        groups = await self._groups.groups(_user_id(), [GroupId(group_id) for group_id in request.group_ids])
        return wire.BatchGetGroupsResponse(groups=[_to_wire(group) for group in groups])

    async def ListGroups(self, request: wire.ListGroupsRequest, context: Any) -> wire.ListGroupsResponse:
        """Returns a page of the user's groups."""
        page = await self._groups.list(_user_id(), request.page_size, request.page_token)
        groups = [_to_wire(group) for group in page.entries]
        return wire.ListGroupsResponse(groups=groups, next_page_token=page.next_token)

    async def UpdateGroup(self, request: wire.UpdateGroupRequest, context: Any) -> wire.UpdateGroupResponse:
        """Changes name, description or settings of a group."""
        update = GroupUpdate(
            name=request.group_name if request.HasField("group_name") else None,
            description=request.description if request.HasField("description") else None,
            is_announcement_only=request.is_announcement_only if request.HasField("is_announcement_only") else None,
            expiry_s=request.expiry_s if request.HasField("expiry_s") else None,
        )
        group = await self._groups.update(_user_id(), GroupId(request.group_id), update)
        return wire.UpdateGroupResponse(group=_to_wire(group))

    async def AddMembers(self, request: wire.AddMembersRequest, context: Any) -> wire.AddMembersResponse:
        """Adds people to a group."""
        user_ids = [UserId(user_id) for user_id in request.user_ids]
        group, refusals = await self._groups.add(_user_id(), GroupId(request.group_id), user_ids)
        return wire.AddMembersResponse(group=_to_wire(group), refusals=_refusals(refusals))

    async def RemoveMember(self, request: wire.RemoveMemberRequest, context: Any) -> wire.RemoveMemberResponse:
        """Removes a member."""
        group = await self._groups.remove(_user_id(), GroupId(request.group_id), UserId(request.user_id))
        return wire.RemoveMemberResponse(group=_to_wire(group))

    async def LeaveGroup(self, request: wire.LeaveGroupRequest, context: Any) -> wire.LeaveGroupResponse:
        """Takes the user itself out of a group."""
        await self._groups.leave(_user_id(), GroupId(request.group_id))
        return wire.LeaveGroupResponse()

    async def SetRole(self, request: wire.SetRoleRequest, context: Any) -> wire.SetRoleResponse:
        """Gives a member another role."""
        role = GroupRole(request.role)
        group = await self._groups.set_role(_user_id(), GroupId(request.group_id), UserId(request.user_id), role)
        return wire.SetRoleResponse(group=_to_wire(group))

    async def ListMembers(self, request: wire.ListMembersRequest, context: Any) -> wire.ListMembersResponse:
        """Returns a page of the members."""
        group_id = GroupId(request.group_id)
        page, version = await self._groups.members(_user_id(), group_id, request.page_size, request.page_token)
        members = [
            group_pb2.GroupMember(
                user_id=member.user_id,
                role=role_to_wire(member.role),
                joined_version=member.joined_version,
                join_ms=member.join_ms,
            )
            for member in page.entries
        ]
        return wire.ListMembersResponse(members=members, version=version, next_page_token=page.next_token)

    async def CreateInvite(self, request: wire.CreateInviteRequest, context: Any) -> wire.CreateInviteResponse:
        """Makes an invite."""
        terms = InviteTerms(request.request_id, request.lifetime_s, request.use_limit)
        invite, code = await self._invites.create(_user_id(), GroupId(request.group_id), terms)
        return wire.CreateInviteResponse(
            invite=group_pb2.GroupInvite(
                invite_id=invite.invite_id, invite_code=code, expire_ms=invite.expire_ms, use_limit=invite.use_limit
            )
        )

    async def RevokeInvite(self, request: wire.RevokeInviteRequest, context: Any) -> wire.RevokeInviteResponse:
        """Ends an invite, or all of a group."""
        invite_id = InviteId(request.invite_id) if request.invite_id else None
        await self._invites.revoke(_user_id(), GroupId(request.group_id), invite_id)
        return wire.RevokeInviteResponse()

    async def JoinByInvite(self, request: wire.JoinByInviteRequest, context: Any) -> wire.JoinByInviteResponse:
        """Makes the user a member of the group that an invite opens."""
        group = await self._invites.join(_user_id(), request.invite_code)
        return wire.JoinByInviteResponse(group=_to_wire(group))


def role_to_wire(role: GroupRole | None) -> item_pb2.GroupRole.ValueType:
    """Returns a role as the contract has it; unset for none."""
    return item_pb2.GroupRole.ValueType(role or item_pb2.GROUP_ROLE_UNSPECIFIED)


def _user_id() -> UserId:
    return UserId(principal().user_id)


def _refusals(refusals: list[Refusal]) -> list[group_pb2.MemberRefusal]:
    return [
        group_pb2.MemberRefusal(user_id=refusal.user_id, reason=group_pb2.MemberRefusalReason.ValueType(refusal.reason))
        for refusal in refusals
    ]


def _to_wire(group: Group) -> group_pb2.Group:
    if group.role is None:
        return group_pb2.Group(group_id=group.group_id)
    return group_pb2.Group(
        group_id=group.group_id,
        group_name=group.name,
        description=group.description,
        creator_user_id=group.creator_id,
        owner_user_id=group.owner_id,
        create_ms=group.create_ms,
        member_count=group.member_count,
        version=group.version,
        is_announcement_only=group.is_announcement_only,
        expiry_s=group.expiry_s,
        role=role_to_wire(group.role),
        joined_version=group.joined_version,
    )
