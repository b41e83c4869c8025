"""Reads pages of conversations and windows of chat lists."""

from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from svc_message.adapters.ledger_cassandra.actions import Reactions, read_reactions
from svc_message.adapters.ledger_cassandra.bodies import read_between
from svc_message.adapters.ledger_cassandra.bounds import Bounds
from svc_message.adapters.ledger_cassandra.connection import Connection
from svc_message.adapters.ledger_cassandra.copies import Copy, Stretch, copies_of, newest_of, read_stretches, walk
from svc_message.adapters.ledger_cassandra.lines import (
    LATE_MS,
    PINNED_SLOT,
    TOUCH_INTERVAL_MS,
    Line,
    read_lines,
    read_list,
    slot_of,
    walk_list,
)
from svc_message.model import (
    NO_POSITION,
    Chat,
    ChatCursor,
    ChatPage,
    ConversationId,
    MessageId,
    PageRead,
    ReceiptState,
    StoredMessage,
    UserId,
)
from svc_message.model.action import Reaction
from svc_message.protocol import came_ms, is_group, position_at

REACTIONS_SHOWN: Final = 50
UNREAD_SHOWN: Final = 100
UNREAD_SEARCHED: Final = 1000
_NEWEST_SEARCHED: Final = 2
"""How many rows are read where the newest is wanted: the first is it, nearly always."""
_LATER_SEARCHED: Final = 100
"""Among how many of the newest messages of a chat one is looked for that came after it was archived."""
_NONE_STOOD: Final[Mapping[tuple[ConversationId, MessageId], Reactions]] = {}


class ChatsAsked(NamedTuple):
    """Asks for a window of one of the lists of a user."""

    owner_id: UserId
    after: ChatCursor | None
    limit: int
    is_archived: bool


class _Shown(NamedTuple):
    """A line with what its chat list shows of it."""

    line: Line
    newest: Copy | None
    unread_count: int


async def read_page(connection: Connection, bounds: Bounds, read: PageRead) -> list[StoredMessage]:
    """Reads messages of a conversation, newest first."""
    (line,) = await read_lines(connection, [(read.owner_id, read.conversation_id)])
    if line is None:
        return []
    now_ms = bounds.now_ms()
    after = max(read.after, line.cleared_floor)
    stretch = Stretch(read.owner_id, read.conversation_id, line.buckets, after, read.before)
    found: list[Copy] = []
    async for copy in walk(connection, stretch, read.limit, is_oldest_first=bool(read.after)):
        if shows(line, copy, now_ms):
            found.append(copy)
            if len(found) == read.limit:
                break
    if read.after:
        found.reverse()
    return await stored(connection, read.owner_id, [(read.conversation_id, copy) for copy in found])


def shows(line: Line, copy: Copy, now_ms: int) -> bool:
    """Tells whether a user sees a message and has not cleared it."""
    header = copy.header
    return header is not None and copy.is_seen(now_ms) and line.shows(copy.message_id, header.accepted_ms)


async def stored(
    connection: Connection,
    reader_id: UserId,
    copies: Sequence[tuple[ConversationId, Copy]],
    stood: Mapping[tuple[ConversationId, MessageId], Reactions] = _NONE_STOOD,
) -> list[StoredMessage]:
    """Returns messages with how far they have come, and with reactions, in order; `stood` are those not to be read."""
    reacted = [
        (conversation_id, copy.message_id)
        for conversation_id, copy in copies
        if copy.is_reacted and not copy.revoked_ms and (conversation_id, copy.message_id) not in stood
    ]
    reactions = {**await read_reactions(connection, reacted), **stood}
    return [
        StoredMessage(
            copy.event(conversation_id, NO_POSITION),
            _state(copy),
            copy.delivered_ms,
            copy.read_ms,
            _reactions(reader_id, reactions.get((conversation_id, copy.message_id), {})),
        )
        for conversation_id, copy in copies
    ]


