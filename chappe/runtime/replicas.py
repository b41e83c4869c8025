"""The replicas of a service: one stream to each, found by name.

A target is a comma-separated list of `host:port`, or one `dns:///name:port` of a headless Service whose name resolves
to every pod. A ClusterIP would balance connections, not calls, so streams are never opened to one.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import socket
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from chappe.runtime.streams import StreamClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from chappe.runtime.clock import Clock
    from chappe.runtime.tasks import Tasks

RESOLVE_INTERVAL_S = 2.0

Stream = TypeVar("Stream", bound=StreamClient[Any, Any, Any])

_log = logging.getLogger(__name__)


async def resolve(target: str) -> frozenset[str]:
    """Returns the addresses, `host:port`, that a target stands for at the moment; raises OSError when DNS fails."""
    if not target.startswith("dns:///"):
        return frozenset(part.strip() for part in target.split(",") if part.strip())
    host, _, port = target.removeprefix("dns:///").rpartition(":")
    found = await asyncio.get_running_loop().getaddrinfo(host, int(port), type=socket.SOCK_STREAM)
    return frozenset(_address(str(sockaddr[0]), int(port)) for *_, sockaddr in found)


def rendezvous(key: bytes, addresses: frozenset[str]) -> str:
    """Returns the address that wins for a key: highest random weight, so a change of addresses moves only its own keys.

    Source: Thaler and Ravishankar, "Using name-based mappings to increase hit rates", 1998.
    """
    return max(addresses, key=lambda address: hashlib.blake2b(key, key=address.encode()[:64], digest_size=8).digest())


class Replicas(Generic[Stream]):
    """Keeps one stream to every address that a target resolves to."""

    def __init__(self, target: str, connect: Callable[[str], Stream], *, tasks: Tasks, clock: Clock) -> None:
        """Prepares; nothing is dialled before `start`.

        Args:
            target: See the module.
            connect: Makes the stream to one address.
            tasks: Owns the resolving.
            clock: For its interval.
        """
        self._target = target
        self._connect = connect
        self._tasks = tasks
        self._clock = clock
        self.streams: dict[str, Stream] = {}
        self.on_change: Callable[[], None] | None = None
        self._watcher: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Resolves once, dials, and goes on resolving a name."""
        await self._refresh()
        if self._target.startswith("dns:///"):
            self._watcher = self._tasks.spawn(self._watch(), name=f"resolve {self._target}")

    @property
    def accepting(self) -> list[Stream]:
        """The streams on which items go out at the moment."""
        return [stream for stream in self.streams.values() if stream.is_accepting]

    async def aclose(self) -> None:
        """Ends every stream politely; nothing is dialled any more."""
        if self._watcher is not None:
            self._watcher.cancel()
        streams, self.streams = list(self.streams.values()), {}
        await asyncio.gather(*(stream.aclose() for stream in streams))

    async def _watch(self) -> None:
        while True:
            await self._clock.sleep(RESOLVE_INTERVAL_S)
            await self._refresh()

    async def _refresh(self) -> None:
        try:
            addresses = await resolve(self._target)
        except OSError as error:
            _log.warning("%s does not resolve: %s", self._target, error)
            return
        gone = [address for address in self.streams if address not in addresses]
        new = [address for address in sorted(addresses) if address not in self.streams]
        for address in gone:
            self._tasks.spawn(self.streams.pop(address).aclose(), name=f"close {address}")
        for address in new:
            self.streams[address] = self._connect(address)
        if (gone or new) and self.on_change is not None:
            self.on_change()


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
