"""What tests of the command line share."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from click.testing import CliRunner

from chappe.cli.main import main

Started = subprocess.Popen[str]


def until(condition: Callable[[], Any], timeout_s: float = 40) -> Any:
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


class Running(NamedTuple):
    """A real system with two edges."""

    ws: list[str]
    data: Path
    pids: dict[str, list[int]]


@pytest.fixture(scope="session")
def system(tmp_path_factory: pytest.TempPathFactory, root: Path) -> Iterator[Running]:
    """Starts the whole system, services included, once for all tests of this package, as a person does."""
    folder = tmp_path_factory.mktemp("system")
    with (folder / "errors").open("w") as errors:
        process = subprocess.Popen(
            ["make", "--silent", "run", f"ARGS=--edges 2 --port 0 --json --data {folder / '.chappe'}"],
            cwd=root,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        line = process.stdout.readline() if process.stdout else ""
        try:
            assert line, (folder / "errors").read_text()
            state = json.loads(line)
            yield Running(state["ws"], Path(state["data"]), state["pids"])
        finally:
            process.terminate()
            process.communicate()


class Ran(NamedTuple):
    """What a command printed and how it ended."""

    code: int
    output: str
    errors: str

    @property
    def objects(self) -> list[dict[str, Any]]:
        """The lines as JSON."""
        assert self.code == 0, self.errors
        return [json.loads(line) for line in self.output.splitlines()]


class Person:
    """Somebody with a profile, who types commands."""

    def __init__(self, start: Callable[..., Started], home: Path, profile: str, phone: str = "") -> None:
        self._start = start
        self.home = home
        self.profile = profile
        self.phone = phone

    @property
    def folder(self) -> Path:
        """Where the profile is kept."""
        return self.home / "profiles" / self.profile

    def begin(self, *arguments: str) -> Started:
        """Starts a command that prints JSON."""
        return self._start("--profile", self.profile, "--json", *arguments)

    def type(self, *arguments: str, is_json: bool = True) -> Ran:
        """Runs a command, which prints JSON, to its end, in this process, which is quicker."""
        typed = ["--profile", self.profile, *(["--json"] if is_json else []), *arguments]
        result = CliRunner().invoke(main, typed, env={"CHAPPE_HOME": str(self.home)})
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exc_info
        return Ran(result.exit_code, result.stdout, result.stderr)


def ended(process: Started, timeout_s: float = 100) -> Ran:
    """Waits for the end of a command."""
    output, errors = process.communicate(timeout=timeout_s)
    assert "Traceback" not in errors
    return Ran(process.returncode, output, errors)


@pytest.fixture
def people(chappe: Callable[..., Started], system: Running, tmp_path: Path) -> tuple[Person, Person]:
    """Registers two people, on different edges."""
    alice, bob = (
        registered(chappe, tmp_path, name, server) for name, server in zip(("alice", "bob"), system.ws, strict=True)
    )
    return alice, bob


def registered(chappe: Callable[..., Started], folder: Path, name: str, server: str) -> Person:
    """Returns somebody new, with a number that nobody has."""
    person = Person(chappe, folder / "home", name, f"+1{int.from_bytes(os.urandom(4)):010d}")
    assert person.type("--server", server, "register", person.phone, "--name", name.title()).code == 0
    return person


def server_of(person: Person) -> str:
    """Returns the edge with which a person registered."""
    path = person.home / "profiles" / person.profile / "profile.json"
    address: str = json.loads(path.read_text())["addresses"][0]
    return address


@pytest.fixture(autouse=True, scope="session")
def is_interruptible() -> None:
    """Lets commands be interrupted where a shell runs the tests in the background, and so without SIGINT."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


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
