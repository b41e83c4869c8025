"""What every store of the ledger does with muted, pinned, archived, cleared and disappearing conversations."""

import pytest

from svc_message.model import NO_POSITION, Chat, ChatCursor
from svc_message.model.action import ActionKind
from svc_message.model.setting import Changed, SettingChange, SettingEvent, Settings, SettingUpdate
from svc_message.protocol import position_at
from tests.svc_message.desk import START_MS, Book, Desk, ids, inbox, page, stranger

LONG_AGO = bytes(16)


async def change(store: Book, update: SettingUpdate, floor: bytes = LONG_AGO) -> Settings:
    """Makes a change that has to be stored, and returns the settings of its user."""
    changed = await store.settings.change(update, floor)
    assert changed is not None
    assert changed.is_stored
    return changed.events[0].settings


async def chat_of(store: Book, desk: Desk) -> Chat:
    """Returns the only line of bob's list."""
    (chat,) = (await store.list_chats(desk.bob, None, 10)).chats
    return chat


async def test_a_conversation_is_kept_as_it_was_until_it_is_changed(store: Book, desk: Desk) -> None:
    await store.accept([desk.write()])

    assert (await chat_of(store, desk)).settings == Settings()


async def test_what_is_not_set_stays_as_it_is(store: Book, desk: Desk) -> None:
    await store.accept([desk.write()])
    first = desk.keep(SettingChange(muted_until_ms=7, is_pinned=True))
    await change(store, first)

    settings = await change(store, desk.keep(SettingChange(is_archived=True)))
    last = desk.keep(SettingChange(is_archived=False))
    await change(store, last)

    assert settings == Settings(muted_until_ms=7, pinned_ms=first.changed_ms, is_archived=True)
    chat = await chat_of(store, desk)
    assert (chat.settings, chat.settings_position) == (settings._replace(is_archived=False), last.position)


async def test_settings_are_taken_back(store: Book, desk: Desk) -> None:
    await store.accept([desk.write()])
    await change(store, desk.keep(SettingChange(muted_until_ms=7, is_pinned=True, is_archived=True, expiry_s=60)))

    settings = await change(
        store, desk.keep(SettingChange(muted_until_ms=0, is_pinned=False, is_archived=False, expiry_s=0))
    )

    assert settings == Settings()


async def test_pinning_again_keeps_the_place(store: Book, desk: Desk) -> None:
    await store.accept([desk.write()])
    first = await change(store, desk.keep(SettingChange(is_pinned=True)))

    assert await change(store, desk.keep(SettingChange(is_pinned=True))) == first


async def test_every_device_of_the_user_is_told_and_nobody_else(store: Book, desk: Desk) -> None:
    message = desk.write()
    await store.accept([message])
    update = desk.keep(SettingChange(is_pinned=True))

    changed = await store.settings.change(update, LONG_AGO)

    event = SettingEvent(update.position, desk.bob, message.conversation_id, Settings(pinned_ms=update.changed_ms))
    assert changed == Changed(is_stored=True, events=(event,))
    assert (await inbox(store, desk.bob))[1:] == [event]
    assert len(await inbox(store, desk.alice)) == 1


async def test_the_timer_is_both_sides(store: Book, desk: Desk) -> None:
    message = desk.write()
    await store.accept([message])
    await change(store, desk.keep(SettingChange(is_pinned=True), user=desk.alice, peer=desk.bob))
    update = desk.keep(SettingChange(expiry_s=60, muted_until_ms=5), reaches_peer=True)

    changed = await store.settings.change(update, LONG_AGO)

    assert changed is not None
    assert [event.user_id for event in changed.events] == [desk.bob, desk.alice]
    own, peers = changed.events
    assert (own.settings.expiry_s, own.settings.muted_until_ms) == (60, 5)
    assert (peers.settings.expiry_s, peers.settings.muted_until_ms, peers.settings.pinned_ms > 0) == (60, 0, True)
    assert (await inbox(store, desk.alice))[-1] == peers
    assert (await inbox(store, desk.bob))[-1] == own


async def test_a_timer_that_does_not_reach_the_peer_is_the_users_alone(store: Book, desk: Desk) -> None:
    await store.accept([desk.write()])

    await change(store, desk.keep(SettingChange(expiry_s=60)))

    (for_alice,) = (await store.list_chats(desk.alice, None, 10)).chats
    assert for_alice.settings.expiry_s == 0


async def test_a_note_to_self_has_one_timer(store: Book, desk: Desk) -> None:
    update = desk.keep(SettingChange(expiry_s=60), peer=desk.bob, reaches_peer=True)

    changed = await store.settings.change(update, LONG_AGO)

    assert changed is not None
    assert len(changed.events) == 1
    assert len(await inbox(store, desk.bob)) == 1


async def test_a_conversation_may_be_kept_before_anything_was_said_and_is_on_no_list(store: Book, desk: Desk) -> None:
    await change(store, desk.keep(SettingChange(expiry_s=60), reaches_peer=True))
    for user in (desk.alice, desk.bob):
        assert (await store.list_chats(user, None, 10)).chats == []

    await store.accept([desk.write()])

    assert (await chat_of(store, desk)).settings.expiry_s == 60


