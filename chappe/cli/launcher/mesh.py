"""The whole system on one machine, as one thing that is started, hurt, mended and stopped."""

import asyncio
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

from chappe.cli.launcher.environment import TOOL, Environment, Stores, tls_files
from chappe.cli.launcher.foundation import Foundation, find_packages
from chappe.cli.launcher.plan import SERVICES, STOP_ORDER, LaunchError, Plan, Ports
from chappe.cli.launcher.process import ServiceProcess
from chappe.runtime.engines import EngineError
from chappe.runtime.engines.cassandra import cache_of
from chappe.runtime.engines.engine import Engine
from chappe.runtime.errors import ChappeError
from chappe.runtime.pki import TlsFiles


class Mesh:
    """Two or three engines and five services; an async context manager, and not bound to one event loop.

    Start it in the main thread: Linux ends the processes with the thread that started them.
    Nothing is restarted by itself; a `Supervisor` does that.
    Services are named without their prefix, like "message"; the engines are "postgres", "valkey" and,
    where it keeps the ledger, "cassandra".
    """

    def __init__(self, plan: Plan, report: Callable[[str], None] = lambda _: None) -> None:
        """Prepares; nothing is touched before `start`.

        Args:
            plan: What to start.
            report: Told what happens, a line at a time.
        """
        self.plan = plan
        cache = cache_of({**plan.environ, **plan.settings})
        self.foundation = Foundation(
            plan.data.absolute(), ledger=plan.ledger, cassandra=plan.cassandra, cache=cache, report=report
        )
        self.processes: dict[tuple[str, int], ServiceProcess] = {}
        self._ports = Ports(plan)
        self._report = report

    @property
    def ws(self) -> list[str]:
        """The WebSocket address of each edge, once started."""
        return [f"ws://127.0.0.1:{self._ports.ws(number)}" for number in range(self.plan.count("edge"))]

    @property
    def grpc(self) -> dict[str, list[str]]:
        """The gRPC addresses of each service, host:port, once started."""
        return {
            service: [f"127.0.0.1:{self._ports.grpc(service, number)}" for number in range(self.plan.count(service))]
            for service in SERVICES
        }

    @property
    def engines(self) -> dict[str, Engine]:
        """The engines by name."""
        return self.foundation.engines

    @property
    def pids(self) -> dict[str, list[int]]:
        """The process ids of each service and each engine; what was not started has none."""
        found: dict[str, list[int]] = {name: [] for name in (*SERVICES, *self.engines)}
        parts: list[tuple[str, ServiceProcess | Engine]] = [
            *((process.service, process) for process in self.processes.values()),
            *self.engines.items(),
        ]
        for name, part in parts:
            if part.pid is not None:
                found[name].append(part.pid)
        return found

    def tls(self, name: str = TOOL) -> TlsFiles:
        """Returns the certificate files of "tool", which any program may use, or of a service, like "svc-edge"."""
        return tls_files(self.foundation.pki, name)

    async def start(self) -> None:
        """Returns once every service serves.

        Raises:
            LaunchError: Something did not come up; the message says what, and everything is stopped again.
        """
        packages = find_packages([self.plan.module.format(service) for service in SERVICES])
        schemas = {
            service: packages[module] / "schema"
            for service in ("message", "identity")
            if (module := self.plan.module.format(service)) in packages
        }
        try:
            self.foundation.take()
        except EngineError as error:
            raise LaunchError(str(error)) from error
        except OSError as error:
            raise LaunchError(f"the data folder cannot be used: {error}; name another with --data") from error
        try:
            self._ports.take()
            stores = await self.foundation.lay(schemas)
            await self._start_services(stores, packages)
        except (EngineError, ChappeError, OSError) as error:
            await self.stop()
            raise LaunchError(str(error)) from error
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stops the services from the clients inwards, then the engines; idempotent."""
        for service in STOP_ORDER:
            running = [part for part in self.processes.values() if part.service == service and part.is_running]
            gone = await asyncio.gather(*(process.stop(self.plan.drain_s) for process in running))
            for process, is_clean in zip(running, gone, strict=True):
                self._report(f"{process.name} stopped" if is_clean else f"{process.name} did not stop and was killed")
        await self.foundation.stop()
        self._ports.close()

    def hurry(self) -> None:
        """Kills every service at once, so that a `stop` under way has only the engines left to stop."""
        for process in self.processes.values():
            process.send(signal.SIGKILL)

    async def crash(self) -> None:
        """Kills everything at once, engines too; `start` brings it back, with the data and on the same ports."""
        self.hurry()
        await self.foundation.kill()
        await asyncio.gather(*(process.kill() for process in self.processes.values()))

    async def kill(self, name: str, number: int = 0, with_signal: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal to one process of a service; the end by SIGKILL is waited for.

        Args:
            name: A service or an engine; an engine is always killed with SIGKILL.
            number: Which process of the service.
            with_signal: For example SIGSTOP and SIGCONT, to make it stand still for a while.
        """
        if name in self.engines:
            await self.engines[name].kill()
        elif with_signal == signal.SIGKILL:
            await self.processes[name, number].kill()
        else:
            self.processes[name, number].send(with_signal)

    async def restart(self, name: str, number: int = 0) -> None:
        """Stops one process politely, if it runs, and starts it again; returns once it serves.

        Args:
            name: A service or an engine.
            number: Which process of the service.

        Raises:
            LaunchError: It does not come up.
        """
        if name in self.engines:
            engine = self.engines[name]
            await engine.stop()
            try:
                await engine.start()
            except (EngineError, OSError) as error:
                raise LaunchError(str(error)) from error
        else:
            process = self.processes[name, number]
            await process.stop(self.plan.drain_s)
            try:
                process.start()
            except OSError as error:
                raise LaunchError(f"{process.name} cannot be started: {error}") from error
            await process.until_serving(self.tls(), self.plan.ready_timeout_s)

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def _start_services(self, stores: Stores, packages: dict[str, Path]) -> None:
        checkout = next((folder.parent for folder in packages.values()), None)
        environment = Environment(self.plan, self._ports, stores, checkout)
        start_s = time.monotonic()

        async def until_serving(process: ServiceProcess) -> None:
            await process.until_serving(self.tls(), self.plan.ready_timeout_s)
            self._report(f"{process.name} serves after {time.monotonic() - start_s:.1f} s")

        for service, addresses in self.grpc.items():
            for number, address in enumerate(addresses):
                process = ServiceProcess(
                    service,
                    number,
                    module=self.plan.module.format(service),
                    address=address,
                    log=self.foundation.logs / f"svc_{service}-{number}.log",
                    environ=environment.of(service, number),
                )
                self.processes[service, number] = process
                process.start()
        try:
            await asyncio.gather(*map(until_serving, self.processes.values()))
        except LaunchError as error:
            # The first that failed may be a victim of another: all that have ended are shown.
            ended = [process.complaint(process.ending) for process in self.processes.values() if not process.is_running]
            raise LaunchError("\n".join(ended) or str(error)) from error
