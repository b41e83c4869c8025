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


def warn(moment_s: float, level: int = logging.WARNING) -> None:
    """Says something at a moment, always from this one place."""
    record = logging.getLogger("x").makeRecord("x", level, __file__, 1, "the store is away", (), None)
    record.created = moment_s
    logging.getLogger("x").handle(record)


def test_a_warning_is_repeated_after_ten_seconds_and_says_how_many_were_left_out(stream: io.StringIO) -> None:
    for moment_s in (100.0, 100.5, 109.9, 110.0, 121.0):
        warn(moment_s)

    assert [line.get("left_out", 0) for line in lines(stream)] == [0, 2, 0]


def test_a_clock_that_was_set_back_silences_no_warning(stream: io.StringIO) -> None:
    warn(100.0)
    warn(40.0)

    assert len(lines(stream)) == 2


def test_errors_and_warnings_of_other_places_are_always_written(stream: io.StringIO) -> None:
    for _ in range(2):
        warn(100.0, level=logging.ERROR)
        warn(100.0)
    logging.getLogger("x").warning("the store is away")

    assert [line["level"] for line in lines(stream)] == ["error", "warning", "error", "warning"]
