"""When the ledger lets go of what: by the rules over a store in memory, and by the command over a real one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chappe.runtime.errors import UnavailableError
from svc_message.__main__ import main
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.errors import ClockUntrustedError
from svc_message.protocol import RESYNC_AGE_MS, LedgerClock, position_at
from svc_message.service.retain import BATCH, FORGET_AFTER_MS, Retained, Retaining
from svc_message.worker.retain import retain
from tests.svc_message.desk import Desk, inbox, page
from tests.svc_message.fakes import ManualClock

if TYPE_CHECKING:
    from svc_message.model import NewMessage, Position, UserId
    from svc_message.ports import RetentionStore


class EnoughError(Exception):
    """Ends the endless retention."""


class Archive:
    """A store with a clock that the test moves, and the retention over it."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = MemoryMessageStore(self.clock)
        self.desk = Desk()
        self.retaining = Retaining(self.store.retention, LedgerClock(self.clock, bytes(8)))

    async def write(self, expiry_s: int = 0, age_ms: int = 0) -> NewMessage:
        """Stores a message that was accepted so long ago."""
        accepted_ms = self.clock.wall_ms() - age_ms
        position = position_at(accepted_ms)
        message = self.desk.write()._replace(expiry_s=expiry_s, accepted_ms=accepted_ms, position=position)
        await self.store.accept([message])
        return message


@pytest.fixture
def archive() -> Archive:
    """Returns an empty archive."""
    return Archive()


async def test_everything_that_has_disappeared_goes_at_once(archive: Archive) -> None:
    for _ in range(3):
        await archive.write(expiry_s=5)
    stays = await archive.write(expiry_s=7)
    archive.clock.pass_s(6)

    assert (await archive.retaining.step()).removed == 3

    assert list(archive.store.book.messages[stays.conversation_id]) == [stays.message_id]


async def test_events_are_kept_for_thirty_days_and_the_messages_for_longer(archive: Archive) -> None:
    old = await archive.write(age_ms=FORGET_AFTER_MS + 1)
    young = await archive.write(age_ms=RESYNC_AGE_MS)

    assert await archive.retaining.everything() == Retained(0, 0, BATCH)

    assert [event.position for event in await inbox(archive.store, archive.desk.bob)] == [young.position]
    assert len(await page(archive.store, archive.desk.bob, old)) == 2


async def test_a_clock_that_jumped_makes_nothing_old(archive: Archive) -> None:
    young = await archive.write()
    archive.clock.step_s(2 * FORGET_AFTER_MS / 1000)

    for step in (archive.retaining.step, archive.retaining.everything):
        with pytest.raises(ClockUntrustedError):
            await step()

    assert [event.position for event in await inbox(archive.store, archive.desk.bob)] == [young.position]


class CountingStore:
    """Has three inboxes, and is asked for them one after the other."""

    def __init__(self) -> None:
        self.left = 7
        self.inboxes = [Desk().bob for _ in range(3)]
        self.asked: list[UserId] = []

    async def expire(self, limit: int, spent_before: Position) -> int:
        del spent_before
        done = min(self.left, limit, 3)
        self.left -= done
        return done

    async def forget(self, before: Position, after: UserId, limit: int) -> UserId | None:
        del before, limit
        self.asked.append(after)
        known = len(self.asked) % 4
        return self.inboxes[known - 1] if known else None

    async def wake(self, since_ms: int, floor: Position) -> int:
        del since_ms, floor
        return 1


async def test_it_goes_on_where_it_stopped_and_begins_anew_at_the_end() -> None:
    store = CountingStore()
    checked: RetentionStore = store
    retaining = Retaining(checked, LedgerClock(ManualClock(), bytes(8)))

    results = [await retaining.step() for _ in range(5)]

    assert [result.inboxes for result in results] == [BATCH, BATCH, BATCH, 0, BATCH]
    assert results[0] == Retained(7, 1, BATCH)
    first = bytes(16)
    assert store.asked == [first, *store.inboxes, first]


async def test_a_whole_pass_sees_every_inbox_whatever_was_done_before() -> None:
    store = CountingStore()
    retaining = Retaining(store, LedgerClock(ManualClock(), bytes(8)))

    assert await retaining.everything() == Retained(7, 1, 3 * BATCH)


class FailingStore(CountingStore):
    """Does not answer twice."""

    def __init__(self) -> None:
        super().__init__()
        self.failures = 2

    async def expire(self, limit: int, spent_before: Position) -> int:
        if self.failures:
            self.failures -= 1
            raise UnavailableError("store", "it is down")
        return await super().expire(limit, spent_before)


class EndingClock(ManualClock):
    """A clock that ends the test after a number of waits."""

    def __init__(self, waits: int) -> None:
        super().__init__()
        self.waits = waits
        self.waited_s: list[float] = []

    async def sleep(self, delay_s: float) -> None:
        self.waited_s.append(delay_s)
        if len(self.waited_s) > self.waits:
            raise EnoughError
        await super().sleep(delay_s)


async def test_a_store_that_is_down_is_asked_again(caplog: pytest.LogCaptureFixture) -> None:
    store, clock = FailingStore(), EndingClock(3)

    with pytest.raises(EnoughError):
        await retain(Retaining(store, LedgerClock(clock, bytes(8))), clock, 20.0)

    assert store.left == 0
    assert clock.waited_s == [20.0] * 4
    assert caplog.text.count("could not be removed") == 2


def test_a_pass_is_made_by_a_command(
    ledger_dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CHAPPE_MESSAGE_STORE_DSN", ledger_dsn)
    monkeypatch.setenv("CHAPPE_MESSAGE_IDENTITY_TARGET", "localhost:1")
    monkeypatch.setenv("CHAPPE_MESSAGE_FANOUT_TARGET", "localhost:1")

    assert main(["retain"]) == 0

    assert capsys.readouterr().out.startswith("removed ")
