"""What a collector receives by OTLP of a service that is doing its work."""

import contextlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

import grpc.aio
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.metrics.v1 import metrics_pb2
from opentelemetry.proto.resource.v1 import resource_pb2
from opentelemetry.proto.trace.v1 import trace_pb2

import chappe
from chappe.runtime import channels
from chappe.runtime.app import App
from chappe.runtime.clock import system_seams
from chappe.runtime.config import ServerSettings
from chappe.runtime.metrics import FlushTimings
from chappe.runtime.pki import SpiffeId
from tests.runtime.probe import ALONE, FILE, SERVICE, Probe, add_probe, callable_of

ID = b"m" * 16


class Collector(trace_service_pb2_grpc.TraceServiceServicer, metrics_service_pb2_grpc.MetricsServiceServicer):
    """Keeps what is exported to it."""

    def __init__(self) -> None:
        self.endpoint = ""
        self.resources: list[resource_pb2.Resource] = []
        self.spans: list[trace_pb2.Span] = []
        self.metrics: dict[str, metrics_pb2.Metric] = {}

    # Both services call their only method so: the request tells which of the two is meant.
    async def Export(self, request: Any, context: Any) -> Any:
        if isinstance(request, trace_service_pb2.ExportTraceServiceRequest):
            for spans in request.resource_spans:
                self.resources.append(spans.resource)
                self.spans += [span for scope in spans.scope_spans for span in scope.spans]
            return trace_service_pb2.ExportTraceServiceResponse()
        for metrics in request.resource_metrics:
            self.resources.append(metrics.resource)
            self.metrics.update((one.name, one) for scope in metrics.scope_metrics for one in scope.metrics)
        return metrics_service_pb2.ExportMetricsServiceResponse()


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    server, collector = grpc.aio.server(options=ALONE), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(collector, server)
    collector.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    await server.start()
    yield collector
    await server.stop(None)


@contextlib.asynccontextmanager
async def exporting(collector: Collector) -> AsyncIterator[App]:
    """Serves a probe that traces what it is called with; whatever has not been exported is when it ends."""
    settings = ServerSettings(drain_s=5.0, peer_name="paint-7", otlp_endpoint=collector.endpoint)
    caller = SpiffeId(trust_domain="chappe.test", service="svc-edge")
    app = App("paint", settings, seams=system_seams(), identify=lambda _: caller)

    async def trace(request: Any, context: Any) -> Any:
        root = app.telemetry.tracing.begin("paint.call", ID)
        assert root is not None
        with app.telemetry.tracing.batch("paint.flush", [root.sampled], 3):
            app.telemetry.tracing.hop("paint.accept", root.sampled, verdict="stored")
        root.end(verdict="stored")
        return request

    async with app:
        app.add_door(add_probe, {"Edge": trace})
        await app.start()
        yield app


async def call(app: App, times: int) -> None:
    async with channels.channel(app.address, None, server_name="svc-paint", contracts=[FILE]) as channel:
        for _ in range(times):
            await callable_of(channel, "Edge")(Probe(value="hello"), timeout=30)


def said(attributes: Iterable[Any]) -> dict[str, str]:
    return {one.key: one.value.string_value for one in attributes}


async def test_the_spans_of_a_call_arrive_with_their_trace_and_what_they_say(collector: Collector) -> None:
    async with exporting(collector) as app:
        await call(app, 1)

    spans = {span.name: span for span in collector.spans}
    assert sorted(spans) == ["paint.accept", "paint.call", "paint.flush"]
    root, hop, batch = spans["paint.call"], spans["paint.accept"], spans["paint.flush"]
    assert (root.parent_span_id, hop.parent_span_id, hop.trace_id) == (b"", root.span_id, root.trace_id)
    assert [(link.trace_id, link.span_id) for link in batch.links] == [(root.trace_id, root.span_id)]
    assert said(hop.attributes) == {"chappe.message_id": ID.hex(), "chappe.verdict": "stored"}
    assert root.start_time_unix_nano <= hop.end_time_unix_nano <= root.end_time_unix_nano


def numbers(metric: metrics_pb2.Metric) -> dict[str, float]:
    """Returns what a metric counts, by the value of its label."""
    points = metric.sum.data_points or metric.gauge.data_points
    return {"".join(said(one.attributes).values()): one.as_double or one.as_int for one in points}


async def test_the_metrics_arrive_of_the_process_and_of_the_parts_that_were_built_later(collector: Collector) -> None:
    timings = FlushTimings()
    async with exporting(collector) as app:
        app.metrics.counter("doors", "Doors that were painted.", lambda: 4)
        app.metrics.gauge("pots", "Pots that stand open.", lambda: 1.5)
        app.metrics.flushes("drying", "batches of doors", timings)
        timings.observe(5, 0.25)
        await call(app, 3)

    arrived = {name.removeprefix("chappe_paint_"): numbers(metric) for name, metric in collector.metrics.items()}
    assert arrived["calls_total"] == {f"/{SERVICE}/Edge": 3}
    assert arrived["resident_peak_bytes"][""] > 0
    assert (arrived["doors_total"], arrived["pots"]) == ({"": 4}, {"": 1.5})
    assert (arrived["drying_batch_items_sum"], arrived["drying_batch_seconds_sum"]) == ({"": 5}, {"": 0.25})
    assert collector.metrics["chappe_paint_doors_total"].sum.is_monotonic


async def test_whatever_arrives_is_named_after_the_service_and_its_process(collector: Collector) -> None:
    async with exporting(collector) as app:
        await call(app, 1)

    assert collector.spans
    assert collector.metrics
    named = [said(resource.attributes) for resource in collector.resources]
    assert {one["service.name"] for one in named} == {"svc_paint"}
    assert {one["service.instance.id"] for one in named} == {"paint-7"}
    assert {one["service.version"] for one in named} == {chappe.__version__}
