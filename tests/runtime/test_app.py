import asyncio
import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from chappe.runtime import channels
from chappe.runtime.app import App, StartError
from chappe.runtime.clock import system_seams
from chappe.runtime.config import ServerSettings
from chappe.runtime.contract import ContractError
from chappe.runtime.health import NOT_SERVING, SERVING
from chappe.runtime.pki import DevelopmentCa, SpiffeId
from tests.runtime.probe import FILE, SERVICE, Probe, add_probe, callable_of

SETTINGS = ServerSettings(drain_s=5.0)


def as_edge(_: Any) -> SpiffeId:
    return SpiffeId(trust_domain="chappe.test", service="svc-edge")


async def answer(request: Any, context: Any) -> Any:
    return Probe(value=request.value)


def make(identify: Any = as_edge, **settings: Any) -> App:
    return App("paint", dataclasses.replace(SETTINGS, **settings), seams=system_seams(), identify=identify)


@contextlib.asynccontextmanager
async def part(name: str, log: list[str]) -> AsyncIterator[str]:
    log.append(f"open {name}")
    yield name
    log.append(f"close {name}")


def serving(app: App, behaviour: Callable[..., Any] = answer) -> None:
    app.add_door(add_probe, {"Edge": behaviour})


async def test_parts_stop_in_the_opposite_order_of_their_start() -> None:
    log: list[str] = []
    async with make() as app:
        peer = await app.add_peer(part("peer", log), name="svc_message")
        store = await app.add_store(part("store", log), name="postgres")
        app.add_listener(part("listener", log))
        serving(app)

        async def drain() -> None:
            log.append(f"drain, ready is {app.health.statuses()['ready']}")

        app.on_drain(drain)
        await app.start()

    assert (peer, store) == ("peer", "store")
    opened, closed = log[:3], log[3:]
    assert opened == ["open peer", "open store", "open listener"]
    assert closed == [f"drain, ready is {NOT_SERVING}", "close listener", "close peer", "close store"]


async def test_the_door_answers_between_start_and_stop() -> None:
    async with make() as app:
        serving(app)
        await app.start()
        async with channels.channel(app.address, None, server_name="svc-paint", contracts=[FILE]) as channel:
            reply = await callable_of(channel, "Edge")(Probe(value="hello"))
            health = await health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=30)

    assert reply.value == "hello"
    assert health.status == SERVING
    assert f'chappe_paint_calls_total{{method="/{SERVICE}/Edge"}} 1' in app.metrics.render()


async def test_a_failing_dependency_does_not_keep_the_process_from_starting() -> None:
    async def check() -> None:
        raise OSError("no route to postgres")

    async with make() as app:
        await app.add_store(part("store", []), name="postgres", check=check)
        serving(app)
        await app.start()

        assert app.health.statuses()["ready"] == NOT_SERVING
        assert app.health.failures == {"postgres": "no route to postgres"}


async def test_a_running_call_is_finished_before_the_end() -> None:
    begun, may_end = asyncio.Event(), asyncio.Event()

    async def slow(request: Any, context: Any) -> Any:
        begun.set()
        await may_end.wait()
        return Probe(value="done")

    async def drain() -> None:
        may_end.set()

    app = make()
    async with contextlib.AsyncExitStack() as stack:
        await stack.enter_async_context(app)
        serving(app, slow)
        app.on_drain(drain)
        await app.start()
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(app.address))
        call = callable_of(channel, "Edge")(Probe(), timeout=10)
        await asyncio.wait_for(begun.wait(), 5)
        await app.__aexit__(None, None, None)

        assert (await call).value == "done"


@pytest.mark.parametrize("is_hurried", [False, True])
async def test_a_call_that_does_not_end_is_cut_off(*, is_hurried: bool) -> None:
    begun = asyncio.Event()

    async def stuck(request: Any, context: Any) -> Any:
        begun.set()
        await asyncio.Event().wait()

    app = make(drain_s=60.0 if is_hurried else 0.05)
    await app.__aenter__()
    serving(app, stuck)
    await app.start()
    async with grpc.aio.insecure_channel(app.address) as channel:
        call = callable_of(channel, "Edge")(Probe(), timeout=30)
        await asyncio.wait_for(begun.wait(), 5)
        if is_hurried:
            asyncio.get_running_loop().call_later(0.05, app.hurry)
        await asyncio.wait_for(app.__aexit__(None, None, None), 10)

        with pytest.raises((grpc.aio.AioRpcError, asyncio.CancelledError)):
            await call


async def test_hurrying_changes_nothing_when_nothing_drains() -> None:
    app = make()
    app.hurry()

    async with app:
        app.hurry()

    app.hurry()
    assert app.ended.is_set()


async def test_a_peer_can_be_asked_for_health() -> None:
    async def check() -> None:
        raise OSError("no route")

    async with make() as app:
        await app.add_peer(part("peer", []), name="svc_message", check=check)
        await app.start()

        assert app.health.failures == {"svc_message": "no route"}


