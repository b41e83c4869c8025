"""Looks at the clock for all sessions, and empties the house when the process stops."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svc_edge.errors import CloseCode, Closing, SessionClosed
from svc_edge.protocol.delivery import Reading
from svc_edge.protocol.session import Phase
from svc_edge.service.sessions import ref_of

if TYPE_CHECKING:
    from chappe.runtime.clock import Seams
    from chappe.runtime.tasks import Tasks
    from svc_edge.ports import Registry
    from svc_edge.protocol.session import Due, Session
    from svc_edge.service.reading import LogReader
    from svc_edge.service.sessions import Sessions
    from svc_edge.service.sign_in import SignIn

FINISH_S = 5.0
LEAVE_S = 2.0
WAVE_INTERVAL_S = 0.1
WAVES = 20
SMALLEST_WAVE = 200
COMEBACK_PER_SESSION_MS = 1.2
LONGEST_COMEBACK_MS = 60_000.0
_LOOK_AGAIN_S = 0.02
_SECONDS_BETWEEN_FORGETTING = 60


class Keeper:
    """Keeps time for all sessions: one loop, not a timer for each."""

    def __init__(
        self, sessions: Sessions, reader: LogReader, registry: Registry, sign_in: SignIn, *, seams: Seams, tasks: Tasks
    ) -> None:
        self._sessions = sessions
        self._reader = reader
        self._registry = registry
        self._sign_in = sign_in
        self._seams = seams
        self._tasks = tasks
        self._forget_at_s = 0.0

    def tick(self) -> None:
        """Does what is due by now; to be called once in every slot."""
        now_s = self._seams.clock.monotonic_s()
        self._sessions.now_s = now_s
        for session in self._sessions.due(now_s):
            try:
                due = session.tick(now_s)
            except SessionClosed as closed:
                session.door.close(closed.closing)
            else:
                self._act(session, due, now_s)
                self._sessions.plan(session)
        if now_s >= self._forget_at_s:
            self._forget_at_s = now_s + _SECONDS_BETWEEN_FORGETTING
            self._sign_in.revocations.forget(self._seams.clock.wall_ms() / 1000)

    def end(self, session: Session) -> None:
        """Learns that a connection is gone."""
        self._sessions.drop(session)
        self._sign_in.forget(session)
        ref = ref_of(session)
        if ref is not None:
            self._registry.bye(ref)

    async def drain(self) -> None:
        """Sends everybody away in waves, after the answers to what they have sent."""
        self._sessions.is_draining = True
        everybody = list(self._sessions.by_id.values())
        spread_ms = min(len(everybody) * COMEBACK_PER_SESSION_MS, LONGEST_COMEBACK_MS)
        size = max(SMALLEST_WAVE, -(-len(everybody) // WAVES))
        for start in range(0, len(everybody), size):
            for session in everybody[start : start + size]:
                self._warn(session, spread_ms)
            if start + size < len(everybody):
                await self._seams.clock.sleep(WAVE_INTERVAL_S)
        give_up_s = self._seams.clock.monotonic_s() + FINISH_S
        while self._close_finished() and self._seams.clock.monotonic_s() < give_up_s:
            await self._seams.clock.sleep(_LOOK_AGAIN_S)
        for session in list(self._sessions.by_id.values()):
            session.door.close(Closing(CloseCode.DRAIN, "the edge stops"))
        gone_by_s = self._seams.clock.monotonic_s() + LEAVE_S
        while self._sessions.by_id and self._seams.clock.monotonic_s() < gone_by_s:
            await self._seams.clock.sleep(_LOOK_AGAIN_S)

    def _warn(self, session: Session, spread_ms: float) -> None:
        if session.phase < Phase.CLOSING:
            comeback_ms = int(self._seams.randomness.uniform(0.0, spread_ms))
            session.door.warn(Closing(CloseCode.DRAIN, "the edge stops: connect again", comeback_ms))

    def _close_finished(self) -> int:
        """Closes those who have all their answers and returns how many still wait."""
        waiting = 0
        for session in list(self._sessions.by_id.values()):
            if session.sends > 0 or session.calls > 0:
                waiting += 1
            else:
                session.door.close(Closing(CloseCode.DRAIN, "the edge stops"))
        return waiting

    def _act(self, session: Session, due: Due, now_s: float) -> None:
        if due.wants_ping:
            session.door.ping()
        ref = ref_of(session)
        if due.wants_refresh and session.route_nonce:
            self._tasks.spawn(self._sign_in.register_late(session), name="register a session late")
        elif due.wants_refresh and ref is not None:
            self._registry.refresh(ref)
        if due.wants_verify:
            session.plan_verify(now_s, self._sessions.jitter())
            session.delivery.request_pass(Reading.VERIFY)
            self._reader.pump(session)
