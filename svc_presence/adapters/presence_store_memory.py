"""Holds routes in memory, for tests and simulations: what the scripts do, in Python."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from svc_presence.model import Connected, DeviceId, Edge, Lasting, Located, Replaced, Seen, SessionId, Typist, Written
from svc_presence.ports import CONNECTION_S, EARLIER_S, LAST_SEEN_S, LATE_S, NONCE_S, ONLINE_S, TYPING_S

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chappe.runtime.clock import Clock
    from svc_presence.model import (
        Changes,
        ConversationId,
        NewSession,
        Route,
        Session,
        Typing,
        TypingKind,
        UserId,
    )

Owner = tuple[Edge, SessionId]
_NOTHING_DONE = Connected(is_refused=False, replaced=None)


class Entry(NamedTuple):
    """A route, or the user of a nonce, until it expires."""

    edge: Edge
    session_id: SessionId
    expires_ms: int
    began_ms: int = 0
    """When a session began that was connected; zero when only its refreshes are known."""


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
        self._typing: dict[ConversationId, dict[UserId, tuple[TypingKind, int]]] = {}

    async def write(self, edge: Edge, changes: Changes, sent_ms: int) -> Written:
        """Writes what an edge says of its sessions."""
        now_ms = self._clock.wall_ms()
        is_late = now_ms - sent_ms > LATE_S * 1000
        connects = [_NOTHING_DONE if is_late else self._connect(edge, connect, now_ms) for connect in changes.connects]
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

    async def read_presence(self, user_ids: Sequence[UserId]) -> list[Seen]:
        """Returns what is known of each person."""
        now_ms = self._clock.wall_ms()
        return [self._seen(user_id, now_ms) for user_id in user_ids]

    async def write_typing(self, typings: Sequence[Typing]) -> None:
        """Notes that people are writing, or no longer."""
        until_ms = self._clock.wall_ms() + TYPING_S * 1000
        for user_id, conversation, kind, is_over in typings:
            typists = self._typing.setdefault(conversation.conversation_id, {})
            if is_over:
                typists.pop(user_id, None)
            else:
                typists[user_id] = kind, until_ms

    async def read_typing(self, conversation_ids: Sequence[ConversationId]) -> list[list[Lasting]]:
        """Returns who is writing in each conversation."""
        now_ms = self._clock.wall_ms()
        return [
            [
                Lasting(Typist(user_id, kind), until_ms - now_ms)
                for user_id, (kind, until_ms) in sorted(self._typing.get(conversation_id, {}).items())
                if until_ms > now_ms
            ]
            for conversation_id in conversation_ids
        ]

    async def check(self) -> None:
        """Returns."""

    async def aclose(self) -> None:
        """Keeps everything; there is nothing to close."""

    def forget_all(self) -> None:
        """Loses everything, as a server that is flushed."""
        for held in (self._routes, self._nonces, self._online, self._last_seen, self._typing):
            held.clear()

    def _seen(self, user_id: UserId, now_ms: int) -> Seen:
        last_seen_ms = self._last_seen.get(user_id, 0)
        if last_seen_ms + LAST_SEEN_S * 1000 <= now_ms:
            last_seen_ms = 0
        return Seen(max(self._online.get(user_id, 0) - now_ms, 0), last_seen_ms, max(now_ms - last_seen_ms, 0))

    def _connect(self, edge: Edge, connect: NewSession, now_ms: int) -> Connected:
        session, nonce, age_ms = connect
        owner = (edge, session.session_id)
        used = self._nonces.get((session.user_id, nonce))
        is_repeated = used is not None and used.expires_ms > now_ms
        if used is not None and is_repeated and used[:2] != owner:
            return Connected(is_refused=True, replaced=None)
        if not is_repeated:
            self._nonces[session.user_id, nonce] = Entry(*owner, now_ms + NONCE_S * 1000)
        stored = self._routes.get(session.user_id, {}).get(session.device_id)
        is_other = stored is not None and stored[:2] != owner
        if stored is not None and is_other and stored.expires_ms > now_ms:
            is_earlier = now_ms - age_ms < stored.began_ms - EARLIER_S * 1000
            if is_repeated or is_earlier:
                return Connected(is_refused=False, replaced=None)
        self._touch(session, Entry(*owner, now_ms + CONNECTION_S * 1000, now_ms - age_ms), now_ms)
        replaced = Replaced(stored.edge, stored.session_id) if stored is not None and is_other else None
        return Connected(is_refused=False, replaced=replaced)

    def _refresh(self, edge: Edge, session: Session, now_ms: int) -> bool:
        stored = self._routes.get(session.user_id, {}).get(session.device_id)
        owner = (edge, session.session_id)
        if stored is not None and stored[:2] != owner and stored.expires_ms > now_ms:
            return False
        began_ms = stored.began_ms if stored is not None and stored[:2] == owner else 0
        self._touch(session, Entry(*owner, now_ms + CONNECTION_S * 1000, began_ms), now_ms)
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
