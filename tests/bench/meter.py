"""Reads what processes use, how fast the disk is, and what the machine is."""

import datetime as dt
import os
import platform
import socket
import subprocess
import tempfile
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from tests.bench.numbers import percentile

PARTS = ("edge", "message", "fanout", "presence", "identity", "postgres", "cassandra", "valkey", "load")
"""What is measured apart: five services, the engines and the load client; Cassandra where it keeps the ledger."""

_PROBES = 100
_PROBE_BYTES = 4096
_TURNS = 1_000_000
_EXCHANGES = 10_000
_PACKAGES = ("grpcio", "protobuf", "uvloop", "picows", "psycopg")

Usage = Mapping[str, Mapping[int, float]]
"""CPU seconds by part and process id."""


class CpuMeter:
    """Tells the CPU seconds of each part, with every process that an engine has started."""

    def __init__(self, pids: Mapping[str, list[int]]) -> None:
        """Takes the process ids by part; children are found at each reading."""
        self._pids = pids

    def read(self) -> Usage:
        """Returns the CPU seconds so far, user and system; what has ended is left out."""
        return {part: dict(_seconds(pids)) for part, pids in self._pids.items()}

    def processes(self, part: str) -> list[int]:
        """Returns the process ids of a part, children included."""
        return [pid for pid, _ in _seconds(self._pids[part])]


def used_s(before: Usage, after: Usage) -> dict[str, float]:
    """Returns the CPU seconds of each part between two readings."""
    return {
        part: sum(seconds - before[part].get(pid, 0.0) for pid, seconds in processes.items())
        for part, processes in after.items()
    }


def _seconds(pids: list[int]) -> list[tuple[int, float]]:
    found = []
    for pid in pids:
        try:
            process = psutil.Process(pid)
            family = [process, *process.children(recursive=True)]
        except psutil.NoSuchProcess:
            continue
        for member in family:
            try:
                times = member.cpu_times()
            except psutil.NoSuchProcess:
                continue
            found.append((member.pid, times.user + times.system))
    return found


class Cores(NamedTuple):
    """What all cores of the machine have done so far, in core-seconds; whoever did it."""

    busy: float
    stolen: float
    """The hypervisor gave the time to other machines."""


def read_cores() -> Cores:
    """Returns what the machine has done so far."""
    times = psutil.cpu_times()
    resting = times.idle + times.iowait
    return Cores(sum(times[:8]) - resting - times.steal, times.steal)


class Memory(NamedTuple):
    """The memory of some processes, in KiB."""

    unique: int
    """Pages that nobody else has (USS)."""
    proportional: int
    """Those, and a share of what is shared (PSS)."""


def memory_of(pids: list[int]) -> Memory:
    """Returns what processes have in memory now."""
    unique = proportional = 0
    for pid in pids:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text(encoding="ascii").splitlines()[1:]
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines}
        unique += sizes["Private_Clean"] + sizes["Private_Dirty"]
        proportional += sizes["Pss"]
    return Memory(unique, proportional)


def slab_kib() -> int:
    """Returns what the kernel keeps in its slabs, sockets among them, on the whole machine."""
    for line in Path("/proc/meminfo").read_text(encoding="ascii").splitlines():
        if line.startswith("Slab:"):
            return int(line.split()[1])
    return 0


def probe_fsync(folder: Path) -> dict[str, float]:
    """Returns p50 and p99 of writing 4 KiB and fdatasync in a folder, in milliseconds."""
    took_s = []
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(_PROBE_BYTES))
        os.fsync(file.fileno())
        for _ in range(_PROBES):
            start_s = time.perf_counter()
            os.pwrite(file.fileno(), os.urandom(_PROBE_BYTES), 0)
            os.fdatasync(file.fileno())
            took_s.append(time.perf_counter() - start_s)
    took_s.sort()
    return {"fsync_p50_ms": percentile(took_s, 0.5) * 1000, "fsync_p99_ms": percentile(took_s, 0.99) * 1000}


def probe_speed() -> dict[str, float]:
    """Returns the CPU time of a turn of a Python loop, and of 300 bytes over TCP to oneself: machines differ here."""
    start_s = time.process_time()
    total = 0
    for turn in range(_TURNS):
        total += turn & 3
    loop_ns = (time.process_time() - start_s) / _TURNS * 1e9
    with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname()) as near:
        far, _ = server.accept()
        with far:
            start_s = time.process_time()
            for _ in range(_EXCHANGES):
                near.send(bytes(300))
                far.recv(1024)
            exchange_us = (time.process_time() - start_s) / _EXCHANGES * 1e6
    return {"python_loop_ns": loop_ns, "loopback_us": exchange_us}


def describe_machine(folder: Path) -> dict[str, Any]:
    """Returns what a reader has to know to compare figures."""
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": _commit(),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gib": round(psutil.virtual_memory().total / (1 << 30), 1),
        "kernel": platform.release(),
        "python": f"{platform.python_implementation()} {platform.python_version()}",
        "packages": {name: version(name) for name in _PACKAGES},
        "data": str(folder),
        "load_average": list(os.getloadavg()),
        **probe_fsync(folder),
        **probe_speed(),
    }


def _cpu() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.processor()


def _commit() -> str:
    found = subprocess.run(
        ["git", "describe", "--always", "--dirty"],
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip() or "unknown"
