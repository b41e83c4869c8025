"""Which faults follow each other: every kind in turn, drawn by a seed, for as long as there is time."""

import random
from collections import defaultdict
from collections.abc import Sequence
from typing import Final

from tests.nemesis.faults import Fault

AROUND_S: Final = 3.0
"""About what a fault takes besides its own time: to restart what was killed, and to recover."""
CALM_S: Final = 1.0
"""How long nothing is hurt between two faults, unless a run says otherwise."""
LARGEST_SHARE: Final = 0.34
"""No fault takes more of the time than this: a short run is to see several."""


def draw(faults: Sequence[Fault], lots: random.Random, budget_s: float, calm_s: float = CALM_S) -> list[Fault]:
    """Returns faults that take about so long; nothing is drawn twice before everything of its kind was."""
    decks: defaultdict[str, list[Fault]] = defaultdict(list)
    drawn: list[Fault] = []
    left_s = budget_s
    kinds: list[str] = []
    shortest_s = min(fault.hold_s for fault in faults) + AROUND_S + calm_s
    while left_s >= shortest_s:
        if not kinds:
            kinds = sorted({fault.kind for fault in faults})
            lots.shuffle(kinds)
        kind = kinds.pop()
        if not decks[kind]:
            decks[kind] = [fault for fault in faults if fault.kind == kind]
            lots.shuffle(decks[kind])
        fault = decks[kind].pop()
        takes_s = fault.hold_s + AROUND_S + calm_s
        if takes_s <= min(left_s, budget_s * LARGEST_SHARE):
            left_s -= takes_s
            drawn.append(fault)
    return drawn
