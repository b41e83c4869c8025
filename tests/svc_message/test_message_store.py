"""What every store of the ledger does: messages and who sees them. Receipts are in the next file."""

import asyncio
import time

import pytest

from svc_message.model import (
    NO_POSITION,
    Accepted,
    ChatCursor,
    ForeignAppend,
    ForeignEvent,
    Found,
    InboxRead,
    NewMessage,
    ReceiptState,
    UserId,
    Verdict,
)
from svc_message.ports import MessageStore
from svc_message.protocol import direct_conversation
from tests.svc_message.desk import START_MS, Desk, event, ids, inbox, page, ref, stranger


async def test_a_first_attempt_is_stored(store: MessageStore, desk: Desk) -> None:
    message = desk.write()

    answers = await store.accept([message])

    assert answers == [Accepted(Verdict.STORED, message.accepted_ms, is_withheld=False)]


async def test_a_message_stands_in_both_inboxes_under_its_position(store: MessageStore, desk: Desk) -> None:
    message = desk.write()

    await store.accept([message])

    assert await inbox(store, desk.alice) == [event(message)]
    assert await inbox(store, desk.bob) == [event(message)]


@pytest.mark.parametrize("is_retry", [True, False])
async def test_a_found_message_is_completed_under_the_fresh_position(
    store: MessageStore, desk: Desk, *, is_retry: bool
) -> None:
    message = desk.write()
    again = desk.retry(message)._replace(is_retry=is_retry)
    await store.accept([message])

    answers = await store.accept([again])

    assert answers == [Accepted(Verdict.DUPLICATE, message.accepted_ms, is_withheld=False)]
    assert await inbox(store, desk.alice, message.position) == [event(message, again.position)]
    assert await inbox(store, desk.bob, message.position) == [event(message, again.position)]


@pytest.mark.parametrize("is_retry", [True, False])
async def test_other_content_under_a_taken_id_changes_nothing(
    store: MessageStore, desk: Desk, *, is_retry: bool
) -> None:
    message = desk.write(b"first")
    other = desk.write(b"other", message_id=message.message_id)._replace(is_retry=is_retry)
    await store.accept([message])

    answers = await store.accept([other])

    assert answers[0].verdict is Verdict.CONFLICT
    assert await inbox(store, desk.bob) == [event(message)]
    assert [stored.message.envelope for stored in await page(store, desk.bob, message)] == [b"first"]


async def test_an_id_that_the_other_side_took_is_a_conflict(store: MessageStore, desk: Desk) -> None:
    message = desk.write()
    await store.accept([message])

    stolen = desk.retry(message)._replace(sender_id=desk.bob, recipient_id=desk.alice)
    answers = await store.accept([stolen])

    assert answers[0].verdict is Verdict.CONFLICT
    assert await inbox(store, desk.alice) == [event(message)]


async def test_a_void_id_is_never_accepted(store: MessageStore, desk: Desk) -> None:
    message = desk.write()
    await store.declare_void([ref(message)])

    answers = await store.accept([desk.retry(message)])

    assert answers[0].verdict is Verdict.VOID
    assert await inbox(store, desk.alice) == []
    assert await page(store, desk.alice, message) == []
    assert (await store.list_chats(desk.alice, None, 10)).chats == []


async def test_a_withheld_message_exists_for_its_sender_only(store: MessageStore, desk: Desk) -> None:
    message = desk.write(is_withheld=True)

    answers = await store.accept([message])

    assert answers == [Accepted(Verdict.STORED, message.accepted_ms, is_withheld=True)]
    assert await inbox(store, desk.alice) == [event(message)]
    assert ids(await page(store, desk.alice, message)) == [message.message_id]
    assert await inbox(store, desk.bob) == []
    assert await page(store, desk.bob, message) == []
    assert (await store.list_chats(desk.bob, None, 10)).chats == []


async def test_completing_a_withheld_message_after_an_unblock_does_not_deliver_it(
    store: MessageStore, desk: Desk
) -> None:
    message = desk.write(is_withheld=True)
    await store.accept([message])

    answers = await store.accept([desk.retry(message)._replace(is_withheld=False)])

    assert answers == [Accepted(Verdict.DUPLICATE, message.accepted_ms, is_withheld=True)]
    assert len(await inbox(store, desk.alice)) == 2
    assert await inbox(store, desk.bob) == []
    assert (await store.list_chats(desk.bob, None, 10)).chats == []


