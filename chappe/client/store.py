"""What the SDK asks of the place where a device keeps its state, and the batch in which it changes.

A batch is one transaction: the ids of the outbox that are about to leave, the answers that came, the events with the
cursor that stands behind them. Nothing leaves the device and nothing is acknowledged before its batch is committed.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, Protocol

from chappe.api.edge.v1 import item_pb2
from chappe.client.changes import LogChange, Resynced, SendRefused, Settled
from chappe.client.group_views import Group, GroupChanged
from chappe.client.membership import KnownGroup, KnownMember
from chappe.client.outgoing import OutboxRow, Outgoing


class Batch:
    """Everything that becomes durable together."""

    __slots__ = (
        "asked",
        "count",
        "cursor",
        "generation",
        "history_ids",
        "is_caught_up",
        "is_sync",
        "items",
        "now_ms",
        "puts",
        "rebuilt",
        "resynced",
        "rows",
        "settled",
    )

    def __init__(self) -> None:
        self.puts: dict[int, Outgoing] = {}
        """Entries of the outbox that are new or have a new id, by draft."""
        self.rows: list[OutboxRow] = []
        """The same as they are to be stored; taken when the batch is."""
        self.settled: list[Settled] = []
        """Entries that were answered for good."""
        self.items: list[item_pb2.Item] = []
        """Events, oldest first."""
        self.asked: list[tuple[bytes, int]] = []
        """Groups whose counts are among the items, each with its number of `GroupBook.to_ask`."""
        self.resynced: Resynced | None = None
        """The log could not be resumed from, and what is older than it is to be read."""
        self.rebuilt = 0
        """With the items before it everything is stored that was to be read after the Resync of this number."""
        self.cursor: bytes | None = None
        """Where to resume once the items are stored; None leaves it as it is."""
        self.count = 0
        """The count of the last item, for the Ack; zero when there is none."""
        self.generation = 0
        """Which connection the items came by: a count means nothing on another."""
        self.is_sync = False
        """The items were in the log when the session began."""
        self.is_caught_up = False
        """With it everything is stored that was in the log when the session began."""
        self.now_ms = 0
        """The server's time, as well as it is known, when the batch was taken."""
        self.history_ids: list[bytes] = []
        """Messages that came by pages after a Resync, to be acknowledged by id."""

    def is_empty(self) -> bool:
        """Tells whether there is nothing to store."""
        is_idle = not (self.puts or self.settled or self.items or self.asked or self.rebuilt)
        return is_idle and not self.is_caught_up and self.cursor is None


class Restored(NamedTuple):
    """What a store still knew when it was opened."""

    cursor: bytes = b""
    outgoing: Sequence[Outgoing] = ()
    """What was not answered, in the order of composition."""
    last_minted: bytes = b""
    """The greatest id that this device ever minted."""
    next_draft: int = 1
    seen_ms: Sequence[tuple[bytes, int]] = ()
    """Each conversation with the time of its newest message."""
    accepted_ms: int = 0
    """When the ledger accepted the newest message that is here; 0 for none."""


class StoredReaction(NamedTuple):
    """One user's reaction to a message."""

    user_id: bytes
    reacted_ms: int
    suite: int
    content: bytes


class StoredMessage(NamedTuple):
    """A message as the local store keeps it: with its newest content, and without any once it was taken back."""

    message_id: bytes
    conversation_id: bytes
    sender_id: bytes
    sender_device_id: int
    recipient_id: bytes
    """Empty in a group, whose id is that of the conversation."""
    accepted_ms: int
    suite: int
    content: bytes
    state: int
    """A value of ReceiptState; zero when no receipt has come."""
    edited_ms: int = 0
    """When its content was last changed; zero when it is as it was sent."""
    revoked_ms: int = 0
    """When it was taken back; zero when it was not."""
    expires_ms: int = 0
    """When it disappears; zero when it stays."""
    delivered_count: int = 0
    """Of an own message to a group, how many of its recipients have it."""
    read_count: int = 0
    recipient_count: int = 0
    """How many there are; zero while nothing is known of them."""
    reactions: tuple[StoredReaction, ...] = ()
    """The newest first."""

    def is_past(self, now_ms: int) -> bool:
        """Tells whether it has disappeared at this time."""
        return 0 < self.expires_ms <= now_ms


class LocalChat(NamedTuple):
    """A conversation as the local store keeps it."""

    conversation_id: bytes
    peer_id: bytes
    """Empty in a group, whose id is that of the conversation."""
    last_message_id: bytes
    read_upto: bytes
    muted_until_ms: int = 0
    pinned_ms: int = 0
    is_archived: bool = False
    expiry_s: int = 0
    cleared_upto: bytes = b""


class Person(NamedTuple):
    """What the device remembers of a person."""

    user_id: bytes
    phone_number: str
    contact_name: str
    """What the user calls the person; the only name by which somebody can be addressed."""
    profile_name: str = ""
    """What the person calls itself, which anybody can choose freely."""


