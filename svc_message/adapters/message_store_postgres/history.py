"""Reads pages of conversations and windows of chat lists."""

from collections.abc import Callable, Iterator
from struct import Struct
from typing import Final

from psycopg.types.numeric import Int4, Int8

from svc_message.adapters.message_store_postgres.arrays import Uuid
from svc_message.adapters.message_store_postgres.connections import Connections, Row, Statement
from svc_message.adapters.message_store_postgres.seeing import woven
from svc_message.adapters.message_store_postgres.settings import settings_of, settings_position_of
from svc_message.model import (
    NO_POSITION,
    Chat,
    ChatCursor,
    ChatPage,
    ConversationId,
    MessageEvent,
    MessageId,
    PageRead,
    ReceiptState,
    StoredMessage,
    UserId,
)
from svc_message.model.action import Reaction

_FIRST_ID: Final = bytes(16)
_LAST_ID: Final = b"\xff" * 16
_FIRST_PLACE: Final = ChatCursor(2**62, ConversationId(_FIRST_ID), 2**62)
_CHAT_COLUMNS: Final = 6
_AHEAD_MS: Final = 900_000
"""How far a line may be behind: a minute, ten more for an old id, and what clocks may be off."""
# As the statements write it with uuid_send, int8send and int4send.
_REACTION: Final = Struct("!16s16sqi")
_STATES: Final = {state.value: state for state in ReceiptState}
_LAST_STATE: Final = max(_STATES)

# The recipient's receipt is what the peer did with the owner's messages, and what the owner did with the peer's.
STORED: Final = """
    m.message_id, m.conversation_id, m.sender_id, m.sender_device_id, m.recipient_id, m.accepted_ms, {content},
    CASE WHEN r.is_read_told OR m.sender_id <> {reader} THEN coalesce(r.state, 1)
        ELSE least(coalesce(r.state, 1), 2) END,
    coalesce(r.delivered_ms, 0),
    CASE WHEN r.is_read_told OR m.sender_id <> {reader} THEN coalesce(r.read_ms, 0) ELSE 0 END, reacted.packed
"""
_RECEIPT: Final = """
    LEFT JOIN receipts r ON r.conversation_id = m.conversation_id AND r.message_id = m.message_id
        AND r.user_id = m.recipient_id
"""
_PAGE: Final = """
    WITH cleared AS MATERIALIZED (SELECT * FROM conversations WHERE user_id = %b AND conversation_id = %b)
    SELECT {message}
    FROM (
        SELECT m.* FROM (SELECT %b AS user_id) owner
        CROSS JOIN messages m {view}
        WHERE m.conversation_id = %b AND m.message_id > greatest(%b, (SELECT k.cleared_floor FROM cleared k))
            AND m.message_id < %b AND {is_seen}
            AND (m.message_id > (SELECT k.cleared_upto FROM cleared k)
                OR m.accepted_ms > (SELECT k.cleared_ms FROM cleared k)) IS NOT FALSE
            AND (m.sender_id = owner.user_id OR m.recipient_id = owner.user_id AND NOT m.is_withheld)
        ORDER BY m.message_id {direction} LIMIT %b
    ) m
    CROSS JOIN (SELECT %b AS user_id) owner
    {view} {receipt} {reactions}
"""
_NEWEST: Final = woven(_PAGE.replace("{message}", STORED), reader="owner.user_id", direction="DESC", receipt=_RECEIPT)
_OLDEST: Final = woven(_PAGE.replace("{message}", STORED), reader="owner.user_id", direction="ASC", receipt=_RECEIPT)

# What is to be shown of a group depends on the times of its members, and is read apart. In a direct conversation
# unread is what the peer sent after the place up to which everything is read and what has no read receipt of its own,
# among the newest 1,000 messages up to the newest that is shown. What lies well after the time of the line is withheld
# from its owner, and may be any number of messages.
_CHATS: Final = """
    SELECT c.conversation_id, c.peer_id, c.last_ms, c.read_upto, unread.count, {packed_settings}, {message}
    FROM (
        SELECT *, (lpad(to_hex(last_ms + {ahead_ms}), 12, '0') || repeat('f', 20))::uuid AS end_id FROM conversations
        WHERE user_id = %b AND archived_ms {archived} 0 AND last_ms > 0
            AND (-pinned_ms, -last_ms, conversation_id) > (%b, %b, %b)
        ORDER BY -pinned_ms, -last_ms, conversation_id LIMIT %b
    ) c
    LEFT JOIN LATERAL (
        SELECT m.* FROM messages m {view}
        WHERE m.conversation_id = c.conversation_id AND m.message_id <= c.end_id AND {is_seen}
            AND m.message_id > coalesce(c.cleared_floor, '00000000-0000-0000-0000-000000000000')
            AND (m.message_id > c.cleared_upto OR m.accepted_ms > c.cleared_ms) IS NOT FALSE
            AND (m.sender_id = c.user_id OR m.recipient_id = c.user_id AND NOT m.is_withheld)
            AND c.peer_id <> c.conversation_id
        ORDER BY m.message_id DESC LIMIT 1
    ) m ON true
    {view} {receipt} {reactions}
    CROSS JOIN LATERAL (
        SELECT count(*) AS count FROM (
            SELECT FROM (
                SELECT x.* FROM messages x
                WHERE x.conversation_id = c.conversation_id AND x.message_id <= m.message_id
                    AND x.message_id > greatest(
                        c.read_upto, c.cleared_floor, '00000000-0000-0000-0000-000000000000')
                ORDER BY x.message_id DESC LIMIT 1000
            ) m
            {view}
            WHERE m.sender_id = c.peer_id AND c.peer_id <> c.user_id AND NOT m.is_withheld
                AND {is_seen} AND NOT {is_revoked}
                AND (m.message_id > c.cleared_upto OR m.accepted_ms > c.cleared_ms) IS NOT FALSE
                AND NOT EXISTS (
                    SELECT FROM receipts s
                    WHERE s.conversation_id = m.conversation_id AND s.message_id = m.message_id
                        AND s.user_id = c.user_id AND s.state >= 3 OFFSET 0)
            LIMIT 100
        ) counted
    ) unread
"""
_LIST: Final = woven(
    _CHATS.replace("{message}", STORED), reader="c.user_id", receipt=_RECEIPT, archived="=", ahead_ms=_AHEAD_MS
)
_LIST_ARCHIVED: Final = woven(
    _CHATS.replace("{message}", STORED), reader="c.user_id", receipt=_RECEIPT, archived=">", ahead_ms=_AHEAD_MS
)


