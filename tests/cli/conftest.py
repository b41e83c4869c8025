"""What tests of the command line share."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

Started = subprocess.Popen[str]


def until(condition: Callable[[], Any], timeout_s: float = 20) -> Any:
    """Returns the first true answer; fails when there is none in time."""
    deadline_s = time.monotonic() + timeout_s
    while not (answer := condition()):
        assert time.monotonic() < deadline_s, f"{condition} was not true within {timeout_s} s"
        time.sleep(0.02)
    return answer


def living(pids: dict[str, list[int]]) -> set[int]:
    """Returns those of the processes that are alive."""
    return {pid for group in pids.values() for pid in group if is_alive(pid)}


def is_alive(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture
def chappe(tmp_path: Path) -> Iterator[Callable[..., Started]]:
    """Starts the command as a process, with pipes; what is left is killed."""
    started: list[Started] = []

    def start(*arguments: str, **settings: str) -> Started:
        process = subprocess.Popen(
            [sys.executable, "-m", "chappe.cli", *arguments],
            cwd=tmp_path,
            env=os.environ | {"CHAPPE_HOME": str(tmp_path / "home")} | settings,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
        process.communicate()
