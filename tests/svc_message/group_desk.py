"""Writes messages to a group as the rules of the ledger hand them to a store."""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from typing import NamedTuple

import psycopg

from svc_message.adapters.journal_memory import MemoryJournal
from svc_message.adapters.ledger_cassandra.connection import Connection, Read, Write
from svc_message.model import ConversationId, DeviceId, MessageEvent, MessageId, MessageRef, Position, UserId
from svc_message.model.action import ActionKind, NewAction
from svc_message.model.group import DirectoryGroup, Entry, Expansion, NewGroupMessage, Shard, Touch
from svc_message.ports.group import GroupStore, Journal
from svc_message.ports.receipt import ReceiptStore
from svc_message.protocol import came_ms, content_hash
from tests.simulation.replicas import Nodes
from tests.svc_message.desk import START_MS, Book, Desk, stranger

_ENTRIES = (
    (
        "SELECT shard, slot FROM journal WHERE pos = ? ALLOW FILTERING",
        "UPDATE journal SET kind = ? WHERE shard = ? AND slot = ? AND pos = ?",
        (8, 4),
    ),
    (
        "SELECT ring, shard FROM journal_parked WHERE pos = ? ALLOW FILTERING",
        "UPDATE journal_parked SET kind = ? WHERE ring = ? AND shard = ? AND pos = ?",
        (1, 8),
    ),
)
"""How entries are found and changed on Cassandra, and how many bytes the parts of their partition keys have."""


class Books(NamedTuple):
    """Everything that keeps groups, over one store."""

    store: Book
    groups: GroupStore
    journal: Journal
    receipts: ReceiptStore
    spoil: Callable[[Position], Awaitable[Callable[[], Awaitable[None]]]]
    """Makes an entry of the journal unreadable; returns what makes it readable again, wherever it is then."""


class GroupDesk(Desk):
    """A group whom no other test knows; its members are alice, bob and carol, by id."""

    def __init__(self) -> None:
        super().__init__()
        self.alice, self.bob, self.carol = sorted(stranger() for _ in range(3))
        self.members = (self.alice, self.bob, self.carol)
        self.group_id = ConversationId(stranger())
        self.shard = Shard(secrets.randbits(64))

    def say(
        self,
        text: bytes = b"hello",
        *,
        sender: UserId | None = None,
        message_id: bytes = b"",
        version: int = 1,
    ) -> NewGroupMessage:
        """Writes a first attempt to the group, from alice unless said otherwise."""
        position = self.position()
        return NewGroupMessage(
            message_id=MessageId(message_id or self.uuid7()),
            group_id=self.group_id,
            sender_id=sender or self.alice,
            sender_device_id=DeviceId(1),
            envelope=text,
            content_hash=content_hash(self.group_id, text),
            members_version=version,
            recipient_count=2,
            is_retry=False,
            position=position,
            accepted_ms=START_MS + self._number,
        )

    def say_again(self, message: NewGroupMessage) -> NewGroupMessage:
        """Writes the next attempt of a message, after the group has changed."""
        position = self.position()
        return message._replace(
            is_retry=True,
            position=position,
            accepted_ms=START_MS + self._number,
            members_version=message.members_version + 1,
            recipient_count=message.recipient_count + 1,
        )

    def do(
        self, message: NewGroupMessage, kind: ActionKind, envelope: bytes = b"", *, user: UserId | None = None
    ) -> NewAction:
        """Writes the first attempt of an action on a message, by its sender unless said otherwise."""
        return self.act(message, kind, envelope, user=user)._replace(peer_id=None)

    def expand(self, *messages: NewGroupMessage, to: Sequence[UserId] = ()) -> Expansion:
        """Writes that members are to have messages."""
        return Expansion(
            self.group_id,
            self.position(),
            tuple(message.to_event() for message in messages),
            to or tuple(user_id for user_id in self.members if user_id != messages[0].sender_id),
        )

    def touch(self, message: NewGroupMessage, *, version: int = 1, to: Sequence[UserId] = ()) -> Touch:
        """Writes that a message moves the group up in chat lists."""
        last_ms = came_ms(message.message_id, message.accepted_ms)
        return Touch(self.group_id, last_ms, version, to or self.members)


