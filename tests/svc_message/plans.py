"""Looks at the plans that a store's own connections have made."""

import re
from collections.abc import AsyncIterator, Iterator
from typing import Any, Final, NamedTuple

import pytest
from psycopg import AsyncConnection

Found = tuple[Any, ...]

# What a scan of a table must be given at least. Without its first column an index is read from end to end, and a row
# of one conversation is told from the others' only afterwards.
KEYS: Final = {
    "messages": ("conversation_id", "message_id"),
    "inbox": ("user_id",),
    "receipts": ("conversation_id", "message_id"),
    "group_receipts": ("conversation_id", "message_id"),
    "conversations": ("user_id|archived_ms",),
    "private_views": ("user_id", "conversation_id"),
    "reactions": ("conversation_id", "message_id"),
    "actions": ("conversation_id",),
    "journal": ("shard",),
    "receipt_news": ("sender_id|due_ms",),
}

_OF_INDEX: Final = {
    "messages_by_version": ("conversation_id", "members_version"),
    "messages_late": ("conversation_id", r"CASE WHEN \(\(accepted_ms"),
}
"""The same, where an index begins otherwise than the key of its table."""

# Holds the few rows that are archived.
_SMALL: Final = {"conversations_by_archiving"}


class Scan(NamedTuple):
    """A scan that reads more of a table than it is asked for."""

    table: str
    index_name: str
    condition: str
    statement: str


class Eavesdropper:
    """Remembers the connections that were opened since, and asks them what they have prepared."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._connections: list[AsyncConnection[Found]] = []
        self._connect = AsyncConnection[Found].connect
        monkeypatch.setattr(AsyncConnection, "connect", self._overhear)

    async def _overhear(self, dsn: str, **settings: Any) -> AsyncConnection[Found]:
        connection = await self._connect(dsn, **settings)
        self._connections.append(connection)
        return connection

    async def wide_scans(self) -> set[Scan]:
        """Returns the scans of all plans that are not confined by the keys of their tables."""
        scans: set[Scan] = set()
        for connection in self._connections:
            if connection.closed:
                continue
            async for statement, plan in _plans(connection):
                scans |= {
                    Scan(node["Relation Name"], node.get("Index Name", ""), node.get("Index Cond", ""), statement)
                    for node in _nodes(plan)
                    if not _is_confined(node)
                }
        return scans


async def _plans(connection: AsyncConnection[Found]) -> AsyncIterator[tuple[str, dict[str, Any]]]:
    prepared = await connection.execute(
        b"SELECT name, statement, parameter_types::text[] FROM pg_prepared_statements WHERE statement ILIKE '%FROM%'"
    )
    for name, statement, types in await prepared.fetchall():
        nothing = ", ".join(f"NULL::{one}" for one in types)
        execution = f'EXECUTE "{name}"({nothing})' if types else f'EXECUTE "{name}"'
        cursor = await connection.execute(f"EXPLAIN (FORMAT JSON, COSTS OFF) {execution}".encode(), prepare=False)
        ((plan,),) = await cursor.fetchall()
        yield statement, plan[0]["Plan"]


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", []):
        yield from _nodes(below)


def _is_confined(node: dict[str, Any]) -> bool:
    if "Scan" not in node["Node Type"] or node.get("Relation Name") not in KEYS:
        return True
    condition = node.get("Index Cond", "")
    keys = _OF_INDEX.get(node["Index Name"], KEYS[node["Relation Name"]])
    return node["Index Name"] in _SMALL or all(re.search(rf"\(({key}) ", condition) for key in keys)
