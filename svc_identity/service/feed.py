"""Reads the log of changes once for everybody in this process who follows it."""

import asyncio
import logging
from collections import deque
from collections.abc import AsyncIterator

from chappe.runtime.errors import ChappeError
from svc_identity.errors import CursorExpiredError
from svc_identity.model import Change, ChangePage, Cursor
from svc_identity.ports import ChangeLog

MEMORY_PAGES = 256
"""How many pages a follower may lag behind before it reads the log for itself."""

_log = logging.getLogger(__name__)


class ChangeFeed:
    """Polls the log, at once after this process has written to it, and remembers the newest pages."""

    def __init__(self, log: ChangeLog, changed: asyncio.Event, poll_s: float) -> None:
        """Prepares; nothing is read before `run`.

        Args:
            log: The log.
            changed: Set by this process's own writes.
            poll_s: How often changes of other replicas are looked for.
        """
        self.log = log
        self._changed = changed
        self._poll_s = poll_s
        self._tail: ChangePage | None = None
        self._pages: deque[ChangePage] = deque(maxlen=MEMORY_PAGES)
        self._published = asyncio.Event()
        self._is_failing = False
        self.count = 0
        """How many pages there have been."""

    async def run(self) -> None:
        """Polls for ever."""
        while True:
            self._changed.clear()
            try:
                await self._poll()
                self._is_failing = False
            except ChappeError as error:
                self._lost(error)
                await asyncio.sleep(self._poll_s)
            try:
                async with asyncio.timeout(self._poll_s):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def follow(self, cursor: Cursor | None) -> "Follower":
        """Returns somebody who reads everything after a cursor; without one, everything from now on."""
        return Follower(self, cursor)

    async def tail(self) -> ChangePage:
        """Returns where the log ends, waiting for the first poll."""
        while self._tail is None:
            await self._published.wait()
        return self._tail

    def page(self, number: int) -> ChangePage | None:
        """Returns a page by its number from 0; None when it was forgotten."""
        index = number - (self.count - len(self._pages))
        return self._pages[index] if index >= 0 else None

    def publication(self) -> asyncio.Event:
        """Returns what is set with the next page."""
        return self._published

    async def _poll(self) -> None:
        before = None if self._tail is None else self._tail.cursor
        changes: list[Change] = []
        async for page in pages(self.log, before):
            changes += page.changes
            if page.is_last:
                self._publish(page._replace(changes=tuple(changes)))

    def _publish(self, page: ChangePage) -> None:
        self._tail = page
        self._pages.append(page)
        self.count += 1
        published, self._published = self._published, asyncio.Event()
        published.set()

    def _lost(self, error: ChappeError) -> None:
        if isinstance(error, CursorExpiredError):
            # The log has begun anew; followers find out with their own cursors.
            self._tail = None
            self._pages.clear()
        if not self._is_failing:
            _log.warning("changes cannot be read, nobody is told that they are complete: %s", error)
        self._is_failing = True


class Follower:
    """Reads the log from a place on: what this process remembers from memory, what is older from the log itself."""

    def __init__(self, feed: ChangeFeed, cursor: Cursor | None) -> None:
        self._feed = feed
        self._cursor = cursor
        self._number: int | None = None
        self._stopping = asyncio.Event()

    def stop(self) -> None:
        """Ends the reading after the page at hand."""
        self._stopping.set()

    async def pages(self) -> AsyncIterator[ChangePage]:
        """Yields pages until it is stopped; an empty one says that nothing has happened since the one before.

        The cursor of a page that is not the last of its kind must not be kept.

        Raises:
            CursorExpiredError: The log does not reach back to the cursor.
        """
        while not self._stopping.is_set():
            # Numbers are taken before the log is read, so that what is in neither does not exist.
            if self._number is None:
                await self._feed.tail()
                self._number = self._feed.count
                async for page in self._catch_up():
                    yield page
            elif self._number == self._feed.count:
                await self._wait(self._feed.publication())
            elif (remembered := self._feed.page(self._number)) is None:
                self._number = None
            else:
                self._number += 1
                self._cursor = remembered.cursor
                yield remembered

    async def _catch_up(self) -> AsyncIterator[ChangePage]:
        if self._cursor is None:
            tail = await self._feed.tail()
            self._cursor = tail.cursor
            yield tail._replace(changes=())
            return
        async for page in pages(self._feed.log, self._cursor):
            if page.is_last:
                self._cursor = page.cursor
            yield page

    async def _wait(self, published: asyncio.Event) -> None:
        waits = [asyncio.ensure_future(event.wait()) for event in (published, self._stopping)]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()


async def pages(log: ChangeLog, after: Cursor | None) -> AsyncIterator[ChangePage]:
    """Yields everything after a cursor, page by page; the last one is marked."""
    page = await log.read(after)
    yield page
    while not page.is_last:
        page = await log.read(after, page)
        yield page
