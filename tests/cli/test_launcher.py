"""The launcher with stand-ins for the services: real processes, real engines, real certificates."""

import asyncio
import os
import signal
import socket
from collections.abc import AsyncIterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import psycopg
import pytest

from chappe.cli import up_session
from chappe.cli.launcher import SERVICES, LaunchError, Mesh, Plan, Supervisor
from chappe.cli.launcher.environment import CERTIFICATES, issue_certificates, make_secrets, tls_files
from chappe.cli.launcher.health import trouble
from chappe.cli.launcher.plan import Ports
from chappe.runtime.clock import SystemClock
from chappe.runtime.tasks import Tasks
from tests.cli.conftest import is_alive, living

pytestmark = pytest.mark.system


def plan_in(folder: Path, **wanted: object) -> Plan:
    defaults = {"data": folder, "module": "tests.cli.fake_service", "environ": dict(os.environ)}
    return Plan(**{**defaults, **wanted})  # type: ignore[arg-type] # a test names what it changes


@pytest.fixture
async def mesh(tmp_path: Path) -> AsyncIterator[Mesh]:
    async with Mesh(plan_in(tmp_path / "data")) as started:
        yield started


async def test_every_service_serves_over_mutual_tls_once_the_mesh_has_started(mesh: Mesh) -> None:
    answers = [await trouble(name, address, mesh.tls()) for name in SERVICES for address in mesh.grpc[name]]

    assert answers == [""] * len(SERVICES)


async def test_a_stopped_mesh_leaves_no_process(tmp_path: Path) -> None:
    async with Mesh(plan_in(tmp_path / "data", replicas=2)) as mesh:
        pids = mesh.pids

    assert sorted(map(len, pids.values())) == [1, 1, 2, 2, 2, 2, 2]
    assert living(pids) == set()


async def test_services_stop_from_the_clients_inwards(tmp_path: Path) -> None:
    lines: list[str] = []

    async with Mesh(plan_in(tmp_path / "data"), lines.append):
        lines.clear()

    stopped = [line.split()[0] for line in lines]
    assert stopped == ["svc_edge-0", "svc_message-0", "svc_fanout-0", "svc_presence-0", "svc_identity-0"]


async def test_a_service_that_was_killed_serves_again_on_its_address(mesh: Mesh) -> None:
    [before] = mesh.pids["message"]

    await mesh.kill("message")
    assert not is_alive(before)
    await mesh.restart("message")

    assert mesh.pids["message"] != [before]
    assert await trouble("message", mesh.grpc["message"][0], mesh.tls()) == ""


async def test_a_crash_of_everything_keeps_the_data_and_the_addresses(mesh: Mesh) -> None:
    dsn, addresses = mesh.foundation.postgres.dsn, (mesh.ws, mesh.grpc)
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        await connection.execute("CREATE TABLE kept AS SELECT 7 AS number")

    await mesh.crash()
    await mesh.start()

    async with await psycopg.AsyncConnection.connect(dsn) as connection:
        row = await (await connection.execute("SELECT number FROM kept")).fetchone()
    assert row == (7,)
    assert (mesh.ws, mesh.grpc) == addresses


async def test_a_supervised_service_is_started_again_and_its_end_is_told(mesh: Mesh) -> None:
    lines: list[str] = []
    async with Tasks() as tasks:
        clock = SystemClock()
        Supervisor(mesh, tasks=tasks, clock=clock, report=lines.append).start()

        await mesh.kill("fanout")
        await mesh.kill("valkey")
        while not {"svc_fanout-0 serves again", "valkey answers again"} <= set(lines):
            await clock.sleep(0.02)

    assert any("svc_fanout-0 was ended by SIGKILL" in line for line in lines)


async def test_a_service_that_cannot_be_started_is_told_and_tried_again(mesh: Mesh) -> None:
    lines: list[str] = []
    logs = mesh.foundation.logs
    async with Tasks() as tasks:
        clock = SystemClock()
        Supervisor(mesh, tasks=tasks, clock=clock, report=lines.append).start()

        logs.rename(logs.with_name("elsewhere"))
        await mesh.kill("fanout")
        while not any("svc_fanout-0 cannot be started" in line for line in lines):
            await clock.sleep(0.02)
        logs.mkdir()
        while "svc_fanout-0 serves again" not in lines:
            await clock.sleep(0.02)


class Hasty(SystemClock):
    """Waits for nothing but the others."""

    async def sleep(self, delay_s: float) -> None:
        await asyncio.sleep(0)


