"""What the checker answers: counts, and for every broken promise the story of how it was broken."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Final, Literal, NamedTuple

from chappe.testing.history import Line

Guarantee = Literal[
    "loss",
    "double",
    "invented",
    "order",
    "tick",
    "misdelivery",
    "membership",
    "retry",
    "convergence",
    "late",
    "slow",
    "presence",
    "unfinished",
]

PROMISES: Mapping[Guarantee, str] = {
    "loss": "G1: what was acknowledged reaches every entitled device",
    "double": "G2: an application sees a message once",
    "invented": "what is applied was sent",
    "order": "G3, G4, G5: all devices show one order, in which a sender's messages and replies follow",
    "tick": "G6: a tick is true and never goes back",
    "misdelivery": "G7: nobody else receives it: none who blocked the sender, none who is no member of the group",
    "membership": "G7: members write, and nobody else; members and the removed learn of every change",
    "retry": "G8: any number of retries make one message, or one final no",
    "convergence": "G9: a user's devices end up the same, and show what was edited, taken back, reacted or read last",
    "late": "G10: what a device that stays connected was not pushed is made good in time",
    "slow": "G11: while one of several is down, sends go on, acknowledged within 2 s but for one in a hundred",
    "presence": "G12: who is gone is shown as online for a minute at most, and nobody sees what is kept from it",
    "unfinished": "a history says when all is quiet, or nothing can be called lost",
}

_STORY_HEAD = 8
_STORY_TAIL = 8


class Concern(NamedTuple):
    """What else matters to a violation than messages."""

    users: tuple[str, ...] = ()
    """Whose blocks; with a group, whose memberships of it."""
    group: str = ""


NOTHING: Final = Concern()


@dataclass(frozen=True, kw_only=True, slots=True)
class Violation:
    """One broken promise."""

    guarantee: Guarantee
    t: float
    """When it was broken, in milliseconds of wall time."""
    what: str
    """What is wrong, in one sentence."""
    ids: tuple[str, ...] = ()
    """The messages that it is about."""
    concern: Concern = NOTHING
    story: tuple[str, ...] = ()
    """The lines of the history that lead to it, in plain words."""

    def __str__(self) -> str:
        lines = [f"{self.guarantee.upper()}: {self.what}", f"  promised: {PROMISES[self.guarantee]}"]
        return "\n".join(lines + [f"  {line}" for line in self.story])


@dataclass(frozen=True, kw_only=True, slots=True)
class Report:
    """What a history proves. The counts are complete; violations are the first few of each guarantee."""

    violations: tuple[Violation, ...]
    counts: Mapping[Guarantee, int]
    """How often each promise was broken."""
    lines: int = 0
    sent: int = 0
    acknowledged: int = 0
    applied: int = 0
    """Events given to applications, over all devices."""
    pending: int = 0
    """Sent, neither stored nor refused for good: nothing is promised about these but that none is doubled."""
    unjudged: int = 0
    """Acknowledged, but no device of the recipient is known, so loss could not be seen."""

    waited_p99_ms: float = 0.0
    """What was sent while one of several was down waited no longer to be acknowledged, but for one in a hundred."""

    @property
    def is_silent(self) -> bool:
        """Whether nothing is wrong."""
        return not any(self.counts.values())

    @property
    def lost(self) -> int:
        """Messages missing on a device, one for each device."""
        return self.counts.get("loss", 0)

    @property
    def doubled(self) -> int:
        """Events that an application was given again."""
        return self.counts.get("double", 0)

    @property
    def out_of_order(self) -> int:
        """Messages with the wrong place."""
        return self.counts.get("order", 0)

    @property
    def misdelivered(self) -> int:
        """Events given to a device that had no right to them."""
        return self.counts.get("misdelivery", 0)

    @property
    def lying_ticks(self) -> int:
        """Ticks that were not true when shown."""
        return self.counts.get("tick", 0)

    def summary(self) -> str:
        """Says it in one line."""
        line = (
            f"{self.acknowledged} acknowledged, {self.lost} lost, {self.doubled} doubled, "
            f"{self.out_of_order} out of order, {self.misdelivered} misdelivered, "
            f"{self.lying_ticks} lying ticks"
        )
        rare = {
            "invented": self.counts.get("invented", 0),
            "wrong memberships": self.counts.get("membership", 0),
            "broken retries": self.counts.get("retry", 0),
            "late": self.counts.get("late", 0),
            "slow": self.counts.get("slow", 0),
            "wrong presences": self.counts.get("presence", 0),
            "not converged": self.counts.get("convergence", 0),
            "not judged": self.unjudged,
        }
        line += "".join(f", {count} {name}" for name, count in rare.items() if count)
        return line + (", no end line" if self.counts.get("unfinished") else "")

    def stories(self) -> str:
        """Tells every violation, with what led to it."""
        return "\n\n".join(str(violation) for violation in self.violations)

    def to_json(self) -> dict[str, object]:
        """Returns everything as plain JSON values."""
        return {"is_silent": self.is_silent, "summary": self.summary(), **asdict(self)}


def tell(lines: Sequence[Line]) -> tuple[str, ...]:
    """Puts lines into plain words, with times in milliseconds since the first; the middle is left out."""
    if not lines:
        return ()
    start = lines[0]["t"]
    told = [f"{line['t'] - start:+11.3f} ms  {_name(line['actor'])} {_words(line)}" for line in lines]
    left_out = len(told) - _STORY_HEAD - _STORY_TAIL
    if left_out > 1:
        told[_STORY_HEAD : _STORY_HEAD + left_out] = [f"... {left_out} more lines ..."]
    return tuple(told)


def _name(actor: str) -> str:
    user, slash, device = actor.partition("/")
    return f"{short(user)}{slash}{device}"


def short(id_: str) -> str:
    """Shortens an id to its end, which is where ids made in one run differ."""
    return f"..{id_[-8:]}" if len(id_) > 10 else id_  # noqa: PLR2004 - shorter than this is short


def _words(line: Line) -> str:
    template = _PHRASES.get(line["op"], "{op}")
    values = {key: short(value) if isinstance(value, str) else value for key, value in line.items()}
    values["ids"] = _listed(line.get("ids", ()))
    values["whom"] = _listed(line.get("members") or [line.get("whom", "")]) or "everybody"
    if line["op"] == "read" and "upto" in line:
        template = "reads all up to {upto}"
    elif line["op"] == "send" and not line["to"]:
        template = "sends {kind} {id} to the group {conv} (attempt {attempt})"
    elif line["op"] == "refused":
        template = "is told that {id} is refused " + ("for good" if line["final"] else "for now") + ": {reason}"
        values["reason"] = line["reason"]
    return template.format_map(_Known(values))


class _Known(dict[str, object]):
    def __missing__(self, key: str) -> str:
        return f"(no {key})"


def _listed(ids: Iterable[str]) -> str:
    names = [short(id_) for id_ in ids]
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")  # noqa: PLR2004 - three


_PHRASES: Mapping[str, str] = {
    "device": "says that device {device} exists",
    "gone": "says that device {device} was unlinked",
    "connect": "is connected to {edge}",
    "disconnect": "is disconnected",
    "send": "sends {kind} {id} to {to} (attempt {attempt})",
    "stored": "is told that {id} is stored (accepted at {accepted_ms})",
    "apply": "applies {kind} {id} from {sender}, by {how}",
    "ack": "acks {ids}",
    "read": "reads {ids}",
    "elsewhere": "is told that its user has read up to {upto} elsewhere",
    "tick": "shows {id} as {state} (by {by})",
    "tally": "shows {id} as delivered to {delivered} and read by {read} of {of}",
    "shown": "displays {ids}",
    "presence": "shows {whom} as {state}",
    "conceal": "keeps its presence from {whom}",
    "reveal": "keeps its presence no more from {whom}",
    "down": "{whom} is down",
    "up": "{whom} is up again",
    "block": "has blocked {whom}",
    "unblock": "has lifted the block of {whom}",
    "join": "says that {whom} joined {conv} (version {version})",
    "leave": "says that {whom} left {conv} (version {version})",
    "learn": "learns of version {version} of {conv}: {change} {whom}",
    "end": "says that all is quiet",
}
