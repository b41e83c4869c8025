"""Runs the fast gates side by side and says of each what it found: `make check`, or with names only those."""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, as_completed
from functools import partial
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BINARIES = Path(sys.executable).parent
PYTHON = sys.executable


class Outcome(NamedTuple):
    """What one gate found; `output` is shown when it failed, `note` always."""

    is_ok: bool
    output: str = ""
    note: str = ""


def run(*command: str) -> Outcome:
    """Runs one tool in the project's root."""
    environment = {**os.environ, "PATH": f"{BINARIES}{os.pathsep}{os.environ.get('PATH', '')}"}
    done = subprocess.run(
        command,
        cwd=ROOT,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return Outcome(done.returncode == 0, done.stdout)


def breaking() -> Outcome:
    """Compares the contracts with those of the main branch."""
    for branch in ("main", "origin/main"):
        packed = subprocess.run(
            ["git", "archive", branch, "buf.yaml", "protos"], cwd=ROOT, capture_output=True, check=False
        )
        if packed.returncode == 0:
            with tempfile.TemporaryDirectory() as folder:
                subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True)
                return run("buf", "breaking", "--against", folder)
    return Outcome(is_ok=True, note="skipped: there is no main branch here, or it holds no contracts")


GATES: dict[str, Callable[[], Outcome]] = {
    # The slow ones first, so that the short ones fill the gaps; all others give way to the one that ends last.
    "pyright": partial(run, "pyright"),
    "mypy": partial(run, "nice", "mypy"),
    "house style": partial(run, PYTHON, "-m", "pytest", "-q", "tests/test_house_style.py", "tests/test_contracts.py"),
    "generated": partial(run, PYTHON, "protos/generate.py", "--check"),
    "buf breaking": breaking,
    "buf lint": partial(run, "buf", "lint"),
    "buf format": partial(run, "buf", "format", "-d", "--exit-code"),
    "imports": partial(run, "lint-imports", "--no-logo"),
    "ruff": partial(run, "ruff", "check", "--output-format=concise", "."),
    "ruff format": partial(run, "ruff", "format", "--check", "."),
}


def timed(gate: Callable[[], Outcome]) -> tuple[Outcome, float]:
    """Runs one gate; returns what it found and the seconds that it took."""
    start = time.monotonic()
    try:
        outcome = gate()
    except OSError as error:
        outcome = Outcome(is_ok=False, output=f"the gate could not run: {error}")
    return outcome, time.monotonic() - start


def main(names: list[str]) -> int:
    """Runs the gates; returns 1 if one failed, 2 if one is unknown."""
    unknown = [name for name in names if name not in GATES]
    if unknown:
        print(f"No gate is called {', '.join(unknown)}; there are: {', '.join(GATES)}.")
        return 2
    start = time.monotonic()
    failed = []
    with ThreadPoolExecutor(max_workers=max(2, os.cpu_count() or 2)) as pool:
        running = {pool.submit(timed, GATES[name]): name for name in names or GATES}
        for future in as_completed(running):
            name, (outcome, seconds) = running[future], future.result()
            word = "ok" if outcome.is_ok else "FAILED"
            print(f"{name:<14}{word:<8}{seconds:5.1f} s  {outcome.note}".rstrip(), flush=True)
            if not outcome.is_ok:
                failed.append(name)
                print(outcome.output.rstrip(), "\n", flush=True)
    verdict = f"failed: {', '.join(failed)}" if failed else f"all {len(running)} gates hold"
    print(f"{verdict} ({time.monotonic() - start:.1f} s)")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
