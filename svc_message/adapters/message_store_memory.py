"""Keeps the book of the ledger in memory: the port's meaning in its shortest form, for tests and simulations."""

from bisect import bisect_right, insort_right
from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from chappe.runtime.clock import Clock
from svc_message.model import (
    NO_POSITION,
    Accepted,
    Applied,
    Chat,
    ChatCursor,
    ChatPage,
    ConversationId,
    DeviceId,
    Event,
    ForeignAppend,
    ForeignEvent,
    Found,
    InboxPage,
    InboxRead,
    MessageEvent,
    MessageId,
    MessageRef,
    NewMessage,
    OwnReadEvent,
    PageRead,
    Position,
    ReceiptEvent,
    ReceiptState,
    ReceiptUpdate,
    StoredMessage,
    UserId,
    Verdict,
)

_EVENT_IDS: Final = 40
_EXPANDED: Final = 1000
_UNREAD_SHOWN: Final = 100


class _Receipt(NamedTuple):
    """How far a message has come with its recipient."""

    state: ReceiptState
    delivered_ms: int
    read_ms: int


class _Line(NamedTuple):
    """One line of one user's chat list."""

    peer_id: UserId
    last_ms: int
    read_upto: bytes


_NO_RECEIPT: Final = _Receipt(ReceiptState.SENT, 0, 0)


class _Book:
    """What is stored, and who sees what of it."""

    def __init__(self) -> None:
        # None stands for an id that was declared void.
        self.messages: defaultdict[ConversationId, dict[MessageId, NewMessage | None]] = defaultdict(dict)
        self.inboxes: defaultdict[UserId, list[Event]] = defaultdict(list)
        self.receipts: dict[tuple[ConversationId, MessageId], _Receipt] = {}
        self.lines: defaultdict[UserId, dict[ConversationId, _Line]] = defaultdict(dict)

    def accept(self, message: NewMessage) -> Accepted:
        messages = self.messages[message.conversation_id]
        if message.message_id not in messages:
            messages[message.message_id] = message
            self.point(message, message.position)
            return Accepted(Verdict.STORED, message.accepted_ms, message.is_withheld)
        first = messages[message.message_id]
        if first is None:
            return Accepted(Verdict.VOID, 0, is_withheld=False)
        is_same = (first.sender_id, first.content_hash) == (message.sender_id, message.content_hash)
        if is_same:
            self.point(first, message.position)
        return Accepted(
            Verdict.DUPLICATE if is_same else Verdict.CONFLICT, first.accepted_ms, is_withheld=first.is_withheld
        )

    def point(self, message: NewMessage, position: Position) -> None:
        """Tells everyone entitled of a message."""
        event = _event_of(message, position)
        users = [message.sender_id]
        if not message.is_withheld and message.recipient_id != message.sender_id:
            users.append(message.recipient_id)
        self.append(event, *users)
        sent_ms = int.from_bytes(message.message_id[:6], "big")
        for user_id in users:
            peer_id = message.recipient_id if user_id == message.sender_id else message.sender_id
            line = self.lines[user_id].get(message.conversation_id, _Line(peer_id, 0, b""))
            last_ms = max(line.last_ms, sent_ms)
            self.lines[user_id][message.conversation_id] = line._replace(last_ms=last_ms)

    def append(self, event: Event, *user_ids: UserId) -> None:
        for user_id in user_ids:
            insort_right(self.inboxes[user_id], event, key=_position)

    def visible(self, user_id: UserId, conversation_id: ConversationId) -> list[NewMessage]:
        """Returns the messages that a user sees, newest first."""
        return sorted(
            (
                message
                for message in self.messages[conversation_id].values()
                if message is not None
                and (message.sender_id == user_id or (message.recipient_id == user_id and not message.is_withheld))
            ),
            reverse=True,
        )

    def unread(self, user_id: UserId, conversation_id: ConversationId, line: _Line) -> Iterator[NewMessage]:
        for message in self.visible(user_id, conversation_id):
            receipt = self.receipts.get((conversation_id, message.message_id), _NO_RECEIPT)
            is_others = message.sender_id != user_id
            if is_others and message.message_id > line.read_upto and receipt.state < ReceiptState.READ:
                yield message

    def chat(self, owner_id: UserId, conversation_id: ConversationId) -> Chat:
        line = self.lines[owner_id][conversation_id]
        newest = self.visible(owner_id, conversation_id)[0]
        unread_count = sum(1 for _ in self.unread(owner_id, conversation_id, line))
        return Chat(
            conversation_id, line.peer_id, self.stored(newest), min(unread_count, _UNREAD_SHOWN), line.read_upto
        )

    def stored(self, message: NewMessage) -> StoredMessage:
        receipt = self.receipts.get((message.conversation_id, message.message_id), _NO_RECEIPT)
        return StoredMessage(_event_of(message, NO_POSITION), *receipt)


