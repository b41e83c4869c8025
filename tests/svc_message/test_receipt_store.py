"""What every store of the ledger does for the receipts of groups."""

from collections.abc import Sequence

import pytest

from svc_message.model import (
    DeviceId,
    GroupReceiptEvent,
    MessageId,
    OwnReadEvent,
    ReceiptState,
    UserId,
)
from svc_message.model.group import NewGroupMessage, Window
from svc_message.model.receipt import (
    Came,
    MemberAck,
    MemberRead,
    MemberReadUpdate,
    MemberReceipt,
    MessageName,
    News,
    ReadMessage,
    Tally,
    Unread,
    UnreadMessage,
)
from svc_message.ports.receipt import NEWS_INTERVAL_MS
from tests.svc_message.desk import START_MS, Desk, inbox, stranger
from tests.svc_message.group_desk import Books, GroupDesk

ALWAYS = (Window(1, 0),)
NOW_MS = START_MS + 1000


class Receipts:
    """A group whose members have received messages."""

    def __init__(self, books: Books, desk: GroupDesk) -> None:
        self.books, self.desk = books, desk
        self.store = books.receipts

    async def say(self, *, sender: UserId | None = None, version: int = 1, written_ms: int = 0) -> NewGroupMessage:
        """Writes a message, with a line in everybody's chat list."""
        message_id = self.desk.uuid7(written_ms) if written_ms else b""
        message = self.desk.say(sender=sender, version=version, message_id=message_id)
        await self.books.groups.accept(self.desk.shard, [message])
        await self.books.groups.expand([self.desk.expand(message)], [self.desk.touch(message, version=version)])
        return message

    async def say_many(self, count: int) -> list[NewGroupMessage]:
        """Writes messages of one sender together."""
        messages = [self.desk.say() for _ in range(count)]
        await self.books.groups.accept(self.desk.shard, messages)
        await self.books.groups.expand(list(map(self.desk.expand, messages)), [self.desk.touch(messages[-1])])
        return messages

    async def receive(
        self, user_id: UserId, *messages: NewGroupMessage, windows: tuple[Window, ...] = ALWAYS
    ) -> list[Came]:
        ids = tuple(message.message_id for message in messages)
        ack = MemberAck(user_id, self.desk.group_id, windows, ids)
        return await self.store.acknowledge([ack], self.desk.position(), NOW_MS)

    async def read(
        self,
        user_id: UserId,
        *messages: NewGroupMessage,
        upto: bytes = b"",
        is_told: bool = True,
        is_forced: bool = False,
    ) -> tuple[list[Came], OwnReadEvent | None]:
        came, (own_read,) = await self.store.read([self.update(user_id, messages, upto, is_told, is_forced)])
        return came, own_read

    def update(
        self,
        user_id: UserId,
        messages: Sequence[NewGroupMessage],
        upto: bytes = b"",
        is_told: bool = True,  # noqa: FBT001, FBT002 - a test says which it means
        is_forced: bool = False,  # noqa: FBT001, FBT002 - the same
    ) -> MemberReadUpdate:
        named = tuple(ReadMessage(message.message_id, is_told) for message in messages)
        position = self.desk.position()
        return MemberReadUpdate(
            user_id,
            DeviceId(2),
            self.desk.group_id,
            ALWAYS,
            upto,
            named,
            is_forced,
            position,
            NOW_MS,
        )

    async def tally(self, message: NewGroupMessage) -> tuple[int, int]:
        (tally,) = await self.store.tally([name(message)])
        assert tally is not None
        assert (tally.sender_id, tally.recipients) == (message.sender_id, 2)
        return tally.delivered, tally.read

    async def told(self, user_id: UserId) -> list[int]:
        """Returns when an inbox said that something came further."""
        events = await inbox(self.books.store, user_id)
        return [event.recorded_ms for event in events if isinstance(event, GroupReceiptEvent)]


@pytest.fixture
def receipts(books: Books, group_desk: GroupDesk) -> Receipts:
    return Receipts(books, group_desk)


