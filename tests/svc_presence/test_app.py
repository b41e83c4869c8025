"""The whole registry on a real Valkey: edges report and watch, fanout asks, and its peers go and come back."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
from redis.asyncio import Redis

from chappe.api.identity.v1 import directory_service_pb2_grpc
from chappe.api.presence.v1 import presence_service_pb2, presence_service_pb2_grpc, track_pb2
from chappe.api.type.v1 import presence_pb2, stream_pb2
from chappe.runtime.app import App
from chappe.runtime.clock import system_seams
from chappe.runtime.config import Secret, load
from chappe.runtime.engines import EmbeddedValkey
from chappe.runtime.pki import SpiffeId
from svc_presence.app import build
from svc_presence.config import Config
from tests.runtime.probe import ALONE
from tests.svc_presence.fake_identity import FakeIdentity

ALICE, BOB = bytes(15) + b"a", bytes(15) + b"b"
ONLINE, UNKNOWN, HIDDEN = (
    presence_pb2.PRESENCE_STATE_ONLINE,
    presence_pb2.PRESENCE_STATE_UNKNOWN,
    presence_pb2.PRESENCE_STATE_HIDDEN,
)


class Registry:
    """A registry, its Valkey and an edge's stream."""

    def __init__(self, app: App, valkey: EmbeddedValkey, identity: FakeIdentity, stub: Any) -> None:
        self.app = app
        self.valkey = valkey
        self.identity = identity
        self.stub = stub
        self.beating: asyncio.Task[None]
        self.caller = "svc-edge"

    async def track(self) -> Any:
        self.caller = "svc-edge"
        call = self.stub.Track()
        hello = stream_pb2.StreamHello(protocol=1, peer_id="edge-1", boot_id=7, credits=1000)
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
        identity = FakeIdentity()
        server = grpc.aio.server(options=ALONE)
        directory_service_pb2_grpc.add_DirectoryServiceServicer_to_server(identity, server)
        target = f"127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
        await server.start()
        stack.push_async_callback(server.stop, 0)
        config = Config(redis_url=Secret(valkey.url), identity_target=target, redis_timeout_s=5)
        identify = lambda _: SpiffeId(trust_domain="chappe.test", service=made[0].caller)  # noqa: E731 - one line
        app = App("presence", config.server, seams=system_seams(), identify=identify)
        await stack.enter_async_context(app)
        await build(config, app)
        await app.start()
        beating = app.tasks.spawn(identity.beat(), name="beat")
        stack.callback(beating.cancel)
        channel = await stack.enter_async_context(grpc.aio.insecure_channel(app.address))
        made.append(Registry(app, valkey, identity, presence_service_pb2_grpc.PresenceServiceStub(channel)))
        made[0].beating = beating
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


# What watchers see


class Watcher:
    """An edge's stream on which one watch stands."""

    def __init__(self, call: Any) -> None:
        self._call = call
        self._number = 0
        self.views: list[int] = []

    async def write(self, **fields: Any) -> None:
        self._number += 1
        await self._call.write(track_pb2.TrackRequest(batch=track_pb2.TrackBatch(number=self._number, **fields)))

    async def refresh(self) -> None:
        """Says that Alice lives."""
        await self.write(refreshes=[track_pb2.SessionRef(user_id=ALICE, device_id=1, session_id=5)])

    async def watch(self) -> None:
        """Lets Bob watch Alice."""
        await self.write(watches=[track_pb2.PresenceWatch(number=1, viewer_user_id=BOB, target_user_id=ALICE)])

    async def sees(self, state: int, timeout_s: float = 30) -> None:
        """Reads on until the watch is told a state; on the way it must not be told that Alice is offline."""
        async with asyncio.timeout(timeout_s):
            while not self.views or self.views[-1] != state:
                response = await self._call.read()
                self.views += [one.state for one in response.news.presences]
        assert presence_pb2.PRESENCE_STATE_OFFLINE not in self.views


@pytest.fixture
async def watcher(registry: Registry) -> Watcher:
    """Bob, who watches Alice, who is online."""
    registry.identity.online.add((BOB, ALICE))
    made = Watcher(await registry.track())
    await made.refresh()
    await made.watch()
    await made.sees(ONLINE)
    return made


async def test_a_change_of_what_may_be_seen_is_told_within_two_seconds(registry: Registry, watcher: Watcher) -> None:
    registry.identity.online.clear()
    await registry.identity.change(ALICE)
    await watcher.sees(HIDDEN, timeout_s=2)

    registry.identity.online.add((BOB, ALICE))
    await registry.identity.change(BOB)
    await watcher.sees(ONLINE, timeout_s=2)


async def test_while_valkey_is_gone_people_are_unknown_and_then_seen_again(
    registry: Registry, watcher: Watcher
) -> None:
    await registry.valkey.kill()
    await watcher.refresh()
    await watcher.sees(UNKNOWN)

    await registry.valkey.start()
    await watcher.refresh()
    await watcher.sees(ONLINE)


async def test_after_a_flush_nobody_is_called_offline_and_the_edges_rebuild_it(
    registry: Registry, watcher: Watcher
) -> None:
    client: Redis = Redis.from_url(registry.valkey.url)
    await client.flushall()
    await client.aclose()

    await watcher.write(unwatches=[1])
    await watcher.watch()
    await watcher.sees(UNKNOWN)
    await watcher.refresh()
    await watcher.sees(ONLINE)


async def test_without_svc_identity_nobody_can_say(registry: Registry, watcher: Watcher) -> None:
    registry.identity.is_down = True
    registry.beating.cancel()

    await watcher.sees(UNKNOWN, timeout_s=5)
    registry.identity.is_down = False
    registry.beating = registry.app.tasks.spawn(registry.identity.beat(), name="beat")
    await watcher.sees(ONLINE)


def test_the_configuration_needs_no_more_than_the_address_of_redis_and_of_svc_identity() -> None:
    given = {
        "CHAPPE_PRESENCE_REDIS_URL": "redis://:pass@localhost:6379/0",
        "CHAPPE_PRESENCE_IDENTITY_TARGET": "svc-identity:50051",
    }
    config = load(Config, "presence", given)

    assert config.redis_url.reveal() == "redis://:pass@localhost:6379/0"
    assert "pass" not in repr(config)
