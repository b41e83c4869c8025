"""What others learn of the user's hands and eyes: that it types, and what it has read."""

import asyncio
from contextlib import suppress
from typing import Final

from chappe.cli.chat.state import State
from chappe.client import ChappeClientError, Client, Message
from chappe.client.destination import Destination
from chappe.client.tasks import Tasks

_IDLE_S: Final = 4.0
"""So long after the last key nobody is typing any more."""
_GATHER_S: Final = 0.3


class Typing:
    """Says that the user is typing, until it has paused or sent."""

    def __init__(self, me: Client, tasks: Tasks) -> None:
        self._me = me
        self._tasks = tasks
        self._task: asyncio.Task[None] | None = None
        self._typed = asyncio.Event()

    def go_on(self, where: Destination) -> None:
        """Takes note of a key."""
        self._typed.set()
        if self._task is None or self._task.done():
            self._task = self._tasks.spawn(self._keep(where), name="typing")

    def stop(self) -> None:
        """Takes note that the message was sent, or another chat opened."""
        if self._task is not None:
            self._task.cancel()

    async def _keep(self, where: Destination) -> None:
        async with self._me.presence.typing(where):
            with suppress(TimeoutError):
                while True:
                    self._typed.clear()
                    async with asyncio.timeout(_IDLE_S):
                        await self._typed.wait()


class Reading:
    """Tells what was read, once for a burst of messages."""

    def __init__(self, me: Client, tasks: Tasks) -> None:
        self._me = me
        self._tasks = tasks
        self._told: dict[bytes, bytes] = {}
        self._is_telling = False

    def soon(self, state: State) -> None:
        """Tells in a moment that what is on the screen was read."""
        row = state.open_row
        if row is not None and state.is_seen(row):
            row.unread = 0
            if not self._is_telling:
                self._is_telling = True
                self._tasks.spawn(self._tell(state), name="tell what was read")

    async def _tell(self, state: State) -> None:
        await asyncio.sleep(_GATHER_S)
        self._is_telling = False
        row = state.open_row
        if row is None or not state.is_seen(row):
            return
        read = [entry for entry in row.entries if isinstance(entry, Message) and not entry.is_mine]
        if read and read[-1].message_id > self._told.get(row.conversation_id, b""):
            self._told[row.conversation_id] = read[-1].message_id
            # Whoever was removed from a group has nothing to tell it.
            with suppress(ChappeClientError):
                await self._me.mark_read(read[-1])
