"""The log of changes on PostgreSQL, read by snapshot."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

import psycopg
from psycopg import errors

from chappe.runtime.errors import UnavailableError
from chappe.runtime.postgres import TidyConnection
from svc_identity.adapters.database_postgres import (
    DOES_NOT_SERVE,
    NAME,
    Connection,
    Database,
    Row,
    Work,
    prepare,
    uuid_of,
)
from svc_identity.errors import CursorExpiredError
from svc_identity.model import Change, ChangeKind, ChangePage, Cursor, UserId
from svc_identity.model.group import GroupChange, GroupChangeKind, GroupId, GroupNews, GroupRole
from svc_identity.ports import Lead
from svc_identity.protocol.cursor import decode_cursor, encode_cursor

# Any number would do, as long as every replica uses the same: the ASCII of "identity".
_LEAD_LOCK = int.from_bytes(b"identity")
_CONNECT_TIMEOUT_S = 5
# now() is taken when a statement begins, before its snapshot: what was committed by then is in the snapshot.
_HEAD = """
    SELECT epoch, floor_xid::text::bigint, pg_current_snapshot()::text, floor(extract(epoch FROM now()) * 1000)::bigint
    FROM identity_log
"""
_FIRST_PAGE = """
    SELECT epoch, floor_xid::text::bigint, pg_current_snapshot()::text, floor(extract(epoch FROM now()) * 1000)::bigint,
           page.xid::text::bigint, page.id, kind, entity, version, device_id, session_id
    FROM identity_log LEFT JOIN LATERAL (
        SELECT * FROM identity_changes
        WHERE xid >= pg_snapshot_xmin(%s::pg_snapshot) AND NOT pg_visible_in_snapshot(xid, %s::pg_snapshot)
        ORDER BY xid, id LIMIT %s
    ) AS page ON true ORDER BY page.xid, page.id
"""
_NEXT_PAGE = """
    SELECT page.xid::text::bigint, id, kind, entity, version, device_id, session_id FROM identity_changes AS page
    WHERE xid >= pg_snapshot_xmin(%s::pg_snapshot) AND NOT pg_visible_in_snapshot(xid, %s::pg_snapshot)
    AND pg_visible_in_snapshot(xid, %s::pg_snapshot) AND (page.xid, id) > (%s::text::xid8, %s)
    ORDER BY page.xid, id LIMIT %s
"""
_PRUNE = """
    WITH removed AS (
        DELETE FROM identity_changes WHERE at < to_timestamp(%s::double precision / 1000) AND xid < %s::text::xid8
        RETURNING xid, kind, entity, version
    ), forgotten AS (
        DELETE FROM group_changes g USING removed r
        WHERE r.kind = 7 AND g.group_id = r.entity AND g.version = r.version
    ), newest AS (SELECT count(*) AS count, max(xid::text::bigint) AS xid FROM removed)
    UPDATE identity_log SET floor_xid = newest.xid::text::xid8 FROM newest
    WHERE newest.xid > floor_xid::text::bigint RETURNING newest.count
"""
_SWEEP = """
    WITH a AS (DELETE FROM verifications WHERE expire_ms < %s),
         b AS (DELETE FROM registration_tokens WHERE expire_ms < %s),
         c AS (DELETE FROM link_codes WHERE expire_ms < %s),
         d AS (DELETE FROM session_nonces WHERE expire_ms < %s),
         e AS (DELETE FROM group_invites WHERE expire_ms < %s),
         f AS (DELETE FROM code_budgets WHERE hour < %s / 3600000)
    SELECT 1
"""
# Whoever was a member before or after the change learns of it, the removed included.
_GROUP_NEWS = """
    SELECT kind, actor_id, user_ids, group_name, role, member_count, change_ms, ARRAY(
        SELECT user_id FROM group_members m WHERE m.group_id = c.group_id AND m.joined_version <= c.version
        UNION SELECT user_id FROM group_departures d
        WHERE d.group_id = c.group_id AND d.joined_version <= c.version AND d.left_version >= c.version
        ORDER BY user_id
    ) FROM group_changes c WHERE group_id = %s AND version = %s
