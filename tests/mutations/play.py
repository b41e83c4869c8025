"""Plays one scene on the sources that it is run from: `python -m tests.mutations.play SCENE`; prints a JSON object.

Instead of a scene it may be so many seeds of the simulation, like "100 seeds", up to the first that fails, or a test by
its file and name: what hangs on two writes that cross inside of a store is seen there.
"""

import asyncio
import contextlib
import io
import json
import logging
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

import pytest

import chappe
from chappe.testing import Report
from tests.mutations.scenes import SCENES
from tests.mutations.stage import play
from tests.simulation.plan import draw
from tests.simulation.town import run

SEEDS = " seeds"
TEST = "::"


class Told(NamedTuple):
    """What came of a scene: how often each promise was broken, in a few words, and how."""

    counts: dict[str, int]
    summary: str
    story: str


def main(name: str) -> None:
    """Plays a scene and prints what the checker says."""
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(name)s %(message)s")
    if Path.cwd() not in Path(chappe.__file__).parents:
        raise RuntimeError(f"these would be the sources at {chappe.__file__}, and not those of {Path.cwd()}")
    if name.endswith(SEEDS):
        counts, summary, story = simulate(int(name.split(maxsplit=1)[0]))
    else:
        counts, summary, story = run_test(name) if TEST in name else play_scene(name)
    sys.stderr.write(story + "\n")
    print(json.dumps({"counts": counts, "summary": summary}))


def play_scene(name: str) -> Told:
    """Plays a scene of the table."""
    scene, engines = SCENES[name]
    with tempfile.TemporaryDirectory(prefix="chappe-scene-") as folder:
        report = asyncio.run(play(scene, engines, Path(folder)))
    return Told(_by_name(report), report.summary(), report.stories())


def _by_name(report: Report) -> dict[str, int]:
    return {str(name): count for name, count in report.counts.items()}


def simulate(seeds: int) -> Told:
    """Runs seeds of the simulation, and tells of the first that fails."""
    for seed in range(seeds):
        outcome = run(draw(seed))
        if not outcome.is_good:
            counts = _by_name(outcome.report) | {"failure": len(outcome.failures)}
            story = "\n".join((f"seed {seed}", *outcome.failures, outcome.report.stories()))
            return Told(counts, outcome.report.summary(), story)
    return Told({}, f"{seeds} seeds", "")


def run_test(name: str) -> Told:
    """Runs a test, and tells when it fails."""
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        status = pytest.main(["--quiet", "--no-header", "-p", "no:cacheprovider", name])
    if status not in {pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED}:
        raise RuntimeError(f"{name} cannot be run: {said.getvalue()}")
    return Told({"failed test": int(status)}, name, said.getvalue())


if __name__ == "__main__":
    main(sys.argv[1])
