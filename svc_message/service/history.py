"""Reads history: pages of a conversation and windows of the chat list, with tokens that belong to one list."""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from svc_message.errors import InvalidPageTokenError, NotInConversationError
from svc_message.model import ChatCursor, ConversationId, PageRead
from svc_message.model.group import GroupLine
from svc_message.protocol import is_group
from svc_message.service.token import open_token, page_size, seal_token

if TYPE_CHECKING:
    from svc_message.model import Chat, ChatPage, StoredMessage, UserId
    from svc_message.model.group import GroupChat
    from svc_message.ports import MessageStore
    from svc_message.ports.group import GroupStore
    from svc_message.service.sight import Sight

MAX_PAGE_BYTES = 512 * 1024
"""Of the envelopes of a page: a page of large messages ends earlier, so that it fits a frame."""
_ID_BYTES = 16
_CURSOR = Struct("!q16sq")


class PageAsked(NamedTuple):
    """Asks for a page of a conversation, as one user sees it."""

    owner_id: UserId
    conversation_id: ConversationId
    before: bytes
    """A message id, or empty."""
    after: bytes
    """The same."""
    size: int
    """0 for the default."""
    token: str
    """From the page before; empty for the first."""


class HistoryPage(NamedTuple):
    """Messages, newest first, and the token of the next page, empty for none."""

    messages: list[StoredMessage]
    next_page_token: str


class ChatWindow(NamedTuple):
    """Chats, newest first, and the token of the next window, empty for none."""

    page: ChatPage
    next_page_token: str


class Reading:
    """Answers what was said."""

    def __init__(self, store: MessageStore, groups: GroupStore, sight: Sight) -> None:
        self._store = store
        self._groups = groups
        self._sight = sight

    async def page(self, asked: PageAsked) -> HistoryPage:
        """Returns a page of a conversation; raises `InvalidPageTokenError` and `NotInConversationError`."""
        owner_id, conversation_id, before, after, size, token = asked
        scope = b"page" + owner_id + conversation_id + (b"after" if after else b"before")
        if token:
            place = open_token(scope, token, _ID_BYTES)
            before, after = (before, place) if after else (place, b"")
        limit = page_size(size)
        rows = await self._read(PageRead(owner_id, conversation_id, before, after, limit + 1))
        # One more than asked for was read, to know that there is more: it is at the far end of the direction.
        kept = _fitting(rows[::-1] if after else rows, limit)
        token = seal_token(scope, kept[-1].message.message_id) if len(kept) < len(rows) else ""
        return HistoryPage(kept[::-1] if after else kept, token)

    async def chats(self, owner_id: UserId, size: int, token: str, *, is_archived: bool = False) -> ChatWindow:
        """Returns a window of the owner's chat list; raises `InvalidPageTokenError`."""
        scope = (b"archived" if is_archived else b"chats") + owner_id
        after = _place_of(open_token(scope, token, _CURSOR.size)) if token else None
        limit = page_size(size)
        page = await self._list(owner_id, after, limit, is_archived=is_archived)
        while limit > 1 and _weight(page) > MAX_PAGE_BYTES:
            limit //= 2
            page = await self._list(owner_id, after, limit, is_archived=is_archived)
        cursor = page.next_cursor
        if cursor is None:
            return ChatWindow(page, "")
        return ChatWindow(page, seal_token(scope, _CURSOR.pack(*cursor)))

    async def _read(self, read: PageRead) -> list[StoredMessage]:
        if not is_group(read.conversation_id):
            return await self._store.read_page(read)
        pair = (read.conversation_id, read.owner_id)
        windows = (await self._sight.windows([pair]))[pair]
        if not windows:
            raise NotInConversationError
        return await self._groups.read_page(read, windows)

    async def _list(self, owner_id: UserId, after: ChatCursor | None, limit: int, *, is_archived: bool) -> ChatPage:
        """Reads a window, and what it shows of groups, which depends on when the owner was a member."""
        page = await self._store.list_chats(owner_id, after, limit, is_archived=is_archived)
        groups = [chat.conversation_id for chat in page.chats if is_group(chat.conversation_id)]
        if not groups:
            return page
        windows = await self._sight.windows((group_id, owner_id) for group_id in groups)
        lines = [GroupLine(group_id, windows[group_id, owner_id]) for group_id in groups]
        shown = dict(zip(groups, await self._groups.read_chats(owner_id, lines), strict=True))
        chats = [_filled(chat, shown.get(chat.conversation_id)) for chat in page.chats]
        return page._replace(chats=sorted(chats, key=_newest, reverse=True))


def _filled(chat: Chat, group: GroupChat | None) -> Chat:
    if group is None:
        return chat
    return chat._replace(last_message=group.last_message, unread_count=group.unread_count)


def _newest(chat: Chat) -> tuple[int, bytes]:
    return chat.settings.pinned_ms, b"" if chat.last_message is None else chat.last_message.message.message_id


def _place_of(raw: bytes) -> ChatCursor:
    last_ms, conversation_id, pinned_ms = _CURSOR.unpack(raw)
    if min(last_ms, pinned_ms) < 0:
        raise InvalidPageTokenError
    return ChatCursor(last_ms, ConversationId(conversation_id), pinned_ms)


def _fitting(rows: list[StoredMessage], limit: int) -> list[StoredMessage]:
    """Returns the first rows, as many as a page may hold; at least one if there is one."""
    size = 0
    for count, row in enumerate(rows[:limit]):
        size += _size_of(row)
        if size > MAX_PAGE_BYTES and count:
            return rows[:count]
    return rows[:limit]


def _weight(page: ChatPage) -> int:
    return sum(_size_of(chat.last_message) for chat in page.chats if chat.last_message is not None)


def _size_of(stored: StoredMessage) -> int:
    return len(stored.message.envelope) + sum(len(reaction.envelope) for reaction in stored.reactions)
