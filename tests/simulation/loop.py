"""An event loop on which time is a number, and processes that can die at any await.

Nothing here waits: when nothing is ready the clock leaps to the next timer. What is ready runs in the order in which it
was made ready, as on a real loop, for the product may rely on that; what differs from seed to seed are the delays of
everything that a real process would have to wait for.
"""

import asyncio
import contextlib
import contextvars
import gc
import heapq
import itertools
import sys
import warnings
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

EPOCH_MS = 1_800_000_000_000
"""When every simulation begins, Unix milliseconds."""


class Process:
    """What dies at once: no callback of it runs any more, so that no `finally` does either."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.account = ""
        """The service account in its certificate."""
        self.is_dead = False
        self.is_paused = False
        self.steps_left = 0
        """After so many more steps it dies; 0 for never."""
        self.context = contextvars.copy_context()
        self.context.run(_present.set, self)
        self.tasks: list[asyncio.Task[Any]] = []
        self.held: list[Any] = []
        """What has become ready while it was paused."""
        self.on_death: list[Callable[[], None]] = []
        """Who is told, from outside, that it has died."""
        self._kept = 64

    def adopt(self, task: asyncio.Task[Any]) -> None:
        """Holds on to a task: one that is let go would run its `finally`."""
        self.tasks.append(task)
        if len(self.tasks) >= self._kept:
            self.tasks = [task for task in self.tasks if not task.done()]
            self._kept = max(64, 2 * len(self.tasks))

    def count_down(self) -> None:
        """Takes note of a step; the last one that it has left ends it."""
        self.steps_left -= 1
        if not self.steps_left:
            self.kill()

    def kill(self) -> None:
        """Ends it between two steps, as `kill -9` would."""
        if not self.is_dead:
            self.is_dead = True
            self.held.clear()
            tellings, self.on_death = self.on_death, []
            for tell in tellings:
                tell()


_present: contextvars.ContextVar[Process] = contextvars.ContextVar("simulated_process")


def present() -> Process:
    """Returns the process that runs now."""
    return _present.get()


class _Handle:
    """A callback of a process; one of asyncio's own costs twice as much, and does not tell whose it is."""

    __slots__ = ("args", "callback", "context", "is_cancelled", "process", "when_s")

    def __init__(self, when_s: float, callback: Any, args: tuple[Any, ...], context: contextvars.Context) -> None:
        self.when_s = when_s
        self.callback = callback
        self.args = args
        self.context = context
        self.process = context[_present]
        self.is_cancelled = False

    def cancel(self) -> None:
        """Makes sure that it is not called."""
        self.is_cancelled = True
        self.callback, self.args = None, ()

    def cancelled(self) -> bool:
        """Tells whether it was cancelled."""
        return self.is_cancelled

    def when(self) -> float:
        """Returns when it is called."""
        return self.when_s


_Base: Any = asyncio.BaseEventLoop


