"""The bridge over real channels: what it does about a service that is not there, or is there again."""

import asyncio
import socket
from typing import Any

import grpc
import grpc.aio
import pytest

from chappe.api.identity.v1 import registration_service_pb2
from chappe.runtime import channels
from chappe.runtime.errors import UnavailableError
from svc_edge.adapters.bridge_grpc import GrpcBridge
from tests.runtime.probe import ALONE

SERVICE = "chappe.api.identity.v1.RegistrationService"
METHOD = f"{SERVICE}/StartVerification"
REQUEST = registration_service_pb2.StartVerificationRequest(phone_number="+12125550000").SerializeToString()
ANSWER = b"whatever the service says"


@pytest.fixture
def target() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


async def in_vain(channel: grpc.aio.Channel) -> None:
    """Returns once nobody has answered and the channel waits before it dials again."""
    while (state := channel.get_state(try_to_connect=True)) is not grpc.ChannelConnectivity.TRANSIENT_FAILURE:
        await channel.wait_for_state_change(state)


async def answer(_request: bytes, _context: object) -> bytes:
    return ANSWER


async def test_a_call_reaches_a_service_that_has_just_started(target: str) -> None:
    async with channels.channel(target, None, server_name="svc-identity") as channel:
        bridge = GrpcBridge({"identity": channel})
        await in_vain(channel)
        server = grpc.aio.server(options=ALONE)
        handlers: dict[str, Any] = {"StartVerification": grpc.unary_unary_rpc_method_handler(answer)}
        server.add_generic_rpc_handlers([grpc.method_handlers_generic_handler(SERVICE, handlers)])
        server.add_insecure_port(target)
        await server.start()

        response = await bridge.call(METHOD, REQUEST, None, "")

        await server.stop(None)
    assert response == ANSWER


async def test_a_call_to_a_service_that_stays_away_is_refused_as_retryable(target: str) -> None:
    async with channels.channel(target, None, server_name="svc-identity") as channel, asyncio.timeout(5):
        with pytest.raises(UnavailableError) as refusal:
            await GrpcBridge({"identity": channel}).call(METHOD, REQUEST, None, "")

    assert refusal.value.message == "svc_identity: it does not answer; try again"
    assert target in str(refusal.value)
