"""Where telemetry goes by OTLP over gRPC; imported only by a process that has such an endpoint."""

from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics.export import MetricReader, PeriodicExportingMetricReader
from opentelemetry.sdk.trace.export import SpanExporter

# A collector that does not answer must not hold up the end of a process.
_EXPORT_TIMEOUT_S = 1


def span_exporter(endpoint: str) -> SpanExporter:
    """Returns what sends spans."""
    return OTLPSpanExporter(endpoint=endpoint, timeout=_EXPORT_TIMEOUT_S)


def metric_reader(endpoint: str, interval_ms: int) -> MetricReader:
    """Returns what reads metrics and sends them, at an interval."""
    exporter = OTLPMetricExporter(endpoint=endpoint, timeout=_EXPORT_TIMEOUT_S)
    return PeriodicExportingMetricReader(exporter, interval_ms)
