import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.bench.__main__ import main
from tests.bench.meter import PARTS
from tests.bench.report import compare
from tests.bench.rows import Row
from tests.bench.traffic import Traffic, run_closed

pytestmark = pytest.mark.timeout(150)

PROBED = {"durable-10", "open-100", "drain", "group-5", "beside-8", "reads"}
ROWS = PROBED | {"up", "idle", "history", "chats-12", "presence-lookups"}


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Runs the benchmark once, briefly, and returns what it prints."""
    data = tmp_path_factory.mktemp("bench")
    command = [sys.executable, "-m", "tests.bench", "--quick", "--check", "--json", "--data", str(data / "mesh")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=140, check=False)
    assert done.returncode == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


@pytest.mark.system
def test_every_row_is_measured(run: dict[str, Any]) -> None:
    assert {row["name"] for row in run["rows"]} == ROWS


@pytest.mark.system
def test_every_row_lists_every_process_apart(run: dict[str, Any]) -> None:
    assert all(set(row["cpu_us"]) == set(PARTS) for row in run["rows"] if row["name"] != "up")


@pytest.mark.system
def test_a_start_is_timed_to_its_first_message(run: dict[str, Any]) -> None:
    up = next(row["values"] for row in run["rows"] if row["name"] == "up")

    assert 0 < up["new_s"] < up["first_message_s"]
    assert up["again_s"] > 0


@pytest.mark.system
def test_traffic_is_counted_and_nothing_is_left_in_flight(run: dict[str, Any]) -> None:
    durable = next(row["values"] for row in run["rows"] if row["name"] == "durable-10")

    assert durable["messages_per_s"] > 0
    assert durable["unfinished"] == 0
    assert durable["rows"] > 1
    assert 0 < durable["ack_p50_ms"] <= durable["ack_p99_ms"]


@pytest.mark.system
def test_the_disk_is_probed_beside_durable_figures(run: dict[str, Any]) -> None:
    probed = {row["name"] for row in run["rows"] if row["values"].get("fsync_p99_ms", 0) > 0}

    assert probed == PROBED


@pytest.mark.system
def test_the_machine_and_the_raised_limits_are_named(run: dict[str, Any]) -> None:
    assert run["machine"]["engines"].startswith("PostgreSQL 18")
    assert run["machine"]["load_average"]
    assert "CHAPPE_EDGE_FRAME_RATE" in run["settings"]


@pytest.mark.system
def test_the_checker_has_judged_every_client_and_is_silent(run: dict[str, Any]) -> None:
    assert run["checked"]["is_silent"], run["checked"]["text"]


@pytest.mark.system
def test_nothing_is_left_running(run: dict[str, Any]) -> None:
    left = [process.pid for process in psutil.process_iter(["cmdline"]) if _belongs(process, run)]

    assert left == []


def test_a_row_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--only", "nonsense"])

    assert code == 1
    assert "names no row; there are up, idle, durable-25" in capsys.readouterr().err


def test_a_comparison_shows_ratios_of_what_both_runs_have() -> None:
    old = {
        "machine": {"date": "then", "commit": "abc"},
        "rows": [{"name": "durable-25", "values": {"messages_per_s": 100.0}, "cpu_us": {"edge": 50.0}}],
    }
    row = Row(name="durable-25", table="durable", values={"messages_per_s": 200.0}, cpu_us={"edge": 25.0})

    text = compare(old, [row])

    assert "durable-25: messages_per_s 2.00, edge_us 0.50" in text


async def test_nothing_in_flight_is_idle_at_once() -> None:
    traffic = Traffic()
    run_closed(traffic, [], 5)

    left = await asyncio.wait_for(traffic.until_idle(60), 5)

    assert left == 0


def _belongs(process: psutil.Process, run: dict[str, Any]) -> bool:
    return run["machine"]["data"] in " ".join(process.info["cmdline"] or [])
