"""What every store of the ledger does with edits, revokes and reactions in groups."""

import time

import pytest

from svc_message.model import NO_POSITION, MessageEvent, PageRead, Position, StoredMessage, UserId, Verdict
from svc_message.model.action import Acted, ActionKind, ActionRef, NewAction, Target, event_of
from svc_message.model.group import Entry, Expansion, NewGroupMessage, Window
from tests.svc_message.desk import action_ref, inbox
from tests.svc_message.group_desk import Books, GroupDesk

EDIT, REVOKE, HIDE, REACTION = ActionKind


async def said(books: Books, desk: GroupDesk, text: bytes = b"hello", **fields: int) -> NewGroupMessage:
    """Stores a message of alice's, and tells everybody."""
    message = desk.say(text)._replace(**fields)  # type: ignore[arg-type]  # columns of numbers
    await books.groups.accept(desk.shard, [message])
    await books.groups.expand([desk.expand(message)], [desk.touch(message)])
    return message


async def entries(books: Books, desk: GroupDesk) -> list[Entry]:
    """Returns what stands in the journal about actions, as who adopts it finds it."""
    found = await books.journal.read(desk.shard, NO_POSITION, 100)
    return [entry for entry in found if isinstance(entry, Entry) and not isinstance(entry.event, MessageEvent)]


async def page(books: Books, desk: GroupDesk, reader: UserId) -> list[StoredMessage]:
    return await books.groups.read_page(PageRead(reader, desk.group_id, b"", b"", 10), (Window(1, 0),))


def entry_of(action: NewAction, position: Position | None = None) -> Entry:
    """Returns the entry of an action on a message of the first version."""
    event = event_of(action, action.accepted_ms)._replace(position=NO_POSITION)
    return Entry(position or action.position, action.conversation_id, action.user_id, 1, event)


async def test_the_message_of_an_action_is_seen_with_its_version(books: Books, group_desk: GroupDesk) -> None:
    message = await said(books, group_desk)
    edit = group_desk.do(message, EDIT, b"new")

    (sight,) = await books.store.actions.sight([action_ref(edit)])

    group = UserId(group_desk.group_id)
    assert sight.target == Target(group_desk.alice, group, message.accepted_ms, False, False, 1)  # noqa: FBT003


async def test_an_action_takes_effect_for_everybody_and_has_an_entry(books: Books, group_desk: GroupDesk) -> None:
    message, other = await said(books, group_desk), await said(books, group_desk, b"other")
    edit = group_desk.do(message, EDIT, b"new")
    reaction = group_desk.do(message, REACTION, b"+1", user=group_desk.bob)
    revoke = group_desk.do(other, REVOKE)

    answers = await books.groups.act(group_desk.shard, [edit, reaction, revoke])

    assert answers == [
        Acted(Verdict.STORED, action.accepted_ms, is_standing=True, members_version=1)
        for action in (edit, reaction, revoke)
    ]
    for reader in group_desk.members:
        revoked, edited = await page(books, group_desk, reader)
        assert (edited.message.envelope, edited.message.edited_ms) == (b"new", edit.accepted_ms)
        assert [shown.envelope for shown in edited.reactions] == [b"+1"]
        assert (revoked.message.envelope, revoked.message.revoked_ms) == (b"", revoke.accepted_ms)
    assert await entries(books, group_desk) == [entry_of(edit), entry_of(reaction), entry_of(revoke)]
    assert (await inbox(books.store, group_desk.alice))[2:] == [
        event_of(action, action.accepted_ms) for action in (edit, revoke)
    ]
    assert (await inbox(books.store, group_desk.bob))[2:] == [event_of(reaction, reaction.accepted_ms)]


async def test_members_find_actions_at_the_position_of_their_row(books: Books, group_desk: GroupDesk) -> None:
    message = await said(books, group_desk)
    edit = group_desk.do(message, EDIT, b"new")
    await books.groups.act(group_desk.shard, [edit])
    (entry,) = await entries(books, group_desk)
    expansion = Expansion(group_desk.group_id, group_desk.position(), (entry.event,), (group_desk.bob,))

    await books.groups.expand([expansion], [])

    assert (await inbox(books.store, group_desk.bob))[1:] == [entry.event._replace(position=expansion.position)]


