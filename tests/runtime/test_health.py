import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chappe.runtime.clock import SystemClock
from chappe.runtime.errors import UnavailableError
from chappe.runtime.health import NOT_SERVING, SERVICE_UNKNOWN, SERVING, Health, add_health
from chappe.runtime.tasks import Tasks
from tests.runtime.probe import ALONE


class Store:
    """A dependency that can be broken."""

    def __init__(self) -> None:
        self.problem: Exception | None = None
        self.is_stuck = False

    async def ready(self) -> None:
        if self.is_stuck:
            await asyncio.Event().wait()
        if self.problem is not None:
            raise self.problem


def make(store: Store, **more: float) -> Health:
    return Health({"store": store.ready}, clock=SystemClock(), **more)


@contextlib.asynccontextmanager
async def stub_of(health: Health) -> AsyncIterator[Any]:
    server = grpc.aio.server(options=ALONE)
    add_health(health, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield health_pb2_grpc.HealthStub(channel)
    health.close()
    await server.stop(5)


def ask(service: str) -> Any:
    return health_pb2.HealthCheckRequest(service=service)


async def test_nothing_is_ready_before_it_was_asked() -> None:
    health = make(Store())
    health.open()

    assert health.statuses() == {"": NOT_SERVING, "ready": NOT_SERVING, "live": SERVING, "store": NOT_SERVING}


async def test_everything_serves_when_every_dependency_answers() -> None:
    health = make(Store())
    health.open()

    await health.refresh()

    assert set(health.statuses().values()) == {SERVING}
    assert not health.failures


async def test_a_process_that_still_starts_is_not_ready() -> None:
    health = make(Store())

    await health.refresh()

    assert health.statuses()["ready"] == NOT_SERVING
    assert health.statuses()["store"] == SERVING


@pytest.mark.parametrize(
    ("problem", "text"), [(UnavailableError("postgres", "gone"), "postgres: gone"), (OSError(), "OSError")]
)
async def test_a_failing_dependency_is_told_with_its_text(problem: Exception, text: str) -> None:
    store = Store()
    health = make(store)
    health.open()
    store.problem = problem

    await health.refresh()

    assert health.failures == {"store": text}
    assert health.statuses()["ready"] == NOT_SERVING
    assert health.statuses()["live"] == SERVING


async def test_a_stuck_dependency_fails_in_bounded_time() -> None:
    store = Store()
    store.is_stuck = True
    health = make(store, timeout_s=0.01)

    await health.refresh()

    assert health.failures == {"store": "no answer within 0.01 s"}


async def test_a_draining_process_is_not_ready_but_alive() -> None:
    health = make(Store())
    health.open()
    await health.refresh()

    health.drain()

    assert health.statuses() == {"": NOT_SERVING, "ready": NOT_SERVING, "live": SERVING, "store": SERVING}


async def test_a_process_that_must_be_restarted_says_why() -> None:
    health = make(Store())

    health.die("task submit crashed")

    assert health.statuses()["live"] == NOT_SERVING
    assert health.failures["live"] == "task submit crashed"


@pytest.mark.parametrize("name", ["live", "ready", "", "store"])
async def test_a_name_that_is_taken_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="exists already"):
        make(Store()).add(name, Store().ready)


async def test_the_door_answers_check_and_list() -> None:
    health = make(Store())
    health.open()
    await health.refresh()
    async with stub_of(health) as stub:
        ready = await stub.Check(ask("ready"), timeout=30)
        listed = await stub.List(health_pb2.HealthListRequest(), timeout=30)

    assert ready.status == SERVING
    assert {name: entry.status for name, entry in listed.statuses.items()} == health.statuses()


async def test_the_door_knows_no_other_names() -> None:
    async with stub_of(make(Store())) as stub:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await stub.Check(ask("redy"), timeout=30)
        watched = await stub.Watch(ask("redy"), timeout=5).read()

    assert caught.value.code() is grpc.StatusCode.NOT_FOUND
    assert "'ready'" in str(caught.value.details())
    assert watched.status == SERVICE_UNKNOWN


async def test_a_watcher_sees_each_change_and_is_sent_away_at_the_end() -> None:
    store, seen = Store(), []
    health = make(store)
    async with stub_of(health) as stub:
        watch = stub.Watch(ask("ready"), timeout=5)
        seen.append((await watch.read()).status)
        health.open()
        await health.refresh()
        seen.append((await watch.read()).status)
        health.drain()
        seen.append((await watch.read()).status)
        health.close()
        end = await watch.read()

    assert seen == [NOT_SERVING, SERVING, NOT_SERVING]
    assert end is grpc.aio.EOF


async def test_the_background_round_notices_a_failure_and_its_end() -> None:
    store = Store()
    health = make(store, interval_s=0.001)
    async with Tasks() as tasks:
        health.open()
        health.start(tasks)
        await asyncio.wait_for(health.changed.wait(), 5)
        assert health.statuses()["ready"] == SERVING
        store.problem = OSError("gone")
        await asyncio.wait_for(health.changed.wait(), 5)
        assert health.failures == {"store": "gone"}
        store.problem = None
        await asyncio.wait_for(health.changed.wait(), 5)

    assert health.statuses()["ready"] == SERVING
