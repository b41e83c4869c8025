"""What every store of the ledger does with edits, revokes, hidings and reactions."""

import itertools
import random

import pytest

from chappe.runtime.clock import SystemClock
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.adapters.message_store_postgres import PostgresMessageStore
from svc_message.model import NO_POSITION, Event, InboxRead, MessageEvent, NewMessage, StoredMessage, UserId, Verdict
from svc_message.model.action import (
    Acted,
    ActionKind,
    FoundAction,
    NewAction,
    Reaction,
    Sight,
    Target,
    event_of,
)
from tests.svc_message.desk import Book, Desk, action_ref, event, inbox, page, ref

EDIT, REVOKE, HIDE, REACTION = ActionKind


async def seen(store: Book, owner: UserId, message: NewMessage) -> StoredMessage:
    """Returns a message as a page of its owner shows it."""
    (stored,) = await page(store, owner, message)
    return stored


def shown(action: NewAction) -> Event:
    """Returns the event of an action at its own position."""
    return event_of(action, action.accepted_ms)


async def test_an_edit_stands_in_pages_and_inboxes_of_both(store: Book, desk: Desk) -> None:
    message = desk.write(b"helo")
    await store.accept([message])
    edit = desk.act(message, EDIT, b"hello")

    answers = await store.actions.act([edit])

    assert answers == [Acted(Verdict.STORED, edit.accepted_ms, desk.bob, is_standing=True)]
    edited = event(message)._replace(envelope=b"hello", edited_ms=edit.accepted_ms)
    for user in (desk.alice, desk.bob):
        assert await inbox(store, user) == [edited, shown(edit)]
        assert (await seen(store, user, message)).message.envelope == b"hello"


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("is_batch", [True, False])
async def test_the_greatest_edit_stands_in_whatever_order_they_come(
    store: Book, desk: Desk, order: tuple[int, ...], *, is_batch: bool
) -> None:
    message = desk.write()
    await store.accept([message])
    edits = [desk.act(message, EDIT, b"edit %d" % n) for n in range(3)]
    coming = [edits[n] for n in order]

    for batch in [coming] if is_batch else [[edit] for edit in coming]:
        answers = await store.actions.act(batch)

    assert answers[-1].is_standing == (coming[-1] == edits[2])
    assert (await seen(store, desk.bob, message)).message.envelope == b"edit 2"
    (_, told) = await inbox(store, desk.bob)
    assert told == shown(edits[2])


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("is_batch", [True, False])
async def test_what_was_taken_back_stays_so_in_whatever_order_actions_come(
    store: Book, desk: Desk, order: tuple[int, ...], *, is_batch: bool
) -> None:
    message = desk.write(b"secret")
    await store.accept([message])
    actions = [
        desk.act(message, REVOKE),
        desk.act(message, EDIT, b"more secret"),
        desk.act(message, REACTION, b":)", user=desk.bob),
    ]
    coming = [actions[n] for n in order]

    for batch in [coming] if is_batch else [[action] for action in coming]:
        await store.actions.act(batch)

    for user in (desk.alice, desk.bob):
        stored = await seen(store, user, message)
        assert (stored.message.envelope, stored.message.revoked_ms) == (b"", actions[0].accepted_ms)
        assert stored.reactions == ()
        pointer, *events = await inbox(store, user)
        assert isinstance(pointer, MessageEvent)
        assert (pointer.envelope, pointer.revoked_ms) == (b"", actions[0].accepted_ms)
        assert events == [shown(actions[0])]


async def test_of_two_revokes_the_first_one_counts(store: Book, desk: Desk) -> None:
    message = desk.write()
    await store.accept([message])
    first, second = desk.act(message, REVOKE), desk.act(message, REVOKE)
    await store.actions.act([first])

    answers = await store.actions.act([second])

    assert answers[0].verdict is Verdict.STORED
    assert (await seen(store, desk.bob, message)).message.revoked_ms == first.accepted_ms


async def test_who_hides_a_message_hides_it_from_itself_alone(store: Book, desk: Desk) -> None:
    message, other = desk.write(), desk.write(b"other")
    await store.accept([message, other])
    hide = desk.act(message, HIDE, user=desk.bob)

    await store.actions.act([hide, desk.act(other, HIDE)])

    assert [stored.message.message_id for stored in await page(store, desk.bob, message)] == [other.message_id]
    assert [stored.message.message_id for stored in await page(store, desk.alice, message)] == [message.message_id]
    assert await inbox(store, desk.bob) == [event(other), shown(hide)]
    assert (await store.list_chats(desk.bob, None, 10)).chats[0].unread_count == 1


