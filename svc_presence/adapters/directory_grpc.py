"""Leased copies of what svc_identity says of users and groups, kept true by its stream of changes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import grpc.aio

from chappe.api.identity.v1 import directory_service_pb2, directory_service_pb2_grpc
from chappe.runtime.changes import ChangeStream
from chappe.runtime.errors import from_rpc_error
from svc_presence.adapters.changes_grpc import Changes, Lease, Nobody
from svc_presence.model import Sight

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from chappe.runtime.clock import Seams
    from chappe.runtime.streams import Identity
    from chappe.runtime.tasks import Tasks
    from svc_presence.model import GroupId, UserId
    from svc_presence.ports import DirectoryListener

READ_TIMEOUT_S = 3.0
MAX_SIGHTS = 2048
MAX_IDS = 512
CAPACITY = 200_000

_ACTIVE = directory_service_pb2.USER_STATE_ACTIVE
_LAST_SEEN = directory_service_pb2.PRIVACY_ASPECT_LAST_SEEN
_ONLINE = directory_service_pb2.PRIVACY_ASPECT_ONLINE

Key = TypeVar("Key", bound=tuple[bytes, ...])
Value = TypeVar("Value")


class _Copies(Generic[Key, Value]):
    """Copies of one kind, by the users and groups that they are about."""

    def __init__(self, lease: Lease, read: Callable[[list[Key]], Awaitable[list[Value]]], at_once: int) -> None:
        self._lease = lease
        self._read = read
        self._at_once = at_once
        self._copies: dict[Key, tuple[int, Value]] = {}

    def get(self, key: Key) -> Value | None:
        """Returns a copy that may be used; None when there is none."""
        copy = self._copies.get(key)
        if copy is None or not self._lease.holds(copy[0], key):
            return None
        return copy[1]

    async def get_all(self, keys: Sequence[Key]) -> list[Value]:
        """Returns a value for each key, in order: copies that may be used, and the rest read through."""
        found = {key: self.get(key) for key in keys}
        missing = [key for key, value in found.items() if value is None]
        chunks = [missing[start : start + self._at_once] for start in range(0, len(missing), self._at_once)]
        for values in await asyncio.gather(*(self._fetch(chunk) for chunk in chunks)):
            found.update(values)
        return [found[key] for key in keys]  # type: ignore[misc]  # what was missing was read

    async def _fetch(self, keys: list[Key]) -> dict[Key, Value]:
        # A change that comes while the question is open ends the copy that is made of its answer.
        asked = self._lease.moment
        try:
            values = await self._read(keys)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, dependency="svc_identity") from error
        if len(self._copies) + len(keys) > CAPACITY:
            self._copies.clear()
        self._copies.update((key, (asked, value)) for key, value in zip(keys, values, strict=True))
        return dict(zip(keys, values, strict=True))


class GrpcDirectory:
    """The `Directory` port over svc_identity's DirectoryService."""

    def __init__(self, channel: grpc.aio.Channel, identity: Identity, *, tasks: Tasks, seams: Seams) -> None:
        self._stub: Any = directory_service_pb2_grpc.DirectoryServiceStub(channel)
        self._lease = Lease(seams.clock)
        self.listener: DirectoryListener = Nobody()
        changes = Changes(self._lease, lambda: self.listener)
        self._stream = ChangeStream(self._stub, changes, identity=identity, tasks=tasks, seams=seams)
        self._sights: _Copies[tuple[UserId, UserId], Sight] = _Copies(self._lease, self._read_sights, MAX_SIGHTS)
        self._members: _Copies[tuple[GroupId, UserId], bool] = _Copies(self._lease, self._read_members, MAX_IDS)
        self._blocks: _Copies[tuple[UserId], frozenset[bytes] | bool] = _Copies(self._lease, self._read_blocks, MAX_IDS)

    async def aclose(self) -> None:
        """Ends the stream of changes."""
        await self._stream.aclose()

    @property
    def is_fresh(self) -> bool:
        """Whether every change up to a moment ago is known."""
        return self._lease.is_fresh

    def sight(self, viewer_id: UserId, target_id: UserId) -> Sight | None:
        """Returns how much of a person a viewer may see, from a leased copy."""
        return self._sights.get((viewer_id, target_id))

    async def sights(self, pairs: Sequence[tuple[UserId, UserId]]) -> list[Sight]:
        """Returns how much each viewer may see of its target."""
        return await self._sights.get_all(pairs)

    def membership(self, group_id: GroupId, user_id: UserId) -> bool | None:
        """Returns whether a user is in a group, from a leased copy."""
        return self._members.get((group_id, user_id))

    async def memberships(self, pairs: Sequence[tuple[GroupId, UserId]]) -> list[bool]:
        """Returns whether each user is in its group."""
        return await self._members.get_all(pairs)

    def separation(self, one: UserId, other: UserId) -> bool | None:
        """Returns whether one of two has blocked the other, or is nobody, from leased copies."""
        ours, theirs = self._blocks.get((one,)), self._blocks.get((other,))
        return None if ours is None or theirs is None else _are_apart((one, ours), (other, theirs))

    async def separations(self, pairs: Sequence[tuple[UserId, UserId]]) -> list[bool]:
        """Returns for each pair whether one has blocked the other, or is nobody."""
        users = list(dict.fromkeys((user_id,) for pair in pairs for user_id in pair))
        blocks = dict(zip(users, await self._blocks.get_all(users), strict=True))
        return [_are_apart((one, blocks[(one,)]), (other, blocks[(other,)])) for one, other in pairs]

    async def _read_sights(self, pairs: list[tuple[UserId, UserId]]) -> list[Sight]:
        online, last_seen = await asyncio.gather(self._check(_ONLINE, pairs), self._check(_LAST_SEEN, pairs))
        return [_sight(is_online, is_last_seen) for is_online, is_last_seen in zip(online, last_seen, strict=True)]

    async def _check(self, aspect: Any, pairs: list[tuple[UserId, UserId]]) -> Sequence[bool]:
        viewer_ids, target_ids = zip(*pairs, strict=True)
        request = directory_service_pb2.CheckPrivacyRequest(
            aspect=aspect, viewer_user_ids=viewer_ids, target_user_ids=target_ids
        )
        response = await self._stub.CheckPrivacy(request, timeout=READ_TIMEOUT_S)
        may_see: Sequence[bool] = response.may_see
        return may_see

    async def _read_members(self, pairs: list[tuple[GroupId, UserId]]) -> list[bool]:
        group_ids, user_ids = zip(*pairs, strict=True)
        request = directory_service_pb2.BatchGetMembershipsRequest(group_ids=group_ids, user_ids=user_ids)
        response = await self._stub.BatchGetMemberships(request, timeout=READ_TIMEOUT_S)
        return [one.is_member for one in response.memberships]

    async def _read_blocks(self, users: list[tuple[UserId]]) -> list[frozenset[bytes] | bool]:
        request = directory_service_pb2.BatchGetUsersRequest(user_ids=[user_id for (user_id,) in users])
        response = await self._stub.BatchGetUsers(request, timeout=READ_TIMEOUT_S)
        return [frozenset(user.blocked_user_ids) if user.state == _ACTIVE else False for user in response.users]


def _sight(is_online: bool, is_last_seen: bool) -> Sight:  # noqa: FBT001 - two answers of the same kind
    """Returns how much may be seen: who may not see that somebody is online could read it off a fresh last seen."""
    if not is_online:
        return Sight.NOTHING
    return Sight.LAST_SEEN if is_last_seen else Sight.ONLINE


def _are_apart(one: tuple[bytes, frozenset[bytes] | bool], other: tuple[bytes, frozenset[bytes] | bool]) -> bool:
    (one_id, ours), (other_id, theirs) = one, other
    if isinstance(ours, bool) or isinstance(theirs, bool):
        return True
    return other_id in ours or one_id in theirs
