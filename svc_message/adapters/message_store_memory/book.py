"""What stands in the book that is kept in memory, and who sees what of it."""

from bisect import insort_right
from collections import defaultdict
from collections.abc import Iterator
from typing import Final, NamedTuple

from chappe.runtime.clock import Clock
from svc_message.adapters.message_store_memory.altered import Alterations
from svc_message.model import (
    NO_POSITION,
    Accepted,
    Chat,
    ConversationId,
    Event,
    ForeignEvent,
    Found,
    GroupReceiptEvent,
    MessageEvent,
    MessageId,
    NewMessage,
    OwnReadEvent,
    Position,
    ReceiptEvent,
    ReceiptState,
    StoredMessage,
    UserId,
    Verdict,
    expires_at,
)
from svc_message.model.action import EditEvent, NewAction, ReactionEvent, RevokeEvent
from svc_message.model.group import NewGroupMessage
from svc_message.model.setting import SettingEvent, Settings

_UNREAD_SHOWN: Final = 100


Kept = NewMessage | NewGroupMessage
"""A message as it stands in the book."""


class Receipt(NamedTuple):
    """How far a message has come with its recipient."""

    state: ReceiptState
    delivered_ms: int
    read_ms: int
    is_read_told: bool = True
    """The sender may know that it was read."""

    def shown(self) -> tuple[ReceiptState, int, int]:
        """Returns state and times as the sender may know them."""
        if self.is_read_told:
            return self.state, self.delivered_ms, self.read_ms
        return min(self.state, ReceiptState.DELIVERED), self.delivered_ms, 0


class GroupReceipt(NamedTuple):
    """How far a message to a group has come with one member."""

    state: ReceiptState
    delivered_ms: int
    read_ms: int
    is_read_told: bool
    """The sender may know that it was read."""


Place = tuple[ConversationId, MessageId]


class Line(NamedTuple):
    """One line of one user's chat list."""

    peer_id: UserId
    last_ms: int
    read_upto: bytes
    settings: Settings = Settings()
    archived_ms: int = 0
    cleared_floor: bytes = b""
    settings_position: bytes = b""

    def shows(self, message: Kept) -> bool:
        """Tells whether a message was not cleared: one that was accepted later was not there to be."""
        if message.message_id <= self.cleared_floor:
            return False
        return message.message_id > self.settings.cleared_upto or message.accepted_ms > self.settings.cleared_ms


_NO_LINE: Final = Line(UserId(b""), 0, b"")
NO_RECEIPT: Final = Receipt(ReceiptState.SENT, 0, 0)