async def test_a_chat_whose_only_message_is_hidden_stays_on_the_list_without_one(store: Book, desk: Desk) -> None:
    message = desk.write()
    await store.accept([message])
    await store.actions.act([desk.act(message, HIDE, user=desk.bob)])

    (chat,) = (await store.list_chats(desk.bob, None, 10)).chats

    assert (chat.last_message, chat.unread_count) == (None, 0)


async def test_what_was_taken_back_is_not_unread(store: Book, desk: Desk) -> None:
    message, other = desk.write(), desk.write()
    await store.accept([message, other])

    await store.actions.act([desk.act(message, REVOKE)])

    assert (await store.list_chats(desk.bob, None, 10)).chats[0].unread_count == 1


async def test_a_withheld_edit_is_seen_by_its_user_alone(store: Book, desk: Desk) -> None:
    message = desk.write(b"first")
    await store.accept([message])
    open_edit = desk.act(message, EDIT, b"for both")
    await store.actions.act([open_edit])
    edit = desk.act(message, EDIT, b"for me", is_withheld=True)

    answers = await store.actions.act([edit])

    assert answers == [Acted(Verdict.STORED, edit.accepted_ms, is_standing=True)]
    assert (await seen(store, desk.alice, message)).message.envelope == b"for me"
    assert (await seen(store, desk.bob, message)).message.envelope == b"for both"
    assert (await inbox(store, desk.alice))[1:] == [shown(edit)]
    assert (await inbox(store, desk.bob))[1:] == [shown(open_edit)]


async def test_a_withheld_revoke_takes_nothing_from_the_other(store: Book, desk: Desk) -> None:
    message = desk.write(b"said")
    await store.accept([message])
    edit = desk.act(message, EDIT, b"for me", is_withheld=True)
    revoke = desk.act(message, REVOKE, is_withheld=True)

    await store.actions.act([edit])
    await store.actions.act([revoke])

    assert (await seen(store, desk.alice, message)).message.revoked_ms == revoke.accepted_ms
    assert (await seen(store, desk.alice, message)).message.envelope == b""
    assert (await seen(store, desk.bob, message)).message == event(message, position=bytes(16))  # type: ignore[arg-type]  # the place of a page


async def test_what_its_sender_alone_took_back_lives_on_for_the_other(store: Book, desk: Desk) -> None:
    message = desk.write()
    await store.accept([message])
    await store.actions.act([desk.act(message, REVOKE, is_withheld=True)])
    edit, reaction = desk.act(message, EDIT, b"new"), desk.act(message, REACTION, b"+1", user=desk.bob)

    acted = [one for action in (edit, reaction) for one in await store.actions.act([action])]

    assert [one.is_standing for one in acted] == [True, True]
    assert (await inbox(store, desk.bob))[1:] == [event_of(one, one.accepted_ms) for one in (edit, reaction)]
    for user, content, reactions in ((desk.alice, b"", []), (desk.bob, b"new", [b"+1"])):
        (stored,) = await page(store, user, message)
        assert (stored.message.envelope, [one.envelope for one in stored.reactions]) == (content, reactions)


async def test_an_edit_that_everybody_sees_stands_over_an_older_withheld_one(store: Book, desk: Desk) -> None:
    message = desk.write()
    await store.accept([message])
    withheld, later = desk.act(message, EDIT, b"for me", is_withheld=True), desk.act(message, EDIT, b"for both")

    await store.actions.act([withheld, later])

    assert (await seen(store, desk.alice, message)).message.envelope == b"for both"
    assert (await inbox(store, desk.alice))[1:] == [shown(later)]


async def test_a_reaction_is_seen_by_both_and_the_greatest_stands(store: Book, desk: Desk) -> None:
    message = desk.write()
    await store.accept([message])
    first, second = [desk.act(message, REACTION, text, user=desk.bob) for text in (b":|", b":)")]
    own = desk.act(message, REACTION, b":D")

    await store.actions.act([second, own])
    answers = await store.actions.act([first])

    assert not answers[0].is_standing
    expected = (
        Reaction(own.action_id, desk.alice, own.accepted_ms, b":D"),
        Reaction(second.action_id, desk.bob, second.accepted_ms, b":)"),
    )
    for user in (desk.alice, desk.bob):
        assert (await seen(store, user, message)).reactions == expected
        assert (await inbox(store, user))[1:] == [shown(second), shown(own)]


