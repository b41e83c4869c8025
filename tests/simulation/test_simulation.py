"""The mesh keeps its promises on simulated time, and a seed decides everything that happens."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from svc_message.model.group import Orphan
from svc_message.worker.expand import JournalWorker
from tests.simulation.__main__ import main, shrunk, tell
from tests.simulation.plan import Plan, draw
from tests.simulation.town import Outcome, run

SEEDS = 500
REPLICATED_SEEDS = 60
"""Each takes twice as long."""
ADOPT = JournalWorker.adopt


@pytest.mark.timeout(900)
@pytest.mark.untraced
def test_every_promise_is_kept_whatever_a_seed_brings(capsys: pytest.CaptureFixture[str]) -> None:
    status = main(["--seeds", str(SEEDS), "--jobs", "2"])

    told = capsys.readouterr().out
    assert status == 0, told
    assert f"{SEEDS} seeds from 0: 0 failed" in told


@pytest.mark.timeout(600)
@pytest.mark.untraced
def test_every_promise_is_kept_by_the_ledger_on_cassandra_over_three_replicas(
    capsys: pytest.CaptureFixture[str],
) -> None:
    status = main(["--seeds", str(REPLICATED_SEEDS), "--jobs", "2", "--ledger", "cassandra"])

    told = capsys.readouterr().out
    assert status == 0, told
    assert f"{REPLICATED_SEEDS} seeds from 0: 0 failed" in told


@pytest.mark.parametrize("is_replicated", [False, True])
def test_a_seed_brings_the_same_run_again(is_replicated: bool) -> None:  # noqa: FBT001 - a parameter of the test
    plan = draw(3)._replace(is_replicated=is_replicated)

    first, second = run(plan), run(plan)

    assert first.lines == second.lines
    assert first.trace == second.trace


def test_a_run_does_not_hang_on_the_hashes_of_a_process(root: Path) -> None:
    code = "from tests.simulation.town import run; from tests.simulation.plan import draw; print(run(draw(4)).trace)"
    traces = [
        subprocess.run(
            [sys.executable, "-c", code],
            cwd=root,
            env={**os.environ, "PYTHONPATH": str(root), "PYTHONHASHSEED": hash_seed},
            capture_output=True,
            check=True,
            text=True,
        ).stdout
        for hash_seed in ("1", "2")
    ]

    assert traces[0] == traces[1] == run(draw(4)).trace + "\n"


def test_another_seed_brings_another_run() -> None:
    assert draw(1) != draw(2)
    assert run(draw(1)).trace != run(draw(2)).trace


def test_people_have_what_was_acknowledged_in_a_run_without_faults() -> None:
    plan = _calm(draw(5))

    outcome = run(plan)

    assert outcome.is_good, "\n".join(tell(outcome))
    assert outcome.report.acknowledged > 10
    assert outcome.report.applied > 5


@pytest.mark.untraced
def test_seeds_bring_two_adopters_of_one_shard(monkeypatch: pytest.MonkeyPatch) -> None:
    adopters: dict[int, set[int]] = {}

    async def adopt(self: JournalWorker, orphan: Orphan) -> None:
        before = self.adopted
        await ADOPT(self, orphan)
        if self.adopted > before:
            adopters.setdefault(orphan.shard, set()).add(id(self))

    monkeypatch.setattr(JournalWorker, "adopt", adopt)
    plans = (plan for plan in map(draw, range(500)) if plan.replicas["message"] > 2)
    found = next(run(plan) for plan in plans if run_brings_two(plan, adopters))

    assert found.is_good


def run_brings_two(plan: Plan, adopters: dict[int, set[int]]) -> bool:
    """Runs a plan; returns whether two ledgers have expanded what a third has left."""
    adopters.clear()
    run(plan)
    return any(len(workers) > 1 for workers in adopters.values())


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Outcome:
    """Returns the first run that fails on a system whose cursors are not held back."""
    monkeypatch.setattr("svc_message.protocol.HORIZON_S", 0.0)
    outcomes = (run(draw(seed)) for seed in range(200))
    return next(outcome for outcome in outcomes if not outcome.is_good)


@pytest.mark.untraced
@pytest.mark.timeout(600)
def test_a_run_that_fails_is_shrunk_to_one_that_still_does(failing: Outcome) -> None:
    smaller = shrunk(failing)

    assert not smaller.is_good
    assert smaller.plan.seed == failing.plan.seed
    assert len(smaller.plan.events) < len(failing.plan.events) / 2
    assert "never applied" in "\n".join(tell(smaller)) or "converged" in "\n".join(tell(smaller))


def _calm(plan: Plan) -> Plan:
    deeds = {"say", "say_in_group", "read", "burst", "edit", "react"}
    return plan._replace(events=tuple(event for event in plan.events if event.what in deeds))