class MemoryMessageStore:
    """The port `MessageStore` in memory; every call is carried out at once and as a whole."""

    def __init__(self, clock: Clock, *, epoch: int = 1) -> None:
        """Makes an empty book.

        Args:
            clock: The store's own clock.
            epoch: The epoch of the ledger.
        """
        self._clock = clock
        self._epoch = epoch
        self._book = _Book()

    async def accept(self, batch: Sequence[NewMessage]) -> list[Accepted]:
        """Makes messages durable with a pointer in the inbox of everyone entitled."""
        return [self._book.accept(message) for message in batch]

    async def find(self, refs: Sequence[MessageRef]) -> list[Found | None]:
        """Looks messages up, in order."""
        return [_find(self._book, ref) for ref in refs]

    async def declare_void(self, refs: Sequence[MessageRef]) -> list[bool]:
        """Makes sure that ids which are not there are never accepted; false where one was there after all."""
        return [self._book.messages[ref.conversation_id].setdefault(ref.message_id, None) is None for ref in refs]

    async def apply_receipts(self, batch: Sequence[ReceiptUpdate]) -> list[Applied]:
        """Raises states, never lowers them, and appends the events that tell of it."""
        return [_apply(self._book, update) for update in batch]

    async def append_events(self, batch: Sequence[ForeignAppend]) -> None:
        """Appends events of other services."""
        for append in batch:
            self._book.append(ForeignEvent(append.position, append.change_id, append.item), *append.user_ids)

    async def read_inbox(self, reads: Sequence[InboxRead]) -> list[InboxPage]:
        """Reads on in many inboxes; a page ends between positions, so it may be longer than asked for."""
        return [_page_of(self._book.inboxes[read.user_id], read) for read in reads]

    async def read_page(self, read: PageRead) -> list[StoredMessage]:
        """Returns messages of a conversation that its owner sees, newest first."""
        found = [
            message
            for message in self._book.visible(read.owner_id, read.conversation_id)
            if read.after < message.message_id and (not read.before or message.message_id < read.before)
        ]
        chosen = found[-read.limit :] if read.after else found[: read.limit]
        return [self._book.stored(message) for message in chosen]

    async def list_chats(self, owner_id: UserId, after: ChatCursor | None, limit: int) -> ChatPage:
        """Returns a window of a chat list."""
        lines = self._book.lines[owner_id]
        places = sorted((-line.last_ms, conversation_id) for conversation_id, line in lines.items())
        if after is not None:
            places = [place for place in places if place > (-after.last_ms, after.conversation_id)]
        chats = [self._book.chat(owner_id, conversation_id) for _, conversation_id in places[:limit]]
        chats.sort(key=_newest, reverse=True)
        if len(places) <= limit:
            return ChatPage(chats, None)
        last_ms, conversation_id = places[limit - 1]
        return ChatPage(chats, ChatCursor(-last_ms, conversation_id))

    async def epoch(self) -> int:
        """Returns the epoch of the ledger."""
        return self._epoch

    async def clock_ms(self) -> float:
        """Returns the store's own wall clock, Unix milliseconds."""
        return float(self._clock.wall_ms())

    async def ready(self) -> None:
        """Returns: memory always answers."""


