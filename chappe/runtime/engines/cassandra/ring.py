"""Says who is where: the name, the loopback addresses and the tokens of one cluster on this machine."""

import hashlib
import itertools
import os
import socket
from pathlib import Path
from typing import Final

from chappe.runtime.engines.cassandra.cql import PORT
from chappe.runtime.engines.folders import kept_token
from chappe.runtime.engines.ports import bound, is_free
from chappe.runtime.engines.process import EngineError

STORAGE_PORT: Final = 7000
_NETWORK: Final = "127.0"
_BLOCKS: Final = 250
_CLAIM: Final = 254
_TOKENS: Final = 2**64


class Ring:
    """One cluster: its nodes are 127.0.N.1, 127.0.N.2 and so on, with an N of its own, and know each other by name.

    Addresses of their own keep clusters apart that would otherwise answer for each other. A name that nobody else has
    lets a launcher see whether what answers is its own.
    """

    def __init__(self, folder: Path, size: int) -> None:
        """Prepares.

        Args:
            folder: where the name is kept; made by `take`.
            size: how many nodes.
        """
        self._folder = folder
        self._claim: socket.socket | None = None
        self._block: int | None = None
        self.size = size

    @property
    def name(self) -> str:
        """The name of the cluster; the same after every restart."""
        return f"chappe-{kept_token(self._folder, 'name')}"

    def take(self) -> None:
        """Takes a free block of addresses, the same as before when there was one, until `release`.

        Raises:
            EngineError: if none is free.
        """
        if self._claim is not None:
            return
        first = int.from_bytes(hashlib.sha256(os.fsencode(self._folder)).digest()[:4]) % _BLOCKS
        blocks = [self._block] if self._block else (1 + (first + step) % _BLOCKS for step in range(_BLOCKS))
        for block in blocks:
            self._block = block
            # Held while the cluster lives: other launchers on this machine pass the block over.
            self._claim = bound(PORT, f"127.0.{block}.{_CLAIM}")
            if self._claim is not None and all(map(self._is_free, range(1, self.size + 1))):
                return
            self.release()
        raise EngineError(f"no free addresses among 127.0.1.1 to 127.0.{_BLOCKS}.{self.size}; stop what listens there")

    def release(self) -> None:
        """Gives the addresses back; idempotent."""
        if self._claim is not None:
            self._claim.close()
            self._claim = None

    def address(self, number: int) -> str:
        """Returns the address of a node; nodes count from one, and the first is the seed.

        Raises:
            EngineError: before the first start.
        """
        if self._block is None:
            raise EngineError("this Cassandra was never started and has no address yet; await start() first")
        return f"{_NETWORK}.{self._block}.{number}"

    def told_address(self, number: int, network: str) -> str:
        """Returns where clients are told to find a node: in another network, or where it is if none is given."""
        address = self.address(number)
        return network + address.removeprefix(_NETWORK) if network else address

    def token(self, number: int) -> int:
        """Returns where a node's part of the ring begins; all parts are of one size."""
        return (number - 1) * _TOKENS // self.size - _TOKENS // 2

    def refuse_taken(self, number: int) -> None:
        """Returns when nobody answers at the address of a node that is about to start.

        Raises:
            EngineError: if somebody does, who would be taken for it.
        """
        if not self._is_free(number):
            raise EngineError(f"somebody else listens on {self.address(number)}; stop that Cassandra first")

    def _is_free(self, number: int) -> bool:
        return all(itertools.starmap(is_free, ((port, self.address(number)) for port in (PORT, STORAGE_PORT))))