def group_ref(message: NewGroupMessage) -> MessageRef:
    return MessageRef(message.message_id, message.group_id, message.sender_id, UserId(message.group_id))


def entry_of(message: NewGroupMessage) -> Entry:
    """Returns the entry that a message becomes, without its place in inboxes."""
    event = message.to_event()._replace(position=Position(bytes(16)))
    return Entry(message.position, message.group_id, message.sender_id, message.members_version, event)


def placed(message: NewGroupMessage, expansion: Expansion) -> MessageEvent:
    """Returns the event that a member gets."""
    return message.to_event()._replace(position=expansion.position)


def group_of(group_id: ConversationId, *user_ids: UserId, version: int = 1) -> DirectoryGroup:
    """Returns a group whose first member is its owner."""
    users = tuple(sorted(user_ids))
    return DirectoryGroup(
        group_id=group_id,
        exists=True,
        version=version,
        is_announcement_only=False,
        expiry_s=0,
        latest_join=1,
        user_ids=users,
        is_admin=tuple(user_id == user_ids[0] for user_id in users),
        joined_versions=(1,) * len(users),
    )


def spoil_memory(journal: MemoryJournal) -> Callable[[Position], Awaitable[Callable[[], Awaitable[None]]]]:
    """Returns what spoils entries in memory."""

    async def spoil(position: Position) -> Callable[[], Awaitable[None]]:
        journal.unreadable.add(position)

        async def mend() -> None:
            journal.unreadable.discard(position)

        return mend

    return spoil


def spoil_postgres(dsn: str) -> Callable[[Position], Awaitable[Callable[[], Awaitable[None]]]]:
    """Returns what gives entries a kind that a later program may know."""

    async def set_kind(kind: int, position: Position) -> None:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            for table in (b"journal", b"journal_parked"):
                await connection.execute(b"UPDATE " + table + b" SET kind = %s WHERE pos = %s", (kind, position.hex()))

    async def spoil(position: Position) -> Callable[[], Awaitable[None]]:
        await set_kind(99, position)

        async def mend() -> None:
            await set_kind(1, position)

        return mend

    return spoil


def spoil_replicas(nodes: Nodes) -> Callable[[Position], Awaitable[Callable[[], Awaitable[None]]]]:
    """Returns what gives entries a kind that a later program may know."""

    def set_kind(kind: int, position: Position) -> None:
        for held in nodes.held:
            for (table, _), partition in held.items():
                for clustering, cells in partition.rows.items():
                    if table in {"journal", "journal_parked"} and position in clustering:
                        cells["kind"] = cells["kind"]._replace(value=bytes((kind,)))

    async def spoil(position: Position) -> Callable[[], Awaitable[None]]:
        set_kind(99, position)

        async def mend() -> None:
            set_kind(1, position)

        return mend

    return spoil


def spoil_cassandra(connection: Connection) -> Callable[[Position], Awaitable[Callable[[], Awaitable[None]]]]:
    """Returns what gives entries a kind that a later program may know."""

    async def set_kind(kind: int, position: Position) -> None:
        for find, change, sizes in _ENTRIES:
            (rows,) = await connection.read([Read(find, (position,))])
            for row in rows:
                key = tuple(n.to_bytes(size, "big", signed=True) for n, size in zip(row, sizes, strict=True))
                await connection.write([[Write(change, key, (bytes((kind,)), *key, position))]])

    async def spoil(position: Position) -> Callable[[], Awaitable[None]]:
        await set_kind(99, position)

        async def mend() -> None:
            await set_kind(1, position)

        return mend

    return spoil
