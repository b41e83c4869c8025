"""The short form of `make nemesis`, the ledger in Cassandra; a file of its own, so that it runs beside the other."""

from pathlib import Path

import pytest

from tests.nemesis.ledgers import LEDGERS
from tests.nemesis.play import BACK_WITHIN_S, Terms, play
from tests.nemesis.test_nemesis import RATE, judge

pytestmark = [pytest.mark.system, pytest.mark.long, pytest.mark.timeout(480)]

SEED = 3
# A node of Cassandra takes its time to start: one fault each of a service, of another store and of the node.
SECONDS = 26.0


async def test_people_talk_while_services_and_a_node_are_killed(tmp_path: Path) -> None:
    terms = Terms(
        ledger=LEDGERS["cassandra"],
        data=tmp_path / "data",
        seed=SEED,
        seconds=SECONDS,
        users=12,
        rate=RATE,
        only="kill -9",
    )

    outcome = await play(terms, print)

    assert len(outcome.windows) >= 3
    # A Java that was just started is slow at first, and beside other tests as slow as the machine makes it: alone a
    # second is enough for it.
    judge(outcome, within_s=BACK_WITHIN_S)
