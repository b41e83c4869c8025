"""The way to svc_presence, over real gRPC."""

from collections.abc import AsyncIterator

import pytest

from chappe.api.presence.v1 import presence_service_pb2, presence_service_pb2_grpc
from chappe.runtime.channels import channel
from chappe.runtime.errors import UnavailableError
from svc_fanout.adapters.presence_grpc import GrpcRegistry
from tests.svc_fanout.fakes import FakeRegistry, ServedRegistry, route, serving, user


@pytest.fixture
def behind() -> FakeRegistry:
    return FakeRegistry(route(1, "a:1"), route(1, "b:2", 2**64 - 1, 2, 12), route(3, "a:1"))


@pytest.fixture
async def registry(behind: FakeRegistry) -> AsyncIterator[GrpcRegistry]:
    register = presence_service_pb2_grpc.add_PresenceServiceServicer_to_server
    async with (
        serving(register, ServedRegistry(behind)) as address,
        channel(address, None, server_name="svc-presence", contracts=[presence_service_pb2.DESCRIPTOR]) as to_presence,
    ):
        yield GrpcRegistry(to_presence, timeout_s=2)


async def test_routes_come_back_as_they_are(registry: GrpcRegistry, behind: FakeRegistry) -> None:
    located = await registry.locate([user(3), user(2), user(1)], [])

    assert located.routes == {user(3): [behind.routes[2]], user(1): behind.routes[:2]}
    assert set(located.edge_ids) == {"a:1", "b:2"}


async def test_gone_routes_are_named(registry: GrpcRegistry, behind: FakeRegistry) -> None:
    gone = behind.routes[1]

    located = await registry.locate([user(1)], [gone])

    assert behind.questions.entries == [([user(1)], [gone])]
    assert located.routes == {user(1): [route(1, "a:1")]}


async def test_nobody_is_online(registry: GrpcRegistry) -> None:
    assert await registry.locate([user(9)], []) == ({}, [])


async def test_a_registry_that_is_down_is_unavailable(registry: GrpcRegistry, behind: FakeRegistry) -> None:
    behind.is_down = True

    with pytest.raises(UnavailableError, match="svc_presence"):
        await registry.locate([user(1)], [])


async def test_a_registry_that_does_not_answer_in_time_is_unavailable(behind: FakeRegistry) -> None:
    behind.gate.clear()
    register = presence_service_pb2_grpc.add_PresenceServiceServicer_to_server
    async with (
        serving(register, ServedRegistry(behind)) as address,
        channel(address, None, server_name="svc-presence") as to_presence,
    ):
        registry = GrpcRegistry(to_presence, timeout_s=0.1)

        with pytest.raises(UnavailableError, match="DEADLINE_EXCEEDED"):
            await registry.locate([user(1)], [])
