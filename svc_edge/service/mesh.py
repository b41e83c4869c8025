"""Takes what the other services send by themselves: answers, pushes, replacements, revocations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svc_edge.errors import CloseCode, Closing
from svc_edge.model import Verdict
from svc_edge.protocol.session import FIRST_VERIFY_S, Phase
from svc_edge.service.traces import MOST_SESSIONS, Traces

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from chappe.runtime.clock import Seams
    from chappe.runtime.tracing import Sampled
    from svc_edge.model import Revocation, SessionId
    from svc_edge.service.sessions import Sessions
    from svc_edge.service.tokens import Revocations

FORGOTTEN_SPREAD_S = 5.0
UNROUTED_SPREAD_S = 40.0
LOST_SPREAD_MS = 10_000.0
# Looking a member of an enum up costs ten times a comparison (CPython 3.11), and these are needed for every delivery.
_CLOSING = Phase.CLOSING
_MALFORMED = Verdict.MALFORMED


class Pushed:
    """What became of one batch of deliveries."""

    __slots__ = ("absent", "absent_indexes", "slow")

    def __init__(self) -> None:
        self.absent: list[int] = []
        self.absent_indexes: list[int] = []
        self.slow: list[int] = []


class Mesh:
    """The rules for what comes from the mesh; a listener of the ledger, the registry and the directory."""

    def __init__(self, sessions: Sessions, revocations: Revocations, seams: Seams) -> None:
        self._sessions = sessions
        self._revocations = revocations
        self._seams = seams
        self.pushed_items = 0
        self.answered_sends = 0
        self.traces = Traces()
        """Follows drawn messages; the composition root sets the one of the frames."""

    def push(
        self,
        deliveries: Iterable[tuple[int, int, int]],
        items: Sequence[bytes],
        keys: Sequence[bytes],
        flags: Sequence[int],
    ) -> Pushed:
        """Gives deliveries (session, user tag, index of the item) to their sessions, and to nobody else."""
        by_id, mark, result, count = self._sessions.by_id, self._sessions.mark, Pushed(), 0
        for session_id, tag, index in deliveries:
            session = by_id.get(session_id)  # type: ignore[call-overload]  # the column holds plain ints
            if session is None or session.user_tag != tag or session.phase >= _CLOSING:
                result.absent.append(session_id)
                result.absent_indexes.append(count)
            elif not session.delivery.offer(items[index], keys[index], flags[index]):
                result.slow.append(session_id)
            elif not session.is_dirty:
                mark(session)
            count += 1
        self.pushed_items += count
        return result

    def push_drawn(
        self,
        deliveries: Sequence[tuple[int, int, int]],
        items: Sequence[bytes],
        keys: Sequence[bytes],
        flags: Sequence[int],
        drawn: Mapping[int, tuple[Sampled, ...]],
    ) -> Pushed:
        """Does what `push` does, and follows the items that carry drawn messages, which are given by their indexes."""
        with self.traces.pushing([sampled for ones in drawn.values() for sampled in ones], len(deliveries)):
            pushed = self.push(deliveries, items, keys, flags)
        absent, slow = frozenset(pushed.absent_indexes), frozenset(pushed.slow)
        taken = [
            (session_id, index)
            for count, (session_id, _, index) in enumerate(deliveries)
            if index in drawn and count not in absent and session_id not in slow
        ]
        for session_id, index in taken[:MOST_SESSIONS]:
            session = self._sessions.by_id[session_id]  # type: ignore[index]  # the column holds plain ints
            self.traces.pushed(session, items[index], keys[index], flags[index], drawn[index])
        return pushed

    def answered(self, session_id: SessionId, verdict: Verdict, frame: bytes) -> None:
        """Passes the answer to a Send on."""
        self.answered_sends += 1
        session = self._sessions.by_id.get(session_id)
        if session is None:
            return
        session.sends -= 1
        session.frames.append(frame)
        if verdict is _MALFORMED:
            session.door.close(Closing(CloseCode.MALFORMED, "send: the bytes are not a Send of the contract"))
        elif not session.is_dirty:
            self._sessions.mark(session)

    def confirmed(self, session_id: SessionId, ack_id: int) -> None:
        """Learns that the receipts of an acknowledgement are durable."""
        session = self._sessions.by_id.get(session_id)
        if session is None:
            return
        session.delivery.confirm(ack_id)
        if session.delivery.has_output:
            self._sessions.mark(session)

    def replaced(self, session_id: SessionId) -> None:
        """Closes a session whose device has a newer one elsewhere."""
        session = self._sessions.by_id.get(session_id)
        if session is not None:
            session.door.close(Closing(CloseCode.REPLACED, "a newer connection of this device took over"))

    def registry_forgot(self) -> None:
        """Makes every session ask for a sign of life, and refresh, within 5 s, and then read its log.

        While a session has no route, hints for it are dropped and nobody is told.
        """
        uniform = self._seams.randomness.uniform
        for session in list(self._sessions.live()):
            soon_s = self._sessions.now_s + uniform(0.0, FORGOTTEN_SPREAD_S)
            session.ping_at_s = min(session.ping_at_s, soon_s)
            session.verify_at_s = min(session.verify_at_s, soon_s + uniform(2.0, 2.0 + UNROUTED_SPREAD_S))
            # A carrier may have asked where its user is while some of the user's devices had no route yet.
            session.unsure_until_s = soon_s + FIRST_VERIFY_S
            self._sessions.plan(session)

    def verify_all(self, spread_s: float) -> None:
        """Makes every session read its log once within a time."""
        for session in list(self._sessions.live()):
            soon_s = self._sessions.now_s + self._seams.randomness.uniform(0.0, spread_s)
            session.verify_at_s = min(session.verify_at_s, soon_s)
            self._sessions.plan(session)

    def revoked(self, revocation: Revocation) -> None:
        """Closes the session of a sign-in that was ended, and refuses its token from now on."""
        self._revocations.add(revocation, self._seams.clock.wall_ms() / 1000)
        session = self._sessions.by_device.get((revocation.user_id, revocation.device_id))
        if session is None or session.member is None:
            return
        if revocation.sign_in_id not in (b"", session.member.sign_in_id):
            return
        closing = Closing(CloseCode.AUTH, "SESSION_REVOKED: the sign-in session was ended")
        if session.calls:
            # The call that ended the session may be its own, and is to have its answer.
            session.door.close_soon(closing)
        else:
            session.door.close(closing)

    def revocations_lost(self) -> None:
        """Makes everybody sign in again, for a revocation may have been missed."""
        for session in list(self._sessions.live()):
            comeback_ms = int(self._seams.randomness.uniform(0.0, LOST_SPREAD_MS))
            detail = "the edge may have missed that a session was ended: connect again"
            session.door.close(Closing(CloseCode.DRAIN, detail, comeback_ms))
