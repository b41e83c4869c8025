"""Reads history: pages of a conversation and windows of the chat list, with tokens that belong to one list."""

from __future__ import annotations

import base64
import binascii
import hashlib
from struct import Struct
from typing import TYPE_CHECKING, NamedTuple

from svc_message.errors import InvalidPageTokenError
from svc_message.model import ChatCursor, ConversationId, PageRead
from svc_message.protocol import direct_conversation

if TYPE_CHECKING:
    from svc_message.model import ChatPage, StoredMessage, UserId
    from svc_message.ports import MessageStore

DEFAULT_PAGE = 50
MAX_PAGE = 200
MAX_PAGE_BYTES = 512 * 1024
"""Of the envelopes of a page: a page of large messages ends earlier, so that it fits a frame."""
_ID_BYTES = 16
_CHECK_BYTES = 8
_CURSOR = Struct("!q16sq")


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

    def __init__(self, store: MessageStore) -> None:
        self._store = store

    async def page(
        self, owner_id: UserId, peer_id: UserId, before: bytes, after: bytes, size: int, token: str
    ) -> HistoryPage:
        """Returns a page of the owner's conversation with a peer; raises `InvalidPageTokenError`."""
        conversation_id = direct_conversation(owner_id, peer_id)
        scope = b"page" + owner_id + conversation_id + (b"after" if after else b"before")
        if token:
            place = _open(scope, token, _ID_BYTES)
            before, after = (before, place) if after else (place, b"")
        limit = _size(size)
        rows = await self._store.read_page(PageRead(owner_id, conversation_id, before, after, limit + 1))
        # One more than asked for was read, to know that there is more: it is at the far end of the direction.
        kept = _fitting(rows[::-1] if after else rows, limit)
        token = _seal(scope, kept[-1].message.message_id) if len(kept) < len(rows) else ""
        return HistoryPage(kept[::-1] if after else kept, token)

    async def chats(self, owner_id: UserId, size: int, token: str, *, is_archived: bool = False) -> ChatWindow:
        """Returns a window of the owner's chat list; raises `InvalidPageTokenError`."""
        scope = (b"archived" if is_archived else b"chats") + owner_id
        after = _place_of(_open(scope, token, _CURSOR.size)) if token else None
        limit = _size(size)
        page = await self._store.list_chats(owner_id, after, limit, is_archived=is_archived)
        while limit > 1 and _weight(page) > MAX_PAGE_BYTES:
            limit //= 2
            page = await self._store.list_chats(owner_id, after, limit, is_archived=is_archived)
        cursor = page.next_cursor
        if cursor is None:
            return ChatWindow(page, "")
        return ChatWindow(page, _seal(scope, _CURSOR.pack(*cursor)))


def _place_of(raw: bytes) -> ChatCursor:
    last_ms, conversation_id, pinned_ms = _CURSOR.unpack(raw)
    return ChatCursor(last_ms, ConversationId(conversation_id), pinned_ms)


def _size(asked: int) -> int:
    return min(asked, MAX_PAGE) if asked > 0 else DEFAULT_PAGE


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


def _seal(scope: bytes, place: bytes) -> str:
    """Returns a token for a place: a checksum ties it to its list. What it may show is decided by the principal."""
    return base64.urlsafe_b64encode(place + _check(scope, place)).decode()


def _open(scope: bytes, token: str, length: int) -> bytes:
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidPageTokenError from None
    place = raw[:length]
    if len(raw) != length + _CHECK_BYTES or raw[length:] != _check(scope, place):
        raise InvalidPageTokenError
    return place


def _check(scope: bytes, place: bytes) -> bytes:
    return hashlib.blake2b(
        place, key=hashlib.blake2b(scope, digest_size=32).digest(), digest_size=_CHECK_BYTES
    ).digest()
