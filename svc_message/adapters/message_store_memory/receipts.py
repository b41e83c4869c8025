"""Raises receipts in the book that is kept in memory."""

from typing import Final

from svc_message.adapters.message_store_memory.book import NO_RECEIPT, Book, Receipt
from svc_message.model import (
    Applied,
    DeviceId,
    MessageId,
    NewMessage,
    OwnReadEvent,
    ReceiptEvent,
    ReceiptState,
    ReceiptUpdate,
)
from svc_message.protocol import first_late, may_be_untold

_EVENT_IDS: Final = 40
_EXPANDED: Final = 1000


def apply(book: Book, update: ReceiptUpdate) -> Applied:
    """Raises what an update raises, and tells of it."""
    is_whole = update.state is ReceiptState.READ and bool(update.read_upto)
    asked = set(update.message_ids)
    upto = rest = b""
    if is_whole:
        portion, rest = _portion(book, update)
        upto = rest or max((message.message_id for message in portion), default=_place(book, update))
        asked.update(message.message_id for message in portion if _may_tell(book, update, message))
    raised = {message_id: state for message_id in sorted(asked) if (state := _raise(book, update, message_id))}
    told = list(raised)
    events = [
        ReceiptEvent(
            update.position,
            update.conversation_id,
            update.reader_id,
            tuple(ids[start : start + _EVENT_IDS]),
            state,
            update.recorded_ms,
        )
        for state in (ReceiptState.DELIVERED, ReceiptState.READ)
        for ids in [[message_id for message_id in told if raised[message_id] is state]]
        for start in range(0, len(ids), _EVENT_IDS)
    ]
    for event in events:
        book.append(event, update.peer_id)
    upto = upto or max(told, default=b"")
    own_read = _move(book, update, upto, is_whole=is_whole) if update.state is ReceiptState.READ else None
    return Applied(tuple(events), own_read, rest)


def _place(book: Book, update: ReceiptUpdate) -> bytes:
    """Returns the newest message at or before `read_upto` that the reader sees; empty for none."""
    visible = book.visible(update.reader_id, update.conversation_id)
    return next((message.message_id for message in visible if message.message_id <= update.read_upto), b"")


def _portion(book: Book, update: ReceiptUpdate) -> tuple[list[NewMessage], bytes]:
    """Returns the next messages up to `read_upto` that are not read for certain, and where they end if not there."""
    visible = book.visible(update.reader_id, update.conversation_id)
    rows = [message for message in reversed(visible) if message.message_id <= update.read_upto]
    after = update.read_after or _beginning(book, update, rows)
    near = [message for message in rows if message.message_id > after]
    portion = near[:_EXPANDED]
    return portion, portion[-1].message_id if len(near) > _EXPANDED else b""


def _may_tell(book: Book, update: ReceiptUpdate, message: NewMessage) -> bool:
    """Tells whether a message of a portion is to be raised, or told again."""
    receipt = book.receipts.get((update.conversation_id, message.message_id), NO_RECEIPT)
    is_old = receipt.state is ReceiptState.READ and receipt.read_ms < update.forced_since_ms
    return message.sender_id == update.peer_id and not is_old


def _beginning(book: Book, update: ReceiptUpdate, rows: list[NewMessage]) -> bytes:
    line = book.lines[update.reader_id].get(update.conversation_id)
    if line is None or not line.read_upto:
        return b""
    upto = min(line.read_upto, update.forced_upto or update.read_upto)
    before = [message.message_id for message in rows if message.message_id <= upto]
    told_again = before[-_EXPANDED - 1] if len(before) > _EXPANDED else b""
    return min(first_late(line.read_upto), told_again) if update.is_forced else first_late(line.read_upto)


def _raise(book: Book, update: ReceiptUpdate, message_id: MessageId) -> ReceiptState | None:
    """Raises one message; returns what the peer is to be told, SENT for nothing new, None when nothing was raised."""
    message = book.messages[update.conversation_id].get(message_id)
    if (
        not isinstance(message, NewMessage)
        or (message.sender_id, message.recipient_id) != (update.peer_id, update.reader_id)
        or message.is_withheld
    ):
        return None
    key = (update.conversation_id, message_id)
    state, delivered_ms, _, was_told = book.receipts.get(key, NO_RECEIPT)
    is_told = was_told if state is ReceiptState.READ else update.is_told
    news = update.state if is_told else ReceiptState.DELIVERED
    if state >= update.state:
        is_late = update.state is ReceiptState.DELIVERED and may_be_untold(delivered_ms, update.recorded_ms)
        return news if update.is_forced or is_late else None
    read_ms = update.recorded_ms if update.state is ReceiptState.READ else 0
    book.receipts[key] = Receipt(update.state, delivered_ms or update.recorded_ms, read_ms, is_told)
    is_news = is_told or update.is_forced or state is ReceiptState.SENT
    return news if is_news else ReceiptState.SENT


def _move(book: Book, update: ReceiptUpdate, upto: bytes, *, is_whole: bool) -> OwnReadEvent | None:
    line = book.lines[update.reader_id].get(update.conversation_id)
    if line is None or not upto:
        return None
    unread = book.unread(update.reader_id, update.conversation_id, line)
    if not is_whole and any(message.message_id < upto for message in unread):
        return None
    if upto <= line.read_upto and not update.is_forced:
        return None
    furthest = MessageId(max(upto, line.read_upto))
    book.lines[update.reader_id][update.conversation_id] = line._replace(read_upto=furthest)
    device_id = DeviceId(update.reader_device_id)
    event = OwnReadEvent(update.position, update.reader_id, update.conversation_id, furthest, device_id)
    book.append(event, update.reader_id)
    return event
