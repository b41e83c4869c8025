"""Reads what members may see of groups: pages of history, and what stands in a chat list."""

from collections.abc import Sequence
from typing import Final

from svc_message.adapters.ledger_cassandra.actions import Reactions
from svc_message.adapters.ledger_cassandra.bodies import BodyKey
from svc_message.adapters.ledger_cassandra.bounds import Bounds
from svc_message.adapters.ledger_cassandra.connection import Connection
from svc_message.adapters.ledger_cassandra.contents import read_contents
from svc_message.adapters.ledger_cassandra.copies import Copy
from svc_message.adapters.ledger_cassandra.group_walk import Sight, Walk, read_many, read_newest, sights, walk
from svc_message.adapters.ledger_cassandra.history import UNREAD_SEARCHED, UNREAD_SHOWN, shows, stored
from svc_message.adapters.ledger_cassandra.lines import Line, no_line, read_lines
from svc_message.model import ConversationId, MessageId, PageRead, StoredMessage, UserId
from svc_message.model.group import GroupChat, GroupLine, Window

_NEWEST_SEARCHED: Final = 2
"""How many rows are read where the newest is wanted: the first is it, nearly always."""


async def read_page(
    connection: Connection, bounds: Bounds, read: PageRead, windows: Sequence[Window]
) -> list[StoredMessage]:
    """Reads messages of a group, newest first."""
    place = (read.owner_id, read.conversation_id)
    (sight,) = await sights(connection, [(*place, windows)])
    (line,) = await read_lines(connection, [place])
    now_ms, line = bounds.now_ms(), line or no_line(read.conversation_id)
    is_oldest_first = bool(read.after)
    way = Walk(read.limit, max(read.after, line.cleared_floor), read.before, is_oldest_first)
    found: list[Copy] = []
    async for copy in walk(connection, sight, way):
        if shows(line, copy, now_ms):
            found.append(copy)
            if len(found) == read.limit:
                break
    if is_oldest_first:
        found.reverse()
    return await _stored(connection, read.owner_id, [(sight, copy) for copy in found])


async def read_chats(
    connection: Connection, bounds: Bounds, owner_id: UserId, lines: Sequence[GroupLine]
) -> list[GroupChat]:
    """Reads what chat lists show of many groups."""
    seen = await sights(connection, [(owner_id, line.group_id, line.windows) for line in lines])
    found = await read_lines(connection, [(owner_id, line.group_id) for line in lines])
    # Who has no line has no such chat.
    chats = [(n, sight, line) for n, (sight, line) in enumerate(zip(seen, found, strict=True)) if line is not None]
    now_ms = bounds.now_ms()
    first = await read_newest(connection, [sight for _, sight, _ in chats], _NEWEST_SEARCHED)
    newest = [
        await _newest_of(connection, sight, line, (copies, now_ms))
        for (_, sight, line), copies in zip(chats, first, strict=True)
    ]
    unread = await _unread(connection, [chat[1:] for chat in chats], newest, now_ms)
    shown = [(sight, copy) for (_, sight, _), copy in zip(chats, newest, strict=True) if copy is not None]
    messages = iter(await _stored(connection, owner_id, shown))
    answers = [GroupChat(None, 0)] * len(lines)
    for (n, _, _), copy, count in zip(chats, newest, unread, strict=True):
        answers[n] = GroupChat(None if copy is None else next(messages), count)
    return answers


async def _stored(
    connection: Connection, reader_id: UserId, copies: Sequence[tuple[Sight, Copy]]
) -> list[StoredMessage]:
    """Returns messages with reactions, in order; of who has left the group, as they stood then.

    Nothing is withheld in a group, so that all edits are in its body.
    """
    left = {
        BodyKey(sight.group_id, copy.message_id): sight.left_version
        for sight, copy in copies
        if sight.left_version and not copy.revoked_ms and (copy.edit is not None or copy.is_reacted)
    }
    contents = await read_contents(connection, left)
    stood: dict[tuple[ConversationId, MessageId], Reactions] = {
        key: contents.reactions(key, version) for key, version in left.items()
    }
    shown = [(BodyKey(sight.group_id, copy.message_id), copy) for sight, copy in copies]
    return await stored(
        connection,
        reader_id,
        [(key.conversation_id, contents.body(key, copy, left[key]) if key in left else copy) for key, copy in shown],
        stood,
    )


async def _newest_of(connection: Connection, sight: Sight, line: Line, first: tuple[list[Copy], int]) -> Copy | None:
    """Returns the newest message of a group that is shown: one of the first rows, nearly always."""
    copies, now_ms = first
    for copy in copies:
        if shows(line, copy, now_ms):
            return copy
    async for copy in walk(connection, sight, Walk(UNREAD_SHOWN, after=line.cleared_floor)):
        if shows(line, copy, now_ms):
            return copy
    return None


async def _unread(
    connection: Connection, chats: Sequence[tuple[Sight, Line]], newest: Sequence[Copy | None], now_ms: int
) -> list[int]:
    """Counts what is unread among the 1,000 newest messages of each group, up to 100."""
    asked: dict[int, tuple[Sight, Walk]] = {}
    for n, ((sight, line), copy) in enumerate(zip(chats, newest, strict=True)):
        start = max(line.read_upto, line.cleared_floor)
        if copy is not None and copy.message_id > start:
            asked[n] = (sight, Walk(UNREAD_SEARCHED, after=start, is_whole=False))
    counts = [0] * len(chats)
    for n, copies in zip(asked, await read_many(connection, list(asked.values())), strict=True):
        sight, line = chats[n]
        counts[n] = min(sum(_is_unread(sight, line, copy, now_ms) for copy in copies), UNREAD_SHOWN)
    return counts


def _is_unread(sight: Sight, line: Line, copy: Copy, now_ms: int) -> bool:
    header = copy.header
    if header is None or header.sender_id == sight.user_id or copy.revoked_ms or copy.read_ms:
        return False
    return shows(line, copy, now_ms)
