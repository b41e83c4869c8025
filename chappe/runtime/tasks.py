"""Background tasks that have a name, an owner and an end."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, Self

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from chappe.runtime.metrics import Histogram

CANCEL_AGAIN_S = 0.5
LOOK_S = 0.5

_log = logging.getLogger(__name__)


class Tasks:
    """Owns background tasks: holds them, logs the one that crashes, cancels all of them on close."""

    def __init__(self, on_crash: Callable[[str, BaseException], None] | None = None) -> None:
        """Makes an owner without tasks.

        Args:
            on_crash: Told the name and the error of a task that ended with one; a process stops itself here.
        """
        # A dictionary without values keeps the order, so that the same happens in every run of a simulation.
        self._tasks: dict[asyncio.Task[Any], None] = {}
        self._on_crash = on_crash

    def spawn(self, coroutine: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Starts a task and returns it; nobody needs to keep it."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._finished)
        return task

    async def aclose(self) -> None:
        """Cancels every task and waits for their ends; what swallows its cancellation is cancelled again."""
        while self._tasks:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            # Before Python 3.12 `asyncio.wait_for`, which drivers use, could swallow a cancellation.
            done, _ = await asyncio.wait(tasks, timeout=CANCEL_AGAIN_S)
            for task in done:
                self._tasks.pop(task, None)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if task.cancelled():
            return
        error = task.exception()
        if error is None:
            return
        _log.error("task %s crashed", task.get_name(), exc_info=error)
        if self._on_crash is not None:
            self._on_crash(task.get_name(), error)


async def watch_delay(delays: Histogram) -> None:
    """Counts twice a second how much later than asked for the event loop wakes a sleeper, for ever.

    Whoever waits for anything in this process waits at least as long.
    """
    loop = asyncio.get_running_loop()
    while True:
        due_s = loop.time() + LOOK_S
        await asyncio.sleep(LOOK_S)
        delays.observe(max(loop.time() - due_s, 0.0))
