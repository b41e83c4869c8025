import asyncio
import contextlib
import dataclasses
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from chappe.runtime import process
from chappe.runtime.app import App
from chappe.runtime.config import Secret, ServerSettings
from chappe.runtime.pki import DevelopmentCa, TlsFiles


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class PaintConfig:
    """What an operator can set."""

    server: ServerSettings = dataclasses.field(default_factory=ServerSettings)
    colour: Secret
    """Which paint; the trouble to make in tests."""


async def never(config: PaintConfig, app: App) -> None:
    raise AssertionError("must not be built")


def run(*argv: str, **environ: str) -> int:
    return process.run("paint", PaintConfig, never, argv, {f"CHAPPE_PAINT_{k}": v for k, v in environ.items()})


def test_the_configuration_is_printed_and_nothing_is_started(capsys: pytest.CaptureFixture[str]) -> None:
    code = run("--print-config", COLOUR="canary")

    printed = capsys.readouterr().out
    assert code == 0
    assert "CHAPPE_PAINT_LISTEN=127.0.0.1:0\n" in printed
    assert "canary" not in printed


def test_a_mistake_in_the_configuration_is_readable(capsys: pytest.CaptureFixture[str]) -> None:
    code = run(LISTN="x")

    printed = capsys.readouterr().err
    assert code == 2
    assert "2 mistakes" in printed
    assert "did you mean CHAPPE_PAINT_LISTEN?" in printed


@pytest.mark.parametrize("argument", ["--help", "-h"])
def test_help_lists_every_setting(argument: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(argument) == 0
    assert "CHAPPE_PAINT_COLOUR\n      Which paint;" in capsys.readouterr().out


def test_help_lists_the_commands_and_a_misspelt_one_is_answered_with_them(capsys: pytest.CaptureFixture[str]) -> None:
    commands = {"stir": "mixes the paint"}

    helped = process.run("paint", PaintConfig, never, ["--help"], {}, commands)
    misspelt = process.run("paint", PaintConfig, never, ["stirr"], {}, commands)

    printed = capsys.readouterr()
    assert (helped, misspelt) == (0, 2)
    assert "stir           mixes the paint" in printed.out
    assert "there is no stirr\n" in printed.err
    assert "stir           mixes the paint" in printed.err
    assert "CHAPPE_PAINT" not in printed.err


SCRIPT = """
import asyncio, sys, os
sys.path.insert(0, {root!r})
from chappe.runtime.process import run
from chappe.runtime.channels import split_address
from chappe.runtime.errors import UnavailableError
from tests.runtime.test_process import PaintConfig
from tests.runtime.probe import Probe, add_probe

async def answer(request, context):
    return Probe(value="painted")

async def hang():
    await asyncio.Event().wait()

async def crash():
    raise ValueError("oops")

async def build(config, app):
    trouble = config.colour.reveal()
    if trouble == "unavailable":
        raise UnavailableError("postgres", "nobody answers")
    if trouble == "address":
        split_address("nowhere")
    if trouble == "slow start":
        sys.stdout.write("building\\n"); sys.stdout.flush()
        await hang()
    if trouble == "slow stop":
        app.on_drain(hang)
    if trouble == "crash":
        app.tasks.spawn(crash(), name="submit")
    app.add_door(add_probe, {{"Edge": answer}})

sys.exit(run("paint", PaintConfig, build, sys.argv[1:], os.environ))
"""


class Started:
    """A process of the probe service."""

    def __init__(self, running: asyncio.subprocess.Process) -> None:
        self.running = running

    async def line(self) -> str:
        assert self.running.stdout is not None
        return (await asyncio.wait_for(self.running.stdout.readline(), 20)).decode()

    async def end(self) -> tuple[int, list[dict[str, Any]]]:
        _, logged = await asyncio.wait_for(self.running.communicate(), 20)
        lines = [line for line in logged.decode().splitlines() if line.startswith("{")]
        return self.running.returncode or 0, [json.loads(line) for line in lines]


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    return DevelopmentCa.open(tmp_path_factory.mktemp("ca")).issue(
        "svc-paint", "spiffe://chappe.test/ns/chappe/sa/svc-paint", dns_names=["svc-paint"]
    )


@contextlib.asynccontextmanager
async def start(folder: Path, files: TlsFiles | None, trouble: str) -> AsyncIterator[Started]:
    script = folder / "paint.py"
    script.write_text(SCRIPT.format(root=os.getcwd()))  # noqa: PTH109 - the root that this test was started in
    environ = {name: value for name, value in os.environ.items() if not name.startswith("CHAPPE_")}
    environ |= {"CHAPPE_PAINT_COLOUR": trouble, "CHAPPE_PAINT_DRAIN_S": "60"}
    if files is not None:
        names = {"CERT": files.cert, "KEY": files.key, "CA": files.ca}
        environ |= {f"CHAPPE_PAINT_TLS_{name}_FILE": str(path) for name, path in names.items()}
    pipe = asyncio.subprocess.PIPE
    running = await asyncio.create_subprocess_exec(sys.executable, script, env=environ, stdout=pipe, stderr=pipe)
    try:
        yield Started(running)
    finally:
        with contextlib.suppress(ProcessLookupError):
            running.kill()
        await running.wait()


@pytest.mark.system
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_process_says_where_it_answers_and_stops_politely(
    tmp_path: Path, certificate: TlsFiles, number: signal.Signals
) -> None:
    async with start(tmp_path, certificate, "") as started:
        ready = json.loads(await started.line())
        started.running.send_signal(number)
        code, logged = await started.end()

    assert ready["ready"] is True
    assert ready["service"] == "paint"
    assert ready["pid"] == started.running.pid
    assert ready["address"].startswith("127.0.0.1:")
    assert code == 0
    assert [line["message"] for line in logged][-1] == "svc_paint has stopped"


@pytest.mark.system
async def test_a_second_signal_cuts_the_drain_short(tmp_path: Path, certificate: TlsFiles) -> None:
    async with start(tmp_path, certificate, "slow stop") as started:
        await started.line()
        started.running.terminate()
        assert started.running.stderr is not None
        while b"drains" not in await asyncio.wait_for(started.running.stderr.readline(), 20):
            pass
        started.running.terminate()
        code, logged = await started.end()

    assert code == 0
    assert any("did not drain in time" in line["message"] for line in logged)


@pytest.mark.system
async def test_a_signal_during_the_start_ends_it(tmp_path: Path, certificate: TlsFiles) -> None:
    async with start(tmp_path, certificate, "slow start") as started:
        assert await started.line() == "building\n"
        started.running.terminate()
        code, logged = await started.end()

    assert code == 0
    assert "before it had started" in logged[-1]["message"]


@pytest.mark.system
@pytest.mark.parametrize(
    ("trouble", "why"),
    [
        ("unavailable", "did not start: postgres: nobody answers"),
        ("address", "did not start: 'nowhere' is no address: write host:port"),
        ("crash", "task submit crashed"),
    ],
)
async def test_a_process_that_cannot_work_exits_with_1(
    tmp_path: Path, certificate: TlsFiles, trouble: str, why: str
) -> None:
    async with start(tmp_path, certificate, trouble) as started:
        code, logged = await started.end()

    assert code == 1
    assert any(why in line["message"] and line["level"] == "critical" for line in logged)


@pytest.mark.system
async def test_a_process_without_a_certificate_says_what_to_set(tmp_path: Path) -> None:
    async with start(tmp_path, None, "") as started:
        code, logged = await started.end()

    assert code == 1
    assert "CHAPPE_PAINT_TLS_CERT_FILE" in logged[-1]["message"]
