"""Makes losses good: asks edges to let their sessions read their logs, and ends streams to edges that are gone."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from chappe.runtime.errors import ChappeError
from svc_fanout.ports import SPREAD_MS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chappe.runtime.clock import Clock
    from chappe.runtime.tasks import Tasks
    from svc_fanout.model import Hint, UserId
    from svc_fanout.ports import Edges
    from svc_fanout.service import FanoutService
    from svc_fanout.worker import FanoutCounters

VERIFY_INTERVAL_S = 5.0
"""Losses within so long are made good by one request."""
BLIND_INTERVAL_S = 10.0
"""While the registry does not answer, every session reads its log so often."""
SWEEP_INTERVAL_S = 60.0

_log = logging.getLogger(__name__)


class Verifying:
    """The loops that nothing is pushed in."""

    def __init__(
        self, service: FanoutService, edges: Edges, tasks: Tasks, clock: Clock, counters: FanoutCounters
    ) -> None:
        self._service = service
        self._edges = edges
        self._tasks = tasks
        self._clock = clock
        self._counters = counters
        self._loss = ""
        self._has_loss = asyncio.Event()
        self._is_blind = False
        tasks.spawn(self._make_good(), name="make good")
        tasks.spawn(self._sweep(), name="sweep")

    def lost(self, reason: str) -> None:
        """Learns that hints were lost, and asks all edges to verify: at once, or a little after the last time."""
        self._loss = reason
        self._has_loss.set()

    def went_blind(self, hints: Sequence[Hint], error: ChappeError) -> None:
        """Learns that hints were dropped because nobody knows where their users are."""
        self._counters.failed_rounds += 1
        users = [user_id for hint in hints for user_id in hint.user_ids]
        if users and not self._is_blind:
            self._is_blind = True
            _log.warning("svc_presence does not answer, hints are dropped until it does: %s", error)
            self._tasks.spawn(self._grope(users[0]), name="grope")

    async def _grope(self, user_id: UserId) -> None:
        """Makes every session read its log while nobody knows where sessions are, and once more afterwards."""
        while self._is_blind:
            self._verify_all("svc_presence does not answer", int(BLIND_INTERVAL_S * 1000))
            await self._clock.sleep(BLIND_INTERVAL_S)
            try:
                await self._service.can_locate(user_id)
            except ChappeError as error:
                _log.warning("svc_presence still does not answer: %s", error)
            else:
                self._is_blind = False
        _log.warning("svc_presence answers again")
        self._verify_all("svc_presence answers again", int(BLIND_INTERVAL_S * 1000))

    async def _make_good(self) -> None:
        while True:
            await self._has_loss.wait()
            self._has_loss.clear()
            _log.warning("all sessions are to read their logs: %s", self._loss)
            self._verify_all(self._loss, SPREAD_MS)
            await self._clock.sleep(VERIFY_INTERVAL_S)

    def _verify_all(self, reason: str, spread_ms: int) -> None:
        self._counters.verifications += 1
        self._edges.verify_all(reason, spread_ms)

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep(SWEEP_INTERVAL_S)
            self._edges.sweep()
