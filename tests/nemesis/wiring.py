"""All lines between the parties of a system, each through a wire: who talks to whom, and where each is told to dial."""

import dataclasses
import json
import struct
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self
from urllib.parse import quote, unquote

from psycopg.conninfo import conninfo_to_dict

from chappe.cli.launcher import SERVICES, Mesh, Plan
from chappe.cli.launcher.plan import Ports
from tests.nemesis.wire import Address, Wire

CLOCK_FOLDER: Final = Path(__file__).parent / "clock"
_OFFSET: Final = struct.Struct("<q")
_CALLS: Final = {
    "edge": ("message", "presence", "identity"),
    "message": ("fanout", "identity"),
    "fanout": ("presence", "edge"),
    "presence": ("identity",),
    "identity": ("message",),
}
"""Who dials whom."""
_DATABASES: Final = {"message": "chappe_ledger", "identity": "chappe_identity"}


class Cable(NamedTuple):
    """All wires from one party to the processes of another: what a fault of the network is about."""

    name: str
    wires: tuple[Wire, ...]


class Wiring:
    """The wires of one system, made before it is started, and the clocks of its processes.

    An async context manager: `plan` is there inside, and the mesh of that plan must be given to `mesh`.
    """

    def __init__(self, plan: Plan, laid: Iterable[Cable] = ()) -> None:
        """Prepares for a plan without ports.

        Args:
            plan: What is to be wired.
            laid: Cables to what the mesh does not start, which are there already.
        """
        self.plan = plan
        self.mesh: Mesh
        self.cables: dict[str, Cable] = {cable.name: cable for cable in laid}
        self.valkey_socket = ""
        """Where svc_presence's wire leads; empty for the engine of the mesh."""
        self._folder: Path
        self._ports = Ports(plan)
        self._stack = AsyncExitStack()
        self._own: dict[tuple[str, int], dict[str, str]] = {
            (service, number): {} for service in SERVICES for number in range(plan.count(service))
        }

    @property
    def clients(self) -> Cable:
        """From clients to each edge."""
        return self.cables["client-edge"]

    def set_clock(self, service: str, number: int, offset_s: float) -> None:
        """Sets how far the wall clock of a process is ahead of the machine's."""
        path = self._folder / f"{service}-{number}.clock"
        with path.open("r+b") as file:
            file.write(_OFFSET.pack(int(offset_s * 1e9)))

    async def __aenter__(self) -> Self:
        try:
            await self._lay()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _lay(self) -> None:
        # The path of a Unix socket is short.
        self._folder = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="chn-")))
        self._ports.take()
        # The block stays claimed: the mesh takes its ports by number, and other launchers pass it over.
        self._stack.callback(self._ports.close)
        settings: dict[str, str] = {}
        for client, services in _CALLS.items():
            for service in services:
                cable = await self._cable(client, service)
                name = f"CHAPPE_{client.upper()}_{service.upper()}_TARGET"
                settings[name] = ",".join(wire.address for wire in cable.wires)
        await self._lay_to_stores()
        edges = [await self._wire("client-edge", _at(self._ports.ws(number))) for number in self._numbers("edge")]
        self._add("client-edge", edges)
        self._equip()
        environ = {**self.plan.environ, "PYTHONPATH": str(CLOCK_FOLDER), "NEMESIS_FOLDER": str(self._folder)}
        settings = {**self.plan.settings, **settings}
        self.plan = dataclasses.replace(self.plan, port=self._ports.first, settings=settings, environ=environ)

    async def _lay_to_stores(self) -> None:
        """Gives every process wires of its own: one of several that is cut off from its store is a harm by itself."""
        for service, database in _DATABASES.items():
            if service == "message" and not self._is_ledger_in_postgres:
                continue
            wires = []
            for number in self._numbers(service):
                folder = self._folder / f"{service}-{number}"
                folder.mkdir()
                wires.append(await self._wire(f"{service}-postgres", self._postgres, str(folder / ".s.PGSQL.5432")))
                dsn = f"postgresql://{database}@/{database}?host={quote(str(folder))}&port=5432"
                self._own[service, number][f"CHAPPE_{service.upper()}_STORE_DSN"] = dsn
            self._add(f"{service}-postgres", wires)
        wires = []
        for number in self._numbers("presence"):
            path = str(self._folder / f"valkey-{number}.sock")
            wires.append(await self._wire("presence-valkey", self._valkey, path))
            self._own["presence", number]["CHAPPE_PRESENCE_REDIS_URL"] = f"unix://{quote(path)}"
        self._add("presence-valkey", wires)

    async def _cable(self, client: str, service: str) -> Cable:
        name = f"{client}-{service}"
        ports = (self._ports.grpc(service, number) for number in self._numbers(service))
        return self._add(name, [await self._wire(name, _at(port)) for port in ports])

    async def _wire(self, name: str, upstream: Callable[[], Address], at: Address = ("127.0.0.1", 0)) -> Wire:
        return await self._stack.enter_async_context(Wire(name, upstream, at))

    def _add(self, name: str, wires: list[Wire]) -> Cable:
        self.cables[name] = Cable(name, tuple(wires))
        return self.cables[name]

    def _equip(self) -> None:
        """Writes what each process alone is told, and its clock."""
        for number, wire in enumerate(self.cables["fanout-edge"].wires):
            self._own["edge", number]["CHAPPE_EDGE_ADVERTISE"] = wire.address
        for (service, number), own in self._own.items():
            (self._folder / f"{service}-{number}.json").write_text(json.dumps(own), encoding="utf-8")
            (self._folder / f"{service}-{number}.clock").write_bytes(_OFFSET.pack(0))

    @property
    def _is_ledger_in_postgres(self) -> bool:
        return "cassandra" not in (self.plan.ledger, self.plan.settings.get("CHAPPE_MESSAGE_LEDGER"))

    def _numbers(self, service: str) -> Iterator[int]:
        return iter(range(self.plan.count(service)))

    def _postgres(self) -> Address:
        parts = conninfo_to_dict(self.mesh.foundation.postgres.dsn)
        return f"{parts['host']}/.s.PGSQL.{parts['port']}"

    def _valkey(self) -> Address:
        return self.valkey_socket or unquote(self.mesh.foundation.valkey.url.removeprefix("unix://"))


class WiredMesh(Mesh):
    """A mesh whose clients come through wires too."""

    def __init__(self, wiring: Wiring, report: Callable[[str], None]) -> None:
        super().__init__(wiring.plan, report)
        self._wiring = wiring
        wiring.mesh = self

    @property
    def ws(self) -> list[str]:
        """Where clients are to connect: one wire for each edge."""
        return [f"ws://{wire.address}" for wire in self._wiring.clients.wires]


def _at(port: int) -> Callable[[], Address]:
    return lambda: ("127.0.0.1", port)
