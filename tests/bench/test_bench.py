import asyncio
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from chappe.runtime.engines.cassandra import CassandraInstall
from chappe.runtime.metrics import Histogram
from tests.bench.__main__ import main
from tests.bench.lags import Lags
from tests.bench.meter import PARTS
from tests.bench.report import GOALS, Report, compare
from tests.bench.rows import Row
from tests.bench.traffic import Traffic, run_closed

pytestmark = [pytest.mark.long, pytest.mark.timeout(150)]

PROBED = {"durable-10", "open-100", "drain", "group-5", "beside-8", "reads"}
PARTS_OF_POSTGRES = set(PARTS) - {"cassandra"}
ROWS = PROBED | {"up", "idle", "history", "chats-12", "presence-lookups"}


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Runs the benchmark once, briefly, and returns what it prints."""
    return printed(root, tmp_path_factory.mktemp("bench") / "mesh")


@pytest.fixture(scope="module")
def run_on_cassandra(
    root: Path, tmp_path_factory: pytest.TempPathFactory, cassandra_install: CassandraInstall
) -> dict[str, Any]:
    """Runs some rows with a ledger in Cassandra; all of them would take a minute."""
    data = tmp_path_factory.mktemp("bench") / "on-cassandra"
    return printed(root, data, "--ledger", "cassandra", "--only", "durable-10", "--only", "group-5")


def printed(root: Path, data: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.bench", "--quick", "--check", "--json", "--data", str(data), *arguments]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


@pytest.mark.system
def test_every_row_is_measured(run: dict[str, Any]) -> None:
    assert {row["name"] for row in run["rows"]} == ROWS


@pytest.mark.system
def test_every_row_lists_every_process_apart(run: dict[str, Any]) -> None:
    assert all(set(row["cpu_us"]) == PARTS_OF_POSTGRES for row in run["rows"] if row["name"] != "up")


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
    assert run["machine"]["warm_s"] == 0
    assert run["machine"]["load_average"]
    assert "CHAPPE_EDGE_FRAME_RATE" in run["settings"]


@pytest.mark.system
def test_the_checker_has_judged_every_client_and_is_silent(run: dict[str, Any]) -> None:
    assert run["checked"]["is_silent"], run["checked"]["text"]


@pytest.mark.system
def test_nothing_is_left_running(run: dict[str, Any]) -> None:
    left = [process.pid for process in psutil.process_iter(["cmdline"]) if _belongs(process, run)]

    assert left == []


@pytest.mark.system
def test_a_ledger_in_cassandra_is_measured_without_the_books_of_postgres(run_on_cassandra: dict[str, Any]) -> None:
    group, durable = sorted(run_on_cassandra["rows"], key=lambda row: row["name"] != "group-5")

    assert run_on_cassandra["checked"]["is_silent"], run_on_cassandra["checked"]["text"]
    assert set(durable["cpu_us"]) == set(PARTS)
    assert durable["values"]["messages_per_s"] > 0
    assert durable["values"].keys().isdisjoint({"rows", "stored_bytes", "wal_bytes", "commits"})
    assert group["values"]["journal_lag_p99_ms"] > 0


@pytest.mark.system
def test_cassandra_is_named_with_its_commit_log_and_the_time_of_warming(run_on_cassandra: dict[str, Any]) -> None:
    machine = run_on_cassandra["machine"]

    assert machine["engines"].startswith("Cassandra 5.0.")
    assert "(one node, commit log batch, Java with -XX:" in machine["engines"]
    assert machine["warm_s"] > 0


def test_a_row_that_does_not_exist_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    code = main(["--only", "nonsense"])

    assert code == 1
    assert "names no row; there are up, reads, idle, durable-25" in capsys.readouterr().err


def test_a_comparison_shows_ratios_of_what_both_runs_have() -> None:
    old = {
        "machine": {"date": "then", "commit": "abc"},
        "rows": [{"name": "durable-25", "values": {"messages_per_s": 100.0}, "cpu_us": {"edge": 50.0}}],
    }
    row = Row(name="durable-25", table="durable", values={"messages_per_s": 200.0}, cpu_us={"edge": 25.0})

    text = compare(old, [row])

    assert "durable-25: messages_per_s 2.00, edge_us 0.50" in text


def test_a_column_that_was_not_measured_is_left_out() -> None:
    cpu_us = dict.fromkeys(PARTS_OF_POSTGRES, 1.0)
    in_postgres = Row(name="durable-25", table="durable", values={"rows": 4.0, "commits": 0.0}, cpu_us=cpu_us)
    in_cassandra = Row(name="durable-25", table="durable", values={}, cpu_us={**cpu_us, "cassandra": 100.0})

    titles, figures = (line_of(in_postgres, part) for part in ("", "durable-25"))
    titles_there, figures_there = (line_of(in_cassandra, part) for part in ("", "durable-25"))

    assert "Cassandra µs" not in titles
    assert figures[titles.index("servers µs")] == "7"
    assert (figures[titles.index("rows")], figures[titles.index("commits")]) == ("4.00", "0.000")
    assert {"rows", "commits", "log bytes", "stored bytes"}.isdisjoint(titles_there)
    assert figures_there[titles_there.index("Cassandra µs")] == "100.0"
    assert figures_there[titles_there.index("servers µs")] == "107"


def test_a_cell_that_was_not_measured_beside_others_is_empty() -> None:
    rows = [Row(name=name, table="durable", values=values) for name, values in (("a", {"rows": 0.0}), ("b", {}))]

    lines = [line for line in report(rows).to_text().splitlines() if line.startswith(("| a", "| b"))]

    assert lines == ["| a | 0.00 |", "| b |      |"]


def test_what_the_design_wants_stands_beside_what_was_measured_on_its_own_store() -> None:
    values = {"messages_per_s": 9_000.0}
    parts = ({"edge": 50.0}, {"edge": 50.0, "cassandra": 300.0})
    rows = [Row(name="durable-250", table="durable", values=values, cpu_us=cpu_us) for cpu_us in parts]

    told, told_there = (
        [line for line in report([row]).to_text().splitlines() if "durable 1:1, " in line] for row in rows
    )

    assert [cells(line)[1:] for line in told] == [
        ["durable-250", "durable 1:1, messages/s", "15,000 (floor 10,000)", "9,000"],
        ["durable-250", "durable 1:1, servers µs", "at most 100", "50"],
    ]
    assert [cells(line)[3:] for line in told_there] == [["6,000 (floor 3,500)", "9,000"], ["at most 350", "350"]]


def test_every_goal_stands_on_the_page(root: Path) -> None:
    lines = [cells(line) for line in (root / "docs" / "benchmarks.md").read_text().splitlines()]
    told = {tuple(line[1:4]) for line in lines if len(line) == 5}

    assert {(goal.row, goal.column.title, goal.in_postgres) for goal in GOALS} - told == set()


@pytest.mark.parametrize(("warm_s", "is_told"), [(0.0, False), (60.0, True)])
def test_the_time_of_warming_is_told_when_there_was_some(warm_s: float, *, is_told: bool) -> None:
    text = report([], warm_s=warm_s).to_text()

    assert ("warmed by 60 s of closed loop traffic" in text) is is_told


def test_lags_are_those_between_two_readings_with_a_p99_from_the_buckets() -> None:
    histogram = Histogram([0.1, 0.2, 0.4])
    histogram.observe(0.35)
    before = lags_of(histogram)
    for _ in range(98):
        histogram.observe(0.05)
    histogram.observe(0.3)
    histogram.observe(0.3)

    found = lags_of(histogram).since(before)

    assert found.observed == 100
    # The 99th of 100 is half of what lies between 0.2 and 0.4 s.
    assert found.summary_ms() == pytest.approx({"journal_lag_ms": 55.0, "journal_lag_p99_ms": 300.0})


def test_lags_beyond_the_last_bucket_count_as_its_bound_and_no_lags_as_nothing() -> None:
    histogram = Histogram([0.1, 5.0])
    assert lags_of(histogram).summary_ms() == {}
    assert Lags.parse("").summary_ms() == {}

    histogram.observe(60.0)

    assert lags_of(histogram).quantile_s(0.99) == 5.0


async def test_nothing_in_flight_is_idle_at_once() -> None:
    traffic = Traffic()
    run_closed(traffic, [], 5)

    left = await asyncio.wait_for(traffic.until_idle(60), 5)

    assert left == 0


def report(rows: list[Row], **machine: Any) -> Report:
    named = dict.fromkeys(("date", "commit", "cores", "cpu", "memory_gib", "kernel", "python", "engines"), "")
    probed = dict.fromkeys(("fsync_p50_ms", "fsync_p99_ms", "python_loop_ns", "loopback_us"), 0.0)
    return Report({**named, **probed, "packages": {}, "load_average": [0.0], **machine}, {}, 0.0, rows, {})


def line_of(row: Row, name: str) -> list[str]:
    """Returns the cells of the line of a table that begins with a name."""
    tables = (cells(line) for line in report([row]).to_text().splitlines() if line.startswith("| "))
    return next(line for line in tables if line[1] == name)


def cells(line: str) -> list[str]:
    """Returns the cells of a line of a table, the first of them empty."""
    return [cell.strip() for cell in line.split("|")[:-1]]


def lags_of(histogram: Histogram) -> Lags:
    return Lags.parse("\n".join(histogram.lines("chappe_message_expand_lag_seconds")))


def _belongs(process: psutil.Process, run: dict[str, Any]) -> bool:
    return run["machine"]["data"] in " ".join(process.info["cmdline"] or [])
