"""What actions and settings do on Cassandra alone: cells that end by themselves, writes that were cut, races."""

import contextlib
import itertools

import pytest

from chappe.runtime.errors import UnavailableError
from svc_message.adapters.ledger_cassandra.connection import Connection, Unit, Write
from svc_message.adapters.ledger_cassandra.message_store import CassandraMessageStore
from svc_message.model import NO_POSITION, NewMessage, StoredMessage, UserId, Verdict
from svc_message.model.action import ActionKind, NewAction, event_of
from svc_message.model.setting import Changed, SettingChange
from tests.svc_message.cut import Cut
from tests.svc_message.desk import START_MS, Desk, action_ref, event, inbox, page
from tests.svc_message.fakes import ManualClock
from tests.svc_message.group_desk import Books, GroupDesk
from tests.svc_message.test_group_actions import entries, said
from tests.svc_message.test_group_actions import page as group_page

EDIT, REVOKE, HIDE, REACTION = ActionKind
EXPIRY_S = 600


async def seen(store: CassandraMessageStore, owner: UserId, message: NewMessage) -> StoredMessage:
    """Returns a message as a page of its owner shows it."""
    (stored,) = await page(store, owner, message)
    return stored


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
async def test_the_greatest_stands_of_what_ends_by_itself_whatever_clocks_say(
    cassandra_connection: Connection, desk: Desk, order: tuple[int, ...]
) -> None:
    # Ends are worked out in whole seconds by whoever writes: two ledgers seldom come to the same.
    stores = [
        CassandraMessageStore(cassandra_connection, clock=ManualClock(START_MS + ahead_ms))
        for ahead_ms in (0, 2000, -2000)
    ]
    message = desk.write()._replace(expiry_s=EXPIRY_S)
    await stores[0].accept([message])
    edits = [desk.act(message, EDIT, b"%d" % n) for n in range(3)]
    reactions = [desk.act(message, REACTION, b"%d" % n, user=desk.bob) for n in range(3)]

    for n in order:
        await stores[n].actions.act([edits[n], reactions[n]])

    for user in (desk.alice, desk.bob):
        stored = await seen(stores[0], user, message)
        assert stored.message.envelope == b"2"
        assert [reaction.envelope for reaction in stored.reactions] == [b"2"]


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("ahead_ms", [-2000, 2000])
async def test_of_two_contents_that_end_by_themselves_the_earlier_stands_whole(
    cassandra_connection: Connection, desk: Desk, order: tuple[int, int], ahead_ms: int
) -> None:
    stores = [
        CassandraMessageStore(cassandra_connection, clock=ManualClock(START_MS + moved_ms))
        for moved_ms in (0, ahead_ms)
    ]
    first = desk.write(b"aa earlier")._replace(expiry_s=EXPIRY_S)
    second = desk.write(b"zz later", message_id=first.message_id)._replace(expiry_s=EXPIRY_S)

    for n in order:
        await stores[n].accept([(first, second)[n]])

    for user in (desk.alice, desk.bob):
        assert (await seen(stores[0], user, first)).message.envelope == b"aa earlier"


@pytest.mark.parametrize("is_revoked_first", [True, False])
async def test_what_ends_by_itself_is_taken_back_for_ever(
    cut: Cut, cut_store: CassandraMessageStore, desk: Desk, *, is_revoked_first: bool
) -> None:
    message = desk.write(b"secret")._replace(expiry_s=EXPIRY_S)
    await cut_store.accept([message])
    revoke, edit = desk.act(message, REVOKE), desk.act(message, EDIT, b"more secret")
    reaction = desk.act(message, REACTION, b":)", user=desk.bob)
    other = CassandraMessageStore(cut)  # type: ignore[arg-type]  # it stands for a connection
    first, last = ([revoke], [edit, reaction]) if is_revoked_first else ([edit, reaction], [revoke])
    # Both have looked before either has written.
    cut.before_write = lambda: other.actions.act(first)

    await cut_store.actions.act(last)

    for user in (desk.alice, desk.bob):
        stored = await seen(cut_store, user, message)
        assert (stored.message.envelope, stored.message.revoked_ms) == (b"", revoke.accepted_ms)
        assert stored.reactions == ()


async def test_an_action_that_was_declared_void_while_it_was_written_has_no_effect(
    cut: Cut, cut_store: CassandraMessageStore, cassandra_store: CassandraMessageStore, desk: Desk
) -> None:
    message = desk.write()
    await cut_store.accept([message])
    edit = desk.act(message, EDIT, b"refused")
    cut.before_write = lambda: cassandra_store.actions.declare_actions_void([action_ref(edit)])

    with pytest.raises(UnavailableError, match="void"):
        await cut_store.actions.act([edit])

    (answer,) = await cut_store.actions.act([desk.act_again(edit)])
    assert answer.verdict is Verdict.VOID
    for user in (desk.alice, desk.bob):
        assert (await seen(cut_store, user, message)).message == event(message)._replace(position=NO_POSITION)
        assert await inbox(cut_store, user) == [event(message)]


