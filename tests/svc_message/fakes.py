"""Fakes of what the ledger needs from outside, and the small things that its tests build."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from chappe.runtime.errors import UnavailableError
from svc_message.model import DirectoryUser, MessageId, UserId
from svc_message.model.bot import Bot
from svc_message.model.group import DirectoryGroup, Membership, Window
from svc_message.protocol import mint_tag

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from svc_message.model import ConversationId, Event, Position
    from svc_message.model.group import Entry


class ManualClock:
    """A clock that moves when it is told to; wall and monotonic time may be moved apart."""

    def __init__(self, wall_ms: float = 1_800_000_000_000.0) -> None:
        self._wall_ms = wall_ms
        self._monotonic_s = 1000.0

    def wall_ms(self) -> int:
        return int(self._wall_ms)

    def monotonic_s(self) -> float:
        return self._monotonic_s

    async def sleep(self, delay_s: float) -> None:
        self.pass_s(delay_s)
        await asyncio.sleep(0)

    def pass_s(self, seconds: float) -> None:
        """Lets time pass."""
        self._wall_ms += seconds * 1000
        self._monotonic_s += seconds

    def step_s(self, seconds: float) -> None:
        """Steps the wall clock alone."""
        self._wall_ms += seconds * 1000


class HandClock:
    """A clock that stands still until a test moves it; sleepers wake in the order of their times."""

    def __init__(self) -> None:
        self._now_s = 1_800_000_000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def wall_ms(self) -> int:
        return int(self._now_s * 1000)

    def monotonic_s(self) -> float:
        return self._now_s

    async def sleep(self, delay_s: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._now_s + delay_s, future))
        await future

    async def advance(self, seconds: float) -> None:
        """Lets time pass, and everything happen that is due meanwhile."""
        until_s = self._now_s + seconds
        await settle()
        while self._sleepers and min(self._sleepers, key=_first)[0] <= until_s:
            sleeper = min(self._sleepers, key=_first)
            self._sleepers.remove(sleeper)
            self._now_s = max(self._now_s, sleeper[0])
            if not sleeper[1].done():
                sleeper[1].set_result(None)
            await settle()
        self._now_s = until_s
        await settle()


async def settle() -> None:
    """Lets everything happen that needs no time."""
    for _ in range(20):
        await asyncio.sleep(0)


class FakeDirectory:
    """A directory whose copies may be behind the truth, and that counts how often it is read through."""

    def __init__(self) -> None:
        self.truth: dict[bytes, DirectoryUser] = {}
        self.copies: dict[bytes, DirectoryUser] = {}
        self.reads = 0
        self.is_down = False

    def add(self, *user_ids: UserId) -> None:
        """Adds users that allow everything."""
        for user_id in user_ids:
            user = _user(user_id, is_active=True)
            self.truth[user_id] = self.copies[user_id] = user

    def block(self, blocker: UserId, blocked: UserId, *, also_in_copy: bool = True) -> None:
        """Lets a user block another."""
        user = self.truth[blocker]
        self.truth[blocker] = user._replace(blocked_user_ids=user.blocked_user_ids | {blocked})
        if also_in_copy:
            self.copies[blocker] = self.truth[blocker]

    def unblock(self, blocker: UserId, blocked: UserId) -> None:
        """Ends a block in the truth; the copy still has it."""
        user = self.truth[blocker]
        self.truth[blocker] = user._replace(blocked_user_ids=user.blocked_user_ids - {blocked})

    def set(self, user_id: UserId, *, gives_read_receipts: bool) -> None:
        """Lets a user give read receipts, or none."""
        user = self.truth[user_id]._replace(gives_read_receipts=gives_read_receipts)
        self.truth[user_id] = self.copies[user_id] = user

    def cached(self, user_id: UserId) -> DirectoryUser | None:
        return self.copies.get(user_id)

    async def read(self, user_ids: Sequence[UserId]) -> list[DirectoryUser]:
        self.reads += 1
        if self.is_down:
            raise UnavailableError("svc_identity", "it does not answer")
        unknown = _user(UserId(b""), is_active=False)
        return [self.truth.get(user_id, unknown) for user_id in user_ids]

    async def ready(self) -> None:
        """Always answers."""


class FakeGroupDirectory:
    """A directory of groups whose copies may be behind the truth, and that counts how often it is read through."""

    def __init__(self) -> None:
        self.truth: dict[bytes, DirectoryGroup] = {}
        self.copies: dict[bytes, DirectoryGroup] = {}
        self.past: dict[tuple[bytes, bytes], tuple[Window, ...]] = {}
        """Times in groups that are over."""
        self.reads = 0
        self.is_down = False
        self.broken: set[bytes] = set()
        """Groups that cannot be read, though the others can."""
        self.before_read: Callable[[], None] = lambda: None

    def add(self, group: DirectoryGroup) -> None:
        """Adds a group, or its next version, with a copy of it."""
        self.truth[group.group_id] = self.copies[group.group_id] = group

    def change(self, group: DirectoryGroup) -> None:
        """Changes the truth; the copy is what it was."""
        self.truth[group.group_id] = group

    def cached(self, group_id: ConversationId) -> DirectoryGroup | None:
        return self.copies.get(group_id)

    async def read(self, group_ids: Sequence[ConversationId]) -> list[DirectoryGroup]:
        self.before_read()
        self._ask(group_ids)
        return [self.truth.get(group_id, no_group(group_id)) for group_id in group_ids]

    async def memberships(self, pairs: Sequence[tuple[ConversationId, UserId]]) -> list[Membership]:
        self._ask([group_id for group_id, _ in pairs])
        return [self._membership(group_id, user_id) for group_id, user_id in pairs]

    def _ask(self, group_ids: Sequence[ConversationId]) -> None:
        self.reads += 1
        if self.is_down:
            raise UnavailableError("svc_identity", "it does not answer")
        if not self.broken.isdisjoint(group_ids):
            raise UnavailableError("svc_identity", "it cannot read this group")

    def _membership(self, group_id: ConversationId, user_id: UserId) -> Membership:
        group = self.truth.get(group_id, no_group(group_id))
        at = group.place(user_id)
        past = self.past.get((group_id, user_id), ())
        if at < 0:
            return Membership(is_member=False, is_admin=False, windows=past, group_version=group.version)
        windows = (*past, Window(group.joined_versions[at], 0))
        return Membership(True, group.is_admin[at], windows, group.version)  # noqa: FBT003


class FakeBots:
    """Knows which programs speak as whom."""

    def __init__(self) -> None:
        self.bots: dict[str, Bot] = {}
        self.is_down = False

    async def find(self, spiffe_id: str) -> Bot | None:
        if self.is_down:
            raise UnavailableError("svc_identity", "it does not answer")
        return self.bots.get(spiffe_id)


class FakeExpander:
    """Keeps the entries that it is given."""

    def __init__(self) -> None:
        self.begun: dict[bytes, None] = {}
        self.entries: list[Entry] = []
        self.is_full = False

    def begin(self, positions: Sequence[Position]) -> None:
        self.begun.update(dict.fromkeys(positions))

    def abandon(self, positions: Sequence[Position]) -> None:
        for position in positions:
            del self.begun[position]

    def add(self, entries: Sequence[Entry]) -> None:
        self.entries += entries


class Hint(NamedTuple):
    """A hint that was handed over."""

    event: Event
    user_ids: tuple[UserId, ...]
    origin_device_id: int
    wants_receipt: bool


class FakeDispatcher:
    """Keeps the hints that it is given."""

    def __init__(self) -> None:
        self.hints: list[Hint] = []

    def dispatch(
        self, event: Event, user_ids: tuple[UserId, ...], origin_device_id: int, *, wants_receipt: bool
    ) -> None:
        self.hints.append(Hint(event, user_ids, origin_device_id, wants_receipt))


def no_group(group_id: ConversationId) -> DirectoryGroup:
    """Returns what the directory says of a group that does not exist."""
    return DirectoryGroup(
        group_id=group_id,
        exists=False,
        version=0,
        is_announcement_only=False,
        expiry_s=0,
        latest_join=0,
        user_ids=(),
        is_admin=(),
        joined_versions=(),
    )


def message_id(user_id: UserId, device_id: int, unix_ms: int, number: int = 0) -> MessageId:
    """Mints a message id as a client does: time, a counter, the device's tag."""
    low = int.from_bytes(mint_tag(user_id, device_id), "big") << 14 | (number & 0x3FFF)
    return MessageId(
        unix_ms.to_bytes(6, "big")
        + (0x7000 | (number & 0xFFF)).to_bytes(2, "big")
        + ((0b10 << 62) | low).to_bytes(8, "big")
    )


def _first(sleeper: tuple[float, asyncio.Future[None]]) -> float:
    return sleeper[0]


def _user(user_id: UserId, *, is_active: bool) -> DirectoryUser:
    return DirectoryUser(
        user_id=user_id,
        is_active=is_active,
        version=1,
        blocked_user_ids=frozenset(),
        device_ids=frozenset({1, 2}),
        gives_read_receipts=True,
    )
