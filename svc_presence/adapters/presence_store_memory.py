"""Holds routes in memory, for tests and simulations: what the scripts do, in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from svc_presence.model import Connected, DeviceId, Edge, Located, Replaced, SessionId, Written
from svc_presence.ports import CONNECTION_S, LAST_SEEN_S, NONCE_S, ONLINE_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chappe.runtime.clock import Clock
    from svc_presence.model import Changes, NewSession, Route, Session, UserId

Owner = tuple[Edge, SessionId]


class Entry(NamedTuple):
    """A route, or the user of a nonce, until it expires."""

    edge: Edge
    session_id: SessionId
    expires_ms: int


class MemoryPresenceStore:
    """The `PresenceStore` of one process."""

    def __init__(self, clock: Clock) -> None:
        """Makes an empty store.

        Args:
            clock: Its wall clock stands for the server's.
        """
        self._clock = clock
        self._routes: dict[UserId, dict[DeviceId, Entry]] = {}
        self._nonces: dict[tuple[UserId, bytes], Entry] = {}
        self._online: dict[UserId, int] = {}
        self._last_seen: dict[UserId, int] = {}

    async def write(self, edge: Edge, changes: Changes) -> Written:
        """Writes what an edge says of its sessions."""
        now_ms = self._clock.wall_ms()
        connects = [self._connect(edge, connect, now_ms) for connect in changes.connects]
        replaced = [session for session in changes.refreshes if not self._refresh(edge, session, now_ms)]
        for session in changes.byes:
            if self._forget(session.user_id, session.device_id, (edge, session.session_id), now_ms):
                self._last_seen[session.user_id] = now_ms
        return Written(connects, replaced)

    async def locate(self, user_ids: Sequence[UserId], gone: Sequence[Route]) -> list[Located]:
        """Forgets the routes that were found gone, then returns the live routes."""
        now_ms = self._clock.wall_ms()
        for user_id, device_id, session_id, edge in gone:
            self._forget(user_id, device_id, (edge, session_id), now_ms)
        return sorted(
            Located(index, device_id, entry.session_id, entry.edge)
            for index, user_id in enumerate(user_ids)
            for device_id, entry in self._routes.get(user_id, {}).items()
            if entry.expires_ms > now_ms
        )

    async def check(self) -> None:
        """Returns."""

    async def aclose(self) -> None:
        """Keeps everything; there is nothing to close."""

    def is_online(self, user_id: UserId) -> bool:
        """Returns whether the person showed signs of life of late."""
        return self._online.get(user_id, 0) > self._clock.wall_ms()

    def last_seen_ms(self, user_id: UserId) -> int:
        """Returns the time of the last sign of life; 0 when it is unknown."""
        last_seen_ms = self._last_seen.get(user_id, 0)
        return last_seen_ms if last_seen_ms + LAST_SEEN_S * 1000 > self._clock.wall_ms() else 0

    def _connect(self, edge: Edge, connect: NewSession, now_ms: int) -> Connected:
        session, nonce = connect
        owner = (edge, session.session_id)
        used = self._nonces.get((session.user_id, nonce))
        is_repeated = used is not None and used.expires_ms > now_ms
        if used is not None and is_repeated and used[:2] != owner:
            return Connected(is_refused=True, replaced=None)
        if not is_repeated:
            self._nonces[session.user_id, nonce] = Entry(*owner, now_ms + NONCE_S * 1000)
        stored = self._routes.get(session.user_id, {}).get(session.device_id)
        is_other = stored is not None and stored[:2] != owner
        if stored is not None and is_other and is_repeated and stored.expires_ms > now_ms:
            return Connected(is_refused=False, replaced=None)
        self._touch(session, Entry(*owner, now_ms + CONNECTION_S * 1000), now_ms)
        replaced = Replaced(stored.edge, stored.session_id) if stored is not None and is_other else None
        return Connected(is_refused=False, replaced=replaced)

    def _refresh(self, edge: Edge, session: Session, now_ms: int) -> bool:
        stored = self._routes.get(session.user_id, {}).get(session.device_id)
        owner = (edge, session.session_id)
        if stored is not None and stored[:2] != owner and stored.expires_ms > now_ms:
            return False
        self._touch(session, Entry(*owner, now_ms + CONNECTION_S * 1000), now_ms)
        return True

    def _touch(self, session: Session, entry: Entry, now_ms: int) -> None:
        self._routes.setdefault(session.user_id, {})[session.device_id] = entry
        self._online[session.user_id] = now_ms + ONLINE_S * 1000
        self._last_seen[session.user_id] = now_ms

    def _forget(self, user_id: UserId, device_id: DeviceId, owner: Owner, now_ms: int) -> bool:
        devices = self._routes.get(user_id, {})
        stored = devices.get(device_id)
        if stored is None or stored[:2] != owner:
            return False
        del devices[device_id]
        if all(entry.expires_ms <= now_ms for entry in devices.values()):
            self._online.pop(user_id, None)
        return True
