"""Leased copies of users, against a svc_identity that says what a test wants."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from chappe.api.identity.v1 import directory_service_pb2 as wire
from chappe.api.identity.v1 import directory_service_pb2_grpc
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.changes import WINDOW
from chappe.runtime.clock import Seams, SystemRandomness
from chappe.runtime.errors import UnavailableError
from chappe.runtime.interceptors import abort
from chappe.runtime.streams import Identity
from chappe.runtime.tasks import Tasks
from svc_message.adapters import directory_copies
from svc_message.adapters.directory_copies import LEASE_MS
from svc_message.adapters.directory_grpc import MAX_IDS, GrpcDirectory
from svc_message.errors import NoBotError
from svc_message.model import UserId
from tests.runtime.probe import ALONE
from tests.svc_message.fakes import ManualClock

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ALICE, BOB, CAROL = (UserId(name * 16) for name in (b"A", b"B", b"C"))
Response = wire.WatchChangesResponse


class FakeIdentity(directory_service_pb2_grpc.DirectoryServiceServicer):
    """Answers with the versions that it is given, one stream after the other."""

    def __init__(self) -> None:
        self.versions: dict[bytes, int] = {ALICE: 1, BOB: 1, CAROL: 1}
        self.blocked: dict[bytes, list[bytes]] = {}
        self.groups: dict[bytes, wire.DirectoryGroup] = {}
        self.memberships: dict[tuple[bytes, bytes], wire.Membership] = {}
        self.bots: dict[str, tuple[bytes, int]] = {}
        self.bot_questions = 0
        self.pairs: list[int] = []
        self.reads: list[list[bytes]] = []
        self.gate = asyncio.Event()
        self.gate.set()
        self.is_asked = asyncio.Event()
        self.is_down = False
        self.contexts: list[Any] = []
        self.grants = 0
        self.changed = asyncio.Condition()

    async def BatchGetUsers(self, request: wire.BatchGetUsersRequest, context: Any) -> wire.BatchGetUsersResponse:
        self.reads.append(list(request.user_ids))
        users = [self._user(user_id) for user_id in request.user_ids]
        self.is_asked.set()
        await self.gate.wait()
        if self.is_down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        return wire.BatchGetUsersResponse(users=users)

    async def CheckPrivacy(self, request: wire.CheckPrivacyRequest, context: Any) -> wire.CheckPrivacyResponse:
        raise NotImplementedError

    async def BatchGetMemberships(
        self, request: wire.BatchGetMembershipsRequest, context: Any
    ) -> wire.BatchGetMembershipsResponse:
        self.pairs.append(len(request.group_ids))
        if self.is_down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        pairs = zip(request.group_ids, request.user_ids, strict=True)
        nothing = wire.Membership()
        return wire.BatchGetMembershipsResponse(memberships=[self.memberships.get(pair, nothing) for pair in pairs])

    async def ListGroupMembers(
        self, request: wire.ListGroupMembersRequest, context: Any
    ) -> wire.ListGroupMembersResponse:
        group = self.groups.get(request.group_id, wire.DirectoryGroup(group_id=request.group_id))
        self.reads.append([request.group_id])
        answer = wire.ListGroupMembersResponse()
        answer.group.CopyFrom(group)
        self.is_asked.set()
        await self.gate.wait()
        if self.is_down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        return answer

    async def GetBot(self, request: wire.GetBotRequest, context: Any) -> wire.GetBotResponse:
        self.bot_questions += 1
        if self.is_down:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        if request.spiffe_id not in self.bots:
            await abort(context, NoBotError(request.spiffe_id))
        user_id, device_id = self.bots[request.spiffe_id]
        return wire.GetBotResponse(user_id=user_id, device_id=device_id)

    async def WatchChanges(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # read, write
        del request_iterator
        await context.read()
        await context.write(Response(hello=stream_pb2.StreamHello(protocol=1, peer_id="i", boot_id=1, credits=1000)))
        self.contexts.append(context)
        await self._notify()
        while (request := await context.read()) is not grpc.aio.EOF:
            self.grants += request.credit.items
            await self._notify()

    async def say(self, response: Response) -> None:
        """Says something on the latest stream."""
        await self.contexts[-1].write(response)

    async def change(self, *user_ids: bytes, version: int) -> None:
        changes = [wire.DirectoryChange(user_id=user_id, version=version) for user_id in user_ids]
        await self.say(Response(batch=wire.ChangeBatch(changes=changes)))

    async def until(self, condition: Callable[[], bool]) -> None:
        async with self.changed, asyncio.timeout(30):
            await self.changed.wait_for(condition)

    async def _notify(self) -> None:
        async with self.changed:
            self.changed.notify_all()

    def _user(self, user_id: bytes) -> wire.DirectoryUser:
        version = self.versions.get(user_id, 0)
        return wire.DirectoryUser(
            user_id=user_id,
            state=wire.USER_STATE_ACTIVE if version else wire.USER_STATE_UNKNOWN,
            version=version,
            blocked_user_ids=self.blocked.get(user_id, []),
            device_ids=[1, 2],
            gives_read_receipts=True,
        )


class Rig:
    """A directory and the svc_identity that it reads."""

    def __init__(self, identity: FakeIdentity, directory: GrpcDirectory, clock: ManualClock) -> None:
        self.identity, self.directory, self.clock = identity, directory, clock

    async def heartbeat(self) -> None:
        """Renews the lease, and returns once the directory has it, with everything that was said before."""
        heartbeat = wire.ChangeHeartbeat(complete_until_ms=self.clock.wall_ms())
        await self.identity.say(Response(heartbeat=heartbeat))
        await self.received()

    async def received(self) -> None:
        """Returns once the directory has taken all that was said."""
        grants = self.identity.grants
        await self.identity.change(*[b"X" * 16] * (WINDOW // 4), version=1)
        await self.identity.until(lambda: self.identity.grants > grants)


@pytest.fixture
async def rig() -> AsyncIterator[Rig]:
    identity, clock = FakeIdentity(), ManualClock()
    server = grpc.aio.server(options=ALONE)
    directory_service_pb2_grpc.add_DirectoryServiceServicer_to_server(identity, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with Tasks() as tasks, grpc.aio.insecure_channel(address) as channel:
        seams = Seams(clock, SystemRandomness())
        directory = GrpcDirectory(channel, Identity("ledger-1", 7), tasks=tasks, seams=seams)
        await identity.until(lambda: len(identity.contexts) == 1)
        yield Rig(identity, directory, clock)
        with contextlib.suppress(TimeoutError):
            await directory.aclose()
    await server.stop(None)


async def test_a_user_that_was_read_is_cached_while_the_lease_lasts(rig: Rig) -> None:
    await rig.heartbeat()

    (alice,) = await rig.directory.read([ALICE])

    assert (alice.user_id, alice.is_active, alice.version) == (ALICE, True, 1)
    assert alice.device_ids == {1, 2}
    assert rig.directory.cached(ALICE) == alice
    assert rig.directory.cached(BOB) is None
    rig.clock.pass_s(LEASE_MS / 1000)
    assert rig.directory.cached(ALICE) == alice
    rig.clock.pass_s(0.001)
    assert rig.directory.cached(ALICE) is None


async def test_a_heartbeat_renews_the_lease(rig: Rig) -> None:
    await rig.heartbeat()
    await rig.directory.read([ALICE])
    rig.clock.pass_s(10)

    await rig.heartbeat()

    assert rig.directory.cached(ALICE) is not None


async def test_a_change_drops_the_copy_and_the_others_stay(rig: Rig) -> None:
    await rig.heartbeat()
    await rig.directory.read([ALICE, BOB])

    await rig.identity.change(ALICE, version=2)
    await rig.received()

    assert rig.directory.cached(ALICE) is None
    assert rig.directory.cached(BOB) is not None


async def test_a_read_older_than_a_change_already_seen_is_thrown_away_and_asked_for_again(rig: Rig) -> None:
    await rig.heartbeat()
    rig.identity.gate.clear()
    reading = asyncio.create_task(rig.directory.read([BOB, ALICE]))
    await rig.identity.is_asked.wait()

    rig.identity.versions[ALICE] = 2
    rig.identity.blocked[ALICE] = [BOB]
    await rig.identity.change(ALICE, version=2)
    await rig.received()
    rig.identity.gate.set()

    assert [user.version for user in await reading] == [1, 2]
    assert rig.identity.reads == [[BOB, ALICE], [ALICE]]
    cached = rig.directory.cached(ALICE)
    assert cached is not None
    assert cached.blocked_user_ids == {BOB}


async def test_a_read_that_began_before_the_present_stream_is_answered_and_not_kept(rig: Rig) -> None:
    rig.identity.gate.clear()
    reading = asyncio.create_task(rig.directory.read([ALICE]))
    await rig.identity.is_asked.wait()

    await rig.identity.say(Response(drain=stream_pb2.StreamDrain(reason="bye")))
    await rig.identity.until(lambda: len(rig.identity.contexts) == 2)
    await rig.heartbeat()
    rig.identity.gate.set()

    assert [user.version for user in await reading] == [1]
    assert rig.directory.cached(ALICE) is None


async def test_a_new_stream_forgets_all_copies(rig: Rig) -> None:
    await rig.heartbeat()
    await rig.directory.read([ALICE])

    await rig.identity.say(Response(drain=stream_pb2.StreamDrain(reason="bye")))
    await rig.identity.until(lambda: len(rig.identity.contexts) == 2)
    await rig.heartbeat()

    assert rig.directory.cached(ALICE) is None


async def test_a_read_is_not_kept_when_the_changes_seen_meanwhile_were_forgotten(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(directory_copies, "CAPACITY", 2)
    await rig.heartbeat()
    rig.identity.gate.clear()
    reading = asyncio.create_task(rig.directory.read([ALICE]))
    await rig.identity.is_asked.wait()

    await rig.identity.change(ALICE, version=2)
    await rig.identity.change(b"Y" * 16, b"Z" * 16, version=2)
    await rig.received()
    rig.identity.gate.set()
    await reading

    assert rig.directory.cached(ALICE) is None


async def test_copies_beyond_the_capacity_push_out_the_others(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(directory_copies, "CAPACITY", 2)
    await rig.heartbeat()

    await rig.directory.read([ALICE, BOB, CAROL])

    assert [rig.directory.cached(user_id) is None for user_id in (ALICE, BOB, CAROL)] == [True, True, False]


async def test_many_users_are_read_in_parts_and_stay_in_order(rig: Rig) -> None:
    ids = [UserId(number.to_bytes(16, "big")) for number in range(MAX_IDS + 1)]

    users = await rig.directory.read(ids)

    assert [user.user_id for user in users] == ids
    assert not any(user.is_active for user in users)
    assert sorted(map(len, rig.identity.reads)) == [1, MAX_IDS]


async def test_a_read_that_fails_says_so(rig: Rig) -> None:
    rig.identity.is_down = True

    with pytest.raises(UnavailableError, match="svc_identity"):
        await rig.directory.read([ALICE])


async def test_it_is_ready_while_the_stream_of_changes_stands(rig: Rig) -> None:
    await rig.received()
    await rig.directory.ready()

    await rig.directory.aclose()

    with pytest.raises(UnavailableError, match="is svc_identity running"):
        await rig.directory.ready()
