"""The side of telemetry that needs the OpenTelemetry SDK; imported only by a process that exports."""

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource as OtelResource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON

from chappe.runtime.telemetry import Resource

_SCOPE = "chappe"
# A collector that does not answer must not hold up the end of a process.
_EXPORT_TIMEOUT_S = 1


class Exporters:
    """A tracer and a meter whose findings leave the process in the background.

    Every span is kept: lots were drawn before, for the messages, and a batch without a drawn message makes no span.
    """

    def __init__(self, spans: SpanExporter, reader: MetricReader, resource: Resource) -> None:
        """Starts to export to the given places."""
        named = OtelResource.create(
            {
                "service.name": resource.service,
                "service.instance.id": resource.peer_name,
                "service.version": resource.version,
            }
        )
        self._traces = TracerProvider(sampler=ALWAYS_ON, resource=named, shutdown_on_exit=False)
        self._traces.add_span_processor(BatchSpanProcessor(spans))
        self._metrics = MeterProvider([reader], resource=named, shutdown_on_exit=False)
        self.tracer = self._traces.get_tracer(_SCOPE)
        self.meter = self._metrics.get_meter(_SCOPE)

    def shutdown(self, timeout_ms: int) -> None:
        """Sends what waits; blocks for at most the timeout, for traces and for metrics each."""
        self._traces.force_flush(timeout_ms)
        self._traces.shutdown()
        self._metrics.shutdown(timeout_ms)


def to_endpoint(endpoint: str, resource: Resource, interval_ms: int) -> Exporters:
    """Starts to export by OTLP over gRPC, metrics at an interval."""
    reader = PeriodicExportingMetricReader(
        OTLPMetricExporter(endpoint=endpoint, timeout=_EXPORT_TIMEOUT_S), interval_ms
    )
    spans = OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_TIMEOUT_S)
    return Exporters(spans, reader, resource)