class Book:
    """What is stored, and who sees what of it."""

    def __init__(self, clock: Clock) -> None:
        """Makes an empty book.

        Args:
            clock: By which messages disappear.
        """
        self._clock = clock
        # What is left of messages that have disappeared.
        self.disappeared: dict[tuple[ConversationId, MessageId], Found] = {}
        # None stands for an id that was declared void.
        self.messages: defaultdict[ConversationId, dict[MessageId, Kept | None]] = defaultdict(dict)
        self.inboxes: defaultdict[UserId, list[Event]] = defaultdict(list)
        self.receipts: dict[tuple[ConversationId, MessageId], Receipt] = {}
        self.lines: defaultdict[UserId, dict[ConversationId, Line]] = defaultdict(dict)
        # None stands for an id that was declared void, here too.
        self.actions: dict[tuple[ConversationId, MessageId], NewAction | None] = {}
        self.altered = Alterations()
        self.group_receipts: defaultdict[Place, dict[UserId, GroupReceipt]] = defaultdict(dict)

    def accept(self, message: NewMessage) -> Accepted:
        """Keeps a message, or completes the one that is there."""
        messages = self.messages[message.conversation_id]
        gone = self.disappeared.get((message.conversation_id, message.message_id))
        if gone is not None:
            return Accepted(Verdict.DUPLICATE, gone.accepted_ms, gone.is_withheld, is_altered=True)
        if message.message_id not in messages:
            messages[message.message_id] = message
            self.point(message, message.position)
            return Accepted(Verdict.STORED, message.accepted_ms, message.is_withheld)
        first = messages[message.message_id]
        if first is None:
            return Accepted(Verdict.VOID, 0, is_withheld=False)
        assert isinstance(first, NewMessage)  # noqa: S101 - a conversation is of one kind for ever
        is_same = (first.sender_id, first.content_hash) == (message.sender_id, message.content_hash)
        if is_same:
            self.point(first, message.position)
        altered = self.altered.public((message.conversation_id, message.message_id))
        return Accepted(
            Verdict.DUPLICATE if is_same else Verdict.CONFLICT,
            first.accepted_ms,
            first.is_withheld,
            is_altered=bool(altered.edited_ms or altered.revoked_ms) or self.is_over(first),
        )

    def point(self, message: NewMessage, position: Position) -> None:
        """Tells everyone entitled of a message."""
        event = event_of(message, position)
        users = [message.sender_id]
        if not message.is_withheld and message.recipient_id != message.sender_id:
            users.append(message.recipient_id)
        self.append(event, *users)
        sent_ms = int.from_bytes(message.message_id[:6], "big")
        for user_id in users:
            peer_id = message.recipient_id if user_id == message.sender_id else message.sender_id
            line = self.lines[user_id].get(message.conversation_id, Line(peer_id, 0, b""))
            last_ms = max(line.last_ms, sent_ms)
            if line.archived_ms < message.accepted_ms:
                line = line._replace(settings=line.settings._replace(is_archived=False))
            self.lines[user_id][message.conversation_id] = line._replace(last_ms=last_ms)

    def append(self, event: Event, *user_ids: UserId) -> None:
        """Puts an event at its place in inboxes."""
        for user_id in user_ids:
            insort_right(self.inboxes[user_id], event, key=position_of)

    def is_over(self, message: Kept) -> bool:
        """Tells whether a message has disappeared."""
        return 0 < expires_at(message.accepted_ms, message.expiry_s) <= self._clock.wall_ms()

    def there(self, conversation_id: ConversationId, message_id: MessageId) -> Kept | None:
        """Returns a message that is not void and has not disappeared."""
        message = self.messages[conversation_id].get(message_id)
        return None if message is None or self.is_over(message) else message

    def find(self, conversation_id: ConversationId, message_id: MessageId) -> Found | None:
        """Looks a message up, or what is left of it."""
        if message_id not in self.messages[conversation_id]:
            return self.disappeared.get((conversation_id, message_id))
        found = self.messages[conversation_id][message_id]
        if found is None:
            return Found(is_void=True, content_hash=b"", accepted_ms=0, is_withheld=False)
        return Found(
            is_void=False,
            content_hash=found.content_hash,
            accepted_ms=found.accepted_ms,
            is_withheld=found.is_withheld,
        )

    def visible(self, user_id: UserId, conversation_id: ConversationId) -> list[NewMessage]:
        """Returns the messages that a user sees, newest first."""
        return sorted(
            (
                message
                for message in self.messages[conversation_id].values()
                if isinstance(message, NewMessage)
                and (message.sender_id == user_id or (message.recipient_id == user_id and not message.is_withheld))
                and not self.is_over(message)
                and not self.altered.seen(user_id, (conversation_id, message.message_id)).is_hidden
            ),
            reverse=True,
        )

    def listed(self, user_id: UserId, conversation_id: ConversationId) -> list[NewMessage]:
        """Returns the messages that a user sees and has not cleared, newest first."""
        line = self.lines[user_id].get(conversation_id, _NO_LINE)
        return [message for message in self.visible(user_id, conversation_id) if line.shows(message)]

    def shown(self, reader_id: UserId, event: Event, left_version: int = 0) -> Event | None:
        """Returns an event of an inbox as its reader sees it now; None when it is not to be seen any more."""
        if isinstance(event, ReceiptEvent | GroupReceiptEvent | OwnReadEvent | ForeignEvent):
            return event
        if isinstance(event, SettingEvent):
            return event._replace(settings=self.lines[reader_id][event.conversation_id].settings)
        place = (event.conversation_id, event.message_id)
        message, seen = self.there(*place), self.altered.seen(reader_id, place, left_version)
        if isinstance(event, RevokeEvent):
            return event
        if message is None or seen.is_hidden:
            return None
        if isinstance(event, MessageEvent):
            return self.seen(reader_id, message, event.position, left_version)
        return event if self._is_newest(reader_id, event, left_version) and not seen.revoked_ms else None

    def seen(self, reader_id: UserId, message: Kept, position: Position, left_version: int = 0) -> MessageEvent:
        """Returns a message at a position as one user sees it."""
        place = (message.conversation_id, message.message_id)
        edit_id, edited_ms, envelope, revoked_ms, _ = self.altered.seen(reader_id, place, left_version)
        event = event_of(message, position)._replace(edited_ms=edited_ms, revoked_ms=revoked_ms)
        return event._replace(envelope=envelope) if edit_id or revoked_ms else event

    def _is_newest(self, reader_id: UserId, event: EditEvent | ReactionEvent, left_version: int) -> bool:
        place = (event.conversation_id, event.message_id)
        if isinstance(event, EditEvent):
            return self.altered.seen(reader_id, place, left_version).edit_id == event.action_id
        action = self.actions[event.conversation_id, event.action_id]
        is_withheld = action is not None and action.is_withheld
        reaction = self.altered.reaction(place, event.user_id, is_withheld=is_withheld, left_version=left_version)
        return reaction is not None and reaction.reaction_id == event.action_id

    def unread(self, user_id: UserId, conversation_id: ConversationId, line: Line) -> Iterator[NewMessage]:
        """Goes through what others sent and the user has not read, newest first."""
        for message in self.listed(user_id, conversation_id):
            receipt = self.receipts.get((conversation_id, message.message_id), NO_RECEIPT)
            revoked_ms = self.altered.seen(user_id, (conversation_id, message.message_id)).revoked_ms
            is_others = message.sender_id != user_id and not revoked_ms
            if is_others and message.message_id > line.read_upto and receipt.state < ReceiptState.READ:
                yield message

    def chat(self, owner_id: UserId, conversation_id: ConversationId) -> Chat:
        """Returns a line of a chat list as its owner sees it."""
        line = self.lines[owner_id][conversation_id]
        newest = self.listed(owner_id, conversation_id)[:1]
        last = self.stored(owner_id, newest[0]) if newest else None
        unread_count = sum(1 for _ in self.unread(owner_id, conversation_id, line))
        count = min(unread_count, _UNREAD_SHOWN)
        position = line.settings_position
        return Chat(conversation_id, line.peer_id, last, count, line.read_upto, line.settings, position)

    def stored(self, reader_id: UserId, message: Kept, left_version: int = 0) -> StoredMessage:
        """Returns a message with how far it has come, as one user sees it."""
        place = (message.conversation_id, message.message_id)
        receipt = self.receipts.get(place, NO_RECEIPT)
        event = self.seen(reader_id, message, NO_POSITION, left_version)
        known = receipt.shown() if message.sender_id == reader_id else receipt[:3]
        return StoredMessage(event, *known, self.altered.reactions(reader_id, place, left_version))


def event_of(message: Kept, position: Position) -> MessageEvent:
    """Returns the event that a message becomes at a position."""
    if isinstance(message, NewGroupMessage):
        return message.to_event()._replace(position=position)
    return MessageEvent(
        position,
        message.message_id,
        message.conversation_id,
        message.sender_id,
        message.sender_device_id,
        message.recipient_id,
        message.accepted_ms,
        message.envelope,
        expires_ms=expires_at(message.accepted_ms, message.expiry_s),
    )


def position_of(event: Event) -> Position:
    """Returns where an event stands in its log."""
    return event.position
