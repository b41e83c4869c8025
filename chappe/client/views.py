"""What people see: messages, ticks, chats and the events of a session."""

import enum
from dataclasses import dataclass

from chappe.client.group_views import GroupChanged
from chappe.client.mint import is_group
from chappe.client.outgoing import Kind
from chappe.client.presence_views import PresenceChanged, TypingChanged, WatchRefused


class Tick(enum.IntEnum):
    """How far a message has come."""

    NONE = 0
    """Not known; or a message of somebody else."""
    SENT = 1
    """Durable on the server."""
    DELIVERED = 2
    """A device of the recipient has stored it; in a group, one of every recipient."""
    READ = 3
    """The recipient saw it; in a group, every recipient."""

    @property
    def sign(self) -> str:
        """The tick as people know it."""
        return ("", "✓", "✓✓", "✓✓ read")[self]


@dataclass(frozen=True, kw_only=True, slots=True)
class Counts:
    """How far a message to a group has come."""

    delivered: int
    """How many of the recipients have it on a device; the readers are among them."""
    read: int
    recipients: int

    @property
    def tick(self) -> Tick:
        """What all of the recipients have done: read it, have it, or neither."""
        if self.recipients and self.read >= self.recipients:
            return Tick.READ
        return Tick.DELIVERED if self.recipients and self.delivered >= self.recipients else Tick.SENT

    def __str__(self) -> str:
        return f"delivered to {self.delivered}/{self.recipients}, read by {self.read}/{self.recipients}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Message:
    """One message of a chat."""

    message_id: bytes
    conversation_id: bytes
    sender_id: bytes
    peer_id: bytes
    """The other person of a direct chat, whoever wrote; empty in a group."""
    text: str
    sent_ms: int
    """When it was written, by the clock of the server; the order of the chat is that of the ids."""
    accepted_ms: int
    is_mine: bool
    tick: Tick = Tick.NONE
    edited_ms: int = 0
    """When its text was last changed; 0 when it is as it was sent."""
    revoked_ms: int = 0
    """When it was taken back for everyone; it has no text then. 0 when it was not."""
    expires_ms: int = 0
    """When it disappears; 0 when it stays."""
    reactions: tuple["Reaction", ...] = ()
    """The newest first."""
    reply_to: bytes = b""
    """The id of the message that this one answers; empty for none."""
    forward_count: int = 0
    """How often it was forwarded on its way here."""
    counts: Counts | None = None
    """Of an own message to a group, how far it has come; None when that is not known."""

    @property
    def id(self) -> str:
        """The message id as text."""
        return self.message_id.hex()

    @property
    def group_id(self) -> bytes:
        """The group; empty in a direct chat."""
        return b"" if self.peer_id else self.conversation_id


@dataclass(frozen=True, kw_only=True, slots=True)
class Reaction:
    """One person's reaction to a message."""

    user_id: bytes
    emoji: str
    reacted_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Edited:
    """A message has another text."""

    message_id: bytes
    conversation_id: bytes
    by_user_id: bytes
    text: str
    edited_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Deleted:
    """A message was taken back for everyone, or hidden from the own devices; its text is gone from this one."""

    message_id: bytes
    conversation_id: bytes
    by_user_id: bytes
    is_for_me: bool
    deleted_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Reacted:
    """Somebody reacted to a message; with an empty emoji it no longer does."""

    message_id: bytes
    conversation_id: bytes
    by_user_id: bytes
    emoji: str
    reacted_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class Expired:
    """A message has disappeared."""

    message_id: bytes
    conversation_id: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatSettings:
    """How a chat is kept."""

    muted_until_ms: int = 0
    """0 when it is not muted."""
    pinned_ms: int = 0
    """When it was pinned; 0 when it is not."""
    is_archived: bool = False
    cleared_upto: bytes = b""
    cleared_ms: int = 0
    """When it was cleared last: what was accepted later is there, whatever its id; zero when that was not told."""
    expiry_s: int = 0
    """After how long new messages disappear; 0 for never."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ChatChanged:
    """A chat is kept in another way: muted, pinned, archived, cleared, or with another timer."""

    conversation_id: bytes
    settings: ChatSettings
    peer_id: bytes = b""
    """With whom it is; empty in a group, and while nobody has said anything."""

    @property
    def group_id(self) -> bytes:
        """The group; empty for a direct chat."""
        return self.conversation_id if is_group(self.conversation_id) else b""


@dataclass(frozen=True, kw_only=True, slots=True)
class TickChanged:
    """A message of one's own came further."""

    message_id: bytes
    conversation_id: bytes
    tick: Tick
    by_user_id: bytes
    recorded_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class GroupTickChanged:
    """A message of one's own came further in its group."""

    message_id: bytes
    group_id: bytes
    counts: Counts
    recorded_ms: int


@dataclass(frozen=True, kw_only=True, slots=True)
class ReadOnOtherDevice:
    """Another device of the user has shown this chat up to a message."""

    conversation_id: bytes
    read_upto: bytes


@dataclass(frozen=True, kw_only=True, slots=True)
class ProfileChanged:
    """Somebody's profile is new."""

    user_id: bytes
    version: int


@dataclass(frozen=True, kw_only=True, slots=True)
class AccountChanged:
    """Something of the own account was changed: profile, contacts, blocks, devices or settings."""

    what: str
    version: int


@dataclass(frozen=True, kw_only=True, slots=True)
class SendFailed:
    """A message, or a change of one, was refused for good, and nobody was waiting for it; nobody else has it."""

    draft: int
    conversation_id: bytes
    peer_id: bytes
    """Empty in a group."""
    reason: str
    detail: str
    kind: Kind = "message"
    """What was to be done: a message, an edit, a revoke or a reaction."""
    text: str = ""
    """What the message, the edit or the reaction said."""

    @property
    def group_id(self) -> bytes:
        """The group; empty in a direct chat."""
        return b"" if self.peer_id else self.conversation_id


@dataclass(frozen=True, kw_only=True, slots=True)
class Online:
    """The session stands and everything that waited has come."""

    edge: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Offline:
    """The session has ended; the client comes back by itself."""

    edge: str


Event = (
    Message
    | TickChanged
    | GroupTickChanged
    | GroupChanged
    | Edited
    | Deleted
    | Reacted
    | Expired
    | ChatChanged
    | ReadOnOtherDevice
    | ProfileChanged
    | AccountChanged
    | SendFailed
    | PresenceChanged
    | TypingChanged
    | WatchRefused
    | Online
    | Offline
)


@dataclass(frozen=True, kw_only=True, slots=True)
class Receipt:
    """How far one message has come with one recipient."""

    user_id: bytes
    tick: Tick
    """DELIVERED or READ."""
    delivered_ms: int
    read_ms: int
    """0 when it was not read."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Page:
    """A page of a chat, newest message first."""

    messages: list[Message]
    next_page: str
    """For the page before this one in time; empty when there is none."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Chat:
    """One chat of the chat list."""

    conversation_id: bytes
    peer_id: bytes
    """Empty in a group."""
    last_message: Message | None
    unread_count: int
    read_upto: bytes
    settings: ChatSettings = ChatSettings()
    is_past: bool = False
    """It is a group that the user has left or was removed from, as far as this device was told."""

    @property
    def group_id(self) -> bytes:
        """The group; empty in a direct chat."""
        return b"" if self.peer_id else self.conversation_id


@dataclass(frozen=True, kw_only=True, slots=True)
class Contact:
    """One person of the address book."""

    phone_number: str
    name: str
    user_id: bytes
    """Empty while the number has no account."""
