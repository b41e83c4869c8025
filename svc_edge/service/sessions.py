"""The sessions of this boot, by number and by device, and when to look at each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svc_edge.model import SessionId, SessionRef
from svc_edge.protocol.session import Phase, Session

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from chappe.runtime.clock import Seams
    from svc_edge.model import DeviceId, UserId
    from svc_edge.ports import Door
    from svc_edge.protocol.session import Limits

SLOT_S = 0.1
"""How far apart sessions are looked at: what is due within one slot is read from the log with one call, and whoever
came together stays together. With slots of a second such a call took svc_message 30 ms, in which it answered nobody.
"""
_LAST_ID = (1 << 64) - 1


class Sessions:
    """The table of all connections of this process.

    Numbers start at a random value and are never used again within a boot, so that a push for a session that is gone
    meets nobody. Sessions are looked at by a wheel of slots, not by a timer for each.
    """

    def __init__(self, seams: Seams, limits: Limits) -> None:
        self.by_id: dict[SessionId, Session] = {}
        self.by_device: dict[tuple[UserId, DeviceId], Session] = {}
        self._arrived: dict[tuple[UserId, DeviceId], SessionId] = {}
        self.dirty: list[Session] = []
        self.closes: dict[str, int] = {}
        """Connections that ended, by close code; client for those that the client closed, lost for those that broke."""
        self.on_dirty: Callable[[], None] = _nobody_listens
        self.now_s = seams.clock.monotonic_s()
        self.is_draining = False
        self._randomness = seams.randomness
        self._limits = limits
        self._last_id = seams.randomness.nonzero_u64()
        self._slots: dict[int, list[Session]] = {}
        self._turned_to = int(self.now_s / SLOT_S)

    def open(self, door: Door) -> Session:
        """Adds a connection that has said nothing yet."""
        self._last_id = self._last_id + 1 if self._last_id < _LAST_ID else 1
        session = Session(SessionId(self._last_id), door, self._limits, self.now_s)
        self.by_id[session.session_id] = session
        self.plan(session)
        return session

    def arrive(self, session: Session) -> bool:
        """Takes note that a device has proved who it is; returns false when it has done so on a later connection.

        How long a proof takes to check differs, so that an earlier connection may be the last to get through.
        """
        member = session.member
        if member is None:
            return True
        device = member.user_id, member.device_id
        latest = self._arrived.setdefault(device, session.session_id)
        if session.session_id < latest:
            return False
        self._arrived[device] = session.session_id
        return True

    def adopt(self, session: Session) -> Session | None:
        """Makes a signed session the one of its device and returns the one that was it before."""
        member = session.member
        if member is None:
            return None
        device = member.user_id, member.device_id
        older, self.by_device[device] = self.by_device.get(device), session
        return older

    def drop(self, session: Session) -> None:
        """Forgets a connection that has ended."""
        session.phase = Phase.CLOSED
        self.by_id.pop(session.session_id, None)
        member = session.member
        if member is None:
            return
        device = member.user_id, member.device_id
        if self.by_device.get(device) is session:
            del self.by_device[device]
        if self._arrived.get(device) == session.session_id:
            del self._arrived[device]

    def count_close(self, code: str) -> None:
        """Counts the end of a connection."""
        self.closes[code] = self.closes.get(code, 0) + 1

    def live(self) -> Iterator[Session]:
        """Yields the sessions of signed-in devices."""
        return (session for session in self.by_id.values() if session.phase is Phase.LIVE)

    def mark(self, session: Session) -> None:
        """Notes that a session has something to write or to settle at the end of this turn."""
        if session.is_dirty:
            return
        session.is_dirty = True
        self.dirty.append(session)
        if len(self.dirty) == 1:
            self.on_dirty()

    def plan(self, session: Session) -> None:
        """Puts a session into the slot of its next look, unless it stands in an earlier one."""
        slot = max(int(session.next_look_s() / SLOT_S), self._turned_to) + 1
        if self._turned_to < session.planned_slot <= slot:
            return
        session.planned_slot = slot
        self._slots.setdefault(slot, []).append(session)

    def due(self, now_s: float) -> list[Session]:
        """Returns the sessions whose slot has come; the caller looks at each and plans it anew."""
        found: list[Session] = []
        last = int(now_s / SLOT_S)
        for slot in range(self._turned_to + 1, last + 1):
            found += [
                session
                for session in self._slots.pop(slot, ())
                if session.planned_slot == slot and session.phase < Phase.CLOSING
            ]
        self._turned_to = max(self._turned_to, last)
        return found

    def jitter(self) -> float:
        """Returns a number between -1 and 1."""
        return self._randomness.uniform(-1.0, 1.0)


def ref_of(session: Session) -> SessionRef | None:
    """Returns how the registry names a session; None for one without a user."""
    member = session.member
    return SessionRef(member.user_id, member.device_id, session.session_id) if member else None


def _nobody_listens() -> None:
    """Stands in until the door listens."""
