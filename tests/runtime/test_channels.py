import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from chappe.api.message.v1 import history_service_pb2, message_service_pb2
from chappe.runtime import channels, pki, tls
from chappe.runtime.errors import ChappeError, UnavailableError, from_rpc_error
from chappe.runtime.interceptors import DoorInterceptor, Gate
from chappe.runtime.pki import SpiffeId
from tests.runtime.probe import FILE, REALM, Probe, callable_of, serve


class Flaky:
    """Fails a number of times, then answers."""

    def __init__(self, failures: int) -> None:
        self.left = failures
        self.calls = 0

    async def __call__(self, request: Any, context: Any) -> Any:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise UnavailableError("postgres", "busy")
        return Probe(value="here")

    async def answer(self, request: Any, context: Any) -> Any:
        return await self(request, context)


async def call_flaky(flaky: Flaky, method: str, service: str) -> str:
    def identify(_: Any) -> SpiffeId:
        return SpiffeId(trust_domain="chappe.test", service=service)

    guard = DoorInterceptor(Gate(REALM, identify), lambda: "0" * 32)
    async with (
        serve({method: flaky.answer}, [guard], options=channels.server_options()) as served,
        channels.channel(served.address, None, server_name="svc-probe", contracts=[FILE]) as channel,
    ):
        reply = await callable_of(channel, method)(Probe())
    return str(reply.value)


async def test_an_idempotent_call_is_retried() -> None:
    flaky = Flaky(2)

    assert await call_flaky(flaky, "Edge", "svc-edge") == "here"
    assert flaky.calls == 3


async def test_a_call_that_is_not_idempotent_is_made_once() -> None:
    flaky = Flaky(1)

    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call_flaky(flaky, "Message", "svc-message")

    assert from_rpc_error(caught.value).reason == "DEPENDENCY_UNAVAILABLE"
    assert flaky.calls == 1


async def test_calls_go_round_over_all_addresses() -> None:
    first, second = Flaky(0), Flaky(0)
    async with serve({"Edge": first.answer}, []) as one, serve({"Edge": second.answer}, []) as two:
        target = f"{one.address},{two.address}"
        async with channels.channel(target, None, server_name="svc-probe") as channel:
            while not (first.calls and second.calls):
                await callable_of(channel, "Edge")(Probe(), timeout=30)

    assert min(first.calls, second.calls) >= 1


async def test_the_server_must_have_the_name_that_is_dialled(tmp_path: Path) -> None:
    authority = pki.DevelopmentCa.open(tmp_path)
    server, client = (
        authority.issue(name, f"spiffe://chappe.test/ns/chappe/sa/{name}", dns_names=[name])
        for name in ("svc-probe", "svc-edge")
    )
    guard = DoorInterceptor(Gate(REALM), lambda: "0" * 32)
    async with serve({"Edge": Flaky(0).answer}, [guard], tls.server_credentials(server)) as served:
        async with channels.channel(served.address, client, server_name="svc-probe") as channel:
            reply = await callable_of(channel, "Edge")(Probe(), timeout=30)
        async with channels.channel(served.address, client, server_name="svc-message") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await callable_of(channel, "Edge")(Probe(), timeout=30)

    assert reply.value == "here"
    assert caught.value.code() is grpc.StatusCode.UNAVAILABLE


async def refuse(metadata: Any = (), value: str = "") -> grpc.StatusCode:
    async with (
        serve({"Edge": Flaky(0).answer}, [], options=channels.server_options()) as served,
        grpc.aio.insecure_channel(served.address) as channel,
    ):
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await callable_of(channel, "Edge")(Probe(value=value), metadata=metadata, timeout=30)
    return caught.value.code()


async def test_a_message_above_the_limit_is_refused() -> None:
    assert await refuse(value="x" * (channels.MAX_MESSAGE_BYTES + 1)) is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_metadata_above_the_limit_is_refused() -> None:
    assert await refuse([("x-large", "x" * 20_000)]) is grpc.StatusCode.RESOURCE_EXHAUSTED


@contextlib.asynccontextmanager
async def slow_to_answer(address: str, delay_s: float) -> AsyncGenerator[str]:
    """Stands before a server, and passes on what it says only after a while."""
    host, port = channels.split_address(address)

    async def copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await reader.read(65_536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def serve_one(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there_reader, there_writer = await asyncio.open_connection(host, port)
        loop = asyncio.get_running_loop()
        is_due = asyncio.Event()
        loop.call_later(delay_s, is_due.set)

        async def answer() -> None:
            await is_due.wait()
            await copy(there_reader, writer)

        await asyncio.gather(copy(reader, there_writer), answer())

    async with await asyncio.start_server(serve_one, "127.0.0.1", 0) as server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}"


async def test_a_server_that_takes_a_while_to_shake_hands_is_reached() -> None:
    async with (
        serve({"Edge": Flaky(0).answer}, [], options=channels.server_options()) as served,
        slow_to_answer(served.address, 0.6) as address,
        channels.channel(address, None, server_name="svc-probe") as channel,
    ):
        reply = await callable_of(channel, "Edge")(Probe(), timeout=30)

    assert reply.value == "here"


async def test_a_peer_that_is_not_there_is_unavailable() -> None:
    async with channels.channel("127.0.0.1:1", None, server_name="svc-probe") as channel:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await callable_of(channel, "Edge")(Probe(), timeout=30)

    error: ChappeError = from_rpc_error(caught.value, dependency="svc_probe")
    assert error.metadata == {"dependency": "svc_probe"}


def test_only_idempotent_unary_methods_of_the_contract_are_retried() -> None:
    config = json.loads(channels.service_config([message_service_pb2.DESCRIPTOR, history_service_pb2.DESCRIPTOR, FILE]))
    configs = {entry["name"][0]["method"]: entry for entry in config["methodConfig"]}

    assert "retryPolicy" in configs["ListMessages"]
    assert "retryPolicy" not in configs["Message"]
    assert "Submit" not in configs
    assert all(entry["timeout"] == "10s" for entry in configs.values())


@pytest.mark.parametrize(
    ("written", "target"),
    [
        ("svc-message:8443", "dns:///svc-message:8443"),
        ("127.0.0.1:1", "ipv4:127.0.0.1:1"),
        ("127.0.0.1:1, 127.0.0.2:1", "ipv4:127.0.0.1:1,127.0.0.2:1"),
        ("[::1]:1", "ipv6:[::1]:1"),
        ("unix:/tmp/x.sock", "unix:/tmp/x.sock"),
    ],
)
def test_targets_are_written_as_people_do(written: str, target: str) -> None:
    assert channels.grpc_target(written) == target


@pytest.mark.parametrize(
    "written", ["", "svc-message", "a:1,b:2", "127.0.0.1:1,[::1]:2", ":80", "a:b", "a:65536", "a:٤٢"]
)
def test_a_target_that_cannot_be_dialled_is_refused(written: str) -> None:
    with pytest.raises(channels.AddressError, match="write"):
        channels.grpc_target(written)
