"""Logs as JSON lines: one object for each record, whatever it contains."""

import json
import logging
import time
from collections.abc import Callable
from typing import Final, NamedTuple, TextIO

from chappe.runtime.config import LogLevel

REPEATED_AFTER_S: Final = 10.0
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


class Sparing(logging.Filter):
    """Lets a warning through once in ten seconds for each place in the code; the next one says how many were left out.

    While a store is away many loops try again, and say so each time: that is for metrics to count.
    """

    def __init__(self) -> None:
        """Makes a filter that has let nothing through."""
        super().__init__()
        self._told: dict[tuple[str, int], _Told] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Returns whether a record is written; errors always are."""
        if record.levelno != logging.WARNING:
            return True
        place = (record.pathname, record.lineno)
        told = self._told.get(place)
        # A clock that was set back silences nobody.
        if told is not None and 0 <= record.created - told.at_s < REPEATED_AFTER_S:
            self._told[place] = told._replace(left_out=told.left_out + 1)
            return False
        self._told[place] = _Told(record.created, 0)
        if told is not None and told.left_out:
            record.left_out = told.left_out
        return True


class _Told(NamedTuple):
    """When a warning was let through, and how many were left out since."""

    at_s: float
    left_out: int


def configure_logs(level: LogLevel, formatter: logging.Formatter, stream: TextIO) -> None:
    """Sends every record of the process to a stream, as the only destination."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(formatter)
    handler.addFilter(Sparing())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.name)
    # One line for each connection is too much at INFO.
    logging.getLogger("grpc").setLevel(max(logging.WARNING, root.level))
