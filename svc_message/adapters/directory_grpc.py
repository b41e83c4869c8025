"""Leased copies of what svc_identity knows of users and groups, kept true by its stream of changes."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc.aio

from chappe.api.identity.v1 import directory_service_pb2, directory_service_pb2_grpc
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.errors import UnavailableError, from_rpc_error
from chappe.runtime.streams import DialHandler, Identity, StreamClient
from svc_message.adapters.bots_grpc import GrpcBots
from svc_message.adapters.directory_copies import Copies
from svc_message.adapters.group_directory_grpc import GrpcGroupDirectory
from svc_message.model import DirectoryUser, UserId

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from chappe.runtime.clock import Seams
    from chappe.runtime.tasks import Tasks
    from svc_message.model.group import DirectoryGroup

READ_TIMEOUT_S = 3.0
MAX_IDS = 512
WINDOW = 4096

_ACTIVE = directory_service_pb2.USER_STATE_ACTIVE
_GROUP = directory_service_pb2.DIRECTORY_CHANGE_KIND_GROUP


class _Watch(DialHandler[int, directory_service_pb2.WatchChangesRequest, directory_service_pb2.WatchChangesResponse]):
    """The stream of changes; what it sends are grants, as numbers of items."""

    def __init__(self, identity: Identity, users: Copies[DirectoryUser], groups: Copies[DirectoryGroup]) -> None:
        self._identity = identity
        self._users = users
        self._groups = groups
        self.grant: Callable[[int], None] = _ignore

    def hello(self) -> directory_service_pb2.WatchChangesRequest:
        return directory_service_pb2.WatchChangesRequest(hello=self._identity.hello(WINDOW))

    def encode(self, number: int, items: list[int]) -> directory_service_pb2.WatchChangesRequest:  # noqa: ARG002 - grants are not counted
        return directory_service_pb2.WatchChangesRequest(credit=stream_pb2.StreamCredit(items=sum(items)))

    def drain(self, reason: str) -> directory_service_pb2.WatchChangesRequest:
        return directory_service_pb2.WatchChangesRequest(drain=stream_pb2.StreamDrain(reason=reason))

    def opened(self, hello: stream_pb2.StreamHello) -> None:  # noqa: ARG002 - whoever answers is the directory
        # Without a cursor the stream starts now, so nothing that was copied or asked for before may be kept.
        self._forget()

    def received(self, kind: str, response: directory_service_pb2.WatchChangesResponse) -> None:
        if kind == "heartbeat":
            self._users.complete(response.heartbeat.complete_until_ms)
            self._groups.complete(response.heartbeat.complete_until_ms)
            return
        for change in response.batch.changes:
            if change.kind == _GROUP:
                self._groups.changed(change.group_id, change.version)
            else:
                self._users.changed(change.user_id, change.version)
        self.grant(len(response.batch.changes))

    def closed(self, unsent: list[int], *, is_clean: bool) -> None:  # noqa: ARG002 - either way the lease runs out
        self._forget()

    def _forget(self) -> None:
        self._users.forget()
        self._groups.forget()


class GrpcDirectory:
    """The `Directory` port over svc_identity's DirectoryService."""

    def __init__(self, channel: grpc.aio.Channel, identity: Identity, *, tasks: Tasks, seams: Seams) -> None:
        self._stub: Any = directory_service_pb2_grpc.DirectoryServiceStub(channel)
        self._copies: Copies[DirectoryUser] = Copies(seams.clock)
        self.groups = GrpcGroupDirectory(self._stub, Copies(seams.clock))
        """The port `GroupDirectory`, under the same lease."""
        self.bots = GrpcBots(self._stub)
        """The port `Bots`."""
        self._watch = _Watch(identity, self._copies, self.groups.copies)
        self._stream = StreamClient("watch changes", self._stub.WatchChanges, self._watch, tasks=tasks, seams=seams)
        self._ungranted = 0
        self._watch.grant = self._grant

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

    def _grant(self, items: int) -> None:
        self._ungranted += items
        if self._ungranted * 4 >= WINDOW:
            self._stream.add(self._ungranted)
            self._ungranted = 0

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


def _ignore(items: int) -> None:
    """Stands in until the stream exists."""


def _user(user: directory_service_pb2.DirectoryUser) -> DirectoryUser:
    return DirectoryUser(
        user_id=UserId(user.user_id),
        is_active=user.state == _ACTIVE,
        version=user.version,
        blocked_user_ids=frozenset(user.blocked_user_ids),
        device_ids=frozenset(user.device_ids),
        gives_read_receipts=user.gives_read_receipts,
    )
