"""Expands this process's shard of the journal from memory, and the shards of processes that are gone from the store."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING

from chappe.runtime.batching import Batcher
from chappe.runtime.errors import ChappeError
from chappe.runtime.metrics import SECONDS, Histogram
from svc_message.errors import ClockUntrustedError
from svc_message.model import NO_POSITION
from svc_message.model.group import Entry
from svc_message.protocol import milliseconds_of
from svc_message.protocol.journal import CHECKPOINT_INTERVAL_S, SILENCE_S, LowWater, adopted_from

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from chappe.runtime.clock import Seams
    from chappe.runtime.tasks import Tasks
    from svc_message.model import Position
    from svc_message.model.group import Orphan, Shard
    from svc_message.ports.group import Journal
    from svc_message.protocol import LedgerClock
    from svc_message.service.expand import Expanding

    _Done = Callable[[Iterable[Position]], None]

LARGE_GROUP = 256
"""Groups with more members are expanded beside the others, which do not wait for them."""
MAX_BEGUN = 20_000
"""With so many entries that are not done, no more messages to groups are accepted."""
ADOPT_INTERVAL_S = 2.0
PAGE_ENTRIES = 256
FIRST_RETRY_S = 0.05
LAST_RETRY_S = 2.0

_log = logging.getLogger(__name__)


class JournalWorker:
    """The port `Expander`, and the loops of the journal: checkpoints, and the adoption of orphans."""

    def __init__(
        self,
        expanding: Expanding,
        journal: Journal,
        shard: Shard,
        *,
        clock: LedgerClock,
        seams: Seams,
        tasks: Tasks,
    ) -> None:
        """Starts to expand; `start` begins the loops.

        Args:
            expanding: The rules.
            journal: Where the shards are.
            shard: Of this process.
            clock: Gives the bound of the mark.
            seams: For waiting.
            tasks: Owns the loops.
        """
        self._expanding = expanding
        self._journal = journal
        self._shard = shard
        self._clock = clock
        self._seams = seams
        self._tasks = tasks
        self._low_water = LowWater()
        self._lanes = [Batcher(self._expand, tasks, name=f"expand {size} groups") for size in ("small", "large")]
        self._checkpointing = asyncio.Lock()
        self._is_over = False
        self._settled: dict[Shard, set[Position]] = {}
        """What this process has done of orphans whose mark or end does not say so yet."""
        self._delay_s = FIRST_RETRY_S
        self.expanded = 0
        """How many entries of this process are done."""
        self.adopted = 0
        """How many entries of others are done."""
        self.parked = 0
        """How many entries could not be decoded."""
        self.lag_s = Histogram(SECONDS)
        """From the position of an entry to the durable pointers of the last member."""

    async def start(self) -> None:
        """Begins the shard; raises `UnavailableError`."""
        await self._journal.checkpoint(self._shard, self._mark())
        self._tasks.spawn(self._checkpoint_for_ever(), name="checkpoint")
        self._tasks.spawn(self._adopt_for_ever(), name="adopt")

    @property
    def begun(self) -> int:
        """How many entries of this process are not done."""
        return self._low_water.begun

    @property
    def is_full(self) -> bool:
        """Whether so much waits that nothing more may be accepted."""
        return self.begun >= MAX_BEGUN

    def begin(self, positions: Sequence[Position]) -> None:
        """Holds the mark before entries that are about to be written."""
        self._low_water.begin(positions)

    def abandon(self, positions: Sequence[Position]) -> None:
        """Lets the mark pass entries that were promised to nobody."""
        self._low_water.done(positions)

    def add(self, entries: Sequence[Entry]) -> None:
        """Takes entries that are durable; they are expanded at once."""
        for entry in entries:
            self._lanes[self._expanding.is_large(entry, LARGE_GROUP)].add(entry)

    async def drain(self) -> None:
        """Returns once everything is done and the shard is ended; what is left then is adopted by others."""
        for lane in self._lanes:
            await lane.drain()
        async with self._checkpointing:
            self._is_over = True
            last = _position_after_all(self._clock)
            if last and not self.begun:
                await self._journal.end(self._shard, last)

    async def _expand(self, entries: list[Entry]) -> None:
        """Expands what can be, and takes the rest again: what does not answer now will one day, nothing is left out."""
        left = {entry.position: entry for entry in entries}

        def done(positions: Iterable[Position]) -> None:
            now_ms = self._clock.wall_ms()
            for position in positions:
                del left[position]
                self.expanded += 1
                self.lag_s.observe((now_ms - milliseconds_of(position)) / 1000)
            self._low_water.done(positions)

        try:
            await _expand(self._expanding, left, done)
        except Exception as error:  # noqa: BLE001 - a supervisor: whatever a bug does, what was promised is not dropped
            if isinstance(error, ChappeError):
                _log.warning("%d entries of the journal wait: %s", len(left), error)
            else:
                _log.exception("%d entries of the journal cannot be expanded, and are tried again", len(left))
            await self._seams.clock.sleep(self._delay_s)
            self._delay_s = min(self._delay_s * 2, LAST_RETRY_S)
            # Behind what has come meanwhile: one group that cannot be expanded must not hold up all others.
            self.add(list(left.values()))
        else:
            self._delay_s = FIRST_RETRY_S

    def _mark(self) -> Position:
        try:
            return self._low_water.mark(self._clock.bound())
        except ClockUntrustedError:
            # A mark that stays where it is says that the process lives, and nothing else.
            return self._low_water.mark(NO_POSITION)

    async def _checkpoint_for_ever(self) -> None:
        while not self._is_over:
            await self._seams.clock.sleep(CHECKPOINT_INTERVAL_S)
            async with self._checkpointing:
                await self._checkpoint()

    async def _checkpoint(self) -> None:
        if self._is_over:
            return
        try:
            await self._journal.checkpoint(self._shard, self._mark())
        except ChappeError as error:
            _log.warning("the journal could not be checkpointed: %s", error)

    async def _adopt_for_ever(self) -> None:
        while True:
            # Several replicas that looked at the same moment would all do the same work.
            await self._seams.clock.sleep(self._seams.randomness.uniform(ADOPT_INTERVAL_S / 2, ADOPT_INTERVAL_S))
            try:
                orphans = await self._journal.adopt(SILENCE_S)
            except ChappeError as error:
                _log.warning("the journal could not be looked through for orphans: %s", error)
                continue
            self._settled = {orphan.shard: self._settled.get(orphan.shard, set()) for orphan in orphans}
            for orphan in orphans:
                if orphan.shard != self._shard:
                    await self._try_to_adopt(orphan)

    async def _try_to_adopt(self, orphan: Orphan) -> None:
        try:
            await self.adopt(orphan)
        except ChappeError as error:
            _log.warning("shard %x of the journal has to wait: %s", orphan.shard, error)
        except Exception:  # noqa: BLE001 - a supervisor: one shard must not end every process that looks at it
            _log.exception("shard %x of the journal cannot be adopted, and is tried again", orphan.shard)

    async def adopt(self, orphan: Orphan) -> None:
        """Expands what is left of a shard, from H before its mark; raises the error of the first that has to wait.

        Its owner may still be writing, though it is silent, and what it has promised may commit behind what was read:
        neither the mark nor the end passes the bound, which is taken before the first read. A shard with younger
        entries, or with some that have to wait, stays an orphan and is read again from H before its mark; what this
        process did of it is not done again.
        """
        _log.info("adopting shard %x of the journal", orphan.shard)
        bound = self._clock.bound()
        after, is_last = adopted_from(orphan.mark), False
        adoption = _Adoption(self._expanding, self._settled.get(orphan.shard, set()), after)
        self._settled[orphan.shard] = adoption.settled
        while not is_last:
            page = await self._journal.read(orphan.shard, after, PAGE_ENTRIES)
            is_last = len(page) < PAGE_ENTRIES
            poison = [entry for entry in page if not isinstance(entry, Entry)]
            if poison:
                await self._journal.park(orphan.shard, poison)
                self.parked += len(poison)
                for entry in poison:
                    _log.error("an entry of the journal was parked, `replay-parked` puts it back: %s", entry.why)
            expanded = await adoption.expand([entry for entry in page if isinstance(entry, Entry)])
            self.adopted += expanded
            if page:
                after = page[-1].position
                await self._journal.advance(orphan.shard, adoption.mark(min(after, bound)))
        adoption.check()
        if after <= bound and await self._journal.end(orphan.shard, after, SILENCE_S):
            del self._settled[orphan.shard]


class _Adoption:
    """One look through an orphan: what has to wait holds up nothing that follows it, and the mark stays before it."""

    def __init__(self, expanding: Expanding, settled: set[Position], after: Position) -> None:
        """Begins to look.

        Args:
            expanding: The rules.
            settled: What was done when this process looked before.
            after: Where the look begins; what lies before is never read again.
        """
        self._expanding = expanding
        self._low_water = LowWater()
        self._failure: Exception | None = None
        self.settled = {position for position in settled if position > after}
        """What need not be done again."""

    async def expand(self, entries: Sequence[Entry]) -> int:
        """Expands what was not done before, or notes why that has to wait; returns how much is done now."""
        left = {entry.position: entry for entry in entries if entry.position not in self.settled}
        count = len(left)

        def done(positions: Iterable[Position]) -> None:
            for position in positions:
                del left[position]
                self.settled.add(position)
                self._low_water.done([position])

        self._low_water.begin(list(left))
        try:
            await _expand(self._expanding, left, done)
        except Exception as error:  # noqa: BLE001 - kept for `check`: one page must not hold up all that follow
            self._failure = self._failure or error
        return count - len(left)

    def mark(self, bound: Position) -> Position:
        """Returns the mark, which passes neither the bound nor what has to wait."""
        return self._low_water.mark(bound)

    def check(self) -> None:
        """Raises the error of the first that has to wait."""
        if self._failure is not None:
            raise self._failure


async def _expand(expanding: Expanding, left: dict[Position, Entry], done: _Done) -> None:
    """Expands entries; after an error that nobody expected one by one, so that it holds up only the one it is about.

    Args:
        expanding: The rules.
        left: What is to be expanded; `done` takes out what it is called for.
        done: Is told step by step what is done.

    Raises:
        ChappeError: The store or the directory does not answer.
        Exception: An entry ends in another error; all others were tried.
    """
    try:
        await expanding.expand(list(left.values()), done)
    except ChappeError:
        raise
    except Exception as error:
        if len(left) == 1:
            raise
        _log.warning("%d entries of the journal are expanded one by one: %r", len(left), error)
        await _expand_each(expanding, list(left.values()), done)


async def _expand_each(expanding: Expanding, entries: Sequence[Entry], done: _Done) -> None:
    failure: Exception | None = None
    for entry in entries:
        try:
            await expanding.expand([entry], done)
        except ChappeError:
            raise
        except Exception as error:  # noqa: BLE001 - raised in the end: the others are not to wait for this one
            failure = error
    if failure is not None:
        raise failure


def _position_after_all(clock: LedgerClock) -> Position | None:
    """Returns a position after all so far: what is still accepted, on the heels of a drain, must not be forgotten."""
    try:
        return clock.mint().position
    except ClockUntrustedError:
        return None
