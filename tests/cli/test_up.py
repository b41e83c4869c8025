"""`chappe up` as a process of its own, with stand-ins for the services."""

import json
import os
import re
import signal
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Started, is_alive, living, until

pytestmark = pytest.mark.system

FAKE = ("up", "--module", "tests.cli.fake_service", "--port", "0")


def ready(process: Started) -> dict[str, Any]:
    assert process.stdout is not None
    line = process.stdout.readline()
    assert line, process.stderr.read() if process.stderr else ""
    state: dict[str, Any] = json.loads(line)
    return state


def test_one_line_of_json_says_where_everything_is(chappe: Callable[..., Started], tmp_path: Path) -> None:
    state = ready(chappe(*FAKE, "--edges", "2", "--json"))

    assert state["ready"] is True
    assert [address[:15] for address in state["ws"]] == ["ws://127.0.0.1:"] * 2
    assert state["grpc"].keys() == {"identity", "message", "presence", "fanout", "edge"}
    assert state["data"] == str(tmp_path / ".chappe")
    assert state["pids"].keys() >= {"postgres", "valkey", "edge", "launcher"}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_everything_cleanly(chappe: Callable[..., Started], number: signal.Signals) -> None:
    process = chappe(*FAKE, "--json")
    state = ready(process)

    process.send_signal(number)
    _, errors = process.communicate(timeout=20)

    assert process.returncode == 0
    assert "everything has stopped" in errors
    assert living(state["pids"]) == set()


def test_a_killed_launcher_leaves_nothing_and_the_next_one_starts(chappe: Callable[..., Started]) -> None:
    first = chappe(*FAKE, "--json")
    pids = ready(first)["pids"]

    first.kill()
    until(lambda: not living(pids))

    assert ready(chappe(*FAKE, "--json"))["ready"] is True


def test_the_file_of_what_is_up_follows_a_restart(chappe: Callable[..., Started], tmp_path: Path) -> None:
    pids = ready(chappe(*FAKE, "--json"))["pids"]
    file = tmp_path / ".chappe" / "up.json"

    def pid_of(name: str) -> int:
        pid: int = json.loads(file.read_text())["pids"][name][0]
        return pid

    os.kill(pids["message"][0], signal.SIGKILL)
    os.kill(pids["valkey"][0], signal.SIGKILL)
    until(lambda: pid_of("message") != pids["message"][0] and pid_of("valkey") != pids["valkey"][0])

    assert is_alive(pid_of("message"))
    assert is_alive(pid_of("valkey"))
    assert pid_of("edge") == pids["edge"][0]


def test_a_second_one_on_the_same_data_is_refused(chappe: Callable[..., Started]) -> None:
    first = chappe(*FAKE, "--json")
    ready(first)

    second = chappe(*FAKE)
    _, errors = second.communicate(timeout=20)

    assert second.returncode == 1
    assert f"belongs to the live process {first.pid}; stop that one first" in errors
    assert "Traceback" not in errors


def test_text_for_people_says_what_to_do_next(chappe: Callable[..., Started]) -> None:
    process = chappe(*FAKE)
    assert process.stdout is not None

    text = "".join(iter(process.stdout.readline, "Ctrl-C stops everything; the data stays.\n"))

    assert re.search(r"--profile alice --server ws://127.0.0.1:\d+ register \+\d+ --name Alice", text)
    assert "suite NONE" in text


def test_stopping_before_everything_is_up_leaves_nothing(chappe: Callable[..., Started], tmp_path: Path) -> None:
    process = chappe(*FAKE)
    log = tmp_path / ".chappe" / "logs" / "svc_edge-0.log"
    until(log.exists)

    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=20)

    assert process.returncode == 130
    assert "stopped before everything was up" in errors


def test_a_taken_port_is_one_readable_line(chappe: Callable[..., Started]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = chappe("up", "--module", "tests.cli.fake_service", "--port", str(port))
        _, errors = process.communicate(timeout=20)

    assert process.returncode == 1
    assert f"Error: port {port} (for WebSockets of svc_edge) is taken" in errors
