"""Where a scene takes hold of the system: a clock that leaps, gates in the stores, hints that vanish."""

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence

from chappe.runtime.clock import SystemClock
from chappe.runtime.errors import UnavailableError
from svc_message.adapters.dispatcher_grpc import GrpcDispatcher
from svc_message.adapters.group_store_memory import MemoryGroupStore
from svc_message.adapters.journal_memory import MemoryJournal
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.adapters.message_store_postgres import PostgresMessageStore
from svc_message.adapters.receipt_store_memory import MemoryReceiptStore
from svc_message.model import (
    Accepted,
    Applied,
    ChatCursor,
    ChatPage,
    Event,
    ForeignAppend,
    Found,
    InboxPage,
    InboxRead,
    MessageEvent,
    MessageRef,
    NewMessage,
    PageRead,
    ReceiptUpdate,
    StoredMessage,
)
from svc_message.model import UserId as LedgerUser
from svc_message.model.group import Expansion, GroupAccepted, NewGroupMessage, Shard, Touch
from svc_presence.model import (
    Changes,
    ConversationId,
    Edge,
    Lasting,
    Located,
    Route,
    Seen,
    Typing,
    UserId,
    Written,
)
from svc_presence.ports import PresenceStore

LOOK_S = 0.01


class NotInTimeError(AssertionError):
    """A condition of a scene did not come true; the message says which."""


async def until(condition: Callable[[], object], what: str, timeout_s: float = 30.0) -> None:
    """Waits until a condition holds.

    Raises:
        NotInTimeError: It does not in time, which is real time whatever the clocks of the scene say.
    """
    deadline_s = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise NotInTimeError(f"not within {timeout_s:g} s: {what}")
        await asyncio.sleep(LOOK_S)


class LeapClock(SystemClock):
    """The clock of all services of a scene, wall and monotonic time alike; it can be set forward, and stand still."""

    def __init__(self) -> None:
        self._ahead_s = 0.0
        self._leapt_s = 0.0
        self._still_s: float | None = None
        self._leapt = asyncio.Event()

    def wall_ms(self) -> int:
        """Returns Unix time in milliseconds."""
        return int((time.time() - self._behind_s() + self._ahead_s) * 1000)

    def monotonic_s(self) -> float:
        """Returns seconds since some fixed moment."""
        return time.monotonic() - self._behind_s() + self._ahead_s

    async def sleep(self, delay_s: float) -> None:
        """Waits; a leap shortens it."""
        until_s = self.monotonic_s() + delay_s
        while (left_s := until_s - self.monotonic_s()) > 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._leapt.wait(), left_s)

    def leap(self, seconds: float) -> None:
        """Sets the clock forward; who sleeps wakes when it is time."""
        self._ahead_s += seconds
        self._leapt_s += seconds
        leapt, self._leapt = self._leapt, asyncio.Event()
        leapt.set()

    def history_ns(self) -> int:
        """Returns the time for histories, which leaps and never stands still, so that their lines keep an order."""
        return time.time_ns() + int(self._leapt_s * 1e9)

    def stand_still(self) -> None:
        """Stops the time of the services, so that nothing grows old however slow the machine is."""
        self._still_s = time.monotonic()

    def go_on(self) -> None:
        """Lets time pass again, from where it stood."""
        self._ahead_s -= self._behind_s()
        self._still_s = None

    def _behind_s(self) -> float:
        return 0.0 if self._still_s is None else time.monotonic() - self._still_s


class Gate:
    """A place that work passes; once closed, it holds the first that comes and lets everybody else by."""

    def __init__(self) -> None:
        self._is_closed = False
        self.arrived = asyncio.Event()
        """Set when somebody is held."""
        self._opened = asyncio.Event()

    def close(self) -> None:
        """Holds the next that comes."""
        self._is_closed = True

    def release(self) -> None:
        """Lets whoever is held go on."""
        self._opened.set()

    async def pass_through(self) -> None:
        """Waits when the gate is closed."""
        if self._is_closed:
            self._is_closed = False
            self.arrived.set()
            await self._opened.wait()


Book = MemoryMessageStore | PostgresMessageStore
"""A store of the ledger with everything that its book is for."""


