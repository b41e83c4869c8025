"""The system under test: the real processes in a data folder of their own, with the limits that a benchmark raises."""

import asyncio
import contextlib
import os
import signal
import urllib.request
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

from chappe.cli.launcher import Mesh, Plan
from chappe.cli.launcher.plan import metrics_url
from chappe.runtime.engines.cassandra import CassandraOptions
from tests.bench.books import Books, read_books
from tests.bench.driver import LoadDriver
from tests.bench.lags import Lags
from tests.bench.meter import CpuMeter

RAISED: Final[Mapping[str, str]] = {
    "CHAPPE_EDGE_FRAME_BURST": "1000000",
    "CHAPPE_EDGE_FRAME_RATE": "1000000",
    "CHAPPE_EDGE_SEND_WINDOW": "1024",
    "CHAPPE_EDGE_READ_CALL_BURST": "1000000",
    "CHAPPE_EDGE_SENSITIVE_CALL_BURST": "1000000",
}
"""Few people who send thousands of messages each second are what the limits are against."""

_CACHE: Final = "CHAPPE_CACHE"
"""Where Cassandra is kept once it was fetched."""
PROFILE_FOLDER: Final = Path(__file__).parent / "sampling"


class StageTerms(NamedTuple):
    """What to start."""

    data: Path
    is_checked: bool
    """Whether every client writes its history."""
    profiled: str
    """The service that is sampled; empty for none."""
    ledger: str
    """The engine that keeps the ledger."""
    is_brief: bool
    """Whether figures mean nothing, so that Java need not compile for them."""


class Stage:
    """The mesh and the load client; an async context manager that leaves nothing running."""

    def __init__(self, terms: StageTerms) -> None:
        environ = {
            name: value for name, value in os.environ.items() if not name.startswith("CHAPPE_") or name == _CACHE
        }
        if terms.profiled:
            environ["PYTHONPATH"] = str(PROFILE_FOLDER)
            environ["BENCH_SAMPLED"] = f"svc_{terms.profiled}"
            environ["BENCH_SAMPLES"] = str(terms.data / "samples.txt")
        self.data = terms.data
        self.histories = terms.data / "histories" if terms.is_checked else None
        self._profiled = terms.profiled
        self.ledger = terms.ledger
        plan = Plan(
            data=terms.data,
            ledger=terms.ledger,
            cassandra=CassandraOptions(is_fully_compiled=not terms.is_brief),
            settings=RAISED,
            environ=environ,
            is_traced=False,
        )
        self.mesh = Mesh(plan)
        self.load: LoadDriver
        self._crowd: LoadDriver | None = None
        self._loads: list[int] = []
        self.cpu: CpuMeter

    async def books(self) -> Books | None:
        """Returns what PostgreSQL has written so far, as far as it has said; None when it has no ledger."""
        if self.ledger != "postgres":
            return None
        return await read_books(self.mesh.foundation.postgres.dsn)

    async def lags(self) -> Lags:
        """Returns how long svc_message took so far to write the pointers of messages to groups."""
        url = metrics_url(self.mesh.grpc["message"][0])
        return Lags.parse((await asyncio.to_thread(_fetch, url)).decode())

    async def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Asks the load client."""
        return await self.load.ask(op, **arguments)

    async def window(self) -> dict[str, Any]:
        """Ends a window of measuring at every load client and begins the next; returns what the first one tells."""
        if self._crowd is not None:
            await self._crowd.ask("window")
        return await self.ask("window")

    async def stop(self) -> dict[str, Any]:
        """Ends the traffic of every load client; of messages to groups tells the crowd, where there is one."""
        answer = await self.ask("stop")
        if self._crowd is not None:
            of_groups = await self._crowd.ask("stop")
            for window, other in zip(answer["windows"], of_groups["windows"], strict=True):
                window |= {kind: other[kind] for kind in ("group_ack", "last_member")}
            answer["unfinished"] += of_groups["unfinished"]
        return answer

    async def toggle_sampler(self) -> None:
        """Begins or ends to sample the service that is profiled, if one is."""
        if self._profiled:
            await self.mesh.kill(self._profiled, with_signal=signal.SIGUSR2)

    async def __aenter__(self) -> Self:
        if self.histories is not None:
            self.histories.mkdir(parents=True)
        await self.mesh.start()
        try:
            self.load = await LoadDriver(self.mesh.ws[0], self.histories).__aenter__()
        except BaseException:
            await self.mesh.stop()
            raise
        # The meter has the list itself, and sees who joins it.
        self._loads.append(self.load.pid)
        self.cpu = CpuMeter({**self.mesh.pids, "load": self._loads})
        return self

    @contextlib.asynccontextmanager
    async def crowd(self) -> AsyncIterator[LoadDriver]:
        """Holds a second load client: on a phone nothing waits behind what comes to a thousand others."""
        async with LoadDriver(self.mesh.ws[0], area="1303") as crowd:
            self._crowd = crowd
            self._loads.append(crowd.pid)
            try:
                yield crowd
            finally:
                self._crowd = None
                self._loads.remove(crowd.pid)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.load.__aexit__(kind, error, trace)
        finally:
            await self.mesh.stop()


def _fetch(url: str) -> bytes:
    with urllib.request.urlopen(url, timeout=10) as answer:  # noqa: S310 - of our own process
        body: bytes = answer.read()
    return body