async def test_the_message_after_a_completed_withheld_one_puts_the_chat_on_the_list(
    store: MessageStore, desk: Desk
) -> None:
    withheld, later = desk.write(is_withheld=True), desk.write()
    await store.accept([withheld])
    await store.accept([desk.retry(withheld)._replace(is_withheld=False), later])

    chats = (await store.list_chats(desk.bob, None, 10)).chats

    assert [(chat.peer_id, chat.unread_count) for chat in chats] == [(desk.alice, 1)]


async def test_a_block_does_not_take_back_what_was_accepted(store: MessageStore, desk: Desk) -> None:
    message = desk.write()
    await store.accept([message])

    answers = await store.accept([desk.retry(message)._replace(is_withheld=True)])

    assert not answers[0].is_withheld
    assert len(await inbox(store, desk.bob)) == 2


async def test_a_note_to_self_is_one_event(store: MessageStore, desk: Desk) -> None:
    note = desk.write(recipient=desk.alice)

    await store.accept([note])

    assert await inbox(store, desk.alice) == [event(note)]
    (chat,) = (await store.list_chats(desk.alice, None, 10)).chats
    assert (chat.peer_id, chat.unread_count) == (desk.alice, 0)


async def test_a_mixed_batch_is_answered_in_its_order(store: MessageStore, desk: Desk) -> None:
    found, taken, void, new = (desk.write() for _ in range(4))
    await store.accept([found, taken])
    await store.declare_void([ref(void)])
    other = desk.retry(desk.write(b"other", message_id=taken.message_id))

    answers = await store.accept([new, desk.retry(void), other, desk.retry(found)])

    expected = [Verdict.STORED, Verdict.VOID, Verdict.CONFLICT, Verdict.DUPLICATE]
    assert [answer.verdict for answer in answers] == expected


async def test_messages_of_one_flush_may_share_a_position(store: MessageStore, desk: Desk) -> None:
    position = desk.position()
    messages = [desk.write(b"%d" % n)._replace(position=position) for n in range(50)]

    await store.accept(messages)

    assert sorted(await inbox(store, desk.bob)) == [event(message) for message in messages]


async def test_an_id_counts_within_its_conversation(store: MessageStore, desk: Desk) -> None:
    message = desk.write()
    other = desk.write(recipient=stranger(), message_id=message.message_id)

    answers = await store.accept([message]) + await store.accept([other])

    assert [answer.verdict for answer in answers] == [Verdict.STORED, Verdict.STORED]


async def test_two_attempts_at_once_store_one_message(store: MessageStore, desk: Desk) -> None:
    message = desk.write()

    answers = await asyncio.gather(store.accept([message]), store.accept([desk.retry(message)]))

    assert sorted(answer.verdict for (answer,) in answers) == [Verdict.STORED, Verdict.DUPLICATE]
    assert len(ids(await page(store, desk.bob, message))) == 1


async def test_crossing_batches_do_not_stop_each_other(store: MessageStore, desk: Desk) -> None:
    messages = [desk.write() for _ in range(100)]

    answers = await asyncio.gather(store.accept(messages), store.accept([desk.retry(m) for m in reversed(messages)]))

    verdicts = [answer.verdict for batch in answers for answer in batch]
    assert sorted(verdicts) == [Verdict.STORED] * 100 + [Verdict.DUPLICATE] * 100


async def test_nothing_to_do_is_done(store: MessageStore) -> None:
    assert await store.accept([]) == []
    assert await store.find([]) == []
    assert await store.declare_void([]) == []
    assert await store.apply_receipts([]) == []
    assert await store.read_inbox([]) == []
    await store.append_events([])


async def test_find_says_what_is_there_in_order(store: MessageStore, desk: Desk) -> None:
    message, withheld, void, unknown = desk.write(), desk.write(is_withheld=True), desk.write(), desk.write()
    await store.accept([message, withheld])
    await store.declare_void([ref(void)])

    found = await store.find([ref(m) for m in (unknown, void, withheld, message)])

    assert found[0] is None
    assert found[1] is not None
    assert found[1].is_void
    assert found[2:] == [
        Found(is_void=False, content_hash=m.content_hash, accepted_ms=m.accepted_ms, is_withheld=m.is_withheld)
        for m in (withheld, message)
    ]


async def test_void_is_declared_where_nothing_is(store: MessageStore, desk: Desk) -> None:
    there, missing = desk.write(), desk.write()
    await store.accept([there])

    first = await store.declare_void([ref(there), ref(missing)])
    second = await store.declare_void([ref(missing), ref(there)])

    assert (first, second) == ([False, True], [True, False])


async def test_either_the_message_or_its_void_wins(store: MessageStore, desk: Desk) -> None:
    for _ in range(20):
        message = desk.write()

        (answer,), (is_void,) = await asyncio.gather(store.accept([message]), store.declare_void([ref(message)]))

        assert (answer.verdict is Verdict.STORED) == (not is_void)


