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
LONGEST_RETRY_S = 4.0
RETRIED_PARTS = 4

Read = tuple["Session", "Page"]

_log = logging.getLogger(__name__)


class LogReader:
    """Gathers the reads that are due in one turn of the loop into one call.

    A call fails as a whole, also for a single log that cannot be read. Logs that got no answer wait apart from those
    that are due meanwhile. After a pause one of them is asked for alone, so that an outage is no flood of calls; once
    the ledger answers somebody, the others are asked for in parts, until what cannot be read stands alone.
    """

    def __init__(self, ledger: Ledger, sessions: Sessions, *, seams: Seams, tasks: Tasks) -> None:
        self._ledger = ledger
        self._sessions = sessions
        self._seams = seams
        self._tasks = tasks
        self.reads = 0
        self.repaired = 0
        self._batcher: Batcher[Read] = Batcher(
            self._read, tasks, name="sync-inbox", limit=lambda: MAX_SESSIONS_PER_CALL, parallel=PARALLEL_CALLS
        )
        self._batcher.timings = self.timings = FlushTimings()

    def pump(self, session: Session) -> None:
        """Starts the read that a session has due, if any."""
        if session.phase is Phase.LIVE and (page := session.delivery.next_page()) is not None:
            self._batcher.add((session, page))

    async def _read(self, reads: list[Read]) -> None:
        self._put_off(await self._ask(reads), LAST_RETRY_S)

    async def _ask(self, reads: list[Read]) -> list[Session]:
        """Asks for all at once; returns the sessions for which there was no answer."""
        wanted = [(session, page) for session, page in reads if session.phase is Phase.LIVE]
        if not wanted:
            return []
        try:
            answers = await self._ledger.sync([_query(session, page) for session, page in wanted])
            self.reads += len(wanted)
            for (session, page), answer in zip(wanted, answers, strict=True):
                self._take(session, page, answer)
        except TooLargeError:
            return await self._ask_for_less(wanted)
        except ChappeError as error:
            _log.warning("%d logs could not be read, trying again: %s", len(wanted), error)
        except Exception:  # noqa: BLE001 - a supervisor: a bug that one log meets must not leave the others unread
            _log.exception("%d logs could not be read, trying again", len(wanted))
        else:
            return []
        return [session for session, _ in wanted if session.delivery.is_read_pending]

    async def _ask_for_less(self, wanted: list[Read]) -> list[Session]:
        """Asks in two halves; for a single session that wants too much, a quarter of the items."""
        half = len(wanted) // 2
        if half:
            return await self._ask(wanted[:half]) + await self._ask(wanted[half:])
        ((session, page),) = wanted
        if page.limit == 1:
            return [session]
        session.delivery.page_items = max(page.limit // 4, 1)
        session.delivery.drop_page()
        self.pump(session)
        return []

    def _put_off(self, sessions: list[Session], longest_s: float) -> None:
        if sessions:
            self._tasks.spawn(self._ask_again(sessions, longest_s), name="read logs again")

    async def _ask_again(self, sessions: list[Session], longest_s: float) -> None:
        reads_before, longer_s = self.reads, min(longest_s * 2, LONGEST_RETRY_S)
        await self._seams.clock.sleep(self._seams.randomness.uniform(FIRST_RETRY_S, longest_s))
        reads = _due(sessions)
        first, others = reads[:1], reads[1:]
        unanswered = await self._ask(first)
        if unanswered and self.reads == reads_before:
            # Nobody was answered meanwhile, and the ledger may be away: the next time, another one goes first.
            self._put_off([session for session, _ in others] + unanswered, longer_s)
            return
        self._put_off(unanswered, longer_s)
        size = max(-(-len(others) // RETRIED_PARTS), 1)
        for start in range(0, len(others), size):
            self._tasks.spawn(self._read(others[start : start + size]), name="read a part of the logs again")

    def _take(self, session: Session, page: Page, answer: InboxAnswer) -> None:
        if answer.is_resync:
            detail = "the cursor is older than the log, or not of this ledger: read the chat list and the newest pages"
            session.frames.append(Resync(detail))
        self.repaired += session.delivery.take_page(page, answer)
        self._sessions.mark(session)


def _due(sessions: list[Session]) -> list[Read]:
    """Returns what is to be read by now of logs whose reads got no answer: there may be less room, or nothing due."""
    reads: list[Read] = []
    for session in sessions:
        session.delivery.drop_page()
        if session.phase is Phase.LIVE and (page := session.delivery.next_page()) is not None:
            reads.append((session, page))
    return reads


def _query(session: Session, page: Page) -> InboxQuery:
    assert session.member is not None  # noqa: S101 - a live session has a user
    member = session.member
    place = (member.user_id, member.device_id, page.cursor, page.after)
    return InboxQuery(*place, page.bound, page.limit, page.known)
