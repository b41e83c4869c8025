"""`chappe doctor` beside a system that runs, one that does not, and one that is ill."""

import json
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Running, Started, until
from tests.cli.test_up import FAKE, ready

pytestmark = pytest.mark.system


def findings(process: Started) -> dict[str, dict[str, str]]:
    output, errors = process.communicate(timeout=60)
    assert errors == ""
    return {finding["check"]: finding for finding in map(json.loads, output.splitlines())}


def test_a_running_system_is_well(chappe: Callable[..., Started], system: Running) -> None:
    doctor = chappe("doctor", "--json", "--data", str(system.data))
    found = findings(doctor)

    assert {finding["state"] for finding in found.values()} == {"ok"}
    assert found.keys() >= {"versions", "certificates", "launcher", "postgres", "valkey", "svc_edge-1", "clock"}
    assert doctor.returncode == 0


def test_without_a_running_system_it_says_how_to_start_one(chappe: Callable[..., Started]) -> None:
    doctor = chappe("doctor")
    output, _ = doctor.communicate(timeout=30)

    assert doctor.returncode == 1
    assert "no `chappe up` runs in" in output
    assert "do this: start it: make run" in output


def test_dead_parts_are_named_with_what_to_do(chappe: Callable[..., Started]) -> None:
    pids = ready(chappe(*FAKE, "--json", "--no-restart"))["pids"]
    os.kill(pids["fanout"][0], signal.SIGKILL)
    os.kill(pids["valkey"][0], signal.SIGKILL)
    os.kill(pids["postgres"][0], signal.SIGKILL)

    found = findings(chappe("doctor", "--json"))

    # The stand-in for svc_edge has no WebSockets.
    dead = {"svc_fanout-0", "valkey", "postgres", "clock"}
    assert {name for name, finding in found.items() if finding["advice"]} == dead
    assert "\n" not in found["postgres"]["text"]


def test_a_clock_that_is_off_the_stores_is_named_with_what_to_do(
    chappe: Callable[..., Started], tmp_path: Path
) -> None:
    wrong = tmp_path / "wrong"
    ready(chappe(*FAKE, "--json", CHAPPE_MESSAGE_WRONG_CLOCK=str(wrong)))
    wrong.touch()

    found = until(lambda: is_failing(findings(chappe("doctor", "--json"))["svc_message-0"]))

    assert found["text"] == "failing: clock"
    assert found["advice"].startswith("let its machine and its store's follow the same time servers (chronyc tracking)")


def is_failing(finding: dict[str, str]) -> dict[str, str] | None:
    return finding if finding["state"] == "failed" else None


@pytest.mark.usefixtures("cassandra_install")
def test_a_ledger_in_cassandra_is_migrated_and_looked_at_as_a_start_does(
    chappe: Callable[..., Started], tmp_path: Path
) -> None:
    up = chappe("up", "--port", "0", "--json", "--no-restart", "--ledger", "cassandra")
    pids = ready(up)["pids"]

    engines = json.loads((tmp_path / ".chappe" / "up.json").read_text())["engines"]
    well = findings(chappe("doctor", "--json"))
    os.kill(pids["cassandra"][0], signal.SIGKILL)
    ill = findings(chappe("doctor", "--json"))
    up.terminate()
    _, told = up.communicate()

    assert "PostgreSQL, Valkey and Cassandra answer" in told
    assert "svc_message: applied 0001_ledger.cql" in told
    assert "svc_identity: applied 0001_" in told
    assert engines.keys() == {"postgres", "valkey", "cassandra"}
    assert re.fullmatch(r"cassandra://chappe@127\.0\.\d+\.1:9042/chappe_ledger", engines["cassandra"])
    assert {finding["state"] for finding in well.values()} == {"ok"}
    assert "answers and is fit for the ledger: keyspace chappe_ledger at 0" in well["cassandra"]["text"]
    assert well["cassandra"]["text"].endswith("commit log batch")
    assert "no node of data centre datacenter1 answers at 127." in ill["cassandra"]["text"]
    assert "cassandra/cassandra.log" in ill["cassandra"]["advice"]
