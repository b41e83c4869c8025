"""Prints what was measured: as tables for people, which are Markdown, and as JSON for the next comparison."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

from tests.bench.meter import PARTS
from tests.bench.rows import Row

_SERVERS: Final = tuple(part for part in PARTS if part != "load")
_SHORT: Final = {"postgres": "PostgreSQL", "cassandra": "Cassandra", "valkey": "Valkey"}


class Column(NamedTuple):
    """One column of a table; left out where no row has it, since a zero would be taken for a figure."""

    title: str
    value: Callable[[Row], float | None]
    digits: int = 0

    def cell(self, row: Row) -> str:
        """Returns what stands in the line of a row; empty when that was not measured."""
        value = self.value(row)
        return "" if value is None else f"{value:,.{self.digits}f}"


def _of(name: str) -> Callable[[Row], float | None]:
    return lambda row: row.values.get(name)


def _cpu_of(part: str) -> Callable[[Row], float | None]:
    return lambda row: row.cpu_us.get(part)


def _servers(row: Row) -> float | None:
    return None if not row.cpu_us else sum(row.cpu_us.get(part, 0.0) for part in _SERVERS)


_CPU: Final = (
    Column("servers µs", _servers),
    *(Column(f"{_SHORT.get(part, part)} µs", _cpu_of(part), 1) for part in _SERVERS),
    Column("load client µs", _cpu_of("load"), 1),
)
_FSYNC: Final = (Column("fsync p50 ms", _of("fsync_p50_ms"), 2), Column("p99", _of("fsync_p99_ms"), 2))
_NOISE: Final = (
    Column("cores used", _of("own_cores"), 2),
    Column("by others", _of("other_cores"), 2),
    Column("stolen", _of("stolen_cores"), 2),
    Column("unfinished", _of("unfinished")),
)
_TABLES: Final[Mapping[str, tuple[str, tuple[Column, ...]]]] = {
    "up": (
        "`chappe up` on a set-up machine, seconds from the command (medians)",
        (
            Column("ready, new data folder", _of("new_s"), 2),
            Column("first message there", _of("first_message_s"), 2),
            Column("ready, data there", _of("again_s"), 2),
        ),
    ),
    "durable": (
        "Durable 1:1, counted at the sender when the recipient's receipt arrives (closed loop)",
        (
            Column("messages/s", _of("messages_per_s")),
            Column("±", _of("deviation")),
            *_CPU,
            Column("p50 ms", _of("receipt_p50_ms"), 1),
            Column("p99 ms", _of("receipt_p99_ms"), 1),
            Column("rows", _of("rows"), 2),
            Column("updates", _of("updates"), 2),
            Column("stored bytes", _of("stored_bytes")),
            Column("log bytes", _of("wal_bytes")),
            Column("commits", _of("commits"), 3),
            Column("log syncs", _of("syncs"), 3),
            *_FSYNC,
            *_NOISE,
        ),
    ),
    "open": (
        "Latency in ms from the moment at which a message was to be sent (open loop)",
        (
            Column("messages/s", _of("messages_per_s")),
            *(
                Column(f"{kind} {quantile[:3]}", _of(f"{kind}_{quantile}"), 1)
                for kind in ("ack", "delivery", "receipt")
                for quantile in ("p50_ms", "p99_ms")
            ),
            Column("± of receipt p99", _of("receipt_p99_ms_deviation"), 1),
            *_CPU,
            *_FSYNC,
            *_NOISE,
        ),
    ),
    "group": (
        "Groups, everybody online: deliveries counted at the members, durable, with their receipts (closed loop)",
        (
            Column("deliveries/s", _of("messages_per_s")),
            Column("±", _of("deviation")),
            *_CPU,
            Column("ack p50 ms", _of("group_ack_p50_ms"), 1),
            Column("p99", _of("group_ack_p99_ms"), 1),
            Column("journal lag, mean ms", _of("journal_lag_ms"), 1),
            Column("p99", _of("journal_lag_p99_ms"), 1),
            Column("last member p50 ms", _of("last_member_p50_ms"), 1),
            Column("p99", _of("last_member_p99_ms"), 1),
            Column("rows", _of("rows"), 3),
            Column("stored bytes", _of("stored_bytes")),
            Column("log bytes", _of("wal_bytes")),
            *_FSYNC,
            *_NOISE,
        ),
    ),
    "beside": (
        "Direct messages at 1,000/s beside messages to a large group of other people (open loop; compare open-1000)",
        (
            *(
                Column(f"{kind} {quantile[:3]} ms", _of(f"{kind}_{quantile}"), 1)
                for kind in ("ack", "delivery", "receipt", "last_member")
                for quantile in ("p50_ms", "p99_ms")
            ),
            *_FSYNC,
            *_NOISE,
        ),
    ),
    "reads": (
        "A read receipt, from the frame that names the message to its SendAck, one at a time (durable)",
        (Column("p50 ms", _of("p50_ms"), 2), Column("p99 ms", _of("p99_ms"), 2), *_CPU, *_FSYNC),
    ),
    "chats": (
        "A window of 50 of a long chat list, called over the bridge, one at a time; then all windows to its end",
        (
            Column("chats", _of("chats")),
            Column("first window p50 ms", _of("p50_ms"), 2),
            Column("p99", _of("p99_ms"), 2),
            Column("any window p50 ms", _of("window_p50_ms"), 2),
            Column("p99", _of("window_p99_ms"), 2),
            *_CPU,
        ),
    ),
    "presence": (
        "svc_presence alone: in batches of 256, four on their way; the question is one user, one at a time",
        (
            Column("operations/s", _of("per_s")),
            Column("presence µs", _cpu_of("presence"), 2),
            Column("Valkey µs", _cpu_of("valkey"), 2),
            Column("answer p50 ms", _of("p50_ms"), 2),
            Column("p99", _of("p99_ms"), 2),
        ),
    ),
    "deaths": (
        "One of two of each service dies, and one of three nodes of Cassandra, while people write to each other",
        (
            Column("deaths", _of("deaths")),
            Column("acknowledged", _of("acknowledged")),
            Column("p99 ms while one is down", _of("down_p99_ms")),
            Column("p50 ms of everything", _of("p50_ms"), 1),
            Column("p99", _of("p99_ms")),
            Column("longest without any ms", _of("gap_ms")),
            Column("taken again s after the only engine is back", _of("resumed_s"), 1),
        ),
    ),
    "idle": (
        "Idle signed-in connections: memory of each, and the cost of signing in (token fetched before)",
        (
            Column("connections", _of("connections")),
            Column("edge USS KB", _of("edge_uss_kb"), 1),
            Column("edge PSS KB", _of("edge_pss_kb"), 1),
            Column("presence USS KB", _of("presence_uss_kb"), 1),
            Column("kernel slab KB, both ends", _of("slab_both_ends_kb"), 1),
            Column("sign-ins/s", _of("sign_ins_per_s")),
            Column("p50 ms", _of("sign_in_p50_ms"), 1),
            Column("p99 ms", _of("sign_in_p99_ms"), 1),
            *_CPU,
        ),
    ),
    "drain": (
        "An offline recipient comes back: from dialling to CaughtUp",
        (
            Column("waiting", _of("waiting")),
            Column("ms", _of("caught_up_ms"), 1),
            Column("±", _of("deviation_ms"), 1),
            Column("messages/s", _of("messages_per_s")),
            Column("messages/s, 5 at once", _of("together_per_s")),
            *_CPU,
            *_FSYNC,
        ),
    ),
    "history": (
        "A page of 50 of a long chat, called over the bridge, one at a time",
        (
            Column("messages in the chat", _of("messages")),
            Column("p50 ms", _of("p50_ms"), 2),
            Column("p99 ms", _of("p99_ms"), 2),
            Column("p99.9 ms", _of("p999_ms"), 2),
            *_CPU,
        ),
    ),
}


class Goal(NamedTuple):
    """What the design wants of one figure, beside which it is printed."""

    row: str
    column: Column
    in_postgres: str
    in_cassandra: str = ""
    """With the ledger in Cassandra on one node; empty when nothing was set."""

    def of(self, row: Row) -> str:
        """Returns the goal for the store that a row was measured on."""
        return self.in_cassandra if "cassandra" in row.cpu_us else self.in_postgres


_RATE: Final = ("15,000 (floor 10,000)", "6,000 (floor 3,500)")
_COST: Final = ("at most 100", "at most 350")
_FANNED: Final = ("150,000 (floor 50,000)",)
_FANNED_COST: Final = ("at most 6 (floor 20)",)
GOALS: Final = (
    Goal("up", Column("`chappe up` to its first message, s", _of("first_message_s"), 2), "below 5"),
    Goal("durable-25", Column("durable 1:1, messages/s", _of("messages_per_s")), *_RATE),
    Goal("durable-25", Column("durable 1:1, servers µs", _servers), *_COST),
    Goal("durable-250", Column("durable 1:1, messages/s", _of("messages_per_s")), *_RATE),
    Goal("durable-250", Column("durable 1:1, servers µs", _servers), *_COST),
    Goal("durable-2500", Column("durable 1:1, messages/s", _of("messages_per_s")), *_RATE),
    Goal("durable-2500", Column("durable 1:1, servers µs", _servers), *_COST),
    Goal("open-5000", Column("delivery p50 ms", _of("delivery_p50_ms"), 1), "5", "10"),
    Goal("open-5000", Column("delivery p99 ms", _of("delivery_p99_ms"), 1), "15", "60"),
    Goal("group-100", Column("durable deliveries/s", _of("messages_per_s")), *_FANNED),
    Goal("group-100", Column("a delivery, servers µs", _servers), *_FANNED_COST),
    Goal("group-1024", Column("durable deliveries/s", _of("messages_per_s")), *_FANNED),
    Goal("group-1024", Column("a delivery, servers µs", _servers), *_FANNED_COST),
    Goal("beside-1024", Column("last member p99 ms", _of("last_member_p99_ms"), 1), "below 100", "below 1,000"),
    Goal("presence-refreshes", Column("touches/s", _of("per_s")), "50,000 for each core"),
    Goal("deaths", Column("p99 ms while one is down", _of("down_p99_ms")), "below 2,000", "below 2,000"),
    Goal("deaths", Column("the engine is back, s until sends are taken", _of("resumed_s"), 1), "below 5"),
    # 3,000 and 2,000 sign-ins for a second of a core, said as the time of each.
    Goal("idle", Column("a sign-in, servers µs", _servers), "at most 333 (floor 500)"),
    Goal("idle", Column("a connection, edge USS KB", _of("edge_uss_kb"), 1), "at most 20"),
    Goal("drain", Column("offline sync, messages/s", _of("messages_per_s")), "20,000", "10,000"),
    Goal("history", Column("page of 50, p99 ms", _of("p99_ms"), 2), "below 5", "below 10"),
)


class Report(NamedTuple):
    """Everything about one run."""

    machine: Mapping[str, Any]
    settings: Mapping[str, str]
    set_up_s: float
    rows: Sequence[Row]
    checked: Mapping[str, Any]
    """What the history checker said; empty without --check."""

    def to_json(self) -> dict[str, Any]:
        """Returns the run as a JSON object, which `compare` reads."""
        return {
            "machine": self.machine,
            "settings": self.settings,
            "set_up_s": self.set_up_s,
            "rows": [
                {"name": row.name, "table": row.table, "values": row.values, "cpu_us": row.cpu_us} for row in self.rows
            ],
            "checked": self.checked,
        }

    def to_text(self) -> str:
        """Returns the tables."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        machine = self.machine
        packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
        yield f"{machine['date']}, commit {machine['commit']}"
        yield f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, Linux {machine['kernel']}"
        yield f"{machine['python']}, {packages}, {machine['engines']}"
        yield (
            f"load average {machine['load_average'][0]:.2f}; writing 4 KiB and fdatasync takes "
            f"{machine['fsync_p50_ms']:.2f} ms p50, {machine['fsync_p99_ms']:.2f} ms p99"
        )
        yield (
            f"a turn of a Python loop costs {machine['python_loop_ns']:.0f} ns of CPU, "
            f"300 bytes over loopback TCP, both ends, {machine['loopback_us']:.1f} µs"
        )
        yield f"set up in {self.set_up_s:.1f} s, not counted; raised: {' '.join(_pairs(self.settings))}"
        if machine.get("warm_s"):
            yield f"warmed by {machine['warm_s']:g} s of closed loop traffic before the first row"
        yield "load client, engines and services share the cores; TLS between services, none on the WebSockets"
        for table, (title, columns) in _TABLES.items():
            rows = [row for row in self.rows if row.table == table]
            if rows:
                yield f"\n{title}\n"
                yield from _table(rows, columns)
        yield from _beside_goals(self.rows)
        if self.checked:
            yield f"\n{self.checked['text']}"


