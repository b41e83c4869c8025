"""The sums of the sizing in docs/operate.md, made from the figures that stand above them on the page.

Whoever plans a system of another size puts its own figures into the table and runs `python -m tests.sizing_page`.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

PAGE = Path(__file__).resolve().parent.parent / "docs" / "operate.md"
BEGIN, END = "<!-- written by python -m tests.sizing_page -->\n", "<!-- end of the sums -->\n"

_FIGURE = re.compile(r"^\| `(\w+)` \| \[?([\d,.]+)", re.MULTILINE)
_SECONDS_OF_A_DAY: Final = 86_400


class Sum(NamedTuple):
    """One line of the result."""

    name: str
    unit: str
    terms: str
    """Products of names and numbers, joined by " + "; "/" divides by what follows it."""


SUMS: Final = (
    Sum("edge_cores", "cores busy", "messages_per_s * edge_us / 1000000"),
    Sum("message_cores", "cores busy", "messages_per_s * message_us / 1000000"),
    Sum("fanout_cores", "cores busy", "messages_per_s * fanout_us / 1000000"),
    Sum("postgres_cores", "cores busy", "messages_per_s * postgres_us / 1000000"),
    Sum("driver_cores", "cores busy", "messages_per_s * driver_us / 1000000"),
    Sum("cassandra_cores", "cores busy", "messages_per_s * cassandra_us * replicas / 1000000"),
    Sum("registry_cores", "cores busy", "touches_per_s * touch_us / 1000000 + lookups_per_s * lookup_us / 1000000"),
    Sum(
        "valkey_cores",
        "cores busy",
        "touches_per_s * valkey_touch_us / 1000000 + lookups_per_s * valkey_lookup_us / 1000000",
    ),
    Sum(
        "service_cores",
        "cores busy",
        "edge_cores + message_cores + fanout_cores + driver_cores + registry_cores + valkey_cores",
    ),
    Sum("service_nodes", "nodes", "service_cores / usable_cores"),
    Sum("edge_processes", "processes", "connections / connections_per_edge"),
    Sum("edge_memory_tb", "TB", "connections * connection_kb / 1000000000"),
    Sum("cassandra_nodes_by_cpu", "nodes", "cassandra_cores / usable_cores"),
    Sum("postgres_tb_per_day", "TB", "messages_per_day * postgres_bytes / 1000000000000"),
    Sum("cassandra_tb_per_day", "TB", "messages_per_day * cassandra_bytes * replicas / 1000000000000"),
    Sum("cassandra_tb_kept", "TB", "cassandra_tb_per_day * retention_days"),
    Sum("cassandra_nodes_by_disk", "nodes", "cassandra_tb_kept / usable_tb"),
    Sum("cassandra_pb_per_year", "PB", "messages_per_year * cassandra_bytes * replicas / 1000000000000000"),
    Sum("network_gbit_per_s", "Gbit/s", "messages_per_s * network_bytes * 8 / 1000000000"),
    Sum("service_money", "$ a month", "service_nodes * node_cores * core_hour * 730"),
    Sum("cassandra_money", "$ a month", "cassandra_nodes_by_disk * storage_node_cores * core_hour * 730"),
    Sum("disk_money", "$ a month", "cassandra_tb_kept * 1000 * gb_month"),
    Sum("money", "$ a month", "service_money + cassandra_money + disk_money"),
)
"""Each may use the figures of the page and the sums before it."""


def figures(page: str) -> dict[str, float]:
    """Reads the figures that stand on the page, by name."""
    return {name: float(text.replace(",", "")) for name, text in _FIGURE.findall(page.partition(BEGIN)[0])}


def sums(given: Mapping[str, float]) -> dict[str, float]:
    """Returns every sum by its name; raises `KeyError` for a figure that the page lacks."""
    known = {**given, "messages_per_day": given["messages_per_year"] / 365}
    for one in SUMS:
        known[one.name] = sum(_product(term, known) for term in one.terms.split(" + "))
    return {one.name: known[one.name] for one in SUMS}


def _product(term: str, known: Mapping[str, float]) -> float:
    factors = re.split(r" (?=[*/] )", f"* {term}")
    return math.prod(
        value if sign == "*" else 1 / value
        for sign, name in (factor.split() for factor in factors)
        for value in [float(name) if name.isdigit() else known[name]]
    )


def table(page: str) -> str:
    """Returns the sums for the sustained load and for the peak, with how they are made."""
    given = figures(page)
    sustained, peak = sums(given), sums(given | {"messages_per_s": given["peak_messages_per_s"]})
    lines = ["| | sum | sustained | at the peak | |\n", "|---|---|---:|---:|---|\n"]
    for one in SUMS:
        pretty = one.terms.replace(" * ", " \N{MULTIPLICATION SIGN} ")
        pretty = re.sub(r"\d{4,}", lambda digits: f"{int(digits[0]):,}", pretty)
        lines.append(
            f"| `{one.name}` | {pretty} | {_told(sustained[one.name])} | {_told(peak[one.name])} | {one.unit} |\n"
        )
    return "".join(lines)


def _told(value: float) -> str:
    """Two figures are what such sums are good for."""
    if value <= 0:
        return "0"
    rounded = round(value, 1 - math.floor(math.log10(value)))
    return f"{rounded:,.0f}" if rounded >= 10 else f"{rounded:,.1f}"


if __name__ == "__main__":
    text = PAGE.read_text()
    head, _, rest = text.partition(BEGIN)
    PAGE.write_text(f"{head}{BEGIN}{table(text)}{END}{rest.partition(END)[2]}")
