"""`python -m tests.bench`, which `make bench` calls: starts the real processes, measures them, prints a table."""

import argparse
import asyncio
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from chappe.cli.launcher import SERVICES, LaunchError
from chappe.cli.launcher.plan import LEDGERS
from chappe.testing import check
from tests.bench.driver import BenchError
from tests.bench.engines import describe_engines
from tests.bench.meter import describe_machine
from tests.bench.report import Report, compare
from tests.bench.rows import DRAINERS, FULL, QUICK, Row, Runner, Sizes
from tests.bench.stage import RAISED, Stage, StageTerms

_ROWS = (
    "up",
    "reads",
    "idle",
    "durable-25",
    "durable-250",
    "open-1000",
    "beside-1024",
    "open-5000",
    "drain",
    "history",
    "group-100",
    "group-1024",
    "durable-2500",
    "chats-5000",
    "presence-connects",
    "presence-refreshes",
    "presence-lookups",
    "presence-question",
    "deaths",
)
"""In the order in which they run: connections are only ever added once there is traffic.

What is done one at a time comes first, for edges read again later what they have pushed; and what is compared with each
other stands side by side, before the rows that push most.
"""
_QUICK_ROWS = (
    "up",
    "idle",
    "durable-10",
    "open-100",
    "drain",
    "history",
    "group-5",
    "beside-8",
    "chats-12",
    "reads",
    "presence-lookups",
)
_INTERRUPTED = 130
_LEAST_PEOPLE = 20


