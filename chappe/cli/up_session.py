"""One run of `chappe up`: from the first line of progress to the last process stopped."""

import asyncio
import json
import os
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import Any, Final

from chappe.cli.demo import Demo, lay_out, next_steps
from chappe.cli.doctor_checks import STATE_FILE
from chappe.cli.launcher import Mesh, Plan, Supervisor
from chappe.cli.launcher.plan import metrics_url
from chappe.cli.up import DEFAULT_PORT
from chappe.client.errors import ChappeClientError
from chappe.runtime.clock import SystemClock
from chappe.runtime.tasks import Tasks

_INTERRUPTED: Final = 130

_PEOPLE: Final = """Two people, in two more terminals:

  {command} --profile alice{first} register +12025550101 --name Alice
  {command} --profile bob{last} register +12025550102 --name Bob

  {command} --profile bob listen --read
  {command} --profile alice send +12025550102 "Hello Bob" --wait"""


class UpSession:
    """Starts a mesh, says where it is, watches over it, stops it."""

    def __init__(self, plan: Plan, *, is_supervised: bool, is_json: bool, demo_home: Path | None = None) -> None:
        """Prepares.

        Args:
            plan: What to start.
            is_supervised: Whether what dies is started again.
            is_json: Whether one line of JSON is printed instead of text for people.
            demo_home: The folder of all profiles, when the people of the demo are to be made; None without a demo.
        """
        self._demo_home = demo_home
        self._demo: Demo | None = None
        self._mesh = Mesh(plan, self._say)
        self._is_supervised = is_supervised
        self._is_json = is_json
        self._ended = asyncio.Event()
        self._starting: asyncio.Task[Any] | None = None
        self._start_s = time.monotonic()

    async def run(self) -> int:
        """Returns the exit code, once everything has stopped.

        Raises:
            LaunchError: Something did not come up.
        """
        self._starting = asyncio.current_task()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self._signalled)
        try:
            await self._mesh.start()
            await self._lay_out_demo()
        except asyncio.CancelledError:
            await self._mesh.stop()
            self._say("stopped before everything was up")
            return _INTERRUPTED
        self._starting = None
        self._write_state()
        # One write: whoever reads the line sees it whole.
        sys.stdout.write((json.dumps(self._state()) if self._is_json else self._text()) + "\n")
        sys.stdout.flush()
        async with Tasks() as tasks:
            if self._is_supervised:
                Supervisor(
                    self._mesh, tasks=tasks, clock=SystemClock(), report=self._say, changed=self._write_state
                ).start()
            await self._ended.wait()
        (self._mesh.plan.data / STATE_FILE).unlink(missing_ok=True)
        self._say("stopping; Ctrl-C again stops at once")
        await self._mesh.stop()
        self._say("everything has stopped; the data stays in " + _short(self._mesh.plan.data))
        return 0

    async def _lay_out_demo(self) -> None:
        if self._demo_home is None:
            return
        try:
            self._demo = await lay_out(self._demo_home, self._mesh.plan.data, self._mesh.ws)
        except ChappeClientError as error:
            self._say(f"the demo is not laid out: {error}")
        else:
            self._say("the demo is laid out" if self._demo.is_new else "the demo was laid out before")

    def _signalled(self) -> None:
        if self._ended.is_set():
            self._mesh.hurry()
            return
        self._ended.set()
        if self._starting is not None:
            self._starting.cancel()

    def _say(self, line: str) -> None:
        sys.stderr.write(f"{time.monotonic() - self._start_s:6.1f} s  {line}\n")
        sys.stderr.flush()

    def _write_state(self) -> None:
        """Keeps what is up for other commands; whoever reads the file sees it whole."""
        path = self._mesh.plan.data / STATE_FILE
        draft = path.with_suffix(".new")
        state = self._state() | {"engines": self._mesh.foundation.addresses}
        try:
            draft.write_text(json.dumps(state) + "\n", encoding="utf-8")
            draft.replace(path)
        except OSError as error:
            self._say(f"{path} could not be written, so that other commands do not find this system: {error}")

    def _state(self) -> dict[str, Any]:
        return {
            "ready": True,
            "ws": self._mesh.ws,
            "grpc": self._mesh.grpc,
            "metrics": {name: list(map(metrics_url, at)) for name, at in self._mesh.grpc.items()},
            "pki": str(self._mesh.foundation.pki),
            "data": str(self._mesh.plan.data),
            "pids": self._mesh.pids | {"launcher": [os.getpid()]},
            **({} if self._demo is None else {"demo": self._demo.profiles}),
        }

    def _text(self) -> str:
        command, ws = _command(), self._mesh.ws
        first, last = (_server(address) for address in (ws[0], ws[-1]))
        people = _PEOPLE.format(command=command, first=first, last=last)
        if self._demo is not None:
            people = next_steps(command, self._demo).strip()
        services = "\n".join(f"                {name:<9} {', '.join(at)}" for name, at in self._mesh.grpc.items())
        return f"""
Chappe is up, {time.monotonic() - self._start_s:.1f} s after the start.

  clients       {", ".join(ws)}
  gRPC
{services}
  data          {_short(self._mesh.plan.data)}, logs in {_short(self._mesh.foundation.logs)}
  certificates  {_short(self._mesh.foundation.pki)}, tool.crt and tool.key for grpcurl and scripts

{people}

Content is not encrypted end to end yet (suite NONE): whoever runs the servers can read it.
Ctrl-C stops everything; the data stays."""


def _command() -> str:
    """Returns how to type this command from here."""
    own = Path(sys.argv[0]).absolute()
    found = shutil.which("chappe")
    return "chappe" if found and Path(found).absolute() == own else _short(own)


def _server(address: str) -> str:
    return "" if address == f"ws://127.0.0.1:{DEFAULT_PORT}" else f" --server {address}"


def _short(path: Path) -> str:
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)
