"""What every store of the ledger does for groups: messages, their entries, and the pointers of members."""

from collections.abc import Sequence

import pytest

from svc_message.model import (
    NO_POSITION,
    Accepted,
    DeviceId,
    InboxRead,
    MessageEvent,
    PageRead,
    ReceiptState,
    StoredMessage,
    UserId,
    Verdict,
)
from svc_message.model.action import ActionKind
from svc_message.model.group import Expansion, GroupAccepted, GroupLine, NewGroupMessage, Window
from svc_message.model.receipt import MemberAck, MemberReadUpdate, ReadMessage
from svc_message.model.setting import SettingChange
from svc_message.protocol import position_at
from tests.svc_message.desk import START_MS, inbox, stranger
from tests.svc_message.group_desk import Books, GroupDesk, entry_of, group_ref, placed

LIMIT = 1000


async def journaled(books: Books, desk: GroupDesk) -> list[object]:
    return list(await books.journal.read(desk.shard, NO_POSITION, LIMIT))


async def test_a_message_is_stored_with_the_senders_pointer_and_an_entry(books: Books, group_desk: GroupDesk) -> None:
    message = group_desk.say()

    answers = await books.groups.accept(group_desk.shard, [message])

    assert answers == [GroupAccepted(Verdict.STORED, message.accepted_ms, 1, 2)]
    assert await inbox(books.store, group_desk.alice) == [message.to_event()]
    assert await inbox(books.store, group_desk.bob) == []
    assert await journaled(books, group_desk) == [entry_of(message)]


async def test_what_is_found_is_completed_as_the_first_decision_was(books: Books, group_desk: GroupDesk) -> None:
    message = group_desk.say()
    again = group_desk.say_again(message)
    await books.groups.accept(group_desk.shard, [message])

    answers = await books.groups.accept(group_desk.shard, [again])

    assert answers == [GroupAccepted(Verdict.DUPLICATE, message.accepted_ms, 1, 2)]
    first, second = await journaled(books, group_desk)
    assert (first, second) == (entry_of(message), entry_of(message)._replace(position=again.position))
    assert [event.position for event in await inbox(books.store, group_desk.alice)] == [
        message.position,
        again.position,
    ]


async def test_a_batch_may_hold_what_is_new_and_what_is_found(books: Books, group_desk: GroupDesk) -> None:
    old, new, taken = group_desk.say(), group_desk.say(), group_desk.say(b"first")
    await books.groups.accept(group_desk.shard, [old, taken])
    other = group_desk.say_again(group_desk.say(b"second", message_id=taken.message_id))

    answers = await books.groups.accept(group_desk.shard, [group_desk.say_again(old), new, other])

    assert [answer.verdict for answer in answers] == [Verdict.DUPLICATE, Verdict.STORED, Verdict.CONFLICT]


async def test_a_void_id_is_never_accepted(books: Books, group_desk: GroupDesk) -> None:
    message = group_desk.say()
    assert await books.store.declare_void([group_ref(message)]) == [True]

    answers = await books.groups.accept(group_desk.shard, [group_desk.say_again(message)])

    assert [answer.verdict for answer in answers] == [Verdict.VOID]
    assert await inbox(books.store, group_desk.alice) == []
    assert await journaled(books, group_desk) == []


async def test_a_stored_message_is_found_and_cannot_be_declared_void(books: Books, group_desk: GroupDesk) -> None:
    message = group_desk.say()
    await books.groups.accept(group_desk.shard, [message])

    (found,) = await books.store.find([group_ref(message)])

    assert found is not None
    assert (found.is_void, found.content_hash, found.accepted_ms) == (False, message.content_hash, message.accepted_ms)
    assert await books.store.declare_void([group_ref(message)]) == [False]


async def test_nothing_is_accepted_for_nothing(books: Books, group_desk: GroupDesk) -> None:
    assert await books.groups.accept(group_desk.shard, []) == []
    await books.groups.expand([], [])


async def test_direct_messages_and_groups_live_beside_each_other(books: Books, group_desk: GroupDesk) -> None:
    direct, message = group_desk.write(), group_desk.say()

    assert await books.store.accept([direct]) == [Accepted(Verdict.STORED, direct.accepted_ms, is_withheld=False)]
    await books.groups.accept(group_desk.shard, [message])

    direct_event, group_event = await inbox(books.store, group_desk.alice)
    assert (direct_event.position, group_event) == (direct.position, message.to_event())


