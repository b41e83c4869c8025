"""Who may keep a conversation how, and who is told, by the rules over a store in memory."""

from __future__ import annotations

import pytest

from chappe.runtime.errors import InvalidFieldError, UnavailableError
from svc_message.adapters.group_store_memory import MemoryGroupStore
from svc_message.adapters.journal_memory import MemoryJournal
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.adapters.message_store_memory.settings import MemorySettingStore
from svc_message.errors import ClockUntrustedError, NotInConversationError
from svc_message.model import ConversationId, MessageId, UserId
from svc_message.model.group import Window
from svc_message.model.setting import Changed, SettingChange, SettingEvent, Settings, SettingUpdate
from svc_message.protocol import WRITE_WINDOW_S, LedgerClock, milliseconds_of, position_at
from svc_message.service.keep import LATE_MS, Chat, Keeping
from tests.svc_message.fakes import FakeDirectory, FakeDispatcher, FakeGroupDirectory, ManualClock
from tests.svc_message.group_desk import GroupDesk, group_of

ALICE, BOB, CAROL = (UserId(name * 16) for name in (b"A", b"B", b"C"))
GROUP = ConversationId(b"G" * 16)


class SlowSettings(MemorySettingStore):
    """A store that lets time pass, and in which others are faster."""

    clock: ManualClock
    delays_s: list[float]
    overtaken = 0
    floor = b""

    async def change(self, update: SettingUpdate, floor: bytes) -> Changed | None:
        self.floor = floor
        if self.overtaken:
            self.overtaken -= 1
            return Changed(is_stored=False, events=())
        changed = await super().change(update, floor)
        if self.delays_s:
            self.clock.pass_s(self.delays_s.pop(0))
        return changed


class Ledger:
    """The keeping rules with everything around them faked."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        messages = MemoryMessageStore(self.clock)
        self.history = MemoryGroupStore(messages, MemoryJournal(self.clock))
        self.store = SlowSettings(messages.book)
        self.store.clock, self.store.delays_s = self.clock, []
        self.directory = FakeDirectory()
        self.directory.add(ALICE, BOB)
        self.groups = FakeGroupDirectory()
        self.groups.add(group_of(GROUP, ALICE))
        self.dispatcher = FakeDispatcher()
        self.desk = GroupDesk()
        clock = LedgerClock(self.clock, bytes(8))
        self.keeping = Keeping(self.store, self.history, self.directory, self.groups, self.dispatcher, clock)

    async def keep(self, *, user: UserId = ALICE, peer: bytes = BOB, group: bytes = b"", **change: object) -> Settings:
        """Changes how Alice, or another user, keeps a conversation."""
        chat = Chat(b"" if group else peer, group)
        event = await self.keeping.change(user, chat, SettingChange(**change))  # type: ignore[arg-type]  # whatever a test sets
        assert event in [hint.event for hint in self.dispatcher.hints]
        return event.settings

    async def say(self, version: int) -> MessageId:
        """Lets Bob write to the members of a version of the group, of whom Alice is one for now."""
        said = self.desk.say(sender=BOB, version=version)._replace(group_id=GROUP)
        await self.history.accept(self.desk.shard, [said])
        await self.history.expand([], [self.desk.touch(said, to=[ALICE])._replace(conversation_id=GROUP)])
        return said.message_id

    def told(self) -> list[UserId]:
        """Returns who was told, one for each event."""
        return [user_id for hint in self.dispatcher.hints for user_id in hint.user_ids]


@pytest.fixture
def ledger() -> Ledger:
    """Returns a ledger that knows Alice, Bob and a group of Alice's."""
    return Ledger()


async def test_a_change_is_answered_with_everything_and_told_to_every_device(ledger: Ledger) -> None:
    await ledger.keep(muted_until_ms=5)

    settings = await ledger.keep(is_pinned=True)

    assert settings == Settings(muted_until_ms=5, pinned_ms=ledger.clock.wall_ms())
    assert ledger.told() == [ALICE, ALICE]
    hint = ledger.dispatcher.hints[-1]
    assert isinstance(hint.event, SettingEvent)
    assert (hint.event.settings, hint.origin_device_id, hint.wants_receipt) == (settings, 0, False)


