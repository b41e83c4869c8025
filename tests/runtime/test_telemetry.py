import json
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chappe.runtime.clock import SystemRandomness
from chappe.runtime.metrics import Metrics
from chappe.runtime.telemetry import Resource, Telemetry
from chappe.runtime.telemetry_file import JsonLines
from chappe.runtime.telemetry_sdk import Exporters
from tests.spans import TRACE, TRACEPARENT, sampled

PAINT = Resource("svc_paint", "paint-0", "1.2.3")
ID = b"m" * 16


@pytest.fixture
def spans() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def telemetry(spans: InMemorySpanExporter) -> Iterator[Telemetry]:
    made = Telemetry(SystemRandomness(), 1.0)
    exporters = Exporters(PAINT)
    exporters.add_spans(spans)
    exporters.meter(InMemoryMetricReader())
    made.attach(exporters.tracer, exporters)
    yield made
    made.close()


def test_what_waits_is_sent_at_the_end(telemetry: Telemetry, spans: InMemorySpanExporter) -> None:
    with telemetry.tracing.batch("message.flush", [sampled(ID)], 1):
        inside = telemetry.trace_id()
    telemetry.close()

    (span,) = spans.get_finished_spans()
    assert span.name == "message.flush"
    assert span.context is not None
    assert f"{span.context.trace_id:032x}" == inside
    assert span.resource.attributes["service.name"] == "svc_paint"
    assert telemetry.trace_id() == ""


def test_lots_are_drawn_only_while_traces_go_somewhere(telemetry: Telemetry) -> None:
    assert telemetry.lots().after(0) == 1
    assert Telemetry(SystemRandomness(), 1.0).lots().after(0) == 0


def test_a_bug_can_be_found_without_telemetry() -> None:
    off = Telemetry(SystemRandomness(), 1.0)

    assert off.trace_id() == ""
    assert len(off.new_trace_id()) == 32
    assert not off.is_on


def test_an_endpoint_that_is_not_there_does_not_hold_up_the_end() -> None:
    telemetry = Telemetry(SystemRandomness(), 1.0)
    telemetry.connect(PAINT, Metrics("chappe_paint"), endpoint="http://127.0.0.1:1")
    telemetry.tracing.hop("message.accept", sampled(ID))
    started = time.monotonic()

    telemetry.close()

    assert time.monotonic() - started < 10
    assert threading.active_count() < 20


class SilentCollector(SpanExporter):
    """Takes a connection and spans, and answers nothing; a caller waits until it gives up."""

    def __init__(self) -> None:
        self._given_up = threading.Event()
        self.waits: list[bool] = []

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        self.waits.append(self._given_up.wait(5))
        return SpanExportResult.FAILURE

    def shutdown(self) -> None:
        self._given_up.set()


def test_a_collector_that_does_not_answer_holds_up_the_end_for_the_timeout_only() -> None:
    exporters, collector = Exporters(PAINT), SilentCollector()
    exporters.add_spans(collector)
    telemetry = Telemetry(SystemRandomness(), 1.0)
    telemetry.attach(exporters.tracer, exporters)
    telemetry.tracing.hop("message.accept", sampled(ID))

    exporters.shutdown(10)

    # It ended because it was told to give up, not because its own time was over.
    assert collector.waits == [True]


def test_a_process_that_does_not_export_never_loads_the_sdk() -> None:
    code = "import sys, chappe.runtime.process; print([m for m in sys.modules if m.startswith('opentelemetry')])"

    printed = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout

    assert printed.strip() == "[]"


def written(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_file_holds_every_span_as_one_object_on_one_line(tmp_path: Path) -> None:
    path = tmp_path / "traces" / "paint-0.jsonl"
    telemetry = Telemetry(SystemRandomness(), 1.0)
    telemetry.connect(PAINT, Metrics("chappe_paint"), file=path)
    telemetry.tracing.hop("ledger.accept", sampled(ID, since_ns=7), verdict="stored")
    with telemetry.tracing.batch("ledger.flush", [sampled(ID)], 3):
        pass
    telemetry.close()

    hop, batch = written(path)
    assert (hop["service"], hop["peer"], hop["name"]) == ("svc_paint", "paint-0", "ledger.accept")
    assert (hop["trace"], hop["parent"], hop["start_ns"]) == (TRACE, TRACEPARENT.split("-")[2], 7)
    assert hop["attributes"] == {"chappe.message_id": ID.hex(), "chappe.verdict": "stored"}
    assert (batch["parent"], batch["links"]) == ("", [{"trace": TRACE, "span": TRACEPARENT.split("-")[2]}])
    assert batch["end_ns"] > batch["start_ns"] > time.time_ns() - 60_000_000_000


def test_a_file_of_spans_needs_neither_metrics_nor_a_protocol(tmp_path: Path) -> None:
    code = (
        "import sys; from pathlib import Path\n"
        "from chappe.runtime.clock import SystemRandomness\n"
        "from chappe.runtime.metrics import Metrics\n"
        "from chappe.runtime.telemetry import Resource, Telemetry\n"
        "telemetry = Telemetry(SystemRandomness(), 1.0)\n"
        "telemetry.connect(Resource('svc_paint', 'p', '1'), Metrics('paint'), file=Path(sys.argv[1]))\n"
        "telemetry.close()\n"
        "print([m for m in sys.modules if m.startswith(('opentelemetry.exporter', 'opentelemetry.sdk.metrics'))])"
    )

    printed = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "x")], capture_output=True, text=True, check=True
    )

    assert printed.stdout.strip() == "[]"


def test_a_file_that_has_grown_makes_place_for_a_new_one_and_only_the_last_is_kept(
    tmp_path: Path, spans: InMemorySpanExporter, telemetry: Telemetry
) -> None:
    for number in range(3):
        telemetry.tracing.hop("ledger.accept", sampled(bytes([number]) * 16))
    telemetry.close()
    sink = JsonLines(tmp_path / "spans.jsonl", max_bytes=10)

    for span in spans.get_finished_spans():
        sink.export([span])

    files = {path.name: written(path) for path in tmp_path.iterdir()}
    ids = {name: [line["attributes"]["chappe.message_id"][:2] for line in lines] for name, lines in files.items()}
    assert ids == {"spans.jsonl": ["02"], "spans.jsonl.1": ["01"]}


def test_a_file_that_cannot_be_written_loses_spans_and_says_so_once(
    tmp_path: Path, spans: InMemorySpanExporter, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    telemetry.tracing.hop("ledger.accept", sampled(ID))
    telemetry.close()
    (tmp_path / "folder").mkdir()
    sink = JsonLines(tmp_path / "folder")

    outcomes = {sink.export(spans.get_finished_spans()).name for _ in range(3)}

    assert outcomes == {"FAILURE"}
    assert [record.message.startswith("spans are lost") for record in caplog.records] == [True]
    assert sink.force_flush()