async def test_every_member_gets_what_is_expanded(books: Books, group_desk: GroupDesk) -> None:
    message = group_desk.say()
    await books.groups.accept(group_desk.shard, [message])
    expansion = group_desk.expand(message)

    await books.groups.expand([expansion], [])

    for user_id in (group_desk.bob, group_desk.carol):
        assert await inbox(books.store, user_id) == [placed(message, expansion)]


async def test_several_messages_share_a_row_and_are_read_as_items(books: Books, group_desk: GroupDesk) -> None:
    messages = [group_desk.say(b"%d" % n, version=n + 1) for n in range(3)]
    await books.groups.accept(group_desk.shard, messages)
    expansion = group_desk.expand(*messages)

    await books.groups.expand([expansion], [])

    assert await inbox(books.store, group_desk.bob) == [placed(message, expansion) for message in messages]


async def test_a_page_ends_before_a_row_that_does_not_fit(books: Books, group_desk: GroupDesk) -> None:
    messages = [group_desk.say() for _ in range(5)]
    await books.groups.accept(group_desk.shard, messages)
    first, second = group_desk.expand(*messages[:2]), group_desk.expand(*messages[2:])
    await books.groups.expand([first, second], [])

    (page,) = await books.store.read_inbox([InboxRead(group_desk.bob, NO_POSITION, 4)])
    (rest,) = await books.store.read_inbox([InboxRead(group_desk.bob, first.position, 4)])

    assert (page.events, page.has_more) == ([placed(message, first) for message in messages[:2]], True)
    assert (rest.events, rest.has_more) == ([placed(message, second) for message in messages[2:]], False)


async def test_a_row_that_is_larger_than_a_page_is_given_whole(books: Books, group_desk: GroupDesk) -> None:
    messages = [group_desk.say() for _ in range(4)]
    await books.groups.accept(group_desk.shard, messages)
    first, second = group_desk.expand(*messages[:3]), group_desk.expand(messages[3])
    await books.groups.expand([first, second], [])

    (page,) = await books.store.read_inbox([InboxRead(group_desk.bob, NO_POSITION, 2)])
    (rest,) = await books.store.read_inbox([InboxRead(group_desk.bob, first.position, 2)])

    assert (len(page.events), page.has_more) == (3, True)
    assert (rest.events, rest.has_more) == ([placed(messages[3], second)], False)


async def test_nothing_but_messages_that_a_reader_has_may_be_left_out(books: Books, group_desk: GroupDesk) -> None:
    messages, direct = [group_desk.say() for _ in range(4)], group_desk.write()
    await books.groups.accept(group_desk.shard, messages)
    await books.store.accept([direct])
    await books.groups.expand([group_desk.expand(*messages[:2]), group_desk.expand(*messages[2:])], [])
    read = InboxRead(group_desk.bob, NO_POSITION, 10)
    (whole,) = await books.store.read_inbox([read])
    known = frozenset({messages[0].message_id, *(one.message_id for one in messages[2:]), direct.message_id})

    found, others = await books.store.read_inbox(
        [read._replace(known_ids=known), read._replace(user_id=group_desk.carol)]
    )

    left_out = [one for one in whole.events if one not in found.events]
    assert [one for one in whole.events if one in found.events] == found.events
    assert known.issuperset([one.message_id for one in left_out if isinstance(one, MessageEvent)])
    assert {type(one) for one in left_out} <= {MessageEvent}
    assert (found.end, found.has_more) == (whole.end, whole.has_more)
    assert len(others.events) == 4


async def test_members_of_a_group_read_its_rows_at_once(books: Books, group_desk: GroupDesk) -> None:
    messages = [group_desk.say(), group_desk.say()]
    await books.groups.accept(group_desk.shard, messages)
    expansion = group_desk.expand(*messages)
    direct = group_desk.write()
    await books.store.accept([direct])
    await books.groups.expand([expansion], [])

    pages = await books.store.read_inbox(
        [InboxRead(user_id, NO_POSITION, 10) for user_id in (group_desk.bob, group_desk.carol, stranger())]
    )

    assert [len(page.events) for page in pages] == [3, 2, 0]
    assert pages[1].events == [placed(message, expansion) for message in messages]


