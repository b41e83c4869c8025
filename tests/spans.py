"""Keeps in memory what a part traces."""

import time
from collections.abc import Callable
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from chappe.runtime.tracing import PREFIX, Sampled, Tracing

TRACE = "0af7651916cd43dd8448eb211c80319c"
TRACEPARENT = f"00-{TRACE}-b7ad6b7169203331-01"


class Spans:
    """Tracing that is on, and the spans that it has made."""

    def __init__(self, now_ns: Callable[[], int] = time.time_ns) -> None:
        self._exporter = InMemorySpanExporter()
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(SimpleSpanProcessor(self._exporter))
        self.tracing = Tracing(provider.get_tracer("test"), now_ns)

    @property
    def names(self) -> list[str]:
        """The names of the spans, in the order of their ends."""
        return [span.name for span in self._exporter.get_finished_spans()]

    def of(self, name: str) -> list[ReadableSpan]:
        """Returns the spans of a name."""
        return [span for span in self._exporter.get_finished_spans() if span.name == name]

    def said(self, name: str) -> dict[str, Any]:
        """Returns what the only span of a name says, without the prefix."""
        (span,) = self.of(name)
        return {key.removeprefix(PREFIX): value for key, value in (span.attributes or {}).items()}


def sampled(message_id: bytes, since_ns: int = 0) -> Sampled:
    """Returns a drawn message."""
    return Sampled(message_id, TRACEPARENT, since_ns)


def trace_of(span: ReadableSpan) -> str:
    """Returns the trace that a span belongs to."""
    assert span.context is not None
    return f"{span.context.trace_id:032x}"
