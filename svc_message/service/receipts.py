"""Answers how far a user's own messages have come, and nobody else's."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from svc_message.errors import MessageNotFoundError
from svc_message.model import ReceiptState, UserId
from svc_message.service.giving import givers_of_receipts
from svc_message.service.token import open_token, page_size, seal_token

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.model.receipt import MemberReceipt, MessageName, Tally
    from svc_message.ports import Directory
    from svc_message.ports.receipt import ReceiptStore

_ID_BYTES = 16


class ReceiptPage(NamedTuple):
    """Receipts by user id, and the token of the next page, empty for none."""

    receipts: list[MemberReceipt]
    next_page_token: str


class ReceiptReading:
    """Answers the senders of messages."""

    def __init__(self, store: ReceiptStore, directory: Directory) -> None:
        self._store = store
        self._directory = directory

    async def counts(self, owner_id: UserId, names: Sequence[MessageName]) -> list[Tally | None]:
        """Counts for many messages, in order; None for what the user has not sent."""
        tallies = await self._store.tally(names)
        if await self._sees_reads(owner_id):
            return [_own(owner_id, tally) for tally in tallies]
        return [_unread(_own(owner_id, tally)) for tally in tallies]

    async def page(self, owner_id: UserId, name: MessageName, size: int, token: str) -> ReceiptPage:
        """Returns who received one message; raises `MessageNotFoundError` and `InvalidPageTokenError`."""
        scope = b"receipts" + owner_id + name.conversation_id + name.message_id
        after = UserId(open_token(scope, token, _ID_BYTES)) if token else None
        (tally,) = await self._store.tally([name])
        if _own(owner_id, tally) is None:
            raise MessageNotFoundError
        limit = page_size(size)
        found = await self._store.list_receipts(name, after, limit + 1)
        kept = found[:limit]
        token = seal_token(scope, kept[-1].user_id) if len(kept) < len(found) else ""
        if not await self._sees_reads(owner_id):
            kept = [receipt._replace(state=ReceiptState.DELIVERED, read_ms=0) for receipt in kept]
        return ReceiptPage(kept, token)

    async def _sees_reads(self, owner_id: UserId) -> bool:
        """Tells whether a user gives read receipts, and so sees those of others."""
        return owner_id in await givers_of_receipts(self._directory, [owner_id])


def _own(owner_id: UserId, tally: Tally | None) -> Tally | None:
    return tally if tally is not None and tally.sender_id == owner_id else None


def _unread(tally: Tally | None) -> Tally | None:
    return None if tally is None else tally._replace(read=0)
