"""Joins the core, the store and the wire of one device on the event loop; no tasks, only callbacks."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import Executor
from functools import partial

from chappe.client.alarms import Alarms
from chappe.client.calls import Outcome
from chappe.client.changes import CaughtUp, Change, GoingAway, LogChange
from chappe.client.errors import NotConnectedError, ProtocolError, StoreError
from chappe.client.outgoing import Outgoing
from chappe.client.protocol import ClientProtocol
from chappe.client.seams import Seams
from chappe.client.store import Batch, DeviceStore
from chappe.client.wire import Wire

PONG_WITHIN_S = 6.0
"""An edge that says nothing for so long after it was asked for its time is given up: another one may be there."""

_log = logging.getLogger(__name__)


class Engine:
    """Runs one device.

    With an executor a store's commits run in it, one at a time, and the next batch gathers meanwhile. Without one they
    run on the loop.
    """

    def __init__(
        self,
        core: ClientProtocol,
        store: DeviceStore,
        seams: Seams,
        show: Callable[[Change], None],
        executor: Executor | None = None,
    ) -> None:
        """Makes an engine; called on the event loop on which it runs.

        Args:
            core: The device's protocol.
            store: Where its batches go.
            seams: The time, and randomness.
            show: Told each change, in order; must not raise.
            executor: A thread for the store.
        """
        self.core = core
        self.go_away: GoingAway | None = None
        """What the edge said before it closed."""
        self.is_caught_up = False
        """The present session got as far as CaughtUp."""
        self.failure: StoreError | None = None
        """Why nothing is stored any more; the device is useless then."""
        self._store = store
        self._clock = seams.clock
        self._show = show
        self._executor = executor
        self._loop = asyncio.get_running_loop()
        self._wire: Wire | None = None
        self._heard_s = 0.0
        self._is_woken = False
        self._idle = asyncio.Event()
        self._idle.set()
        self._alarms = Alarms(seams, self._tick, self.flush)

    def attach(self, wire: Wire, hello: bytes) -> None:
        """Begins a session over a wire."""
        self._wire = wire
        self.go_away = None
        self.is_caught_up = False
        if self.failure is not None:
            # It came while there was no wire to close.
            self._fail(self.failure)
            return
        self._heard_s = self._clock.monotonic_s()
        self.core.connected(hello, wire.host, self._heard_s)
        self.flush()

    def detach(self) -> None:
        """Ends the session: its wire has closed."""
        self._wire = None
        self.core.disconnected()
        self.flush()

    def submit(self, outgoing: Outgoing) -> None:
        """Takes a change; it leaves as soon as it is stored and there is a session with room."""
        self.core.outbox.add(outgoing)
        self.wake()

    def call(self, method: str, payload: bytes, answer: Callable[[Outcome], None]) -> None:
        """Makes a call; `answer` is called once."""
        if self._wire is None or not self.core.session.session_id:
            answer(Outcome(b"", NotConnectedError("there is no session with an edge now")))
            return
        self.core.calls.ask(method, payload, answer)
        self.core.turns.let_calls_out(self.core.frames, self._clock.monotonic_s())
        self.wake()

    def ping(self) -> None:
        """Asks the edge for its time."""
        self.core.ping(self._clock.monotonic_s())
        self.wake()

    def wake(self) -> None:
        """Flushes at the next turn of the loop, once for everything that happens in this one."""
        if not self._is_woken:
            self._is_woken = True
            self._loop.call_soon(self.flush)

    def frame_arrived(self, data: bytes, *, is_last: bool) -> None:
        """Takes a frame of the edge."""
        self._heard_s = self._clock.monotonic_s()
        try:
            is_full = self.core.received(data, self._heard_s)
        except ProtocolError as error:
            _log.warning("%s", error)
            if self._wire is not None:
                self._wire.close(1002, "a frame that is none")
            return
        if is_last or is_full:
            self.flush()
        else:
            self.wake()

    def flush(self) -> None:
        """Stores what is to be stored, sends what may be sent, shows what is to be shown."""
        self._is_woken = False
        if self._idle.is_set() and self.failure is None:
            self._commit()
        core = self.core
        if core.frames:
            frames, core.frames = core.frames, []
            if self._wire is not None:
                self._wire.send(frames)
        if core.changes:
            changes, core.changes = core.changes, []
            for change in changes:
                self._pass_on(change)
        self._alarms.plan(core)

    async def stop(self) -> None:
        """Stops the alarms and waits until nothing is being stored."""
        self._alarms.cancel()
        await self._idle.wait()

    def _commit(self) -> None:
        while (batch := self.core.take_batch(self._clock.monotonic_s())) is not None:
            if self._executor is not None:
                self._idle.clear()
                future = self._loop.run_in_executor(self._executor, self._store.commit, batch)
                future.add_done_callback(partial(self._committed, batch))
                return
            try:
                changes = self._store.commit(batch)
            except StoreError as error:
                self._fail(error)
                return
            self.core.committed(batch, changes, self._clock.monotonic_s())

    def _committed(self, batch: Batch, future: "asyncio.Future[list[LogChange]]") -> None:
        self._idle.set()
        if future.cancelled():
            return
        error = future.exception()
        if error is not None:
            self._fail(error if isinstance(error, StoreError) else StoreError(f"the local store failed: {error!r}"))
            return
        self.core.committed(batch, future.result(), self._clock.monotonic_s())
        self.flush()

    def _fail(self, error: StoreError) -> None:
        self.failure = error
        if self._wire is not None:
            self._wire.close(1011, "the local store failed")

    def _pass_on(self, change: Change) -> None:
        if isinstance(change, CaughtUp):
            self.is_caught_up = True
        elif isinstance(change, GoingAway):
            self.go_away = change
        self._show(change)

    def _tick(self) -> None:
        self._alarms.cancel()
        now_s = self._clock.monotonic_s()
        asked_s = self.core.asked_s
        if self._wire is not None and self._heard_s <= asked_s <= now_s - PONG_WITHIN_S:
            self._wire.abandon(f"nothing came for {PONG_WITHIN_S:g} s")
        self.core.tick(now_s)
        self.flush()
