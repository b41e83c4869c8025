"""Keeps the receipts of groups in memory, beside a `MemoryMessageStore`."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.adapters.message_store_memory.book import Book, GroupReceipt
from svc_message.model import (
    ConversationId,
    GroupReceiptEvent,
    MessageId,
    OwnReadEvent,
    Position,
    ReceiptState,
    UserId,
)
from svc_message.model.group import NewGroupMessage, Window
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
    UnreadMessage,
)
from svc_message.ports.receipt import NEWS_INTERVAL_MS
from svc_message.protocol import first_late

_EXPANDED: Final = 1000
_NOT_DUE: Final = 2**62


class _News(NamedTuple):
    """What the inbox of a sender has to say of one group."""

    changed: Position
    told_ms: int
    due_ms: int


class MemoryReceiptStore:
    """The port `ReceiptStore` in memory; every call is carried out at once and as a whole."""

    def __init__(self, store: MemoryMessageStore) -> None:
        """Shares the book of a store."""
        self._book = store.book
        self._receipts = store.book.group_receipts
        self._news: dict[tuple[UserId, ConversationId], _News] = {}

    async def acknowledge(self, batch: Sequence[MemberAck], change: Position, recorded_ms: int) -> list[Came]:
        """Raises messages to delivered, never lowers them."""
        came: dict[Came, None] = {}
        for ack in batch:
            for message in _visible(self._book, ack.user_id, ack.group_id, ack.windows):
                receipts = self._receipts[ack.group_id, message.message_id]
                if message.message_id in ack.message_ids and ack.user_id not in receipts:
                    receipts[ack.user_id] = GroupReceipt(ReceiptState.DELIVERED, recorded_ms, 0, is_read_told=True)
                    came[Came(message.sender_id, ack.group_id, message.message_id)] = None
        self._note(came, change, recorded_ms)
        return list(came)

    async def unread(self, batch: Sequence[MemberRead]) -> list[Unread]:
        """Returns what reads stand for, in order."""
        return [self._unread(read) for read in batch]

    async def read(self, batch: Sequence[MemberReadUpdate]) -> ReadOutcome:
        """Raises messages to read, and the places up to which members have read."""
        came: dict[Came, None] = {}
        for update in batch:
            own = dict.fromkeys(self._raise(update))
            self._note(own, update.position, update.recorded_ms)
            came.update(own)
        return ReadOutcome(list(came), [self._move(update) for update in batch])

    async def tally(self, names: Sequence[MessageName]) -> list[Tally | None]:
        """Counts how far messages have come, in order."""
        return [self._tally(name) for name in names]

    async def list_receipts(self, name: MessageName, after: UserId | None, limit: int) -> list[MemberReceipt]:
        """Returns with whom a message came how far, by user id."""
        found = [receipt for receipt in self._listed(name) if receipt.user_id > (after or b"")]
        return sorted(found)[:limit]

    async def claim_news(self, position: Position, now_ms: int, until_ms: int) -> list[News]:
        """Takes news that are due, and writes them into the senders' inboxes."""
        due = [(key, news) for key, news in self._news.items() if news.due_ms <= now_ms]
        for (sender_id, group_id), news in due:
            self._news[sender_id, group_id] = news._replace(told_ms=now_ms, due_ms=until_ms)
            self._book.append(GroupReceiptEvent(position, group_id, (), (), (), (), now_ms), sender_id)
        return [News(*key, news.changed) for key, news in due]

    async def settle_news(self, told: Sequence[News], now_ms: int) -> None:
        """Notes that news were told."""
        for sender_id, group_id, changed in told:
            news = self._news[sender_id, group_id]
            due_ms = _NOT_DUE if news.changed == changed else now_ms + NEWS_INTERVAL_MS
            self._news[sender_id, group_id] = news._replace(due_ms=due_ms)

    def _is_unread(self, user_id: UserId, message: NewGroupMessage) -> bool:
        receipt = self._receipts[message.group_id, message.message_id].get(user_id)
        return receipt is None or receipt.state < ReceiptState.READ

    def _unread(self, read: MemberRead) -> Unread:
        visible = _visible(self._book, read.user_id, read.group_id, read.windows)
        found = {one.message_id: _found(one) for one in visible if one.message_id in read.message_ids}
        if not read.read_upto:
            return Unread(b"", tuple(found.values()))
        all_ids = [*_own(self._book, read), *(message.message_id for message in visible)]
        upto = max((one for one in all_ids if one <= read.read_upto), default=MessageId(b""))
        line = self._book.lines[read.user_id].get(read.group_id)
        after = read.read_after or (first_late(line.read_upto) if line and line.read_upto else b"")
        near = sorted(one for one in all_ids if after < one <= upto)
        portion = frozenset(near[:_EXPANDED])
        rest = max(portion) if len(near) > _EXPANDED else b""
        found |= {
            one.message_id: _found(one)
            for one in visible
            if one.message_id in portion and self._is_unread(read.user_id, one)
        }
        return Unread(rest or upto, tuple(found.values()), rest)

    def _raise(self, update: MemberReadUpdate) -> Iterator[Came]:
        for message_id, is_told in update.messages:
            message = self._book.messages[update.group_id].get(message_id)
            receipts = self._receipts[update.group_id, message_id]
            earlier = receipts.get(update.user_id)
            if message is None or (earlier is not None and earlier.state is ReceiptState.READ):
                continue
            delivered_ms = earlier.delivered_ms if earlier else update.recorded_ms
            receipts[update.user_id] = GroupReceipt(ReceiptState.READ, delivered_ms, update.recorded_ms, is_told)
            if is_told or earlier is None:
                yield Came(message.sender_id, update.group_id, message_id)

    def _move(self, update: MemberReadUpdate) -> OwnReadEvent | None:
        line = self._book.lines[update.user_id].get(update.group_id)
        upto = update.upto or max((message.message_id for message in update.messages), default=b"")
        if line is None or not upto:
            return None
        if not update.upto and any(
            line.read_upto < message.message_id < upto and self._is_unread(update.user_id, message)
            for message in _visible(self._book, update.user_id, update.group_id, update.windows)
        ):
            return None
        if upto <= line.read_upto and not update.is_forced:
            return None
        furthest = MessageId(max(upto, line.read_upto))
        self._book.lines[update.user_id][update.group_id] = line._replace(read_upto=furthest)
        event = OwnReadEvent(update.position, update.user_id, update.group_id, furthest, update.device_id)
        self._book.append(event, update.user_id)
        return event

    def _note(self, came: Iterable[Came], change: Position, now_ms: int) -> None:
        for sender_id, group_id in dict.fromkeys((one.sender_id, one.group_id) for one in came):
            news = self._news.get((sender_id, group_id), _News(change, -NEWS_INTERVAL_MS, _NOT_DUE))
            due_ms = min(news.due_ms, max(now_ms, news.told_ms + NEWS_INTERVAL_MS))
            self._news[sender_id, group_id] = news._replace(changed=change, due_ms=due_ms)

    def _tally(self, name: MessageName) -> Tally | None:
        message = self._book.messages[name.conversation_id].get(name.message_id)
        if message is None:
            return None
        receipts = self._listed(name)
        read = sum(1 for receipt in receipts if receipt.state is ReceiptState.READ)
        recipients = int(message.recipient_id != message.sender_id)
        if isinstance(message, NewGroupMessage):
            recipients = message.recipient_count
        return Tally(message.sender_id, recipients, len(receipts), read)

    def _listed(self, name: MessageName) -> list[MemberReceipt]:
        direct = self._book.receipts.get((name.conversation_id, name.message_id))
        message = self._book.messages[name.conversation_id].get(name.message_id)
        if direct is not None and message is not None:
            return [MemberReceipt(message.recipient_id, *direct.shown())]
        found = self._receipts[name.conversation_id, name.message_id]
        return [_shown(user_id, receipt) for user_id, receipt in found.items()]


def _visible(book: Book, user_id: UserId, group_id: ConversationId, windows: Iterable[Window]) -> list[NewGroupMessage]:
    """Returns the messages of others that a member may see, newest first."""
    found = [
        message
        for message in book.messages[group_id].values()
        if isinstance(message, NewGroupMessage)
        and message.sender_id != user_id
        and any(window.shows(message.members_version) for window in windows)
    ]
    return sorted(found, reverse=True)


def _found(message: NewGroupMessage) -> UnreadMessage:
    return UnreadMessage(message.message_id, message.sender_id, message.members_version)


def _own(book: Book, read: MemberRead) -> list[MessageId]:
    messages = book.messages[read.group_id].values()
    return [message.message_id for message in messages if message and message.sender_id == read.user_id]


def _shown(user_id: UserId, receipt: GroupReceipt) -> MemberReceipt:
    state, delivered_ms, read_ms, is_read_told = receipt
    if is_read_told:
        return MemberReceipt(user_id, state, delivered_ms, read_ms)
    return MemberReceipt(user_id, ReceiptState.DELIVERED, delivered_ms, 0)