async def test_who_has_no_conversation_and_may_not_begin_one_keeps_none(store: Book, desk: Desk) -> None:
    update = desk.keep(SettingChange(expiry_s=60), may_begin=False, reaches_peer=True)

    assert await store.settings.change(update, LONG_AGO) is None
    assert await inbox(store, desk.alice) == []
    await store.accept([desk.write()])
    assert (await chat_of(store, desk)).settings == Settings()


async def test_a_change_before_the_newest_is_not_stored(store: Book, desk: Desk) -> None:
    await store.accept([desk.write()])
    early = desk.keep(SettingChange(muted_until_ms=1), reaches_peer=True)
    late = desk.keep(SettingChange(muted_until_ms=2), user=desk.alice, peer=desk.bob)
    await change(store, late)

    changed = await store.settings.change(early, LONG_AGO)

    assert changed == Changed(is_stored=False, events=())
    assert (await chat_of(store, desk)).settings == Settings()
    assert len(await inbox(store, desk.bob)) == 1


async def test_an_event_shows_what_is_when_it_is_read(store: Book, desk: Desk) -> None:
    await store.accept([desk.write()])
    first, second = [desk.keep(SettingChange(muted_until_ms=n)) for n in (1, 2)]
    await change(store, first)
    await change(store, second)

    _, one, two = await inbox(store, desk.bob)

    assert isinstance(one, SettingEvent)
    assert isinstance(two, SettingEvent)
    assert (one.position, two.position) == (first.position, second.position)
    assert one.settings == two.settings == Settings(muted_until_ms=2)


async def test_what_is_cleared_is_on_no_page_and_not_unread(store: Book, desk: Desk) -> None:
    messages = [desk.write() for _ in range(4)]
    await store.accept(messages)

    update = desk.keep(SettingChange(cleared_upto=messages[2].message_id))
    await change(store, update)
    settings = await change(store, desk.keep(SettingChange(is_pinned=True)))

    assert (settings.cleared_upto, settings.cleared_ms) == (messages[2].message_id, update.changed_ms)
    assert ids(await page(store, desk.bob, messages[0])) == ids(messages[3:])
    assert ids(await page(store, desk.bob, messages[0], after=messages[0].message_id)) == ids(messages[3:])
    assert ids(await page(store, desk.alice, messages[0])) == ids(messages[::-1])
    assert (await chat_of(store, desk)).unread_count == 1


async def test_a_cleared_chat_stays_on_the_list_without_a_message(store: Book, desk: Desk) -> None:
    message = desk.write()
    await store.accept([message])

    await change(store, desk.keep(SettingChange(cleared_upto=b"\xff" * 16)))

    chat = await chat_of(store, desk)
    assert (chat.last_message, chat.unread_count, chat.settings.cleared_upto) == (None, 0, message.message_id)


async def test_clearing_only_ever_rises(store: Book, desk: Desk) -> None:
    messages = [desk.write() for _ in range(3)]
    await store.accept(messages)
    await change(store, desk.keep(SettingChange(cleared_upto=messages[1].message_id)))

    settings = await change(store, desk.keep(SettingChange(cleared_upto=messages[0].message_id)))

    assert settings.cleared_upto == messages[1].message_id
    assert ids(await page(store, desk.bob, messages[0])) == ids(messages[2:])


async def test_where_nothing_is_seen_nothing_is_cleared(store: Book, desk: Desk) -> None:
    withheld = desk.write(is_withheld=True)
    await store.accept([withheld, desk.write(sender=desk.bob, recipient=desk.alice)])

    settings = await change(store, desk.keep(SettingChange(cleared_upto=withheld.message_id)), floor=b"\xff" * 16)

    assert settings.cleared_upto == b""
    assert (await chat_of(store, desk)).last_message is not None


async def test_what_arrives_after_a_clearing_is_shown_though_its_id_is_older(store: Book, desk: Desk) -> None:
    late_id = desk.uuid7()
    seen = desk.write()
    await store.accept([seen])
    await change(store, desk.keep(SettingChange(cleared_upto=seen.message_id)), floor=position_at(START_MS - 660_000))
    late = desk.write(b"late", message_id=late_id)

    await store.accept([late])

    assert ids(await page(store, desk.bob, seen)) == [late.message_id]
    chat = await chat_of(store, desk)
    assert (chat.unread_count, chat.last_message is not None) == (1, True)


async def test_below_the_floor_everything_is_cleared_for_ever(store: Book, desk: Desk) -> None:
    late_id = desk.uuid7()
    seen = desk.write()
    await store.accept([seen])
    await change(store, desk.keep(SettingChange(cleared_upto=seen.message_id)), floor=seen.message_id)

    await store.accept([desk.write(message_id=late_id)])

    assert await page(store, desk.bob, seen) == []


