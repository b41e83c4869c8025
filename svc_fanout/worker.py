"""The loops of the carrier: rounds of hints, requests to verify, and the end of idle streams."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import TYPE_CHECKING, Any

from chappe.runtime.batching import MAX_BATCH_BYTES, Batcher
from chappe.runtime.errors import ChappeError
from chappe.runtime.metrics import Counters
from chappe.runtime.tracing import Tracing, kind_of, part
from svc_fanout.ports import MAX_LOCATED_USERS
from svc_fanout.service import meant

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chappe.runtime.clock import Clock
    from chappe.runtime.tasks import Tasks
    from chappe.runtime.tracing import Batch, Sampled
    from svc_fanout.model import Delivery, Hint, Located, UserId
    from svc_fanout.ports import Edges
    from svc_fanout.service import FanoutService

PARALLEL_ROUNDS = 2
"""How many questions to svc_presence are under way: one more hides its latency, more make rounds small and dear."""
SPREAD_MS = 45_000
"""After a loss edges spread the reads of their sessions over so long: every session has read within a minute."""
VERIFY_INTERVAL_S = 5.0
"""Losses within so long are made good by one request."""
BLIND_INTERVAL_S = 10.0
"""While the registry does not answer, every session reads its log so often."""
SWEEP_INTERVAL_S = 60.0

_log = logging.getLogger(__name__)


class FanoutCounters(Counters):
    """What became of hints, counted in items."""

    hints: int
    """Items that were taken into memory, second attempts included."""
    second_attempts: int
    """Items that are taken once more, for a device that was not where it was looked for."""
    rounds: int
    """Rounds, each with one question to svc_presence."""
    failed_rounds: int
    """Rounds that svc_presence did not answer, whose items were dropped."""
    dropped_hints: int
    """Items that were dropped because too many waited."""
    verifications: int
    """Requests that all sessions read their logs."""


class FanoutWorker:
    """Takes hints into memory and carries them, in rounds of everything that has gathered.

    Several rounds ask the registry at the same time, so that throughput does not hang on its latency, and push in the
    order in which they began, so that a user's items keep their order.
    """

    def __init__(
        self,
        service: FanoutService,
        edges: Edges,
        *,
        tasks: Tasks,
        clock: Clock,
        max_waiting_hints: int,
        max_waiting_bytes: int,
    ) -> None:
        """Starts the loops.

        Args:
            service: The rules.
            edges: Are asked to verify, and swept.
            tasks: Owns the loops.
            clock: For their intervals.
            max_waiting_hints: Above so many waiting hints, counted in users, the oldest are dropped.
            max_waiting_bytes: Above so many bytes of waiting items the oldest are dropped.
        """
        self._service = service
        self._edges = edges
        self._tasks = tasks
        self._clock = clock
        self._max_hints = max_waiting_hints
        self._max_bytes = max_waiting_bytes
        self.counters = FanoutCounters()
        self._hints = 0
        self._bytes = 0
        self._last_round = asyncio.Event()
        self._last_round.set()
        self._loss = ""
        self._has_loss = asyncio.Event()
        self._is_blind = False
        self.tracing = Tracing()
        """Makes the spans of drawn messages; the composition root sets one that does."""
        self._rounds: Batcher[Hint] = Batcher(self._carry, tasks, name="rounds", weigh=_weigh, parallel=PARALLEL_ROUNDS)
        tasks.spawn(self._make_good(), name="make good")
        tasks.spawn(self._sweep(), name="sweep")

    @property
    def waiting_hints(self) -> int:
        """How many hints wait, counted in users."""
        return self._hints

    def take(self, hints: Sequence[Hint]) -> None:
        """Takes hints into memory; drops the oldest when there are too many."""
        self.counters.hints += len(hints)
        self._count(hints, 1)
        self._rounds.extend(hints)
        if self._hints > self._max_hints or self._bytes > self._max_bytes:
            self._drop_oldest()

    def returned(self, deliveries: list[Delivery]) -> None:
        """Takes deliveries back whose route is gone."""
        again = self._service.returned(deliveries)
        if again:
            self.counters.second_attempts += len(again)
            self.take(again)

    def lost(self, reason: str) -> None:
        """Learns that hints were lost, and asks all edges to verify: at once, or a little after the last time."""
        self._loss = reason
        self._has_loss.set()

    async def drain(self) -> None:
        """Returns once everything that was taken has been pushed or dropped."""
        await self._rounds.drain()

    def _count(self, hints: Sequence[Hint], sign: int) -> None:
        self._hints += sign * sum([len(hint.user_ids) for hint in hints])
        self._bytes += sign * sum([len(hint.item) for hint in hints])

    def _drop_oldest(self) -> None:
        waiting = self._rounds.take_pending()
        count = 0
        while count < len(waiting) and (self._hints > self._max_hints or self._bytes > self._max_bytes):
            self._count(waiting[count : count + 1], -1)
            count += 1
        self.counters.dropped_hints += count
        _give_credit(waiting[:count])
        self._rounds.extend(waiting[count:])
        self.lost(f"svc_fanout had too much to do and dropped {count} items")

    async def _carry(self, hints: list[Hint]) -> None:
        self.counters.rounds += 1
        self._count(hints, -1)
        previous, self._last_round = self._last_round, asyncio.Event()
        mine = self._last_round
        drawn = [hint for hint in hints if hint.drawn] if self.tracing.is_on else []
        try:
            with self.tracing.batch("fanout.round", drawn_in(drawn), len(hints)) as batch:
                with part("locate"):
                    located = await self._service.locate(hints)
                await previous.wait()
                self._service.push(hints, located)
            self._trace(drawn, located, batch)
        except ChappeError as error:
            self._went_blind(hints, error)
            self._trace(drawn, error)
        finally:
            mine.set()
            _give_credit(hints)

    def _trace(self, drawn: Sequence[Hint], found: Located | ChappeError, batch: Batch | None = None) -> None:
        """Records what a round did for drawn messages."""
        for hint in drawn:
            said: dict[str, Any] = {"item": kind_of(hint.item), "users": len(hint.user_ids), "attempt": hint.attempt}
            if isinstance(found, ChappeError):
                said["reason"] = found.reason
            else:
                own, others = _pushes(hint, found)
                said |= {"deliveries": others, "own_deliveries": own}
            for sampled in hint.drawn:
                shares = batch.attributes(sampled) if batch else {}
                self.tracing.hop("fanout.carry", sampled, **said, **shares)

    def _went_blind(self, hints: list[Hint], error: ChappeError) -> None:
        self.counters.failed_rounds += 1
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
        self.counters.verifications += 1
        self._edges.verify_all(reason, spread_ms)

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep(SWEEP_INTERVAL_S)
            self._edges.sweep()


def drawn_in(hints: Sequence[Hint]) -> list[Sampled]:
    """Returns the drawn messages that hints carry."""
    return [sampled for hint in hints for sampled in hint.drawn]


def _pushes(hint: Hint, located: Located) -> tuple[int, int]:
    """Returns how many devices a hint is pushed to: of the user whose doing the item is, and of others."""
    counts = [0, 0]
    for user_id in hint.user_ids:
        counts[not hint.key.endswith(user_id)] += len(meant(hint, user_id, located.routes.get(user_id, ())))
    return counts[0], counts[1]


def _weigh(hint: Hint) -> int:
    """Returns the hint's share of a batch, so that one question to svc_presence is enough for a round."""
    return len(hint.user_ids) * (MAX_BATCH_BYTES // MAX_LOCATED_USERS)


def _give_credit(hints: Sequence[Hint]) -> None:
    for grant, count in Counter([hint.grant for hint in hints]).items():
        grant(count)