class GatedMessageStore:
    """The store of the ledger, with gates: writes may be late, readers may pause."""

    def __init__(self, inner: Book, clock: LeapClock) -> None:
        self._inner = inner
        self.actions = inner.actions
        self.settings = inner.settings
        self.retention = inner.retention
        self._clock = clock
        self.before_commit = Gate()
        self.after_commit = Gate()
        self.after_read = Gate()
        self.receipts = 0
        """Updates of receipts that are durable."""

    async def accept(self, batch: Sequence[NewMessage]) -> list[Accepted]:
        await self.before_commit.pass_through()
        accepted = await self._inner.accept(batch)
        await self.after_commit.pass_through()
        return accepted

    async def find(self, refs: Sequence[MessageRef]) -> list[Found | None]:
        return await self._inner.find(refs)

    async def raise_epoch(self) -> int:
        """Raises: no scene restores a ledger."""
        raise NotImplementedError

    async def declare_void(self, refs: Sequence[MessageRef]) -> list[bool]:
        return await self._inner.declare_void(refs)

    async def apply_receipts(self, batch: Sequence[ReceiptUpdate]) -> list[Applied]:
        applied = await self._inner.apply_receipts(batch)
        self.receipts += len(batch)
        return applied

    async def append_events(self, batch: Sequence[ForeignAppend]) -> None:
        await self._inner.append_events(batch)

    async def read_inbox(self, reads: Sequence[InboxRead]) -> list[InboxPage]:
        pages = await self._inner.read_inbox(reads)
        await self.after_read.pass_through()
        return pages

    async def read_page(self, read: PageRead) -> list[StoredMessage]:
        return await self._inner.read_page(read)

    async def list_chats(
        self, owner_id: LedgerUser, after: ChatCursor | None, limit: int, *, is_archived: bool = False
    ) -> ChatPage:
        return await self._inner.list_chats(owner_id, after, limit, is_archived=is_archived)

    async def epoch(self) -> int:
        return await self._inner.epoch()

    async def clock_ms(self) -> float:
        # A real engine does not leap with the scene.
        return float(self._clock.wall_ms())

    async def ready(self) -> None:
        await self._inner.ready()

    async def aclose(self) -> None:
        """Keeps everything: the process ends, the store does not."""


class Journal(MemoryJournal):
    """The journal of the ledger; it lives on when the process dies."""

    async def aclose(self) -> None:
        """Keeps everything."""


class GatedGroupStore(MemoryGroupStore):
    """What the store of the ledger does for groups, with gates: it may be late, and it may fail."""

    def __init__(self, store: MemoryMessageStore, journal: MemoryJournal) -> None:
        """Shares the book of a store."""
        super().__init__(store, journal)
        self.before_accept = Gate()
        self.before_expand = Gate()
        self.failing = 0
        """How many of the next expansions fail."""
        self.failed = 0
        """How many have failed."""

    async def accept(self, shard: Shard, batch: Sequence[NewGroupMessage]) -> list[GroupAccepted]:
        """Makes messages durable, when the gate is open."""
        await self.before_accept.pass_through()
        return await super().accept(shard, batch)

    async def expand(self, expansions: Sequence[Expansion], touches: Sequence[Touch]) -> None:
        """Writes the pointers of members, when the gate is open, unless it is to fail."""
        if self.failing:
            self.failing -= 1
            self.failed += 1
            raise UnavailableError("ledger", "it fails in this scene")
        await self.before_expand.pass_through()
        await super().expand(expansions, touches)

    async def aclose(self) -> None:
        """Keeps everything."""


class Receipts(MemoryReceiptStore):
    """The receipts of groups; they live on when the process dies."""

    async def aclose(self) -> None:
        """Keeps everything."""


class LossyDispatcher(GrpcDispatcher):
    """The way from the ledger to the carrier, on which the next hints about messages can be lost.

    That is what a process takes with it when it dies, and what a hint may always come to.
    """

    losing = 0
    """How many of the next hints about messages are lost."""
    lost: MessageEvent | None = None
    """The message of the last one that was."""

    @property
    def is_connected(self) -> bool:
        """Whether a hint would go out at once."""
        return bool(self._replicas.accepting)

    def dispatch(
        self, event: Event, user_ids: tuple[LedgerUser, ...], origin_device_id: int, *, wants_receipt: bool
    ) -> None:
        """Hands over a hint, or loses it."""
        if self.losing and isinstance(event, MessageEvent):
            self.losing -= 1
            self.lost = event
            return
        super().dispatch(event, user_ids, origin_device_id, wants_receipt=wants_receipt)


class GatedPresenceStore:
    """The store of the registry, which may hold an answer back or give none."""

    def __init__(self, inner: PresenceStore) -> None:
        self._inner = inner
        self.before_write = Gate()
        self.before_locate = Gate()
        self.is_down = False
        self.refused = 0
        """Questions that were not answered."""
        self.byes = 0
        """Sessions that said goodbye, whether or not that counted."""

    async def write(self, edge: Edge, changes: Changes, sent_ms: int) -> Written:
        await self.before_write.pass_through()
        written = await self._inner.write(edge, changes, sent_ms)
        self.byes += len(changes.byes)
        return written

    async def locate(self, user_ids: Sequence[UserId], gone: Sequence[Route]) -> list[Located]:
        if self.is_down:
            self.refused += 1
            raise UnavailableError("redis", "it is down in this scene")
        await self.before_locate.pass_through()
        return await self._inner.locate(user_ids, gone)

    async def read_presence(self, user_ids: Sequence[UserId]) -> list[Seen]:
        return await self._inner.read_presence(user_ids)

    async def write_typing(self, typings: Sequence[Typing]) -> None:
        await self._inner.write_typing(typings)

    async def read_typing(self, conversation_ids: Sequence[ConversationId]) -> list[list[Lasting]]:
        return await self._inner.read_typing(conversation_ids)

    async def check(self) -> None:
        await self._inner.check()
