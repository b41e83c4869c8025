"""The whole carrier between a ledger, a registry and edges, each behind real gRPC."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc.aio
import pytest

from chappe.api.fanout.v1 import fanout_service_pb2, fanout_service_pb2_grpc
from chappe.api.presence.v1 import presence_service_pb2_grpc
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.app import App
from chappe.runtime.clock import system_seams
from chappe.runtime.config import ServerSettings, load
from chappe.runtime.pki import SpiffeId
from svc_fanout.app import build
from svc_fanout.config import Config
from tests.svc_fanout.fakes import FakeRegistry, ServedEdge, ServedRegistry, key, route, serving, serving_edge, user


class Mesh:
    """A carrier and its surroundings."""

    def __init__(self, stack: contextlib.AsyncExitStack) -> None:
        self.stack = stack
        self.registry = FakeRegistry()
        self.paris = ServedEdge(boot_id=7)
        self.lille = ServedEdge(boot_id=8)
        self.channel: Any = None

    async def start(self) -> App:
        await self.stack.enter_async_context(serving_edge(self.paris))
        await self.stack.enter_async_context(serving_edge(self.lille))
        register = presence_service_pb2_grpc.add_PresenceServiceServicer_to_server
        address = await self.stack.enter_async_context(serving(register, ServedRegistry(self.registry)))
        config = Config(presence_target=address, edge_target=self.paris.address, server=ServerSettings())
        app = App("fanout", config.server, seams=system_seams(), identify=lambda _: ledger())
        await self.stack.enter_async_context(app)
        await build(config, app)
        await app.start()
        self.channel = await self.stack.enter_async_context(grpc.aio.insecure_channel(app.address))
        return app

    async def dispatch(self) -> Any:
        call: Any = fanout_service_pb2_grpc.FanoutServiceStub(self.channel).Dispatch()
        hello = stream_pb2.StreamHello(protocol=1, peer_id="message-1", boot_id=3)
        await call.write(fanout_service_pb2.DispatchRequest(hello=hello))
        await call.read()
        return call


def ledger() -> SpiffeId:
    return SpiffeId(trust_domain="chappe.test", service="svc-message")


async def send(call: Any, item: bytes, *users: int) -> None:
    batch = fanout_service_pb2.DispatchBatch(
        number=1,
        items=[item],
        keys=[key(9)],
        user_counts=[len(users)],
        user_ids=[user(one) for one in users],
        origin_device_ids=[0],
        flags=[0],
    )
    await call.write(fanout_service_pb2.DispatchRequest(batch=batch))


@pytest.fixture
async def mesh() -> AsyncIterator[Mesh]:
    async with contextlib.AsyncExitStack() as stack:
        yield Mesh(stack)


async def test_an_item_reaches_users_on_two_edges(mesh: Mesh) -> None:
    await mesh.start()
    mesh.registry.routes = [route(1, mesh.paris.address, 7), route(2, mesh.lille.address, 8)]

    await send(await mesh.dispatch(), b"hello", 1, 2)

    assert await mesh.paris.deliveries.reach(1) == [(1, b"hello")]
    assert await mesh.lille.deliveries.reach(1) == [(2, b"hello")]


async def test_a_session_that_has_moved_is_found_once_more(mesh: Mesh) -> None:
    await mesh.start()
    old = route(1, mesh.paris.address, 7)
    mesh.registry.routes = [old]
    mesh.registry.later = [route(1, mesh.lille.address, 8, session_id=12)]
    mesh.paris.absent = {1}

    await send(await mesh.dispatch(), b"hello", 1)

    assert await mesh.lille.deliveries.reach(1) == [(12, b"hello")]
    assert mesh.registry.questions.entries == [([user(1)], []), ([user(1)], [old])]


async def test_a_ledger_that_vanishes_makes_every_known_edge_verify(mesh: Mesh) -> None:
    await mesh.start()
    mesh.registry.routes = [route(2, mesh.lille.address, 8)]
    call = await mesh.dispatch()
    await send(call, b"hello", 2)
    await mesh.lille.deliveries.reach(1)

    call.cancel()

    assert "without its drain marker" in (await mesh.paris.verifications.reach(1))[0]
    assert "without its drain marker" in (await mesh.lille.verifications.reach(1))[0]


async def test_stopping_ends_every_stream_politely(mesh: Mesh) -> None:
    await mesh.start()
    mesh.registry.routes = [route(1, mesh.paris.address, 7)]
    call = await mesh.dispatch()
    await send(call, b"hello", 1)
    await mesh.paris.deliveries.reach(1)
    await call.write(fanout_service_pb2.DispatchRequest(drain=stream_pb2.StreamDrain(reason="bye")))
    await call.done_writing()
    while await call.read() is not grpc.aio.EOF:
        pass

    await mesh.stack.aclose()

    assert mesh.paris.ends.entries == [True]
    assert mesh.paris.verifications.entries == []


def test_the_configuration_needs_no_more_than_the_registry() -> None:
    config = load(Config, "fanout", {"CHAPPE_FANOUT_PRESENCE_TARGET": "dns:///svc-presence:8443"})

    assert (config.presence_target, config.edge_target) == ("dns:///svc-presence:8443", "")
