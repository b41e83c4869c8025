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
        self.newest: ChangePage | None = None
        """Where the log ended at the last poll; None before the first."""
        self.followers: set[Follower] = set()
        """Who reads on with every page."""
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
        while self.newest is None:
            await self._published.wait()
        return self.newest

    def page(self, number: int) -> ChangePage | None:
        """Returns a page by its number from 0; None when it was forgotten."""
        index = number - (self.count - len(self._pages))
        return self._pages[index] if index >= 0 else None

    async def _poll(self) -> None:
        before = None if self.newest is None else self.newest.cursor
        changes: list[Change] = []
        async for page in pages(self.log, before):
            changes += page.changes
            if page.is_last:
                self._publish(page._replace(changes=tuple(changes)))

    def _publish(self, page: ChangePage) -> None:
        self.newest = page
        self._pages.append(page)
        self.count += 1
        published, self._published = self._published, asyncio.Event()
        published.set()
        for follower in self.followers:
            follower.news.set()

    def _lost(self, error: ChappeError) -> None:
        if isinstance(error, CursorExpiredError):
            # The log has begun anew. The number that is left out sends followers to it with their own cursors.
            self.newest = None
            self._pages.clear()
            self.count += 1
        if not self._is_failing:
            _log.warning("changes cannot be read, nobody is told that they are complete: %s", error)
        self._is_failing = True


class Follower:
    """Reads the log from a place on: what this process remembers from memory, what is older from the log itself."""

    def __init__(self, feed: ChangeFeed, cursor: Cursor | None) -> None:
        self._feed = feed
        self._cursor = cursor
        self._number: int | None = None
        self._is_stopped = False
        self.news = asyncio.Event()
        """Set by the feed with every page."""

    def stop(self) -> None:
        """Ends the reading after the page at hand."""
        self._is_stopped = True
        self.news.set()

    async def pages(self) -> AsyncIterator[ChangePage]:
        """Yields pages until it is stopped; an empty one says that nothing has happened since the one before.

        The cursor of a page that is not the last of its kind must not be kept.

        Raises:
            CursorExpiredError: The log does not reach back to the cursor.
        """
        self._feed.followers.add(self)
        try:
            while not self._is_stopped:
                async for page in self._next():
                    yield page
        finally:
            self._feed.followers.discard(self)

    async def _next(self) -> AsyncIterator[ChangePage]:
        """Yields what there is to read now, after waiting if that is nothing."""
        tail = self._feed.newest
        if tail is None or self._number == self._feed.count:
            self.news.clear()
            await self.news.wait()
        elif self._number is None:
            # The number is taken before the log is read, so that what is in neither does not exist.
            self._number = self._feed.count
            async for page in self._catch_up(tail):
                yield page
        elif (remembered := self._feed.page(self._number)) is None:
            self._number = None
        else:
            self._number += 1
            self._cursor = remembered.cursor
            yield remembered

    async def _catch_up(self, tail: ChangePage) -> AsyncIterator[ChangePage]:
        if self._cursor is None:
            self._cursor = tail.cursor
            yield tail._replace(changes=())
            return
        async for page in pages(self._feed.log, self._cursor):
            if page.is_last:
                self._cursor = page.cursor
            yield page


async def pages(log: ChangeLog, after: Cursor | None) -> AsyncIterator[ChangePage]:
    """Yields everything after a cursor, page by page; the last one is marked."""
    page = await log.read(after)
    yield page
    while not page.is_last:
        page = await log.read(after, page)
        yield page
