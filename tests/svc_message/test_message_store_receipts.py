"""What every store of the ledger does: how far messages have come, and who is told."""

import asyncio

import pytest

from svc_message.model import (
    Applied,
    NewMessage,
    OwnReadEvent,
    ReceiptEvent,
    ReceiptState,
    ReceiptUpdate,
)
from svc_message.ports import MessageStore
from svc_message.protocol import TOLD_AGAIN_MS, WRITE_WINDOW_S
from tests.svc_message.desk import START_MS, Desk, ids, inbox, page, ref, stranger

NOTHING = Applied((), None)


def told(update: ReceiptUpdate, *messages: NewMessage) -> ReceiptEvent:
    """Returns the event that tells of messages."""
    named = tuple(message.message_id for message in messages)
    return ReceiptEvent(
        update.position, update.conversation_id, update.reader_id, named, update.state, update.recorded_ms
    )


def own(update: ReceiptUpdate, upto: NewMessage) -> OwnReadEvent:
    """Returns the event that tells the reader's other devices."""
    return OwnReadEvent(
        update.position, update.reader_id, update.conversation_id, upto.message_id, update.reader_device_id
    )


async def accepted(store: MessageStore, desk: Desk, count: int) -> list[NewMessage]:
    """Stores messages from alice to bob."""
    messages = [desk.write() for _ in range(count)]
    await store.accept(messages)
    return messages


async def test_delivery_is_told_to_the_sender(store: MessageStore, desk: Desk) -> None:
    (message,) = await accepted(store, desk, 1)
    update = desk.receive(message)

    applied = await store.apply_receipts([update])

    assert applied == [Applied((told(update, message),), None)]
    assert (await inbox(store, desk.alice, message.position)) == [told(update, message)]
    assert await inbox(store, desk.bob, message.position) == []


async def test_both_sides_see_the_state_in_history(store: MessageStore, desk: Desk) -> None:
    (message,) = await accepted(store, desk, 1)
    delivered, read = desk.receive(message), desk.read(message)
    await store.apply_receipts([delivered])
    await store.apply_receipts([read])

    for owner in (desk.alice, desk.bob):
        (row,) = await page(store, owner, message)

        assert (row.state, row.delivered_ms, row.read_ms) == (
            ReceiptState.READ,
            delivered.recorded_ms,
            read.recorded_ms,
        )


async def test_read_implies_delivered(store: MessageStore, desk: Desk) -> None:
    (message,) = await accepted(store, desk, 1)
    read = desk.read(message)

    await store.apply_receipts([read])

    (row,) = await page(store, desk.alice, message)
    assert (row.state, row.delivered_ms) == (ReceiptState.READ, read.recorded_ms)


async def test_a_state_never_falls(store: MessageStore, desk: Desk) -> None:
    (message,) = await accepted(store, desk, 1)
    await store.apply_receipts([desk.read(message)])

    applied = await store.apply_receipts([desk.receive(message)])

    assert applied == [NOTHING]
    (row,) = await page(store, desk.alice, message)
    assert row.state is ReceiptState.READ


async def test_what_is_known_is_told_once(store: MessageStore, desk: Desk) -> None:
    (message,) = await accepted(store, desk, 1)
    await store.apply_receipts([desk.receive(message)])

    applied = await store.apply_receipts([desk.receive(message)])

    assert applied == [NOTHING]
    assert len(await inbox(store, desk.alice, message.position)) == 1


async def test_who_acknowledges_again_after_seconds_may_have_told_nobody(store: MessageStore, desk: Desk) -> None:
    (message,) = await accepted(store, desk, 1)
    first = desk.receive(message)
    await store.apply_receipts([first])
    soon, late, too_late = (
        desk.receive(message)._replace(recorded_ms=first.recorded_ms + after_ms)
        for after_ms in (int(WRITE_WINDOW_S * 1000) - 1, int(WRITE_WINDOW_S * 1000), TOLD_AGAIN_MS + 1)
    )

    applied = [await store.apply_receipts([update]) for update in (soon, late, too_late)]

    assert applied == [[NOTHING], [Applied((told(late, message),), None)], [NOTHING]]
    assert await inbox(store, desk.alice, first.position) == [told(late, message)]