async def test_a_reaction_is_taken_away(store: Book, desk: Desk) -> None:
    message = desk.write()
    await store.accept([message])
    reaction, away = desk.act(message, REACTION, b":)", user=desk.bob), desk.act(message, REACTION, user=desk.bob)

    await store.actions.act([reaction])
    await store.actions.act([away])

    assert (await seen(store, desk.alice, message)).reactions == ()
    assert (await inbox(store, desk.alice))[1:] == [shown(away)]


async def test_a_withheld_reaction_is_seen_by_its_user_alone(store: Book, desk: Desk) -> None:
    message = desk.write()
    await store.accept([message])
    before = desk.act(message, REACTION, b":)", user=desk.bob)
    withheld = desk.act(message, REACTION, b":(", user=desk.bob, is_withheld=True)

    await store.actions.act([before])
    await store.actions.act([withheld])

    assert [r.envelope for r in (await seen(store, desk.alice, message)).reactions] == [b":)"]
    assert [r.envelope for r in (await seen(store, desk.bob, message)).reactions] == [b":("]
    assert (await inbox(store, desk.alice))[1:] == [shown(before)]


async def test_a_page_shows_the_newest_50_reactions(store: Book, desk: Desk) -> None:
    message = desk.write()
    await store.accept([message])
    users = [UserId(desk.uuid7()) for _ in range(60)]

    await store.actions.act([desk.act(message, REACTION, b":)", user=user) for user in users])

    stored = await seen(store, desk.alice, message)
    assert [reaction.user_id for reaction in stored.reactions] == users[:9:-1]


async def test_a_found_action_is_completed_under_the_fresh_position(store: Book, desk: Desk) -> None:
    message = desk.write()
    await store.accept([message])
    edit = desk.act(message, EDIT, b"edited")
    await store.actions.act([edit])
    again = desk.act_again(edit)

    answers = await store.actions.act([again])

    assert answers == [Acted(Verdict.DUPLICATE, edit.accepted_ms, desk.bob, is_standing=True)]
    for user in (desk.alice, desk.bob):
        assert await inbox(store, user, edit.position) == [event_of(again, edit.accepted_ms)]


async def test_completing_a_withheld_action_reaches_nobody_else(store: Book, desk: Desk) -> None:
    message = desk.write()
    await store.accept([message])
    edit = desk.act(message, EDIT, b"edited", is_withheld=True)
    await store.actions.act([edit])

    answers = await store.actions.act([desk.act_again(edit)._replace(is_withheld=False)])

    assert answers[0].peer_id is None
    assert await inbox(store, desk.bob) == [event(message)]


async def test_other_content_under_the_id_of_an_action_changes_nothing(store: Book, desk: Desk) -> None:
    message = desk.write(b"sent")
    await store.accept([message])
    edit = desk.act(message, EDIT, b"first")
    other = desk.act(message, EDIT, b"other", action_id=edit.action_id)
    revoke = desk.act(message, REVOKE, action_id=edit.action_id)
    await store.actions.act([edit])

    answers = [*await store.actions.act([other]), *await store.actions.act([revoke])]

    assert [answer.verdict for answer in answers] == [Verdict.CONFLICT, Verdict.CONFLICT]
    assert (await seen(store, desk.bob, message)).message.envelope == b"first"
    assert len(await inbox(store, desk.bob)) == 2


async def test_the_id_of_a_message_is_not_one_for_an_action(store: Book, desk: Desk) -> None:
    message = desk.write(b"sent")
    await store.accept([message])

    edit = desk.act(message, EDIT, b"edited", action_id=message.message_id)

    assert (await store.actions.act([edit]))[0].verdict is Verdict.CONFLICT
    (sight,) = await store.actions.sight([action_ref(edit)])
    assert sight.earlier == FoundAction(is_void=False, content_hash=b"", accepted_ms=0)
    assert (await seen(store, desk.bob, message)).message.envelope == b"sent"


