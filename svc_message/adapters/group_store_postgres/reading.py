"""Reads what members may see of groups: pages of history, and what stands in a chat list.

A message is visible in the times in which its reader was a member, by the version that the message was for. Ids and
versions rise together but for the minutes in which an id may be accepted late, so each time is one range of ids.
"""

from collections.abc import Sequence
from functools import partial
from typing import Final, NamedTuple

from psycopg.types.numeric import Int4, Int8

from svc_message.adapters.message_store_postgres.arrays import Uuid, int4s, int8s, uuids
from svc_message.adapters.message_store_postgres.connections import Connections, Row, Statement
from svc_message.adapters.message_store_postgres.history import STORED, read_whole_page, stored_of
from svc_message.adapters.message_store_postgres.seeing import FOR_EVER, woven
from svc_message.model import ConversationId, PageRead, StoredMessage, UserId
from svc_message.model.group import GroupChat, GroupLine, Window, left_version_of

LATE_MS: Final = 660_000
"""Ids and versions may be out of order by so much: 10 minutes and what clocks and copies of groups may be off."""
_FIRST_ID: Final = bytes(16)
_LAST_ID: Final = b"\xff" * 16
_TIME_BYTES: Final = 6

# Where the messages of a time begin and end, nearly.
_BOUNDS: Final = b"""
    SELECT w.n,
        (SELECT m.message_id FROM messages m
            WHERE m.conversation_id = %b AND m.members_version >= w.joined_version
            ORDER BY m.members_version, m.message_id LIMIT 1),
        (SELECT m.message_id FROM messages m
            WHERE m.conversation_id = %b AND m.members_version < w.left_version
            ORDER BY m.members_version DESC, m.message_id DESC LIMIT 1)
    FROM unnest(%b, %b, %b) AS w (n, joined_version, left_version)
"""

_NOT_CLEARED: Final = """
    m.message_id > coalesce({line}.cleared_floor, '00000000-0000-0000-0000-000000000000')
    AND (m.message_id > {line}.cleared_upto OR m.accepted_ms > {line}.cleared_ms) IS NOT FALSE
"""
_RECEIPT: Final = """
    LEFT JOIN LATERAL (
        SELECT x.* FROM group_receipts x
        WHERE x.conversation_id = m.conversation_id AND x.message_id = m.message_id AND x.user_id = {reader} LIMIT 1
    ) r ON true
"""

_PAGE: Final = """
    WITH owner AS MATERIALIZED (
        SELECT t.user_id, t.left_version, c.cleared_floor, c.cleared_upto, c.cleared_ms
        FROM (SELECT %b AS user_id, %b AS left_version) t
        LEFT JOIN conversations c ON c.user_id = t.user_id AND c.conversation_id = %b
    )
    SELECT {stored}
    FROM (
        SELECT seen.* FROM unnest(%b, %b, %b, %b) AS w (joined_version, left_version, low, high)
        CROSS JOIN owner
        CROSS JOIN LATERAL (
            SELECT m.* FROM messages m {view}
            WHERE m.conversation_id = %b AND m.message_id > greatest(%b, w.low) AND m.message_id < least(%b, w.high)
                AND m.members_version >= w.joined_version AND m.members_version < w.left_version
                AND {is_seen} AND {not_cleared}
            ORDER BY m.message_id {direction} LIMIT %b
        ) seen
        ORDER BY seen.message_id {direction} LIMIT %b
    ) m
    CROSS JOIN owner
    {view} {before} {receipt} {reactions}
"""


def _page_of(direction: str) -> bytes:
    owner = "owner.user_id"
    receipt, cleared = _RECEIPT.format(reader=owner), _NOT_CLEARED.format(line="owner")
    statement = _PAGE.replace("{stored}", STORED)
    left = "owner.left_version"
    return woven(statement, reader=owner, left=left, direction=direction, receipt=receipt, not_cleared=cleared)


_NEWEST: Final = _page_of("DESC")
_OLDEST: Final = _page_of("ASC")

# Of a time that lasts the newest message is the first of the conversation, nearly always, unless nothing was said since
# it began, which is asked before all is gone through; of one that is over it is among the last of the last versions, as
# ids and versions may be out of order. Unread is what others sent after the place up to which everything is read and
# what has no read receipt of its own, among the newest 1,000 messages up to that one: what is later is for others.
_CHATS: Final = """
    SELECT t.n, unread.count, {stored}
    FROM unnest(%b, %b, %b, %b, %b) AS t (n, conversation_id, first, last, left_version)
    CROSS JOIN LATERAL (
        SELECT x.* FROM conversations x WHERE x.user_id = %b AND x.conversation_id = t.conversation_id LIMIT 1
    ) c
    LEFT JOIN LATERAL (
        SELECT seen.* FROM unnest((%b)[t.first : t.last], (%b)[t.first : t.last]) AS w (joined_version, left_version)
        CROSS JOIN LATERAL (
            (SELECT m.* FROM messages m {view}
            WHERE w.left_version = {for_ever} AND m.conversation_id = t.conversation_id
                AND m.members_version >= w.joined_version AND {is_seen} AND {not_cleared}
                AND EXISTS (
                    SELECT FROM messages x
                    WHERE x.conversation_id = t.conversation_id AND x.members_version >= w.joined_version)
            ORDER BY m.message_id DESC LIMIT 1)
            UNION ALL
            (SELECT m.* FROM messages m {view}
            WHERE w.left_version < {for_ever} AND m.conversation_id = t.conversation_id
                AND m.members_version >= w.joined_version AND m.members_version < w.left_version
                AND {is_seen} AND {not_cleared}
            ORDER BY m.members_version DESC, m.message_id DESC LIMIT 20)
        ) seen
        ORDER BY seen.message_id DESC LIMIT 1
    ) m ON true
    {view} {before} {receipt} {reactions}
    CROSS JOIN LATERAL (
        SELECT count(*) AS count FROM (
            SELECT FROM (
                SELECT x.* FROM messages x
                WHERE x.conversation_id = t.conversation_id AND x.message_id <= m.message_id
                    AND x.message_id > greatest(c.read_upto, c.cleared_floor, '00000000-0000-0000-0000-000000000000')
                ORDER BY x.message_id DESC LIMIT 1000
            ) m
            {view}
            WHERE m.sender_id <> c.user_id AND {is_seen} AND NOT {is_revoked} AND {not_cleared}
                AND EXISTS (
                    SELECT FROM unnest((%b)[t.first : t.last], (%b)[t.first : t.last]) AS w (joined, gone)
                    WHERE m.members_version >= w.joined AND m.members_version < w.gone)
                AND NOT EXISTS (
                    SELECT FROM group_receipts s
                    WHERE s.conversation_id = m.conversation_id AND s.message_id = m.message_id
                        AND s.user_id = c.user_id AND s.state >= 3 OFFSET 0)
            LIMIT 100
        ) counted
    ) unread
"""
_LIST: Final = woven(
    _CHATS.replace("{stored}", STORED),
    reader="c.user_id",
    left="t.left_version",
    receipt=_RECEIPT.format(reader="c.user_id"),
    not_cleared=_NOT_CLEARED.format(line="c"),
    for_ever=FOR_EVER,
)


