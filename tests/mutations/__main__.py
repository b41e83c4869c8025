"""Takes out one repair after another and asks the history checker: `make mutations`, or `python -m tests.mutations`.

Each scene is first played on the sources as they are, where the checker must be silent; then on a copy from which the
repair was taken out, where it must speak. The exit status is 1 unless every repair is missed.
"""

import argparse
import json
import os
import queue
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.mutations.catalogue import MUTATIONS
from tests.mutations.mutation import Mutation
from tests.mutations.tree import CannotApplyError, Edit, Tree

SCENE_TIMEOUT_S = 120.0
ATTEMPTS = 3
"""So often a scene is played without a repair until the checker speaks: what heals by itself may be quicker once."""
TOLD_LINES = 40


class Played(NamedTuple):
    """What came of one scene."""

    counts: dict[str, int]
    """How often each promise was broken."""
    failure: str
    """Why the scene could not be played to its end; empty when it was."""
    took_s: float
    story: str

    @property
    def is_silent(self) -> bool:
        """Whether the scene was played and the checker had nothing to say."""
        return not self.failure and not any(self.counts.values())


class Stages:
    """Copies of the sources on which scenes are played side by side."""

    def __init__(self, folder: Path, count: int) -> None:
        self._trees: queue.SimpleQueue[Tree] = queue.SimpleQueue()
        for number in range(count):
            self._trees.put(Tree(folder / str(number)))
        self._pool = ThreadPoolExecutor(count)

    def play(self, scene: str, edits: Sequence[Edit] = ()) -> "Future[Played]":
        """Plays a scene on edited sources, as soon as a copy is free."""
        return self._pool.submit(self._play, scene, edits)

    def close(self) -> None:
        """Returns once nothing is played any more."""
        self._pool.shutdown(cancel_futures=True)

    def _play(self, scene: str, edits: Sequence[Edit]) -> Played:
        tree = self._trees.get()
        try:
            with tree.edited(edits):
                return play(tree.folder, scene)
        except CannotApplyError as error:
            return Played({}, f"cannot be applied: {error}", 0.0, "")
        finally:
            self._trees.put(tree)


def play(folder: Path, scene: str) -> Played:
    """Plays a scene in a process of its own, on the sources in a folder."""
    environment = {**os.environ, "PYTHONPATH": str(folder), "GRPC_VERBOSITY": "NONE"}
    start_s = time.monotonic()
    try:
        done = subprocess.run(
            [sys.executable, "-m", "tests.mutations.play", scene],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=SCENE_TIMEOUT_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Played({}, f"the scene takes more than {SCENE_TIMEOUT_S:g} s", SCENE_TIMEOUT_S, "")
    took_s = time.monotonic() - start_s
    if done.returncode:
        return Played({}, f"the scene ended with {done.returncode}", took_s, done.stderr)
    counts: dict[str, int] = json.loads(done.stdout)["counts"]
    return Played(counts, "", took_s, done.stderr)


class Trial:
    """One repair: its scene with it, without it, and what to say of that."""

    def __init__(self, mutation: Mutation, stages: Stages, with_it: "Future[Played] | None") -> None:
        self._mutation = mutation
        self._stages = stages
        self._without = self._play_without()
        self._with_it = with_it
        self.is_caught = False
        self.story = ""

    def tell(self) -> str:
        """Waits for the end and says it in a line."""
        name = f"{self._mutation.name:24}"
        with_it = self._with_it.result() if self._with_it is not None else None
        if with_it is not None and not with_it.is_silent:
            self.story = with_it.story
            return f"{name} NOT SILENT with the repair in: {_said(with_it)} ({self._mutation.scene})"
        without = self._without.result()
        for _ in range(1, ATTEMPTS):
            if without.is_silent:
                without = self._play_without().result()
        if without.failure or without.is_silent:
            self.story = without.story
            return f"{name} {without.failure or 'NOT CAUGHT'} ({self._mutation.scene})"
        self.is_caught = True
        return f"{name} caught by {_said(without)} in {without.took_s:.1f} s"

    def _play_without(self) -> "Future[Played]":
        return self._stages.play(self._mutation.scene, (*self._mutation.weakened, *self._mutation.edits))


def trials(stages: Stages, chosen: Sequence[Mutation], *, has_baseline: bool) -> list[Trial]:
    """Begins all trials; a scene on the sources as they are is played once for all who want it."""
    baselines: dict[tuple[str, frozenset[Edit]], Future[Played]] = {}
    begun: list[Trial] = []
    for mutation in chosen:
        key = mutation.scene, frozenset(mutation.weakened)
        if has_baseline and key not in baselines:
            baselines[key] = stages.play(mutation.scene, mutation.weakened)
        begun.append(Trial(mutation, stages, baselines.get(key)))
    return begun


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs what the command line asks for and returns the exit status."""
    parser = argparse.ArgumentParser(prog="make mutations", description=__doc__)
    names = [mutation.name for mutation in MUTATIONS]
    parser.add_argument("--only", action="append", choices=names, metavar="NAME", help="take out this one; repeatable")
    parser.add_argument("--no-baseline", action="store_true", help="leave out the scenes on the sources as they are")
    parser.add_argument("--jobs", type=int, default=2, help="how many scenes are played side by side (default: 2)")
    parser.add_argument("--list", action="store_true", help="say what there is, and run nothing")
    asked = parser.parse_args(arguments)
    chosen = [mutation for mutation in MUTATIONS if not asked.only or mutation.name in asked.only]
    if asked.list:
        print("\n".join(f"{mutation.name:24} {mutation.repair} ({mutation.scene})" for mutation in chosen))
        return 0
    with tempfile.TemporaryDirectory(prefix="chappe-mutations-") as folder:
        stages = Stages(Path(folder), max(1, asked.jobs))
        try:
            begun = trials(stages, chosen, has_baseline=not asked.no_baseline)
            return _report(begun)
        finally:
            stages.close()


def _report(begun: list[Trial]) -> int:
    for trial in begun:
        print(trial.tell(), flush=True)
        if trial.story:
            told = trial.story.strip().splitlines()[-TOLD_LINES:]
            print("\n".join(f"    {line}" for line in told), flush=True)
    caught = sum(trial.is_caught for trial in begun)
    print(f"{caught} caught of {len(begun)}")
    return 0 if caught == len(begun) else 1


def _said(played: Played) -> str:
    return ", ".join(name for name, count in played.counts.items() if count) or played.failure


if __name__ == "__main__":
    sys.exit(main())