async def test_nor_has_one_on_a_message_of_a_group(
    cut: Cut, cut_store: CassandraMessageStore, cassandra_books: Books, group_desk: GroupDesk
) -> None:
    message = await said(cassandra_books, group_desk)
    edit, reaction = group_desk.do(message, EDIT, b"refused"), group_desk.do(message, REACTION, b":)")
    refs = [action_ref(edit), action_ref(reaction)]
    cut.before_write = lambda: cut_store.actions.declare_actions_void(refs)

    with pytest.raises(UnavailableError, match="void"):
        await cut_store.groups.act(group_desk.shard, [edit, reaction])

    (stored,) = await group_page(cassandra_books, group_desk, group_desk.alice)
    assert (stored.message.envelope, stored.reactions) == (message.envelope, ())
    assert await entries(cassandra_books, group_desk) == []


async def test_a_void_that_meets_its_action_is_withdrawn(
    cut: Cut, cut_store: CassandraMessageStore, cassandra_store: CassandraMessageStore, desk: Desk
) -> None:
    message = desk.write()
    await cut_store.accept([message])
    edit = desk.act(message, EDIT, b"edited")
    cut.before_write = lambda: cassandra_store.actions.act([edit])

    assert await cut_store.actions.declare_actions_void([action_ref(edit)]) == [False]

    (answer,) = await cut_store.actions.act([desk.act_again(edit)])
    assert answer.verdict is Verdict.DUPLICATE
    assert (await seen(cut_store, desk.bob, message)).message.envelope == b"edited"


@pytest.mark.parametrize("kind", ActionKind)
@pytest.mark.parametrize("lost", range(8))
async def test_an_action_that_was_cut_is_completed_by_its_retry(
    cut: Cut, cut_store: CassandraMessageStore, desk: Desk, kind: ActionKind, lost: int
) -> None:
    message = desk.write()
    await cut_store.accept([message])
    action = desk.act(message, kind, b"changed")
    written: list[Write] = []

    def without_one(unit: Unit) -> Unit:
        before = len(written)
        written.extend(unit)
        return [row for n, row in enumerate(unit, before) if n != lost]

    cut.lost = without_one
    with contextlib.suppress(UnavailableError):
        await cut_store.actions.act([action])
        assert len(written) <= lost
    cut.lost = lambda unit: unit
    again = desk.act_again(action)

    (answer,) = await cut_store.actions.act([again])

    accepted = again._replace(accepted_ms=answer.accepted_ms)
    await _stands_for_both(cut_store, desk, message, accepted)


async def _stands_for_both(store: CassandraMessageStore, desk: Desk, message: NewMessage, action: NewAction) -> None:
    users = [desk.alice] if action.kind is HIDE else [desk.alice, desk.bob]
    for user in users:
        assert (await inbox(store, user))[-1] == event_of(action, action.accepted_ms)
        found = await page(store, user, message)
        if action.kind is HIDE:
            assert found == []
        elif action.kind is REACTION:
            assert [reaction.envelope for reaction in found[0].reactions] == [b"changed"]
        else:
            assert found[0].message.envelope == (b"changed" if action.kind is EDIT else b"")


@pytest.mark.parametrize("lost", range(6))
async def test_a_timer_that_was_cut_is_completed_when_it_is_set_again(
    cut: Cut, cut_store: CassandraMessageStore, desk: Desk, lost: int
) -> None:
    await cut_store.accept([desk.write()])
    change, floor = SettingChange(expiry_s=EXPIRY_S), bytes(16)
    cut.lost = lambda unit: [row for n, row in enumerate(unit) if n != lost]
    with contextlib.suppress(UnavailableError):
        await cut_store.settings.change(desk.keep(change, reaches_peer=True), floor)
    cut.lost = lambda unit: unit

    again = desk.keep(change, reaches_peer=True)
    changed = await cut_store.settings.change(again, floor)

    assert changed is not None
    assert changed.is_stored
    for user in (desk.alice, desk.bob):
        (chat,) = (await cut_store.list_chats(user, None, 10)).chats
        assert chat.settings.expiry_s == EXPIRY_S
        assert (await inbox(cut_store, user))[-1].position == again.position


@pytest.mark.parametrize("reaches_peer", [False, True])
async def test_of_two_changes_at_once_the_newest_is_told_with_both(
    cut: Cut, cut_store: CassandraMessageStore, desk: Desk, *, reaches_peer: bool
) -> None:
    await cut_store.accept([desk.write()])
    floor = bytes(16)
    early = desk.keep(SettingChange(muted_until_ms=7, expiry_s=60), reaches_peer=reaches_peer)
    late = desk.keep(SettingChange(is_pinned=True))
    # Each has looked when the other has written nothing yet.
    cut.before_write = lambda: cut_store.settings.change(late, floor)

    overtaken = await cut_store.settings.change(early, floor)
    again = early._replace(position=desk.position())
    changed = await cut_store.settings.change(again, floor)

    assert overtaken == Changed(is_stored=False, events=())
    assert changed is not None
    (event, *_) = changed.events
    assert (event.settings.muted_until_ms, event.settings.pinned_ms) == (7, late.changed_ms)
    assert (await inbox(cut_store, desk.bob))[-1] == event


async def test_a_change_is_told_with_what_was_written_just_before_it(
    cut: Cut, cut_store: CassandraMessageStore, desk: Desk
) -> None:
    await cut_store.accept([desk.write()])
    early, late = desk.keep(SettingChange(muted_until_ms=7)), desk.keep(SettingChange(is_pinned=True))
    cut.before_write = lambda: cut_store.settings.change(early, bytes(16))

    changed = await cut_store.settings.change(late, bytes(16))

    assert changed is not None
    assert changed.is_stored
    assert [(one.settings.muted_until_ms, one.settings.pinned_ms) for one in changed.events] == [(7, late.changed_ms)]
