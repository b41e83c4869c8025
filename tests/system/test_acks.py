"""Figures of acknowledgements, out of histories."""

from pathlib import Path

import pytest

from chappe.testing import HistoryWriter
from chappe.testing.history import Action
from tests.system.acks import Acks, quantile

CONV, PEER = b"c" * 16, b"p" * 16


class Written:
    """A history whose clock stands where the test puts it."""

    def __init__(self, path: Path) -> None:
        self.ms = 0
        self.writer = HistoryWriter(path, "a/1", clock_ns=lambda: self.ms * 1_000_000)

    def send(self, ms: int, name: bytes, draft: str = "") -> None:
        self.ms = ms
        self.writer.send(Action(name * 16, CONV, PEER, draft=draft), attempt=1)

    def stored(self, ms: int, name: bytes) -> None:
        self.ms = ms
        self.writer.stored(name * 16, ms)


@pytest.fixture
def written(tmp_path: Path) -> Written:
    return Written(tmp_path / "a.jsonl")


def read(written: Written, tmp_path: Path) -> Acks:
    written.writer.close()
    return Acks.read([tmp_path / "a.jsonl"])


def test_a_message_waits_from_its_first_sending_on(written: Written, tmp_path: Path) -> None:
    written.send(1000, b"1")
    written.send(1800, b"1")
    written.stored(2000, b"1")

    assert read(written, tmp_path).within(0, 5000).p99_s == 1.0


def test_a_message_with_a_new_id_is_still_the_same_one(written: Written, tmp_path: Path) -> None:
    written.send(1000, b"1", draft="7")
    written.send(3000, b"2", draft="7")
    written.stored(3500, b"2")

    figures = read(written, tmp_path).within(0, 5000)
    assert (figures.acknowledged, figures.p99_s) == (1, 2.5)


def test_the_longest_gap_counts_from_the_start_and_to_the_end(written: Written, tmp_path: Path) -> None:
    for ms, name in ((1000, b"1"), (2000, b"2"), (2500, b"3")):
        written.send(ms, name)
        written.stored(ms, name)
    acks = read(written, tmp_path)

    assert acks.within(1000, 2600).gap_s == 1.0
    assert acks.within(1000, 5000).gap_s == 2.5


def test_quantiles_are_values_that_were_seen() -> None:
    assert [quantile([3, 1, 2], share) for share in (0.5, 0.99)] == [2, 3]
    assert quantile([], 0.5) == 0