async def test_conversations_of_one_call_have_their_own_members(books: Books, group_desk: GroupDesk) -> None:
    other = GroupDesk()
    messages = [group_desk.say(), other.say(), group_desk.say(sender=group_desk.bob)]
    await books.groups.accept(group_desk.shard, messages)
    expansions = [
        group_desk.expand(messages[0]),
        other.expand(messages[1], to=(other.bob,)),
        group_desk.expand(messages[2]),
        group_desk.expand(messages[0], to=()),
    ]

    await books.groups.expand(expansions[:3], [])

    assert await inbox(books.store, other.bob) == [placed(messages[1], expansions[1])]
    assert await inbox(books.store, other.carol) == []
    assert len(await inbox(books.store, group_desk.carol)) == 2


async def test_a_thousand_members_get_a_message_in_one_call(books: Books, group_desk: GroupDesk) -> None:
    message = group_desk.say()
    await books.groups.accept(group_desk.shard, [message])
    members = tuple(sorted(stranger() for _ in range(1023)))
    expansion = group_desk.expand(message, to=members)

    await books.groups.expand([expansion], [group_desk.touch(message, to=(*members, group_desk.alice))])

    pages = await books.store.read_inbox([InboxRead(user_id, NO_POSITION, 10) for user_id in members])
    assert [page.events for page in pages] == [[placed(message, expansion)]] * 1023


async def test_an_expansion_without_members_writes_nothing(books: Books, group_desk: GroupDesk) -> None:
    message = group_desk.say()
    await books.groups.accept(group_desk.shard, [message])
    nobody = Expansion(group_desk.group_id, group_desk.position(), (message.to_event(),), ())

    await books.groups.expand([nobody, group_desk.expand(message, to=(group_desk.bob,))], [])

    assert len(await inbox(books.store, group_desk.bob)) == 1


async def test_only_what_members_are_told_can_be_expanded(books: Books, group_desk: GroupDesk) -> None:
    await books.store.accept([direct := group_desk.write()])
    await books.store.apply_receipts([group_desk.receive(direct)])
    (*_, receipt) = await inbox(books.store, group_desk.alice)
    wrong = Expansion(group_desk.group_id, group_desk.position(), (receipt,), (group_desk.bob,))

    with pytest.raises(TypeError, match="not one that members"):
        await books.groups.expand([wrong], [])


async def test_a_shard_that_was_ended_is_begun_anew(books: Books, group_desk: GroupDesk) -> None:
    await books.journal.checkpoint(group_desk.shard, NO_POSITION)
    assert await books.journal.end(group_desk.shard, NO_POSITION)
    message = group_desk.say()

    await books.groups.accept(group_desk.shard, [message])

    assert not await books.journal.end(group_desk.shard, NO_POSITION)
    assert await journaled(books, group_desk) == [entry_of(message)]


def seen(messages: Sequence[StoredMessage]) -> list[bytes]:
    return [stored.message.envelope for stored in messages]


async def say_all(books: Books, desk: GroupDesk, *versions: int) -> list[NewGroupMessage]:
    """Writes messages for versions of the group, each named after its place."""
    messages = [desk.say(b"%d" % n, version=version) for n, version in enumerate(versions)]
    await books.groups.accept(desk.shard, messages)
    return messages


async def test_a_page_shows_the_times_of_its_reader_newest_first(books: Books, group_desk: GroupDesk) -> None:
    messages = await say_all(books, group_desk, 1, 2, 3, 4, 5, 6)

    async def page(*windows: Window, before: bytes = b"", after: bytes = b"", limit: int = 10) -> list[bytes]:
        read = PageRead(group_desk.bob, group_desk.group_id, before, after, limit)
        return seen(await books.groups.read_page(read, windows))

    assert await page(Window(1, 0)) == [b"5", b"4", b"3", b"2", b"1", b"0"]
    assert await page(Window(3, 0)) == [b"5", b"4", b"3", b"2"]
    assert await page(Window(1, 3)) == [b"1", b"0"]
    assert await page(Window(2, 3), Window(5, 6)) == [b"4", b"1"]
    assert await page(Window(2, 3), Window(5, 0), limit=2) == [b"5", b"4"]
    assert await page(Window(2, 3), Window(5, 0), before=messages[4].message_id) == [b"1"]
    assert await page(Window(2, 3), Window(5, 0), after=messages[0].message_id, limit=2) == [b"4", b"1"]
    assert await page(Window(7, 0)) == await page(Window(7, 9)) == await page() == []


