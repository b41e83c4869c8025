import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
from opentelemetry.metrics import Observation
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from chappe.runtime.metrics import Counters, FlushTimings, Histogram, Metrics, MetricsServer


class PaintCounters(Counters):
    """What was painted."""

    walls: int
    """Walls that were painted."""
    doors: int
    """Doors that were painted."""


@pytest.fixture
def counters() -> PaintCounters:
    return PaintCounters()


@pytest.fixture
def metrics(counters: PaintCounters) -> Metrics:
    made = Metrics("chappe_paint")
    made.add(counters)
    made.gauge("pots", "Pots that stand open.", lambda: 1.5)
    made.table("refusals", "Refused, by reason.", "reason", lambda: {"DRY": 2, 'a"b\\c\n': 1})
    return made


def test_counts_begin_at_zero_and_are_plain_ints(counters: PaintCounters) -> None:
    counters.walls += 2

    assert counters.values() == {"walls": 2, "doors": 0}


def test_prometheus_reads_what_was_counted(metrics: Metrics, counters: PaintCounters) -> None:
    counters.walls += 3

    lines = metrics.render().splitlines()

    assert "# HELP chappe_paint_walls_total Walls that were painted." in lines
    assert "# TYPE chappe_paint_walls_total counter" in lines
    assert "chappe_paint_walls_total 3" in lines
    assert "chappe_paint_pots 1.5" in lines
    assert 'chappe_paint_refusals_total{reason="DRY"} 2' in lines
    assert 'chappe_paint_refusals_total{reason="a\\"b\\\\c\\n"} 1' in lines


def test_a_histogram_counts_by_size(metrics: Metrics) -> None:
    histogram = Histogram([0.1, 1])
    metrics.histogram("drying_seconds", "How long it took.", histogram)

    for value in (0.05, 0.1, 0.5, 7):
        histogram.observe(value)

    assert metrics.render().splitlines()[-5:] == [
        'chappe_paint_drying_seconds_bucket{le="0.1"} 2',
        'chappe_paint_drying_seconds_bucket{le="1"} 3',
        'chappe_paint_drying_seconds_bucket{le="+Inf"} 4',
        "chappe_paint_drying_seconds_sum 7.65",
        "chappe_paint_drying_seconds_count 4",
    ]


def test_a_name_is_given_once(metrics: Metrics) -> None:
    with pytest.raises(ValueError, match="chappe_paint_pots exists already"):
        metrics.gauge("pots", "Again.", lambda: 0)


def test_opentelemetry_reads_the_same_numbers(metrics: Metrics, counters: PaintCounters) -> None:
    histogram = Histogram([1])
    metrics.histogram("drying_seconds", "How long it took.", histogram)
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader])
    metrics.export(provider.get_meter("test"))
    counters.doors += 4
    histogram.observe(2.5)

    data = reader.get_metrics_data()

    assert data is not None
    found = {
        (metric.name, *(str(value) for value in (point.attributes or {}).values())): getattr(point, "value", None)
        for scope in data.resource_metrics[0].scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }
    provider.shutdown()
    assert found["chappe_paint_doors_total",] == 4
    assert found["chappe_paint_pots",] == 1.5
    assert found["chappe_paint_refusals_total", "DRY"] == 2
    assert found["chappe_paint_drying_seconds_sum",] == 2.5


def test_a_value_of_a_label_that_is_new_while_opentelemetry_reads_keeps_nothing_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    refusals, reader, metrics = {"DRY": 2}, InMemoryMetricReader(), Metrics("chappe_paint")
    metrics.table("refusals", "Refused, by reason.", "reason", lambda: refusals)
    provider = MeterProvider([reader])

    def refuse_meanwhile(*said: Any) -> Observation:
        refusals["WET"] = 1
        return Observation(*said)

    # It reads in a thread of its own, and the event loop counts on.
    monkeypatch.setattr("opentelemetry.metrics.Observation", refuse_meanwhile)
    metrics.export(provider.get_meter("test"))
    data = reader.get_metrics_data()

    provider.shutdown()
    assert data is not None
    (metric,) = data.resource_metrics[0].scope_metrics[0].metrics
    assert [getattr(point, "value", None) for point in metric.data.data_points] == [2]


class Endpoint:
    def __init__(self, server: MetricsServer, problems: dict[str, str]) -> None:
        self.server = server
        self.problems = problems

    async def send(self, request: bytes) -> str:
        host, port = self.server.address.split(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(request)
        writer.write_eof()
        answer = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        return answer.decode()


@pytest.fixture
async def endpoint(metrics: Metrics) -> AsyncIterator[Endpoint]:
    problems: dict[str, str] = {}
    async with MetricsServer("127.0.0.1:0", metrics, lambda: problems) as server:
        yield Endpoint(server, problems)


async def test_metrics_are_served_over_http(endpoint: Endpoint) -> None:
    answer = await endpoint.send(b"GET /metrics?x=1 HTTP/1.1\r\nHost: x\r\n\r\n")

    assert answer.startswith("HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4")
    assert "chappe_paint_walls_total 0" in answer


async def test_health_is_ok_while_nothing_is_wrong(endpoint: Endpoint) -> None:
    assert (await endpoint.send(b"GET /healthz HTTP/1.1\r\n\r\n")).endswith("\r\n\r\nok\n")


async def test_health_lists_what_is_wrong(endpoint: Endpoint) -> None:
    endpoint.problems["store"] = "postgres: gone"

    answer = await endpoint.send(b"GET /healthz HTTP/1.1\r\n\r\n")

    assert answer.startswith("HTTP/1.1 503")
    assert answer.endswith("store: postgres: gone\n")


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"GET /etc/passwd HTTP/1.1\r\n\r\n", "404"),
        (b"POST /metrics HTTP/1.1\r\n\r\n", "405"),
        (b"GET\r\n\r\n", "400"),
        (b"GET /metrics HTT", "400"),
        (b"GET /" + b"x" * 20_000 + b" HTTP/1.1\r\n\r\n", "400"),
    ],
    ids=["path", "method", "no path", "cut off", "too long"],
)
async def test_anything_else_is_refused(endpoint: Endpoint, request_bytes: bytes, status: str) -> None:
    assert (await endpoint.send(request_bytes)).startswith(f"HTTP/1.1 {status}")


def test_batches_are_counted_by_size_and_duration(metrics: Metrics) -> None:
    timings = FlushTimings()
    metrics.flushes("coat", "coats of paint", timings)

    timings.observe(3, 0.02)

    lines = metrics.render().splitlines()
    assert "# HELP chappe_paint_coat_batch_items Coats of paint: how many items each had." in lines
    assert 'chappe_paint_coat_batch_items_bucket{le="2"} 0' in lines
    assert 'chappe_paint_coat_batch_items_bucket{le="4"} 1' in lines
    assert "chappe_paint_coat_batch_seconds_sum 0.02" in lines
