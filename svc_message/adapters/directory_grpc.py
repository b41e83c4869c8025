"""Leased copies of what svc_identity knows of users and groups, kept true by its stream of changes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc.aio

from chappe.api.identity.v1 import directory_service_pb2, directory_service_pb2_grpc
from chappe.runtime.changes import ChangeStream
from chappe.runtime.errors import UnavailableError, from_rpc_error
from svc_message.adapters.bots_grpc import GrpcBots
from svc_message.adapters.directory_copies import Copies
from svc_message.adapters.group_directory_grpc import GrpcGroupDirectory
from svc_message.model import DirectoryUser, UserId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chappe.runtime.clock import Seams
    from chappe.runtime.streams import Identity
    from chappe.runtime.tasks import Tasks
    from svc_message.model.group import DirectoryGroup

READ_TIMEOUT_S = 3.0
MAX_IDS = 512

_ACTIVE = directory_service_pb2.USER_STATE_ACTIVE
_GROUP = directory_service_pb2.DIRECTORY_CHANGE_KIND_GROUP


class _Listener:
    """Drops copies that are out of date, and renews the lease of the others."""

    def __init__(self, users: Copies[DirectoryUser], groups: Copies[DirectoryGroup]) -> None:
        self._users = users
        self._groups = groups

    def began(self) -> None:
        self._users.forget()
        self._groups.forget()

    def changed(self, change: directory_service_pb2.DirectoryChange) -> None:
        if change.kind == _GROUP:
            self._groups.changed(change.group_id, change.version)
        else:
            self._users.changed(change.user_id, change.version)

    def complete(self, until_ms: int) -> None:
        self._users.complete(until_ms)
        self._groups.complete(until_ms)


class GrpcDirectory:
    """The `Directory` port over svc_identity's DirectoryService."""

    def __init__(self, channel: grpc.aio.Channel, identity: Identity, *, tasks: Tasks, seams: Seams) -> None:
        self._stub: Any = directory_service_pb2_grpc.DirectoryServiceStub(channel)
        self._copies: Copies[DirectoryUser] = Copies(seams.clock)
        self.groups = GrpcGroupDirectory(self._stub, Copies(seams.clock))
        """The port `GroupDirectory`, under the same lease."""
        self.bots = GrpcBots(self._stub)
        """The port `Bots`."""
        listener = _Listener(self._copies, self.groups.copies)
        self._stream = ChangeStream(self._stub, listener, identity=identity, tasks=tasks, seams=seams)

    async def aclose(self) -> None:
        """Ends the stream of changes."""
        await self._stream.aclose()

    def cached(self, user_id: UserId) -> DirectoryUser | None:
        """Returns the leased copy of a user."""
        return self._copies.get(user_id)

    async def read(self, user_ids: Sequence[UserId]) -> list[DirectoryUser]:
        """Reads users through; an answer that is older than a change already seen is asked for again."""
        chunks = [user_ids[start : start + MAX_IDS] for start in range(0, len(user_ids), MAX_IDS)]
        answers = await asyncio.gather(*(self._read(chunk) for chunk in chunks))
        return [user for answer in answers for user in answer]

    async def ready(self) -> None:
        """Returns when the stream of changes stands; raises `UnavailableError`."""
        if not self._stream.is_open:
            raise UnavailableError("svc_identity", "the stream of changes does not stand; is svc_identity running?")

    async def _read(self, user_ids: Sequence[UserId]) -> list[DirectoryUser]:
        generation = self._copies.generation
        users = await self._fetch(user_ids)
        outdated = [user.user_id for user in users if not self._copies.keep(user.user_id, user, generation)]
        if not outdated:
            return users
        newer = {user.user_id: user for user in await self._fetch(outdated)}
        for user in newer.values():
            self._copies.keep(user.user_id, user, generation)
        return [newer.get(user.user_id, user) for user in users]

    async def _fetch(self, user_ids: Sequence[UserId]) -> list[DirectoryUser]:
        request = directory_service_pb2.BatchGetUsersRequest(user_ids=user_ids)
        try:
            response = await self._stub.BatchGetUsers(request, timeout=READ_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            raise from_rpc_error(error, dependency="svc_identity") from error
        return [_user(user) for user in response.users]


def _user(user: directory_service_pb2.DirectoryUser) -> DirectoryUser:
    return DirectoryUser(
        user_id=UserId(user.user_id),
        is_active=user.state == _ACTIVE,
        version=user.version,
        blocked_user_ids=frozenset(user.blocked_user_ids),
        device_ids=frozenset(user.device_ids),
        gives_read_receipts=user.gives_read_receipts,
    )