class VirtualLoop(_Base):
    """The loop of a simulation."""

    def __init__(self) -> None:
        super().__init__()
        self.world = Process("world")
        """What is outside of all processes: the network, the stores, the people."""
        self.steps = 0
        self.failures: list[str] = []
        """What went wrong in callbacks and nobody took care of."""
        self.kept: list[Any] = []
        """What must not be let go before the end."""
        self._now_s = 0.0
        self._soon: deque[_Handle] = deque()
        self._later: list[tuple[float, int, _Handle]] = []
        self._numbers = itertools.count()
        self._is_over = False
        self._clock_resolution = 1e-9
        self.set_exception_handler(_note_failure)
        self.set_task_factory(_make_task)

    def time(self) -> float:
        return self._now_s

    def call_soon(self, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        handle = _Handle(0.0, callback, args, context or contextvars.copy_context())
        if not self._is_over:
            self._soon.append(handle)
        return handle

    call_soon_threadsafe = call_soon

    def call_at(self, when: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        handle = _Handle(when, callback, args, context or contextvars.copy_context())
        if not self._is_over:
            heapq.heappush(self._later, (when, next(self._numbers), handle))
        return handle

    def call_later(self, delay: float, callback: Any, *args: Any, context: contextvars.Context | None = None) -> Any:
        return self.call_at(self._now_s + delay, callback, *args, context=context)

    def run_in_executor(self, executor: Any, func: Any, *args: Any) -> "asyncio.Future[Any]":
        """Runs at once: there are no threads."""
        future = self.create_future()
        future.set_result(func(*args))
        return future

    def spawn(self, process: Process, coroutine: Coroutine[Any, Any, Any], name: str = "") -> asyncio.Task[Any]:
        """Starts a task in a process."""
        return self.create_task(coroutine, name=name or process.name, context=process.context.copy())

    def pause(self, process: Process, seconds: float) -> None:
        """Stops a process for a while; everything that becomes ready meanwhile happens afterwards."""
        if not process.is_paused and not process.is_dead:
            process.is_paused = True
            self.call_later(seconds, self._resume, process, context=self.world.context)

    def _resume(self, process: Process) -> None:
        process.is_paused = False
        held, process.held = process.held, []
        # A real loop looks at its sockets before it looks at its timers.
        arrived = [handle for handle in held if handle.context is process.context]
        self._soon.extend(arrived)
        self._soon.extend([handle for handle in held if handle.context is not process.context])

    def _run_once(self) -> None:
        soon = self._soon
        self._gather(soon, self._later)
        for _ in range(len(soon)):
            handle = soon.popleft()
            process = handle.process
            if handle.is_cancelled or process.is_dead:
                continue
            if process.is_paused:
                process.held.append(handle)
                continue
            self.steps += 1
            try:
                handle.context.run(handle.callback, *handle.args)
            except Exception as error:  # noqa: BLE001 - as asyncio does: a callback must not end the loop
                self.failures.append(f"{process.name}: {handle.callback} failed: {error!r}")
            if process.steps_left:
                process.count_down()

    def _gather(self, soon: deque[_Handle], later: list[tuple[float, int, _Handle]]) -> None:
        """Adds what is due to what is ready; when nothing is ready, time leaps to where something is due."""
        if not soon and not self._stopping:
            while later and later[0][2].is_cancelled:
                heapq.heappop(later)
            if not later:
                raise RuntimeError("nothing is ready and nothing ever will be")
            self._now_s = max(self._now_s, later[0][0])
        while later and later[0][0] <= self._now_s:
            soon.append(heapq.heappop(later)[2])

    def end(self) -> None:
        """Takes nothing more: what unfinished tasks do when they are let go has no effect."""
        self._is_over = True
        self._soon.clear()
        self._later.clear()
        self.kept.clear()


def _make_task(
    loop: asyncio.AbstractEventLoop, coroutine: Any, *, context: contextvars.Context | None = None
) -> asyncio.Task[Any]:
    context = context or contextvars.copy_context()
    task = asyncio.Task(coroutine, loop=loop, context=context)
    context[_present].adopt(task)
    return task


def _note_failure(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    assert isinstance(loop, VirtualLoop)
    loop.failures.append(f"{context.get('message')}: {context.get('exception')!r}")


@contextlib.contextmanager
def virtual_loop() -> Iterator[VirtualLoop]:
    """Gives a loop, and lets everything that is unfinished go in silence afterwards.

    Meanwhile the collector rests, for what it lets go would run at a moment that depends on the machine.
    """
    was_enabled = gc.isenabled()
    gc.disable()
    # What was there before is no concern of the collection at the end, which would take a third of the time.
    gc.freeze()
    loop = VirtualLoop()
    try:
        yield loop
    finally:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            hook, sys.unraisablehook = sys.unraisablehook, _ignore
            loop.set_exception_handler(_ignore)
            loop.end()
            loop.close()
            while gc.collect():
                pass
            sys.unraisablehook = hook
        gc.unfreeze()
        if was_enabled:
            gc.enable()


def _ignore(*_: Any) -> None:
    """Takes no notice."""