"""


class PostgresChangeLog:
    """The log of changes."""

    def __init__(self, database: Database, page_size: int = 1000) -> None:
        self._database = database
        self._page_size = page_size

    async def read(self, after: Cursor | None, page: ChangePage | None = None) -> ChangePage:
        """Returns what a cursor has not seen; without a cursor nothing but the newest one."""
        async with self._database.read() as work:
            if after is None:
                rows = await work.rows(_HEAD)
                return ChangePage((), _cursor_of(rows[0]), rows[0][3], is_last=True)
            try:
                if page is not None:
                    return await self._next_page(work, after, page)
                return await self._first_page(work, after)
            except errors.DataError as error:
                raise CursorExpiredError("the cursor is not a snapshot; start with an empty one") from error

    async def watchers(self, user_id: UserId) -> list[UserId]:
        """Returns whose contact a user is, without those whom it has blocked."""
        async with self._database.read() as work:
            rows = await work.rows(
                "SELECT DISTINCT owner_id FROM contacts c WHERE contact_user_id = %s AND NOT EXISTS "
                "(SELECT 1 FROM blocks b WHERE b.blocker_id = c.contact_user_id AND b.blocked_id = c.owner_id) "
                "ORDER BY owner_id",
                uuid_of(user_id),
            )
        return [UserId(row[0]) for row in rows]

    async def group_news(self, group_id: GroupId, version: int) -> GroupNews | None:
        """Returns what made a version of a group, and who learns of it; None when that was forgotten."""
        async with self._database.read() as work:
            row = await work.row(_GROUP_NEWS, uuid_of(group_id), version)
        if row is None:
            return None
        change = GroupChange(
            group_id=group_id,
            version=version,
            kind=GroupChangeKind(row[0]),
            actor_id=UserId(row[1]),
            user_ids=tuple(UserId(user_id) for user_id in row[2]),
            group_name=row[3],
            role=GroupRole(row[4]),
            member_count=row[5],
            change_ms=row[6],
        )
        return GroupNews(change, tuple(UserId(user_id) for user_id in row[7]))

    async def raise_epoch(self) -> int:
        """Begins a new epoch, as a restore has to, and returns it: cursors of the old one have expired.

        It is the time in seconds, so that two restores of one backup never begin the same one, and no change gets the
        name of another that was lost. Every group goes on from a version above all that were lost, for messages of
        these may be there, and whoever joins next must not see them. How far inboxes have been told stays.
        """

        async def work(work: Work) -> int:
            row = await work.row(
                "UPDATE identity_log SET epoch = greatest(epoch + 1, extract(epoch FROM clock_timestamp())::bigint)"
                " RETURNING epoch, mark"
            )
            if row is None:
                raise UnavailableError(NAME, "the table identity_log is empty; restore its row: INSERT INTO it")
            epoch, mark = int(row[0]), row[1]
            await work.run("UPDATE groups SET version = greatest(version + 1, %s)", epoch)
            if mark is not None:
                moved = encode_cursor(decode_cursor(mark)._replace(epoch=epoch))
                await work.run("UPDATE identity_log SET mark = %s", moved)
            return epoch

        return await self._database.write(work)

    @asynccontextmanager
    async def lead(self) -> AsyncGenerator[Lead | None]:
        """Tries to become the one that tells inboxes; None when another process is."""
        try:
            connection = await TidyConnection.connect(
                self._database.dsn, autocommit=True, connect_timeout=_CONNECT_TIMEOUT_S
            )
        except psycopg.OperationalError as error:
            raise UnavailableError(NAME, f"no connection for the lead: {error}") from error
        async with connection:
            await prepare(connection)
            lead = PostgresLead(connection)
            # Held by the session: it ends with the connection, however this process ends.
            yield lead if await lead.is_mine() else None

    async def _first_page(self, work: Work, after: Cursor) -> ChangePage:
        seen = _text_of(after)
        rows = await work.rows(_FIRST_PAGE, seen, seen, self._page_size + 1)
        until, floor_xid = _cursor_of(rows[0]), rows[0][1]
        if after.epoch != until.epoch or after.xmax > until.xmax or after.xmin <= floor_xid:
            raise CursorExpiredError("the log does not reach back to this cursor; start with an empty one")
        return self._page([row[4:] for row in rows if row[4] is not None], until, rows[0][3])

    async def _next_page(self, work: Work, after: Cursor, page: ChangePage) -> ChangePage:
        seen, last = _text_of(after), page.changes[-1]
        rows = await work.rows(
            _NEXT_PAGE,
            *(seen, seen, _text_of(page.cursor), str(last.xid), last.number, self._page_size + 1),
        )
        return self._page(rows, page.cursor, page.complete_until_ms)

    def _page(self, rows: list[Row], until: Cursor, complete_until_ms: int) -> ChangePage:
        changes = tuple(_change_of(row) for row in rows[: self._page_size])
        return ChangePage(changes, until, complete_until_ms, is_last=len(rows) <= self._page_size)


class PostgresLead:
    """The right to tell inboxes of changes, held by one connection."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def is_mine(self) -> bool:
        """Takes the right if nobody has it; returns whether it is ours."""
        row = await self._row("SELECT pg_try_advisory_lock(%s)", _LEAD_LOCK)
        return row is not None and bool(row[0])

    async def mark(self) -> Cursor | None:
        """Returns how far inboxes have been told; None when they never were."""
        row = await self._row("SELECT mark FROM identity_log")
        return None if row is None or row[0] is None else decode_cursor(row[0])

    async def move(self, mark: Cursor) -> None:
        """Says durably how far inboxes have been told."""
        await self._row("UPDATE identity_log SET mark = %s RETURNING 1", encode_cursor(mark))

    async def prune(self, before_ms: int) -> int:
        """Removes changes from before a time that inboxes were told of, and grants long expired; returns how many."""
        await self._row(_SWEEP, *[before_ms] * _SWEEP.count("%s"))
        mark = await self.mark()
        row = None if mark is None else await self._row(_PRUNE, before_ms, str(mark.xmin))
        return 0 if row is None else int(row[0])

    async def _row(self, query: str, *parameters: object) -> Row | None:
        try:
            return await Work(self._connection).row(query, *parameters)
        except DOES_NOT_SERVE as error:
            raise UnavailableError(NAME, f"the lead was lost: {error}") from error


def _cursor_of(row: Row) -> Cursor:
    xmin, xmax, running = str(row[2]).split(":")
    return Cursor(int(row[0]), int(xmin), int(xmax), tuple(int(xid) for xid in running.split(",") if xid))


def _text_of(cursor: Cursor) -> str:
    return f"{cursor.xmin}:{cursor.xmax}:{','.join(map(str, cursor.running))}"


def _change_of(row: Row) -> Change:
    xid, number, kind, entity, version, device_id, session_id = row
    return Change(xid, number, ChangeKind(kind), UserId(entity), version, device_id, session_id or b"")
