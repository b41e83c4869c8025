"""The part of CQL that the ledger on Cassandra speaks: its tables, read from the migrations, and its statements."""

import functools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from svc_message.adapters.ledger_cassandra import SCHEMA
from svc_message.adapters.ledger_cassandra.connection import UNSET

NOW = "to_unix_timestamp(now())"
_INTEGERS = frozenset({"bigint", "int", "smallint", "tinyint"})
_VERSION_BYTE = 6
_SECONDS_OF_INT = 4


class Table(NamedTuple):
    """One table of the schema."""

    name: str
    partition: tuple[str, ...]
    clustering: tuple[str, ...]
    falling: frozenset[str]
    """Clustering columns whose greatest value comes first."""
    types: dict[str, str]
    is_repaired: bool
    """Whether a read brings the replicas that it asks to one state."""

    def order(self, clustering: tuple[bytes, ...], *, is_reversed: bool = False) -> tuple[Any, ...]:
        """Returns what rows of a partition are sorted by."""
        return tuple(
            _Falling(key) if (column in self.falling) != is_reversed else key
            for column, value in zip(self.clustering, clustering, strict=True)
            for key in [comparable(self.types[column], value)]
        )


class _Falling:
    """Sorts the other way round."""

    __slots__ = ("key",)

    def __init__(self, key: Any) -> None:
        self.key = key

    def __lt__(self, other: "_Falling") -> bool:
        return bool(other.key < self.key)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Falling) and bool(self.key == other.key)

    __hash__ = None  # type: ignore[assignment]  # it is compared, and in no set


def comparable(kind: str, value: bytes) -> Any:
    """Returns what values of a type are compared by: of two UUIDs first their versions, then their bytes."""
    if kind == "uuid":
        return value[_VERSION_BYTE] >> 4, value
    return decoded(kind, value) if kind in _INTEGERS else value


def decoded(kind: str, value: bytes) -> Any:
    """Returns what the driver makes of a value."""
    if kind in _INTEGERS:
        return int.from_bytes(value, "big", signed=True)
    if kind == "boolean":
        return value != b"\x00"
    return value.decode() if kind == "text" else value


@functools.cache
def tables(folder: Path = SCHEMA) -> dict[str, Table]:
    """Reads the tables that migrations make."""
    text = "\n".join(path.read_text() for path in sorted(folder.glob("*.cql")))
    statements = re.sub(r"--[^\n]*", "", text).split(";")
    found = [_table(" ".join(one.split())) for one in statements if one.lstrip().startswith("CREATE TABLE")]
    return {table.name: table for table in found}


def _table(statement: str) -> Table:
    name, body, options = _matched(r"CREATE TABLE (\w+) \((.*?)\)(?: WITH (.*))?", statement)
    types: dict[str, str] = {}
    partition: tuple[str, ...] = ()
    clustering: tuple[str, ...] = ()
    for part in _split(body):
        if part.startswith("PRIMARY KEY"):
            keys = _split(part.partition("(")[2].rstrip()[:-1])
            partition, clustering = tuple(_split(keys[0].strip("()"))), tuple(keys[1:])
            continue
        column, kind = part.split()[:2]
        types[column] = kind
        if part.endswith("PRIMARY KEY"):
            partition = (column,)
    falling = frozenset(re.findall(r"(\w+) DESC", options or ""))
    return Table(name, partition, clustering, falling, types, "read_repair = 'NONE'" not in (options or ""))


def _split(text: str) -> list[str]:
    """Splits at commas that stand in no brackets."""
    parts, depth, start = list[str](), 0, 0
    for at, letter in enumerate(text):
        depth += (letter in "(<") - (letter in ")>")
        if letter == "," and not depth:
            parts.append(text[start:at].strip())
            start = at + 1
    return [*parts, text[start:].strip()]


def _matched(pattern: str, text: str) -> tuple[Any, ...]:
    found = re.fullmatch(pattern, text)
    if found is None:
        raise ValueError(f"not a statement that is known here: {text}")
    return found.groups()


class Condition(NamedTuple):
    """What a clustering column is compared with."""

    column: str
    operator: str
    values: tuple[bytes, ...]

    def holds(self, table: Table, value: bytes) -> bool:
        """Tells whether a row has it."""
        if self.operator in {"=", "IN"}:
            return value in self.values
        kind = table.types[self.column]
        mine, bound = comparable(kind, value), comparable(kind, self.values[0])
        is_met: Callable[[Any, Any], bool] = _COMPARED[self.operator]
        return is_met(mine, bound)


_COMPARED: dict[str, Callable[[Any, Any], bool]] = {
    "<": lambda mine, bound: bool(mine < bound),
    ">": lambda mine, bound: bool(bound < mine),
    "<=": lambda mine, bound: not bound < mine,
    ">=": lambda mine, bound: not mine < bound,
}


class Change(NamedTuple):
    """What a statement does to one partition."""

    table: Table
    partition: tuple[bytes, ...]
    clustering: tuple[bytes, ...]
    """Of the row; of a deletion what its rows begin with."""
    cells: tuple[tuple[str, bytes | str], ...]
    """Columns with their values, or `NOW`; the empty name says that the row was inserted. None for a deletion."""
    is_deletion: bool
    stamp_us: int | None
    """The write timestamp; None for the coordinator's time."""
    ttl_s: int


class Question(NamedTuple):
    """What a statement asks of one partition."""

    table: Table
    partition: tuple[bytes, ...]
    conditions: tuple[Condition, ...]
    wanted: tuple[str, ...]
    grouped_by: tuple[str, ...]
    is_reversed: bool
    limit: int | None