async def read_page(connections: Connections, read: PageRead) -> list[StoredMessage]:
    """Reads messages of a conversation, newest first."""
    return await read_whole_page(connections, read, paging)


async def read_whole_page(
    connections: Connections, read: PageRead, statement_of: Callable[[PageRead], Statement]
) -> list[StoredMessage]:
    """Reads on behind what cannot be read, because a page that is shorter than asked for is the last; newest first."""
    messages: list[StoredMessage] = []
    while True:
        rows = await connections.run(statement_of(read))
        found = connections.unreadable.each(stored_of, rows)
        messages += found
        if len(rows) < read.limit or len(found) == len(rows):
            return sorted(messages, key=_message_id, reverse=True)
        ids = [row[0] for row in rows]
        place = {"after": max(ids)} if read.after else {"before": min(ids)}
        read = read._replace(limit=read.limit - len(found), **place)


def paging(read: PageRead) -> Statement:
    """Returns the statement that reads a page."""
    query = _OLDEST if read.after else _NEWEST
    owner = Uuid(read.owner_id)
    parameters = (
        owner,
        Uuid(read.conversation_id),
        owner,
        Uuid(read.conversation_id),
        Uuid(read.after or _FIRST_ID),
        Uuid(read.before or _LAST_ID),
        Int4(read.limit),
        owner,
    )
    return Statement(query, parameters)


async def list_chats(
    connections: Connections, owner_id: UserId, after: ChatCursor | None, limit: int, *, is_archived: bool
) -> ChatPage:
    """Reads a window of a chat list.

    Windows are cut by the time that the list knows, which may be a minute behind; inside a window the newest messages
    themselves decide.
    """
    rows = await connections.run(listing(owner_id, after, limit, is_archived=is_archived))
    rows.sort(key=_listed)
    has_more = len(rows) > limit
    rows = rows[:limit]
    chats = connections.unreadable.each(_chat, rows, _without_message)
    cursor = ChatCursor(rows[-1][2], rows[-1][0], chats[-1].settings.pinned_ms) if has_more and rows else None
    chats.sort(key=_newest, reverse=True)
    return ChatPage(chats, cursor)


def listing(owner_id: UserId, after: ChatCursor | None, limit: int, *, is_archived: bool) -> Statement:
    """Returns the statement that reads a window and one line more."""
    last_ms, conversation_id, pinned_ms = after or _FIRST_PLACE
    place = (Int8(-pinned_ms), Int8(-last_ms), Uuid(conversation_id))
    return Statement(_LIST_ARCHIVED if is_archived else _LIST, (Uuid(owner_id), *place, Int4(limit + 1)))


def stored_of(row: Row) -> StoredMessage:
    """Reads a message with how far it has come, as `STORED` names its columns; raises `LookupError` if it cannot."""
    *message, state, delivered_ms, read_ms, packed = row
    event = MessageEvent(NO_POSITION, *message)
    # States only rise: one that a later program has written lies beyond the last that is known.
    return StoredMessage(
        event, _STATES[min(state, _LAST_STATE)], delivered_ms, read_ms, tuple(_reactions(packed or b""))
    )


def _reactions(packed: bytes) -> Iterator[Reaction]:
    place = 0
    while place < len(packed):
        reaction_id, user_id, reacted_ms, length = _REACTION.unpack_from(packed, place)
        place += _REACTION.size + length
        yield Reaction(MessageId(reaction_id), UserId(user_id), reacted_ms, packed[place - length : place])


def _chat(row: Row) -> Chat:
    conversation_id, peer_id, _, read_upto, unread_count, settings = row[:_CHAT_COLUMNS]
    last = row[_CHAT_COLUMNS:]
    stored = stored_of(last) if last[0] is not None else None
    kept, position = settings_of(settings), settings_position_of(settings)
    return Chat(conversation_id, peer_id, stored, unread_count, read_upto or b"", kept, position)


def _without_message(row: Row) -> Chat:
    """Reads a line whose newest message cannot be read."""
    return _chat((*row[:_CHAT_COLUMNS], None))


def _message_id(stored: StoredMessage) -> bytes:
    return stored.message.message_id


def _newest(chat: Chat) -> tuple[int, bytes]:
    return chat.settings.pinned_ms, b"" if chat.last_message is None else chat.last_message.message.message_id


def _listed(row: Row) -> tuple[int, int, bytes]:
    return -settings_of(row[_CHAT_COLUMNS - 1]).pinned_ms, -row[2], row[0]