async def test_a_forced_update_is_told_again(store: MessageStore, desk: Desk) -> None:
    messages = await accepted(store, desk, 2)
    await store.apply_receipts([desk.read(upto=messages[1].message_id)])
    again = desk.read(upto=messages[1].message_id, is_forced=True)

    (applied,) = await store.apply_receipts([again])

    assert [set(e.message_ids) for e in applied.receipt_events] == [set(ids(messages))]
    assert applied.own_read == own(again, messages[1])
    assert await inbox(store, desk.bob, messages[1].position) != []


async def test_receipts_for_what_the_peer_did_not_send_leave_nothing(store: MessageStore, desk: Desk) -> None:
    unknown, withheld = desk.write(), desk.write(is_withheld=True)
    bobs = desk.write(sender=desk.bob, recipient=desk.alice)
    await store.accept([withheld, bobs])

    applied = await store.apply_receipts([desk.read(unknown, withheld, bobs, is_forced=True)])
    await store.accept([desk.retry(unknown)])

    assert applied == [NOTHING]
    assert {row.state for row in await page(store, desk.alice, bobs)} == {ReceiptState.SENT}


async def test_receipts_of_a_void_id_leave_nothing(store: MessageStore, desk: Desk) -> None:
    (message,) = await accepted(store, desk, 1)
    void = desk.write()
    await store.declare_void([ref(void)])

    applied = await store.apply_receipts([desk.read(upto=void.message_id)])

    assert [e.message_ids for e in applied[0].receipt_events] == [(message.message_id,)]


async def test_a_stranger_moves_nothing(store: MessageStore, desk: Desk) -> None:
    (message,) = await accepted(store, desk, 1)
    update = desk.read(message, upto=message.message_id)._replace(reader_id=stranger(), is_forced=True)

    applied = await store.apply_receipts([update])

    assert applied == [NOTHING]


async def test_more_than_forty_messages_are_several_events_under_one_position(store: MessageStore, desk: Desk) -> None:
    messages = await accepted(store, desk, 100)
    update = desk.receive(*messages)

    (applied,) = await store.apply_receipts([update])

    assert max(len(e.message_ids) for e in applied.receipt_events) == 40
    assert {e.position for e in applied.receipt_events} == {update.position}
    events = await inbox(store, desk.alice, messages[-1].position)
    assert sorted(events) == sorted(applied.receipt_events)
    named = [i for e in events if isinstance(e, ReceiptEvent) for i in e.message_ids]
    assert sorted(named) == ids(messages)


async def test_updates_of_one_flush_may_share_a_position(store: MessageStore, desk: Desk) -> None:
    messages = [desk.write(recipient=stranger()) for _ in range(20)]
    await store.accept(messages)
    position = desk.position()
    updates = [
        desk.read(m)._replace(reader_id=m.recipient_id, conversation_id=m.conversation_id, position=position)
        for m in messages
    ]

    applied = await store.apply_receipts(updates)

    assert [a.receipt_events for a in applied] == [(told(u, m),) for u, m in zip(updates, messages, strict=True)]
    assert len(await inbox(store, desk.alice, messages[-1].position)) == 20


async def test_two_updates_of_one_message_end_at_the_higher_state(store: MessageStore, desk: Desk) -> None:
    (message,) = await accepted(store, desk, 1)

    applied = await store.apply_receipts([desk.read(message), desk.receive(message)])

    assert applied[0].receipt_events != ()
    (row,) = await page(store, desk.bob, message)
    assert row.state is ReceiptState.READ


async def test_two_devices_at_once_raise_once_at_least_and_never_lower(store: MessageStore, desk: Desk) -> None:
    messages = await accepted(store, desk, 50)

    await asyncio.gather(
        store.apply_receipts([desk.receive(*messages)]),
        store.apply_receipts([desk.read(*reversed(messages))]),
        store.apply_receipts([desk.receive(*reversed(messages))]),
    )

    assert {row.state for row in await page(store, desk.alice, messages[0])} == {ReceiptState.READ}


