"""Runs simulations, seed after seed: `make simulate SEEDS=1000 FROM=0`, or `python -m tests.simulation`.

A seed that fails is shrunk and told. The exit status is 1 when one did.
"""

import argparse
import os
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from typing import NamedTuple

from tests.simulation.plan import Plan, draw
from tests.simulation.shrink import shrink, told
from tests.simulation.town import Outcome, run

MEMORY, CASSANDRA = "memory", "cassandra"
CHUNK = 20
PROGRESS_S = 10.0
MOST_FAILURES = 5
"""After so many seeds that fail nothing more is tried."""


class Tally(NamedTuple):
    """What came of some runs."""

    runs: int
    acknowledged: int
    steps: int
    virtual_s: float
    cpu_s: float
    failing: tuple[int, ...]

    def __add__(self, other: "Tally") -> "Tally":  # type: ignore[override]  # sums, not concatenation
        return Tally(*(mine + theirs for mine, theirs in zip(self, other, strict=True)))  # type: ignore[operator]  # the same


NOTHING = Tally(0, 0, 0, 0.0, 0.0, ())


def drawn(seed: int, ledger: str) -> Plan:
    """Returns the plan of a seed, with the ledger in the named store."""
    return draw(seed)._replace(is_replicated=ledger == CASSANDRA)


def try_seeds(first: int, count: int, ledger: str) -> Tally:
    """Runs some seeds, one after another."""
    tally, start_s = NOTHING, time.process_time()
    for seed in range(first, first + count):
        outcome = run(drawn(seed, ledger))
        failing = () if outcome.is_good else (seed,)
        tally += Tally(1, outcome.report.acknowledged, outcome.steps, outcome.virtual_s, 0.0, failing)
    return tally._replace(cpu_s=time.process_time() - start_s)


def try_all(first: int, count: int, jobs: int, ledger: str = MEMORY) -> Tally:
    """Runs seeds side by side, tells how far it is, and stops after a few failures."""
    total, begun_s, told_s = NOTHING, time.monotonic(), time.monotonic()
    with ProcessPoolExecutor(jobs) as pool:
        chunks: list[Future[Tally]] = [
            pool.submit(try_seeds, start, min(CHUNK, first + count - start), ledger)
            for start in range(first, first + count, CHUNK)
        ]
        for done in as_completed(chunks):
            total += done.result()
            if time.monotonic() - told_s >= PROGRESS_S:
                told_s = time.monotonic()
                print(f"{total.runs} of {count} seeds, {_failed(total)}", flush=True)
            if len(total.failing) >= MOST_FAILURES:
                pool.shutdown(cancel_futures=True)
                break
    took_s = time.monotonic() - begun_s
    print(
        f"{total.runs} seeds from {first}: {_failed(total)}; {total.acknowledged} sends acknowledged, "
        f"{total.virtual_s / 3600:.1f} hours of simulated time, {total.steps / 1e6:.1f} million steps, "
        f"{total.cpu_s:.1f} s CPU, {took_s:.1f} s"
    )
    return total


def _failed(tally: Tally) -> str:
    """Returns how many failed, and which: whoever runs many need not wait for the last one to look at the first."""
    return f"{len(tally.failing)} failed{': ' if tally.failing else ''}{', '.join(map(str, tally.failing))}"


def tell(outcome: Outcome) -> Iterator[str]:
    """Says what a run broke."""
    yield from outcome.failures
    if not outcome.report.is_silent:
        yield outcome.report.summary()
        yield outcome.report.stories()


def shrunk(outcome: Outcome) -> Outcome:
    """Returns the smallest run that was found to break one of the same promises."""
    broken = _broken(outcome)

    def fails(plan: Plan) -> bool:
        return bool(broken & _broken(run(plan)))

    return run(shrink(outcome.plan, fails))


def _broken(outcome: Outcome) -> set[str]:
    kinds = {str(name) for name, count in outcome.report.counts.items() if count}
    return kinds | ({"failure"} if outcome.failures else set())


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the command line asks for and returns the exit status."""
    parser = argparse.ArgumentParser(prog="make simulate", description=__doc__)
    parser.add_argument("--seeds", type=int, default=500, help="how many seeds are run (default: 500)")
    parser.add_argument("--from", type=int, default=0, dest="first", help="the first seed (default: 0)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="how many run side by side")
    ledger = "what keeps messages: a store in memory, or Cassandra's adapter over three replicas (default: memory)"
    parser.add_argument("--ledger", choices=(MEMORY, CASSANDRA), default=MEMORY, help=ledger)
    parser.add_argument("--no-shrink", action="store_true", help="only name the seeds that fail")
    asked = parser.parse_args(arguments)
    failing = sorted(try_all(asked.first, asked.seeds, asked.jobs, asked.ledger).failing)
    again = "" if asked.ledger == MEMORY else f' ARGS="--ledger {asked.ledger}"'
    for seed in failing[:MOST_FAILURES]:
        print(f"\nseed {seed} fails; again: make simulate FROM={seed} SEEDS=1{again}", flush=True)
        outcome = run(drawn(seed, asked.ledger))
        if not asked.no_shrink:
            outcome = shrunk(outcome)
            print(*told(outcome.plan), sep="\n")
        print(*tell(outcome), sep="\n", flush=True)
    return 1 if failing else 0


if __name__ == "__main__":
    sys.exit(main())
