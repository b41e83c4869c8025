"""The short form of `make nemesis`: one fault of most kinds, and the checker has nothing to say."""

from pathlib import Path

import pytest

from tests.nemesis.__main__ import tell
from tests.nemesis.ledgers import LEDGERS
from tests.nemesis.play import Outcome, Terms, play
from tests.system.scenarios import RESUMES_WITHIN_S

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(480)]

SEED = 18
"""It has a fault of every kind, and a registry that is replaced by one that is behind."""
SECONDS = 46.0
RATE = 24.0
"""A fifth of what `make nemesis` sends each second: other tests run beside this one."""


def judge(outcome: Outcome, within_s: float = RESUMES_WITHIN_S) -> None:
    """Fails unless nothing was lost, doubled or out of order, and sending went on soon after each fault."""
    assert outcome.is_good, f"{tell(outcome)}\n{outcome.report.stories()}"
    slow = {window.fault.name: window.resumed_s for window, _ in outcome.windows}
    assert {name: resumed_s for name, resumed_s in slow.items() if resumed_s > within_s} == {}


async def test_people_talk_while_one_thing_after_another_fails(tmp_path: Path) -> None:
    terms = Terms(ledger=LEDGERS["postgres"], data=tmp_path / "data", seed=SEED, seconds=SECONDS, users=12, rate=RATE)

    outcome = await play(terms, print)

    kinds = {window.fault.kind for window, _ in outcome.windows}
    assert kinds == {"kill", "freeze", "clock", "store", "network", "roll"}
    assert "valkey's replica takes over" in {window.fault.name for window, _ in outcome.windows}
    judge(outcome)