class _Range(NamedTuple):
    """One time in a group, and between which ids its messages are."""

    joined_version: int
    left_version: int
    low: bytes
    high: bytes


async def read_page(connections: Connections, read: PageRead, windows: Sequence[Window]) -> list[StoredMessage]:
    """Reads messages of a group, newest first; one round trip more for who has not been there from the first day on."""
    ranges = await _ranges(connections, read.conversation_id, windows)
    if not ranges:
        return []
    return await read_whole_page(connections, read, partial(_paging, ranges, left_version_of(windows) or FOR_EVER))


def _paging(ranges: Sequence[_Range], left_version: int, read: PageRead) -> Statement:
    group, limit = Uuid(read.conversation_id), Int4(read.limit)
    parameters = (
        Uuid(read.owner_id),
        Int8(left_version),
        group,
        int8s([one.joined_version for one in ranges]),
        int8s([one.left_version for one in ranges]),
        uuids([one.low for one in ranges]),
        uuids([one.high for one in ranges]),
        group,
        Uuid(read.after or _FIRST_ID),
        Uuid(read.before or _LAST_ID),
        limit,
        limit,
    )
    return Statement(_OLDEST if read.after else _NEWEST, parameters)


async def read_chats(connections: Connections, owner_id: UserId, lines: Sequence[GroupLine]) -> list[GroupChat]:
    """Reads what chat lists show of many groups."""
    chats = [GroupChat(None, 0)] * len(lines)
    rows = await connections.run(listing(owner_id, lines))
    for n, chat in connections.unreadable.each(_chat, rows, _without_message):
        chats[n] = chat
    return chats


def listing(owner_id: UserId, lines: Sequence[GroupLine]) -> Statement:
    """Returns the statement that reads them."""
    windows = [window for line in lines for window in line.windows]
    lasts = [sum(len(line.windows) for line in lines[: n + 1]) for n in range(len(lines))]
    joined = int8s([window.joined_version for window in windows])
    left = int8s([window.left_version or FOR_EVER for window in windows])
    parameters = (
        int4s(range(len(lines))),
        uuids([line.group_id for line in lines]),
        int4s([last - len(line.windows) + 1 for last, line in zip(lasts, lines, strict=True)]),
        int4s(lasts),
        int8s([left_version_of(line.windows) or FOR_EVER for line in lines]),
        Uuid(owner_id),
        joined,
        left,
        joined,
        left,
    )
    return Statement(_LIST, parameters)


def _chat(row: Row) -> tuple[int, GroupChat]:
    n, unread_count, *message = row
    return int(n), GroupChat(stored_of(tuple(message)) if message[0] is not None else None, unread_count)


def _without_message(row: Row) -> tuple[int, GroupChat]:
    """Reads a line whose newest message cannot be read."""
    n, unread_count, *_ = row
    return int(n), GroupChat(None, unread_count)


async def _ranges(connections: Connections, group_id: ConversationId, windows: Sequence[Window]) -> list[_Range]:
    """Returns between which ids the messages of each time are; without the times in which nothing was said."""
    whole = [_Range(window.joined_version, window.left_version or FOR_EVER, _FIRST_ID, _LAST_ID) for window in windows]
    if all(one.joined_version <= 1 and one.left_version == FOR_EVER for one in whole):
        return whole
    parameters = (
        Uuid(group_id),
        Uuid(group_id),
        int4s(range(len(whole))),
        int8s([one.joined_version for one in whole]),
        int8s([one.left_version for one in whole]),
    )
    rows = await connections.run(Statement(_BOUNDS, parameters))
    return [
        whole[int(n)]._replace(low=_moved(low, -LATE_MS), high=_high(whole[int(n)], high))
        for n, low, high in rows
        if low is not None and high is not None
    ]


def _high(one: _Range, last: bytes) -> bytes:
    return _LAST_ID if one.left_version == FOR_EVER else _moved(last, LATE_MS)


def _moved(message_id: bytes, by_ms: int) -> bytes:
    moved_ms = max(int.from_bytes(message_id[:_TIME_BYTES], "big") + by_ms, 0)
    return moved_ms.to_bytes(_TIME_BYTES, "big") + bytes(10)
