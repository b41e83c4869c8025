"""The side of telemetry that needs the OpenTelemetry SDK; imported only by a process that exports."""

import threading
from typing import TYPE_CHECKING, Any

from opentelemetry.sdk.resources import Resource as OtelResource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from chappe.runtime.telemetry import Resource

if TYPE_CHECKING:
    from opentelemetry.metrics import Meter
    from opentelemetry.sdk.metrics.export import MetricReader

_SCOPE = "chappe"
_DELAY_MS = 5_000


class Exporters:
    """A tracer and a meter whose findings leave the process in the background.

    Every span is kept: lots were drawn before, for the messages, and a batch without a drawn message makes no span.
    """

    def __init__(self, resource: Resource) -> None:
        """Prepares; nothing goes anywhere before `add_spans` and `meter`."""
        self._resource = OtelResource.create(
            {
                "service.name": resource.service,
                "service.instance.id": resource.peer_name,
                "service.version": resource.version,
            }
        )
        self._traces = TracerProvider(sampler=ALWAYS_ON, resource=self._resource, shutdown_on_exit=False)
        self._spans: list[SpanExporter] = []
        self._metrics: list[Any] = []
        self.tracer = self._traces.get_tracer(_SCOPE)

    def add_spans(self, exporter: SpanExporter, delay_ms: int = _DELAY_MS) -> None:
        """Sends every span there too, in batches, after at most a delay."""
        self._spans.append(exporter)
        self._traces.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=delay_ms))

    def meter(self, reader: "MetricReader") -> "Meter":
        """Returns a meter whose instruments are read by the reader."""
        from opentelemetry.sdk.metrics import MeterProvider  # noqa: PLC0415 - 25 ms that a file of spans does not need

        provider = MeterProvider([reader], resource=self._resource, shutdown_on_exit=False)
        self._metrics.append(provider)
        return provider.get_meter(_SCOPE)

    def shutdown(self, timeout_ms: int) -> None:
        """Sends what waits; blocks for at most the timeout, for traces and for metrics each, and a moment to give up.

        What a collector has not taken by then is lost.
        """
        # The SDK waits half a minute for a collector that is silent, and cannot be told otherwise.
        last = threading.Thread(target=self._traces.shutdown, name="last spans", daemon=True)
        last.start()
        last.join(timeout_ms / 1000)
        if last.is_alive():
            # Whoever still sends gives up, so that no thread is in a call when the interpreter ends.
            for exporter in self._spans:
                exporter.shutdown()
            last.join(timeout_ms / 1000)
        for provider in self._metrics:
            provider.shutdown(timeout_ms)