async def test_an_inbox_is_read_in_order_up_to_the_limit(store: MessageStore, desk: Desk) -> None:
    messages = [desk.write() for _ in range(5)]
    await store.accept(list(reversed(messages)))

    (first,) = await store.read_inbox([InboxRead(desk.bob, NO_POSITION, 3)])
    (second,) = await store.read_inbox([InboxRead(desk.bob, first.events[-1].position, 3)])

    assert (first.events, first.has_more) == ([event(m) for m in messages[:3]], True)
    assert (second.events, second.has_more) == ([event(m) for m in messages[3:]], False)


async def test_a_page_never_ends_inside_a_position(store: MessageStore, desk: Desk) -> None:
    position, later = desk.position(), desk.position()
    messages = [desk.write()._replace(position=position) for _ in range(3)]
    messages += [desk.write()._replace(position=later) for _ in range(4)]
    await store.accept(messages)

    (first,) = await store.read_inbox([InboxRead(desk.bob, NO_POSITION, 5)])
    (second,) = await store.read_inbox([InboxRead(desk.bob, position, 2)])

    assert (len(first.events), first.has_more) == (3, True)
    assert (len(second.events), second.has_more) == (4, True)


async def test_many_inboxes_are_read_at_once_in_order(store: MessageStore, desk: Desk) -> None:
    message = desk.write()
    await store.accept([message])
    reads = [
        (desk.bob, NO_POSITION),
        (stranger(), NO_POSITION),
        (desk.alice, message.position),
        (desk.alice, NO_POSITION),
    ]

    pages = await store.read_inbox([InboxRead(user, after, 10) for user, after in reads])

    assert [page.events for page in pages] == [[event(message)], [], [], [event(message)]]
    assert not any(page.has_more for page in pages)


async def test_events_of_other_services_reach_all_their_users(store: MessageStore, desk: Desk) -> None:
    change_id = desk.uuid7()
    append = ForeignAppend(change_id, (desk.alice, desk.bob), b"item", desk.position())

    await store.append_events([append])

    expected = [ForeignEvent(append.position, change_id, b"item")]
    assert await inbox(store, desk.alice) == expected
    assert await inbox(store, desk.bob) == expected


async def test_a_repeated_append_is_there_again(store: MessageStore, desk: Desk) -> None:
    change_id = desk.uuid7()
    appends = [ForeignAppend(change_id, (desk.bob,), b"item", desk.position()) for _ in range(2)]

    for append in appends:
        await store.append_events([append])

    assert await inbox(store, desk.bob) == [ForeignEvent(append.position, change_id, b"item") for append in appends]


async def test_an_append_may_name_thousands_of_users(store: MessageStore, desk: Desk) -> None:
    crowd = tuple(stranger() for _ in range(1500))
    appends = [ForeignAppend(desk.uuid7(), crowd, b"item %d" % n, desk.position()) for n in range(4)]

    await store.append_events(appends)

    for user_id in (crowd[0], crowd[777], crowd[-1]):
        assert [e.item for e in await inbox(store, user_id) if isinstance(e, ForeignEvent)] == [a.item for a in appends]


async def test_a_page_is_newest_first(store: MessageStore, desk: Desk) -> None:
    messages = [desk.write(sender=desk.bob, recipient=desk.alice), desk.write(), desk.write(b"")]
    await store.accept(messages)

    rows = await page(store, desk.alice, messages[0], limit=2)

    assert [row.message for row in rows] == [event(m, NO_POSITION) for m in (messages[2], messages[1])]
    assert {(row.state, row.delivered_ms, row.read_ms) for row in rows} == {(ReceiptState.SENT, 0, 0)}


@pytest.fixture
async def ten(store: MessageStore, desk: Desk) -> list[NewMessage]:
    """Returns ten stored messages, oldest first."""
    messages = [desk.write() for _ in range(10)]
    await store.accept(messages)
    return messages


async def test_a_page_before_an_id_holds_the_newest_before_it(
    store: MessageStore, desk: Desk, ten: list[NewMessage]
) -> None:
    rows = await page(store, desk.bob, ten[0], before=ten[5].message_id, limit=3)

    assert ids(rows) == ids([ten[4], ten[3], ten[2]])


async def test_a_page_after_an_id_holds_the_oldest_after_it(
    store: MessageStore, desk: Desk, ten: list[NewMessage]
) -> None:
    rows = await page(store, desk.bob, ten[0], after=ten[5].message_id, limit=3)

    assert ids(rows) == ids([ten[8], ten[7], ten[6]])


