"""The mesh keeps its promises on simulated time, and a seed decides everything that happens."""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chappe.api.identity.v1 import directory_service_pb2
from chappe.client.frames import message_action
from svc_message.model import Refused
from svc_message.model.group import Orphan
from svc_message.worker.expand import JournalWorker
from tests.mutations.directory import Directory
from tests.simulation.__main__ import main, shrunk, tell
from tests.simulation.plan import Event, Plan, draw
from tests.simulation.town import Outcome, run

SEEDS = 500
REPLICATED_SEEDS = 25
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


def test_a_send_that_never_has_an_answer_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(*_: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr("svc_message.app.compare_clocks", never)
    services = ("identity", "presence", "fanout", "message", "edge")
    step = Event(2.0, "step_clock", services.index("message"), 3, 30.0)

    outcome = run(_small(step, Event(8.0, "say")))

    assert outcome.report.is_silent
    assert ["has no answer to 1 of its changes" in failure for failure in outcome.failures] == [True]


def test_a_change_that_is_refused_for_good_without_a_reason_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svc_message.service.act.within", lambda *_: Refused("TOO_LATE", "for no reason"))

    outcome = run(_small(Event(8.0, "say"), Event(12.0, "edit")))

    assert ["its edit was refused for good: TOO_LATE" in failure for failure in outcome.failures] == [True]


def test_a_message_that_comes_with_other_words_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "chappe.client.lean.message_action", lambda peer_id, suite, _: message_action(peer_id, suite, b"other words")
    )

    outcome = run(_small(Event(8.0, "say")))

    assert outcome.failures
    assert all("came with b'other words', which was not said under it" in failure for failure in outcome.failures)


def test_people_who_do_not_see_each_other_in_the_end_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    async def show_nobody(_: object, request: Any, context: object) -> directory_service_pb2.CheckPrivacyResponse:
        return directory_service_pb2.CheckPrivacyResponse(may_see=[False] * len(request.viewer_user_ids))

    monkeypatch.setattr(Directory, "CheckPrivacy", show_nobody)

    outcome = run(_small()._replace(is_long=True))

    assert ["does not see 1 of those who are there" in failure for failure in outcome.failures] == [True, True]


def _small(*events: Event) -> Plan:
    """Returns a plan of two people, each with one device, and one of each service."""
    plan = draw(5)
    ones = dict.fromkeys(plan.replicas, 1)
    return plan._replace(users=2, second_devices=0, groups=0, replicas=ones, skew_s=0.0, ledger_s=0.002, events=events)


def _calm(plan: Plan) -> Plan:
    deeds = {"say", "say_in_group", "read", "burst", "edit", "react"}
    return plan._replace(events=tuple(event for event in plan.events if event.what in deeds))