async def test_a_void_action_is_never_carried_out(store: Book, desk: Desk) -> None:
    message = desk.write(b"sent")
    await store.accept([message])
    edit, stored = desk.act(message, EDIT, b"edited"), desk.act(message, REACTION, b":)")
    await store.actions.act([stored])

    is_void = await store.actions.declare_actions_void([action_ref(edit), action_ref(stored)])

    assert is_void == [True, False]
    assert (await store.actions.act([edit]))[0].verdict is Verdict.VOID
    (sight,) = await store.actions.sight([action_ref(edit)])
    assert sight.earlier is not None
    assert sight.earlier.is_void
    assert (await seen(store, desk.bob, message)).message.envelope == b"sent"
    assert await store.actions.declare_actions_void([]) == []


async def test_actions_and_their_messages_are_sighted_in_order(store: Book, desk: Desk) -> None:
    message, withheld, void = desk.write(), desk.write(is_withheld=True), desk.write()
    await store.accept([message, withheld])
    await store.declare_void([ref(void)])
    edit = desk.act(message, EDIT, b"edited")
    hide = desk.act(withheld, HIDE)
    await store.actions.act([edit, hide])
    new = [desk.act(one, REVOKE) for one in (void, desk.write(), withheld)]

    sights = await store.actions.sight([action_ref(action) for action in (edit, *new)])

    found = FoundAction(is_void=False, content_hash=edit.content_hash, accepted_ms=edit.accepted_ms)
    target = Target(desk.alice, desk.bob, message.accepted_ms, is_withheld=False, is_hidden=False)
    hidden = Target(desk.alice, desk.bob, withheld.accepted_ms, is_withheld=True, is_hidden=True)
    assert sights == [Sight(found, target), Sight(None, None), Sight(None, None), Sight(None, hidden)]


async def test_a_message_that_is_gone_is_acted_on_without_effect(store: Book, desk: Desk) -> None:
    never = desk.write()
    actions = [desk.act(never, kind, b"?") for kind in ActionKind]

    answers = await store.actions.act(actions)

    assert {answer.verdict for answer in answers} == {Verdict.STORED}
    assert await page(store, desk.alice, never) == []
    assert await store.actions.act([]) == []


async def test_the_retry_of_an_altered_message_is_known_as_such(store: Book, desk: Desk) -> None:
    plain, edited, revoked = desk.write(), desk.write(), desk.write()
    await store.accept([plain, edited, revoked])
    await store.actions.act([desk.act(edited, EDIT, b"edited"), desk.act(revoked, REVOKE)])

    answers = await store.accept([desk.retry(message) for message in (plain, edited, revoked)])

    assert [answer.verdict for answer in answers] == [Verdict.DUPLICATE] * 3
    assert [answer.is_altered for answer in answers] == [False, True, True]


async def test_pages_that_lose_all_their_events_say_where_they_end(store: Book, desk: Desk) -> None:
    message = desk.write()
    await store.accept([message])
    hide = desk.act(message, HIDE, user=desk.bob)
    await store.actions.act([hide])

    ((events, has_more, end, _),) = await store.read_inbox([InboxRead(desk.bob, NO_POSITION, 1)])

    assert (events, has_more, end) == ([], True, message.position)


@pytest.mark.parametrize("seed", range(12))
async def test_both_stores_show_the_same_after_anything_in_any_order(
    postgres_store: PostgresMessageStore, seed: int
) -> None:
    dice, desk, memory = random.Random(seed), Desk(), MemoryMessageStore(SystemClock())
    messages = [desk.write(b"message %d" % n) for n in range(4)]
    actions = []
    for number in range(40):
        message = dice.choice(messages)
        kind = dice.choices(list(ActionKind), [6, 1, 1, 6])[0]
        user = desk.alice if kind is EDIT else dice.choice([desk.alice, desk.bob])
        content = b"" if kind in {REVOKE, HIDE} or dice.random() < 0.1 else b"content %d" % number
        actions.append(desk.act(message, kind, content, user=user, is_withheld=dice.random() < 0.3))
    dice.shuffle(actions)
    actions += [desk.act_again(action) for action in dice.sample(actions, 10)]
    for store in (memory, postgres_store):
        await store.accept(messages)

    while actions:
        count = dice.randrange(1, 9)
        batch = list({action.action_id: action for action in actions[:count]}.values())
        del actions[:count]
        assert await memory.actions.act(batch) == await postgres_store.actions.act(batch)

    for user in (desk.alice, desk.bob):
        assert await page(memory, user, messages[0]) == await page(postgres_store, user, messages[0])
        assert await inbox(memory, user) == await inbox(postgres_store, user)
        assert await memory.list_chats(user, None, 9) == await postgres_store.list_chats(user, None, 9)