async def test_messages_whose_ids_are_older_than_their_version_are_on_the_page(
    books: Books, group_desk: GroupDesk
) -> None:
    late = [
        group_desk.say(b"%d" % n, version=n + 1, message_id=group_desk.uuid7(START_MS - n * 200_000)) for n in range(4)
    ]
    await books.groups.accept(group_desk.shard, late)

    read = PageRead(group_desk.bob, group_desk.group_id, b"", b"", 10)

    assert seen(await books.groups.read_page(read, (Window(2, 4),))) == [b"1", b"2"]
    assert seen(await books.groups.read_page(read, (Window(3, 0),))) == [b"2", b"3"]


async def test_a_page_says_how_far_its_reader_has_come(books: Books, group_desk: GroupDesk) -> None:
    first, own = group_desk.say(), group_desk.say(sender=group_desk.bob)
    await books.groups.accept(group_desk.shard, [first, own])
    await books.receipts.acknowledge(
        [MemberAck(group_desk.bob, group_desk.group_id, (Window(1, 0),), (first.message_id,))], group_desk.position(), 7
    )

    read = PageRead(group_desk.bob, group_desk.group_id, b"", b"", 10)
    page = await books.groups.read_page(read, (Window(1, 0),))

    assert [(stored.state, stored.delivered_ms) for stored in page] == [
        (ReceiptState.SENT, 0),
        (ReceiptState.DELIVERED, 7),
    ]
    assert page[1].message == first.to_event()._replace(position=NO_POSITION)


async def chats_of(books: Books, desk: GroupDesk, user_id: UserId, *windows: Window) -> tuple[list[bytes], int]:
    (chat,) = await books.groups.read_chats(user_id, [GroupLine(desk.group_id, windows)])
    return seen([chat.last_message] if chat.last_message else []), chat.unread_count


async def test_a_chat_list_shows_the_last_visible_message_and_what_is_unread(
    books: Books, group_desk: GroupDesk
) -> None:
    messages = await say_all(books, group_desk, 1, 2, 3, 4)
    await books.groups.expand([], [group_desk.touch(messages[-1])])
    bob = group_desk.bob

    assert await chats_of(books, group_desk, bob, Window(1, 0)) == ([b"3"], 4)
    assert await chats_of(books, group_desk, bob, Window(2, 4)) == ([b"2"], 2)
    assert await chats_of(books, group_desk, bob, Window(1, 2), Window(4, 0)) == ([b"3"], 2)
    assert await chats_of(books, group_desk, bob, Window(9, 0)) == ([], 0)
    assert await chats_of(books, group_desk, bob) == ([], 0)
    assert await chats_of(books, group_desk, group_desk.alice, Window(1, 0)) == ([b"3"], 0)


async def test_the_newest_message_of_a_time_that_is_over_may_be_of_an_earlier_version(
    books: Books, group_desk: GroupDesk
) -> None:
    older_id, newer_id = group_desk.uuid7(), group_desk.uuid7()
    messages = [
        group_desk.say(b"newer", version=1, message_id=newer_id),
        group_desk.say(b"older", version=2, message_id=older_id),
    ]
    await books.groups.accept(group_desk.shard, messages)
    await books.groups.expand([], [group_desk.touch(messages[0])])

    assert await chats_of(books, group_desk, group_desk.bob, Window(1, 3)) == ([b"newer"], 2)


