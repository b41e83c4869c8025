"""Background tasks that have a name, an owner and an end; the server's kit has its own, and is not imported here."""

import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

_log = logging.getLogger(__name__)


class Tasks:
    """Owns background tasks: holds them, logs the one that crashes, cancels all of them on close."""

    def __init__(self) -> None:
        # A dictionary without values keeps the order, so that the same happens in every run of a simulation.
        self._tasks: dict[asyncio.Task[Any], None] = {}

    def spawn(self, coroutine: Coroutine[Any, Any, Any], *, name: str) -> asyncio.Task[Any]:
        """Starts a task and returns it; nobody needs to keep it."""
        task = asyncio.get_running_loop().create_task(coroutine, name=name)
        self._tasks[task] = None
        task.add_done_callback(self._finished)
        return task

    async def aclose(self) -> None:
        """Cancels every task and waits for their ends."""
        while self._tasks:
            tasks = list(self._tasks)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for task in tasks:
                self._tasks.pop(task, None)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.pop(task, None)
        if not task.cancelled() and (error := task.exception()) is not None:
            _log.error("task %s crashed", task.get_name(), exc_info=error)
