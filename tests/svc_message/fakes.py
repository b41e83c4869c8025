"""Fakes of what the ledger needs from outside, and the small things that its tests build."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, NamedTuple

from svc_message.model import DirectoryUser, MessageId, UserId
from svc_message.protocol import mint_tag

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.model import Event


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


class FakeDirectory:
    """A directory whose copies may be behind the truth, and that counts how often it is read through."""

    def __init__(self) -> None:
        self.truth: dict[bytes, DirectoryUser] = {}
        self.copies: dict[bytes, DirectoryUser] = {}
        self.reads = 0

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

    def cached(self, user_id: UserId) -> DirectoryUser | None:
        return self.copies.get(user_id)

    async def read(self, user_ids: Sequence[UserId]) -> list[DirectoryUser]:
        self.reads += 1
        unknown = _user(UserId(b""), is_active=False)
        return [self.truth.get(user_id, unknown) for user_id in user_ids]

    async def ready(self) -> None:
        """Always answers."""


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


def message_id(user_id: UserId, device_id: int, unix_ms: int, number: int = 0) -> MessageId:
    """Mints a message id as a client does: time, a counter, the device's tag."""
    low = int.from_bytes(mint_tag(user_id, device_id), "big") << 14 | (number & 0x3FFF)
    return MessageId(
        unix_ms.to_bytes(6, "big")
        + (0x7000 | (number & 0xFFF)).to_bytes(2, "big")
        + ((0b10 << 62) | low).to_bytes(8, "big")
    )


def _user(user_id: UserId, *, is_active: bool) -> DirectoryUser:
    return DirectoryUser(
        user_id=user_id,
        is_active=is_active,
        version=1,
        blocked_user_ids=frozenset(),
        device_ids=frozenset({1, 2}),
        gives_read_receipts=True,
    )
