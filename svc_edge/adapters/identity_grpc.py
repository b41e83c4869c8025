"""The `Identity` port over svc_identity: signing keys, the generations of devices, and the stream of changes."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

import grpc.aio

from chappe.api.identity.v1 import directory_service_pb2, session_service_pb2
from chappe.api.identity.v1.directory_service_pb2_grpc import DirectoryServiceStub
from chappe.api.identity.v1.session_service_pb2_grpc import SessionServiceStub
from chappe.runtime.batching import Batcher
from chappe.runtime.changes import ChangeStream
from chappe.runtime.errors import ChappeError, UnavailableError, from_rpc_error
from svc_edge.model import DeviceId, Revocation, SignInId, UserId

if TYPE_CHECKING:
    from collections.abc import Mapping

    from chappe.runtime.clock import Seams
    from chappe.runtime.streams import Identity as Peer
    from chappe.runtime.tasks import Tasks
    from svc_edge.ports import IdentityListener

CALL_TIMEOUT_S = 1.0
"""How long an answer is waited for, also while svc_identity is being dialled: it may have just started."""
KEY_REFRESH_INTERVAL_S = 5.0
LOOK_AGAIN_S = 5.0
"""When a changed device could not be looked up, it is tried again after this time."""
SKEW_S = 2.0
"""How far the clocks of svc_identity and the edge may be apart."""

_log = logging.getLogger(__name__)

_Question = tuple[UserId, DeviceId, "asyncio.Future[int]"]


class GrpcIdentity:
    """Knows the signing keys, asks for generations in batches, and watches changes for revocations."""

    listener: IdentityListener

    def __init__(self, channel: grpc.aio.Channel, peer: Peer, *, tasks: Tasks, seams: Seams) -> None:
        """Prepares; `start` begins to watch.

        Args:
            channel: To svc_identity.
            peer: Who this process is on its streams.
            tasks: Owns the watching.
            seams: Clock and randomness.
        """
        self._directory: Any = DirectoryServiceStub(channel)
        self._session: Any = SessionServiceStub(channel)
        self._peer = peer
        self._tasks = tasks
        self._seams = seams
        self._keys: dict[str, bytes] = {}
        self._next_refresh_s = 0.0
        self._fetching: asyncio.Task[UnavailableError | None] | None = None
        self._complete_since_s = float("inf")
        self._stream: ChangeStream | None = None
        self._batcher: Batcher[_Question] = Batcher(self._ask, tasks, name="generations", parallel=2)

    async def start(self) -> None:
        """Fetches the keys, if svc_identity is there, and begins to watch changes."""
        await self._refresh_keys()
        self._stream = ChangeStream(self._directory, self, identity=self._peer, tasks=self._tasks, seams=self._seams)

    @property
    def watched_since_s(self) -> float:
        """Every revocation since this Unix time is known; infinity while changes are not watched."""
        is_watching = self._stream is not None and self._stream.is_open
        return self._complete_since_s if is_watching else float("inf")

    async def signing_keys(self, *, is_fresh_wanted: bool) -> Mapping[str, bytes]:
        """Returns the public keys by id; those of now are fetched at most every 5 s, once for all who want them.

        Raises `UnavailableError` when they are needed and nobody answers; the known ones go on to hold.
        """
        now_s = self._seams.clock.monotonic_s()
        if is_fresh_wanted or not self._keys:
            if now_s >= self._next_refresh_s:
                self._next_refresh_s = now_s + KEY_REFRESH_INTERVAL_S
                self._fetching = self._tasks.spawn(self._fetch_keys(), name="fetch-keys")
            # A token that is not known yet must not be refused while its key is on its way.
            error = await asyncio.shield(self._fetching) if self._fetching is not None else None
            if error is not None:
                raise error
        return self._keys

    async def generation(self, user_id: UserId, device_id: DeviceId) -> int:
        """Returns the generation of a device, -1 when it is not linked; raises `UnavailableError`."""
        future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
        self._batcher.add((user_id, device_id, future))
        return await future

    async def _fetch_keys(self) -> UnavailableError | None:
        try:
            request = session_service_pb2.GetSigningKeysRequest()
            response = await self._session.GetSigningKeys(request, timeout=CALL_TIMEOUT_S, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            self._next_refresh_s = 0.0
            return _unavailable(error)
        self._keys = {key.key_id: key.public_key for key in response.keys}
        return None

    async def _refresh_keys(self) -> None:
        try:
            await self.signing_keys(is_fresh_wanted=True)
        except UnavailableError as error:
            _log.warning("going on with %d known signing keys: %s", len(self._keys), error)

    async def _ask(self, questions: list[_Question]) -> None:
        request = directory_service_pb2.BatchGetUsersRequest(user_ids=[user_id for user_id, _, _ in questions])
        try:
            response = await self._directory.BatchGetUsers(request, timeout=CALL_TIMEOUT_S, wait_for_ready=True)
        except grpc.aio.AioRpcError as error:
            refusal = _unavailable(error)
            for _, _, future in questions:
                _fail(future, refusal)
            return
        for (_, device_id, future), user in zip(questions, response.users, strict=True):
            if not future.done():
                future.set_result(_generation(user, device_id))

    def began(self) -> None:
        """Learns that the stream of changes begins: what was revoked before it is looked up, not heard of."""
        if self._complete_since_s != float("inf"):
            self.listener.revocations_lost()
        self._complete_since_s = self._seams.clock.wall_ms() / 1000 + SKEW_S

    def complete(self, until_ms: int) -> None:
        """Needs no lease: nothing of people is kept here."""

    def changed(self, change: directory_service_pb2.DirectoryChange) -> None:
        """Takes a change: a revocation, an unlinked device, new signing keys."""
        user_id, device_id = UserId(change.user_id), DeviceId(change.device_id)
        if change.kind == directory_service_pb2.DIRECTORY_CHANGE_KIND_SESSION_REVOKED:
            self.listener.revoked(Revocation(user_id, device_id, SignInId(change.session_id)))
        elif change.kind == directory_service_pb2.DIRECTORY_CHANGE_KIND_SIGNING_KEYS:
            self._next_refresh_s = 0.0
            self._tasks.spawn(self._refresh_keys(), name="refresh-keys")
        elif change.kind == directory_service_pb2.DIRECTORY_CHANGE_KIND_DEVICES and device_id:
            self._tasks.spawn(self._check_device(user_id, device_id), name="check-device")

    async def _check_device(self, user_id: UserId, device_id: DeviceId) -> None:
        generation: int | None = None
        while generation is None:
            try:
                generation = await self.generation(user_id, device_id)
            except ChappeError as error:
                # The change is told once: whoever was unlinked would stay for ever.
                _log.warning("a changed device could not be looked up: %s", error)
                await self._seams.clock.sleep(LOOK_AGAIN_S)
        if generation < 0:
            self.listener.revoked(Revocation(user_id, device_id, SignInId(b"")))


def _generation(user: directory_service_pb2.DirectoryUser, device_id: int) -> int:
    if user.state != directory_service_pb2.USER_STATE_ACTIVE:
        return -1
    generations = dict(zip(user.device_ids, user.device_generations, strict=False))
    if device_id in generations:
        return generations[device_id]
    return 0 if device_id in user.device_ids else -1


def _unavailable(error: grpc.aio.AioRpcError) -> UnavailableError:
    """Says that svc_identity does not answer, whatever it said: a refusal of the edge itself is no different here."""
    refusal = from_rpc_error(error, dependency="svc_identity")
    return refusal if isinstance(refusal, UnavailableError) else UnavailableError("svc_identity", str(refusal))


def _fail(future: asyncio.Future[int], error: ChappeError) -> None:
    if not future.done():
        future.set_exception(error)
