"""A discrete-event model of writers with delays and readers with pauses, over the real rules of the ledger.

Time is virtual: whatever would wait awaits a `Pause`, and the model resumes it when its time has come. Commits become
visible late, or after their call has failed; processes stop for seconds between any two steps; clocks are skewed.
"""

from __future__ import annotations

import heapq
import itertools
import random
from typing import TYPE_CHECKING, Any, NamedTuple

from chappe.runtime.errors import UnavailableError
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.model import (
    DeviceId,
    InboxQuery,
    MessageEvent,
    MessageId,
    Refused,
    SendMessage,
    SendRequest,
    Stored,
    UserId,
)
from svc_message.protocol import LedgerClock
from svc_message.service.accept import Accepting
from svc_message.service.sight import Sight
from svc_message.service.sync import Syncing
from tests.svc_message.fakes import FakeDirectory, FakeDispatcher, FakeGroupDirectory, message_id

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Generator, Sequence

    from svc_message.model import Accepted, InboxAnswer, InboxPage, InboxRead, NewMessage
    from svc_message.ports import Dispatcher, MessageStore

    Rules = Callable[[MessageStore, Sight, Dispatcher, LedgerClock], Syncing]

ALICE, BOB = UserId(b"A" * 16), UserId(b"B" * 16)
START_MS = 1_800_000_000_000
SKEW_S = 0.25


class Pause:
    """Waits in the model's time."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __await__(self) -> Generator[float, None, None]:
        yield self.seconds


class ModelClock:
    """The clock of one process: the model's time, wrong by a constant."""

    def __init__(self, model: Model, skew_s: float) -> None:
        self._model = model
        self._skew_s = skew_s

    def wall_ms(self) -> int:
        return START_MS + int((self._model.now_s + self._skew_s) * 1000)

    def monotonic_s(self) -> float:
        return self._model.now_s

    async def sleep(self, delay_s: float) -> None:
        await Pause(delay_s)


class LateStore(MemoryMessageStore):
    """A store whose commits are slow, fail, or become visible after they have failed."""

    def __init__(self, model: Model) -> None:
        super().__init__(ModelClock(model, 0))
        self._model = model

    async def accept(self, batch: Sequence[NewMessage]) -> list[Accepted]:
        dice = self._model.dice
        await Pause(self._model.delay_s())
        fate = dice.random()
        if fate < 0.05:
            self._model.start(self._commit_late(batch, dice.uniform(0, 60)))
        if fate < 0.08:
            raise UnavailableError("store", "the outcome is unknown")
        outcomes = await super().accept(batch)
        await Pause(self._model.delay_s())
        if fate < 0.11:
            raise UnavailableError("store", "the outcome is unknown")
        return outcomes

    async def _commit_late(self, batch: Sequence[NewMessage], delay_s: float) -> None:
        await Pause(delay_s)
        await super().accept(batch)

    async def read_inbox(self, reads: Sequence[InboxRead]) -> list[InboxPage]:
        await Pause(self._model.delay_s())
        pages = await super().read_inbox(reads)
        await Pause(self._model.delay_s())
        return pages


class Outcome(NamedTuple):
    """What became of a run."""

    acknowledged: int
    lost: int
    """Acknowledged messages that some device of the recipient never saw."""


class Model:
    """Alice's messages through three processes, and two of Bob's devices that read his log through two others."""

    def __init__(self, seed: int, rules: Rules = Syncing) -> None:
        self.dice = random.Random(seed)
        self.now_s = 0.0
        self.acknowledged: set[MessageId] = set()
        self._queue: list[tuple[float, int, Coroutine[Any, Any, None]]] = []
        self._order = itertools.count()
        store, directory, dispatcher = LateStore(self), FakeDirectory(), FakeDispatcher()
        directory.add(ALICE, BOB)
        self._writers = [Accepting(store, directory, dispatcher, self._clock(n)) for n in range(3)]
        sight = Sight(FakeGroupDirectory())
        self._readers = [rules(store, sight, dispatcher, self._clock(n)) for n in range(3, 5)]
        self._devices = [Device(self, self._readers[n], DeviceId(n + 1)) for n in range(2)]

    def run(self, messages: int = 80, span_s: float = 80) -> Outcome:
        """Plays until every message was acknowledged and every device has read to the end."""
        for number in range(messages):
            self.start(self._send(number), self.dice.uniform(0, span_s))
        for device in self._devices:
            self.start(device.live(messages))
        while self._queue:
            self.now_s, _, coroutine = heapq.heappop(self._queue)
            self._resume(coroutine)
        lost = [self.acknowledged - device.seen for device in self._devices]
        return Outcome(len(self.acknowledged), len(set[MessageId]().union(*lost)))

    def start(self, coroutine: Coroutine[Any, Any, None], delay_s: float = 0) -> None:
        heapq.heappush(self._queue, (self.now_s + delay_s, next(self._order), coroutine))

    def delay_s(self) -> float:
        """Returns how long a step takes: milliseconds, often seconds, now and then as long as a process may stop."""
        fate = self.dice.random()
        if fate < 0.2:
            return self.dice.uniform(0, 3.5)
        return self.dice.uniform(0, 20) if fate < 0.25 else self.dice.expovariate(100)

    def _resume(self, coroutine: Coroutine[Any, Any, None]) -> None:
        try:
            self.start(coroutine, coroutine.send(None))
        except StopIteration:
            return

    def _clock(self, node: int) -> LedgerClock:
        return LedgerClock(ModelClock(self, self.dice.uniform(-SKEW_S, SKEW_S)), bytes([node]) * 8)

    async def _send(self, number: int) -> None:
        minted = message_id(ALICE, 1, START_MS + int(self.now_s * 1000), number)
        for attempt in itertools.count(1):
            request = SendRequest(ALICE, DeviceId(1), minted, attempt, SendMessage(BOB, b"text"))
            writer = self.dice.choice(self._writers)
            (answer,) = await writer.accept([request])
            if answer is None:
                (answer,) = await writer.accept_after_looking([request])
            if isinstance(answer, Stored):
                self.acknowledged.add(minted)
                return
            assert isinstance(answer, Refused)
            assert answer.is_retryable
            await Pause(self.dice.uniform(0.5, 4))


class Device:
    """One device that knows nothing but its log, as it is read on from its cursor."""

    def __init__(self, model: Model, syncing: Syncing, device_id: DeviceId) -> None:
        self._model = model
        self._syncing = syncing
        self._device_id = device_id
        self._epoch = 0
        self._cursor = b""
        self.seen: set[MessageId] = set()

    async def live(self, messages: int) -> None:
        """Reads now and then until so many messages are acknowledged, and then until the horizon has passed them."""
        while len(self._model.acknowledged) < messages:
            await self._read()
            await Pause(self._model.dice.uniform(0, 15))
        for _ in range(3):
            await Pause(15)
            await self._read()

    async def _read(self) -> None:
        answer = await self._page(b"", b"")
        while answer.has_more:
            # The next page waits until the device has room for it.
            await Pause(self._model.dice.choice((0, 0, 15)))
            answer = await self._page(answer.events[-1].position, answer.pass_bound)

    async def _page(self, after: bytes, bound: bytes) -> InboxAnswer:
        query = InboxQuery(BOB, self._device_id, self._epoch, self._cursor, after, bound, limit=2)
        (answer,) = await self._syncing.sync([query])
        self.seen.update(event.message_id for event in answer.events if isinstance(event, MessageEvent))
        self._cursor, self._epoch = answer.cursor, answer.epoch
        return answer