async def list_chats(connection: Connection, bounds: Bounds, asked: ChatsAsked, read_whole: int) -> ChatPage:
    """Reads a window of a chat list; a list of at most so many chats is read whole.

    Windows are cut by the time that the list knows, which may be a minute behind; inside a window the newest messages
    themselves decide.
    """
    owner_id, limit = asked.owner_id, asked.limit
    lines = await read_list(connection, owner_id, read_whole + 1)
    listed = await _listed(connection, asked, lines) if len(lines) <= read_whole else await _near(connection, asked)
    chosen = sorted(listed, key=_place)[:limit]
    shown = await _shown(connection, owner_id, chosen, bounds.now_ms())
    chats = await _chats(connection, owner_id, shown)
    chats.sort(key=_newest, reverse=True)
    if len(listed) <= limit or not chosen:
        return ChatPage(chats, None)
    last = chosen[-1]
    return ChatPage(chats, ChatCursor(last.last_ms, last.conversation_id, last.pinned_ms))


async def _near(connection: Connection, asked: ChatsAsked) -> list[Line]:
    """Returns of a long list the lines of a window, and some that come after it, if any do.

    The list is gone through slot by slot. What is met in a slot, and came to stand in an older one, is not counted
    before that: others stand between.
    """
    after, listed = asked.after, list[Line]()
    begin = PINNED_SLOT if after is None else slot_of(after.last_ms, after.pinned_ms)
    async for slot, lines in walk_list(connection, asked.owner_id, begin, is_archived=asked.is_archived):
        listed += await _listed(connection, asked, lines)
        passed = [line for line in listed if line.slot >= slot]
        if len(passed) > asked.limit:
            return passed
    return listed


async def _listed(connection: Connection, asked: ChatsAsked, lines: Sequence[Line]) -> list[Line]:
    """Returns those of some lines that stand in a list, and after its cursor."""
    found = [await woken(connection, asked.owner_id, line) for line in lines if line.last_ms]
    listed = [line for line in found if line.is_archived == asked.is_archived]
    if asked.after is None:
        return listed
    end = (-asked.after.pinned_ms, -asked.after.last_ms, asked.after.conversation_id)
    return [line for line in listed if _place(line) > end]


async def woken(connection: Connection, owner_id: UserId, line: Line) -> Line:
    """Looks whether somebody wrote to what was archived without moving its line: that is left out for a minute.

    The line of a group is as old as its message is here, that of two people as old as the id of it.
    """
    is_of_group = is_group(line.conversation_id)
    behind_ms = TOUCH_INTERVAL_MS if is_of_group else TOUCH_INTERVAL_MS + LATE_MS
    if not line.is_archived or line.archived_ms - line.last_ms > behind_ms:
        return line
    if is_of_group:
        found = await _left_out(connection, line)
    else:
        # What is newer by its id may have come before.
        after = position_at(line.archived_ms - LATE_MS)
        stretch = Stretch(owner_id, line.conversation_id, line.buckets, after)
        (found,) = await read_stretches(connection, [stretch], _LATER_SEARCHED)
    is_later = any(copy.header is not None and copy.header.accepted_ms > line.archived_ms for copy in found)
    return line._replace(archived_ms=0) if is_later else line


async def _left_out(connection: Connection, line: Line) -> list[Copy]:
    """Returns what was said in a group to the owner of a line within the minute in which the line is not moved.

    Who is in the group is not known here. What goes to members of another version than what moved the line moves it at
    once for all of them, and later than a minute so does everything: what has not was for others.
    """
    start, end_ms = position_at(line.last_ms - LATE_MS), line.last_ms + TOUCH_INTERVAL_MS
    # What moved the line may lie below all that are read of those around it.
    bounds = [(start, position_at(line.last_ms + 1)), (start, position_at(end_ms))]
    bodies = await read_between(connection, line.conversation_id, bounds, _LATER_SEARCHED)
    said = [
        (came_ms(body.message_id, body.header.accepted_ms), body.header.members_version, body)
        for body in bodies
        if body.header is not None
    ]
    versions = {version for came, version, _ in said if came <= line.last_ms}
    return [body for came, version, body in said if came < end_ms and version in versions]


