"""Cassandra with three replicas of everything, as far as the ledger can tell it from the real one.

A write is promised once two replicas have it, a read asks two. The third may learn of a write minutes later; a
coordinator that dies has told some replicas of some rows; and of two cells of one timestamp the rules of Cassandra say
which stands. What the ledger promises has to hold over all of this, so its own adapter runs here.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from cassandra import OperationTimedOut

from svc_message.adapters.ledger_cassandra.connection import Connection, Write
from svc_message.adapters.unreadable import Unreadable
from tests.simulation.cql import NOW, Change, Question, decoded, statement
from tests.simulation.loop import EPOCH_MS
from tests.simulation.stores import GIVES_UP_S, Host, late_s

COPIES = 3
QUORUM = 2
FOREVER_S = float("inf")
HINTED = 0.1
"""How many changes one of the replicas learns of late, on a day like any other."""

Row = tuple[Any, ...]
Bound = tuple[str, tuple[Any, ...]]
"""A statement and its values."""


class Cell(NamedTuple):
    """A value of one column, with what decides between two of them: the greater one stands, in this order."""

    stamp_us: int
    is_mortal: bool
    """It ends by itself."""
    ends_s: float
    value: bytes


class Partition:
    """What one replica has of a partition."""

    __slots__ = ("deletions", "rows")

    def __init__(self) -> None:
        self.rows: dict[tuple[bytes, ...], dict[str, Cell]] = {}
        self.deletions: dict[tuple[bytes, ...], int] = {}
        """Up to which timestamp rows are deleted whose keys begin so."""

    def apply(self, change: Change, taken_us: int, now_s: float) -> None:
        """Takes a change, in whatever order changes come.

        Args:
            change: It.
            taken_us: When its coordinator took it.
            now_s: From when on what ends by itself is counted.
        """
        stamp_us = taken_us if change.stamp_us is None else change.stamp_us
        if change.is_deletion:
            self.deletions[change.clustering] = max(stamp_us, self.deletions.get(change.clustering, stamp_us))
            return
        ends_s = now_s + change.ttl_s if change.ttl_s else FOREVER_S
        row = self.rows.setdefault(change.clustering, {})
        for column, value in change.cells:
            written = (taken_us // 1000).to_bytes(8, "big") if isinstance(value, str) else value
            _keep(row, column, Cell(stamp_us, bool(change.ttl_s), ends_s, written))

    def merge(self, other: "Partition") -> None:
        """Takes what another replica has."""
        for prefix, stamp_us in other.deletions.items():
            self.deletions[prefix] = max(stamp_us, self.deletions.get(prefix, stamp_us))
        for clustering, cells in other.rows.items():
            row = self.rows.setdefault(clustering, {})
            for column, cell in cells.items():
                _keep(row, column, cell)

    def copy(self) -> "Partition":
        """Returns what there is now."""
        found = Partition()
        found.merge(self)
        return found

    def live(self, now_s: float) -> Iterator[tuple[tuple[bytes, ...], dict[str, Cell]]]:
        """Yields the rows that are there, with the cells that are."""
        for clustering, cells in self.rows.items():
            deleted_us = max(
                (stamp_us for prefix, stamp_us in self.deletions.items() if clustering[: len(prefix)] == prefix),
                default=-1,
            )
            there = {
                column: cell for column, cell in cells.items() if cell.stamp_us > deleted_us and cell.ends_s > now_s
            }
            if there:
                yield clustering, there


def _keep(row: dict[str, Cell], column: str, cell: Cell) -> None:
    rival = row.get(column)
    if rival is None or rival < cell:
        row[column] = cell


class Nodes:
    """Three nodes, each with all partitions; what they hold lives on when processes die."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        """Makes the nodes empty, but for the epoch that the migrations write.

        Args:
            now_s: Tells the time, Unix seconds.
        """
        self.now_s = now_s
        self.held: list[dict[tuple[str, tuple[bytes, ...]], Partition]] = [
            defaultdict(Partition) for _ in range(COPIES)
        ]
        """By node: the partitions, by the names of their tables and their keys."""
        first = statement("INSERT INTO ledger (id, epoch) VALUES (?, ?) USING TIMESTAMP ?")
        self.apply([first.bind((b"\x00", (1).to_bytes(8, "big"), (1).to_bytes(8, "big")))], range(COPIES), 0)

    def apply(self, changes: Iterable[Change], nodes: Iterable[int], taken_us: int) -> None:
        """Lets nodes learn of changes that a coordinator took at a time."""
        now_s = self.now_s()
        for change in changes:
            for node in nodes:
                self.held[node][change.table.name, change.partition].apply(change, taken_us, now_s)

    def look(self, question: Question, node: int, found: Partition) -> None:
        """Adds what a node has of what is asked to what was found."""
        held = self.held[node].get((question.table.name, question.partition))
        if held is not None:
            found.merge(held)

    def answer(self, question: Question, nodes: Iterable[int], found: Partition) -> list[Row]:
        """Returns the rows of what was found on some nodes, which then have it all, where that is repaired."""
        if question.table.is_repaired and found.rows:
            for node in nodes:
                self.held[node][question.table.name, question.partition].merge(found)
        return rows_of(question, found, self.now_s())


class Prompt(Nodes):
    """Nodes that know everything at once."""

    async def send(self, bound: Sequence[Bound]) -> list[Row]:
        """Carries out a batch, or a question."""
        asked = [statement(query).bind(values) for query, values in bound]
        await asyncio.sleep(0)
        if not isinstance(asked[0], Question):
            self.apply(asked, range(COPIES), int(self.now_s() * 1_000_000))
            return []
        found = Partition()
        self.look(asked[0], 0, found)
        return self.answer(asked[0], (0,), found)


class Replicas(Nodes):
    """Nodes that are somewhere else: what one knows another may not, yet."""

    def __init__(self, host: Host) -> None:
        """Makes the nodes.

        Args:
            host: How long everything takes, and what goes wrong.
        """
        super().__init__(lambda: EPOCH_MS / 1000 + host.loop.time())
        self.host = host

    async def send(self, bound: Sequence[Bound]) -> Any:
        """Carries out a batch, or a question; returns rows, or the error of the driver."""
        asked = [statement(query).bind(values) for query, values in bound]
        if isinstance(asked[0], Question):
            return await self._answer(asked[0])
        return await self._write(asked)

    async def _write(self, changes: list[Change]) -> list[Row] | Exception:
        host = self.host
        lots, loop, weather = host.lots_of("write"), host.loop, host.weather
        taken_us = int(self.now_s() * 1_000_000)
        is_down = loop.time() < host.down_until_s
        if is_down or (weather.lost and lots.random() < weather.lost):
            if lots.random() < 0.6:
                self._write_unseen(changes, taken_us, is_down=is_down)
            await asyncio.sleep(lots.uniform(*GIVES_UP_S))
            return OperationTimedOut()
        if weather.doubled and lots.random() < weather.doubled:
            host.carry_out_late(late_s(lots), self.apply, changes, range(COPIES), taken_us)
        known_s = loop.time()
        for change in changes:
            nodes = lots.sample(range(COPIES), COPIES)
            arrivals_s = [host.arrival_s(lots, is_write=True) for _ in nodes]
            if lots.random() < HINTED:
                arrivals_s[-1] = loop.time() + late_s(lots)
            for node, at_s in zip(nodes, arrivals_s, strict=True):
                self._later(at_s - loop.time(), [change], (node,), taken_us)
            known_s = max(known_s, sorted(arrivals_s)[QUORUM - 1])
        await self._until(known_s + host.delay_s(lots))
        return []

    def _write_unseen(self, changes: list[Change], taken_us: int, *, is_down: bool) -> None:
        """Lets something happen of a batch whose coordinator is gone."""
        host, lots = self.host, self.host.lots_of("write")
        is_torn = lots.random() < host.weather.torn
        host.has_torn |= is_torn
        is_late = is_down or lots.random() < 0.5
        for change in changes:
            if is_torn and lots.random() < 0.5:
                continue
            for node in range(COPIES):
                if not is_torn or lots.random() < 0.5:
                    delay_s = late_s(lots) if is_late else lots.random() * 3
                    host.carry_out_late(delay_s, self.apply, [change], (node,), taken_us)

    async def _answer(self, question: Question) -> list[Row] | Exception:
        host = self.host
        lots, loop, weather = host.lots_of("read"), host.loop, host.weather
        if loop.time() < host.down_until_s or (weather.lost and lots.random() < weather.lost):
            await asyncio.sleep(lots.uniform(*GIVES_UP_S))
            return OperationTimedOut()
        asked: list[tuple[float, int]] = sorted(
            (host.arrival_s(lots, is_write=False), node) for node in lots.sample(range(COPIES), QUORUM)
        )
        answer: asyncio.Future[list[Row]] = loop.create_future()
        found = Partition()
        for at_s, node in asked:
            loop.call_at(at_s, self.look, question, node, found, context=loop.world.context)
        nodes = [node for _, node in asked]
        last_s = asked[-1][0]
        loop.call_at(last_s, self._put_together, question, nodes, found, answer, context=loop.world.context)
        rows = await answer
        await asyncio.sleep(host.delay_s(lots))
        return rows

    def _put_together(
        self, question: Question, nodes: list[int], found: Partition, answer: "asyncio.Future[list[Row]]"
    ) -> None:
        rows = self.answer(question, nodes, found)
        if not answer.done():
            answer.set_result(rows)

    async def _until(self, at_s: float) -> None:
        await asyncio.sleep(max(at_s - self.host.loop.time(), 0.0))

    def _later(self, delay_s: float, changes: list[Change], nodes: Iterable[int], taken_us: int) -> None:
        loop = self.host.loop
        loop.call_later(max(delay_s, 0.0), self.apply, changes, nodes, taken_us, context=loop.world.context)


def rows_of(question: Question, partition: Partition, now_s: float) -> list[Row]:
    """Returns what a statement selects from a partition."""
    table = question.table
    places = {column: at for at, column in enumerate(table.clustering)}
    there = [
        (clustering, cells)
        for clustering, cells in partition.live(now_s)
        if all(condition.holds(table, clustering[places[condition.column]]) for condition in question.conditions)
    ]
    there.sort(key=lambda one: table.order(one[0], is_reversed=question.is_reversed))
    groups = _grouped(question, there)
    rows = [tuple(_selected(question, wanted, group, now_s) for wanted in question.wanted) for group in groups]
    return rows if question.limit is None else rows[: question.limit]


_Found = tuple[tuple[bytes, ...], dict[str, Cell]]


def _grouped(question: Question, there: list[_Found]) -> list[list[_Found]]:
    columns = [column for column in question.grouped_by if column in question.table.clustering]
    if not question.grouped_by:
        return [[one] for one in there]
    places = [question.table.clustering.index(column) for column in columns]
    groups: dict[tuple[bytes, ...], list[_Found]] = {}
    for one in there:
        groups.setdefault(tuple(one[0][place] for place in places), []).append(one)
    return list(groups.values())


def _selected(question: Question, wanted: str, group: list[_Found], now_s: float) -> Any:
    """Returns the value of one expression for a row, or for the rows of a group."""
    table, (first, *_) = question.table, group
    if wanted.startswith("count("):
        column = wanted[len("count(") : -1]
        return sum(column == "*" or column in cells for _, cells in group)
    if wanted == NOW:
        return int(now_s * 1000)
    if wanted.startswith(f"{NOW} - "):
        then = _value(question, wanted.removeprefix(f"{NOW} - "), first)
        return None if then is None else int(now_s * 1000) - then
    if wanted.startswith("writetime("):
        cell = first[1].get(wanted[len("writetime(") : -1])
        return cell.stamp_us if cell else None
    if wanted.startswith("uuid_as_blob("):
        return _value(question, wanted[len("uuid_as_blob(") : -1], first)
    assert table.types[wanted] != "uuid", "the driver would make a UUID of it"
    return _value(question, wanted, first)


def _value(question: Question, column: str, row: _Found) -> Any:
    table, (clustering, cells) = question.table, row
    kind = table.types[column]
    if kind.startswith("set"):
        elements = [cell.value for name, cell in cells.items() if name.startswith(f"{column} ")]
        return {decoded("smallint", element) for element in elements} or None
    for names, values in ((table.partition, question.partition), (table.clustering, clustering)):
        if column in names:
            return decoded(kind, values[names.index(column)])
    return decoded(kind, cells[column].value) if column in cells else None


class ReplicatedConnection(Connection):
    """The connection of the ledger, with replicas where its driver is; what it does with errors is its own."""

    def __init__(self, nodes: Prompt | Replicas, *, unreadable: Unreadable | None = None) -> None:
        none: Any = None
        super().__init__(none, unreadable=unreadable)
        self._nodes = nodes

    async def aclose(self) -> None:
        """Keeps everything."""

    async def _prepare(self, queries: set[str]) -> None:
        """Does nothing: statements are read when they are met first."""

    def _bound(self, query: str, values: tuple[Any, ...]) -> Any:
        return [(query, values)]

    def _batch(self, rows: Sequence[Write]) -> Any:
        return [(row.query, row.values) for row in rows]

    async def _send(self, statements: Sequence[Any]) -> list[Any]:
        return await asyncio.gather(*(self._nodes.send(one) for one in statements))
