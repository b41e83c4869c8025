"""The whole registry on a real Valkey: edges report sessions, fanout asks, Valkey goes and comes back."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest

from chappe.api.presence.v1 import presence_service_pb2, presence_service_pb2_grpc, track_pb2
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.app import App
from chappe.runtime.clock import system_seams
from chappe.runtime.config import Secret, load
from chappe.runtime.engines import EmbeddedValkey
from chappe.runtime.pki import SpiffeId
from svc_presence.app import build
from svc_presence.config import Config

ALICE = bytes(15) + b"a"


class Registry:
    """A registry, its Valkey and an edge's stream."""

    def __init__(self, app: App, valkey: EmbeddedValkey, stub: Any) -> None:
        self.app = app
        self.valkey = valkey
        self.stub = stub
        self.caller = "svc-edge"

    async def track(self) -> Any:
        self.caller = "svc-edge"
        call = self.stub.Track()
        hello = stream_pb2.StreamHello(protocol=1, peer_id="edge-1", boot_id=7)
        await call.write(track_pb2.TrackRequest(hello=hello, edge_id="10.0.0.17:7443"))
        await call.read()
        return call

    async def sessions(self) -> list[int]:
        self.caller = "svc-fanout"
        request = presence_service_pb2.LocateRequest(user_ids=[ALICE])
        return list((await self.stub.Locate(request)).session_ids)


async def refresh(call: Any, number: int) -> track_pb2.TrackResults:
    session = track_pb2.SessionRef(user_id=ALICE, device_id=1, session_id=5)
    batch = track_pb2.TrackBatch(number=number, refreshes=[session])
    await call.write(track_pb2.TrackRequest(batch=batch))
    results: track_pb2.TrackResults = (await call.read()).results
    return results


@pytest.fixture
async def registry(tmp_path: Path) -> AsyncIterator[Registry]:
    made: list[Registry] = []
    async with contextlib.AsyncExitStack() as stack:
        # Code between fork and exec may crash the child of a process in which gRPC runs threads, as it does here.
        engine = EmbeddedValkey(tmp_path / "vk", dies_with_launcher=False)
        valkey = await stack.enter_async_context(engine)
        config = Config(redis_url=Secret(valkey.url), redis_timeout_s=5)
        identify = lambda _: SpiffeId(trust_domain="chappe.test", service=made[0].caller)  # noqa: E731 - one line
        app = App("presence", config.server, seams=system_seams(), identify=identify)
        await stack.enter_async_context(app)
        await build(config, app)
        await app.start()
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(app.address))
        made.append(Registry(app, valkey, presence_service_pb2_grpc.PresenceServiceStub(channel)))
        yield made[0]


async def test_what_an_edge_reports_is_located(registry: Registry) -> None:
    call = await registry.track()

    results = await refresh(call, 1)

    assert not results.is_failed
    assert await registry.sessions() == [5]


async def test_while_valkey_is_gone_batches_fail_and_health_says_so_and_then_the_edge_reports_again(
    registry: Registry,
) -> None:
    call = await registry.track()
    await refresh(call, 1)
    await registry.valkey.kill()

    failed = await refresh(call, 2)
    await registry.app.health.refresh()
    failures = dict(registry.app.health.failures)
    await registry.valkey.start()
    written = await refresh(call, 3)
    await registry.app.health.refresh()

    assert (failed.is_failed, written.is_failed) == (True, False)
    assert list(failures) == ["redis"]
    assert registry.app.health.failures == {}
    assert await registry.sessions() == [5]


def test_the_configuration_needs_no_more_than_the_address_of_redis() -> None:
    config = load(Config, "presence", {"CHAPPE_PRESENCE_REDIS_URL": "redis://:pass@localhost:6379/0"})

    assert config.redis_url.reveal() == "redis://:pass@localhost:6379/0"
    assert "pass" not in repr(config)