async def test_what_was_read_is_not_unread_in_a_chat_list(books: Books, group_desk: GroupDesk) -> None:
    first, second, third = await say_all(books, group_desk, 1, 1, 1)
    await books.groups.expand([], [group_desk.touch(third)])
    always, bob = (Window(1, 0),), group_desk.bob

    def update(message: NewGroupMessage, upto: bytes = b"") -> MemberReadUpdate:
        named = (ReadMessage(message.message_id, is_told=True),)
        position = group_desk.position()
        return MemberReadUpdate(bob, DeviceId(1), group_desk.group_id, always, upto, named, False, position, 1)  # noqa: FBT003 - not forced

    await books.receipts.read([update(second)])
    assert await chats_of(books, group_desk, bob, *always) == ([b"2"], 2)
    await books.receipts.read([update(first, upto=first.message_id)])

    assert await chats_of(books, group_desk, bob, *always) == ([b"2"], 1)


async def test_unread_is_counted_up_to_a_hundred(books: Books, group_desk: GroupDesk) -> None:
    messages = await say_all(books, group_desk, *[1] * 130)
    await books.groups.expand([], [group_desk.touch(messages[-1])])

    assert await chats_of(books, group_desk, group_desk.bob, Window(1, 0)) == ([b"129"], 100)


async def test_many_groups_are_read_at_once_in_order(books: Books, group_desk: GroupDesk) -> None:
    bob, desks = group_desk.bob, [GroupDesk() for _ in range(3)]
    for desk in desks:
        (message,) = await say_all(books, desk, 1)
        await books.groups.expand([], [desk.touch(message, to=(bob,))])

    lines = [GroupLine(desk.group_id, (Window(1, 0),)) for desk in (*desks[1:], GroupDesk(), desks[0])]
    chats = await books.groups.read_chats(bob, lines)

    assert [chat.unread_count for chat in chats] == [1, 1, 0, 1]
    found = [chat.last_message.message.conversation_id for chat in chats if chat.last_message]
    assert found == [desks[1].group_id, desks[2].group_id, desks[0].group_id]
    assert await books.groups.read_chats(bob, []) == []


async def test_lines_of_groups_stand_in_the_chat_list_beside_direct_ones(books: Books, group_desk: GroupDesk) -> None:
    direct = group_desk.write()
    await books.store.accept([direct])
    message = group_desk.say()
    await books.groups.accept(group_desk.shard, [message])
    await books.groups.expand([], [group_desk.touch(message)])

    page = await books.store.list_chats(group_desk.bob, None, 10)

    found = {chat.conversation_id: chat for chat in page.chats}
    assert set(found) == {direct.conversation_id, group_desk.group_id}
    assert found[direct.conversation_id].last_message is not None
    assert found[group_desk.group_id].last_message is None
    assert found[group_desk.group_id].unread_count == 0


async def test_what_is_hidden_is_on_no_page_of_a_group(books: Books, group_desk: GroupDesk) -> None:
    messages = await say_all(books, group_desk, 1, 1, 1)
    await books.groups.expand([group_desk.expand(*messages)], [group_desk.touch(messages[-1])])
    bob = group_desk.bob
    hide = group_desk.do(messages[2], ActionKind.HIDE, user=bob)
    await books.store.actions.act([hide])

    read = PageRead(bob, group_desk.group_id, b"", b"", 10)

    assert seen(await books.groups.read_page(read, (Window(1, 0),))) == [b"1", b"0"]
    assert await chats_of(books, group_desk, bob, Window(1, 0)) == ([b"1"], 2)
    shown = [event.envelope for event in await inbox(books.store, bob) if isinstance(event, MessageEvent)]
    assert shown == [b"0", b"1"]


async def test_what_is_cleared_of_a_group_is_gone_for_its_user_alone(books: Books, group_desk: GroupDesk) -> None:
    messages = await say_all(books, group_desk, 1, 1, 1)
    bob, carol = group_desk.bob, group_desk.carol
    await books.groups.expand([group_desk.expand(*messages)], [group_desk.touch(messages[-1])])
    clear = group_desk.keep(SettingChange(cleared_upto=messages[1].message_id), user=bob)
    of_group = clear._replace(conversation_id=group_desk.group_id, peer_id=UserId(group_desk.group_id))

    changed = await books.store.settings.change(of_group, NO_POSITION)

    assert changed is not None
    assert [event.settings.cleared_upto for event in changed.events] == [messages[1].message_id]
    for user, texts in ((bob, [b"2"]), (carol, [b"2", b"1", b"0"])):
        read = PageRead(user, group_desk.group_id, b"", b"", 10)
        assert seen(await books.groups.read_page(read, (Window(1, 0),))) == texts
        assert await chats_of(books, group_desk, user, Window(1, 0)) == ([b"2"], len(texts))


