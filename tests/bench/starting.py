"""How long `chappe up` takes, as a process of its own on a data folder of its own, and until a first message came."""

import asyncio
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from chappe.client import Message, connect, register
from tests.bench.driver import BenchError

_TIMEOUT_S = 120.0
_NUMBERS = ("+13035550101", "+13035550102")


class Start(NamedTuple):
    """Seconds from the start of the command."""

    ready_s: float
    """Until it says that everything answers."""
    first_message_s: float
    """Until two people had registered and one had the other's message; 0 when nobody wrote."""


async def measure_starts(repetitions: int, ledger: str) -> tuple[Start, Start]:
    """Returns the medians of starts with a new data folder, and of starts with one that is there.

    Args:
        repetitions: How many of each.
        ledger: The engine that keeps the ledger.
    """
    new, again = [], []
    for _ in range(repetitions):
        with tempfile.TemporaryDirectory(prefix="chappe-bench-up-") as folder:
            new.append(await _start(Path(folder), ledger, is_new=True))
            again.append(await _start(Path(folder), ledger, is_new=False))
    return _median(new), _median(again)


def _median(starts: list[Start]) -> Start:
    return Start(*(statistics.median(values) for values in zip(*starts, strict=True)))


async def _start(folder: Path, ledger: str, *, is_new: bool) -> Start:
    begun_s = time.perf_counter()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "chappe.cli", "up", "--json", "--port", "0", "--data", str(folder / "data")),
        *("--ledger", ledger),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            line = await process.stdout.readline()
            ready_s = time.perf_counter() - begun_s
            if not line:
                raise BenchError("chappe up ended before it was ready: try `chappe up` by hand")
            state: dict[str, Any] = json.loads(line)
            if is_new:
                await _write_first_message(state["ws"][0], folder)
            first_message_s = time.perf_counter() - begun_s if is_new else 0.0
    finally:
        if process.returncode is None:
            process.terminate()
        await process.wait()
    return Start(ready_s, first_message_s)


async def _write_first_message(address: str, folder: Path) -> None:
    alice, bob = _NUMBERS
    await register(address, alice, name="Alice", profile=folder / "alice")
    await register(address, bob, name="Bob", profile=folder / "bob")
    async with connect(address, profile=folder / "alice") as writer, connect(address, profile=folder / "bob") as reader:
        await writer.send(bob, "the first one")
        async for event in reader.events():
            if isinstance(event, Message):
                return
