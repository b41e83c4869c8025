"""Samples where a service spends its CPU time; found on PYTHONPATH, it runs before the service does.

From one SIGUSR2 to the next the main thread's stack is counted at every tick of CPU time of the process, whichever
thread used it; the counts are written on exit, with the CPU time of each kind of thread. Time inside C code shows under
the Python line that called it.
"""

import atexit
import collections
import os
import signal
import sys
from pathlib import Path
from types import FrameType

_INTERVAL_S = 0.002
_DEPTH = 40
_TOP = 60
_LEAST_S = 0.01


class Sampler:
    """Counts lines, by themselves and with everything that they called."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._lines: collections.Counter[str] = collections.Counter()
        self._own: collections.Counter[str] = collections.Counter()
        self._total: collections.Counter[str] = collections.Counter()
        self._samples = 0
        self._is_on = False
        self._threads: collections.defaultdict[str, float] = collections.defaultdict(float)

    def install(self) -> None:
        """Waits for the signal."""
        signal.signal(signal.SIGPROF, self._sample)
        signal.signal(signal.SIGUSR2, self._toggle)
        atexit.register(self._write)

    def _toggle(self, _number: int, _frame: FrameType | None) -> None:
        self._is_on = not self._is_on
        interval_s = _INTERVAL_S if self._is_on else 0
        signal.setitimer(signal.ITIMER_PROF, interval_s, interval_s)
        sign = -1 if self._is_on else 1
        for name, seconds in _threads():
            self._threads[name] += sign * seconds

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        self._samples += 1
        seen: set[str] = set()
        if frame is not None:
            self._lines[_place(frame, with_line=True)] += 1
            self._own[_place(frame, with_line=False)] += 1
        for _ in range(_DEPTH):
            if frame is None:
                break
            seen.add(_place(frame, with_line=False))
            frame = frame.f_back
        self._total.update(seen)

    def _write(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        threads = ", ".join(f"{name} {seconds:.2f}" for name, seconds in self._threads.items() if seconds > _LEAST_S)
        lines = [f"{self._samples} samples; CPU seconds by thread: {threads}"]
        tables = {
            "by line, itself": self._lines,
            "by function, itself": self._own,
            "by function, with what it calls": self._total,
        }
        for title, counts in tables.items():
            lines.append(f"\n{title}")
            lines += [f"{count / max(1, self._samples):7.1%}  {place}" for place, count in counts.most_common(_TOP)]
        Path(self._path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _threads() -> list[tuple[str, float]]:
    """Returns name and CPU seconds of each thread of this process."""
    found = []
    for task in Path("/proc/self/task").iterdir():
        name = "main" if task.name == str(os.getpid()) else (task / "comm").read_text(encoding="utf-8").strip()
        found.append((name, int((task / "schedstat").read_text(encoding="ascii").split()[0]) / 1e9))
    return found


def _place(frame: FrameType, *, with_line: bool) -> str:
    code = frame.f_code
    name = "/".join(code.co_filename.split("/")[-3:])
    return f"{name}:{frame.f_lineno} {code.co_qualname}" if with_line else f"{name} {code.co_qualname}"


if os.environ.get("BENCH_SAMPLED", "-") in sys.orig_argv:
    Sampler(os.environ["BENCH_SAMPLES"]).install()
