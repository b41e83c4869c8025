"""Lets go of what is not kept for ever, in the book that is kept in memory."""

from svc_message.adapters.message_store_memory.book import Book, Kept
from svc_message.model import ConversationId, Event, MessageEvent, MessageId, Position, ReceiptEvent, UserId
from svc_message.model.action import EditEvent, ReactionEvent, RevokeEvent


class MemoryRetentionStore:
    """The port `RetentionStore` in memory; every call is carried out at once and as a whole."""

    def __init__(self, book: Book) -> None:
        """Works on a book."""
        self._book = book

    async def expire(self, limit: int, spent_before: Position) -> int:
        """Removes everything that has disappeared."""
        del limit, spent_before
        gone = [
            message
            for messages in self._book.messages.values()
            for message in messages.values()
            if message is not None and self._book.is_over(message)
        ]
        for message in gone:
            self._remove(message)
        return len(gone)

    def _remove(self, message: Kept) -> None:
        book, place = self._book, (message.conversation_id, message.message_id)
        found = book.find(*place)
        assert found is not None  # noqa: S101 - it was there a moment ago
        book.disappeared[place] = found._replace(is_spent=True)
        del book.messages[message.conversation_id][message.message_id]
        book.receipts.pop(place, None)
        book.group_receipts.pop(place, None)
        book.altered.forget(place)
        for user_id, events in book.inboxes.items():
            book.inboxes[user_id] = [event for event in events if not self._is_about(event, place)]

    def _is_about(self, event: Event, place: tuple[ConversationId, MessageId]) -> bool:
        """Tells whether an event goes with a message; a receipt goes with the last of its messages."""
        if isinstance(event, MessageEvent | EditEvent | RevokeEvent | ReactionEvent):
            return (event.conversation_id, event.message_id) == place
        if isinstance(event, ReceiptEvent):
            return all((event.conversation_id, one) in self._book.disappeared for one in event.message_ids)
        return False

    async def forget(self, before: Position, after: UserId, limit: int) -> UserId | None:
        """Removes the events of inboxes before a position."""
        users = sorted(user_id for user_id, events in self._book.inboxes.items() if user_id > after and events)[:limit]
        for user_id in users:
            events = self._book.inboxes[user_id]
            self._book.inboxes[user_id] = [event for event in events if event.position >= before]
        return users[-1] if users else None

    async def wake(self, since_ms: int, floor: Position) -> int:
        """Finds nothing: here every message brings its conversation back."""
        del since_ms, floor
        return 0
