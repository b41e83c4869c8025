"""Runs one engine as a child process: one owner per folder, no orphans, errors that quote the log."""

import asyncio
import fcntl
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

POLL_S: Final = 0.01
_STEP: Final = """
import ctypes, os, sys
launcher, user, wish, *argv = sys.argv[1:]
if user:
    os.setgroups([])
    os.setgid(int(user))
    os.setuid(int(user))
if wish:
    ctypes.CDLL(None).prctl(1, int(wish), 0, 0, 0)
    if os.getppid() != int(launcher):
        sys.exit(1)
os.execv(argv[0], argv)
"""
"""Becomes the engine after changing the user and asking the kernel for a signal when the launcher dies.

A program of its own, and not code between fork and exec: that runs in a copy of this process, with the threads of gRPC
gone and their locks held, and crashed the engine every third time.
"""


class EngineError(Exception):
    """An engine could not be started or stopped; the message says what to do about it."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Launch:
    """How to start one engine."""

    name: str
    """What people call the engine, for messages."""
    argv: tuple[str, ...]
    """The command; it must stay in the foreground."""
    cwd: Path
    """Entered before the user is changed, so a folder that only root can walk to works too."""
    log: Path
    """Where standard output and error go, appended."""
    uid: int | None
    """The user and group to run as; ``None`` keeps the launcher's."""
    stop_signal: signal.Signals
    """Asks the engine to stop at once and cleanly."""
    dies_with_launcher: bool
    """Whether the kernel sends ``stop_signal`` when the launcher dies (Linux only)."""
    pid_file: Path | None = None
    """Where the launcher writes the process id of an engine that does not do it itself."""


