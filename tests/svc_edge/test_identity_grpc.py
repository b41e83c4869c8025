"""The edge's view of svc_identity: what is asked by many at once is asked once, and answered to all."""

import asyncio
import socket
from collections.abc import AsyncIterator

import grpc
import grpc.aio
import pytest

from chappe.api.identity.v1 import directory_service_pb2
from chappe.runtime import channels
from chappe.runtime.clock import Seams, SystemRandomness
from chappe.runtime.errors import UnavailableError
from chappe.runtime.streams import Identity
from chappe.runtime.tasks import Tasks
from svc_edge.adapters.identity_grpc import LOOK_AGAIN_S, GrpcIdentity
from svc_edge.model import DeviceId, Revocation, SignInId, UserId
from tests.svc_edge.fakes import KEY_ID, FakeMesh, LeapClock
from tests.svc_edge.test_ws import eventually

PEER = Identity("edge", 1)


@pytest.fixture
def clock() -> LeapClock:
    return LeapClock()


@pytest.fixture
async def identity(mesh: FakeMesh, clock: LeapClock) -> AsyncIterator[GrpcIdentity]:
    async with grpc.aio.insecure_channel(mesh.address) as channel, Tasks() as tasks:
        seams = Seams(clock, SystemRandomness())
        yield GrpcIdentity(channel, PEER, tasks=tasks, seams=seams)


async def test_who_asks_while_the_keys_are_fetched_gets_those(identity: GrpcIdentity) -> None:
    found = await asyncio.gather(*(identity.signing_keys(is_fresh_wanted=True) for _ in range(3)))

    assert [set(keys) for keys in found] == [{KEY_ID}] * 3


async def test_who_asks_while_the_keys_cannot_be_fetched_is_told_so(identity: GrpcIdentity, mesh: FakeMesh) -> None:
    mesh.identity_is_up = False

    asked = [identity.signing_keys(is_fresh_wanted=True) for _ in range(2)]
    found = await asyncio.gather(*asked, return_exceptions=True)

    assert [type(error) for error in found] == [UnavailableError, UnavailableError]
    mesh.identity_is_up = True
    assert set(await identity.signing_keys(is_fresh_wanted=True)) == {KEY_ID}


async def test_who_asks_while_svc_identity_starts_waits_for_it() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        mesh = FakeMesh(f"127.0.0.1:{taken.getsockname()[1]}")
    async with channels.channel(mesh.address, None, server_name="svc-identity") as channel, Tasks() as tasks:
        identity = GrpcIdentity(channel, PEER, tasks=tasks, seams=Seams(LeapClock(), SystemRandomness()))
        waiting = asyncio.ensure_future(identity.signing_keys(is_fresh_wanted=True))
        refused = grpc.ChannelConnectivity.TRANSIENT_FAILURE
        await eventually(lambda: channel.get_state(try_to_connect=True) is refused, "nobody is there yet")
        async with mesh:
            assert set(await waiting) == {KEY_ID}


class Listener:
    """Notes what was revoked."""

    def __init__(self) -> None:
        self.revocations: list[Revocation] = []

    def revoked(self, revocation: Revocation) -> None:
        self.revocations.append(revocation)

    def revocations_lost(self) -> None:
        raise NotImplementedError


async def test_a_device_that_was_unlinked_while_nobody_could_say_so_is_asked_about_again(
    identity: GrpcIdentity, mesh: FakeMesh, clock: LeapClock
) -> None:
    listener = identity.listener = Listener()
    mesh.identity_is_up = False
    kind = directory_service_pb2.DIRECTORY_CHANGE_KIND_DEVICES
    user_id, device_id = UserId(b"u" * 16), DeviceId(3)

    identity.changed(directory_service_pb2.DirectoryChange(kind=kind, user_id=user_id, device_id=device_id))
    await eventually(lambda: mesh.refused_questions, "svc_identity was asked")
    mesh.identity_is_up = True
    clock.leap(LOOK_AGAIN_S)
    await eventually(lambda: listener.revocations, "the device is revoked")

    assert listener.revocations == [Revocation(user_id, device_id, SignInId(b""))]


async def test_who_no_longer_waits_for_the_keys_takes_them_from_nobody(identity: GrpcIdentity) -> None:
    gone = asyncio.ensure_future(identity.signing_keys(is_fresh_wanted=True))
    waiting = asyncio.ensure_future(identity.signing_keys(is_fresh_wanted=True))
    await asyncio.sleep(0)

    gone.cancel()

    assert set(await waiting) == {KEY_ID}
