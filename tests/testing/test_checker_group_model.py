"""A group of a correct system in miniature is judged in silence, whoever comes and goes; with one fault it is not."""

from collections.abc import Callable
from functools import partial
from random import Random
from typing import Any, NamedTuple, cast

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from chappe.testing import Guarantee, Line, check_lines

OWNER = "a" * 32
USERS = (OWNER, "b" * 32, "d" * 32, "e" * 32)
STRANGER = "f" * 32
GROUP = "9" * 32
START_MS = 1_790_000_000_000
STALE_MS = 1_990
"""How old a copy of the members may be at a service."""
PAUSES_MS = (1, 20, 300, 1_500, 2_500, 40_000)


class Said(NamedTuple):
    """A message of the system."""

    id: str
    sender: str
    target: str
    members: frozenset[str]
    """Of the version that was current, or nearly, at its acceptance."""


class Version(NamedTuple):
    """The members of the group since a time."""

    t: float
    members: frozenset[str]


class System:
    """One device for each user; everything that is under way arrives at some time, in any order."""

    def __init__(self, random: Random) -> None:
        self.random = random
        self.lines: list[Line] = []
        self.t = float(START_MS)
        self.versions = [Version(self.t, frozenset({OWNER}))]
        self.said: list[Said] = []
        self.on_the_way: list[Callable[[], None]] = []
        self.has: dict[str, list[str]] = {}
        """By message, who has it."""
        for user in (*USERS, STRANGER):
            self.add(user, "device", device=f"{user}/1")
        self.add(OWNER, "join", conv=GROUP, whom=OWNER, version=1)
        self.learn(1, "created", [OWNER], {OWNER})

    def run(self) -> list[Line]:
        for _ in range(self.random.randrange(60)):
            self.t += self.random.choice(PAUSES_MS)
            self.random.choice([self.change, self.say, self.say, self.act, self.arrive, self.arrive])()
        while self.on_the_way:
            self.arrive()
        for said in self.said:
            self.show(said)
        self.add(OWNER, "end")
        return self.lines

    def change(self) -> None:
        """Lets the owner add or remove somebody; the change happens while the call is under way."""
        user = self.random.choice(USERS[1:])
        is_join = user not in self.versions[-1].members
        began = self.t
        self.t += self.random.choice((1, 800))
        members = self.versions[-1].members
        self.versions.append(Version(self.t, members | {user} if is_join else members - {user}))
        number = len(self.versions)
        self.learn(number, "added" if is_join else "removed", [user], members | {user})
        self.t += self.random.choice((1, 800))
        self.add(OWNER, "join" if is_join else "leave", conv=GROUP, whom=user, version=number, at=began)

    def learn(self, number: int, change: str, names: list[str], users: set[str] | frozenset[str]) -> None:
        for user in users:
            line = {"conv": GROUP, "version": number, "change": change, "members": names}
            self.on_the_way.append(partial(self.add, user, "learn", **line))

    def say(self) -> None:
        """Lets a member write, who may know of the latest version; the members are those of a copy that may be old."""
        self.send(self.random.choice(sorted(self.versions[-1].members)), "message", "")

    def act(self) -> None:
        """Lets somebody edit a message of its own, or react to one that it has."""
        kind = self.random.choice(["edit", "reaction"])
        known = [(said, user) for said in self.said if not said.target for user in [said.sender, *self.has[said.id]]]
        mine = [pair for pair in known if pair[0].sender == pair[1] or kind == "reaction"]
        able = [pair for pair in mine if pair[1] in self.versions[-1].members]
        if able:
            said, user = self.random.choice(able)
            self.send(user, kind, said.id)

    def send(self, sender: str, kind: str, target: str) -> None:
        number = len(self.said) + 1
        id_ = f"{START_MS + number:012x}7{number:03x}8{number:015x}"
        knows = self.random.random() < 0.5
        more: dict[str, Any] = ({"target": target} if target else {}) | (
            {"version": len(self.versions)} if knows else {}
        )
        self.add(sender, "send", id=id_, conv=GROUP, to="", kind=kind, attempt=1, **more)
        candidates = [
            version.members
            for version, ends in zip(self.versions, [*self.versions[1:], None], strict=True)
            if ends is None or (ends.t > self.t - STALE_MS and not knows)
        ]
        members = self.random.choice([found for found in candidates if sender in found])
        said = Said(id_, sender, target, members)
        self.said.append(said)
        self.has[id_] = []
        self.t += self.random.choice((1, 400))
        self.add(sender, "stored", id=id_, accepted_ms=START_MS, duplicate=False)
        self.expand(said, kind)

    def expand(self, said: Said, kind: str) -> None:
        """Entitled is who is a member still; of an edit, who could see the message."""
        entitled = said.members & self.versions[-1].members
        if said.target:
            entitled &= next(other.members for other in self.said if other.id == said.target)
        for user in entitled - {said.sender}:
            self.on_the_way.append(partial(self.apply, said, user, kind))

    def apply(self, said: Said, user: str, kind: str) -> None:
        target = {"target": said.target} if said.target else {}
        ms = int(said.id[:12], 16)
        event = {"conv": GROUP, "sender": said.sender, "ms": ms, "pos": said.id, "kind": kind, "how": "push"}
        self.add(user, "apply", id=said.id, **event, **target)
        self.add(user, "ack", ids=[said.id])
        self.has[said.id].append(user)
        if self.random.random() < 0.5:
            self.show(said)

    def show(self, said: Said) -> None:
        """Lets the sender show how many have a message."""
        if not said.target:
            count = {"delivered": len(self.has[said.id]), "read": 0, "of": len(said.members) - 1}
            self.add(said.sender, "tally", id=said.id, **count)

    def arrive(self) -> None:
        if self.on_the_way:
            self.on_the_way.pop(self.random.randrange(len(self.on_the_way)))()

    def add(self, user: str, op: str, **fields: Any) -> None:
        self.t += 0.001
        self.lines.append(cast("Line", {"t": self.t, "actor": f"{user}/1", "op": op, **fields}))


