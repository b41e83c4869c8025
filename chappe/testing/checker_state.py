"""What the checker remembers of messages and devices: a few words for each, never the lines themselves."""

from collections import Counter
from dataclasses import dataclass, field
from typing import NamedTuple

from chappe.testing.checker_report import NOTHING, Concern, Guarantee, Violation

NEVER = float("inf")

_FEW = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """How far the promises reach, and how much is told."""

    block_grace_ms: float = 2_000
    """A block, or the unlinking of a device, may take this long to bite after it has returned."""
    change_grace_ms: float = 2_000
    """A change of a group may take this long to show in messages whose senders do not know of it."""
    expansion_ms: float = 30_000
    """Who leaves a group within this time after a message was acknowledged may lack it."""
    writing_ms: float = 10_000
    """Who has left a group may still be written to for this time, for that was under way."""
    repair_ms: float = 170_000
    """A device that stays connected has what was acknowledged within this time, also when its push was lost."""
    clock_lead_ms: float = 2_500
    """A reply need not sort after a message that is further ahead of the clock than this."""
    waiting_ms: float = 2_000
    """While one of several is down messages are acknowledged within this time, but for one in a hundred."""
    presence_ms: float = 60_000
    """Who comes or goes may be shown as before for this time."""
    parting_ms: float = 5_000
    """So long after its session has ended a device may still hear something: it was under way."""
    stories: int = 20
    """Violations told for each guarantee; the counts go on."""


@dataclass(slots=True, eq=False)
class User:
    """A user, with every device that was heard of."""

    name: str
    devices: list["Device"] = field(default_factory=list["Device"])


@dataclass(slots=True, eq=False)
class Device:
    """One device."""

    name: str
    user: User
    since: float = NEVER
    """Entitled to what is first sent from now on; infinite until it is declared or connects."""
    connected_t: float = NEVER
    """Since when its session stands; infinite while there is none."""
    heard_t: float = 0.0
    """When its edge gave it something last."""
    gone_t: float = NEVER
    """When it was unlinked."""
    last_sent: str = ""
    """The highest id that it has sent."""
    last_seen: dict[str, str] = field(default_factory=dict[str, str])
    """By conversation, the highest id of a message that it has applied."""
    unread: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    """By conversation, what it has applied of others and not said to be read."""
    drafts: dict[str, str] = field(default_factory=dict[str, str])
    """By outbox entry, the id under which it was last sent."""


Devices = tuple[Device, ...] | dict[Device, None]
"""Some devices in the order in which they came: a tuple, as an empty one costs nothing, until they are many."""


def with_one(devices: Devices, device: Device) -> Devices:
    """Returns devices with one more."""
    if isinstance(devices, dict):
        devices[device] = None
        return devices
    if len(devices) < _FEW:
        return (*devices, device)
    return dict.fromkeys((*devices, device))


class Tally(NamedTuple):
    """How many of the recipients of a message have it, and have read it."""

    delivered: int
    read: int


@dataclass(slots=True, eq=False)
class Message:
    """What is known of one id."""

    sender: Device | None = None
    """None until its `send` is read."""
    to: User | None = None
    """None in a group."""
    conv: str = ""
    kind: str = ""
    target: str = ""
    version: int = 0
    """Of its group, the newest that its sender knew."""
    sent_t: float = NEVER
    stored_t: float = NEVER
    accepted_ms: int = 0
    is_refused: bool = False
    applied: Devices = ()
    acked: Devices = ()
    readers: Devices = ()
    ticks: dict[tuple[Device, User], int] | None = None
    tallies: dict[Device, Tally] | None = None
    recipients: int | None = None
    """How many it has, as its sender's devices show it."""

    @property
    def is_stored(self) -> bool:
        """Whether its sender was told that it is stored."""
        return self.stored_t < NEVER


class Findings:
    """Counts broken promises, and keeps the first few of each."""

    def __init__(self, limit: int) -> None:
        self.counts: Counter[Guarantee] = Counter()
        self.kept: list[Violation] = []
        self._limit = limit

    def add(self, guarantee: Guarantee, t: float, what: str, *ids: str, concern: Concern = NOTHING) -> None:
        """Adds one violation at a time, about some ids."""
        self.counts[guarantee] += 1
        if self.counts[guarantee] <= self._limit:
            self.kept.append(Violation(guarantee=guarantee, t=t, what=what, ids=ids, concern=concern))
