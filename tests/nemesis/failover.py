"""A second Valkey that follows the first one: it is promoted when the first one dies, and the first follows it then."""

import asyncio
from pathlib import Path
from types import TracebackType
from typing import Final, Self
from urllib.parse import unquote

from redis.asyncio import Redis

from chappe.runtime.engines import EmbeddedValkey
from tests.nemesis.wire import Wire
from tests.nemesis.wiring import Wiring

FOLLOWS_WITHIN_S: Final = 20.0
_LOOK_S: Final = 0.05


class ValkeyPair:
    """The engine of a mesh and its replica; no sentinel watches them, the test decides; an async context manager."""

    def __init__(self, wiring: Wiring, folder: Path) -> None:
        """Prepares; the mesh must serve when the block is entered."""
        self._wiring = wiring
        self._engines = [wiring.mesh.foundation.valkey, EmbeddedValkey(folder)]
        # Valkey follows over TCP only, and the engines have no port.
        self._lead = Wire("valkey-valkey", lambda: _socket(self.primary))

    @property
    def primary(self) -> EmbeddedValkey:
        """The one that svc_presence reaches."""
        return self._engines[0]

    async def flush(self) -> None:
        """Empties the registry."""
        async with _client(self.primary) as client:
            await client.flushall()

    async def kill(self) -> None:
        """Kills the primary; nobody takes its place."""
        await self.primary.kill()

    async def start(self) -> None:
        """Starts the primary again."""
        await self.primary.start()

    async def part(self) -> None:
        """Cuts the replica off: what the primary is told from now on, the replica never learns."""
        self._lead.darken()

    async def promote(self) -> None:
        """Kills the primary and puts the replica into its place."""
        await self.primary.kill()
        self._engines.reverse()
        async with _client(self.primary) as client:
            await client.replicaof("NO", "ONE")
        self._wiring.valkey_socket = _socket(self.primary)
        for wire in self._wiring.cables["presence-valkey"].wires:
            wire.cut()
        await self._lead.mend()
        self._lead.cut()

    async def follow(self) -> None:
        """Lets the other one follow the primary; returns once it has everything."""
        follower = self._engines[1]
        await follower.start()
        host, _, port = self._lead.address.rpartition(":")
        async with asyncio.timeout(FOLLOWS_WITHIN_S), _client(follower) as client:
            await client.replicaof(host, port)
            while True:
                told = await client.info("replication")
                if told.get("master_link_status") == "up":
                    return
                await asyncio.sleep(_LOOK_S)

    async def __aenter__(self) -> Self:
        await self._lead.__aenter__()
        await self.follow()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._lead.__aexit__(kind, error, trace)
        # The mesh stops its own, whichever of the two that is by now.
        for engine in self._engines:
            if engine is not self._wiring.mesh.foundation.valkey:
                await engine.stop()


def _client(engine: EmbeddedValkey) -> Redis:
    return Redis.from_url(engine.url, socket_connect_timeout=5, socket_timeout=5)


def _socket(engine: EmbeddedValkey) -> str:
    return unquote(engine.url.removeprefix("unix://"))