def pick(lines: list[Line], random: Random, fits: Callable[[Line], bool]) -> int:
    found = [number for number, line in enumerate(lines) if fits(line)]
    assume(found)
    return random.choice(found)


def give_it_to_a_stranger(lines: list[Line], random: Random) -> None:
    number = pick(lines, random, lambda line: line["op"] == "apply")
    lines.insert(number + 1, cast("Line", {**lines[number], "actor": f"{STRANGER}/1"}))


def lose_it_at_a_member_from_the_beginning(lines: list[Line], random: Random) -> None:
    """Nobody can have left whom nothing was told of but the joining."""
    since = {line["whom"]: line["t"] for line in lines if line["op"] == "join"}
    left = {line["whom"] for line in lines if line["op"] == "leave"}
    sent = {line["id"]: line["t"] for line in lines if line["op"] == "send"}

    def is_due(line: Line) -> bool:
        user = line["actor"][:32]
        is_message = line["op"] == "apply" and line["kind"] == "message"
        return is_message and user not in left and sent[line["id"]] > since[user] + 2_000

    number = pick(lines, random, is_due)
    del lines[number]


def count_one_too_many(lines: list[Line], random: Random) -> None:
    line = lines[pick(lines, random, lambda line: line["op"] == "tally")]
    line["delivered"] += 1


def forget_to_tell_who_was_removed(lines: list[Line], random: Random) -> None:
    leave = lines[pick(lines, random, lambda line: line["op"] == "leave")]
    lines[:] = [
        line
        for line in lines
        if not (
            line["op"] == "learn" and line.get("version") == leave.get("version") and leave["whom"] in line["actor"]
        )
    ]


FAULTS: dict[Guarantee, Callable[[list[Line], Random], None]] = {
    "misdelivery": give_it_to_a_stranger,
    "loss": lose_it_at_a_member_from_the_beginning,
    "tick": count_one_too_many,
    "membership": forget_to_tell_who_was_removed,
}


@pytest.mark.untraced
@given(st.randoms(use_true_random=False))
def test_a_correct_group_is_silent_however_its_members_come_and_go(random: Random) -> None:
    report = check_lines(System(random).run())

    assert report.is_silent, report.stories()


@pytest.mark.untraced
@pytest.mark.parametrize("guarantee", FAULTS)
@given(random=st.randoms(use_true_random=False))
def test_one_fault_in_a_group_is_always_caught(guarantee: Guarantee, random: Random) -> None:
    lines = System(random).run()
    FAULTS[guarantee](lines, random)

    assert check_lines(lines).counts.get(guarantee)