async def test_read_upto_stands_for_the_unread_messages_of_the_peer(store: MessageStore, desk: Desk) -> None:
    messages = await accepted(store, desk, 3)
    await store.accept([desk.write(sender=desk.bob, recipient=desk.alice), desk.write(is_withheld=True)])
    await store.apply_receipts([desk.read(messages[0])])
    update = desk.read(upto=messages[1].message_id)

    applied = await store.apply_receipts([update])

    assert applied == [Applied((told(update, messages[1]),), own(update, messages[1]))]
    (chat,) = (await store.list_chats(desk.bob, None, 10)).chats
    assert (chat.unread_count, chat.read_upto) == (1, messages[1].message_id)


async def test_read_upto_never_goes_back(store: MessageStore, desk: Desk) -> None:
    messages = await accepted(store, desk, 3)
    await store.apply_receipts([desk.read(upto=messages[2].message_id)])

    applied = await store.apply_receipts([desk.read(upto=messages[0].message_id)])

    assert applied == [NOTHING]
    (chat,) = (await store.list_chats(desk.bob, None, 10)).chats
    assert chat.read_upto == messages[2].message_id


async def test_the_furthest_of_several_reads_in_a_batch_stands(store: MessageStore, desk: Desk) -> None:
    messages = await accepted(store, desk, 5)
    updates = [desk.read(upto=messages[n].message_id) for n in (1, 3, 2)]

    applied = await store.apply_receipts(updates)

    (chat,) = (await store.list_chats(desk.bob, None, 10)).chats
    assert chat.read_upto == messages[3].message_id
    assert own(updates[1], messages[3]) in [a.own_read for a in applied]


async def test_read_upto_comes_down_to_a_message_that_the_reader_sees(store: MessageStore, desk: Desk) -> None:
    (message,) = await accepted(store, desk, 1)
    await store.accept([desk.write(is_withheld=True)])

    (applied,) = await store.apply_receipts([desk.read(upto=b"\xff" * 16)])

    assert applied.own_read is not None
    assert applied.own_read.read_upto == message.message_id


async def test_a_late_message_below_what_was_read_becomes_read_with_the_next(store: MessageStore, desk: Desk) -> None:
    late, first, second = desk.write(), desk.write(), desk.write()
    await store.accept([first, second])
    await store.apply_receipts([desk.read(upto=first.message_id)])
    await store.accept([late])

    (applied,) = await store.apply_receipts([desk.read(upto=second.message_id)])

    assert [set(e.message_ids) for e in applied.receipt_events] == [{late.message_id, second.message_id}]


@pytest.mark.parametrize("age_s", [29, 31, 599])
async def test_what_was_written_before_the_place_read_and_accepted_after_it_becomes_read_with_the_next(
    store: MessageStore, desk: Desk, age_s: int
) -> None:
    early, first, second = desk.write(message_id=desk.uuid7(START_MS - 599_500)), desk.write(), desk.write()
    await store.accept([early, first])
    await store.apply_receipts([desk.read(upto=first.message_id)])
    late = desk.write(message_id=desk.uuid7(START_MS - age_s * 1000))
    await store.accept([late, second])

    (applied,) = await store.apply_receipts([desk.read(upto=second.message_id)])

    assert [set(e.message_ids) for e in applied.receipt_events] == [{late.message_id, second.message_id}]


@pytest.mark.untraced
async def test_late_messages_that_a_reader_does_not_see_hide_none_that_it_sees(store: MessageStore, desk: Desk) -> None:
    hidden = [desk.write(message_id=desk.uuid7(START_MS - 600_000 + n), is_withheld=True) for n in range(1001)]
    first, late, second = desk.write(), desk.write(message_id=desk.uuid7(START_MS - 120_000)), desk.write()
    await store.accept([*hidden, first])
    await store.apply_receipts([desk.read(upto=first.message_id)])
    await store.accept([late, second])

    (applied,) = await store.apply_receipts([desk.read(upto=second.message_id)])

    assert [set(e.message_ids) for e in applied.receipt_events] == [{late.message_id, second.message_id}]


