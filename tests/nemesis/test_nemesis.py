"""The short form of `make nemesis`: one fault of most kinds for each ledger, and the checker has nothing to say."""

from pathlib import Path

import pytest

from tests.nemesis.__main__ import tell
from tests.nemesis.ledgers import LEDGERS
from tests.nemesis.play import Outcome, Terms, play

pytestmark = [pytest.mark.system, pytest.mark.timeout(300)]

SEED = 3
SECONDS = 40.0
RESUMES_WITHIN_S = 5.0
"""Sending resumes so soon after the return of what there is only one of."""


def judge(outcome: Outcome) -> None:
    """Fails unless nothing was lost, doubled or out of order, and sending went on soon after each fault."""
    assert outcome.is_good, f"{tell(outcome)}\n{outcome.report.stories()}"
    slow = {window.fault.name: window.resumed_s for window, _ in outcome.windows}
    assert {name: resumed_s for name, resumed_s in slow.items() if resumed_s > RESUMES_WITHIN_S} == {}


# A node of Cassandra takes its time to start: there, one fault each of a service, of another store and of the node.
@pytest.mark.parametrize(("ledger", "seconds", "only"), [("postgres", SECONDS, ""), ("cassandra", 26.0, "kill -9")])
async def test_people_talk_while_one_thing_after_another_fails(
    ledger: str, seconds: float, only: str, tmp_path: Path
) -> None:
    terms = Terms(ledger=LEDGERS[ledger], data=tmp_path / "data", seed=SEED, seconds=seconds, users=12, only=only)

    outcome = await play(terms, print)

    assert len(outcome.windows) >= 3
    judge(outcome)


async def test_a_replica_that_is_behind_takes_the_registrys_place(tmp_path: Path) -> None:
    terms = Terms(ledger=LEDGERS["postgres"], data=tmp_path / "data", seed=SEED, seconds=18.0, users=8, only="replica")

    outcome = await play(terms, print)

    assert outcome.windows
    judge(outcome)
