"""The log of changes in memory."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from svc_identity.adapters.tables_memory import Tables
from svc_identity.errors import CursorExpiredError
from svc_identity.model import Change, ChangeKind, ChangePage, Cursor, UserId
from svc_identity.model.group import GroupId, GroupNews
from svc_identity.ports import Lead
from svc_identity.protocol.cursor import has_seen


class MemoryChangeLog:
    """The log of changes, until the process ends."""

    def __init__(self, tables: Tables, page_size: int = 1000) -> None:
        self._tables = tables
        self._page_size = page_size
        self._is_led = False

    async def read(self, after: Cursor | None, page: ChangePage | None = None) -> ChangePage:
        """Returns what a cursor has not seen; without a cursor nothing but the newest one."""
        now = Cursor(self._tables.epoch, self._tables.next_xid, self._tables.next_xid)
        if after is None:
            return ChangePage((), now, self._tables.wall_ms(), is_last=True)
        if after.epoch != now.epoch or after.xmax > now.xmax or after.xmin <= self._tables.floor_xid:
            raise CursorExpiredError("the log does not reach back to this cursor; start with an empty one")
        until = now if page is None else page.cursor
        place = page.changes[-1].number if page is not None else 0
        found = [
            change
            for _, change in self._tables.changes
            if not has_seen(after, change.xid) and has_seen(until, change.xid) and change.number > place
        ]
        is_last = len(found) <= self._page_size
        complete_ms = self._tables.wall_ms() if page is None else page.complete_until_ms
        return ChangePage(tuple(found[: self._page_size]), until, complete_ms, is_last)

    async def watchers(self, user_id: UserId) -> list[UserId]:
        """Returns whose contact a user is, without those whom it has blocked."""
        contacts = self._tables.contacts.items()
        owners = {owner for (owner, _), contact in contacts if contact.user_id == user_id}
        return sorted(owner for owner in owners if (user_id, owner) not in self._tables.blocks)

    async def group_news(self, group_id: GroupId, version: int) -> GroupNews | None:
        """Returns what made a version of a group, and who learns of it; None when that was forgotten."""
        row = self._tables.groups.get(group_id)
        return None if row is None else row.news(version)

    @asynccontextmanager
    async def lead(self) -> AsyncGenerator[Lead | None]:
        """Tries to become the one that tells inboxes; None when another is."""
        if self._is_led:
            yield None
            return
        self._is_led = True
        try:
            yield MemoryLead(self._tables)
        finally:
            self._is_led = False


class MemoryLead:
    """The right to tell inboxes of changes."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def mark(self) -> Cursor | None:
        """Returns how far inboxes have been told; None when they never were."""
        return self._tables.mark

    async def move(self, mark: Cursor) -> None:
        """Remembers how far inboxes have been told."""
        self._tables.mark = mark

    async def prune(self, before_ms: int) -> int:
        """Removes changes from before a time that inboxes were told of; returns how many."""
        mark = self._tables.mark
        kept: list[tuple[int, Change]] = []
        removed: list[tuple[int, Change]] = []
        for at_ms, change in self._tables.changes:
            is_old = mark is not None and at_ms < before_ms and change.xid < mark.xmin
            (removed if is_old else kept).append((at_ms, change))
        self._tables.changes = kept
        for _, change in removed:
            if change.kind is ChangeKind.GROUP:
                self._tables.groups[GroupId(change.user_id)].changes.pop(change.version, None)
        self._tables.floor_xid = max([self._tables.floor_xid, *(change.xid for _, change in removed)])
        return len(removed)
