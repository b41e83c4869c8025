"""The loops of the carrier: rounds of hints in two lanes, requests to verify, and the end of idle streams."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import TYPE_CHECKING, Any, NamedTuple

from chappe.runtime.batching import MAX_BATCH_BYTES, Batcher
from chappe.runtime.errors import ChappeError
from chappe.runtime.metrics import SECONDS, Counters, FlushTimings, Histogram
from chappe.runtime.tracing import Tracing, kind_of, part
from svc_fanout.ports import MAX_LOCATED_USERS
from svc_fanout.protocol import Pace
from svc_fanout.service import meant
from svc_fanout.worker.verifying import Verifying

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator, Sequence

    from chappe.runtime.clock import Clock
    from chappe.runtime.tasks import Tasks
    from chappe.runtime.tracing import Batch, Sampled
    from svc_fanout.model import Hint, Located
    from svc_fanout.ports import Edges
    from svc_fanout.service import FanoutService

PARALLEL_ROUNDS = 2
"""How many questions to svc_presence are under way: one more hides its latency, more make rounds small and dear."""
LARGE_HINT = 256
"""A hint for more users goes through the lane of the large ones."""
PIECE_USERS = 256
"""For so many users of a large hint at a time is pushed, and what small ones have gathered meanwhile goes first."""
MAX_SPINS = 8
"""How many turns of the loop a large hint lets small ones go first: they need three or four."""
MAX_AHEAD = 1024
"""How many deliveries may wait for one edge before large hints hold back, so that small ones need not queue up."""
PATIENCE_S = 0.02
"""How long a large hint holds back for one edge, which may be slow for reasons of its own."""
LOOK_S = 0.002


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


class Limits(NamedTuple):
    """What an operator allows."""

    max_waiting_hints: int
    """Above so many waiting hints, counted in users, the oldest are dropped."""
    max_waiting_bytes: int
    """Above so many bytes of waiting items the oldest are dropped."""
    large_deliveries_per_s: int
    """How many deliveries of large hints go out in a second."""


class FanoutWorker:
    """Takes hints into memory and carries them, in rounds of everything that has gathered.

    Several rounds ask the registry at the same time, so that throughput does not hang on its latency, and push in the
    order in which they began, so that a user's items keep their order. Large hints have a lane of their own, which
    waits for the other one and is paced.
    """

    def __init__(
        self,
        service: FanoutService,
        edges: Edges,
        *,
        tasks: Tasks,
        clock: Clock,
        limits: Limits,
    ) -> None:
        """Starts the loops.

        Args:
            service: The rules.
            edges: Are asked to verify, and swept.
            tasks: Owns the loops.
            clock: For their intervals.
            limits: How much may wait, and how fast large hints go.
        """
        self._service = service
        self._edges = edges
        self._clock = clock
        self._limits = limits
        self.counters = FanoutCounters()
        self._hints = 0
        self._bytes = 0
        self._last_round = asyncio.Event()
        self._last_round.set()
        self._verifying = Verifying(service, edges, tasks, clock, self.counters)
        self._pace = Pace(limits.large_deliveries_per_s, clock.monotonic_s())
        self.tracing = Tracing()
        """Makes the spans of drawn messages; the composition root sets one that does."""
        self._small: Batcher[Hint] = Batcher(self._carry, tasks, name="rounds", weigh=_weigh, parallel=PARALLEL_ROUNDS)
        self._large: Batcher[Hint] = Batcher(self._carry_large, tasks, name="large rounds", weigh=_weigh)
        self._small.on_failure = self._large.on_failure = self._failed
        self._small.timings = self.timings = FlushTimings()
        self._large.timings = self.large_timings = FlushTimings()
        self.locate_seconds = Histogram(SECONDS)
        """How long it took to find users, from those who are remembered too."""

    @property
    def waiting_hints(self) -> int:
        """How many hints wait, counted in users."""
        return self._hints

    def take(self, hints: Sequence[Hint]) -> None:
        """Takes hints into memory; drops the oldest when there are too many."""
        self.counters.hints += len(hints)
        if self._count(hints, 1) > LARGE_HINT:
            self._large.extend([hint for hint in hints if len(hint.user_ids) > LARGE_HINT])
            hints = [hint for hint in hints if len(hint.user_ids) <= LARGE_HINT]
        self._small.extend(hints)
        if self._is_overfull:
            self._drop_oldest()

    def take_again(self, hints: Sequence[Hint]) -> None:
        """Takes hints for a second attempt."""
        if hints:
            self.counters.second_attempts += len(hints)
            self.take(hints)

    def lost(self, reason: str) -> None:
        """Learns that hints were lost, and asks all edges to verify: at once, or a little after the last time."""
        self._verifying.lost(reason)

    async def drain(self) -> None:
        """Returns once everything that was taken has been pushed or dropped."""
        await asyncio.gather(self._small.drain(), self._large.drain())

    def _failed(self, hints: Sequence[Hint]) -> None:
        """Makes good what a bug has dropped: what it was is in the logs of its users."""
        self.counters.dropped_hints += len(hints)
        self.lost("a round of svc_fanout failed")

    @property
    def _is_overfull(self) -> bool:
        return self._hints > self._limits.max_waiting_hints or self._bytes > self._limits.max_waiting_bytes

    def _count(self, hints: Sequence[Hint], sign: int) -> int:
        """Adds hints to what waits, or takes them off; returns how many users they have."""
        users = sum([len(hint.user_ids) for hint in hints])
        self._hints += sign * users
        self._bytes += sign * sum([len(hint.item) for hint in hints])
        return users

    def _drop_oldest(self) -> None:
        """Drops what waits longest until the rest fits, the large hints first."""
        dropped: list[Hint] = []
        for lane in (self._large, self._small):
            waiting = lane.take_pending()
            count = 0
            while count < len(waiting) and self._is_overfull:
                self._count(waiting[count : count + 1], -1)
                count += 1
            dropped += waiting[:count]
            if count < len(waiting):
                lane.extend(waiting[count:])
        self.counters.dropped_hints += len(dropped)
        _give_credit(dropped)
        self.lost(f"svc_fanout had too much to do and dropped {len(dropped)} items")

    async def _carry(self, hints: list[Hint]) -> None:
        previous, self._last_round = self._last_round, asyncio.Event()
        mine = self._last_round

        async def push(located: Located) -> None:
            await previous.wait()
            self._service.push(hints, located)

        try:
            await self._round(hints, push)
        finally:
            mine.set()

    async def _carry_large(self, hints: list[Hint]) -> None:
        async def push(located: Located) -> None:
            for piece in _pieces(hints):
                await self._let_small_ones_pass()
                self._pace.spend(self._service.push([piece], located), self._clock.monotonic_s())

        delay_s = self._pace.delay_s(self._clock.monotonic_s())
        if delay_s > 0:
            await self._clock.sleep(delay_s)
        await self._round(hints, push)

    async def _let_small_ones_pass(self) -> None:
        spins = 0
        while self._small.pending and spins < MAX_SPINS:
            await asyncio.sleep(0)
            spins += 1
        until_s = self._clock.monotonic_s() + PATIENCE_S
        while self._edges.backlog > MAX_AHEAD and self._clock.monotonic_s() < until_s:
            await self._clock.sleep(LOOK_S)
        await asyncio.sleep(0)

    async def _round(self, hints: list[Hint], push: Callable[[Located], Awaitable[None]]) -> None:
        self.counters.rounds += 1
        self._count(hints, -1)
        drawn = [hint for hint in hints if hint.drawn] if self.tracing.is_on else []
        try:
            with self.tracing.batch("fanout.round", drawn_in(drawn), len(hints)) as batch:
                with part("locate"):
                    located = await _measured(self.locate_seconds, self._service.locate(hints))
                await push(located)
            self._trace(drawn, located, batch)
        except ChappeError as error:
            self._verifying.went_blind(hints, error)
            self._trace(drawn, error)
        finally:
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


async def _measured(seconds: Histogram, work: Awaitable[Located]) -> Located:
    start_s = time.perf_counter()
    try:
        return await work
    finally:
        seconds.observe(time.perf_counter() - start_s)


def drawn_in(hints: Sequence[Hint]) -> list[Sampled]:
    """Returns the drawn messages that hints carry."""
    return [sampled for hint in hints for sampled in hint.drawn]


def _pushes(hint: Hint, located: Located) -> tuple[int, int]:
    """Returns how many devices a hint is pushed to: of the user whose doing the item is, and of others."""
    counts = [0, 0]
    for user_id in hint.user_ids:
        counts[not hint.key.endswith(user_id)] += len(meant(hint, user_id, located.routes.get(user_id, ())))
    return counts[0], counts[1]


def _pieces(hints: Sequence[Hint]) -> Iterator[Hint]:
    """Divides large hints; an edge still gets the item once for all sessions that a batch names."""
    for hint in hints:
        for start in range(0, len(hint.user_ids), PIECE_USERS):
            yield hint._replace(user_ids=hint.user_ids[start : start + PIECE_USERS])


def _weigh(hint: Hint) -> int:
    """Returns the hint's share of a batch, so that one question to svc_presence is enough for a round."""
    return len(hint.user_ids) * (MAX_BATCH_BYTES // MAX_LOCATED_USERS)


def _give_credit(hints: Sequence[Hint]) -> None:
    for grant, count in Counter([hint.grant for hint in hints]).items():
        grant(count)
