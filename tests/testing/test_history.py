"""Histories survive kills, clocks that are set back, and being read together."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chappe.testing import (
    Action,
    Event,
    HistoryError,
    HistoryWriter,
    actor_of,
    check,
    history,
    read_batches,
    read_history,
)

ALICE, BOB, CONV = (bytes([n]) * 16 for n in (1, 2, 3))
MESSAGE = bytes.fromhex("0197000000007001800000000000000a")
HERE = actor_of(ALICE, 1)


def ticking(start_us: int = 5_000_001) -> Callable[[], int]:
    now = [start_us]

    def clock_ns() -> int:
        now[0] += 1
        return now[0] * 1000

    return clock_ns


def write(path: Path, *times: float, actor: str = HERE) -> Path:
    path.write_text("".join(json.dumps({"t": t, "actor": actor, "op": "disconnect"}) + "\n" for t in times))
    return path


def times_of(*paths: Path) -> list[float]:
    return [line["t"] for line in read_history(paths)]


def test_every_line_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "alice.jsonl"
    with HistoryWriter(path, HERE, clock_ns=ticking()) as writer:
        writer.note("device", device=HERE)
        writer.send(Action(MESSAGE, CONV, BOB, draft='a "draft"'), attempt=2)
        writer.stored(MESSAGE, 7, is_duplicate=True)
        writer.refused(MESSAGE, 'say "no"', is_final=False)
        writer.apply(Event(MESSAGE, CONV, BOB, MESSAGE, 9, "edit"), "sync")
        writer.ack([MESSAGE, BOB])
        writer.read(CONV, [MESSAGE])
        writer.read_upto(CONV, MESSAGE)
        writer.tick(MESSAGE, "read", BOB)
        writer.note("end", absent=[], ticks=False)
        writer.note("disconnect")

    id_, conv, bob = MESSAGE.hex(), CONV.hex(), BOB.hex()
    expected: list[dict[str, object]] = [
        {"op": "device", "device": HERE},
        {"op": "send", "id": id_, "conv": conv, "to": bob, "kind": "message", "attempt": 2, "draft": 'a "draft"'},
        {"op": "stored", "id": id_, "accepted_ms": 7, "duplicate": True},
        {"op": "refused", "id": id_, "reason": 'say "no"', "final": False},
        {"op": "apply", "id": id_, "conv": conv, "sender": bob, "ms": 9, "pos": id_, "kind": "edit", "how": "sync"},
        {"op": "ack", "ids": [id_, bob]},
        {"op": "read", "conv": conv, "ids": [id_]},
        {"op": "read", "conv": conv, "upto": id_},
        {"op": "tick", "id": id_, "state": "read", "by": bob},
        {"op": "end", "absent": [], "ticks": False},
        {"op": "disconnect"},
    ]
    timed = [{"t": 5000.0 + (number + 2) / 1000, "actor": HERE, **line} for number, line in enumerate(expected)]
    assert [{**line, "t": round(line["t"], 3)} for line in read_history([path])] == timed


def test_lines_reach_the_file_every_so_many_and_on_flush(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    writer = HistoryWriter(path, HERE, flush_lines=2)
    sizes = []
    for _ in range(3):
        writer.note("disconnect")
        sizes.append(path.read_bytes().count(b"\n"))

    writer.flush()

    assert sizes == [0, 2, 2]
    assert path.read_bytes().count(b"\n") == 3
    writer.close()
    writer.close()


def test_time_never_runs_backwards_in_a_writer(tmp_path: Path) -> None:
    ns = iter([3_000_000, 1_000_000, 4_000_000])
    with HistoryWriter(tmp_path / "a.jsonl", HERE, clock_ns=lambda: next(ns)) as writer:
        for _ in range(3):
            writer.note("disconnect")

    assert times_of(tmp_path / "a.jsonl") == [3.0, 3.0, 4.0]


@pytest.mark.parametrize("torn", [b"", b"{", b'{"t":2.0,"actor":"', b"x" * 10_000])
def test_a_torn_last_line_is_passed_over_and_written_over(tmp_path: Path, torn: bytes) -> None:
    path = write(tmp_path / "a.jsonl", 1.0)
    path.write_bytes(path.read_bytes() + torn)

    before = times_of(path)
    with HistoryWriter(path, HERE, clock_ns=lambda: 3_000_000) as writer:
        writer.note("disconnect")

    assert (before, times_of(path)) == ([1.0], [1.0, 3.0])


def test_a_file_of_nothing_but_a_torn_line_is_empty(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(b'{"t"')

    before = times_of(path)
    HistoryWriter(path, HERE).close()

    assert (before, path.read_bytes()) == ([], b"")


def test_a_last_line_without_its_end_counts_when_it_is_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", 1.0, 2.0)
    path.write_bytes(path.read_bytes().rstrip())

    assert times_of(path) == [1.0, 2.0]


def test_what_was_flushed_survives_a_kill(tmp_path: Path) -> None:
    code = (
        "import os, signal, sys; from chappe.testing import HistoryWriter\n"
        "writer = HistoryWriter(sys.argv[1], 'a/1', flush_lines=1)\n"
        "for _ in range(100): writer.note('disconnect')\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )

    ran = subprocess.run([sys.executable, "-c", code, str(tmp_path / "a.jsonl")], cwd=os.curdir, check=False)

    assert ran.returncode == -signal.SIGKILL
    assert len(times_of(tmp_path / "a.jsonl")) == 100


@given(st.lists(st.lists(st.integers(0, 50).map(float).map(lambda t: t / 2)), min_size=1, max_size=4))
def test_several_files_are_read_in_order_of_time(
    tmp_path_factory: pytest.TempPathFactory, times: list[list[float]]
) -> None:
    folder = tmp_path_factory.mktemp("several")
    paths = [write(folder / f"{number}.jsonl", *sorted(each)) for number, each in enumerate(times)]

    assert times_of(*paths) == sorted(t for each in times for t in each)


def test_files_of_many_blocks_are_read_in_order_of_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small(files: int) -> int:
        return 50 * files

    monkeypatch.setattr(history, "_block_size", small)
    paths = [write(tmp_path / f"{step}.jsonl", *map(float, range(0, 300, step))) for step in (1, 2, 7)]

    batches = list(read_batches(paths))

    read = [line["t"] for batch in batches for line in batch]
    assert read == sorted([*range(300), *range(0, 300, 2), *range(0, 300, 7)])
    assert len(batches) > 50


def test_a_file_keeps_its_own_order_when_its_clock_was_set_back(tmp_path: Path) -> None:
    assert times_of(write(tmp_path / "a.jsonl", 1.0, 5.0, 2.0, 6.0)) == [1.0, 5.0, 5.0, 6.0]


def test_blank_lines_and_windows_line_ends_are_no_mistake(tmp_path: Path) -> None:
    path = write(tmp_path / "a.jsonl", 1.0, 2.0)
    path.write_bytes(b"\n" + path.read_bytes().replace(b"\n", b"\r\n\r\n"))

    assert times_of(path) == [1.0, 2.0]


def test_an_empty_history_says_only_that_it_has_no_end(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").touch()

    assert check([tmp_path / "a.jsonl"]).counts == {"unfinished": 1}


@pytest.mark.parametrize("bad", ["{", "[1]", "{}", '{"t":"1"}', '{"t":null}', "7", '{"t":1} {"t":2}'])
def test_a_bad_line_is_named_with_its_file_and_number(tmp_path: Path, bad: str) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"t":1,"actor":"a/1","op":"disconnect"}\n' + bad + '\n{"t":3,"op":"end"}\n')

    with pytest.raises(HistoryError, match=r"a\.jsonl:2: not a line of a history"):
        times_of(path)
