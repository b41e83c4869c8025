"""Spoils what stands in the stores of the ledger, and writes what only a later program could read."""

from typing import Any, Final, Protocol

import psycopg

from svc_message.adapters.ledger_cassandra.bodies import BodyKey
from svc_message.adapters.ledger_cassandra.cells import body_bucket_of, bucket_of, smallint, week_of
from svc_message.adapters.ledger_cassandra.connection import Connection, Write
from svc_message.adapters.ledger_cassandra.shards import partition_of
from svc_message.adapters.message_store_postgres import PostgresMessageStore
from svc_message.adapters.unreadable import Unreadable
from svc_message.model import ConversationId, NewMessage, Position, UserId
from svc_message.model.action import NewAction
from svc_message.model.group import NewGroupMessage, Shard
from tests.svc_message.group_desk import Books

NO_CONVERSATION: Final = ConversationId(bytes(16))


class Spoilt(Protocol):
    """A store whose rows are spoilt."""

    books: Books

    @property
    def unreadable(self) -> Unreadable:
        """What those who read its inboxes and messages passed over."""
        ...

    async def inbox(self, user_id: UserId, position: Position, kind: int, data: bytes | None) -> None:
        """Writes a row into an inbox."""
        ...

    async def action(self, action: NewAction) -> None:
        """Makes an action one that only a later program knows."""
        ...


class SpoiltPostgres:
    """A store on PostgreSQL."""

    def __init__(self, dsn: str, books: Books) -> None:
        self.books = books
        self._dsn = dsn

    @property
    def unreadable(self) -> Unreadable:
        """What those who read its inboxes and messages passed over."""
        store = self.books.store
        assert isinstance(store, PostgresMessageStore)
        return store._readers.unreadable

    async def inbox(self, user_id: UserId, position: Position, kind: int, data: bytes | None) -> None:
        """Writes a row into an inbox."""
        await self.run(
            "INSERT INTO inbox (user_id, pos, conversation_id, message_id, kind, data) VALUES (%s, %s, %s, %s, %s, %s)",
            user_id.hex(),
            position.hex(),
            NO_CONVERSATION.hex(),
            NO_CONVERSATION.hex(),
            kind,
            data,
        )

    async def action(self, action: NewAction) -> None:
        """Makes an action one that only a later program knows."""
        await self.run("UPDATE actions SET kind = 99 WHERE action_id = %s", action.action_id.hex())

    async def receipts(self, message: NewMessage, state: int) -> None:
        """Writes how far a message has come."""
        await self.run("UPDATE receipts SET state = %s WHERE message_id = %s", state, message.message_id.hex())

    async def run(self, statement: str, *values: Any) -> None:
        """Runs a statement."""
        async with await psycopg.AsyncConnection.connect(self._dsn, autocommit=True) as connection:
            await connection.execute(statement.encode(), values)


class SpoiltCassandra:
    """A store on Cassandra."""

    def __init__(self, connection: Connection, books: Books) -> None:
        self.books = books
        self.connection = connection

    @property
    def unreadable(self) -> Unreadable:
        """What those who read its inboxes and messages passed over."""
        return self.connection.unreadable

    async def inbox(self, user_id: UserId, position: Position, kind: int, data: bytes | None) -> None:
        """Writes a row into an inbox."""
        place = (user_id, smallint(week_of(position)), position, kind.to_bytes(1, "big"), NO_CONVERSATION)
        values = (*place, NO_CONVERSATION, b"" if data is None else data)
        statement = """
            INSERT INTO inbox (user_id, week, pos, kind, conversation_id, item_id, data) VALUES (?, ?, ?, ?, ?, ?, ?)
        """
        await self._write(statement, place[:2], values)

    async def copy(self, user_id: UserId, message: NewMessage, column: str, cell: bytes) -> None:
        """Writes a cell of one participant's row of a message."""
        place = (user_id, message.conversation_id, smallint(bucket_of(message.message_id)))
        where = "user_id = ? AND conversation_id = ? AND bucket = ? AND message_id = ?"
        await self._write(
            f"UPDATE messages SET {column} = ? WHERE {where}",  # noqa: S608 - the test's own
            place,
            (cell, *place, message.message_id),
        )

    async def body(self, message: NewGroupMessage, column: str, cell: bytes) -> None:
        """Writes a cell of a message to a group."""
        key = BodyKey(message.group_id, message.message_id)
        place = (key.conversation_id, smallint(body_bucket_of(key.message_id)))
        await self._write(
            f"UPDATE bodies SET {column} = ? WHERE conversation_id = ? AND bucket = ? AND message_id = ?",  # noqa: S608 - the test's own
            place,
            (cell, *place, key.message_id),
        )

    async def action(self, action: NewAction, cell: bytes = bytes(200)) -> None:
        """Makes an action one that only a later program knows."""
        place = (action.conversation_id, smallint(bucket_of(action.action_id)))
        await self._write(
            "UPDATE actions SET header = ? WHERE conversation_id = ? AND bucket = ? AND action_id = ?",
            place,
            (cell, *place, action.action_id),
        )

    async def reaction(self, action: NewAction, cell: bytes) -> None:
        """Writes the reaction that an action has left."""
        place = (action.conversation_id, smallint(bucket_of(action.message_id)))
        where = "conversation_id = ? AND bucket = ? AND message_id = ? AND user_id = ? AND is_withheld = ?"
        await self._write(
            f"UPDATE reactions USING TIMESTAMP 9000000000000000 SET reaction = ? WHERE {where}",  # noqa: S608 - the test's own
            place,
            (cell, *place, action.message_id, action.user_id, b"\0"),
        )

    async def entry(self, shard: Shard, position: Position, column: str) -> None:
        """Takes a cell of an entry of the journal away."""
        place = partition_of(shard, position)
        statement = f"DELETE {column} FROM journal WHERE shard = ? AND slot = ? AND pos = ?"
        await self._write(statement, place, (*place, position))

    async def _write(self, statement: str, key: tuple[bytes, ...], values: tuple[bytes, ...]) -> None:
        await self.connection.write([[Write(statement, key, values)]])
