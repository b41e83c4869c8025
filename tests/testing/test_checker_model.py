"""Histories of a correct system in miniature are silent in any order of events; with one fault they are not."""

from collections.abc import Callable
from random import Random
from typing import Any, cast

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chappe.testing import Guarantee, Line, check_lines

ALICE, BOB, CAROL = "a" * 32, "b" * 32, "e" * 32
DEVICES = (f"{ALICE}/1", f"{ALICE}/2", f"{BOB}/1", f"{BOB}/2")
CONV = "c" * 32
START_MS = 1_790_000_000_000
# What users and the network may leave; the rest happens in any case.
MAY = frozenset({"write", "tear", "refuse", "retry", "read"})

Step = tuple[str, str, int]


def devices_of(user: str) -> tuple[str, ...]:
    return tuple(device for device in DEVICES if device.startswith(user))


class System:
    """Two users of two devices; at each moment the next step is any of those that a correct system may take."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.ids: list[str] = []
        self.senders: list[str] = []
        self.fates: list[str] = []
        self.reached: list[tuple[str, ...]] = []
        self.done: set[Step] = set()
        for device in DEVICES:
            self.add(device, "device", device=device)

    def run(self, random: Random) -> list[Line]:
        for _ in range(random.randrange(80)):
            steps = self.steps()
            if len(self.ids) < 6:
                steps += [("send", device, len(self.ids)) for device in DEVICES]
            self.take(random.choice(steps), random) if steps else None
        while steps := [step for step in self.steps() if step[0] not in MAY]:
            self.take(random.choice(steps), random)
        self.add(DEVICES[0], "end")
        return self.lines

    def steps(self) -> list[Step]:
        found: list[Step] = []
        for number, fate in enumerate(self.fates):
            nexts = {"sent": ("write", "tear", "refuse", "retry"), "written": ("stored",)}.get(fate, ())
            found += [(what, self.senders[number], number) for what in nexts]
            found += [("apply", device, number) for device in self.reached[number]]
            found += self.consequences(number)
        return [step for step in found if step not in self.done]

    def consequences(self, number: int) -> list[Step]:
        own = devices_of(self.senders[number][:32])
        peers = devices_of(self.peer(number))
        applied = [device for device in DEVICES if ("apply", device, number) in self.done]
        found: list[Step] = [("ack", device, number) for device in applied]
        found += [("read", device, number) for device in applied if device in peers]
        if any(("ack", device, number) in self.done for device in peers):
            late = [device for device in own if ("read tick", device, number) in self.done]
            found += [("tick", device, number) for device in own if device not in late]
        if any(("read", device, number) in self.done for device in peers):
            found += [("read tick", device, number) for device in own]
        return found

    def take(self, step: Step, random: Random) -> None:
        what, device, number = step
        self.done.add(step)
        if what in {"write", "tear"}:
            others = tuple(other for other in DEVICES if other != device)
            lucky = tuple(random.sample(others, random.randrange(len(others))))
            self.fates[number], self.reached[number] = ("written", others) if what == "write" else ("torn", lucky)
        elif what == "send":
            self.send(device, number)
        else:
            self.log(what, device, number)

    def send(self, device: str, number: int) -> None:
        self.ids.append(f"{START_MS + number:012x}7{number:03x}8{number:015x}")
        self.senders.append(device)
        self.fates.append("sent")
        self.reached.append(())
        self.log("attempt", device, number)

    def log(self, what: str, device: str, number: int) -> None:
        id_ = self.ids[number]
        attempt = {"conv": CONV, "to": self.peer(number), "kind": "message"}
        event = {"conv": CONV, "sender": self.senders[number][:32], "ms": START_MS + number, "pos": id_}
        told: dict[str, tuple[str, dict[str, Any]]] = {
            "attempt": ("send", {**attempt, "attempt": 1}),
            "retry": ("send", {**attempt, "attempt": 2}),
            "stored": ("stored", {"accepted_ms": START_MS, "duplicate": False}),
            "refuse": ("refused", {"reason": "STALE", "final": True}),
            "apply": ("apply", {**event, "kind": "message", "how": "sync"}),
            "ack": ("ack", {"ids": [id_]}),
            "read": ("read", {"conv": CONV, "ids": [id_]}),
            "tick": ("tick", {"state": "delivered", "by": self.peer(number)}),
            "read tick": ("tick", {"state": "read", "by": self.peer(number)}),
        }
        op, fields = told[what]
        self.add(device, op, **({} if op in {"ack", "read"} else {"id": id_}), **fields)
        if what in {"stored", "refuse"}:
            self.fates[number] = what

    def peer(self, number: int) -> str:
        return BOB if self.senders[number].startswith(ALICE) else ALICE

    def add(self, actor: str, op: str, **fields: Any) -> None:
        t = START_MS + float(len(self.lines))
        self.lines.append(cast("Line", {"t": t, "actor": actor, "op": op, **fields}))


def pick(lines: list[Line], op: str, random: Random) -> int:
    """Chooses a line of this op, of a message that was acknowledged."""
    stored = {line["id"] for line in lines if line["op"] == "stored"}
    found = [n for n, line in enumerate(lines) if line["op"] == op and line.get("id") in stored]
    assume(found)
    return random.choice(found)


def insert(lines: list[Line], after: int, line: dict[str, Any]) -> None:
    lines.insert(after + 1, cast("Line", {**line, "t": lines[after]["t"]}))


def drop_an_apply(lines: list[Line], random: Random) -> None:
    del lines[pick(lines, "apply", random)]


def double_an_apply(lines: list[Line], random: Random) -> None:
    number = pick(lines, "apply", random)
    insert(lines, random.randrange(number, len(lines)), {**lines[number]})


def add_a_false_tick(lines: list[Line], random: Random) -> None:
    number = pick(lines, "send", random)
    sent = lines[number]
    tick = {"actor": sent["actor"], "op": "tick", "id": sent["id"], "by": sent["to"]}
    insert(lines, number, {**tick, "state": random.choice(["delivered", "read"])})


def swap_two_sends(lines: list[Line], random: Random) -> None:
    lines[:] = [line for line in lines if line["op"] != "send" or line["attempt"] == 1]
    sends = [n for n, line in enumerate(lines) if line["op"] == "send"]
    pairs = [(m, n) for m in sends for n in sends if m < n and lines[m]["actor"] == lines[n]["actor"]]
    assume(pairs)
    first, second = random.choice(pairs)
    lines[first], lines[second] = (
        cast("Line", {**lines[second], "t": lines[first]["t"]}),
        cast("Line", {**lines[first], "t": lines[second]["t"]}),
    )


def give_it_to_a_stranger(lines: list[Line], random: Random) -> None:
    number = pick(lines, "apply", random)
    insert(lines, number, {**lines[number], "actor": f"{CAROL}/1"})


def sort_by_the_time_of_arrival(lines: list[Line], random: Random) -> None:
    lines[pick(lines, "apply", random)]["ms"] += random.choice([-1, 1, 5_000])


def refuse_what_was_stored(lines: list[Line], random: Random) -> None:
    number = pick(lines, "stored", random)
    insert(lines, number, {**lines[number], "op": "refused", "reason": "STALE", "final": True})


def hide_a_tick_from_one_device(lines: list[Line], random: Random) -> None:
    chosen = lines[pick(lines, "tick", random)]
    lines[:] = [
        line
        for line in lines
        if not (line["op"] == "tick" and line["id"] == chosen["id"] and line["actor"] == chosen["actor"])
    ]


FAULTS: dict[Guarantee, Callable[[list[Line], Random], None]] = {
    "loss": drop_an_apply,
    "double": double_an_apply,
    "tick": add_a_false_tick,
    "order": swap_two_sends,
    "misdelivery": give_it_to_a_stranger,
    "retry": refuse_what_was_stored,
    "convergence": hide_a_tick_from_one_device,
}


@pytest.mark.untraced
@given(st.randoms(use_true_random=False))
def test_a_correct_system_is_silent_in_any_order(random: Random) -> None:
    report = check_lines(System().run(random))

    assert report.is_silent, report.stories()


@pytest.mark.untraced
@pytest.mark.parametrize("guarantee", FAULTS)
@given(random=st.randoms(use_true_random=False))
def test_one_fault_is_always_caught(guarantee: Guarantee, random: Random) -> None:
    lines = System().run(random)
    FAULTS[guarantee](lines, random)

    assert check_lines(lines).counts.get(guarantee)


@pytest.mark.untraced
@given(st.randoms(use_true_random=False))
def test_a_device_that_sorts_otherwise_is_always_caught(random: Random) -> None:
    lines = System().run(random)
    sort_by_the_time_of_arrival(lines, random)

    assert check_lines(lines).out_of_order == 1
