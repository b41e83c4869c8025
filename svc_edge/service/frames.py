"""Takes the frames of clients that are signed in, and settles what a turn of the loop has gathered."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svc_edge.model import Pong
from svc_edge.protocol.session import Phase
from svc_edge.service.sign_in import Caller
from svc_edge.service.traces import Traces

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chappe.runtime.tasks import Tasks
    from svc_edge.model import Call, Hello, Member
    from svc_edge.ports import Ledger
    from svc_edge.protocol.account import Settlement
    from svc_edge.protocol.session import Session
    from svc_edge.service.calls import Calls
    from svc_edge.service.reading import LogReader
    from svc_edge.service.sessions import Sessions
    from svc_edge.service.sign_in import SignIn
    from svc_edge.service.watching import Watching
# Looking a member of an enum up costs ten times a comparison (CPython 3.11), and these are needed for every frame.
_ANONYMOUS = Phase.ANONYMOUS
_LIVE = Phase.LIVE


class Frames:
    """The rules of each frame; all of them raise `SessionClosed` when the frame ends the session."""

    watching: Watching
    """The rules of watching and writing; the composition root sets them."""

    def __init__(
        self, sessions: Sessions, ledger: Ledger, sign_in: SignIn, reader: LogReader, calls: Calls, tasks: Tasks
    ) -> None:
        self._sessions = sessions
        self._ledger = ledger
        self._sign_in = sign_in
        self._reader = reader
        self._calls = calls
        self._tasks = tasks
        self.sends = 0
        self.traces = Traces()
        """Follows drawn messages; the composition root sets one that draws."""

    @property
    def reads(self) -> int:
        """How many logs were read on."""
        return self._reader.reads

    @property
    def repaired(self) -> int:
        """How many items a verification found that no push had brought."""
        return self._reader.repaired

    def hello(self, session: Session, hello: Hello, caller: Caller) -> None:
        """Begins to sign in."""
        session.begin_hello()
        session.address = caller.address
        self._tasks.spawn(self._sign_in.sign_in(session, hello, caller), name="sign-in")

    def send(self, session: Session, send: bytes) -> None:
        """Forwards a Send as it came."""
        if session.phase is not _LIVE:
            session.expect_live("Send")
        session.begin_send()
        self.sends += 1
        member: Member = session.member  # type: ignore[assignment]  # live: has a user
        if self.sends == self.traces.next_send:
            self._ledger.send(session.session_id, member, send, self.traces.begin(self.sends, send))
        else:
            self._ledger.send(session.session_id, member, send)

    def acknowledge(self, session: Session, count: int, message_ids: Sequence[bytes]) -> None:
        """Takes an Ack; what it tells the ledger goes out at the end of the turn."""
        if session.phase is not _LIVE:
            session.expect_live("Ack")
        session.delivery.acknowledge(count)
        if message_ids:
            self._submit(session, session.delivery.account.settle_ids(message_ids))
        if not session.is_dirty:
            self._sessions.mark(session)

    def call(self, session: Session, call: Call) -> None:
        """Forwards a Call; also of an anonymous session, which the contract holds to open methods."""
        if session.phase is not _ANONYMOUS:
            session.expect_live("Call")
        self._calls.start(session, call)

    def ping(self, session: Session, client_ms: int) -> None:
        """Answers a Ping."""
        if session.phase is not _ANONYMOUS:
            session.expect_live("Ping")
        session.frames.append(Pong(client_ms, session.delivery.newest))
        self._sessions.mark(session)

    def settle(self, session: Session) -> None:
        """Ends a turn: acknowledgements become one item for the ledger, and the log is read on where it may be."""
        if session.looks is not None and session.phase is _LIVE:
            self.watching.settle(session)
        delivery = session.delivery
        if delivery.account.is_settled or session.phase is not _LIVE:
            return
        self._submit(session, delivery.account.settle())
        delivery.note_release()

    def read_on(self, session: Session) -> None:
        """Reads the log on after what was found has been written."""
        self._reader.pump(session)

    def resume(self, session: Session) -> None:
        """Learns that the socket takes again, and reads the log on."""
        session.resume()
        self.watching.resume(session)
        self._reader.pump(session)

    def end(self, session: Session, caller: Caller) -> None:
        """Gives back what a connection that is gone had taken."""
        self.watching.end(session)
        if session.expires_s < float("inf"):
            self._sign_in.release(caller.address)

    def _submit(self, session: Session, settlement: Settlement | None) -> None:
        if settlement is not None and session.member is not None:
            drawn = [] if session.traced is None else self.traces.acknowledged(session, settlement)
            ack_id = self._ledger.acknowledge(session.session_id, session.member, settlement.keys, drawn)
            session.delivery.account.await_confirmation(ack_id, settlement)


__all__ = ["Caller", "Frames"]
