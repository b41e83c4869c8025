"""The handle of the benchmark on its load client."""

import asyncio
import contextlib
import json
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from types import TracebackType
from typing import Any, Self

_ROOT = Path(__file__).resolve().parents[2]
_ANSWER_BYTES = 1 << 24
_STOP_S = 5.0


class BenchError(Exception):
    """A figure cannot be taken; the message says why."""


class LoadDriver:
    """Starts the load client and asks it things, one at a time; an async context manager."""

    def __init__(self, url: str, histories: Path | None = None, *, area: str = "1202") -> None:
        """Prepares.

        Args:
            url: The WebSocket address of the edge.
            area: How the phone numbers of its people begin, in digits; no two load clients may share it.
            histories: Where every client writes its history; None to write none.
        """
        self._arguments = [url, area, *([str(histories)] if histories is not None else [])]
        self._process: Process | None = None

    @property
    def pid(self) -> int:
        """The process id."""
        if self._process is None:
            raise BenchError("the load client has not been started")
        return self._process.pid

    async def ask(self, op: str, **arguments: Any) -> dict[str, Any]:
        """Returns the answer to one order.

        Raises:
            BenchError: The load client failed.
        """
        process = self._process
        if process is None or process.stdin is None or process.stdout is None:
            raise BenchError("the load client has not been started")
        process.stdin.write(json.dumps({"op": op, **arguments}).encode() + b"\n")
        line = await process.stdout.readline()
        if not line:
            raise BenchError(f"the load client ended during {op!r}; what it wrote stands above")
        answer: dict[str, Any] = json.loads(line)
        if "failure" in answer:
            raise BenchError(f"{op}: {answer['failure']}")
        return answer

    async def __aenter__(self) -> Self:
        # A session of its own: Ctrl-C is for the benchmark, which then stops everything in order.
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            *("-m", "tests.bench.load", *self._arguments),
            stdin=PIPE,
            stdout=PIPE,
            cwd=_ROOT,
            limit=_ANSWER_BYTES,
            start_new_session=True,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._process
        if process is None or process.returncode is not None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait_for(process.wait(), 0 if kind else _STOP_S)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