async def test_clearing_a_lower_place_of_a_group_keeps_what_came_late_after_it(
    books: Books, group_desk: GroupDesk
) -> None:
    lower_id, between_id, first = group_desk.uuid7(), group_desk.uuid7(), group_desk.say()
    await books.groups.accept(group_desk.shard, [first])
    await books.groups.expand([], [group_desk.touch(first)])

    async def clear(place: bytes) -> None:
        update = group_desk.keep(SettingChange(cleared_upto=place), user=group_desk.bob)
        of_group = update._replace(conversation_id=group_desk.group_id, peer_id=UserId(group_desk.group_id))
        await books.store.settings.change(of_group, position_at(START_MS - 660_000))

    await clear(first.message_id)
    for text, message_id in ((b"lower", lower_id), (b"between", between_id)):
        await books.groups.accept(group_desk.shard, [group_desk.say(text, message_id=message_id)])
    await clear(lower_id)

    read = PageRead(group_desk.bob, group_desk.group_id, b"", b"", 10)
    assert seen(await books.groups.read_page(read, (Window(1, 0),))) == [b"between"]


async def archived(books: Books, group_desk: GroupDesk) -> UserId:
    """Lets bob archive the group after a first message, and returns him."""
    bob, first = group_desk.bob, group_desk.say()
    await books.groups.accept(group_desk.shard, [first])
    await books.groups.expand([group_desk.expand(first)], [group_desk.touch(first)])
    archive = group_desk.keep(SettingChange(is_archived=True), user=bob)
    group = archive._replace(conversation_id=group_desk.group_id, peer_id=UserId(group_desk.group_id))
    await books.store.settings.change(group, NO_POSITION)
    return bob


async def test_a_group_that_was_archived_while_somebody_wrote_comes_back(books: Books, group_desk: GroupDesk) -> None:
    bob = await archived(books, group_desk)
    assert (await books.store.list_chats(bob, None, 10)).chats == []

    second = group_desk.say()
    await books.groups.accept(group_desk.shard, [second])
    await books.groups.expand([group_desk.expand(second)], [group_desk.touch(second)])
    await books.store.retention.wake(START_MS, position_at(START_MS - 1000))

    (chat,) = (await books.store.list_chats(bob, None, 10)).chats
    assert not chat.settings.is_archived


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("later_ms", [1_000, 120_000])
async def test_a_late_message_brings_an_archived_group_back(
    books: Books, group_desk: GroupDesk, later_ms: int, version: int
) -> None:
    bob = await archived(books, group_desk)

    late = group_desk.say(message_id=group_desk.uuid7(START_MS - 300_000), version=version)
    late = late._replace(accepted_ms=START_MS + later_ms)
    await books.groups.accept(group_desk.shard, [late])
    await books.groups.expand([group_desk.expand(late)], [group_desk.touch(late, version=version)])
    await books.store.retention.wake(START_MS, position_at(START_MS - 600_000))

    (chat,) = (await books.store.list_chats(bob, None, 10)).chats
    assert not chat.settings.is_archived


@pytest.mark.parametrize(("said_ms", "later_ms"), [(1_000, 1_000), (120_000, 120_000), (-300_000, 1_000)])
async def test_what_is_said_in_a_group_does_not_bring_it_back_for_who_has_left(
    books: Books, group_desk: GroupDesk, said_ms: int, later_ms: int
) -> None:
    bob = await archived(books, group_desk)

    others = (group_desk.alice, group_desk.carol)
    second = group_desk.say(message_id=group_desk.uuid7(START_MS + said_ms), version=2)
    second = second._replace(accepted_ms=START_MS + later_ms)
    await books.groups.accept(group_desk.shard, [second])
    expansion = group_desk.expand(second, to=(group_desk.carol,))
    await books.groups.expand([expansion], [group_desk.touch(second, version=2, to=others)])
    await books.store.retention.wake(START_MS, position_at(START_MS - 1000))

    (chat,) = (await books.store.list_chats(bob, None, 10, is_archived=True)).chats
    assert chat.settings.is_archived
