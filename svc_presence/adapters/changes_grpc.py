"""The stream of changes of svc_identity, and how long it lets copies be used."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chappe.api.identity.v1 import directory_service_pb2
from svc_presence.model import GroupId, UserId

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from chappe.runtime.clock import Clock
    from svc_presence.ports import DirectoryListener

LEASE_MS = 1500
"""How long after the last complete moment copies may be used: 2 s less the greatest clock skew."""
CAPACITY = 200_000

_USER = directory_service_pb2.DIRECTORY_CHANGE_KIND_USER
_GROUP = directory_service_pb2.DIRECTORY_CHANGE_KIND_GROUP


class Lease:
    """How long copies may be used: while every change up to a moment ago is known, and none was of what they are about.

    Moments are counted by changes; a copy is as old as the moment at which its question was asked.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._changed: dict[bytes, int] = {}
        self._forgotten = 0
        self._complete_until_ms = 0
        self._heard_s = 0.0
        self.moment = 1

    @property
    def is_fresh(self) -> bool:
        """Whether every change up to a moment ago is known."""
        # The time since it was heard as well: a wall clock that is set back would make the lease as much longer.
        is_silent = self._clock.monotonic_s() - self._heard_s > LEASE_MS / 1000
        return not is_silent and self._clock.wall_ms() - self._complete_until_ms <= LEASE_MS

    def holds(self, moment: int, about: Iterable[bytes]) -> bool:
        """Returns whether a copy of a moment, about some users and groups, may be used."""
        if moment <= self._forgotten or not self.is_fresh:
            return False
        return all(self._changed.get(entity, 0) < moment for entity in about)

    def changed(self, entity: bytes) -> None:
        """Learns that something of a user or a group is new."""
        if len(self._changed) >= CAPACITY:
            # Which copies are older than a change can then no longer be told.
            self._forget_all()
        self._changed[entity] = self.moment
        self.moment += 1

    def complete(self, until_ms: int) -> None:
        """Learns up to which time every change is known."""
        self._complete_until_ms = until_ms
        self._heard_s = self._clock.monotonic_s()

    def begin(self) -> None:
        """Learns that changes may have been missed: no copy may be used any more."""
        self._forget_all()
        self._complete_until_ms = 0

    def _forget_all(self) -> None:
        self._changed.clear()
        self._forgotten = self.moment
        self.moment += 1


class Changes:
    """Takes the stream of changes: ends the lease of what is new, and tells the listener."""

    def __init__(self, lease: Lease, listener: Callable[[], DirectoryListener]) -> None:
        self._lease = lease
        self._listener = listener

    def began(self) -> None:
        """Learns that changes may have been missed."""
        self._lease.begin()
        self._listener().everything_changed()

    def changed(self, change: directory_service_pb2.DirectoryChange) -> None:
        """Takes a change of a user or of a group."""
        if change.kind == _USER:
            self._lease.changed(change.user_id)
            self._listener().user_changed(UserId(change.user_id))
        elif change.kind == _GROUP:
            self._lease.changed(change.group_id)
            self._listener().group_changed(GroupId(change.group_id))

    def complete(self, until_ms: int) -> None:
        """Renews the lease."""
        self._lease.complete(until_ms)


class Nobody:
    """Stands in until somebody listens."""

    def user_changed(self, user_id: UserId) -> None:
        """Tells nobody."""

    def group_changed(self, group_id: GroupId) -> None:
        """Tells nobody."""

    def everything_changed(self) -> None:
        """Tells nobody."""