@pytest.mark.untraced
async def test_a_read_is_told_again_from_where_its_first_attempt_was(store: MessageStore, desk: Desk) -> None:
    minted_ms = [START_MS - 1_100_000 + n * 1000 for n in range(1100)]
    messages = [desk.write(message_id=desk.uuid7(one))._replace(accepted_ms=one) for one in minted_ms]
    await store.accept(messages)
    first, last = desk.read(upto=messages[1].message_id), desk.read(upto=messages[-1].message_id)
    await store.apply_receipts([first])
    (portion,) = await store.apply_receipts([last])
    await store.apply_receipts([last._replace(read_after=portion.rest, position=desk.position())])

    again = last._replace(is_forced=True, forced_upto=first.read_upto, position=desk.position())
    (applied,) = await store.apply_receipts([again])

    told_again = {message_id for event in applied.receipt_events for message_id in event.message_ids}
    assert {messages[0].message_id, messages[1].message_id} <= told_again


async def test_single_ids_move_the_place_when_nothing_before_is_unread(store: MessageStore, desk: Desk) -> None:
    messages = await accepted(store, desk, 3)
    skipping, filling = desk.read(messages[1]), desk.read(messages[0])

    (gap,) = await store.apply_receipts([skipping])
    (chat,) = (await store.list_chats(desk.bob, None, 10)).chats
    (filled,) = await store.apply_receipts([filling])

    assert gap == Applied((told(skipping, messages[1]),), None)
    assert (chat.unread_count, chat.read_upto) == (2, b"")
    assert filled.own_read == own(filling, messages[0])


async def test_what_one_device_read_is_told_to_the_readers_inbox(store: MessageStore, desk: Desk) -> None:
    (message,) = await accepted(store, desk, 1)
    update = desk.read(upto=message.message_id)

    await store.apply_receipts([update])

    assert await inbox(store, desk.bob, message.position) == [own(update, message)]


async def test_reading_a_note_to_self_tells_of_both_in_one_inbox(store: MessageStore, desk: Desk) -> None:
    note = desk.write(recipient=desk.alice)
    await store.accept([note])
    update = desk.read(upto=note.message_id, reader=desk.alice)
    update = update._replace(peer_id=desk.alice, conversation_id=note.conversation_id)

    await store.apply_receipts([update])

    events = await inbox(store, desk.alice, note.position)
    assert {type(e) for e in events} == {ReceiptEvent, OwnReadEvent}
    assert {e.position for e in events} == {update.position}


@pytest.mark.untraced
async def test_a_long_read_is_marked_in_portions_from_the_oldest_message_on(store: MessageStore, desk: Desk) -> None:
    messages = await accepted(store, desk, 2005)
    update = desk.read(upto=messages[-1].message_id)

    rest, portions, places = b"", list[list[bytes]](), list[bytes]()
    while not portions or rest:
        (applied,) = await store.apply_receipts([update._replace(read_after=rest, position=desk.position())])
        assert applied.own_read is not None
        portions.append(sorted(i for event in applied.receipt_events for i in event.message_ids))
        places.append(applied.own_read.read_upto)
        rest = applied.rest

    assert portions == [ids(messages[start : start + 1000]) for start in (0, 1000, 2000)]
    assert places == [messages[last].message_id for last in (999, 1999, 2004)]


@pytest.mark.untraced
async def test_a_long_read_that_was_cut_off_is_finished_by_its_retry(store: MessageStore, desk: Desk) -> None:
    messages = await accepted(store, desk, 1005)
    update = desk.read(upto=messages[-1].message_id)
    (cut,) = await store.apply_receipts([update])
    assert cut.rest

    rest, marked = b"", set[bytes]()
    while not marked or rest:
        again = update._replace(read_after=rest, position=desk.position(), is_forced=True)
        (applied,) = await store.apply_receipts([again])
        marked.update(i for event in applied.receipt_events for i in event.message_ids)
        rest = applied.rest

    assert sorted(marked) == ids(messages)


