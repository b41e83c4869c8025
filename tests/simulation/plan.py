"""What happens in a run: drawn from the seed, and nothing but a list, so that parts of it can be left out."""

import random
from typing import NamedTuple

LOAD_S = 20.0
"""How long people write and things go wrong; afterwards everything is mended."""
FIRST_S = 1.0


class Event(NamedTuple):
    """One thing that happens: who does what, or what befalls whom."""

    at_s: float
    what: str
    who: int = 0
    """A number that the town takes modulo how many there are."""
    whom: int = 0
    amount: float = 0.0

    def __str__(self) -> str:
        return f"{self.at_s:7.3f} s  {self.what} {self.who} {self.whom} {self.amount:g}"


class Plan(NamedTuple):
    """One run."""

    seed: int
    users: int
    second_devices: int
    """How many of the users have two devices."""
    groups: int
    replicas: dict[str, int]
    skew_s: float
    ledger_s: float
    """How long a call to the store of the ledger takes, one way, on a day like any other."""
    network: float
    """By how much the network is slower than the best."""
    events: tuple[Event, ...]
    is_long: bool = False
    """It goes on until the last write has happened of which nobody knows any more."""
    is_replicated: bool = False
    """Whether the ledger is in Cassandra, with three replicas of everything."""

    @property
    def has_watchers(self) -> bool:
        """Whether people watch each other: not where one blocks another while a line between them may carry nothing."""
        return not any(event.what == "block" for event in self.events)

    def without(self, events: set[int]) -> "Plan":
        """Returns the plan without some of its events, given by their places."""
        return self._replace(events=tuple(event for at, event in enumerate(self.events) if at not in events))


DEEDS = {
    "say": 14,
    "say_in_group": 8,
    "burst": 2,
    "read": 6,
    "edit": 2,
    "react": 2,
    "revoke": 1,
    "leave_home": 8,
    "crash_device": 6,
    "move": 3,
    "block": 0.5,
    "unblock": 0.5,
    "join": 1,
    "part": 0.7,
}
"""What people do, and how often."""
FAULTS = {
    "kill": 4,
    "kill_at_step": 4,
    "drain": 2,
    "pause": 3,
    "pause_device": 1,
    "step_clock": 1,
    "storm": 6,
    "freeze_writes": 2,
    "freeze": 1,
    "ledger_down": 1,
    "registry_down": 1,
    "flush_registry": 1,
    "reset": 3,
    "block_link": 2,
}
"""What goes wrong, and how often."""
PAUSE_S = 8.0
LONG = 0.2
"""How many runs are long."""
MOST_REPLICAS = {"presence": 2, "fanout": 2, "message": 3, "edge": 2}
"""A shard of the journal has two adopters only where a third has left it."""


def draw(seed: int) -> Plan:
    """Returns the plan of a seed."""
    lots = random.Random(f"plan {seed}")
    is_mild = lots.random() < 0.15
    users = lots.choice((2, 2, 3, 4))
    deeds = [_deed(lots) for _ in range(lots.randint(20, 50))]
    faults = [_fault(lots) for _ in range(0 if is_mild else lots.randint(2, 12))]
    return Plan(
        seed=seed,
        users=users,
        second_devices=lots.randint(0, min(users, 2)),
        groups=lots.randint(0, 2),
        replicas={name: lots.randint(1, most) for name, most in MOST_REPLICAS.items()},
        skew_s=0.0 if is_mild else lots.choice((0.0, 0.1, 0.2)),
        ledger_s=0.002 if is_mild else lots.choice((0.002, 0.03, 0.3, 0.8)),
        network=1.0 if is_mild else lots.choice((1.0, 10.0, 100.0)),
        events=tuple(sorted((*deeds, *faults))),
        is_long=lots.random() < LONG,
    )


def _deed(lots: random.Random) -> Event:
    (what,) = lots.choices(list(DEEDS), list(DEEDS.values()))
    at_s = lots.uniform(FIRST_S, LOAD_S)
    return Event(at_s, what, lots.getrandbits(16), lots.getrandbits(16), round(lots.expovariate(1 / 4), 3))


def _fault(lots: random.Random) -> Event:
    (what,) = lots.choices(list(FAULTS), list(FAULTS.values()))
    # Things that go wrong at the same time are worth more than things that go wrong one after another.
    at_s = lots.choice((lots.uniform(FIRST_S, LOAD_S), lots.uniform(5.0, 11.0)))
    if what == "step_clock":
        amount = lots.choice((-1, 1)) * lots.choice((0.2, 0.4, 2.0, 30.0))
    elif what in {"pause", "pause_device", "freeze_writes", "freeze"}:
        amount = lots.choice((PAUSE_S, lots.uniform(0.5, 16.0)))
    elif what == "kill_at_step":
        amount = lots.randint(1, 400)
    else:
        amount = lots.uniform(0.5, 12.0)
    return Event(at_s, what, lots.getrandbits(16), lots.getrandbits(16), round(amount, 3))
