"""Does what a device owes the server until it is done: again after a refusal, later each time, and in each session."""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from chappe.client.engine import Engine
from chappe.client.errors import ChappeClientError, NotConnectedError, SessionEndedError
from chappe.client.seams import Seams

FIRST_PAUSE_S = 1.0
LAST_PAUSE_S = 60.0

_log = logging.getLogger(__name__)


class Insisting:
    """Does a piece of work whenever it is due; the work itself knows, from the store, what of it is left."""

    def __init__(self, work: Callable[[], Awaitable[None]], engine: Engine, seams: Seams) -> None:
        """Prepares.

        Args:
            work: Does all that is left, or raises what kept it from that.
            engine: Knows whether there is a session.
            seams: How long it waits after a failure.
        """
        self._work = work
        self._engine = engine
        self._seams = seams
        self._is_due = asyncio.Event()

    def due(self) -> None:
        """Says that there may be something to be done, or that somebody may answer now."""
        self._is_due.set()

    async def run(self) -> None:
        """Works whenever something is due; returns when no session will come any more."""
        pause_s = FIRST_PAUSE_S
        while True:
            await self._is_due.wait()
            self._is_due.clear()
            try:
                await self._work()
            except SessionEndedError:
                return
            except ChappeClientError as error:
                if isinstance(error, NotConnectedError) and not self._engine.core.session.session_id:
                    # The next session says when it has caught up.
                    continue
                _log.info("put off: %s", error)
                await self._seams.clock.sleep(self._seams.randomness.uniform(pause_s / 2, pause_s))
                pause_s = min(2 * pause_s, LAST_PAUSE_S)
                self._is_due.set()
            else:
                pause_s = FIRST_PAUSE_S