class GroupBook(Protocol):
    """Keeps what a device knows of its groups. Raises StoreError when the place cannot be read or written."""

    def find(self, group_id: bytes) -> KnownGroup | None:
        """Returns a group; None for one of which this device never heard."""
        ...

    def all(self) -> list[KnownGroup]:
        """Returns every group that this device ever heard of, by name."""
        ...

    def members(self, group_id: bytes) -> list[KnownMember]:
        """Returns the members of a group, by user id; true of the version that the group names."""
        ...

    def uncertain(self, group_id: bytes, before: bytes, limit: int) -> list[tuple[bytes, int, int]]:
        """Returns the newest own messages to a group, before an id unless that is empty, that not all have read.

        Each with how many have it and have read it, as far as this device knows.
        """
        ...

    def to_ask(self) -> list[tuple[bytes, int]]:
        """Returns the groups whose counts are to be asked for, each with the number of what was heard of it."""
        ...

    def notices(self, group_id: bytes, since_ms: int, limit: int) -> list[GroupChanged]:
        """Returns what happened to a group since a moment, the newest so many, the oldest of them first."""
        ...

    def unseen(self, limit: int) -> list[GroupChanged]:
        """Returns what others did to groups and was never handed to the application, by time."""
        ...

    def mark_seen(self, group_id: bytes, version: int) -> None:
        """Takes note that the application has had the change that led to this version of a group."""
        ...

    def learn(self, group: Group) -> KnownGroup:
        """Takes an answer of the directory, unless something newer is known; returns what is known then."""
        ...

    def learn_members(self, group_id: bytes, version: int, members: Iterable[KnownMember]) -> None:
        """Takes the members of a version of a group, unless those of a newer one are known."""
        ...

    def leave(self, group_id: bytes, version: int | None = None) -> None:
        """Takes note that the user is no member any more; with a version, unless the group has changed since that."""
        ...


class ContactNews(NamedTuple):
    """What a device has heard of changes of the address book."""

    version: int
    """The newest of which the log has told."""
    resyncs: int
    """How often the log could not be resumed from, and may have told of others."""


class ContactBook(Protocol):
    """Knows whether the address book was changed, and what is remembered of people.

    Raises StoreError when the place cannot be read or written.
    """

    def unread(self) -> ContactNews | None:
        """Returns what this device has heard of and not read; None when it has read the newest."""
        ...

    def mark_read(self, news: ContactNews) -> None:
        """Takes note that the address book was read after this was heard."""
        ...

    def changes(self) -> int:
        """Returns how often something was remembered of people, by whichever process of the profile."""
        ...


class RefusalBook(Protocol):
    """Keeps what was refused for good. Raises StoreError when the place cannot be read or written."""

    def unseen(self, limit: int) -> list[SendRefused]:
        """Returns what was refused and nobody was told of, in the order of composition."""
        ...

    def mark_seen(self, draft: int) -> None:
        """Takes note that the application has had the event of a refusal."""
        ...


class DeviceStore(Protocol):
    """Keeps what the protocol of one device needs.

    Called by one thread at a time, not always the same. Raises StoreError when the place cannot be read or written.
    """

    @property
    def is_blocking(self) -> bool:
        """Whether a commit waits for a disk and so belongs into a thread."""
        ...

    def load(self) -> Restored:
        """Returns what is needed to go on."""
        ...

    def commit(self, batch: Batch) -> list[LogChange]:
        """Stores a batch, wholly or not at all, and returns what of its items was new."""
        ...

    def close(self) -> None:
        """Lets go of the place; harmless when repeated."""
        ...


class LocalStore(DeviceStore, Protocol):
    """Keeps on top what people ask for: messages, conversations, groups and names."""

    @property
    def groups(self) -> GroupBook:
        """What the device knows of its groups."""
        ...

    @property
    def contacts(self) -> ContactBook:
        """What the device knows of changes of the address book."""
        ...

    @property
    def refusals(self) -> RefusalBook:
        """What was refused for good."""
        ...

    def unseen(self, limit: int) -> list[StoredMessage]:
        """Returns messages that were stored and never handed to the application, in the order in which they came."""
        ...

    def mark_seen(self, message_ids: Iterable[bytes]) -> None:
        """Takes note that the application has had these messages."""
        ...

    def messages(self, conversation_id: bytes, before: bytes, limit: int) -> list[StoredMessage]:
        """Returns messages of a conversation, newest first, before an id unless that is empty."""
        ...

    def expire(self, now_ms: int) -> list[LogChange]:
        """Removes the messages that have disappeared, and returns which."""
        ...

    def next_expiry_ms(self) -> int:
        """Returns when the next message disappears; zero when none does."""
        ...

    def chats(self) -> list[LocalChat]:
        """Returns the conversations, pinned ones first, then the one with the newest message."""
        ...

    def people(self) -> list[Person]:
        """Returns everybody that is remembered."""
        ...

    def remember(self, people: Iterable[Person]) -> None:
        """Remembers people, in place of what was known of the same users."""
        ...