async def test_a_drain_hook_that_fails_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    log: list[str] = []

    async def fail() -> None:
        raise ValueError("oops")

    async def drain() -> None:
        log.append("drained")

    async with make() as app:
        app.on_drain(fail)
        app.on_drain(drain)

    assert log == ["drained"]
    assert "a drain hook failed" in caplog.text


async def test_a_crashed_task_ends_the_process() -> None:
    async def crash() -> None:
        raise ValueError("oops")

    async with make() as app:
        app.tasks.spawn(crash(), name="submit")
        await asyncio.wait_for(app.ended.wait(), 5)

        assert app.exit_code == 1
        assert app.health.statuses()["live"] == NOT_SERVING
        assert "task submit crashed" in app.health.failures["live"]


async def test_tasks_run_until_the_peers_are_closed() -> None:
    log: list[str] = []

    async def read() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            log.append("cancel reader")

    async with make() as app:
        await app.add_store(part("store", log), name="postgres")
        await app.add_peer(part("peer", log), name="svc_message")
        app.tasks.spawn(read(), name="reader")
        await app.start()

    assert log[2:] == ["close peer", "cancel reader", "close store"]


async def test_a_task_that_crashes_while_all_is_closed_does_not_fail_the_process() -> None:
    may_crash = asyncio.Event()

    async def crash() -> None:
        await may_crash.wait()
        raise OSError("the store is closed")

    async def drain() -> None:
        may_crash.set()

    async with make() as app:
        app.tasks.spawn(crash(), name="late")
        app.on_drain(drain)
        await app.start()

    assert app.exit_code == 0


async def test_a_process_without_certificates_does_not_start() -> None:
    with pytest.raises(StartError, match="set CHAPPE_PAINT_TLS_CERT_FILE"):
        await make(identify=None).__aenter__()


async def test_a_taken_port_is_told() -> None:
    async with make() as first:
        with pytest.raises(StartError, match=f"cannot listen on {first.address}"):
            await make(listen=first.address).__aenter__()


@pytest.mark.parametrize("listen", ["", "8443", "host:port"])
async def test_an_address_that_makes_no_sense_is_told(listen: str) -> None:
    with pytest.raises(StartError, match="cannot listen on"):
        await make(listen=listen).__aenter__()


async def test_a_door_without_access_options_does_not_open() -> None:
    def register(servicer: Any, server: Any) -> None:
        server.add_registered_method_handlers("grpc.health.v1.Health", {})

    async with make() as app:
        app.add_door(register, object())
        with pytest.raises(ContractError, match="Check does not say who may call it"):
            await app.start()


async def test_certificates_decide_who_is_let_in(tmp_path: Path) -> None:
    authority = DevelopmentCa.open(tmp_path)
    paint, edge, other = (
        authority.issue(name, f"spiffe://chappe.test/ns/chappe/sa/{name}", dns_names=[name])
        for name in ("svc-paint", "svc-edge", "svc-message")
    )
    files = {"tls_cert_file": paint.cert, "tls_key_file": paint.key, "tls_ca_file": paint.ca}
    async with make(identify=None, **files) as app:
        serving(app)
        await app.start()
        async with channels.channel(app.address, edge, server_name="svc-paint") as channel:
            reply = await callable_of(channel, "Edge")(Probe(value="hello"), timeout=30)
        async with channels.channel(app.address, other, server_name="svc-paint") as channel:
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await callable_of(channel, "Edge")(Probe(), timeout=30)

    assert app.tls == paint
    assert reply.value == "hello"
    assert caught.value.code() is grpc.StatusCode.PERMISSION_DENIED


async def test_probes_and_scrapers_have_ports_of_their_own() -> None:
    async with make(health_listen="127.0.0.1:0", metrics_listen="127.0.0.1:0") as app:
        serving(app)
        await app.start()
        async with grpc.aio.insecure_channel(app.addresses["health"]) as channel:
            live = await health_pb2_grpc.HealthStub(channel).Check(
                health_pb2.HealthCheckRequest(service="live"), timeout=30
            )
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await callable_of(channel, "Edge")(Probe(), timeout=30)
        host, port = app.addresses["metrics"].split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /healthz HTTP/1.1\r\n\r\n")
        page = await asyncio.wait_for(reader.read(), 5)
        writer.close()

    assert live.status == SERVING
    assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert page.endswith(b"ok\n")


@pytest.mark.parametrize("may_reflect", [True, False])
async def test_reflection_answers_only_where_it_is_allowed(*, may_reflect: bool) -> None:
    async with make(may_reflect=may_reflect) as app:
        serving(app)
        await app.start()
        async with grpc.aio.insecure_channel(app.address) as channel:
            request = reflection_pb2.ServerReflectionRequest(list_services="")
            call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([request]), timeout=30)
            if may_reflect:
                names = {service.name for service in (await call.read()).list_services_response.service}
                assert SERVICE in names
            else:
                with pytest.raises(grpc.aio.AioRpcError) as caught:
                    await call.read()
                assert caught.value.code() is grpc.StatusCode.UNIMPLEMENTED


async def test_telemetry_is_connected_when_it_is_configured() -> None:
    async with make(otlp_endpoint="http://127.0.0.1:1") as app:
        assert app.telemetry.is_on

    assert not app.telemetry.is_on
