"""Stores that are somewhere else: what is asked arrives late, and an answer that does not come says nothing.

A write whose answer was lost may have happened, may never happen, may happen minutes later, or in part: of the rows of
one message some are there and some are not, as after a coordinator that died between two partitions.
"""

import asyncio
import inspect
import random
from collections.abc import Awaitable, Callable
from copy import deepcopy
from typing import Any, NamedTuple

from chappe.runtime.errors import UnavailableError
from svc_message.adapters.group_store_memory import placed
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.adapters.message_store_memory.acting import MemoryActionStore
from svc_message.adapters.message_store_memory.book import Book, event_of
from svc_message.adapters.message_store_memory.receipts import apply
from svc_message.model import Event, NewMessage, ReceiptUpdate, UserId
from svc_message.model.group import Expansion, NewGroupMessage, Touch
from tests.simulation.loop import VirtualLoop

TYPICAL_S = 0.002
GIVES_UP_S = (0.5, 6.0)
"""How long a caller waits for a call that gets no answer."""
LATEST_S = 150.0
"""How late a write may happen of which nobody knows any more; half of them happen within ten seconds."""
WRITES = frozenset(
    {
        "accept", "act", "apply_receipts", "expand", "append_events", "declare_void", "declare_actions_void",
        "acknowledge", "read", "claim_news", "settle_news", "checkpoint", "advance", "end", "write", "change",
    }
)  # fmt: skip
REPEATABLE = frozenset({"accept", "act", "expand"})
"""Writes that a hint to a replica may bring a second time, much later.

Not receipts: what comes a second time are the rows that were worked out the first time, and those are there. The
store in memory would work them out anew, and tell fewer messages in the same place.
"""

TORN = frozenset({"accept", "act", "apply_receipts", "expand"})
"""Writes of several partitions, of which some may be there without the others."""


class Weather(NamedTuple):
    """How a store behaves."""

    slow: float = 0.0
    """How many calls take long."""
    slow_s: float = 0.0
    """How long at most."""
    lost: float = 0.0
    """How many calls get no answer."""
    torn: float = 0.0
    """How many of the writes without an answer happen in part."""
    doubled: float = 0.0
    """How many writes happen a second time, late."""


CALM = Weather(slow=0.01, slow_s=0.3)


class Host:
    """Where a store runs; it never dies, but it may not be reached, and it may take its time."""

    def __init__(self, name: str, loop: VirtualLoop, seed: str, typical_s: float = TYPICAL_S) -> None:
        self.typical_s = typical_s
        self.name = name
        self.loop = loop
        self._seed = seed
        # Each kind of call has lots of its own, so that what is left out of a plan changes little elsewhere.
        self._lots: dict[str, random.Random] = {}
        self.weather = CALM
        self.down_until_s = 0.0
        self.busy_until_s = 0.0
        """When the last of the writes happens of which nobody knows any more."""
        self.has_torn = False
        """Some write has happened in part."""
        self._writes_from_s = 0.0
        self._reads_from_s = 0.0

    def lots_of(self, name: str) -> random.Random:
        """Returns the lots of one kind of call."""
        found = self._lots.get(name)
        if found is None:
            found = self._lots[name] = random.Random(f"{self._seed} {self.name} {name}")
        return found

    def freeze(self, seconds: float, *, is_for_reads_too: bool) -> None:
        """Carries out what arrives only after a while, all at once."""
        self._writes_from_s = self.loop.time() + seconds
        if is_for_reads_too:
            self._reads_from_s = self._writes_from_s

    def arrival_s(self, lots: random.Random, *, is_write: bool) -> float:
        """Returns when a call is carried out that leaves now."""
        thaws_s = self._writes_from_s if is_write else self._reads_from_s
        return max(self.loop.time() + self.delay_s(lots), thaws_s)

    def delay_s(self, lots: random.Random) -> float:
        """Returns how long one way takes."""
        if lots.random() < self.weather.slow:
            return lots.random() * self.weather.slow_s
        return lots.expovariate(1 / self.typical_s)

    def carry_out_late(self, late_s: float, write: Callable[..., Any], *args: Any) -> None:
        """Lets a write happen of which nobody knows any more."""
        self.busy_until_s = max(self.busy_until_s, self.loop.time() + late_s)
        self.loop.call_later(late_s, write, *args, context=self.loop.world.context)


def late_s(lots: random.Random) -> float:
    """Returns how late a write happens: some minutes late, and many while there still is something to be harmed."""
    return float(LATEST_S * lots.random() ** 4)