def name(message: NewGroupMessage) -> MessageName:
    return MessageName(message.group_id, message.message_id)


def came(message: NewGroupMessage) -> Came:
    return Came(message.sender_id, message.group_id, message.message_id)


async def test_what_a_member_has_stored_is_delivered_once(receipts: Receipts) -> None:
    message = await receipts.say()
    bob = receipts.desk.bob

    assert await receipts.receive(bob, message) == [came(message)]
    assert await receipts.receive(bob, message) == []
    assert await receipts.receive(receipts.desk.carol, message) == [came(message)]

    assert await receipts.tally(message) == (2, 0)
    listed = await receipts.store.list_receipts(name(message), None, 10)
    assert listed == [
        MemberReceipt(user_id, ReceiptState.DELIVERED, NOW_MS, 0) for user_id in (bob, receipts.desk.carol)
    ]


async def test_own_messages_and_those_of_other_times_are_not_received(receipts: Receipts) -> None:
    early, late = await receipts.say(version=1), await receipts.say(version=7)
    bob = receipts.desk.bob

    assert await receipts.receive(receipts.desk.alice, early) == []
    assert await receipts.receive(bob, early, windows=(Window(2, 7),)) == []
    assert await receipts.receive(bob, late, windows=(Window(2, 7),)) == []
    assert await receipts.receive(bob, early, windows=()) == []
    both = await receipts.receive(bob, early, late, windows=(Window(1, 2), Window(7, 0)))
    assert set(both) == {came(early), came(late)}


async def test_messages_of_other_conversations_are_not_received(receipts: Receipts) -> None:
    direct = receipts.desk.write()
    await receipts.books.store.accept([direct])
    elsewhere = MemberAck(receipts.desk.bob, direct.conversation_id, ALWAYS, (direct.message_id,))
    nowhere = MemberAck(receipts.desk.bob, receipts.desk.group_id, ALWAYS, (direct.message_id,))

    assert await receipts.store.acknowledge([elsewhere, nowhere], receipts.desk.position(), NOW_MS) == []


async def test_many_members_acknowledge_many_messages_at_once(
    receipts: Receipts, monkeypatch: pytest.MonkeyPatch
) -> None:
    # More than one statement, with fewer rows than a busy machine needs too long for.
    monkeypatch.setattr("svc_message.adapters.receipt_store_postgres.raising.ROWS_RAISED", 1000)
    messages = [await receipts.say() for _ in range(2)]
    crowd = [stranger() for _ in range(1025)]
    ids = tuple(message.message_id for message in messages)
    batch = [MemberAck(user_id, receipts.desk.group_id, ALWAYS, ids) for user_id in crowd]

    found = await receipts.store.acknowledge(batch, receipts.desk.position(), NOW_MS)

    assert set(found) == {came(message) for message in messages}
    assert await receipts.tally(messages[1]) == (1025, 0)


async def test_what_was_read_was_delivered_too_and_never_falls_back(receipts: Receipts) -> None:
    message = await receipts.say()
    bob = receipts.desk.bob

    assert (await receipts.read(bob, message))[0] == [came(message)]
    assert (await receipts.read(bob, message))[0] == []
    assert await receipts.receive(bob, message) == []

    assert await receipts.tally(message) == (1, 1)
    (receipt,) = await receipts.store.list_receipts(name(message), None, 10)
    assert receipt == MemberReceipt(bob, ReceiptState.READ, NOW_MS, NOW_MS)


async def test_a_read_that_is_nobodys_business_counts_as_delivered(receipts: Receipts) -> None:
    seen, unseen = await receipts.say(), await receipts.say()
    bob = receipts.desk.bob
    await receipts.receive(bob, seen)

    found, own_read = await receipts.read(bob, seen, unseen, is_told=False)

    assert found == [came(unseen)]
    assert own_read is not None
    assert [await receipts.tally(message) for message in (seen, unseen)] == [(1, 0), (1, 0)]
    (receipt,) = await receipts.store.list_receipts(name(seen), None, 10)
    assert receipt == MemberReceipt(bob, ReceiptState.DELIVERED, NOW_MS, 0)


