"""Forwards the calls of clients, a few at a time for each."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from chappe.runtime.errors import ChappeError, RateLimitedError, RemoteError
from svc_edge.model import CallDone, CallFailed
from svc_edge.protocol.budget import BUDGET_NAMES, CallBudgets
from svc_edge.protocol.session import MAX_CALLS, NEVER

if TYPE_CHECKING:
    from chappe.runtime.clock import Clock
    from chappe.runtime.tasks import Tasks
    from svc_edge.model import Call
    from svc_edge.ports import Bridge
    from svc_edge.protocol.budget import CallRates
    from svc_edge.protocol.session import Session
    from svc_edge.service.sessions import Sessions

AT_ONCE_RETRY_MS = 100
UNREAD_RETRY_MS = 1000
UNREAD = "unread answers"
_AT_ONCE = f"{MAX_CALLS} calls at once"

_log = logging.getLogger(__name__)


class Calls:
    """The calls that are under way."""

    def __init__(self, bridge: Bridge, sessions: Sessions, rates: CallRates, *, clock: Clock, tasks: Tasks) -> None:
        self._bridge = bridge
        self._sessions = sessions
        self._rates = rates
        self._clock = clock
        self._tasks = tasks
        self.refused: dict[str, int] = dict.fromkeys((*BUDGET_NAMES.values(), _AT_ONCE, UNREAD), 0)
        """How many calls were refused, by the name of the budget that was used up."""

    def start(self, session: Session, call: Call) -> None:
        """Forwards a call; its CallResult follows, in any order with others."""
        error = self._charge(session, call)
        if error is not None:
            self._answer(session, _failure(call, error))
            return
        session.calls += 1
        self._tasks.spawn(self._run(session, call), name="call")

    def _charge(self, session: Session, call: Call) -> RateLimitedError | None:
        """Charges a call to its budget; returns the refusal when there is nothing left, and the session lives on."""
        if session.paused_since_s < NEVER:
            budget, retry_ms = UNREAD, UNREAD_RETRY_MS
        elif session.calls >= MAX_CALLS:
            budget, retry_ms = _AT_ONCE, AT_ONCE_RETRY_MS
        else:
            rate_class = self._bridge.rate_class(call.method)
            budgets = session.budgets = session.budgets or CallBudgets(self._rates)
            budget, retry_ms = BUDGET_NAMES[rate_class], budgets.spend(rate_class, self._clock.monotonic_s())
        if not retry_ms:
            return None
        self.refused[budget] += 1
        return RateLimitedError(budget, retry_after_ms=retry_ms)

    async def _run(self, session: Session, call: Call) -> None:
        result: CallDone | CallFailed
        try:
            payload = await self._bridge.call(call.method, call.payload, session.member, session.address)
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
