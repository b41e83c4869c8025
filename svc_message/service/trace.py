"""Answers operators who ask what became of a message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from svc_message.errors import MessageNotFoundError
from svc_message.model.receipt import MessageName
from svc_message.model.trace import UserReceipt

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.model.trace import MessageTrace, TraceQuery
    from svc_message.ports import TraceStore
    from svc_message.ports.receipt import ReceiptStore

MOST_RECEIPTS: Final = 2048
"""More than a group has members."""


class TraceReading:
    """Looks a message up in every book that may hold it."""

    def __init__(self, stores: Sequence[TraceStore], receipts: ReceiptStore) -> None:
        """Prepares.

        Args:
            stores: One for each kind of book; the first that knows the message answers.
            receipts: Knows the receipts of groups, as far as a sender may know them.
        """
        self._stores = stores
        self._receipts = receipts

    async def read(self, query: TraceQuery) -> MessageTrace:
        """Returns what the ledger knows of a message; raises `MessageNotFoundError`."""
        for store in self._stores:
            found = await store.read_trace(query)
            if found is not None:
                return await self._with_receipts(query, found) if found.recipient_count else found
        raise MessageNotFoundError

    async def _with_receipts(self, query: TraceQuery, found: MessageTrace) -> MessageTrace:
        name = MessageName(query.conversation_id, query.message_id)
        receipts = await self._receipts.list_receipts(name, None, MOST_RECEIPTS)
        return found._replace(receipts=tuple(UserReceipt(*receipt) for receipt in receipts))
