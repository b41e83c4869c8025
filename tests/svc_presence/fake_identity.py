"""A svc_identity as small as the registry lets it be, on a real gRPC server; it says what a test wants."""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Any

import grpc
import grpc.aio

from chappe.api.identity.v1 import directory_service_pb2 as wire
from chappe.api.identity.v1 import directory_service_pb2_grpc
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.clock import SystemClock
from chappe.runtime.errors import InvalidFieldError
from chappe.runtime.interceptors import abort

USER = wire.DIRECTORY_CHANGE_KIND_USER
GROUP = wire.DIRECTORY_CHANGE_KIND_GROUP
Response = wire.WatchChangesResponse


class FakeIdentity(directory_service_pb2_grpc.DirectoryServiceServicer):
    """Holds who may see what; its attributes say how it behaves."""

    def __init__(self) -> None:
        self.online: set[tuple[bytes, bytes]] = set()
        self.last_seen: set[tuple[bytes, bytes]] = set()
        self.members: set[tuple[bytes, bytes]] = set()
        self.blocked: dict[bytes, list[bytes]] = {}
        self.unknown: set[bytes] = set()
        self.reads: list[tuple[str, int]] = []
        """Which question, and about how many."""
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_asked = asyncio.Event()
        self.is_down = False
        self.cursors: list[bytes] = []
        """With which each stream began."""
        self.contexts: list[Any] = []
        self.grants = 0
        self._changed = asyncio.Condition()

    async def BatchGetUsers(self, request: wire.BatchGetUsersRequest, context: Any) -> wire.BatchGetUsersResponse:
        users = [
            wire.DirectoryUser(
                user_id=user_id,
                state=wire.USER_STATE_UNKNOWN if user_id in self.unknown else wire.USER_STATE_ACTIVE,
                blocked_user_ids=self.blocked.get(user_id, []),
            )
            for user_id in request.user_ids
        ]
        await self._answer("BatchGetUsers", len(users), context)
        return wire.BatchGetUsersResponse(users=users)

    async def CheckPrivacy(self, request: wire.CheckPrivacyRequest, context: Any) -> wire.CheckPrivacyResponse:
        table = self.online if request.aspect == wire.PRIVACY_ASPECT_ONLINE else self.last_seen
        pairs = zip(request.viewer_user_ids, request.target_user_ids, strict=True)
        may_see = [one == other or (one, other) in table for one, other in pairs]
        await self._answer("CheckPrivacy", len(may_see), context)
        return wire.CheckPrivacyResponse(may_see=may_see)

    async def BatchGetMemberships(
        self, request: wire.BatchGetMembershipsRequest, context: Any
    ) -> wire.BatchGetMembershipsResponse:
        pairs = zip(request.group_ids, request.user_ids, strict=True)
        memberships = [wire.Membership(is_member=pair in self.members) for pair in pairs]
        await self._answer("BatchGetMemberships", len(memberships), context)
        return wire.BatchGetMembershipsResponse(memberships=memberships)

    async def ListGroupMembers(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    async def GetBot(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    async def WatchChanges(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # read, write
        first = await context.read()
        if first.cursor == b"expired":
            await abort(context, InvalidFieldError("cursor", "too old"))
        await context.write(Response(hello=stream_pb2.StreamHello(protocol=1, peer_id="i", boot_id=1, credits=1000)))
        self.cursors.append(first.cursor)
        self.contexts.append(context)
        await self._notify()
        while (request := await context.read()) is not grpc.aio.EOF:
            self.grants += request.credit.items
            await self._notify()

    async def change(
        self,
        *entities: bytes,
        kind: wire.DirectoryChangeKind.ValueType = USER,
        cursor: bytes = b"after changes",
    ) -> None:
        """Says that users, or groups, have changed."""
        is_group = kind == GROUP
        changes = [
            wire.DirectoryChange(
                kind=kind, user_id=b"" if is_group else entity, group_id=entity if is_group else b"", version=1
            )
            for entity in entities
        ]
        await self.say(Response(batch=wire.ChangeBatch(changes=changes, cursor=cursor)))

    async def heartbeat(self, until_ms: int, cursor: bytes = b"after a heartbeat") -> None:
        """Says that everything up to a time was sent."""
        heartbeat = wire.ChangeHeartbeat(complete_until_ms=until_ms, cursor=cursor)
        await self.say(Response(heartbeat=heartbeat))

    async def beat(self) -> None:
        """Renews the lease of whoever listens, for ever."""
        while True:
            if self.contexts:
                await self.heartbeat(SystemClock().wall_ms())
            await asyncio.sleep(0.2)

    async def say(self, response: Response) -> None:
        """Says something on the latest stream."""
        await self.contexts[-1].write(response)

    async def break_off(self) -> None:
        """Ends the latest stream without a marker."""
        with contextlib.suppress(grpc.aio.AbortError):
            await self.contexts[-1].abort(grpc.StatusCode.UNAVAILABLE, "gone")

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until something that a stream causes holds."""
        async with self._changed, asyncio.timeout(30):
            await self._changed.wait_for(condition)

    async def _answer(self, name: str, size: int, context: Any) -> None:
        self.reads.append((name, size))
        self.is_asked.set()
        await self.gate.wait()
        if self.is_down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()