async def test_a_page_may_be_bounded_on_both_sides(store: MessageStore, desk: Desk, ten: list[NewMessage]) -> None:
    rows = await page(store, desk.bob, ten[0], after=ten[2].message_id, before=ten[5].message_id)

    assert ids(rows) == ids([ten[4], ten[3]])


async def test_a_page_shows_nothing_to_others(store: MessageStore, desk: Desk, ten: list[NewMessage]) -> None:
    assert await page(store, stranger(), ten[0]) == []


async def test_chats_are_listed_newest_first_with_their_last_message(store: MessageStore, desk: Desk) -> None:
    peers = [stranger() for _ in range(3)]
    messages = [desk.write(sender=peer, recipient=desk.alice) for peer in peers]
    await store.accept(messages)
    await store.accept([desk.write(b"newest", sender=peers[0], recipient=desk.alice)])

    window = await store.list_chats(desk.alice, None, 10)

    assert [chat.peer_id for chat in window.chats] == [peers[0], peers[2], peers[1]]
    assert [chat.unread_count for chat in window.chats] == [2, 1, 1]
    newest = window.chats[0].last_message
    assert newest is not None
    assert newest.message.envelope == b"newest"
    assert window.next_cursor is None


async def test_windows_of_a_chat_list_hold_every_chat_once(store: MessageStore, desk: Desk) -> None:
    peers = {stranger() for _ in range(7)}
    same_time = desk.uuid7()[:6]
    messages = [desk.write(recipient=peer, message_id=same_time + desk.uuid7()[6:]) for peer in peers]
    await store.accept(messages)

    seen: list[UserId] = []
    cursor, windows = None, 0
    while windows == 0 or cursor is not None:
        window = await store.list_chats(desk.alice, cursor, 3)
        cursor, windows = window.next_cursor, windows + 1
        seen += [chat.peer_id for chat in window.chats]

    assert (windows, len(seen), set(seen)) == (3, 7, peers)


async def test_a_chat_in_which_somebody_writes_all_the_time_stays_on_top(store: MessageStore, desk: Desk) -> None:
    def said_at(second: int, sender: UserId) -> NewMessage:
        said_ms = START_MS + 1000 * second
        message = desk.write(sender=sender, recipient=desk.alice, message_id=desk.uuid7(said_ms))
        return message._replace(accepted_ms=said_ms)

    other = stranger()
    for second in range(0, 301, 30):
        await store.accept([said_at(second, desk.bob)])
        if second == 120:
            await store.accept([said_at(125, other)])

    first = await store.list_chats(desk.alice, None, 1)
    second_one = await store.list_chats(desk.alice, first.next_cursor, 1)

    assert [chat.peer_id for window in (first, second_one) for chat in window.chats] == [desk.bob, other]


async def test_windows_of_a_list_of_years_hold_every_chat_once(store: MessageStore, desk: Desk) -> None:
    """Of 40 people one writes every month, and one all the time."""
    people = [stranger() for _ in range(40)]
    for month in range(40):
        said_ms = START_MS - (40 - month) * 30 * 86_400_000
        writers = dict.fromkeys((people[month], people[0]))
        messages = [
            desk.write(sender=who, recipient=desk.alice, message_id=desk.uuid7(said_ms + 1000 * n))
            for n, who in enumerate(writers)
        ]
        await store.accept([message._replace(accepted_ms=said_ms) for message in messages])

    seen: list[UserId] = []
    cursor: ChatCursor | None = None
    while not seen or cursor is not None:
        window = await store.list_chats(desk.alice, cursor, 3)
        cursor = window.next_cursor
        seen += [chat.peer_id for chat in window.chats]

    assert seen == [people[0], *people[:0:-1]]


async def test_unread_counts_others_messages_up_to_a_hundred(store: MessageStore, desk: Desk) -> None:
    await store.accept([desk.write() for _ in range(130)])
    await store.accept([desk.write(sender=desk.bob, recipient=desk.alice), desk.write(is_withheld=True)])

    (for_bob,) = (await store.list_chats(desk.bob, None, 10)).chats
    (for_alice,) = (await store.list_chats(desk.alice, None, 10)).chats

    assert (for_bob.unread_count, for_alice.unread_count) == (100, 1)
    assert for_bob.conversation_id == direct_conversation(desk.alice, desk.bob)


async def test_a_store_tells_its_epoch_and_time(store: MessageStore) -> None:
    await store.ready()

    assert await store.epoch() == 1
    assert abs(await store.clock_ms() - time.time() * 1000) < 5000
