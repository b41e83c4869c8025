"""Traces and metrics of a process; nothing at all, and at no cost, unless a place to send them to is configured.

Spans and metrics go by OTLP, spans also to a file: `chappe.runtime.tracing` says which spans there are.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from chappe.runtime.clock import Randomness
from chappe.runtime.metrics import Metrics
from chappe.runtime.tracing import Lots, Tracing

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

_EXPORT_INTERVAL_MS = 10_000
_FLUSH_TIMEOUT_MS = 1_000


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
        self.tracing = Tracing()
        """Makes spans, once there is somewhere for them to go."""

    @property
    def is_on(self) -> bool:
        """Whether traces go anywhere."""
        return self.tracing.is_on

    def connect(self, resource: Resource, metrics: Metrics, *, endpoint: str = "", file: Path | None = None) -> None:
        """Starts to send traces and metrics by OTLP over gRPC, and to write traces to a file, or one of the two.

        Args:
            resource: What the process is called.
            metrics: What is read and sent every 10 s.
            endpoint: Like "http://otel-collector:4317"; empty for nowhere.
            file: Where spans are appended as JSON lines; None for nowhere.
        """
        # Only a process that exports pays for the imports.
        from chappe.runtime.telemetry_sdk import Exporters  # noqa: PLC0415 - 60 ms of CPU

        exporters = Exporters(resource)
        if file is not None:
            from chappe.runtime.telemetry_file import JsonLines  # noqa: PLC0415 - loads the SDK too

            exporters.add_spans(JsonLines(file), JsonLines.DELAY_MS)
        if endpoint:
            from chappe.runtime.telemetry_otlp import metric_reader, span_exporter  # noqa: PLC0415 - 60 ms more

            exporters.add_spans(span_exporter(endpoint))
            metrics.export(exporters.meter(metric_reader(endpoint, _EXPORT_INTERVAL_MS)))
        self.attach(exporters.tracer, exporters)

    def attach(self, tracer: "Tracer", exporters: Any) -> None:
        """Uses a tracer; `exporters.shutdown(timeout_ms)` is called at the end."""
        self.tracing.tracer = tracer
        self._providers.append(exporters)

    def close(self) -> None:
        """Sends what waits, in bounded time; blocks, so call it in a thread."""
        self.tracing.tracer = None
        for provider in self._providers:
            provider.shutdown(_FLUSH_TIMEOUT_MS)

    def lots(self) -> Lots:
        """Returns lots for the messages that enter here; none is drawn while traces go nowhere."""
        return Lots(self._randomness, self._sample_ratio if self.is_on else 0.0)

    def trace_id(self) -> str:
        """Returns the trace of what runs now, 32 hexadecimal digits; empty outside of every trace."""
        if not self.is_on:
            return ""
        from opentelemetry import trace  # noqa: PLC0415 - loaded long since, because there is a tracer

        context = trace.get_current_span().get_span_context()
        return f"{context.trace_id:032x}" if context.is_valid else ""

    def new_trace_id(self) -> str:
        """Returns the trace of what runs now, or a random name, so that a bug can always be found in the logs."""
        return self.trace_id() or self._randomness.token(16).hex()