def _arguments(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of tables")
    parser.add_argument("--quick", action="store_true", help="everything once and very briefly, to see that it works")
    parser.add_argument(
        "--only", action="append", default=[], metavar="ROW", help=f"of {', '.join(_ROWS)}; a prefix does"
    )
    parser.add_argument(
        "--ledger", choices=LEDGERS, default="postgres", help="the engine that keeps the ledger; postgres"
    )
    parser.add_argument(
        "--warm", type=float, metavar="S", help="traffic before the first row; 0, and 60 with a ledger in Cassandra"
    )
    parser.add_argument("--seconds", type=float, metavar="S", help="how long a row with traffic is measured; 10")
    parser.add_argument("--in-flight", type=int, metavar="N", help="messages on their way in a closed loop; 2000")
    parser.add_argument("--check", action="store_true", help="every client writes its history, which is then judged")
    parser.add_argument("--profile", choices=SERVICES, metavar="SERVICE", help="sample where a service spends its CPU")
    parser.add_argument("--compare", type=Path, metavar="OLD.json", help="also print ratios to an earlier --json")
    parser.add_argument("--data", type=Path, metavar="DIR", help="an empty folder to work in, which is kept")
    return parser.parse_args(argv)


def _chosen(rows: tuple[str, ...], only: list[str]) -> list[str]:
    prefixes = tuple(name for name in only if name not in rows)
    chosen = [row for row in rows if not only or row in only or row.startswith(prefixes)]
    if not chosen:
        raise BenchError(f"--only {' '.join(only)} names no row; there are {', '.join(rows)}")
    return chosen


def _people(names: list[str], sizes: Sizes) -> int:
    """Returns how many people the rows need besides those of their own."""
    chats = [_LEAST_PEOPLE // 2]
    chats += [int(name.split("-")[1]) for name in names if name.startswith("durable")]
    chats += [sizes.open_chats for name in names if name.startswith(("open", "beside"))]
    groups = [int(name.split("-")[1]) for name in names if name.startswith("group")]
    listed = [int(name.split("-")[1]) for name in names if name.startswith("chats")]
    grouped = max([sizes.group_people, *groups]) if groups else 0
    return max(2 * max(chats), grouped, *listed, sizes.idle + sizes.warm_idle if "idle" in names else 0)


async def _run(chosen: argparse.Namespace, data: Path) -> Report:
    sizes = QUICK if chosen.quick else FULL
    if chosen.seconds:
        sizes = sizes._replace(seconds=chosen.seconds)
    if chosen.in_flight:
        sizes = sizes._replace(in_flight=chosen.in_flight)
    names = _chosen(_QUICK_ROWS if chosen.quick else _ROWS, chosen.only)
    warm_s = _warm_s(chosen, sizes)
    start_s = time.perf_counter()
    _say(f"starting the mesh, its ledger in {chosen.ledger}")
    terms = StageTerms(data, chosen.check, chosen.profile or "", chosen.ledger, is_brief=chosen.quick)
    async with Stage(terms) as stage:
        people = _people(names, sizes)
        # Those who come back, the two of the long chat, and the owner of the long chat list.
        everybody = people + DRAINERS + 2 + 1
        _say(f"registering {everybody} people")
        await stage.ask("register", count=everybody)
        set_up_s = time.perf_counter() - start_s
        about = {"engines": await describe_engines(stage.mesh.foundation), "ledger": chosen.ledger, "warm_s": warm_s}
        machine = {**describe_machine(data), **about}
        runner = Runner(stage, sizes)
        if warm_s:
            _say(f"warming for {warm_s:g} s")
            await runner.warm(people, warm_s)
        rows = []
        for name in names:
            _say(f"measuring {name}")
            rows.append(await _work(runner, name, people)())
        if chosen.check:
            # What was on its way to quiet devices has come by then.
            await asyncio.sleep(1.0)
            await stage.ask("end")
    checked = await asyncio.to_thread(_judge, stage.histories) if stage.histories else {}
    settings = {**RAISED, "in_flight": str(sizes.in_flight)}
    return Report(machine, settings, set_up_s, sorted(rows, key=lambda row: _place(row.name)), checked)


def _warm_s(chosen: argparse.Namespace, sizes: Sizes) -> float:
    """Returns for how long there is traffic before the first row: what was asked for, or what the ledger needs."""
    if chosen.warm is not None:
        return max(0.0, float(chosen.warm))
    return sizes.warm_s if chosen.ledger == "cassandra" else 0.0


def _work(runner: Runner, name: str, people: int) -> Callable[[], Awaitable[Row]]:
    kind, _, number = name.partition("-")
    sized: dict[str, Callable[[str, int], Awaitable[Row]]] = {
        "durable": runner.durable,
        "open": runner.open,
        "group": runner.group,
        "beside": runner.beside,
        "chats": lambda row, count: runner.chats(row, count, people + DRAINERS + 2),
    }
    if kind == "presence":
        return lambda: runner.presence(name)
    if kind in sized:
        return lambda: sized[kind](name, int(number))
    alone: dict[str, Callable[[], Awaitable[Row]]] = {
        "up": runner.up,
        "deaths": runner.deaths,
        "idle": lambda: runner.idle(0),
        "drain": lambda: runner.drain(people),
        "history": lambda: runner.history(people + DRAINERS),
        "reads": lambda: runner.reads(people + DRAINERS),
    }
    return alone[kind]


def _place(name: str) -> tuple[str, int]:
    kind, _, number = name.partition("-")
    return kind, int(number) if number.isdecimal() else 0


def _judge(histories: Path) -> dict[str, Any]:
    report = check(sorted(histories.glob("*.jsonl")))
    return {
        "is_silent": report.is_silent,
        "text": "\n".join(part for part in (report.summary(), report.stories()) if part),
    }


async def _until_signalled(chosen: argparse.Namespace, data: Path) -> Report | None:
    work = asyncio.create_task(_run(chosen, data))
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        asyncio.get_running_loop().add_signal_handler(number, work.cancel)
    try:
        return await work
    except asyncio.CancelledError:
        return None


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
    sys.stderr.flush()


def main(argv: list[str] | None = None) -> int:
    """Runs the benchmark and returns the exit status: 1 when a figure could not be taken or the checker objects."""
    chosen = _arguments(argv)
    data = chosen.data.absolute() if chosen.data else Path(tempfile.mkdtemp(prefix="chappe-bench-"))
    try:
        report = asyncio.run(_until_signalled(chosen, data))
        if report is None:
            return _INTERRUPTED
        print(json.dumps(report.to_json()) if chosen.json else report.to_text())
        if chosen.profile:
            _say((data / "samples.txt").read_text(encoding="utf-8"))
        if chosen.compare:
            _say(compare(json.loads(chosen.compare.read_text(encoding="utf-8")), report.rows))
    except (BenchError, LaunchError) as error:
        _say(f"Error: {error}")
        return 1
    finally:
        if not chosen.data:
            shutil.rmtree(data, ignore_errors=True)
    return 0 if report.checked.get("is_silent", True) else 1


if __name__ == "__main__":
    sys.exit(main())
