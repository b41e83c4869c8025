"""Pages of conversations and windows of the chat list, and tokens that belong to one list."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING

import pytest

from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.errors import InvalidPageTokenError
from svc_message.service.history import MAX_PAGE, MAX_PAGE_BYTES, Reading
from tests.svc_message.desk import Desk, ids, stranger
from tests.svc_message.fakes import ManualClock

if TYPE_CHECKING:
    from svc_message.model import NewMessage, UserId
    from svc_message.service.history import ChatWindow, HistoryPage


class Archive:
    """Five messages of Alice's to Bob, and one to each of two others."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.store = MemoryMessageStore(ManualClock())
        self.reading = Reading(self.store)
        self.messages: list[NewMessage] = []

    async def write(self, count: int) -> None:
        self.messages = [self.desk.write(str(number).encode()) for number in range(count)]
        await self.store.accept(self.messages)

    async def page(
        self,
        *,
        owner: UserId | None = None,
        peer: UserId | None = None,
        before: bytes = b"",
        after: bytes = b"",
        size: int = 2,
        token: str = "",
    ) -> HistoryPage:
        """Reads Bob's conversation with Alice unless said otherwise."""
        owner, peer = owner or self.desk.bob, peer or self.desk.alice
        return await self.reading.page(owner, peer, before, after, size, token)

    async def chats(self, *, size: int = 1, token: str = "", owner: UserId | None = None) -> ChatWindow:
        return await self.reading.chats(owner or self.desk.alice, size, token)


@pytest.fixture
async def archive() -> Archive:
    archive = Archive()
    await archive.write(5)
    return archive


async def test_pages_lead_from_the_newest_to_the_oldest(archive: Archive) -> None:
    first = await archive.page()
    second = await archive.page(token=first.next_page_token)
    third = await archive.page(token=second.next_page_token)

    found = [*first.messages, *second.messages, *third.messages]
    assert ids(found) == ids(archive.messages)[::-1]
    assert third.next_page_token == ""


async def test_pages_after_a_message_lead_to_the_newest(archive: Archive) -> None:
    oldest = archive.messages[0].message_id

    first = await archive.page(after=oldest)
    second = await archive.page(after=oldest, token=first.next_page_token)

    assert ids(first.messages) == ids(archive.messages[1:3])[::-1]
    assert ids(second.messages) == ids(archive.messages[3:])[::-1]
    assert second.next_page_token == ""


async def test_pages_between_two_messages_end_at_the_second(archive: Archive) -> None:
    oldest, newest = archive.messages[0].message_id, archive.messages[4].message_id

    first = await archive.page(after=oldest, before=newest)
    second = await archive.page(after=oldest, before=newest, token=first.next_page_token)

    assert ids([*second.messages, *first.messages]) == ids(archive.messages[1:4])[::-1]


async def test_a_page_before_a_message_holds_only_older_ones(archive: Archive) -> None:
    page = await archive.page(before=archive.messages[1].message_id)

    assert (ids(page.messages), page.next_page_token) == (ids(archive.messages[:1]), "")


@pytest.mark.parametrize(("asked", "given"), [(0, 50), (-1, 50), (MAX_PAGE + 50, MAX_PAGE)])
async def test_sizes_have_a_default_and_a_limit(asked: int, given: int) -> None:
    archive = Archive()
    await archive.write(MAX_PAGE + 10)

    assert len((await archive.page(size=asked)).messages) == given


async def test_a_token_of_another_list_is_refused(archive: Archive) -> None:
    bob, alice, carol = archive.desk.bob, archive.desk.alice, stranger()
    token = (await archive.page()).next_page_token
    oldest = archive.messages[0].message_id

    for owner, peer, after in [(alice, bob, b""), (carol, alice, b""), (bob, carol, b""), (bob, alice, oldest)]:
        with pytest.raises(InvalidPageTokenError):
            await archive.page(owner=owner, peer=peer, after=after, token=token)
    with pytest.raises(InvalidPageTokenError):
        await archive.chats(owner=bob, token=token)


@pytest.mark.parametrize("position", [0, 7, 15, 16, 23])
async def test_a_token_that_was_altered_is_refused(archive: Archive, position: int) -> None:
    raw = bytearray(base64.urlsafe_b64decode((await archive.page()).next_page_token))
    raw[position] ^= 1

    with pytest.raises(InvalidPageTokenError, match="page_token"):
        await archive.page(token=base64.urlsafe_b64encode(raw).decode())


@pytest.mark.parametrize("token", ["x", "!!!!", "AAAA", "é", "A" * 32])
async def test_what_is_no_token_is_refused(archive: Archive, token: str) -> None:
    with pytest.raises(InvalidPageTokenError):
        await archive.page(token=token)
    with pytest.raises(InvalidPageTokenError):
        await archive.chats(token=token)


async def test_windows_of_the_chat_list_lead_to_its_end(archive: Archive) -> None:
    desk = archive.desk
    peers = [stranger(), stranger()]
    await archive.store.accept([desk.write(recipient=peer) for peer in peers])

    first = await archive.chats(size=2)
    second = await archive.chats(size=2, token=first.next_page_token)

    assert [chat.peer_id for chat in first.page.chats + second.page.chats] == [peers[1], peers[0], desk.bob]
    assert second.next_page_token == ""


async def test_a_page_of_large_messages_ends_earlier_and_goes_on(archive: Archive) -> None:
    large = [archive.desk.write(bytes(MAX_PAGE_BYTES // 2 + 1)) for _ in range(2)]
    await archive.store.accept(large)

    first = await archive.page(size=50)
    second = await archive.page(size=50, token=first.next_page_token)

    assert ids(first.messages) == [large[1].message_id]
    assert ids(second.messages) == ids([*archive.messages, large[0]])[::-1]


async def test_a_window_of_large_messages_ends_earlier_and_goes_on(archive: Archive) -> None:
    peers = [stranger(), stranger()]
    large = [archive.desk.write(bytes(MAX_PAGE_BYTES // 2 + 1), recipient=peer) for peer in peers]
    await archive.store.accept(large)

    first = await archive.chats(size=2)
    second = await archive.chats(size=2, token=first.next_page_token)

    assert [chat.peer_id for chat in first.page.chats] == [peers[1]]
    assert [chat.peer_id for chat in second.page.chats] == [peers[0], archive.desk.bob]