async def test_reading_up_to_a_place_stands_for_what_is_unread_and_visible(receipts: Receipts) -> None:
    hidden = await receipts.say(version=1)
    first, own, last = [await receipts.say(sender=who, version=5) for who in (None, receipts.desk.bob, None)]
    later = await receipts.say(version=5)
    bob, windows = receipts.desk.bob, (Window(2, 0),)
    await receipts.read(bob, first)
    beyond = MessageId((int.from_bytes(later.message_id) - 1).to_bytes(16))

    asked = [
        MemberRead(bob, receipts.desk.group_id, windows, upto, ids)
        for upto, ids in ((beyond, ()), (own.message_id, ()), (hidden.message_id, ()), (b"", (first.message_id,)))
    ]
    whole, to_own, nothing, named = await receipts.store.unread(asked)

    assert whole == Unread(
        last.message_id, (UnreadMessage(last.message_id, receipts.desk.alice, last.members_version),)
    )
    assert to_own == Unread(own.message_id, ())
    assert nothing == Unread(b"", ())
    assert named == Unread(b"", (UnreadMessage(first.message_id, receipts.desk.alice, first.members_version),))


async def test_a_long_read_is_looked_up_in_portions_from_the_oldest_message_on(receipts: Receipts) -> None:
    said = await receipts.say_many(1003)
    bob, windows = receipts.desk.bob, (Window(1, 0),)
    asked = MemberRead(bob, receipts.desk.group_id, windows, said[-1].message_id, ())

    (first,) = await receipts.store.unread([asked])
    (second,) = await receipts.store.unread([asked._replace(read_after=first.rest)])

    assert (first.upto, first.rest) == (said[999].message_id, said[999].message_id)
    assert (second.upto, second.rest) == (said[-1].message_id, b"")
    found = [message.message_id for part in (first, second) for message in part.messages]
    assert sorted(found) == [message.message_id for message in said]


@pytest.mark.parametrize("age_s", [29, 31, 599])
async def test_a_read_finds_what_was_written_before_the_place_and_accepted_after_it(
    receipts: Receipts, age_s: int
) -> None:
    bob = receipts.desk.bob
    early, first = await receipts.say(written_ms=START_MS - 599_500), await receipts.say()
    await receipts.read(bob, early, first, upto=first.message_id)
    late = await receipts.say(written_ms=START_MS - age_s * 1000)
    hidden = await receipts.say(written_ms=START_MS - age_s * 1000, version=5)
    second = await receipts.say()

    asked = [
        MemberRead(bob, receipts.desk.group_id, (Window(1, 3),), upto.message_id, ()) for upto in (second, late, hidden)
    ]
    both, only_late, still_late = await receipts.store.unread(asked)

    assert {one.message_id for one in both.messages} == {late.message_id, second.message_id}
    assert (both.upto, both.rest) == (second.message_id, b"")
    assert [one.message_id for one in only_late.messages] == [late.message_id]
    assert [one.message_id for one in still_late.messages] == [late.message_id]


@pytest.mark.untraced
async def test_late_messages_that_a_member_does_not_see_hide_none_that_it_sees(receipts: Receipts) -> None:
    bob, desk, minted_ms = receipts.desk.bob, receipts.desk, range(START_MS - 600_000, START_MS - 598_999)
    hidden = [desk.say(message_id=desk.uuid7(one), version=1) for one in minted_ms]
    await receipts.books.groups.accept(desk.shard, hidden)
    first = await receipts.say(version=2)
    await receipts.read(bob, first, upto=first.message_id)
    late, second = await receipts.say(written_ms=START_MS - 120_000, version=2), await receipts.say(version=2)

    asked = MemberRead(bob, desk.group_id, (Window(2, 0),), second.message_id, ())
    (found,) = await receipts.store.unread([asked])

    assert {one.message_id for one in found.messages} == {late.message_id, second.message_id}


