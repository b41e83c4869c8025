"""Reads the logs of many sessions on in a few calls."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from chappe.runtime.batching import Batcher
from chappe.runtime.errors import ChappeError, TooLargeError
from chappe.runtime.metrics import FlushTimings
from svc_edge.model import InboxQuery, Resync
from svc_edge.protocol.session import Phase

if TYPE_CHECKING:
    from chappe.runtime.clock import Seams
    from chappe.runtime.tasks import Tasks
    from svc_edge.model import InboxAnswer
    from svc_edge.ports import Ledger
    from svc_edge.protocol.delivery import Page
    from svc_edge.protocol.session import Session
    from svc_edge.service.sessions import Sessions

MAX_SESSIONS_PER_CALL = 256
PARALLEL_CALLS = 4
FIRST_RETRY_S = 0.3
LAST_RETRY_S = 2.0

_log = logging.getLogger(__name__)


class LogReader:
    """Gathers the reads that are due in one turn of the loop into one call."""

    def __init__(self, ledger: Ledger, sessions: Sessions, *, seams: Seams, tasks: Tasks) -> None:
        self._ledger = ledger
        self._sessions = sessions
        self._seams = seams
        self.reads = 0
        self.repaired = 0
        self._batcher: Batcher[tuple[Session, Page]] = Batcher(
            self._read, tasks, name="sync-inbox", limit=lambda: MAX_SESSIONS_PER_CALL, parallel=PARALLEL_CALLS
        )
        self._batcher.timings = self.timings = FlushTimings()

    def pump(self, session: Session) -> None:
        """Starts the read that a session has due, if any."""
        if session.phase is Phase.LIVE and (page := session.delivery.next_page()) is not None:
            self._batcher.add((session, page))

    async def _read(self, batch: list[tuple[Session, Page]]) -> None:
        wanted = [(session, page) for session, page in batch if session.phase is Phase.LIVE]
        if not wanted:
            return
        try:
            answers = await self._ledger.sync([_query(session, page) for session, page in wanted])
        except TooLargeError:
            await self._read_less(wanted)
            return
        except ChappeError as error:
            _log.warning("%d logs could not be read, trying again: %s", len(wanted), error)
            await self._seams.clock.sleep(self._seams.randomness.uniform(FIRST_RETRY_S, LAST_RETRY_S))
            self._retry(wanted)
            return
        self.reads += len(wanted)
        for (session, page), answer in zip(wanted, answers, strict=True):
            self._take(session, page, answer)

    async def _read_less(self, wanted: list[tuple[Session, Page]]) -> None:
        """Asks in two halves; for a single session that wants too much, a quarter of the items."""
        half = len(wanted) // 2
        if half:
            await self._read(wanted[:half])
            await self._read(wanted[half:])
            return
        for session, page in wanted:
            session.delivery.page_items = max(page.limit // 4, 1)
        self._retry(wanted)

    def _take(self, session: Session, page: Page, answer: InboxAnswer) -> None:
        if answer.is_resync:
            detail = "the cursor is older than the log, or not of this ledger: read the chat list and the newest pages"
            session.frames.append(Resync(detail))
        self.repaired += session.delivery.take_page(page, answer)
        self._sessions.mark(session)

    def _retry(self, batch: list[tuple[Session, Page]]) -> None:
        for session, _ in batch:
            session.delivery.is_read_pending = False
            self.pump(session)


def _query(session: Session, page: Page) -> InboxQuery:
    assert session.member is not None  # noqa: S101 - a live session has a user
    member = session.member
    place = (member.user_id, member.device_id, page.cursor, page.after)
    return InboxQuery(*place, page.bound, page.limit, page.known)
