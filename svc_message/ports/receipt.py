"""What the ledger needs from outside for the receipts of groups, and for looking at receipts."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.model import Position
    from svc_message.model.ids import UserId
    from svc_message.model.receipt import (
        Came,
        MemberAck,
        MemberRead,
        MemberReadUpdate,
        MemberReceipt,
        MessageName,
        News,
        ReadOutcome,
        Tally,
        Unread,
    )

NEWS_INTERVAL_MS = 60_000
"""A sender's inbox says at most so often that messages to one group came further."""


class ReceiptStore(Protocol):
    """The part of the book that holds receipts of groups: a row for each message and member, whatever the size.

    With every change that a sender may know it is noted, as durably, that the sender's inbox has to say so.
    """

    async def acknowledge(self, batch: Sequence[MemberAck], change: Position, recorded_ms: int) -> list[Came]:
        """Raises messages to delivered, never lowers them; returns what came further."""
        ...

    async def unread(self, batch: Sequence[MemberRead]) -> list[Unread]:
        """Returns what reads stand for, in order."""
        ...

    async def read(self, batch: Sequence[MemberReadUpdate]) -> ReadOutcome:
        """Raises messages to read, and the places up to which members have read, with an event in their inboxes.

        A place that was named by single messages counts only when nothing before it is unread.
        """
        ...

    async def tally(self, names: Sequence[MessageName]) -> list[Tally | None]:
        """Counts how far messages have come, in order, direct ones too; None for what is not there."""
        ...

    async def list_receipts(self, name: MessageName, after: UserId | None, limit: int) -> list[MemberReceipt]:
        """Returns with whom a message came how far, by user id after one, direct messages too."""
        ...

    async def claim_news(self, position: Position, now_ms: int, until_ms: int) -> list[News]:
        """Takes news that are due for a while, and writes them into the senders' inboxes; others pass them over."""
        ...

    async def settle_news(self, told: Sequence[News], now_ms: int) -> None:
        """Notes that news were told; what has changed since is due after a while.

        A store may tell once more what was told within 10 s of its change.
        """
        ...