class Statement:
    """A statement whose values are given."""

    def __init__(self, query: str) -> None:
        """Reads it; raises `ValueError` for what is not of the part that is known here."""
        text = " ".join(query.split())
        readers = {"SELECT": self._select, "INSERT": self._insert, "UPDATE": self._update, "DELETE": self._delete}
        self._bind = readers[text.split()[0]](text)

    def bind(self, values: Sequence[Any]) -> Any:
        """Returns the `Change`, or the `Question`, that it is with values."""
        return self._bind(iter(values))

    def _select(self, text: str) -> Callable[[Iterator[Any]], Question]:
        wanted, name, where, grouped, ordered, limit = _matched(
            r"SELECT (.+?) FROM (\w+) WHERE (.+?)(?: GROUP BY (.+?))?(?: ORDER BY (\w+) ASC)?(?: LIMIT (\?|\d+))?", text
        )
        table = tables()[name]
        terms = [_matched(r"(\w+) (=|<=|>=|<|>|IN) \?", term) for term in where.split(" AND ")]

        def bind(values: Iterator[Any]) -> Question:
            found = [(column, operator, _values_of(operator, next(values))) for column, operator in terms]
            keys = {column: given[0] for column, _, given in found}
            conditions = tuple(Condition(*one) for one in found if one[0] not in table.partition)
            rows = int.from_bytes(next(values), "big") if limit == "?" else int(limit) if limit else None
            is_reversed = ordered is not None and table.clustering[0] in table.falling
            columns = tuple(_split(grouped)) if grouped else ()
            partition = tuple(keys[column] for column in table.partition)
            return Question(table, partition, conditions, tuple(_split(wanted)), columns, is_reversed, rows)

        return bind

    def _insert(self, text: str) -> Callable[[Iterator[Any]], Change]:
        name, names, places, stamped, mortal = _matched(
            r"INSERT INTO (\w+) \((.+?)\) VALUES \((.+?)\)( USING TIMESTAMP \?)?( AND TTL \?)?", text
        )
        table, columns, holders = tables()[name], _split(names), _split(places)

        def bind(values: Iterator[Any]) -> Change:
            given = {
                column: next(values) if holder == "?" else NOW for column, holder in zip(columns, holders, strict=True)
            }
            return _change(table, given, _stamp(stamped, values), _ttl(mortal, values), is_insert=True)

        return bind

    def _update(self, text: str) -> Callable[[Iterator[Any]], Change]:
        name, stamped, mortal, sets, where = _matched(
            r"UPDATE (\w+)( USING TIMESTAMP \?)?( AND TTL \?)? SET (.+?) WHERE (.+)", text
        )
        columns = [part.split(" = ")[0] for part in _split(sets)]
        keys = [_matched(r"(\w+) = \?", term)[0] for term in where.split(" AND ")]
        table = tables()[name]

        def bind(values: Iterator[Any]) -> Change:
            stamp_us, ttl_s = _stamp(stamped, values), _ttl(mortal, values)
            return _change(table, {column: next(values) for column in (*columns, *keys)}, stamp_us, ttl_s)

        return bind

    def _delete(self, text: str) -> Callable[[Iterator[Any]], Change]:
        name, stamped, where = _matched(r"DELETE FROM (\w+)( USING TIMESTAMP \?)? WHERE (.+)", text)
        keys = [_matched(r"(\w+) = \?", term)[0] for term in where.split(" AND ")]
        table = tables()[name]

        def bind(values: Iterator[Any]) -> Change:
            stamp_us = _stamp(stamped, values)
            given = {column: next(values) for column in keys}
            partition = tuple(given[column] for column in table.partition)
            prefix = tuple(given[column] for column in table.clustering if column in given)
            return Change(table, partition, prefix, (), is_deletion=True, stamp_us=stamp_us, ttl_s=0)

        return bind


def _values_of(operator: str, value: bytes) -> tuple[bytes, ...]:
    if operator != "IN":
        return (value,)
    found, at = list[bytes](), _SECONDS_OF_INT
    while at < len(value):
        size = int.from_bytes(value[at : at + 4], "big")
        found.append(value[at + 4 : at + 4 + size])
        at += 4 + size
    return tuple(found)


def _stamp(stamped: str | None, values: Iterator[Any]) -> int | None:
    return int.from_bytes(next(values), "big", signed=True) if stamped else None


def _ttl(mortal: str | None, values: Iterator[Any]) -> int:
    return int.from_bytes(next(values), "big") if mortal else 0


def _change(
    table: Table, given: dict[str, Any], stamp_us: int | None, ttl_s: int, *, is_insert: bool = False
) -> Change:
    cells: list[tuple[str, bytes | str]] = [("", b"")] if is_insert else []
    keys = {*table.partition, *table.clustering}
    for column, value in given.items():
        if column in keys or value is UNSET:
            continue
        if table.types[column].startswith("set"):
            # One element at a time: each is a cell of its own.
            cells.append((f"{column} {value[8:].hex()}", value[8:]))
        else:
            cells.append((column, value))
    partition = tuple(given[column] for column in table.partition)
    clustering = tuple(given[column] for column in table.clustering)
    return Change(table, partition, clustering, tuple(cells), is_deletion=False, stamp_us=stamp_us, ttl_s=ttl_s)


@functools.cache
def statement(query: str) -> Statement:
    """Reads a statement, once."""
    return Statement(query)
