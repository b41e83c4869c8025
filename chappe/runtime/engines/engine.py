"""What all engines have in common: one folder, one owner, one process, an async life."""

import contextlib
import signal
from abc import ABC, abstractmethod
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from chappe.runtime.engines.folders import private_folder, socket_folder
from chappe.runtime.engines.process import EngineError, EngineProcess, FolderLock, Launch


class Engine(ABC):
    """One server in a folder of its own; an async context manager.

    The kernel ends the server with the *thread* that started it, so start it in a thread that lives as long
    as the server should, such as the main one. (Linux only; elsewhere the next start stops the orphan.)
    """

    name: ClassVar[str]
    """What people call the engine."""
    stop_signal: ClassVar[signal.Signals]
    """Stops the server at once and cleanly."""
    stop_s: ClassVar[float] = 15.0
    """After this many seconds a stop becomes a kill."""

    def __init__(
        self,
        data_dir: Path,
        *,
        port: int | None = None,
        start_timeout_s: float = 60.0,
        dies_with_launcher: bool = True,
    ) -> None:
        """Prepares a server; nothing is touched before ``start``.

        Args:
            data_dir: holds the data, the log and the password; made when missing.
            port: a TCP port of 127.0.0.1 to listen on as well, with a password.
            start_timeout_s: how long recovery after a crash may take.
            dies_with_launcher: whether Linux stops the server when the launcher dies in any way.
        """
        self._folder = data_dir.absolute()
        self._port = port
        self._start_timeout_s = start_timeout_s
        self._dies_with_launcher = dies_with_launcher
        self._known_socket_folder: Path | None = None
        self._process: EngineProcess | None = None
        self._lock = FolderLock(self.name)

    @property
    def is_running(self) -> bool:
        """Whether the server's process is alive."""
        return self._process is not None and self._process.is_running

    @property
    def pid(self) -> int | None:
        """The server's process id, while one was started and not yet stopped."""
        return None if self._process is None else self._process.pid

    @property
    def log(self) -> Path:
        """The server's log file."""
        return self._folder / f"{self.name.lower()}.log"

    async def start(self) -> None:
        """Returns once the server answers; idempotent, and recovers from any crash.

        Raises:
            EngineError: if the wheel is missing, the folder is in use, or the server refuses; it says why.
        """
        if self.is_running:
            return
        self._folder = private_folder(self._folder)
        self._lock.acquire(self._folder)
        try:
            await self._run()
        except BaseException:
            await self.kill()
            raise

    async def stop(self) -> None:
        """Stops the server cleanly, whoever is connected; idempotent."""
        if self._process is not None:
            await self._process.stop(self.stop_s)
        self._let_go()

    async def kill(self) -> None:
        """Kills the server with SIGKILL, as a crash would; idempotent."""
        if self._process is not None:
            await self._process.kill()
        self._let_go()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @abstractmethod
    async def _run(self) -> None:
        """Starts the server and returns once it answers; the folder is made and owned."""

    @abstractmethod
    async def _answers(self) -> bool:
        """Says whether the server accepts a client."""

    @property
    def _socket_folder(self) -> Path:
        if self._known_socket_folder is None:
            raise EngineError(f"this {self.name} was never started and has no address yet; await start() first")
        return self._known_socket_folder

    def _make_socket_folder(self, socket: str, uid: int | None) -> None:
        self._known_socket_folder = socket_folder(self._folder, socket, uid)

    async def _spawn(self, argv: tuple[str, ...], cwd: Path, uid: int | None, pid_file: Path | None = None) -> None:
        launch = Launch(
            name=self.name,
            argv=argv,
            cwd=cwd,
            log=self.log,
            uid=uid,
            stop_signal=self.stop_signal,
            dies_with_launcher=self._dies_with_launcher,
            pid_file=pid_file,
        )
        self._process = EngineProcess(launch)
        await self._process.wait_until(self._answers, self._start_timeout_s)

    def _let_go(self) -> None:
        self._process = None
        if self._known_socket_folder is not None:
            # A killed server leaves its socket, and so the folder, for the next start.
            with contextlib.suppress(OSError):
                self._known_socket_folder.rmdir()
        self._lock.release()
