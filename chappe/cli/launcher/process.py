"""One service as a process: started in a session of its own, its output in a log, asked whether it serves."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from chappe.cli.launcher.plan import LaunchError
from chappe.runtime.pki import TlsFiles

_POLL_S: Final = 0.02
_STOP_MARGIN_S: Final = 5.0
_TAIL_LINES: Final = 15
_READY: Final = b'{"ready": true'


class ServiceProcess:
    """One process of one service; not bound to an event loop, so one loop may start it and another stop it."""

    def __init__(
        self, service: str, number: int, *, module: str, address: str, log: Path, environ: Mapping[str, str]
    ) -> None:
        """Prepares; nothing is started.

        Args:
            service: The service's name, without its prefix.
            number: Which of its processes, from zero.
            module: What is run.
            address: Where its gRPC server will be, host:port.
            log: Where its output goes, appended.
            environ: Its environment.
        """
        self.service = service
        self.number = number
        self.address = address
        self.log = log
        self._module = module
        self._environ = environ
        self._log_start = 0
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def name(self) -> str:
        """What people call it, like svc_message-0."""
        return f"svc_{self.service}-{self.number}"

    @property
    def pid(self) -> int | None:
        """The process id of the latest start; None before the first."""
        return None if self._process is None else self._process.pid

    @property
    def is_running(self) -> bool:
        """Whether the process is alive; says nothing about whether it answers."""
        return self._process is not None and self._process.poll() is None

    @property
    def ending(self) -> str:
        """How it ended, for people."""
        code = None if self._process is None else self._process.returncode
        if code is None:
            return "is running"
        return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"exited with {code}"

    def start(self) -> None:
        """Starts the process; returns before it answers. Call it in a thread that lives as long as the process."""
        self._log_start = self.log.stat().st_size if self.log.exists() else 0
        # -P: whatever lies in the current folder must not be imported by accident.
        argv = (sys.executable, "-P", "-m", "chappe.cli.child", str(os.getpid()), self._module)
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own argv, no shell
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env=self._environ,
                # Ctrl-C in a terminal reaches the launcher only, which stops services in their order.
                start_new_session=True,
            )

    async def until_serving(self, files: TlsFiles, timeout_s: float) -> None:
        """Returns once the process says that it is ready, and serves by its health.

        Raises:
            LaunchError: It ended first, or took too long; the message quotes its log.
        """
        deadline_s = time.monotonic() + timeout_s
        while _READY not in self._new_log():
            await self._pause(deadline_s, "has not said that it is ready")
        from chappe.cli.launcher.health import trouble

        while why := await trouble(self.service, self.address, files):
            await self._pause(deadline_s, f"is not well: {why}")

    def send(self, number: signal.Signals) -> None:
        """Sends a signal; harmless when it has ended."""
        if self._process is not None:
            self._process.send_signal(number)

    async def stop(self, drain_s: float) -> bool:
        """Asks the process to end, and kills it when it does not; idempotent.

        Returns:
            Whether it went by itself.
        """
        if self._process is None or not self.is_running:
            return True
        self.send(signal.SIGTERM)
        # One that a test has paused must be able to hear it.
        self.send(signal.SIGCONT)
        try:
            await asyncio.to_thread(self._process.wait, drain_s + _STOP_MARGIN_S)
        except subprocess.TimeoutExpired:
            await self.kill()
            return False
        return True

    async def kill(self) -> None:
        """Kills the process with SIGKILL and waits until it is gone; idempotent."""
        if self._process is not None:
            self._process.kill()
            await asyncio.to_thread(self._process.wait)

    def tail(self) -> str:
        """Returns the last lines that it has logged since its start, indented."""
        lines = self._new_log().decode(errors="replace").splitlines()[-_TAIL_LINES:]
        return "\n".join(f"    {line}" for line in lines) or "    (nothing)"

    def complaint(self, what: str) -> str:
        """Returns a sentence about it, with the end of its log."""
        return f"{self.name} {what}; its log {self.log} ends:\n{self.tail()}"

    async def _pause(self, deadline_s: float, state: str) -> None:
        if not self.is_running:
            raise LaunchError(self.complaint(self.ending))
        if time.monotonic() > deadline_s:
            raise LaunchError(self.complaint(f"did not come up in time: it {state}"))
        await asyncio.sleep(_POLL_S)

    def _new_log(self) -> bytes:
        try:
            with self.log.open("rb") as log:
                log.seek(self._log_start)
                return log.read()
        except FileNotFoundError:
            # Somebody has removed it; that hides no end of a process.
            return b""