async def test_certificates_that_cannot_be_renewed_are_told_and_tried_again(tmp_path: Path) -> None:
    lines: list[str] = []
    foundation = SimpleNamespace(pki=tmp_path / "pki")
    mesh = cast("Mesh", SimpleNamespace(engines={}, processes={}, foundation=foundation))
    foundation.pki.write_text("no folder")

    async with Tasks() as tasks:
        clock = Hasty()
        Supervisor(mesh, tasks=tasks, clock=clock, report=lines.append).start()
        while len(lines) < 2:
            await clock.sleep(1)
        foundation.pki.unlink()
        while not (foundation.pki / "tool.crt").exists():
            await clock.sleep(1)

    assert "the certificates could not be renewed: " in lines[0]


async def test_without_certificates_it_is_said_that_there_are_none(tmp_path: Path) -> None:
    assert "no usable certificate in" in await trouble("edge", "127.0.0.1:9", tls_files(tmp_path, "tool"))


async def test_an_interrupt_while_the_demo_is_laid_out_stops_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun = asyncio.Event()

    async def lay_out_for_ever(*_: object) -> None:
        begun.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(up_session, "lay_out", lay_out_for_ever)
    session = up_session.UpSession(
        plan_in(tmp_path / "data"), is_supervised=False, is_json=True, demo_home=tmp_path / "home"
    )
    async with Tasks() as tasks:
        running = tasks.spawn(session.run(), name="up")
        await begun.wait()
        os.kill(os.getpid(), signal.SIGINT)

        assert await asyncio.wait_for(running, 30) == 130


async def test_a_paused_service_can_still_be_stopped(tmp_path: Path) -> None:
    async with Mesh(plan_in(tmp_path / "data")) as mesh:
        await mesh.kill("presence", with_signal=signal.SIGSTOP)
        pids = mesh.pids

    assert living(pids) == set()


async def test_a_service_that_does_not_come_up_is_named_with_the_end_of_its_log(tmp_path: Path) -> None:
    settings = {"CHAPPE_PRESENCE_FAIL": "no Redis today"}
    mesh = Mesh(plan_in(tmp_path / "data", settings=settings))

    with pytest.raises(LaunchError, match=r"(?s)svc_presence-0 exited with 1.*presence fails: no Redis today"):
        await mesh.start()

    assert living(mesh.pids) == set()


async def test_a_second_mesh_on_the_same_folder_is_refused(mesh: Mesh) -> None:
    second = Mesh(plan_in(mesh.plan.data))

    with pytest.raises(LaunchError, match=rf"belongs to the live process {os.getpid()}; stop that one first"):
        await second.start()


async def test_a_taken_port_is_named_with_the_option_that_chooses_others(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        mesh = Mesh(plan_in(tmp_path / "data", port=port - 100))

        with pytest.raises(LaunchError, match=rf"port {port} \(for svc_identity\) is taken.*--port"):
            await mesh.start()


async def test_a_port_at_the_end_of_the_range_is_answered_with_one_that_can_be_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 65_200)):
        mesh = Mesh(plan_in(tmp_path / "data", port=65_200))

        with pytest.raises(LaunchError, match="take other ports with --port 64200"):
            await mesh.start()


async def test_a_folder_that_cannot_be_made_is_answered_with_the_option_that_names_another(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    mesh = Mesh(plan_in(tmp_path / "file" / "data"))

    with pytest.raises(LaunchError, match=r"the data folder cannot be used: .*; name another with --data"):
        await mesh.start()


async def test_missing_packages_say_that_a_checkout_is_needed(tmp_path: Path) -> None:
    mesh = Mesh(plan_in(tmp_path / "data", module="svc_nowhere_{}"))

    with pytest.raises(LaunchError, match="from a checkout of Chappe"):
        await mesh.start()

    assert not (tmp_path / "data").exists()


def test_secrets_and_keys_are_for_their_owner_only(tmp_path: Path) -> None:
    issue_certificates(tmp_path / "pki")
    make_secrets(tmp_path / "secrets")

    private = [tmp_path / "pki" / f"{name}.key" for name in CERTIFICATES] + [tmp_path / "secrets" / "pepper"]
    assert {path.stat().st_mode & 0o777 for path in private} == {0o600}


def test_secrets_stay_the_same_from_run_to_run(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    first = (tmp_path / "pepper").read_text()
    make_secrets(tmp_path)

    assert (tmp_path / "pepper").read_text() == first
    assert len(first) == 64


def test_two_launchers_choose_different_ports(tmp_path: Path) -> None:
    one, other = Ports(plan_in(tmp_path)), Ports(plan_in(tmp_path))

    one.take()
    other.take()

    assert one.first != other.first
    one.close()
    other.close()


@pytest.mark.parametrize(
    ("wanted", "message"), [({"edges": 21}, "--edges is 21"), ({"port": 65_500}, "--port is 65500")]
)
def test_what_cannot_be_started_is_refused(tmp_path: Path, wanted: dict[str, int], message: str) -> None:
    with pytest.raises(LaunchError, match=message):
        plan_in(tmp_path, **wanted)
