import subprocess
import sys
import threading
import time
import timeit
from collections.abc import Iterator
from contextlib import nullcontext

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chappe.runtime.clock import SystemRandomness
from chappe.runtime.metrics import Metrics
from chappe.runtime.telemetry import Resource, Telemetry, batch_span, to_links
from chappe.runtime.telemetry_export import Exporters

PAINT = Resource("svc_paint", "paint-0", "1.2.3")
TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def telemetry(spans: InMemorySpanExporter) -> Iterator[Telemetry]:
    made = Telemetry(SystemRandomness(), 1.0)
    exporters = Exporters(spans, InMemoryMetricReader(), PAINT)
    made.attach(exporters.tracer, exporters)
    yield made
    made.close()


def test_a_batch_with_a_drawn_message_is_linked_to_its_trace(telemetry: Telemetry, spans: InMemorySpanExporter) -> None:
    with batch_span(telemetry.tracer, "message.flush", [TRACEPARENT]):
        inside = telemetry.trace_id()
    telemetry.close()

    (span,) = spans.get_finished_spans()
    assert span.name == "message.flush"
    assert f"{span.links[0].context.trace_id:032x}" == TRACE
    assert f"{span.context.trace_id:032x}" == inside
    assert span.resource.attributes["service.name"] == "svc_paint"


@pytest.mark.parametrize("traceparents", [[], ["rubbish"], ["00-x-y-01"], [f"00-{'0' * 32}-{'0' * 16}-01"]])
def test_a_batch_without_a_drawn_message_makes_no_span(
    telemetry: Telemetry, spans: InMemorySpanExporter, traceparents: list[str]
) -> None:
    with batch_span(telemetry.tracer, "message.flush", traceparents) as span:
        assert span is None
    telemetry.close()

    assert not spans.get_finished_spans()


def test_unreadable_traceparents_are_passed_over() -> None:
    links = list(to_links(["", f"00-{'z' * 32}-{'z' * 16}-01", TRACEPARENT]))

    assert len(links) == 1


@pytest.mark.skipif(sys.gettrace() is not None, reason="a tracer makes everything slow")
def test_a_batch_costs_next_to_nothing_without_telemetry() -> None:
    def batch() -> None:
        with batch_span(None, "message.flush"):
            pass

    def nothing() -> None:
        with nullcontext():
            pass

    cost_s = min(timeit.repeat(batch, number=1000, repeat=20)) - min(timeit.repeat(nothing, number=1000, repeat=20))

    assert cost_s / 1000 < 1e-6, "expected below 0.2 µs on an idle machine"


def test_lots_fall_by_the_ratio(telemetry: Telemetry) -> None:
    assert len(list(to_links([telemetry.draw()]))) == 1
    assert not Telemetry(SystemRandomness(), 1.0).draw()
    telemetry._sample_ratio = 0.0
    assert not telemetry.draw()


def test_a_bug_can_be_found_without_telemetry() -> None:
    off = Telemetry(SystemRandomness(), 1.0)

    assert off.trace_id() == ""
    assert len(off.new_trace_id()) == 32
    assert not off.is_on


def test_an_endpoint_that_is_not_there_does_not_hold_up_the_end() -> None:
    telemetry = Telemetry(SystemRandomness(), 1.0)
    telemetry.connect("http://127.0.0.1:1", PAINT, Metrics("chappe_paint"))
    with batch_span(telemetry.tracer, "message.flush", [TRACEPARENT]):
        pass
    started = time.monotonic()

    telemetry.close()

    assert time.monotonic() - started < 10
    assert threading.active_count() < 20


def test_a_process_that_does_not_export_never_loads_the_sdk() -> None:
    code = "import sys, chappe.runtime.process; print([m for m in sys.modules if m.startswith('opentelemetry')])"

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed.strip() == "[]"
