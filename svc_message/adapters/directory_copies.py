"""Keeps leased copies of what svc_identity knows, each until a change is seen or the lease runs out."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from chappe.runtime.clock import Clock

LEASE_MS = 1500
"""How long after the last complete moment copies may be used: 2 s less the greatest clock skew."""
CAPACITY = 200_000
"""How many copies are kept, each counted with its weight."""


class Versioned(Protocol):
    """What copies are kept of."""

    @property
    def version(self) -> int:
        """Rises with every change."""
        ...


C = TypeVar("C", bound=Versioned)


class Copies(Generic[C]):
    """The copies of one kind, and the versions below which one is out of date."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._copies: dict[bytes, C] = {}
        self._versions: dict[bytes, int] = {}
        self._complete_until_ms = 0
        self._weight = 0
        self.generation = 0
        """Of what is kept: a copy that was asked for in an earlier one must not be."""

    def get(self, name: bytes) -> C | None:
        """Returns a copy that may be used, or None."""
        if self._clock.wall_ms() - self._complete_until_ms > LEASE_MS:
            return None
        return self._copies.get(name)

    def keep(self, name: bytes, copy: C, generation: int, weight: int = 1) -> bool:
        """Keeps a copy that was asked for in a generation; false when it is older than a version already seen."""
        if copy.version < self._versions.get(name, 0):
            return False
        if generation != self.generation:
            # Asked for before the present stream began, or before versions were forgotten: a change in between would
            # go unnoticed.
            return True
        if self._weight >= CAPACITY:
            self._copies.clear()
            self._weight = 0
        self._copies[name] = copy
        self._weight += weight
        return True

    def changed(self, name: bytes, version: int) -> None:
        """Drops a copy that is out of date, or may be."""
        self._copies.pop(name, None)
        if len(self._versions) >= CAPACITY:
            # What is being read at this moment can no longer be compared with the changes seen meanwhile.
            self._versions.clear()
            self._copies.clear()
            self._weight = 0
            self.generation += 1
        self._versions[name] = max(version, self._versions.get(name, 0))

    def complete(self, until_ms: int) -> None:
        """Renews the lease: everything up to a time has been seen."""
        self._complete_until_ms = until_ms

    def forget(self) -> None:
        """Drops everything: changes may have gone unseen."""
        self._copies.clear()
        self._weight = 0
        self._complete_until_ms = 0
        self.generation += 1
