"""The conformance suite of the port `Directory`: in memory, and over a svc_identity behind real gRPC."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import grpc.aio
import pytest

from chappe.api.identity.v1 import directory_service_pb2_grpc
from chappe.runtime.changes import WINDOW
from chappe.runtime.clock import Seams, SystemRandomness
from chappe.runtime.errors import UnavailableError
from chappe.runtime.streams import Identity
from chappe.runtime.tasks import Tasks
from svc_presence.adapters.changes_grpc import LEASE_MS, Lease
from svc_presence.adapters.directory_grpc import MAX_IDS, MAX_SIGHTS, GrpcDirectory
from svc_presence.model import GroupId, Sight, UserId
from tests.runtime.probe import ALONE
from tests.svc_presence.fake_identity import GROUP as GROUP_CHANGE
from tests.svc_presence.fake_identity import FakeIdentity
from tests.svc_presence.scene import ALICE, BOB, CAROL, GROUP, MovedClock, ToldDirectory

NOBODY = UserId(b"n" * 16)


class Listener:
    """Notes what svc_identity says by itself."""

    def __init__(self) -> None:
        self.heard: list[bytes | None] = []

    def user_changed(self, user_id: UserId) -> None:
        self.heard.append(user_id)

    def group_changed(self, group_id: GroupId) -> None:
        self.heard.append(group_id)

    def everything_changed(self) -> None:
        self.heard.append(None)


class MemoryRig:
    """The fake, and what a test may do to it."""

    def __init__(self) -> None:
        self.directory = ToldDirectory()
        self.listener = self.directory.listener = Listener()

    async def allow(self, viewer_id: UserId, target_id: UserId, sight: Sight) -> None:
        self.directory.allow(viewer_id, target_id, sight)

    async def block(self, one: UserId, other: UserId) -> None:
        self.directory.block(one, other)

    async def join(self, group_id: GroupId, user_id: UserId) -> None:
        self.directory.join(group_id, user_id)

    async def leave(self, group_id: GroupId, user_id: UserId) -> None:
        self.directory.leave(group_id, user_id)

    async def lose_lease(self) -> None:
        self.directory.stop()

    async def stop(self) -> None:
        self.directory.stop()


class GrpcRig:
    """The adapter, its svc_identity, and what a test may do to them."""

    def __init__(self, identity: FakeIdentity, directory: GrpcDirectory, clock: MovedClock) -> None:
        self.identity, self.directory, self.clock = identity, directory, clock
        self.listener = directory.listener = Listener()

    async def allow(self, viewer_id: UserId, target_id: UserId, sight: Sight) -> None:
        for table, least in ((self.identity.online, Sight.ONLINE), (self.identity.last_seen, Sight.LAST_SEEN)):
            (table.add if sight >= least else table.discard)((viewer_id, target_id))
        await self.change(target_id)

    async def block(self, one: UserId, other: UserId) -> None:
        self.identity.blocked.setdefault(one, []).append(other)
        await self.change(one)

    async def join(self, group_id: GroupId, user_id: UserId) -> None:
        self.identity.members.add((group_id, user_id))
        await self.change(group_id, is_group=True)

    async def leave(self, group_id: GroupId, user_id: UserId) -> None:
        self.identity.members.discard((group_id, user_id))
        await self.change(group_id, is_group=True)

    async def change(self, entity: bytes, *, is_group: bool = False) -> None:
        heard = len(self.listener.heard)
        if is_group:
            await self.identity.change(entity, kind=GROUP_CHANGE)
        else:
            await self.identity.change(entity)
        await eventually(lambda: len(self.listener.heard) > heard, "the change is heard")

    async def heartbeat(self) -> None:
        """Renews the lease."""
        await self.identity.heartbeat(self.clock.wall_ms())
        await eventually(lambda: self.directory.is_fresh, "the lease is renewed")

    async def lose_lease(self) -> None:
        self.clock.now_ms += LEASE_MS + 1

    async def stop(self) -> None:
        self.clock.now_ms += LEASE_MS + 1
        self.identity.is_down = True


Rig = MemoryRig | GrpcRig


async def eventually(condition: Callable[[], bool], what: str) -> None:
    """Waits until a condition holds."""
    deadline = asyncio.get_running_loop().time() + 30
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.005)


class SteppedClock(MovedClock):
    """A clock whose wall time can be set."""

    step_ms = 0

    def wall_ms(self) -> int:
        return super().wall_ms() + self.step_ms


class RealSleep(MovedClock):
    """A clock that a test moves, for a stream that comes back in real time."""

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(delay_s)


@contextlib.asynccontextmanager
async def grpc_rig() -> AsyncIterator[GrpcRig]:
    identity, clock = FakeIdentity(), RealSleep()
    server = grpc.aio.server(options=ALONE)
    directory_service_pb2_grpc.add_DirectoryServiceServicer_to_server(identity, server)
    address = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    async with Tasks() as tasks, grpc.aio.insecure_channel(address) as channel:
        seams = Seams(clock, SystemRandomness())
        directory = GrpcDirectory(channel, Identity("presence-1", 7), tasks=tasks, seams=seams)
        rig = GrpcRig(identity, directory, clock)
        await identity.until(lambda: len(identity.contexts) == 1)
        await rig.heartbeat()
        rig.listener.heard.clear()
        yield rig
        await directory.aclose()
    await server.stop(0)


@pytest.fixture
async def real() -> AsyncIterator[GrpcRig]:
    async with grpc_rig() as rig:
        yield rig


@pytest.fixture(params=["memory", "grpc"])
async def rig(request: pytest.FixtureRequest) -> AsyncIterator[Rig]:
    if request.param == "memory":
        yield MemoryRig()
        return
    async with grpc_rig() as made:
        yield made


async def test_people_see_what_they_are_allowed_and_themselves(rig: Rig) -> None:
    await rig.allow(ALICE, BOB, Sight.ONLINE)
    await rig.allow(ALICE, CAROL, Sight.LAST_SEEN)

    pairs = [(ALICE, CAROL), (ALICE, BOB), (BOB, ALICE), (ALICE, ALICE), (ALICE, BOB)]
    sights = await rig.directory.sights(pairs)

    assert sights == [Sight.LAST_SEEN, Sight.ONLINE, Sight.NOTHING, Sight.LAST_SEEN, Sight.ONLINE]
    assert [rig.directory.sight(*pair) for pair in pairs] == sights


async def test_a_change_is_told_and_an_older_copy_no_longer_used(rig: Rig) -> None:
    await rig.allow(ALICE, BOB, Sight.LAST_SEEN)
    await rig.directory.sights([(ALICE, BOB)])

    await rig.allow(ALICE, BOB, Sight.NOTHING)

    assert rig.directory.sight(ALICE, BOB) in {None, Sight.NOTHING}
    assert await rig.directory.sights([(ALICE, BOB)]) == [Sight.NOTHING]
    assert rig.listener.heard == [BOB, BOB]


async def test_members_are_told_from_strangers_and_changes_of_groups_are_told(rig: Rig) -> None:
    await rig.join(GROUP, ALICE)
    before = await rig.directory.memberships([(GROUP, ALICE), (GROUP, BOB)])

    await rig.leave(GROUP, ALICE)

    assert before == [True, False]
    assert rig.directory.membership(GROUP, ALICE) in {None, False}
    assert await rig.directory.memberships([(GROUP, ALICE)]) == [False]
    assert rig.listener.heard == [GROUP, GROUP]


async def test_a_block_separates_two_people_both_ways(rig: Rig) -> None:
    before = await rig.directory.separations([(ALICE, BOB), (BOB, ALICE)])

    await rig.block(ALICE, BOB)

    pairs = [(ALICE, BOB), (BOB, ALICE), (BOB, CAROL)]
    assert before == [False, False]
    assert await rig.directory.separations(pairs) == [True, True, False]
    assert [rig.directory.separation(*pair) for pair in pairs] == [True, True, False]


async def test_out_of_lease_there_are_no_copies(rig: Rig) -> None:
    await rig.join(GROUP, ALICE)
    await rig.directory.sights([(ALICE, BOB)])
    await rig.directory.memberships([(GROUP, ALICE)])
    await rig.directory.separations([(ALICE, BOB)])
    was_fresh = rig.directory.is_fresh

    await rig.lose_lease()

    assert (was_fresh, rig.directory.is_fresh) == (True, False)
    assert rig.directory.sight(ALICE, BOB) is None
    assert rig.directory.membership(GROUP, ALICE) is None
    assert rig.directory.separation(ALICE, BOB) is None


async def test_questions_that_nobody_answers_are_refused(rig: Rig) -> None:
    await rig.stop()

    for question in (
        rig.directory.sights([(ALICE, BOB)]),
        rig.directory.memberships([(GROUP, ALICE)]),
        rig.directory.separations([(ALICE, BOB)]),
    ):
        with pytest.raises(UnavailableError):
            await question


async def test_questions_about_nothing_are_answered(rig: Rig) -> None:
    assert await rig.directory.sights([]) == []
    assert await rig.directory.memberships([]) == []
    assert await rig.directory.separations([]) == []


# What only the adapter does


def test_a_clock_that_is_set_back_makes_no_lease_longer() -> None:
    clock = SteppedClock()
    lease = Lease(clock)
    lease.complete(clock.wall_ms())
    was_fresh = lease.is_fresh

    clock.now_ms += LEASE_MS + 1
    clock.step_ms = -3_600_000

    assert (was_fresh, lease.is_fresh) == (True, False)


async def test_copies_in_lease_are_used_without_a_question(real: GrpcRig) -> None:
    await real.directory.sights([(ALICE, BOB)])
    await real.directory.separations([(ALICE, BOB), (BOB, CAROL)])
    asked = list(real.identity.reads)

    await real.directory.sights([(ALICE, BOB), (ALICE, BOB)])
    await real.directory.separations([(CAROL, ALICE)])

    assert real.identity.reads == asked == [("CheckPrivacy", 1), ("CheckPrivacy", 1), ("BatchGetUsers", 3)]


async def test_out_of_lease_every_question_is_asked_anew(real: GrpcRig) -> None:
    await real.directory.sights([(ALICE, BOB)])
    await real.lose_lease()
    real.identity.online.add((ALICE, BOB))

    assert await real.directory.sights([(ALICE, BOB)]) == [Sight.ONLINE]
    assert real.directory.sight(ALICE, BOB) is None


async def test_last_seen_is_nothing_without_online(real: GrpcRig) -> None:
    real.identity.last_seen.add((ALICE, BOB))

    assert await real.directory.sights([(ALICE, BOB)]) == [Sight.NOTHING]


async def test_somebody_who_does_not_exist_is_apart_from_everybody(real: GrpcRig) -> None:
    real.identity.unknown.add(NOBODY)

    assert await real.directory.separations([(ALICE, NOBODY), (NOBODY, ALICE), (NOBODY, NOBODY)]) == [True] * 3


async def test_a_change_that_comes_while_the_question_is_open_ends_the_copy(real: GrpcRig) -> None:
    real.identity.gate.clear()
    real.identity.online.add((ALICE, BOB))
    asking = asyncio.create_task(real.directory.sights([(ALICE, BOB), (ALICE, CAROL)]))
    await real.identity.is_asked.wait()

    await real.allow(ALICE, BOB, Sight.NOTHING)
    real.identity.gate.set()
    await asking

    assert real.directory.sight(ALICE, BOB) is None
    assert real.directory.sight(ALICE, CAROL) is Sight.NOTHING


async def test_an_end_of_the_stream_goes_on_where_it_was_and_copies_are_kept(real: GrpcRig) -> None:
    await real.directory.sights([(ALICE, BOB)])
    await real.change(CAROL)
    real.listener.heard.clear()

    await real.identity.break_off()
    await real.identity.until(lambda: len(real.identity.contexts) == 2)
    await real.heartbeat()

    assert real.identity.cursors == [b"", b"after changes"]
    assert real.directory.sight(ALICE, BOB) is Sight.NOTHING
    assert real.listener.heard == []


async def test_a_cursor_that_is_refused_is_given_up_and_everything_may_have_changed(real: GrpcRig) -> None:
    await real.directory.sights([(ALICE, BOB)])
    real.listener.heard.clear()
    await real.identity.heartbeat(real.clock.wall_ms(), b"expired")
    await real.identity.change(CAROL, cursor=b"expired")
    await eventually(lambda: real.listener.heard != [], "the change is heard")
    real.listener.heard.clear()

    await real.identity.break_off()
    await real.identity.until(lambda: len(real.identity.contexts) == 2)
    await eventually(lambda: real.listener.heard != [], "everything may have changed")
    await real.heartbeat()

    assert real.identity.cursors == [b"", b""]
    assert real.listener.heard == [None]
    assert real.directory.sight(ALICE, BOB) is None


async def test_large_questions_are_split(real: GrpcRig) -> None:
    people = [UserId(number.to_bytes(16, "little")) for number in range(MAX_SIGHTS + 1)]

    sights = await real.directory.sights([(ALICE, person) for person in people])
    members = await real.directory.memberships([(GROUP, person) for person in people[: MAX_IDS + 1]])

    assert (set(sights), set(members)) == ({Sight.NOTHING}, {False})
    assert sorted(size for name, size in real.identity.reads if name == "CheckPrivacy") == [
        1,
        1,
        MAX_SIGHTS,
        MAX_SIGHTS,
    ]
    assert sorted(size for name, size in real.identity.reads if name == "BatchGetMemberships") == [1, MAX_IDS]


async def test_changes_that_were_taken_are_granted_again(real: GrpcRig) -> None:
    await real.identity.change(*[CAROL] * (WINDOW // 4))

    await real.identity.until(lambda: real.identity.grants == WINDOW // 4)


async def test_so_many_changes_that_they_cannot_be_counted_end_all_copies(
    real: GrpcRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svc_presence.adapters.changes_grpc.CAPACITY", 3)
    await real.directory.sights([(ALICE, BOB)])

    for number in range(5):
        await real.change(number.to_bytes(16, "big"))

    assert real.directory.sight(ALICE, BOB) is None
    await real.directory.sights([(ALICE, BOB)])
    assert real.directory.sight(ALICE, BOB) is Sight.NOTHING


async def test_more_copies_than_there_is_room_for_are_forgotten(real: GrpcRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svc_presence.adapters.directory_grpc.CAPACITY", 2)

    await real.directory.sights([(ALICE, BOB), (ALICE, CAROL)])
    await real.directory.sights([(BOB, ALICE)])

    assert real.directory.sight(ALICE, BOB) is None
    assert real.directory.sight(BOB, ALICE) is Sight.NOTHING