def compare(old: Mapping[str, Any], rows: Sequence[Row]) -> str:
    """Returns new divided by old for everything that both runs measured."""
    before = {row["name"]: {**row["values"], **_named(row["cpu_us"])} for row in old["rows"]}
    lines = [f"against {old['machine']['date']}, commit {old['machine']['commit']}: new / old"]
    for row in rows:
        earlier = before.get(row.name, {})
        now = {**row.values, **_named(row.cpu_us)}
        ratios = [
            f"{name} {value / earlier[name]:.2f}"
            for name, value in now.items()
            if earlier.get(name) and "deviation" not in name
        ]
        lines.append(f"  {row.name}: {', '.join(ratios) or 'nothing to compare'}")
    return "\n".join(lines)


def _named(cpu_us: Mapping[str, float]) -> dict[str, float]:
    return {f"{part}_us": value for part, value in cpu_us.items()}


def _pairs(settings: Mapping[str, str]) -> list[str]:
    return [f"{name}={value}" for name, value in settings.items()]


def _table(rows: Sequence[Row], columns: Sequence[Column]) -> Iterator[str]:
    measured = [column for column in columns if any(map(column.cell, rows))]
    cells = [["", *(column.title for column in measured)]]
    cells += [[row.name, *(column.cell(row) for column in measured)] for row in rows]
    yield from _lined_up(cells)


def _beside_goals(rows: Sequence[Row]) -> Iterator[str]:
    """Returns the table of what the design wants and what was measured of it."""
    by_name = {row.name: row for row in rows}
    told = [(goal, by_name[goal.row]) for goal in GOALS if goal.row in by_name]
    cells = [[row.name, goal.column.title, goal.of(row), goal.column.cell(row)] for goal, row in told if goal.of(row)]
    if cells:
        yield "\nBeside the goals of the design\n"
        yield from _lined_up([["", "what", "goal", "measured"], *cells])


def _lined_up(cells: Sequence[Sequence[str]]) -> Iterator[str]:
    widths = [max(len(line[index]) for line in cells) for index in range(len(cells[0]))]
    for number, line in enumerate(cells):
        padded = [
            line[0].ljust(widths[0]),
            *(cell.rjust(width) for cell, width in zip(line[1:], widths[1:], strict=True)),
        ]
        yield f"| {' | '.join(padded)} |"
        if number == 0:
            yield f"|{'|'.join('-' * (width + 1) + (':' if index else '-') for index, width in enumerate(widths))}|"