async def test_messages_that_a_member_cannot_see_cannot_be_named(receipts: Receipts) -> None:
    early, own = await receipts.say(version=1), await receipts.say(sender=receipts.desk.bob, version=5)
    ids = (early.message_id, own.message_id, receipts.desk.uuid7())

    (found,) = await receipts.store.unread(
        [MemberRead(receipts.desk.bob, receipts.desk.group_id, (Window(2, 0),), b"", tuple(map(MessageId, ids)))]
    )

    assert found == Unread(b"", ())


async def test_a_place_moves_forward_and_tells_the_readers_other_devices(receipts: Receipts) -> None:
    first, second = await receipts.say(), await receipts.say()
    bob = receipts.desk.bob

    _, forward = await receipts.read(bob, first, second, upto=second.message_id)
    _, back = await receipts.read(bob, upto=first.message_id)
    _, again = await receipts.read(bob, upto=first.message_id, is_forced=True)

    assert forward is not None
    assert (forward.read_upto, forward.origin_device_id) == (second.message_id, 2)
    assert back is None
    assert again is not None
    assert again.read_upto == second.message_id
    events = [event for event in await inbox(receipts.books.store, bob) if isinstance(event, OwnReadEvent)]
    assert events == [forward, again]


async def test_single_messages_move_the_place_only_when_nothing_before_is_unread(receipts: Receipts) -> None:
    first, second, third = [await receipts.say() for _ in range(3)]
    bob = receipts.desk.bob

    _, skipping = await receipts.read(bob, second)
    _, filling = await receipts.read(bob, first)
    _, last = await receipts.read(bob, third)

    assert skipping is None
    assert [one and one.read_upto for one in (filling, last)] == [first.message_id, third.message_id]


async def test_single_messages_pass_nothing_unread_of_before_a_time_away(receipts: Receipts) -> None:
    desk = receipts.desk
    await receipts.say(version=1)
    await receipts.books.groups.accept(desk.shard, [desk.say(version=2) for _ in range(1000)])
    last = await receipts.say(version=3)
    update = receipts.update(desk.bob, [last])._replace(windows=(Window(1, 2), Window(3, 0)))

    outcome = await receipts.store.read([update])

    assert outcome.own_reads == [None]


async def test_of_several_reads_of_one_group_the_furthest_stands(receipts: Receipts) -> None:
    first, second = await receipts.say(), await receipts.say()
    bob, carol = receipts.desk.bob, receipts.desk.carol

    found, own_reads = await receipts.store.read(
        [
            receipts.update(bob, [second], second.message_id),
            receipts.update(bob, [first], first.message_id),
            receipts.update(carol, [first], first.message_id),
        ]
    )

    assert set(found) == {came(first), came(second)}
    assert [one.user_id for one in own_reads if one] == [bob, carol]
    assert [await receipts.tally(message) for message in (first, second)] == [(2, 2), (1, 1)]


async def test_nothing_is_read_by_nobody(receipts: Receipts) -> None:
    assert await receipts.store.read([]) == ([], [])
    assert await receipts.store.unread([]) == []
    assert await receipts.store.acknowledge([], receipts.desk.position(), NOW_MS) == []
    await receipts.store.settle_news([], NOW_MS)


async def test_direct_messages_are_counted_and_listed_too(receipts: Receipts) -> None:
    desk = Desk()
    message, note, withheld = desk.write(), desk.write(recipient=desk.alice), desk.write(is_withheld=True)
    await receipts.books.store.accept([message, note, withheld])
    await receipts.books.store.apply_receipts([desk.read(message)])
    names = [MessageName(one.conversation_id, one.message_id) for one in (message, note, withheld)]
    unknown = MessageName(message.conversation_id, MessageId(desk.uuid7()))

    tallies = await receipts.store.tally([*names, unknown])

    assert tallies == [Tally(desk.alice, 1, 1, 1), Tally(desk.alice, 0, 0, 0), Tally(desk.alice, 1, 0, 0), None]
    (receipt,) = await receipts.store.list_receipts(names[0], None, 10)
    assert (receipt.user_id, receipt.state) == (desk.bob, ReceiptState.READ)
    assert await receipts.store.list_receipts(names[2], None, 10) == []


