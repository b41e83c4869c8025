"""Metrics that cost a plain addition: ints that are read when somebody asks, by Prometheus or by OpenTelemetry."""

import asyncio
import bisect
from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any, NamedTuple, Self

from chappe.runtime.channels import split_address
from chappe.runtime.config import field_docs

_REQUEST_TIMEOUT_S = 5.0
_MAX_REQUEST_BYTES = 8 * 1024

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
"""The bounds of histograms of batches; none has more than 512 items."""
SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)
"""The bounds of histograms of durations."""

Reader = Callable[[], float]
TableReader = Callable[[], Mapping[str, float]]


class Counters:
    """A group of counts: subclasses declare int attributes with a docstring each, and code adds to them.

    Each becomes the metric <prefix>_<attribute>_total.
    """

    def __init__(self) -> None:
        for name in self.names():
            setattr(self, name, 0)

    @classmethod
    def names(cls) -> list[str]:
        """Returns the names of the counts, in the order of their declaration."""
        return [name for name, kind in cls.__annotations__.items() if kind in {int, "int"}]

    def values(self) -> dict[str, int]:
        """Returns every count by its name."""
        return {name: getattr(self, name) for name in self.names()}


class Histogram:
    """Counts values by size; an addition and a binary search each."""

    def __init__(self, bounds: Iterable[float]) -> None:
        """Makes an empty histogram whose buckets end at the given bounds."""
        self.bounds = sorted(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Counts one value."""
        self.counts[bisect.bisect_left(self.bounds, value)] += 1
        self.total += value

    def lines(self, name: str) -> list[str]:
        """Returns its samples in Prometheus' text format."""
        lines: list[str] = []
        seen = 0
        for bound, count in zip([*map(_number, self.bounds), "+Inf"], self.counts, strict=True):
            seen += count
            lines.append(f'{name}_bucket{{le="{bound}"}} {seen}')
        return [*lines, f"{name}_sum {_number(self.total)}", f"{name}_count {seen}"]


class FlushTimings:
    """Sizes and durations of the batches of one kind."""

    def __init__(self) -> None:
        self.items = Histogram(SIZES)
        self.seconds = Histogram(SECONDS)

    def observe(self, items: int, seconds: float) -> None:
        """Counts one batch."""
        self.items.observe(items)
        self.seconds.observe(seconds)


class Family(NamedTuple):
    """One metric."""

    name: str
    kind: str
    """counter or gauge."""
    doc: str
    label: str
    """The name of its label; empty when it has one value only."""
    read: TableReader
    """Returns its values by the value of the label."""


class Metrics:
    """Everything that a process counts, under one prefix."""

    def __init__(self, prefix: str) -> None:
        """Makes an empty registry whose metrics are called <prefix>_<name>."""
        self._prefix = prefix
        self._families: list[Family] = []
        self._histograms: list[tuple[str, str, Histogram]] = []
        self._meters: list[Any] = []

    def add(self, counters: Counters) -> None:
        """Adds every count of a group."""
        docs = field_docs(type(counters))  # type: ignore[arg-type]  # mypy takes the hash of its instances for that of a class
        for name in counters.names():
            self.counter(name, docs.get(name, name), _attribute(counters, name))

    def counter(self, name: str, doc: str, read: Reader) -> None:
        """Adds a number that only rises."""
        self._add(Family(f"{name}_total", "counter", doc, "", lambda: {"": read()}))

    def gauge(self, name: str, doc: str, read: Reader) -> None:
        """Adds a number that goes up and down."""
        self._add(Family(name, "gauge", doc, "", lambda: {"": read()}))

    def table(self, name: str, doc: str, label: str, read: TableReader) -> None:
        """Adds counts that are kept by the value of a label; the values must be few."""
        self._add(Family(f"{name}_total", "counter", doc, label, read))

    def histogram(self, name: str, doc: str, histogram: Histogram) -> None:
        """Adds a histogram."""
        name = f"{self._prefix}_{name}"
        self._histograms.append((name, doc, histogram))
        for meter in self._meters:
            _export_histogram(meter, name, doc, histogram)

    def flushes(self, name: str, what: str, timings: FlushTimings) -> None:
        """Adds the sizes and durations of batches; `what` names them in a few words, like "flushes of messages"."""
        self.histogram(f"{name}_batch_items", f"{what[0].upper()}{what[1:]}: how many items each had.", timings.items)
        self.histogram(f"{name}_batch_seconds", f"{what[0].upper()}{what[1:]}: how long each took.", timings.seconds)

    def render(self) -> str:
        """Returns everything in Prometheus' text format."""
        lines: list[str] = []
        for family in self._families:
            lines += [f"# HELP {family.name} {family.doc}", f"# TYPE {family.name} {family.kind}"]
            for value, count in family.read().items():
                label = f'{{{family.label}="{_escape(value)}"}}' if family.label else ""
                lines.append(f"{family.name}{label} {_number(count)}")
        for name, doc, histogram in self._histograms:
            lines += [f"# HELP {name} {doc}", f"# TYPE {name} histogram", *histogram.lines(name)]
        return "\n".join(lines) + "\n"

    def export(self, meter: Any) -> None:
        """Lets an OpenTelemetry meter read everything by observable callbacks; of histograms the sum and the count.

        What is added afterwards is read too: a process exports from its start, and its parts add theirs later.
        """
        self._meters.append(meter)
        for family in self._families:
            _export(meter, family)
        for name, doc, histogram in self._histograms:
            _export_histogram(meter, name, doc, histogram)

    def _add(self, family: Family) -> None:
        name = f"{self._prefix}_{family.name}"
        if any(known.name == name for known in self._families):
            raise ValueError(f"the metric {name} exists already: give one of the two another name")
        family = family._replace(name=name)
        self._families.append(family)
        for meter in self._meters:
            _export(meter, family)


class MetricsServer:
    """Answers GET /metrics and GET /healthz over HTTP; for scrapers and people inside the cluster."""

    def __init__(self, listen: str, metrics: Metrics, problems: Callable[[], Mapping[str, str]]) -> None:
        """Prepares to listen.

        Args:
            listen: "host:port"; port 0 takes a free one.
            metrics: What /metrics shows.
            problems: What is wrong, by name; /healthz says 503 and lists it while there is something.
        """
        self._listen = listen
        self._metrics = metrics
        self._problems = problems
        self._server: asyncio.Server | None = None
        self.address = ""

    async def __aenter__(self) -> Self:
        host, port = split_address(self._listen)
        self._server = await asyncio.start_server(self._serve, host, port, limit=_MAX_REQUEST_BYTES)
        bound = self._server.sockets[0].getsockname()
        self.address = f"{host}:{bound[1]}"
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        if self._server is not None:
            self._server.close()
            await self._server.wait_closed()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(_REQUEST_TIMEOUT_S):
                status, body = await self._answer(reader.readuntil(b"\r\n\r\n"))
                head = f"HTTP/1.1 {status}\r\nContent-Type: text/plain; version=0.0.4; charset=utf-8\r\n"
                head += f"Content-Length: {len(body)}\r\nConnection: close\r\n\r\n"
                writer.write(head.encode() + body)
                await writer.drain()
        except (TimeoutError, OSError):
            pass
        finally:
            writer.close()

    async def _answer(self, request: Awaitable[bytes]) -> tuple[str, bytes]:
        try:
            method, path = (await request).split(b" ", 2)[:2]
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError):
            return "400 Bad Request", b"send one HTTP request of at most 8 KiB\n"
        path = path.partition(b"?")[0]
        if method != b"GET":
            return "405 Method Not Allowed", b"only GET is answered here\n"
        if path == b"/metrics":
            return "200 OK", self._metrics.render().encode()
        if path == b"/healthz":
            problems = "".join(f"{name}: {text}\n" for name, text in self._problems().items())
            return ("503 Service Unavailable", problems.encode()) if problems else ("200 OK", b"ok\n")
        return "404 Not Found", b"there are /metrics and /healthz\n"


def _attribute(owner: object, name: str) -> Reader:
    return lambda: getattr(owner, name)


def _total(histogram: Histogram) -> Reader:
    return lambda: sum(histogram.counts)


def _single(read: Reader) -> TableReader:
    return lambda: {"": read()}


def _export(meter: Any, family: Family) -> None:
    make = meter.create_observable_counter if family.kind == "counter" else meter.create_observable_gauge
    make(family.name, callbacks=[_observe(family)], description=family.doc)


def _export_histogram(meter: Any, name: str, doc: str, histogram: Histogram) -> None:
    for suffix, read in (("_sum", _attribute(histogram, "total")), ("_count", _total(histogram))):
        _export(meter, Family(name + suffix, "counter", doc, "", _single(read)))


def _observe(family: Family) -> Callable[[Any], list[Any]]:
    # Only a process that exports pays for the import.
    from opentelemetry.metrics import Observation  # noqa: PLC0415 - 35 ms that most processes never need

    def observe(_: Any) -> list[Any]:
        # In a thread of the SDK, while the event loop counts on: a table is copied before it is gone through.
        counts = list(family.read().items())
        return [Observation(count, {family.label: value} if family.label else None) for value, count in counts]

    return observe


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else repr(float(value))
