"""Pages of conversations and windows of the chat list, and tokens that belong to one list."""

from __future__ import annotations

import base64
from struct import Struct
from typing import TYPE_CHECKING

import pytest

from svc_message.adapters.group_store_memory import MemoryGroupStore
from svc_message.adapters.journal_memory import MemoryJournal
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.errors import InvalidPageTokenError, NotInConversationError
from svc_message.model.group import Window
from svc_message.protocol import direct_conversation
from svc_message.service.history import MAX_PAGE_BYTES, PageAsked, Reading
from svc_message.service.sight import Sight
from svc_message.service.token import MAX_PAGE, seal_token
from tests.svc_message.desk import Desk, ids, stranger
from tests.svc_message.fakes import FakeGroupDirectory, ManualClock
from tests.svc_message.group_desk import GroupDesk, group_of

if TYPE_CHECKING:
    from svc_message.model import NewMessage, UserId
    from svc_message.service.history import ChatWindow, HistoryPage


class Archive:
    """Five messages of Alice's to Bob, and one to each of two others."""

    def __init__(self) -> None:
        self.desk = Desk()
        self.store = MemoryMessageStore(ManualClock())
        self.groups = MemoryGroupStore(self.store, MemoryJournal(ManualClock()))
        self.directory = FakeGroupDirectory()
        self.reading = Reading(self.store, self.groups, Sight(self.directory))
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
        conversation_id = direct_conversation(owner, peer)
        return await self.reading.page(PageAsked(owner, conversation_id, before, after, size, token))

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


@pytest.mark.parametrize("place", [(-(2**63), 0), (0, -(2**63)), (-1, 0)])
async def test_a_token_that_names_no_time_is_refused(archive: Archive, place: tuple[int, int]) -> None:
    last_ms, pinned_ms = place
    raw = Struct("!q16sq").pack(last_ms, bytes(16), pinned_ms)

    with pytest.raises(InvalidPageTokenError):
        await archive.chats(token=seal_token(b"chats" + archive.desk.alice, raw))


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


@pytest.fixture
async def house(archive: Archive) -> GroupDesk:
    """Returns a group of three messages; Carol was there for the second alone."""
    desk = GroupDesk()
    messages = [desk.say(b"%d" % n, version=n + 1) for n in range(3)]
    archive.directory.add(group_of(desk.group_id, desk.alice, desk.bob, version=3))
    archive.directory.past[desk.group_id, desk.carol] = (Window(2, 3),)
    await archive.groups.accept(desk.shard, messages)
    await archive.groups.expand([desk.expand(*messages)], [desk.touch(messages[-1])])
    return desk


async def test_members_read_pages_of_a_group_with_tokens(archive: Archive, house: GroupDesk) -> None:
    asked = PageAsked(house.bob, house.group_id, b"", b"", 2, "")

    first = await archive.reading.page(asked)
    second = await archive.reading.page(asked._replace(token=first.next_page_token))

    texts = [[stored.message.envelope for stored in page.messages] for page in (first, second)]
    assert (texts, second.next_page_token) == ([[b"2", b"1"], [b"0"]], "")
    with pytest.raises(InvalidPageTokenError):
        await archive.reading.page(asked._replace(owner_id=house.alice, token=first.next_page_token))


async def test_who_has_left_reads_what_it_was_there_for(archive: Archive, house: GroupDesk) -> None:
    page = await archive.reading.page(PageAsked(house.carol, house.group_id, b"", b"", 10, ""))

    assert [stored.message.envelope for stored in page.messages] == [b"1"]


async def test_strangers_learn_nothing_of_a_group(archive: Archive, house: GroupDesk) -> None:
    with pytest.raises(NotInConversationError):
        await archive.reading.page(PageAsked(stranger(), house.group_id, b"", b"", 10, ""))


async def test_groups_stand_in_the_chat_list_by_their_newest_visible_message(
    archive: Archive, house: GroupDesk
) -> None:
    direct = house.write(b"direct", sender=house.alice, recipient=house.carol)
    await archive.store.accept([direct])
    asked = archive.directory.reads

    chats = (await archive.chats(owner=house.carol, size=10)).page.chats
    of_bob = (await archive.chats(owner=house.bob, size=10)).page.chats

    shown = [(chat.conversation_id, chat.last_message and chat.last_message.message.envelope) for chat in chats]
    assert shown == [(direct.conversation_id, b"direct"), (house.group_id, b"1")]
    assert [(chat.unread_count, chat.last_message and chat.last_message.message.envelope) for chat in of_bob] == [
        (3, b"2")
    ]
    assert archive.directory.reads == asked + 2


async def test_a_chat_list_without_groups_asks_for_no_memberships(archive: Archive) -> None:
    await archive.chats(size=10)

    assert archive.directory.reads == 0