async def test_a_timer_is_told_to_both(ledger: Ledger) -> None:
    await ledger.keep(expiry_s=60)

    assert ledger.told() == [ALICE, BOB]


async def test_the_timer_of_a_blocked_person_reaches_nobody(ledger: Ledger) -> None:
    ledger.directory.block(BOB, ALICE)

    settings = await ledger.keep(expiry_s=60)

    assert settings.expiry_s == 60
    assert ledger.told() == [ALICE]


async def test_an_old_block_is_read_through(ledger: Ledger) -> None:
    ledger.directory.block(BOB, ALICE)
    ledger.directory.unblock(BOB, ALICE)

    await ledger.keep(expiry_s=60)

    assert ledger.told() == [ALICE, BOB]


async def test_nobody_keeps_a_conversation_with_nobody(ledger: Ledger) -> None:
    with pytest.raises(NotInConversationError):
        await ledger.keep(peer=CAROL, is_pinned=True)


async def test_members_keep_a_group_and_others_do_not(ledger: Ledger) -> None:
    settings = await ledger.keep(group=GROUP, is_archived=True)

    assert settings.is_archived
    assert ledger.told() == [ALICE]
    with pytest.raises(NotInConversationError):
        await ledger.keep(user=BOB, group=GROUP, is_archived=True)


async def test_who_has_left_a_group_clears_what_it_saw_and_learns_of_nothing_later(ledger: Ledger) -> None:
    earlier, last, later = [await ledger.say(version) for version in (5, 5, 6)]
    ledger.groups.add(group_of(GROUP, BOB, version=6))
    ledger.groups.past[GROUP, ALICE] = (Window(1, 6),)

    some = await ledger.keep(group=GROUP, cleared_upto=earlier)
    everything = await ledger.keep(group=GROUP, cleared_upto=later)
    again = await ledger.keep(group=GROUP, cleared_upto=b"\xff" * 16)

    assert [settings.cleared_upto for settings in (some, everything, again)] == [earlier, last, last]


async def test_a_group_has_its_own_timer(ledger: Ledger) -> None:
    with pytest.raises(InvalidFieldError, match="expiry_s: a group has its own timer"):
        await ledger.keep(group=GROUP, expiry_s=60)


async def test_a_change_of_nothing_is_refused(ledger: Ledger) -> None:
    with pytest.raises(InvalidFieldError, match="set at least one field"):
        await ledger.keep()


async def test_who_is_overtaken_comes_again_with_a_later_position(ledger: Ledger) -> None:
    ledger.store.overtaken = 2

    assert (await ledger.keep(expiry_s=60)).expiry_s == 60
    ledger.store.overtaken = 3
    with pytest.raises(UnavailableError):
        await ledger.keep(expiry_s=30)


async def test_a_write_that_was_too_slow_is_repeated_before_it_is_answered(ledger: Ledger) -> None:
    ledger.store.delays_s = [WRITE_WINDOW_S + 1]

    await ledger.keep(is_pinned=True)

    (hint,) = ledger.dispatcher.hints
    assert milliseconds_of(hint.event.position) == ledger.clock.wall_ms()
    ledger.store.delays_s = [WRITE_WINDOW_S + 1] * 3
    with pytest.raises(UnavailableError):
        await ledger.keep(is_pinned=False)


async def test_what_can_still_be_accepted_is_not_cleared_for_ever(ledger: Ledger) -> None:
    await ledger.keep(cleared_upto=b"\xff" * 16)

    assert ledger.store.floor == position_at(ledger.clock.wall_ms() - LATE_MS)


async def test_nothing_is_changed_while_the_clock_is_not_trusted(ledger: Ledger) -> None:
    ledger.clock.step_s(60)

    with pytest.raises(ClockUntrustedError):
        await ledger.keep(is_pinned=True)
