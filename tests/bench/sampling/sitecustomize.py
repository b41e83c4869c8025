"""Samples where a service spends its CPU time; found on PYTHONPATH, it runs before the service does.

Every 2 ms of CPU time of the process (all threads) the main thread's stack is counted; the counts are written on exit.
Time inside C code shows under the Python line that called it, and a thread of gRPC under whatever the main thread did.
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


class Sampler:
    """Counts lines, by themselves and with everything that they called."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._own: collections.Counter[str] = collections.Counter()
        self._total: collections.Counter[str] = collections.Counter()
        self._samples = 0

    def start(self) -> None:
        """Begins to sample."""
        signal.signal(signal.SIGPROF, self._sample)
        signal.setitimer(signal.ITIMER_PROF, _INTERVAL_S, _INTERVAL_S)
        atexit.register(self._write)

    def _sample(self, _number: int, frame: FrameType | None) -> None:
        self._samples += 1
        seen: set[str] = set()
        if frame is not None:
            self._own[_place(frame, with_line=True)] += 1
        for _ in range(_DEPTH):
            if frame is None:
                break
            seen.add(_place(frame, with_line=False))
            frame = frame.f_back
        self._total.update(seen)

    def _write(self) -> None:
        signal.setitimer(signal.ITIMER_PROF, 0)
        lines = [f"{self._samples} samples of {_INTERVAL_S * 1000:g} ms of CPU time"]
        for title, counts in (("by line, itself", self._own), ("by function, with what it calls", self._total)):
            lines.append(f"\n{title}")
            lines += [f"{count / max(1, self._samples):7.1%}  {place}" for place, count in counts.most_common(_TOP)]
        Path(self._path).write_text("\n".join(lines) + "\n", encoding="utf-8")


def _place(frame: FrameType, *, with_line: bool) -> str:
    code = frame.f_code
    name = "/".join(code.co_filename.split("/")[-3:])
    return f"{name}:{frame.f_lineno} {code.co_qualname}" if with_line else f"{name} {code.co_qualname}"


if os.environ.get("BENCH_SAMPLED", "-") in sys.orig_argv:
    Sampler(os.environ["BENCH_SAMPLES"]).start()
