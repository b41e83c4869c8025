"""Leased copies of what svc_identity knows of groups, and what their members may see."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc.aio

from chappe.api.edge.v1 import item_pb2
from chappe.api.identity.v1 import directory_service_pb2
from chappe.runtime.errors import from_rpc_error
from svc_message.model import ConversationId, UserId
from svc_message.model.group import DirectoryGroup, Membership, Window

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.adapters.directory_copies import Copies

READ_TIMEOUT_S = 3.0
MAX_PAIRS = 512
MAX_READS = 16
"""How many groups are read at the same time."""
MEMBER_WEIGHT = 8
"""So many members count as much as one user of whom there is a copy."""

_ADMINS = frozenset({item_pb2.GROUP_ROLE_ADMIN, item_pb2.GROUP_ROLE_OWNER})


class GrpcGroupDirectory:
    """The `GroupDirectory` port over svc_identity's DirectoryService; a `GrpcDirectory` keeps its copies true."""

    def __init__(self, stub: Any, copies: Copies[DirectoryGroup]) -> None:
        self._stub = stub
        self._limit = asyncio.Semaphore(MAX_READS)
        self.copies = copies
        """Of groups; whoever reads the stream of changes drops those that are out of date."""

    def cached(self, group_id: ConversationId) -> DirectoryGroup | None:
        """Returns the leased copy of a group."""
        return self.copies.get(group_id)

    async def read(self, group_ids: Sequence[ConversationId]) -> list[DirectoryGroup]:
        """Reads groups through; an answer that is older than a change already seen is asked for again."""
        return list(await asyncio.gather(*map(self._read, group_ids)))

    async def memberships(self, pairs: Sequence[tuple[ConversationId, UserId]]) -> list[Membership]:
        """Reads what users have to do with groups."""
        chunks = [pairs[start : start + MAX_PAIRS] for start in range(0, len(pairs), MAX_PAIRS)]
        answers = await asyncio.gather(*map(self._memberships, chunks))
        return [membership for answer in answers for membership in answer]

    async def _read(self, group_id: ConversationId) -> DirectoryGroup:
        generation = self.copies.generation
        group = await self._fetch(group_id)
        if not self._keep(group, generation):
            group = await self._fetch(group_id)
            self._keep(group, generation)
        return group

    def _keep(self, group: DirectoryGroup, generation: int) -> bool:
        weight = 1 + len(group.user_ids) // MEMBER_WEIGHT
        return self.copies.keep(group.group_id, group, generation, weight)

    async def _fetch(self, group_id: ConversationId) -> DirectoryGroup:
        request = directory_service_pb2.ListGroupMembersRequest(group_id=group_id)
        try:
            async with self._limit:
                response = await self._stub.ListGroupMembers(request, timeout=READ_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, dependency="svc_identity") from error
        return _group(group_id, response.group)

    async def _memberships(self, pairs: Sequence[tuple[ConversationId, UserId]]) -> list[Membership]:
        request = directory_service_pb2.BatchGetMembershipsRequest(
            group_ids=[group_id for group_id, _ in pairs], user_ids=[user_id for _, user_id in pairs]
        )
        try:
            response = await self._stub.BatchGetMemberships(request, timeout=READ_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, dependency="svc_identity") from error
        return [_membership(membership) for membership in response.memberships]


def _group(group_id: ConversationId, group: directory_service_pb2.DirectoryGroup) -> DirectoryGroup:
    columns = zip(group.member_user_ids, group.roles, group.joined_versions, strict=True)
    members = sorted((UserId(user_id), role in _ADMINS, joined) for user_id, role, joined in columns)
    return DirectoryGroup(
        group_id=group_id,
        exists=group.exists,
        version=group.version,
        is_announcement_only=group.is_announcement_only,
        expiry_s=group.expiry_s,
        latest_join=max(group.joined_versions, default=0),
        user_ids=tuple([user_id for user_id, _, _ in members]),
        is_admin=tuple([is_admin for _, is_admin, _ in members]),
        joined_versions=tuple([joined for _, _, joined in members]),
    )


def _membership(membership: directory_service_pb2.Membership) -> Membership:
    windows = tuple(Window(window.joined_version, window.left_version) for window in membership.windows)
    is_admin = membership.is_member and membership.role in _ADMINS
    return Membership(membership.is_member, is_admin, windows, membership.group_version)
