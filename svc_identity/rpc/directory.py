"""The door of DirectoryService."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from chappe.api.identity.v1 import directory_service_pb2 as wire
from chappe.api.identity.v1 import directory_service_pb2_grpc
from svc_identity.model import DirectoryUser, UserId
from svc_identity.rpc.watch import Watch, WatchSettings
from svc_identity.service.feed import ChangeFeed
from svc_identity.service.profile import ProfileRules


class DirectoryRpc(directory_service_pb2_grpc.DirectoryServiceServicer):
    """Tells the other services who people are and what they allow."""

    def __init__(self, rules: ProfileRules, feed: ChangeFeed, settings: WatchSettings) -> None:
        self._rules = rules
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
        # Nobody can turn them off yet.
        gives_read_receipts=bool(user.version),
    )
