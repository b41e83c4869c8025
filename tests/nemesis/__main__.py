"""`python -m tests.nemesis`, which `make nemesis` calls: hurts a whole system while people talk, and judges."""

import argparse
import asyncio
import random
import shutil
import signal
import sys
import tempfile
from pathlib import Path

from chappe.cli.launcher import LaunchError
from tests.nemesis.ledgers import LEDGERS
from tests.nemesis.play import Outcome, Terms, play
from tests.nemesis.schedule import CALM_S

_INTERRUPTED = 130


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.nemesis", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0, metavar="M", help="about how long faults are made; 10")
    parser.add_argument("--seed", type=int, metavar="N", help="decides everything that is done; drawn and printed")
    parser.add_argument("--ledger", choices=sorted(LEDGERS), action="append", help="where messages are kept; all")
    parser.add_argument("--users", type=int, default=20, metavar="N", help="how many people talk; 20")
    parser.add_argument("--rate", type=float, default=120.0, metavar="N", help="messages each second; 120")
    parser.add_argument("--group-share", type=float, default=0.4, metavar="P", help="which part goes to groups; 0.4")
    parser.add_argument("--calm", type=float, default=CALM_S, metavar="S", help="seconds between two faults; 1")
    parser.add_argument("--only", default="", metavar="TEXT", help="only faults whose name holds this")
    parser.add_argument("--data", type=Path, metavar="DIR", help="an empty folder to work in, which is kept")
    return parser.parse_args(argv)


async def _until_signalled(terms: Terms) -> Outcome | None:
    work = asyncio.create_task(play(terms, lambda text: print(text, flush=True)))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        return None


def tell(outcome: Outcome) -> str:
    """Returns what came of a run, for people."""
    lines = [f"{figures}: {window.fault.name}" for window, figures in outcome.windows]
    lines += [f"{outcome.whole}: everything", f"{outcome.terms.ledger.name}: {outcome.report.summary()}"]
    lines += [f"after {name} nothing was acknowledged any more" for name in outcome.never_resumed]
    lines += [f"{count} messages were refused for good: {reason}" for reason, count in outcome.refusals.items()]
    lines += [f"{actor} has given up for good: {why}" for actor, why in outcome.gone.items()]
    verdict = "the checker is silent" if outcome.is_good else "NOT GOOD"
    return "\n".join([*lines, f"{outcome.terms.ledger.name}: {verdict} (seed {outcome.terms.seed})"])


def main(argv: list[str] | None = None) -> int:
    """Runs once for each ledger and returns the exit status: 1 when a promise was broken."""
    chosen = _arguments(argv)
    seed = random.SystemRandom().randrange(1_000_000) if chosen.seed is None else chosen.seed
    data = chosen.data.absolute() if chosen.data else Path(tempfile.mkdtemp(prefix="chappe-nemesis-"))
    outcomes = []
    try:
        for name in chosen.ledger or sorted(LEDGERS):
            print(f"{name}: seed {seed}, {chosen.minutes:g} minutes of faults", flush=True)
            terms = Terms(
                ledger=LEDGERS[name],
                data=data / name,
                seed=seed,
                seconds=chosen.minutes * 60,
                users=chosen.users,
                rate=chosen.rate,
                group_share=chosen.group_share,
                looks=False,
                calm_s=chosen.calm,
                only=chosen.only,
            )
            outcome = asyncio.run(_until_signalled(terms))
            if outcome is None:
                return _INTERRUPTED
            print(tell(outcome), flush=True)
            outcomes.append(outcome)
    except LaunchError as error:
        print(f"Error: {error}", file=sys.stderr)
        return 1
    finally:
        if not chosen.data:
            shutil.rmtree(data, ignore_errors=True)
    return 0 if all(outcome.is_good for outcome in outcomes) else 1


if __name__ == "__main__":
    sys.exit(main())
