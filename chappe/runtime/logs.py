"""Logs as JSON lines: one object for each record, whatever it contains."""

import json
import logging
import time
from collections.abc import Callable
from typing import TextIO

from chappe.runtime.config import LogLevel

# What every record has by itself; anything else was handed in as `extra` and is shown.
_OWN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName"}


class JsonFormatter(logging.Formatter):
    """Writes a record as one line of JSON."""

    def __init__(self, service: str, peer_name: str, trace_id: Callable[[], str]) -> None:
        """Makes a formatter.

        Args:
            service: The name of the service, like "message".
            peer_name: The name of the process for people.
            trace_id: Returns the trace that the record belongs to, empty for none.
        """
        super().__init__()
        self._service = service
        self._peer_name = peer_name
        self._trace_id = trace_id

    def format(self, record: logging.LogRecord) -> str:
        """Returns the line; line breaks in a message are escaped, a Secret is masked by itself."""
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "time": f"{moment}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "service": self._service,
            "peer": self._peer_name,
            "logger": record.name,
            "message": record.getMessage(),
        }
        extra = {name: value for name, value in record.__dict__.items() if name not in _OWN}
        if "trace_id" not in extra and (trace_id := self._trace_id()):
            line["trace_id"] = trace_id
        if record.exc_info:
            extra["error"] = self.formatException(record.exc_info)
        return json.dumps(line | extra, default=str, ensure_ascii=False)


def configure_logs(level: LogLevel, formatter: logging.Formatter, stream: TextIO) -> None:
    """Sends every record of the process to a stream, as the only destination."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.name)
    # One line for each connection is too much at INFO.
    logging.getLogger("grpc").setLevel(max(logging.WARNING, root.level))