@pytest.mark.untraced
async def test_a_repeated_read_of_a_long_conversation_tells_of_the_last_thousand(
    store: MessageStore, desk: Desk
) -> None:
    messages = await accepted(store, desk, 1205)
    for part in (messages[:600], messages[600:]):
        await store.apply_receipts([desk.read(*part)])
    at_its_end = [desk.read(upto=message.message_id, is_forced=True) for message in (messages[1202], messages[1203])]
    await store.apply_receipts(at_its_end[:1])

    told, rest = list[bytes](), b""
    while not told or rest:
        (applied,) = await store.apply_receipts([at_its_end[1]._replace(read_after=rest)])
        told += [i for event in applied.receipt_events for i in event.message_ids]
        rest = applied.rest

    assert len(told) >= 1000
    assert max(told) == messages[1203].message_id


async def test_a_repeated_read_tells_again_of_what_was_read_since_it_came_first(
    store: MessageStore, desk: Desk
) -> None:
    messages = await accepted(store, desk, 3)
    before, since = desk.read(upto=messages[0].message_id), desk.read(upto=messages[1].message_id)
    await store.apply_receipts([before])
    await store.apply_receipts([since])

    again = desk.read(upto=messages[2].message_id, is_forced=True)._replace(forced_since_ms=since.recorded_ms)
    (applied,) = await store.apply_receipts([again])

    assert [event.message_ids for event in applied.receipt_events] == [tuple(ids(messages[1:]))]


async def test_reading_up_to_a_place_counts_for_what_no_device_has_stored_yet(store: MessageStore, desk: Desk) -> None:
    on_its_way, shown = await accepted(store, desk, 2)
    await store.apply_receipts([desk.receive(shown)])

    (applied,) = await store.apply_receipts([desk.read(upto=shown.message_id)])

    assert [event.message_ids for event in applied.receipt_events] == [tuple(ids([on_its_way, shown]))]


async def test_reading_by_name_leaves_what_no_device_has_stored_yet(store: MessageStore, desk: Desk) -> None:
    _, shown = await accepted(store, desk, 2)

    (applied,) = await store.apply_receipts([desk.read(shown)])

    assert [event.message_ids for event in applied.receipt_events] == [(shown.message_id,)]
    assert applied.own_read is None


async def test_a_read_that_is_kept_from_the_sender_counts_for_the_reader_alone(store: MessageStore, desk: Desk) -> None:
    first, second = await accepted(store, desk, 2)
    await store.apply_receipts([desk.receive(first)])
    read = desk.read(upto=second.message_id)._replace(is_told=False)

    (applied,) = await store.apply_receipts([read])

    as_delivered = told(read._replace(state=ReceiptState.DELIVERED), second)
    assert applied == Applied((as_delivered,), own(read, second))
    assert (await inbox(store, desk.alice, second.position))[-1] == as_delivered
    for message in (first, second):
        (for_alice,) = [
            row for row in await page(store, desk.alice, message) if row.message.message_id == message.message_id
        ]
        (for_bob,) = [
            row for row in await page(store, desk.bob, message) if row.message.message_id == message.message_id
        ]
        assert (for_alice.state, for_alice.read_ms) == (ReceiptState.DELIVERED, 0)
        assert for_bob.state is ReceiptState.READ
    (chat,) = (await store.list_chats(desk.bob, None, 10)).chats
    assert chat.unread_count == 0


async def test_what_was_kept_from_the_sender_stays_so(store: MessageStore, desk: Desk) -> None:
    (message,) = await accepted(store, desk, 1)
    await store.apply_receipts([desk.read(message)._replace(is_told=False)])

    again = desk.read(message, is_forced=True)
    (applied,) = await store.apply_receipts([again])

    assert applied.receipt_events == (told(again._replace(state=ReceiptState.DELIVERED), message),)


async def test_a_read_by_id_that_is_kept_from_the_sender_moves_the_readers_place(
    store: MessageStore, desk: Desk
) -> None:
    (message,) = await accepted(store, desk, 1)
    await store.apply_receipts([desk.receive(message)])
    read = desk.read(message)._replace(is_told=False)

    (applied,) = await store.apply_receipts([read])

    assert applied == Applied((), own(read, message))