async def test_receipts_are_listed_in_pages(receipts: Receipts) -> None:
    message = await receipts.say()
    crowd = sorted(stranger() for _ in range(5))
    for user_id in crowd:
        await receipts.receive(user_id, message)

    first = await receipts.store.list_receipts(name(message), None, 3)
    second = await receipts.store.list_receipts(name(message), first[-1].user_id, 3)

    assert [receipt.user_id for receipt in (*first, *second)] == crowd


async def claim(receipts: Receipts, now_ms: int) -> list[News]:
    found = await receipts.store.claim_news(receipts.desk.position(), now_ms, now_ms + 10_000)
    return [news for news in found if news.group_id == receipts.desk.group_id]


async def rest(receipts: Receipts) -> None:
    """Tells the news, and tells them once more a minute later if the store wants it so."""
    for now_ms in (NOW_MS, NOW_MS + NEWS_INTERVAL_MS):
        await receipts.store.settle_news(await claim(receipts, now_ms), now_ms)


async def test_a_change_is_news_for_the_senders_inbox_at_once(receipts: Receipts) -> None:
    message = await receipts.say()
    await receipts.receive(receipts.desk.bob, message)

    (news,) = await claim(receipts, NOW_MS)

    assert (news.sender_id, news.group_id) == (receipts.desk.alice, receipts.desk.group_id)
    assert await receipts.told(receipts.desk.alice) == [NOW_MS]
    assert await claim(receipts, NOW_MS) == []


async def test_news_that_were_told_rest_until_something_changes(receipts: Receipts) -> None:
    message = await receipts.say()
    await receipts.receive(receipts.desk.bob, message)
    await rest(receipts)

    assert await claim(receipts, NOW_MS + 10 * NEWS_INTERVAL_MS) == []


async def test_a_change_within_a_minute_is_told_at_its_end(receipts: Receipts) -> None:
    message = await receipts.say()
    await receipts.receive(receipts.desk.bob, message)
    await receipts.store.settle_news(await claim(receipts, NOW_MS), NOW_MS)

    await receipts.receive(receipts.desk.carol, message)

    assert await claim(receipts, NOW_MS + NEWS_INTERVAL_MS - 1) == []
    assert len(await claim(receipts, NOW_MS + NEWS_INTERVAL_MS)) == 1


async def test_a_change_while_news_are_told_is_not_forgotten(receipts: Receipts) -> None:
    message = await receipts.say()
    await receipts.receive(receipts.desk.bob, message)
    told = await claim(receipts, NOW_MS)

    await receipts.read(receipts.desk.bob, message)
    await receipts.store.settle_news(told, NOW_MS)

    assert await claim(receipts, NOW_MS + NEWS_INTERVAL_MS - 1) == []
    assert len(await claim(receipts, NOW_MS + NEWS_INTERVAL_MS)) == 1


async def test_news_whose_teller_died_are_told_again(receipts: Receipts) -> None:
    message = await receipts.say()
    await receipts.receive(receipts.desk.bob, message)
    await claim(receipts, NOW_MS)

    assert await claim(receipts, NOW_MS + 9_999) == []
    assert len(await claim(receipts, NOW_MS + 10_000)) == 1


async def test_a_read_that_is_nobodys_business_is_no_news(receipts: Receipts) -> None:
    message = await receipts.say()
    await receipts.receive(receipts.desk.bob, message)
    await rest(receipts)

    await receipts.read(receipts.desk.bob, message, is_told=False)

    assert await claim(receipts, NOW_MS + 2 * NEWS_INTERVAL_MS) == []
