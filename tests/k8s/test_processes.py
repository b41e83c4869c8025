"""What the manifests start is started here: a Job, then a service, its probes, its end; only addresses are others."""

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from chappe.runtime.engines import EmbeddedPostgres
from k8s import dev_secrets
from tests.k8s.manifests import Container, Manifests
from tests.k8s.settings import with_files
from tests.k8s.test_stores import as_local, run_first_start

pytestmark = pytest.mark.system


@pytest.fixture
async def secrets(dev: Manifests, tmp_path: Path) -> AsyncIterator[dict[str, dict[str, str]]]:
    """Gives the development Secrets, with a running PostgreSQL behind them."""
    made = dev_secrets.make(tmp_path / "kept")
    async with EmbeddedPostgres(tmp_path / "pg") as postgres:
        await run_first_start(dev, made["postgres"], postgres.dsn, tmp_path)
        for name in ("svc-identity", "svc-message"):
            made[name]["store-dsn"] = as_local(made[name]["store-dsn"], postgres.dsn)
        yield made


async def test_the_directory_is_migrated_started_probed_and_stopped_as_its_manifests_say(
    dev: Manifests, secrets: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    job = await start(container(dev, "svc-identity-migrate/migrate"), secrets, tmp_path)
    assert b"applied" in (await job.communicate())[0]
    assert job.returncode == 0

    server = container(dev, "svc-identity/server")
    process = await start(server, secrets, tmp_path)
    try:
        address = await ready_address(process)
        statuses = [
            await probe(address, server.spec[name]["grpc"]["service"]) for name in ("livenessProbe", "readinessProbe")
        ]
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(server.pod["terminationGracePeriodSeconds"]):
            await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.communicate()

    assert statuses == [health_pb2.HealthCheckResponse.SERVING] * 2
    assert process.returncode == 0


async def test_the_ledger_is_migrated_lets_go_of_what_is_old_and_replays_as_its_manifests_say(
    dev: Manifests, secrets: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    told = []
    for place in (
        "svc-message-migrate/migrate",
        "svc-message-retain/retain",
        "svc-message-replay-parked/replay-parked",
    ):
        job = await start(container(dev, place), secrets, tmp_path)
        told.append((await job.communicate())[0])
        assert job.returncode == 0

    assert b"applied" in told[0]
    assert told[1] == b"removed 0 rows, brought 0 conversations back, looked through 0 inboxes\n"
    assert told[2] == b"replayed 0 entries\n"


def container(manifests: Manifests, place: str) -> Container:
    return next(one for one in manifests.containers() if one.place == place)


async def start(container: Container, secrets: dict[str, dict[str, str]], folder: Path) -> asyncio.subprocess.Process:
    """Starts the command of a container, with its environment, on free ports."""
    environ = {
        name: "127.0.0.1:0" if name.endswith("_LISTEN") else value
        for name, value in with_files(container, secrets, folder).items()
    }
    return await asyncio.create_subprocess_exec(
        sys.executable,
        *container.spec["command"][1:],
        env={"PATH": os.environ["PATH"]} | environ,
        stdout=asyncio.subprocess.PIPE,
    )


async def ready_address(process: asyncio.subprocess.Process) -> str:
    """Waits for the line that a service prints when it is ready; returns where it answers about its health."""
    assert process.stdout is not None
    line = await process.stdout.readline()
    assert line, "the service ended before it was ready"
    address: str = json.loads(line)["health"]
    return address


async def probe(address: str, service: str) -> int:
    """Asks as a kubelet does: without a certificate, by the name of a service."""
    async with grpc.aio.insecure_channel(address) as channel:
        request = health_pb2.HealthCheckRequest(service=service)
        answer = await health_pb2_grpc.HealthStub(channel).Check(request, wait_for_ready=True, timeout=10)
        status: int = answer.status
        return status