def _find(book: _Book, ref: MessageRef) -> Found | None:
    messages = book.messages[ref.conversation_id]
    if ref.message_id not in messages:
        return None
    found = messages[ref.message_id]
    if found is None:
        return Found(is_void=True, content_hash=b"", accepted_ms=0, is_withheld=False)
    return Found(
        is_void=False,
        content_hash=found.content_hash,
        accepted_ms=found.accepted_ms,
        is_withheld=found.is_withheld,
    )


def _apply(book: _Book, update: ReceiptUpdate) -> Applied:
    is_whole = update.state is ReceiptState.READ and bool(update.read_upto)
    asked = set(update.message_ids)
    if is_whole:
        asked.update(_expanded(book, update))
    told = [message_id for message_id in sorted(asked) if _raise(book, update, message_id)]
    events = [
        ReceiptEvent(
            update.position,
            update.conversation_id,
            update.reader_id,
            tuple(told[start : start + _EVENT_IDS]),
            update.state,
            update.recorded_ms,
        )
        for start in range(0, len(told), _EVENT_IDS)
    ]
    for event in events:
        book.append(event, update.peer_id)
    own_read = _move(book, update, told, is_whole=is_whole) if update.state is ReceiptState.READ else None
    return Applied(tuple(events), own_read)


def _expanded(book: _Book, update: ReceiptUpdate) -> list[MessageId]:
    """Returns the peer's messages among the newest ones up to `read_upto`."""
    visible = book.visible(update.reader_id, update.conversation_id)
    near = [message for message in visible if message.message_id <= update.read_upto][:_EXPANDED]
    return [message.message_id for message in near if message.sender_id == update.peer_id]


def _raise(book: _Book, update: ReceiptUpdate, message_id: MessageId) -> bool:
    """Raises one message; says whether that is to be told."""
    message = book.messages[update.conversation_id].get(message_id)
    if (
        message is None
        or (message.sender_id, message.recipient_id) != (update.peer_id, update.reader_id)
        or message.is_withheld
    ):
        return False
    key = (update.conversation_id, message_id)
    state, delivered_ms, _ = book.receipts.get(key, _NO_RECEIPT)
    if state >= update.state:
        return update.is_forced
    read_ms = update.recorded_ms if update.state is ReceiptState.READ else 0
    book.receipts[key] = _Receipt(update.state, delivered_ms or update.recorded_ms, read_ms)
    return True


def _move(book: _Book, update: ReceiptUpdate, told: list[MessageId], *, is_whole: bool) -> OwnReadEvent | None:
    line = book.lines[update.reader_id].get(update.conversation_id)
    visible = book.visible(update.reader_id, update.conversation_id)
    upto = max(told, default=b"")
    if is_whole:
        upto = next((message.message_id for message in visible if message.message_id <= update.read_upto), b"")
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


def _page_of(events: list[Event], read: InboxRead) -> InboxPage:
    rest = events[bisect_right(events, read.after, key=_position) :]
    if len(rest) <= read.limit:
        return InboxPage(rest, has_more=False)
    end = rest[read.limit].position
    page = [event for event in rest if event.position < end]
    # A position with more events than the limit is given whole; the next page may then be empty.
    return InboxPage(page or [event for event in rest if event.position == end], has_more=True)


def _event_of(message: NewMessage, position: Position) -> MessageEvent:
    return MessageEvent(
        position,
        message.message_id,
        message.conversation_id,
        message.sender_id,
        message.sender_device_id,
        message.recipient_id,
        message.accepted_ms,
        message.envelope,
    )


def _position(event: Event) -> Position:
    return event.position


def _newest(chat: Chat) -> bytes:
    return b"" if chat.last_message is None else chat.last_message.message.message_id