class Remote:
    """A port to a store that is somewhere else; what it holds lives on when the process dies."""

    def __init__(self, host: Host, inner: Any) -> None:
        self._host = host
        self._inner = inner
        self._methods: dict[str, Any] = {}

    def __getattr__(self, name: str) -> Any:
        """Returns a method that crosses the network, or another port of the same store."""
        found = self._methods.get(name)
        if found is None:
            inner = getattr(self._inner, name)
            if inspect.iscoroutinefunction(inner):
                found = self._crossing(name, inner)
            elif name in {"actions", "settings", "retention"}:
                found = Remote(self._host, inner)
            else:
                return inner
            self._methods[name] = found
        return found

    async def aclose(self) -> None:
        """Keeps everything."""

    def _crossing(self, name: str, method: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        host = self._host
        is_write, lots, loop = name in WRITES, host.lots_of(name), host.loop

        async def call(*args: Any, **settings: Any) -> Any:
            weather = host.weather
            is_down = loop.time() < host.down_until_s
            if is_down or (weather.lost and lots.random() < weather.lost):
                if is_write and lots.random() < 0.6:
                    self._happen_unseen(name, method, args, is_down=is_down)
                await asyncio.sleep(lots.uniform(*GIVES_UP_S))
                raise UnavailableError(host.name, "no answer in time")
            if is_write and name in REPEATABLE and weather.doubled and lots.random() < weather.doubled:
                host.carry_out_late(late_s(lots), _carry_out, method, args, settings)
            answer: asyncio.Future[Any] = loop.create_future()
            arrival_s, back_s = host.arrival_s(lots, is_write=is_write), host.delay_s(lots)
            question = method, args, settings
            loop.call_at(arrival_s, self._arrive, question, back_s, answer, context=loop.world.context)
            return await answer

        return call

    def _arrive(self, question: tuple[Any, Any, Any], back_s: float, answer: "asyncio.Future[Any]") -> None:
        loop = self._host.loop
        loop.call_later(back_s, _settle, answer, *_carry_out(*question), context=loop.world.context)

    def _happen_unseen(self, name: str, method: Any, args: Any, *, is_down: bool) -> None:
        lots, carry_out_late = self._host.lots_of(name), self._host.carry_out_late
        if name in TORN and lots.random() < self._host.weather.torn:
            self._host.has_torn = True
            tear = getattr(Tearing(self._inner, lots), name)
            carry_out_late(lots.random() * 3, tear, *args)
            return
        delay_s = late_s(lots) if is_down or lots.random() < 0.5 else lots.random() * 3
        carry_out_late(delay_s, _carry_out, method, args, {})


class Tearing:
    """Writes some of the rows of what was asked; in a group, what is written to a shard, without its entry there."""

    def __init__(self, store: Any, lots: random.Random) -> None:
        self._book: Book = store.book if isinstance(store, MemoryMessageStore) else store._book
        self._lots = lots
        self._torn = Torn(self._book, lots)

    def accept(self, *asked: Any) -> None:
        """Keeps messages, each with the pointers of some of those who are entitled."""
        batch: list[NewMessage | NewGroupMessage] = asked[-1]
        for message in batch:
            messages = self._book.messages[message.conversation_id]
            if messages.setdefault(message.message_id, message) is not message:
                continue
            users = [message.sender_id]
            if isinstance(message, NewMessage) and not message.is_withheld:
                users = list(dict.fromkeys((*users, message.recipient_id)))
            self._torn.append(event_of(message, message.position), *users)

    def act(self, *asked: Any) -> None:
        """Carries actions out, and tells some of those who are to learn of it."""
        _carry_out(MemoryActionStore(self._torn).act, asked[-1:], {})

    def expand(self, expansions: list[Expansion], _touches: list[Touch]) -> None:
        """Tells some members."""
        for expansion in expansions:
            for event in expansion.events:
                self._torn.append(placed(event, expansion), *expansion.user_ids)

    def apply_receipts(self, batch: list[ReceiptUpdate]) -> None:
        """Tells some of what would be raised, and raises nothing: that is written last."""
        self._torn.receipts, self._torn.lines = deepcopy((self._book.receipts, self._book.lines))
        for update in batch:
            apply(self._torn, update)


class Torn(Book):
    """A book that is the same as another, but of the pointers that are written it keeps some."""

    def __init__(self, book: Book, lots: random.Random) -> None:
        self.__dict__.update(book.__dict__)
        self._lots = lots

    def append(self, event: Event, *user_ids: UserId) -> None:
        """Puts an event into some of the inboxes."""
        super().append(event, *[user_id for user_id in user_ids if self._lots.random() < 0.5])


def _carry_out(method: Any, args: Any, settings: Any) -> tuple[Any, Exception | None]:
    """Runs what a store in memory does, at once and as a whole."""
    running = method(*args, **settings)
    try:
        running.send(None)
    except StopIteration as end:
        return end.value, None
    except Exception as error:  # noqa: BLE001 - whatever it is, the caller gets it
        return None, error
    raise AssertionError(f"{method} waits, and a store in memory may not")


def _settle(answer: "asyncio.Future[Any]", result: Any, error: Exception | None) -> None:
    if answer.done():
        return
    if error is None:
        answer.set_result(result)
    else:
        answer.set_exception(error)