@pytest.mark.parametrize("floor_ms", [-660_000, 660_000])
async def test_clearing_a_lower_place_keeps_what_came_late_between_the_two(
    store: Book, desk: Desk, floor_ms: int
) -> None:
    lower_id, between_id = desk.uuid7(), desk.uuid7()
    seen = desk.write()
    await store.accept([seen])
    first = desk.keep(SettingChange(cleared_upto=seen.message_id))
    await change(store, first, floor=position_at(START_MS - 660_000))
    lower, between = desk.write(b"lower", message_id=lower_id), desk.write(b"between", message_id=between_id)
    await store.accept([lower])
    await store.accept([between])

    lower_place = desk.keep(SettingChange(cleared_upto=lower_id))
    settings = await change(store, lower_place, floor=position_at(START_MS + floor_ms))

    assert ids(await page(store, desk.bob, seen)) == [between.message_id]
    assert settings.cleared_upto == seen.message_id
    assert first.changed_ms <= settings.cleared_ms < between.accepted_ms


async def test_what_came_late_is_cleared_by_its_own_place_and_what_comes_later_is_not(store: Book, desk: Desk) -> None:
    early_id, late_id = desk.uuid7(), desk.uuid7()
    seen = desk.write()
    await store.accept([seen])
    await change(store, desk.keep(SettingChange(cleared_upto=seen.message_id)), floor=position_at(START_MS - 660_000))
    await store.accept([desk.write(b"late", message_id=late_id)])
    await change(store, desk.keep(SettingChange(cleared_upto=late_id)), floor=position_at(START_MS - 660_000))
    assert await page(store, desk.bob, seen) == []

    early = desk.write(b"early", message_id=early_id)
    await store.accept([early])

    assert ids(await page(store, desk.bob, seen)) == [early.message_id]


async def test_archived_chats_are_listed_apart_until_somebody_writes(store: Book, desk: Desk) -> None:
    message = desk.write()
    await store.accept([message])
    await change(store, desk.keep(SettingChange(is_archived=True)))
    shown = (await store.list_chats(desk.bob, None, 10)).chats
    archived = (await store.list_chats(desk.bob, None, 10, is_archived=True)).chats

    later = desk.write(message_id=desk.uuid7(START_MS + 120_000))._replace(accepted_ms=START_MS + 120_000)
    await store.accept([later])

    assert (shown, [chat.settings.is_archived for chat in archived]) == ([], [True])
    assert not (await chat_of(store, desk)).settings.is_archived
    assert (await store.list_chats(desk.bob, None, 10, is_archived=True)).chats == []


async def test_what_a_late_message_brought_back_stays_when_something_else_is_changed(store: Book, desk: Desk) -> None:
    await store.accept([desk.write()])
    await change(store, desk.keep(SettingChange(is_archived=True)))
    await store.accept([desk.write(message_id=desk.uuid7(START_MS - 300_000))])
    await store.retention.wake(START_MS, position_at(START_MS - 600_000))

    settings = await change(store, desk.keep(SettingChange(muted_until_ms=7)))

    assert not settings.is_archived


async def test_a_timer_of_the_other_leaves_what_a_late_message_brought_back(store: Book, desk: Desk) -> None:
    await store.accept([desk.write()])
    await change(store, desk.keep(SettingChange(is_archived=True)))
    await store.accept([desk.write(message_id=desk.uuid7(START_MS - 300_000))])
    await store.retention.wake(START_MS, position_at(START_MS - 600_000))

    timer = desk.keep(SettingChange(expiry_s=60), user=desk.alice, peer=desk.bob, reaches_peer=True)
    changed = await store.settings.change(timer, LONG_AGO)

    assert changed is not None
    assert [event.settings.is_archived for event in changed.events] == [False, False]


async def test_pinned_chats_come_first_and_windows_go_on_behind_them(store: Book, desk: Desk) -> None:
    people = [stranger() for _ in range(7)]
    for number, person in enumerate(people):
        sent = desk.write(sender=person, recipient=desk.bob, message_id=desk.uuid7(START_MS + 1000 * number))
        await store.accept([sent])
    for person in (people[2], people[0]):
        await change(store, desk.keep(SettingChange(is_pinned=True), peer=person))

    found: list[bytes] = []
    cursor: ChatCursor | None = None
    while True:
        window = await store.list_chats(desk.bob, cursor, 2)
        found += [chat.peer_id for chat in window.chats]
        cursor = window.next_cursor
        if cursor is None:
            break

    assert found == [people[n] for n in (0, 2, 6, 5, 4, 3, 1)]


@pytest.mark.parametrize("kind", list(ActionKind))
async def test_settings_and_actions_stand_side_by_side(store: Book, desk: Desk, kind: ActionKind) -> None:
    message = desk.write()
    await store.accept([message])
    action = desk.act(message, kind, b"?", user=desk.alice)
    update = desk.keep(SettingChange(is_pinned=True))
    await store.actions.act([action])
    await change(store, update)

    events = await inbox(store, desk.bob, NO_POSITION)

    assert events[-1].position == update.position
