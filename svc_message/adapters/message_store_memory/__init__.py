"""Keeps the book of the ledger in memory: the port's meaning in its shortest form, for tests and simulations."""

from bisect import bisect_right
from collections.abc import Sequence

from chappe.runtime.clock import Clock
from svc_message.adapters.message_store_memory.acting import MemoryActionStore
from svc_message.adapters.message_store_memory.book import Book, position_of
from svc_message.adapters.message_store_memory.receipts import apply
from svc_message.adapters.message_store_memory.retention import MemoryRetentionStore
from svc_message.adapters.message_store_memory.settings import MemorySettingStore
from svc_message.model import (
    NO_POSITION,
    Accepted,
    Applied,
    Chat,
    ChatCursor,
    ChatPage,
    ConversationId,
    Event,
    ForeignAppend,
    ForeignEvent,
    Found,
    InboxPage,
    InboxRead,
    MessageEvent,
    MessageRef,
    NewMessage,
    PageRead,
    ReceiptUpdate,
    StoredMessage,
    UserId,
)
from svc_message.model.action import EditEvent, ReactionEvent, RevokeEvent
from svc_message.model.group import NewGroupMessage


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
        self._book = Book(clock)
        self.actions = MemoryActionStore(self._book)
        """The port `ActionStore` on the same book."""
        self.settings = MemorySettingStore(self._book)
        """The port `SettingStore` on the same book."""
        self.retention = MemoryRetentionStore(self._book)
        """The port `RetentionStore` on the same book."""

    async def accept(self, batch: Sequence[NewMessage]) -> list[Accepted]:
        """Makes messages durable with a pointer in the inbox of everyone entitled."""
        return [self._book.accept(message) for message in batch]

    async def find(self, refs: Sequence[MessageRef]) -> list[Found | None]:
        """Looks messages up, in order."""
        return [self._book.find(ref.conversation_id, ref.message_id) for ref in refs]

    async def declare_void(self, refs: Sequence[MessageRef]) -> list[bool]:
        """Makes sure that ids which are not there are never accepted; false where one was there after all."""
        return [self._declare_void(ref) for ref in refs]

    def _declare_void(self, ref: MessageRef) -> bool:
        if (ref.conversation_id, ref.message_id) in self._book.disappeared:
            return False
        return self._book.messages[ref.conversation_id].setdefault(ref.message_id, None) is None

    async def apply_receipts(self, batch: Sequence[ReceiptUpdate]) -> list[Applied]:
        """Raises states, never lowers them, and appends the events that tell of it."""
        return [apply(self._book, update) for update in batch]

    async def append_events(self, batch: Sequence[ForeignAppend]) -> None:
        """Appends events of other services."""
        for append in batch:
            self._book.append(ForeignEvent(append.position, append.change_id, append.item), *append.user_ids)

    async def read_inbox(self, reads: Sequence[InboxRead]) -> list[InboxPage]:
        """Reads on in many inboxes; a page ends between positions, so it may be longer than asked for."""
        return [_page_of(self._book, read) for read in reads]

    async def read_page(self, read: PageRead) -> list[StoredMessage]:
        """Returns messages of a conversation that its owner sees, newest first."""
        found = [
            message
            for message in self._book.listed(read.owner_id, read.conversation_id)
            if read.after < message.message_id and (not read.before or message.message_id < read.before)
        ]
        chosen = found[-read.limit :] if read.after else found[: read.limit]
        return [self._book.stored(read.owner_id, message) for message in chosen]

    async def list_chats(
        self, owner_id: UserId, after: ChatCursor | None, limit: int, *, is_archived: bool = False
    ) -> ChatPage:
        """Returns a window of a chat list."""
        places = sorted(
            (-line.settings.pinned_ms, -line.last_ms, conversation_id)
            for conversation_id, line in self._book.lines[owner_id].items()
            if line.last_ms and line.settings.is_archived == is_archived
        )
        if after is not None:
            end = (-after.pinned_ms, -after.last_ms, after.conversation_id)
            places = [place for place in places if place > end]
        chats = [self._book.chat(owner_id, conversation_id) for *_, conversation_id in places[:limit]]
        chats.sort(key=_newest, reverse=True)
        if len(places) <= limit:
            return ChatPage(chats, None)
        pinned_ms, last_ms, conversation_id = places[limit - 1]
        return ChatPage(chats, ChatCursor(-last_ms, conversation_id, -pinned_ms))

    async def epoch(self) -> int:
        """Returns the epoch of the ledger."""
        return self._epoch

    async def raise_epoch(self) -> int:
        """Begins a new epoch, as a restore has to, and returns it."""
        self._epoch += 1
        return self._epoch

    async def clock_ms(self) -> float:
        """Returns the store's own wall clock, Unix milliseconds."""
        return float(self._clock.wall_ms())

    async def ready(self) -> None:
        """Returns: memory always answers."""

    @property
    def book(self) -> Book:
        """What is stored, for other ports over the same book."""
        return self._book


def _page_of(book: Book, read: InboxRead) -> InboxPage:
    events = book.inboxes[read.user_id]
    rest = events[bisect_right(events, read.after, key=position_of) :]
    page = rest
    if len(rest) > read.limit:
        end = rest[read.limit].position
        # A position with more events than the limit is given whole; the next page may then be empty.
        page = [event for event in rest if event.position < end] or [event for event in rest if event.position == end]
    left = {one.group_id: one.left_version for one in read.departures}
    shown = [book.shown(read.user_id, event, left.get(_conversation(event), 0)) for event in page]
    return InboxPage(
        [event for event in shown if event is not None],
        len(rest) > read.limit,
        page[-1].position if page else NO_POSITION,
        frozenset(_conversation(event) for event in page if _is_altered(book, event)),
    )


def _is_altered(book: Book, event: Event) -> bool:
    """Tells whether what an event of a group shows may be later than its reader's time there."""
    if not isinstance(event, MessageEvent | EditEvent | ReactionEvent):
        return False
    place = (event.conversation_id, event.message_id)
    is_group = isinstance(book.messages[place[0]].get(place[1]), NewGroupMessage)
    return is_group and (not isinstance(event, MessageEvent) or bool(book.altered.public(place).edit_id))


def _conversation(event: Event) -> ConversationId:
    if isinstance(event, MessageEvent | EditEvent | RevokeEvent | ReactionEvent):
        return event.conversation_id
    return ConversationId(b"")


def _newest(chat: Chat) -> tuple[int, bytes]:
    return chat.settings.pinned_ms, b"" if chat.last_message is None else chat.last_message.message.message_id
