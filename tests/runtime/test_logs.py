import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from chappe.runtime.config import LogLevel, Secret
from chappe.runtime.logs import JsonFormatter, configure_logs


@pytest.fixture
def stream() -> Iterator[io.StringIO]:
    root = logging.getLogger()
    before, level = root.handlers[:], root.level
    grpc_level = logging.getLogger("grpc").level
    written = io.StringIO()
    configure_logs(LogLevel.INFO, JsonFormatter("paint", "paint-0", lambda: ""), written)
    yield written
    root.handlers[:], root.level = before, level
    root.setLevel(level)
    logging.getLogger("grpc").setLevel(grpc_level)


def lines(stream: io.StringIO) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


def test_a_record_is_one_line_of_json(stream: io.StringIO) -> None:
    logging.getLogger("svc_paint.rpc").warning("two\nlines of %s", "Zoë")

    (line,) = lines(stream)

    assert line["message"] == "two\nlines of Zoë"
    assert (line["level"], line["service"], line["peer"], line["logger"]) == (
        "warning",
        "paint",
        "paint-0",
        "svc_paint.rpc",
    )
    assert line["time"].endswith("Z")


def test_what_is_handed_in_is_shown_and_secrets_are_masked(stream: io.StringIO) -> None:
    logging.getLogger("x").error("no store", extra={"trace_id": "ab", "url": Secret("canary")})

    assert lines(stream)[0]["trace_id"] == "ab"
    assert lines(stream)[0]["url"] == "Secret(***)"
    assert "canary" not in stream.getvalue()


def test_a_traceback_stays_on_its_line(stream: io.StringIO) -> None:
    logging.getLogger("x").error("a bug", exc_info=ValueError("oops"))

    assert lines(stream)[0]["error"].endswith("ValueError: oops")


def test_records_below_the_level_are_not_written(stream: io.StringIO) -> None:
    logging.getLogger("x").debug("nothing")
    logging.getLogger("grpc").info("connected")

    assert not lines(stream)


def test_the_current_trace_is_named() -> None:
    formatter = JsonFormatter("paint", "paint-0", lambda: "cd" * 16)
    record = logging.makeLogRecord({"msg": "hello", "levelname": "INFO"})

    assert json.loads(formatter.format(record))["trace_id"] == "cd" * 16
