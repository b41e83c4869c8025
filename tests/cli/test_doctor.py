"""`chappe doctor` beside a system that runs, one that does not, and one that is ill."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.conftest import Started, until
from tests.cli.test_up import FAKE, ready

pytestmark = pytest.mark.system


def findings(process: Started) -> dict[str, dict[str, str]]:
    output, errors = process.communicate(timeout=30)
    assert errors == ""
    return {finding["check"]: finding for finding in map(json.loads, output.splitlines())}


def test_a_running_system_is_well(chappe: Callable[..., Started]) -> None:
    ready(chappe(*FAKE, "--json"))

    doctor = chappe("doctor", "--json")
    found = findings(doctor)

    assert {finding["state"] for finding in found.values()} == {"ok"}
    assert found.keys() >= {"versions", "certificates", "launcher", "postgres", "valkey", "svc_edge-0", "svc_message-0"}
    assert doctor.returncode == 0


def test_without_a_running_system_it_says_how_to_start_one(chappe: Callable[..., Started]) -> None:
    doctor = chappe("doctor")
    output, _ = doctor.communicate(timeout=30)

    assert doctor.returncode == 1
    assert "no `chappe up` runs in" in output
    assert "do this: start it: make run" in output


def test_dead_parts_are_named_with_what_to_do(chappe: Callable[..., Started], tmp_path: Path) -> None:
    pids = ready(chappe(*FAKE, "--json", "--no-restart"))["pids"]
    os.kill(pids["fanout"][0], signal.SIGKILL)
    os.kill(pids["valkey"][0], signal.SIGKILL)

    found = until(lambda: {name for name, finding in findings(chappe("doctor", "--json")).items() if finding["advice"]})

    assert found == {"svc_fanout-0", "valkey"}
