"""Spans as JSON lines in a file: the sink of a development system, which `chappe trace` reads."""

import json
import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext

MAX_BYTES: Final = 8 * 1024 * 1024
"""A file that has grown beyond this becomes `<name>.1`, in the place of the one before it."""

_log = logging.getLogger(__name__)


class JsonLines(SpanExporter):
    """Appends every span as one object on one line; keeps the present file and the one before it."""

    DELAY_MS: Final = 200
    """After so long a span is in the file, so that whoever has just sent a message finds it."""

    def __init__(self, path: Path, max_bytes: int = MAX_BYTES) -> None:
        """Prepares; the folder is made now, the file with the first span."""
        self._path = path
        self._max_bytes = max_bytes
        self._has_failed = False
        path.parent.mkdir(parents=True, exist_ok=True)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Appends spans with one write."""
        lines = "".join([f"{json.dumps(to_object(span), separators=(',', ':'))}\n" for span in spans])
        try:
            if self._path.exists() and self._path.stat().st_size >= self._max_bytes:
                self._path.replace(self._path.with_name(f"{self._path.name}.1"))
            with self._path.open("a", encoding="utf-8") as file:
                file.write(lines)
        except OSError as error:
            if not self._has_failed:
                _log.warning("spans are lost: %s", error)
            self._has_failed = True
            return SpanExportResult.FAILURE
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        """Needs nothing: the file is closed after every write."""

    def force_flush(self, timeout_millis: int = 0) -> bool:  # noqa: ARG002 - the SDK names it
        """Says that nothing waits here."""
        return True


def to_object(span: ReadableSpan) -> dict[str, Any]:
    """Returns a span as an object: who made it, what it is part of, from when to when, and what it says."""
    about = span.resource.attributes
    parent = span.parent
    return {
        "service": about.get("service.name", ""),
        "peer": about.get("service.instance.id", ""),
        "name": span.name,
        **_ids(span.context),
        "parent": "" if parent is None else f"{parent.span_id:016x}",
        "start_ns": span.start_time,
        "end_ns": span.end_time,
        "attributes": dict(span.attributes or {}),
        "links": [_ids(link.context) for link in span.links],
    }


def _ids(context: SpanContext | None) -> dict[str, str]:
    if context is None:
        return {"trace": "", "span": ""}
    return {"trace": f"{context.trace_id:032x}", "span": f"{context.span_id:016x}"}
