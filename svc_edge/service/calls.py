"""Forwards the calls of clients, a few at a time for each."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from chappe.runtime.errors import ChappeError, RateLimitedError, RemoteError
from svc_edge.model import CallDone, CallFailed
from svc_edge.protocol.session import MAX_CALLS

if TYPE_CHECKING:
    from chappe.runtime.tasks import Tasks
    from svc_edge.model import Call
    from svc_edge.ports import Bridge
    from svc_edge.protocol.session import Session
    from svc_edge.service.sessions import Sessions

_log = logging.getLogger(__name__)


class Calls:
    """The calls that are under way."""

    def __init__(self, bridge: Bridge, sessions: Sessions, tasks: Tasks) -> None:
        self._bridge = bridge
        self._sessions = sessions
        self._tasks = tasks

    def start(self, session: Session, call: Call) -> None:
        """Forwards a call; its CallResult follows, in any order with others."""
        if session.calls >= MAX_CALLS:
            error = RateLimitedError(f"{MAX_CALLS} calls at once", retry_after_ms=100)
            self._answer(session, _failure(call, error))
            return
        session.calls += 1
        self._tasks.spawn(self._run(session, call), name="call")

    async def _run(self, session: Session, call: Call) -> None:
        result: CallDone | CallFailed
        try:
            payload = await self._bridge.call(call.method, call.payload, session.member)
            result = CallDone(call.call_id, call.method, payload)
        except ChappeError as error:
            result = _failure(call, error)
        finally:
            session.calls -= 1
        self._answer(session, result)

    def _answer(self, session: Session, result: CallDone | CallFailed) -> None:
        session.frames.append(result)
        self._sessions.mark(session)


def _failure(call: Call, error: ChappeError) -> CallFailed:
    if isinstance(error, RemoteError) and error.is_about_this_process:
        _log.error("%s refused the edge itself: %s %s", call.method, error.reason, error.message)
        return CallFailed(call.call_id, "INTERNAL", "INTERNAL", "a fault of the mesh, not of the call", {}, 0)
    return CallFailed(call.call_id, error.code, error.reason, error.message, dict(error.metadata), error.retry_after_ms)
