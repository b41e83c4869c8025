"""Answers what became of direct messages that are kept in memory."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svc_message.model import DeviceId, MessageEvent, NewMessage, UserId
from svc_message.model.trace import InboxPointer, MessageTrace, TracedKind, UserReceipt

if TYPE_CHECKING:
    from svc_message.adapters.message_store_memory import MemoryMessageStore
    from svc_message.adapters.message_store_memory.book import Book, Kept
    from svc_message.model.trace import TraceQuery

_VOID = MessageTrace(
    TracedKind.VOID, 0, UserId(b""), DeviceId(0), UserId(b""), 0, is_withheld=False, pointers=(), receipts=()
)


class MemoryTraceStore:
    """The port `TraceStore` over the book of a `MemoryMessageStore`."""

    def __init__(self, store: MemoryMessageStore) -> None:
        self._store = store

    async def read_trace(self, query: TraceQuery) -> MessageTrace | None:
        """Returns what is known of a message; None when there is none."""
        book = self._store.book
        messages = book.messages[query.conversation_id]
        if query.message_id not in messages:
            return None
        message = messages[query.message_id]
        if message is None:
            return _VOID
        return MessageTrace(
            TracedKind.MESSAGE,
            message.accepted_ms,
            message.sender_id,
            message.sender_device_id,
            message.recipient_id if isinstance(message, NewMessage) else UserId(b""),
            0 if isinstance(message, NewMessage) else message.recipient_count,
            message.is_withheld,
            tuple(sorted(_pointers(book, message))),
            tuple(_receipts(book, message)),
        )


def _pointers(book: Book, message: Kept) -> list[InboxPointer]:
    return [
        InboxPointer(event.position, user_id)
        for user_id in {message.sender_id, message.recipient_id}
        for event in book.inboxes[user_id]
        if isinstance(event, MessageEvent) and event.message_id == message.message_id
    ]


def _receipts(book: Book, message: Kept) -> list[UserReceipt]:
    found = book.receipts.get((message.conversation_id, message.message_id))
    return [] if found is None else [UserReceipt(message.recipient_id, *found[:3])]
