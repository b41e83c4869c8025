"""Puts the judges together: every line goes to the one that follows its op, once, in order of time."""

import gc
import itertools
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from operator import itemgetter
from pathlib import Path
from typing import Final

from chappe.testing.checker_delivery import Delivery
from chappe.testing.checker_groups import Groups
from chappe.testing.checker_presence import Presence
from chappe.testing.checker_quiet import Quiet
from chappe.testing.checker_report import Report, Violation, tell
from chappe.testing.checker_sending import Sending
from chappe.testing.checker_state import Findings, Limits
from chappe.testing.checker_ticks import Ticks
from chappe.testing.checker_waiting import Waiting
from chappe.testing.checker_world import World
from chappe.testing.history import HistoryError, Line, read_batches


def check(histories: Sequence[Path | str], limits: Limits | None = None) -> Report:
    """Judges the histories of one run, given as files.

    The files are read once; a second time only to tell the stories of what was found.
    Memory grows with the messages, about a kilobyte for each, not with the lines.

    Raises:
        HistoryError: a line cannot be understood; the message says which.
    """
    return _check(lambda: read_batches(histories), limits or Limits())


def check_lines(lines: Iterable[Line], limits: Limits | None = None) -> Report:
    """Judges a history in memory, in any order; lines of one time keep the order given.

    Raises:
        HistoryError: a line lacks a field of its op.
    """
    ordered = sorted(lines, key=itemgetter("t"))
    return _check(lambda: [ordered], limits or Limits())


def _check(source: Callable[[], Iterable[Sequence[Line]]], limits: Limits) -> Report:
    with _collector_at_rest():
        judge = _Judge(limits)
        for batch in source():
            judge.take(batch)
        report = judge.finish()
        if report.violations:
            return replace(report, violations=_with_stories(source(), report.violations))
        return report


@contextmanager
def _collector_at_rest() -> Generator[None, None, None]:
    # Nothing here leaves cycles behind, and looking for them took a third of the time.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


class _Judge:
    def __init__(self, limits: Limits) -> None:
        self._world = World(limits)
        self._findings = Findings(limits.stories)
        self._sending = Sending(self._world, self._findings, limits)
        self._delivery = Delivery(self._world, self._findings, limits)
        self._ticks = Ticks(self._world, self._findings)
        self._groups = Groups(self._world)
        self._quiet = Quiet(self._world, self._findings, self._delivery, self._groups)
        self._presence = Presence(self._world, self._findings, self._delivery.blocks, limits)
        self._waiting = Waiting(self._findings, limits)
        self._lines = 0
        self._last_t = 0.0
        self._handlers = self._by_op()

    def take(self, batch: Sequence[Line]) -> None:
        """Judges lines that follow those before."""
        handlers = self._handlers
        self._lines += len(batch)
        line: Line | None = None
        try:
            for line in batch:
                handlers[line["op"]](line)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise HistoryError(
                f"cannot understand the line {line}: {error!r}. chappe.testing.history lists the ops and the"
                " fields of each."
            ) from error
        if line is not None:
            self._last_t = line["t"]

    def finish(self) -> Report:
        """Judges what needed everything, and counts."""
        self._delivery.finish()
        self._sending.finish()
        self._presence.finish()
        self._waiting.finish(self._last_t)
        if not self._quiet.ends:
            what = "there is no end line, so nothing can be called lost; write one when all has arrived"
            self._findings.add("unfinished", self._last_t, what)
        messages = self._world.messages.values()
        return Report(
            violations=tuple(sorted(self._findings.kept, key=lambda violation: violation.t)),
            counts=dict(self._findings.counts),
            lines=self._lines,
            sent=self._sending.sent,
            acknowledged=self._sending.acknowledged,
            applied=self._delivery.applied,
            pending=sum(1 for m in messages if m.sender is not None and not m.is_stored and not m.is_refused),
            unjudged=self._quiet.unjudged,
            waited_p99_ms=self._waiting.p99_ms,
        )

    def _by_op(self) -> Mapping[str, Callable[[Line], None]]:
        return {
            "send": _both(self._sending.send, self._waiting.send),
            "stored": _both(self._sending.stored, self._waiting.stored),
            "refused": _both(self._sending.refused, self._waiting.refused),
            "apply": self._delivery.apply,
            "ack": self._delivery.ack,
            "shown": self._delivery.shown,
            "block": self._delivery.block,
            "unblock": self._delivery.unblock,
            # In this order: what was unread is not afterwards.
            "read": _both(self._quiet.reads.read, self._ticks.read),
            "elsewhere": self._quiet.reads.elsewhere,
            "tick": self._ticks.tick,
            "tally": self._ticks.tally,
            "device": self._quiet.device,
            "gone": self._quiet.gone,
            "connect": _both(self._quiet.connect, self._presence.connect),
            "disconnect": _both(self._quiet.disconnect, self._presence.disconnect),
            "end": _both(self._quiet.end, self._presence.end),
            "presence": self._presence.presence,
            "conceal": self._presence.conceal,
            "reveal": self._presence.reveal,
            "down": self._waiting.down,
            "up": self._waiting.up,
            "join": self._groups.join,
            "leave": self._groups.leave,
            "learn": self._groups.learn,
        }


def _both(first: Callable[[Line], None], second: Callable[[Line], None]) -> Callable[[Line], None]:
    def follow(line: Line) -> None:
        first(line)
        second(line)

    return follow


_Key = str | frozenset[str] | tuple[str, str]
"""What lines and violations have in common: an id, two users of a block, or a group and a user, or one user alone."""
_PRESENCE: Final = "presence"


def _with_stories(batches: Iterable[Sequence[Line]], violations: Sequence[Violation]) -> tuple[Violation, ...]:
    lines: list[list[Line]] = [[] for _ in violations]
    concerned: dict[_Key, list[int]] = {}
    for number, violation in enumerate(violations):
        users, group = violation.concern
        keys: list[_Key] = [*violation.ids]
        keys += [(group, user) for user in users] if group else [frozenset(users)] if users else []
        if violation.guarantee == "presence":
            keys += [(_PRESENCE, user) for user in users]
        for key in keys:
            concerned.setdefault(key, []).append(number)
    for line in itertools.chain.from_iterable(batches):
        for number in sorted({number for key in _keys(line) for number in concerned.get(key, ())}):
            if line["t"] <= violations[number].t:
                lines[number].append(line)
    told = zip(violations, lines, strict=True)
    return tuple(replace(violation, story=tell(chosen)) for violation, chosen in told)


def _keys(line: Line) -> Iterable[_Key]:
    op, user = line["op"], line["actor"].partition("/")[0]
    if op in {"block", "unblock", "presence"}:
        return [frozenset((user, line["whom"]))]
    if op in {"connect", "disconnect", "conceal", "reveal"}:
        return [(_PRESENCE, user)]
    if op in {"join", "leave"}:
        return [(line["conv"], name) for name in line.get("members") or [line["whom"]]]
    if op == "learn":
        return [(line["conv"], user)]
    if "id" in line:
        return [line["id"]]
    return [*line.get("ids", ()), *([line["upto"]] if "upto" in line else [])]