class FolderLock:
    """Lets at most one live launcher own a data folder; the kernel releases it when the launcher dies."""

    def __init__(self, engine: str) -> None:
        self._engine = engine
        self._descriptor: int | None = None

    def acquire(self, folder: Path) -> None:
        """Takes the folder.

        Raises:
            EngineError: if another launcher, in this process or elsewhere, holds it.
        """
        descriptor = os.open(folder / "launcher.lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            owner = os.read(descriptor, 32).decode(errors="replace").strip()
            os.close(descriptor)
            raise EngineError(
                f"{self._engine} in {folder} belongs to the live process {owner}; stop that one first"
            ) from error
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f"{os.getpid()}\n".encode())
        self._descriptor = descriptor

    def release(self) -> None:
        """Gives the folder back; harmless when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None


class EngineProcess:
    """A started engine; not bound to an event loop, so one loop may start it and another stop it."""

    def __init__(self, launch: Launch) -> None:
        """Starts the command; returns before the engine answers."""
        self._launch = launch
        self._log_start = launch.log.stat().st_size if launch.log.exists() else 0
        with launch.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own argv, no shell
                _stepped(launch),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=launch.cwd,
                # An explicit environment: the launcher's PG* and LC_* variables must not leak in.
                env={"PATH": os.defpath, "LC_ALL": "C", "TZ": "UTC"},
                # Ctrl-C in a terminal reaches the launcher only, which stops engines last.
                start_new_session=True,
            )
        if launch.pid_file is not None:
            launch.pid_file.write_text(f"{self._process.pid}\n", encoding="utf-8")

    @property
    def pid(self) -> int:
        """The process id."""
        pid: int = self._process.pid
        return pid

    @property
    def is_running(self) -> bool:
        """Whether the process is alive; says nothing about whether it answers."""
        return self._process.poll() is None

    async def wait_until(self, answers: Callable[[], Awaitable[bool]], timeout_s: float) -> None:
        """Returns once the engine answers.

        Raises:
            EngineError: if it exits first or stays silent for ``timeout_s``, quoting its log.
        """
        try:
            async with asyncio.timeout(timeout_s):
                # A stranger on the same socket would answer too: our own child must live as well.
                while not (await answers() and self.is_running):
                    if not self.is_running:
                        raise EngineError(self._complaint(f"exited with {self._process.returncode}"))
                    await asyncio.sleep(POLL_S)
        except TimeoutError as error:
            raise EngineError(self._complaint(f"did not answer within {timeout_s:g} s")) from error

    async def stop(self, timeout_s: float) -> None:
        """Stops the engine cleanly, or kills it after ``timeout_s``; idempotent."""
        if self.is_running:
            self._process.send_signal(self._launch.stop_signal)
            try:
                await asyncio.to_thread(self._process.wait, timeout_s)
            except subprocess.TimeoutExpired:
                await self.kill()

    async def kill(self) -> None:
        """Kills the engine with SIGKILL, as a crash would, and waits until it is gone; idempotent."""
        self._process.kill()
        await asyncio.to_thread(self._process.wait)

    def new_log(self) -> str:
        """Reads what the engine has logged since this start."""
        with self._launch.log.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def _complaint(self, what: str) -> str:
        # Of a program in Java the reason stands above dozens of lines that say where in its code that was.
        lines = [line for line in self.new_log().splitlines() if not line.startswith("\tat ")]
        tail = "\n".join(f"  {line}" for line in lines[-12:]) or "  (nothing logged)"
        name, log, folder = self._launch.name, self._launch.log, self._launch.cwd
        return f"{name} {what}; its log {log} ends:\n{tail}\nMend what it names, or move {folder} away."


async def stop_orphan(pid: int | None, cwd: Path, stop_signal: signal.Signals, timeout_s: float) -> None:
    """Stops an engine that an earlier launcher left behind in ``cwd``; a stranger's pid is left alone.

    Raises:
        EngineError: if the engine belongs to another user.
    """
    if pid is None or not is_engine_of(pid, cwd):
        return
    try:
        os.kill(pid, stop_signal)
        async with asyncio.timeout(timeout_s):
            await _gone(pid, cwd)
    except TimeoutError:
        os.kill(pid, signal.SIGKILL)
        await _gone(pid, cwd)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise EngineError(
            f"process {pid} of another user serves {cwd}; stop it as that user: kill -{stop_signal} {pid}"
        ) from error


def is_engine_of(pid: int, cwd: Path) -> bool:
    """Says whether a process works in a data folder; both engines make it their working directory."""
    if sys.platform == "linux":
        try:
            return Path(f"/proc/{pid}/cwd").readlink() == cwd.resolve()
        except OSError:
            return False
    listing = ("/bin/ps", "-o", "command=", "-p", str(pid))
    found = subprocess.run(listing, capture_output=True, text=True, check=False)  # noqa: S603 - fixed argv
    return str(cwd.resolve()) in found.stdout


def read_pid(path: Path) -> int | None:
    """Reads the process id in the first line of a pid file; ``None`` if there is none."""
    try:
        return int(path.read_text(encoding="utf-8").split()[0])
    except (OSError, ValueError, IndexError):
        return None


async def _gone(pid: int, cwd: Path) -> None:
    while True:
        if not is_engine_of(pid, cwd):
            return
        await asyncio.sleep(POLL_S)


def _stepped(launch: Launch) -> list[str]:
    """Returns the command that becomes the engine."""
    # A process that has changed its user may be unable to run its own interpreter again: it goes without the wish.
    wishes = launch.dies_with_launcher and sys.platform == "linux" and os.access(sys.executable, os.X_OK)
    return stepped(launch.argv, launch.uid, str(int(launch.stop_signal)) if wishes else "")


def stepped(argv: Sequence[str], uid: int | None, wish: str = "") -> list[str]:
    """Returns the command that runs another one as a user, without code of ours between fork and exec.

    Args:
        argv: The command.
        uid: The user and group to run as; None keeps this process's.
        wish: The number of the signal that the kernel is to send when this process dies; empty for none.
    """
    if uid is None and not wish:
        return list(argv)
    user = "" if uid is None else str(uid)
    return [sys.executable, "-I", "-S", "-c", _STEP, str(os.getpid()), user, wish, *argv]
