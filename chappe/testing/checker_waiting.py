"""Judges how long messages wait for their acknowledgement while one of several processes or nodes is down."""

import math
from array import array

from chappe.testing.checker_state import NEVER, Findings, Limits
from chappe.testing.history import Line


class Waiting:
    """Follows `down` and `up`, and what is sent between them."""

    def __init__(self, findings: Findings, limits: Limits) -> None:
        self.p99_ms = 0.0
        """What was sent while something was down waited no longer than this, but for one in a hundred."""
        self._findings = findings
        self._limit_ms = limits.waiting_ms
        self._down: set[str] = set()
        self._names: dict[str, str] = {}
        """By id, what stays the same when a message has to take a new one."""
        self._unanswered: dict[str, float] = {}
        """By that name, when it was first sent."""
        self._refused: set[str] = set()
        """Those names that were refused for good, under the id that they had."""
        self._waits = array("d")

    def down(self, line: Line) -> None:
        """Takes note that one of several has died, or hangs."""
        self._down.add(line["whom"])

    def up(self, line: Line) -> None:
        """Takes note that it serves again."""
        self._down.discard(line["whom"])

    def send(self, line: Line) -> None:
        """Takes note of a message."""
        if line["kind"] != "message":
            return
        name = f"{line['actor']}:{line['draft']}" if "draft" in line else line["id"]
        if self._down and line["attempt"] == 1:
            self._unanswered.setdefault(name, line["t"])
        if name in self._unanswered:
            self._names[line["id"]] = name
            self._refused.discard(name)

    def stored(self, line: Line) -> None:
        """Ends the wait of a message."""
        name = self._names.pop(line["id"], None)
        if name is not None and (sent_t := self._unanswered.pop(name, None)) is not None:
            self._waits.append(line["t"] - sent_t)

    def refused(self, line: Line) -> None:
        """Takes a final no for the end of a wait, unless the message takes a new id."""
        name = self._names.get(line["id"])
        if name is not None and line["final"]:
            self._refused.add(name)

    def finish(self, t: float) -> None:
        """Judges all waits, those that have not ended too."""
        waits = sorted(self._waits) + [NEVER] * (len(self._unanswered.keys() - self._refused))
        if not waits:
            return
        self.p99_ms = waits[math.ceil(len(waits) * 0.99) - 1]
        if self.p99_ms > self._limit_ms:
            what = f"of {len(waits)} messages that were sent while one of several was down, one in a hundred waited "
            self._findings.add("slow", t, what + f"{self.p99_ms / 1000:.1f} s and more to be acknowledged")
