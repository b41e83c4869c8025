"""Traces for batches, and metrics by OTLP; nothing at all, and at no cost, unless an endpoint is configured.

A span for each message would cost more than the message. The edge draws lots for each message; one that is drawn
carries a W3C traceparent, and every process that handles a batch with drawn messages makes one span for the batch,
linked to their traces.
"""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any, NamedTuple

from chappe.runtime.clock import Randomness
from chappe.runtime.metrics import Metrics

if TYPE_CHECKING:
    from opentelemetry.trace import Link, Span, Tracer

_EXPORT_INTERVAL_MS = 10_000
_FLUSH_TIMEOUT_MS = 1_000
_PARTS = 4
_TRACE_DIGITS = 32
_SPAN_DIGITS = 16
_NO_SPAN: AbstractContextManager["Span | None"] = nullcontext()


class Resource(NamedTuple):
    """What the process is called where its telemetry goes."""

    service: str
    """Like svc_message."""
    peer_name: str
    version: str


class Telemetry:
    """What a process tells the outside about its work."""

    def __init__(self, randomness: Randomness, sample_ratio: float) -> None:
        """Makes telemetry that is off; `connect` turns it on."""
        self._randomness = randomness
        self._sample_ratio = sample_ratio
        self._providers: list[Any] = []
        self.tracer: Tracer | None = None

    @property
    def is_on(self) -> bool:
        """Whether traces and metrics go anywhere."""
        return self.tracer is not None

    def connect(self, endpoint: str, resource: Resource, metrics: Metrics) -> None:
        """Starts to send traces and metrics by OTLP over gRPC.

        Args:
            endpoint: Like "http://otel-collector:4317".
            resource: What the process is called.
            metrics: What is read and sent every 10 s.
        """
        # Only a process that exports pays for the import.
        from chappe.runtime.telemetry_export import to_endpoint  # noqa: PLC0415 - 0.4 s of CPU

        exporters = to_endpoint(endpoint, resource, _EXPORT_INTERVAL_MS)
        metrics.export(exporters.meter)
        self.attach(exporters.tracer, exporters)

    def attach(self, tracer: "Tracer", exporters: Any) -> None:
        """Uses a tracer; `exporters.shutdown(timeout_ms)` is called at the end."""
        self.tracer = tracer
        self._providers.append(exporters)

    def close(self) -> None:
        """Sends what waits, in bounded time; blocks, so call it in a thread."""
        self.tracer = None
        for provider in self._providers:
            provider.shutdown(_FLUSH_TIMEOUT_MS)

    def draw(self) -> str:
        """Draws lots for a new message; returns its traceparent when it is drawn, else an empty string."""
        if self.tracer is None or self._randomness.uniform(0.0, 1.0) >= self._sample_ratio:
            return ""
        return f"00-{self._randomness.token(16).hex()}-{self._randomness.token(8).hex()}-01"

    def trace_id(self) -> str:
        """Returns the trace of what runs now, 32 hexadecimal digits; empty outside of every trace."""
        if self.tracer is None:
            return ""
        from opentelemetry import trace  # noqa: PLC0415 - loaded long since, because there is a tracer

        context = trace.get_current_span().get_span_context()
        return f"{context.trace_id:032x}" if context.is_valid else ""

    def new_trace_id(self) -> str:
        """Returns the trace of what runs now, or a random name, so that a bug can always be found in the logs."""
        return self.trace_id() or self._randomness.token(16).hex()


def batch_span(
    tracer: "Tracer | None", name: str, traceparents: Sequence[str] = ()
) -> AbstractContextManager["Span | None"]:
    """Returns a span for a batch, linked to the traces of its drawn messages; nothing when none was drawn.

    Args:
        tracer: Telemetry's tracer, None when it is off.
        name: What is done to the batch, like "message.flush".
        traceparents: Of the drawn messages in the batch.
    """
    if not traceparents or tracer is None:
        return _NO_SPAN
    links = list(to_links(traceparents))
    return tracer.start_as_current_span(name, links=links) if links else _NO_SPAN


def to_links(traceparents: Iterable[str]) -> Iterable["Link"]:
    """Yields a link for every traceparent that can be read; others are passed over."""
    from opentelemetry.trace import Link, SpanContext, TraceFlags  # noqa: PLC0415 - loaded with the tracer

    for traceparent in traceparents:
        parts = traceparent.split("-")
        if len(parts) != _PARTS or (len(parts[1]), len(parts[2])) != (_TRACE_DIGITS, _SPAN_DIGITS):
            continue
        try:
            trace_id, span_id, flags = int(parts[1], 16), int(parts[2], 16), int(parts[3], 16)
        except ValueError:
            continue
        context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
        if context.is_valid:
            yield Link(context)