async def _shown(connection: Connection, owner_id: UserId, lines: Sequence[Line], now_ms: int) -> list[_Shown]:
    """Reads the newest message of each line, and counts what is unread where there may be something.

    What is to be shown of a group depends on the times of its members, and is read apart.
    """
    direct = [line for line in lines if bytes(line.peer_id) != line.conversation_id and line.buckets]
    rows = await connection.read(
        [newest_of((owner_id, line.conversation_id, max(line.buckets)), _NEWEST_SEARCHED) for line in direct]
    )
    newest = {
        line.conversation_id: await _newest_of(connection, owner_id, line, (copies_of(connection, first), now_ms))
        for line, first in zip(direct, rows, strict=True)
    }
    unread = await _unread(connection, owner_id, [(line, newest[line.conversation_id]) for line in direct], now_ms)
    return [_Shown(line, newest.get(line.conversation_id), unread.get(line.conversation_id, 0)) for line in lines]


async def _newest_of(
    connection: Connection, owner_id: UserId, line: Line, first: tuple[list[Copy], int]
) -> Copy | None:
    """Returns the newest message of a line that is shown: one of the first rows, nearly always."""
    copies, now_ms = first
    for copy in copies:
        if shows(line, copy, now_ms):
            return copy
    stretch = Stretch(owner_id, line.conversation_id, line.buckets, after=line.cleared_floor)
    async for copy in walk(connection, stretch, UNREAD_SHOWN):
        if shows(line, copy, now_ms):
            return copy
    return None


async def _unread(
    connection: Connection, owner_id: UserId, lines: Sequence[tuple[Line, Copy | None]], now_ms: int
) -> dict[ConversationId, int]:
    """Counts what is unread among the 1,000 newest messages of each line, up to 100."""
    stretches: dict[ConversationId, tuple[Line, Stretch]] = {}
    for line, newest in lines:
        start = max(line.read_upto, line.cleared_floor)
        if newest is not None and newest.message_id > start and line.peer_id != owner_id:
            stretch = Stretch(owner_id, line.conversation_id, line.buckets, after=start)
            stretches[line.conversation_id] = (line, stretch)
    found = await read_stretches(connection, [stretch for _, stretch in stretches.values()], UNREAD_SEARCHED)
    return {
        line.conversation_id: min(sum(_is_unread(line, copy, now_ms) for copy in copies), UNREAD_SHOWN)
        for (line, _), copies in zip(stretches.values(), found, strict=True)
    }


def _is_unread(line: Line, copy: Copy, now_ms: int) -> bool:
    header = copy.header
    if header is None or header.sender_id != line.peer_id or copy.revoked_ms or copy.read_ms:
        return False
    return shows(line, copy, now_ms)


async def _chats(connection: Connection, owner_id: UserId, shown: Sequence[_Shown]) -> list[Chat]:
    newest = [(one.line.conversation_id, one.newest) for one in shown if one.newest is not None]
    messages = await stored(connection, owner_id, newest)
    last = {message.message.conversation_id: message for message in messages}
    return [
        Chat(
            line.conversation_id,
            line.peer_id,
            last.get(line.conversation_id),
            unread_count,
            line.read_upto,
            line.settings(),
            line.settings_position,
        )
        for line, _, unread_count in shown
    ]


def _state(copy: Copy) -> ReceiptState:
    if copy.read_ms:
        return ReceiptState.READ
    return ReceiptState.DELIVERED if copy.delivered_ms else ReceiptState.SENT


def _reactions(reader_id: UserId, reactions: Reactions) -> tuple[Reaction, ...]:
    """Returns what one reader sees of reactions, the newest first; of its own the greater stands."""
    standing: dict[UserId, Reaction] = {}
    for (user_id, is_withheld), (reaction_id, reacted_ms, envelope) in reactions.items():
        if is_withheld and user_id != reader_id:
            continue
        rival = standing.get(user_id)
        if rival is None or rival.reaction_id < reaction_id:
            standing[user_id] = Reaction(reaction_id, user_id, reacted_ms, envelope)
    seen = sorted((one for one in standing.values() if one.envelope), reverse=True)
    return tuple(seen[:REACTIONS_SHOWN])


def _place(line: Line) -> tuple[int, int, bytes]:
    return -line.pinned_ms, -line.last_ms, line.conversation_id


def _newest(chat: Chat) -> tuple[int, bytes]:
    return chat.settings.pinned_ms, b"" if chat.last_message is None else chat.last_message.message.message_id