async def test_what_a_member_hides_is_nobody_elses_business(books: Books, group_desk: GroupDesk) -> None:
    message = await said(books, group_desk)
    hide = group_desk.do(message, HIDE, user=group_desk.bob)

    (acted,) = await books.groups.act(group_desk.shard, [hide])

    assert acted.verdict is Verdict.STORED
    assert await entries(books, group_desk) == []
    assert await page(books, group_desk, group_desk.bob) == []
    assert len(await page(books, group_desk, group_desk.carol)) == 1
    (event,) = await inbox(books.store, group_desk.bob)
    assert event == event_of(hide, hide.accepted_ms)


async def test_a_found_action_gets_another_entry(books: Books, group_desk: GroupDesk) -> None:
    message = await said(books, group_desk)
    edit = group_desk.do(message, EDIT, b"new")
    await books.groups.act(group_desk.shard, [edit])
    again = group_desk.act_again(edit)

    (acted,) = await books.groups.act(group_desk.shard, [again])

    assert acted == Acted(Verdict.DUPLICATE, edit.accepted_ms, is_standing=True, members_version=1)
    assert await entries(books, group_desk) == [entry_of(edit), entry_of(edit, again.position)]


async def test_other_content_under_the_id_of_an_action_has_no_entry(books: Books, group_desk: GroupDesk) -> None:
    message = await said(books, group_desk)
    edit = group_desk.do(message, EDIT, b"new")
    await books.groups.act(group_desk.shard, [edit])

    (acted,) = await books.groups.act(group_desk.shard, [edit._replace(content_hash=b"?" * 16)])

    assert acted.verdict is Verdict.CONFLICT
    assert await entries(books, group_desk) == [entry_of(edit)]


async def test_what_was_declared_void_has_no_entry(books: Books, group_desk: GroupDesk) -> None:
    message = await said(books, group_desk)
    edit = group_desk.do(message, EDIT, b"new")
    assert await books.store.actions.declare_actions_void([action_ref(edit)]) == [True]

    (acted,) = await books.groups.act(group_desk.shard, [edit])

    assert acted.verdict is Verdict.VOID
    assert await entries(books, group_desk) == []


@pytest.mark.parametrize("books", ["postgres", "cassandra"], indirect=True)
async def test_what_does_not_stand_any_more_is_told_by_pointers_alone(books: Books, group_desk: GroupDesk) -> None:
    message, other = await said(books, group_desk), await said(books, group_desk)
    old, new = group_desk.do(message, EDIT, b"old"), group_desk.do(message, EDIT, b"new")
    reaction, revoke = group_desk.do(other, REACTION, b"+1"), group_desk.do(other, REVOKE)
    await books.groups.act(group_desk.shard, [old, new, reaction, revoke])

    found = await entries(books, group_desk)

    assert [(entry.position, entry.is_quiet) for entry in found] == [
        (old.position, True),
        (new.position, False),
        (reaction.position, True),
        (revoke.position, False),
    ]


async def test_an_action_says_when_its_message_disappears(books: Books, group_desk: GroupDesk) -> None:
    now_ms = int(time.time() * 1000)
    message = await said(books, group_desk, b"hush", expiry_s=60, accepted_ms=now_ms)
    edit = group_desk.do(message, EDIT, b"new")

    (acted,) = await books.groups.act(group_desk.shard, [edit])

    assert acted.expires_ms == now_ms + 60_000
    (entry,) = await entries(books, group_desk)
    assert entry.event == event_of(edit, edit.accepted_ms, acted.expires_ms)._replace(position=NO_POSITION)


async def test_no_actions_are_carried_out_at_once(books: Books, group_desk: GroupDesk) -> None:
    assert await books.groups.act(group_desk.shard, []) == []


async def test_an_action_on_what_is_not_there_changes_nothing(books: Books, group_desk: GroupDesk) -> None:
    edit = group_desk.do(group_desk.say(), EDIT, b"new")

    (sight,) = await books.store.actions.sight([ActionRef(*action_ref(edit))])
    (acted,) = await books.groups.act(group_desk.shard, [edit])

    assert sight == (None, None)
    assert not acted.is_standing
    assert await entries(books, group_desk) == []
