"""What cannot be read is passed over and counted, and the log is not full of it."""

import struct

import pytest

from svc_message.adapters.unreadable import SILENCE_S, Unreadable
from tests.svc_message.fakes import ManualClock


def number(row: bytes) -> int:
    return int(struct.unpack("!h", row)[0])


def test_84_what_stands_beside_a_row_that_cannot_be_read_is_read() -> None:
    unreadable = Unreadable(ManualClock())

    assert unreadable.each(number, [b"\0\1", b"\0", b"\0\2", b""]) == [1, 2]

    assert unreadable.rows == 2


def test_84_something_may_stand_in_the_place_of_what_cannot_be_read() -> None:
    unreadable = Unreadable(ManualClock())

    assert unreadable.each(number, [b"\0\1", b"\0", b"\0\2"], len) == [1, 1, 2]


def test_84_the_log_says_so_once_in_a_minute(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    unreadable = Unreadable(clock)

    unreadable.each(number, [b""] * 1000)
    assert [record.getMessage() for record in caplog.records] == [
        "a row could not be read and was passed over, the 1. time: error: unpack requires a buffer of 2 bytes"
    ]
    clock.pass_s(SILENCE_S)
    unreadable.each(number, [b""])

    assert len(caplog.records) == 2
    assert "the 1001. time" in caplog.text
