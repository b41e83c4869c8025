"""Schedules are drawn from a seed: the same one gives the same, every kind comes in turn, nothing takes too long."""

import random

from tests.nemesis.faults import Fault, nothing
from tests.nemesis.schedule import AROUND_S, CALM_S, LARGEST_SHARE, draw

FAULTS = [
    Fault(kind, f"{kind} {number}", hold_s, nothing, nothing)
    for kind, hold_s in (("kill", 2.0), ("freeze", 8.0), ("silence", 28.0))
    for number in range(3)
]


def names(seed: int, budget_s: float) -> list[str]:
    return [fault.name for fault in draw(FAULTS, random.Random(seed), budget_s)]


def test_a_seed_always_draws_the_same_faults() -> None:
    assert names(7, 300) == names(7, 300)


def test_another_seed_draws_others() -> None:
    assert len({tuple(names(seed, 300)) for seed in range(5)}) == 5


def test_every_fault_comes_before_one_comes_twice() -> None:
    drawn = names(1, 1000)
    kills = [name for name in drawn if name.startswith("kill")]

    assert set(drawn) == {fault.name for fault in FAULTS}
    assert len(set(kills[:3])) == 3


def test_the_time_is_not_exceeded_and_almost_used() -> None:
    for seed in range(20):
        takes_s = sum(fault.hold_s + AROUND_S + CALM_S for fault in draw(FAULTS, random.Random(seed), 60.0))

        assert 50.0 < takes_s <= 60.0


def test_the_longer_the_calm_between_faults_the_fewer_there_are() -> None:
    drawn = [len(draw(FAULTS, random.Random(1), 600.0, calm_s)) for calm_s in (CALM_S, 30.0)]

    assert drawn[0] > 2 * drawn[1]


def test_a_short_run_holds_no_long_fault() -> None:
    drawn = [fault for seed in range(20) for fault in draw(FAULTS, random.Random(seed), 40.0)]

    assert max(fault.hold_s + AROUND_S + CALM_S for fault in drawn) <= 40.0 * LARGEST_SHARE
