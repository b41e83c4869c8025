"""What only groups on Cassandra have: no transactions, rows in any order, and outcomes that are unknown."""

import asyncio
import itertools
import secrets
from collections.abc import Callable
from typing import cast

import pytest

from chappe.runtime.clock import SystemClock
from chappe.runtime.errors import UnavailableError
from svc_message.adapters.ledger_cassandra.bounds import Bounds
from svc_message.adapters.ledger_cassandra.cells import LINGER_S
from svc_message.adapters.ledger_cassandra.connection import Connection, Read, Unit
from svc_message.adapters.ledger_cassandra.copies import CopyKey
from svc_message.adapters.ledger_cassandra.group_receipts import receipts_of
from svc_message.adapters.ledger_cassandra.group_store import CassandraGroupStore
from svc_message.adapters.ledger_cassandra.journal import CassandraJournal
from svc_message.adapters.ledger_cassandra.message_store import CassandraMessageStore
from svc_message.adapters.ledger_cassandra.receipt_store import CassandraReceiptStore
from svc_message.adapters.ledger_cassandra.shards import BEGUN_S, Shards, begin
from svc_message.errors import ClockUntrustedError
from svc_message.model import NO_POSITION, DeviceId, MessageId, PageRead, Position, UserId, Verdict
from svc_message.model.action import ActionKind
from svc_message.model.group import Entry, GroupLine, NewGroupMessage, Shard, Undecodable, Window
from svc_message.model.receipt import MemberAck, MemberRead, MemberReadUpdate, MessageName, ReadMessage, Tally
from svc_message.model.setting import SettingChange
from svc_message.ports.receipt import NEWS_INTERVAL_MS
from svc_message.protocol import WRITE_WINDOW_S, position_at
from tests.svc_message.cut import Cut
from tests.svc_message.desk import START_MS, inbox
from tests.svc_message.fakes import ManualClock
from tests.svc_message.group_desk import Books, GroupDesk, entry_of, group_ref

DAY_MS = 86_400_000
ALWAYS = (Window(1, 0),)
LIMIT = 1000
Losing = Callable[[Unit], Unit]


@pytest.fixture
def groups(cut_store: CassandraMessageStore) -> CassandraGroupStore:
    """Returns its part for groups."""
    return cut_store.groups


@pytest.fixture
def journal(cut_store: CassandraMessageStore) -> CassandraJournal:
    """Returns its journal."""
    return cut_store.journal


@pytest.fixture
def receipts(cut_store: CassandraMessageStore) -> CassandraReceiptStore:
    """Returns its part for receipts."""
    return cut_store.receipts


@pytest.fixture
def others(cassandra_store: CassandraMessageStore) -> CassandraReceiptStore:
    """Returns that of another process."""
    return cassandra_store.receipts


def losing(table: str) -> Losing:
    """Returns what loses the rows of one table."""
    return lambda unit: [row for row in unit if f" {table} " not in f"{row.query} "]


async def seen(groups: CassandraGroupStore, desk: GroupDesk) -> list[bytes]:
    page = await groups.read_page(PageRead(desk.bob, desk.group_id, b"", b"", LIMIT), ALWAYS)
    return [stored.message.envelope for stored in page]


async def test_a_read_does_not_look_again_through_the_minutes_before_the_place_read(
    cut: Cut, groups: CassandraGroupStore, receipts: CassandraReceiptStore, group_desk: GroupDesk
) -> None:
    ages_ms = range(599_000, 99_000, -1000)
    written = [group_desk.say(message_id=group_desk.uuid7(START_MS - age_ms)) for age_ms in ages_ms]
    prompt = [one._replace(accepted_ms=START_MS - age_ms) for one, age_ms in zip(written, ages_ms, strict=True)]
    place, late, newest = group_desk.say(), prompt[0]._replace(accepted_ms=START_MS), group_desk.say()
    await groups.accept(group_desk.shard, [late, *prompt[1:], place, newest])
    everything = [ReadMessage(one.message_id, is_told=True) for one in (*prompt[1:], place)]
    desk, touch = group_desk, group_desk.touch(place)
    await groups.expand([group_desk.expand(place)], [touch])
    update = MemberReadUpdate(
        desk.bob,
        DeviceId(1),
        desk.group_id,
        ALWAYS,
        place.message_id,
        tuple(everything),
        is_forced=False,
        position=desk.position(),
        recorded_ms=START_MS,
    )
    await receipts.read([update])

    cut.rows_read.clear()
    (found,) = await receipts.unread([MemberRead(desk.bob, desk.group_id, ALWAYS, newest.message_id, ())])

    assert {one.message_id for one in found.messages} == {late.message_id, newest.message_id}
    assert cut.rows_read.total() <= 12


@pytest.mark.parametrize("kept", list(itertools.chain(*(itertools.combinations(range(3), n) for n in range(3)))))
async def test_a_message_that_was_cut_is_completed_by_its_retry(
    cut: Cut,
    groups: CassandraGroupStore,
    journal: CassandraJournal,
    cassandra_store: CassandraMessageStore,
    group_desk: GroupDesk,
    kept: tuple[int, ...],
) -> None:
    message = group_desk.say()
    cut.lost = lambda unit: [row for n, row in enumerate(unit) if n in kept or "bodies" not in unit[0].query]
    with pytest.raises(UnavailableError):
        await groups.accept(group_desk.shard, [message])
    cut.lost = lambda unit: unit
    again = group_desk.say_again(message)

    (answer,) = await groups.accept(group_desk.shard, [again])

    assert answer.verdict in {Verdict.STORED, Verdict.DUPLICATE}
    first = message if answer.verdict is Verdict.DUPLICATE else again
    assert (answer.members_version, answer.recipient_count) == (first.members_version, first.recipient_count)
    expected = first.to_event()._replace(position=again.position)
    assert (await inbox(cassandra_store, group_desk.alice))[-1] == expected
    assert await seen(groups, group_desk) == [b"hello"]
    entry = entry_of(first)._replace(position=again.position)
    assert await journal.read(group_desk.shard, NO_POSITION, LIMIT) == [entry]


async def test_a_message_whose_entry_was_lost_is_not_acknowledged(
    cut: Cut, groups: CassandraGroupStore, journal: CassandraJournal, group_desk: GroupDesk
) -> None:
    message = group_desk.say()
    cut.lost = losing("journal")

    with pytest.raises(UnavailableError):
        await groups.accept(group_desk.shard, [message])

    cut.lost = lambda unit: unit
    again = group_desk.say_again(message)
    answers = await groups.accept(group_desk.shard, [again])
    assert [answer.verdict for answer in answers] == [Verdict.DUPLICATE]
    expected = entry_of(message)._replace(position=again.position)
    assert await journal.read(group_desk.shard, NO_POSITION, LIMIT) == [expected]


async def test_an_action_whose_entry_was_lost_is_not_acknowledged(
    cut: Cut, groups: CassandraGroupStore, journal: CassandraJournal, group_desk: GroupDesk
) -> None:
    message = group_desk.say()
    await groups.accept(group_desk.shard, [message])
    edit = group_desk.do(message, ActionKind.EDIT, b"new")
    cut.lost = losing("journal")
    with pytest.raises(UnavailableError):
        await groups.act(group_desk.shard, [edit])
    cut.lost = lambda unit: unit

    (acted,) = await groups.act(group_desk.shard, [group_desk.act_again(edit)])

    assert (acted.verdict, acted.is_standing) == (Verdict.DUPLICATE, True)
    assert len(await journal.read(group_desk.shard, NO_POSITION, LIMIT)) == 2


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
async def test_of_two_contents_under_one_id_the_earlier_stands(
    groups: CassandraGroupStore, group_desk: GroupDesk, order: tuple[int, int]
) -> None:
    first = group_desk.say(b"zz earlier")
    attempts = [first, group_desk.say(b"aa later, and longer", message_id=first.message_id)]

    for n in order:
        await groups.accept(group_desk.shard, [attempts[n]])

    assert await seen(groups, group_desk) == [b"zz earlier"]
    answers = await groups.accept(group_desk.shard, [group_desk.say_again(attempts[1])])
    assert [answer.verdict for answer in answers] == [Verdict.CONFLICT]


async def test_a_retry_that_meets_a_void_has_no_entry(
    cut: Cut,
    groups: CassandraGroupStore,
    journal: CassandraJournal,
    cassandra_store: CassandraMessageStore,
    group_desk: GroupDesk,
) -> None:
    message = group_desk.say_again(group_desk.say())
    cut.before_write = lambda: cassandra_store.declare_void([group_ref(message)])

    with pytest.raises(UnavailableError, match="void"):
        await groups.accept(group_desk.shard, [message])

    assert await journal.read(group_desk.shard, NO_POSITION, LIMIT) == []
    assert await seen(groups, group_desk) == []


async def is_orphan(journal: CassandraJournal, shard: Shard) -> bool:
    return shard in {orphan.shard for orphan in await journal.adopt(-1.0)}


async def test_a_shard_that_its_process_ends_while_it_writes_is_begun_anew(
    cut: Cut, groups: CassandraGroupStore, journal: CassandraJournal, group_desk: GroupDesk
) -> None:
    message, late = group_desk.say(), group_desk.say()
    await groups.accept(group_desk.shard, [message])

    async def end_before_the_entry() -> None:
        async def end() -> None:
            assert await journal.end(group_desk.shard, message.position)

        cut.before_write = end

    cut.before_write = end_before_the_entry
    await groups.accept(group_desk.shard, [late])

    assert await is_orphan(journal, group_desk.shard)
    assert entry_of(late) in await journal.read(group_desk.shard, NO_POSITION, LIMIT)


async def test_a_shard_whose_process_wakes_up_is_not_ended_by_who_adopted_it(
    cut: Cut, journal: CassandraJournal, group_desk: GroupDesk, cassandra_store: CassandraMessageStore
) -> None:
    owner = cassandra_store.journal
    await owner.checkpoint(group_desk.shard, NO_POSITION)
    cut.before_write = lambda: owner.checkpoint(group_desk.shard, NO_POSITION)

    assert not await journal.end(group_desk.shard, NO_POSITION)

    assert await is_orphan(journal, group_desk.shard)
    assert await journal.end(group_desk.shard, NO_POSITION)


async def test_entries_that_were_parked_long_ago_come_back(
    groups: CassandraGroupStore, journal: CassandraJournal, group_desk: GroupDesk, cassandra_books: Books
) -> None:
    message = group_desk.say()._replace(position=Position(group_desk.uuid7(START_MS - 20 * DAY_MS)))
    await groups.accept(group_desk.shard, [message])
    mend = await cassandra_books.spoil(message.position)
    await journal.park(group_desk.shard, [Undecodable(message.position, "spoilt")])
    await mend()
    fresh = Shard(secrets.randbits(64))

    assert await journal.replay(fresh) >= 1

    assert entry_of(message) in await journal.read(fresh, NO_POSITION, LIMIT)


async def test_a_shard_for_what_was_parked_is_begun_when_everything_is_in_it(
    cut: Cut, groups: CassandraGroupStore, journal: CassandraJournal, group_desk: GroupDesk
) -> None:
    message, written = group_desk.say(), list[str]()
    await groups.accept(group_desk.shard, [message])
    await journal.park(group_desk.shard, [Undecodable(message.position, "spoilt")])

    def watched(unit: Unit) -> Unit:
        written.extend(one.query for one in unit)
        return unit

    cut.lost = watched
    await journal.replay(Shard(secrets.randbits(64)))

    *rows, began, put_back = ("journal_shards" in query for query in written)
    assert (any(rows), began, put_back) == (False, True, False)


async def test_a_slot_that_is_begun_does_not_begin_its_shard(group_desk: GroupDesk) -> None:
    clock = ManualClock()
    shards, place = Shards(clock), group_desk.position()
    later = Position((int.from_bytes(place[:6], "big") + 600_000).to_bytes(6, "big") + place[6:])
    shards.begun(group_desk.shard, shards.due(group_desk.shard, [place]), shards.now_s(), [place])
    clock.pass_s(BEGUN_S - 0.1)
    start_s, units = shards.now_s(), shards.due(group_desk.shard, [later])

    clock.pass_s(0.2)
    shards.begun(group_desk.shard, units, start_s, [later])

    assert len(units) == 1
    assert shards.due(group_desk.shard, [later]) == [[begin(group_desk.shard)]]


async def test_nobody_is_told_any_more_of_what_has_disappeared(
    groups: CassandraGroupStore, journal: CassandraJournal, group_desk: GroupDesk
) -> None:
    gone = group_desk.say()._replace(accepted_ms=START_MS - 100_000, expiry_s=60)
    await groups.accept(group_desk.shard, [gone])

    assert await journal.read(group_desk.shard, NO_POSITION, LIMIT) == []
    assert await seen(groups, group_desk) == []
    (answer,) = await groups.accept(group_desk.shard, [group_desk.say_again(gone)])
    assert (answer.verdict, answer.is_altered) == (Verdict.DUPLICATE, True)
    assert await journal.end(group_desk.shard, NO_POSITION)


async def test_a_first_attempt_that_stood_still_changes_nothing_that_its_retry_decided(
    groups: CassandraGroupStore, group_desk: GroupDesk
) -> None:
    first = group_desk.say(version=1)
    retry = first._replace(is_retry=True, members_version=2, position=group_desk.position())
    await groups.accept(group_desk.shard, [retry])

    late = first._replace(accepted_ms=first.accepted_ms + 3_000, position=group_desk.position())
    (answer,) = await groups.accept(group_desk.shard, [late])

    assert (answer.verdict, answer.members_version) == (Verdict.DUPLICATE, 2)


async def test_of_two_retries_at_once_both_tell_what_the_earlier_decided(
    cut: Cut, cassandra_store: CassandraMessageStore, groups: CassandraGroupStore, group_desk: GroupDesk
) -> None:
    earlier = group_desk.say(version=1)._replace(is_retry=True)
    later = earlier._replace(
        members_version=2, accepted_ms=earlier.accepted_ms + 1, position=group_desk.position(), recipient_count=9
    )
    cut.before_write = lambda: cassandra_store.groups.accept(group_desk.shard, [earlier])

    (answer,) = await groups.accept(group_desk.shard, [later])

    assert (answer.accepted_ms, answer.members_version, answer.recipient_count) == (
        earlier.accepted_ms,
        1,
        earlier.recipient_count,
    )
    entries = await cassandra_store.journal.read(group_desk.shard, NO_POSITION, LIMIT)
    assert [entry.members_version for entry in entries if isinstance(entry, Entry)] == [1, 1]


async def test_a_first_attempt_that_stood_still_until_it_was_void_is_not_accepted(
    cassandra_store: CassandraMessageStore, groups: CassandraGroupStore, group_desk: GroupDesk
) -> None:
    first = group_desk.say()
    await cassandra_store.declare_void([group_ref(first)])

    late = first._replace(accepted_ms=first.accepted_ms + 3_000)
    answers = await groups.accept(group_desk.shard, [late, group_desk.say()])

    assert [answer.verdict for answer in answers] == [Verdict.VOID, Verdict.STORED]


async def test_what_lies_too_far_ahead_is_refused(
    groups: CassandraGroupStore, journal: CassandraJournal, receipts: CassandraReceiptStore, group_desk: GroupDesk
) -> None:
    ahead = Position(group_desk.uuid7(START_MS + DAY_MS))
    message = group_desk.say()
    with pytest.raises(ClockUntrustedError):
        await groups.accept(group_desk.shard, [message._replace(position=ahead)])
    with pytest.raises(ClockUntrustedError):
        await groups.expand([group_desk.expand(message)._replace(position=ahead)], [])
    with pytest.raises(ClockUntrustedError):
        await journal.checkpoint(group_desk.shard, ahead)
    with pytest.raises(ClockUntrustedError):
        await receipts.acknowledge([acked(group_desk, message)], ahead, START_MS)


async def test_a_year_of_a_group_is_walked_through(groups: CassandraGroupStore, group_desk: GroupDesk) -> None:
    ids = [MessageId(group_desk.uuid7(START_MS - n * 20 * DAY_MS)) for n in range(8)]
    said = [group_desk.say(b"%d" % n, message_id=one, version=8 - n) for n, one in enumerate(ids)]
    await groups.accept(group_desk.shard, said)
    await groups.expand([], [group_desk.touch(said[0])])

    assert await seen(groups, group_desk) == [b"%d" % n for n in range(8)]
    read = PageRead(group_desk.bob, group_desk.group_id, b"", ids[5], 2)
    oldest = await groups.read_page(read, (Window(2, 7),))
    assert [stored.message.envelope for stored in oldest] == [b"3", b"4"]
    (chat,) = await groups.read_chats(group_desk.bob, [GroupLine(group_desk.group_id, (Window(2, 7),))])
    assert chat.last_message is not None
    assert (chat.last_message.message.envelope, chat.unread_count) == (b"2", 5)


async def test_what_was_cleared_is_not_gone_through_again(
    cut: Cut, cut_store: CassandraMessageStore, groups: CassandraGroupStore, group_desk: GroupDesk
) -> None:
    desk, times = group_desk, range(START_MS - DAY_MS, START_MS - DAY_MS + 300)
    old = [desk.say(message_id=desk.uuid7(sent_ms))._replace(accepted_ms=sent_ms) for sent_ms in times]
    await groups.accept(desk.shard, old)
    await groups.expand([], [desk.touch(old[-1])])
    clear = desk.keep(SettingChange(cleared_upto=old[-1].message_id), user=desk.bob)
    update = clear._replace(conversation_id=desk.group_id, peer_id=UserId(desk.group_id))
    await cut_store.settings.change(update, position_at(START_MS - 660_000))

    cut.rows_read.clear()
    (chat,) = await groups.read_chats(desk.bob, [GroupLine(desk.group_id, ALWAYS)])
    shown = await seen(groups, desk)

    assert (chat.last_message, chat.unread_count, shown) == (None, 0, [])
    # Twice a line and where the messages are, and the newest two of them.
    assert cut.rows_read.total() <= 6


async def test_a_short_page_goes_through_what_has_disappeared_in_long_steps(
    cut: Cut, groups: CassandraGroupStore, group_desk: GroupDesk
) -> None:
    desk, times = group_desk, range(START_MS - DAY_MS, START_MS - DAY_MS + 301)
    said = [desk.say(message_id=desk.uuid7(sent_ms))._replace(accepted_ms=sent_ms) for sent_ms in times]
    await groups.accept(desk.shard, [said[0], *(one._replace(expiry_s=60) for one in said[1:])])

    cut.partitions_read = 0
    (found,) = await groups.read_page(PageRead(desk.bob, desk.group_id, b"", b"", 1), ALWAYS)

    assert found.message.message_id == said[0].message_id
    # Each step with what the member has of the messages of its own.
    assert cut.partitions_read <= 20


def acked(desk: GroupDesk, *messages: NewGroupMessage, user: UserId | None = None) -> MemberAck:
    return MemberAck(user or desk.bob, desk.group_id, ALWAYS, tuple(message.message_id for message in messages))


async def tally(store: CassandraReceiptStore, message: NewGroupMessage) -> Tally | None:
    (found,) = await store.tally([MessageName(message.group_id, message.message_id)])
    return found


async def news_of(store: CassandraReceiptStore, desk: GroupDesk, now_ms: int) -> int:
    """Returns how many news of the group are told."""
    found = await store.claim_news(desk.position(), now_ms, now_ms + 10_000)
    return len([news for news in found if news.group_id == desk.group_id])


async def tell_news(store: CassandraReceiptStore, desk: GroupDesk, now_ms: int) -> int:
    """Tells what is due, and returns how many of it are news of the group."""
    found = await store.claim_news(desk.position(), now_ms, now_ms + 10_000)
    told = [news for news in found if news.group_id == desk.group_id]
    await store.settle_news(told, now_ms)
    return len(told)


class StandingClock(SystemClock):
    """The machine's clock in a process that may stand still."""

    def __init__(self) -> None:
        self._stood_s = 0.0

    async def stand_still(self) -> None:
        self._stood_s += WRITE_WINDOW_S

    def monotonic_s(self) -> float:
        return super().monotonic_s() + self._stood_s


@pytest.mark.parametrize("table", ["group_receipts", "receipt_news", "receipt_news_due", "messages"])
async def test_receipts_that_were_cut_are_completed_when_they_are_sent_again(
    cut: Cut, groups: CassandraGroupStore, receipts: CassandraReceiptStore, group_desk: GroupDesk, table: str
) -> None:
    message = group_desk.say()
    await groups.accept(group_desk.shard, [message])
    cut.lost = losing(table)
    with pytest.raises(UnavailableError):
        await receipts.acknowledge([acked(group_desk, message)], group_desk.position(), START_MS)
    cut.lost = lambda unit: unit

    assert len(await receipts.acknowledge([acked(group_desk, message)], group_desk.position(), START_MS)) == 1

    assert await receipts.acknowledge([acked(group_desk, message)], group_desk.position(), START_MS) == []
    assert await tally(receipts, message) == Tally(group_desk.alice, 2, 1, 0)
    assert await news_of(receipts, group_desk, START_MS) == 1


async def test_a_change_that_is_written_after_somebody_looked_is_told(
    cut: Cut,
    groups: CassandraGroupStore,
    receipts: CassandraReceiptStore,
    others: CassandraReceiptStore,
    group_desk: GroupDesk,
) -> None:
    message = group_desk.say()
    await groups.accept(group_desk.shard, [message])
    cut.lost = losing("receipt_news")
    with pytest.raises(UnavailableError):
        await receipts.acknowledge([acked(group_desk, message)], group_desk.position(), START_MS)
    assert await news_of(others, group_desk, START_MS) == 0
    cut.lost = lambda unit: unit

    await receipts.acknowledge([acked(group_desk, message)], group_desk.position(), START_MS)

    told = [await news_of(others, group_desk, START_MS + seconds * 1000) for seconds in (1, 31, 32)]
    assert sum(told) == 1


async def test_a_change_while_others_tell_is_told_a_minute_later(
    cut: Cut,
    groups: CassandraGroupStore,
    receipts: CassandraReceiptStore,
    others: CassandraReceiptStore,
    group_desk: GroupDesk,
) -> None:
    message = group_desk.say()
    await groups.accept(group_desk.shard, [message])
    await others.acknowledge([acked(group_desk, message)], group_desk.position(), START_MS)

    async def tell() -> None:
        told = await others.claim_news(group_desk.position(), START_MS, START_MS + 10_000)
        await others.settle_news(told, START_MS)

    cut.before_write = tell
    late = acked(group_desk, message, user=group_desk.carol)
    await receipts.acknowledge([late], group_desk.position(), START_MS)

    assert await news_of(others, group_desk, START_MS + NEWS_INTERVAL_MS - 1) == 0
    assert await news_of(others, group_desk, START_MS + NEWS_INTERVAL_MS) == 1


async def test_a_change_that_lands_behind_one_that_was_told_is_told_a_minute_later(
    groups: CassandraGroupStore, receipts: CassandraReceiptStore, others: CassandraReceiptStore, group_desk: GroupDesk
) -> None:
    message = group_desk.say()
    await groups.accept(group_desk.shard, [message])
    early, later = group_desk.position(), group_desk.position()
    await others.acknowledge([acked(group_desk, message)], later, START_MS)
    assert await tell_news(others, group_desk, START_MS) == 1

    await receipts.acknowledge([acked(group_desk, message, user=group_desk.carol)], early, START_MS)

    assert await tell_news(others, group_desk, START_MS + NEWS_INTERVAL_MS - 1) == 0
    assert await tell_news(others, group_desk, START_MS + NEWS_INTERVAL_MS) == 1
    assert await tell_news(others, group_desk, START_MS + 10 * NEWS_INTERVAL_MS) == 0


async def test_receipts_that_took_too_long_are_noted_again_before_they_count(
    cut: Cut, cassandra_store: CassandraMessageStore, groups: CassandraGroupStore, group_desk: GroupDesk
) -> None:
    message = group_desk.say()
    await groups.accept(group_desk.shard, [message])
    clock = StandingClock()
    receipts = CassandraReceiptStore(cast("Connection", cut), Bounds(clock))
    cut.before_write = clock.stand_still
    late = group_desk.position()

    with pytest.raises(UnavailableError, match="took longer"):
        await receipts.acknowledge([acked(group_desk, message)], late, START_MS)

    assert len(await receipts.acknowledge([acked(group_desk, message)], group_desk.position(), START_MS)) == 1
    assert await tally(receipts, message) == Tally(group_desk.alice, 2, 1, 0)
    assert await news_of(cassandra_store.receipts, group_desk, START_MS) == 1


async def test_news_of_before_a_start_are_told_after_it(
    groups: CassandraGroupStore, receipts: CassandraReceiptStore, others: CassandraReceiptStore, group_desk: GroupDesk
) -> None:
    message = group_desk.say()
    await groups.accept(group_desk.shard, [message])
    await receipts.acknowledge([acked(group_desk, message)], group_desk.position(), START_MS)
    hours_later_ms = START_MS + 3_600_000

    told = [await news_of(others, group_desk, hours_later_ms + n * 1000) for n in range(20)]

    assert sum(told) == 1


async def test_many_tell_at_once_and_nothing_is_lost(
    groups: CassandraGroupStore, receipts: CassandraReceiptStore, others: CassandraReceiptStore, group_desk: GroupDesk
) -> None:
    message = group_desk.say()
    await groups.accept(group_desk.shard, [message])
    await receipts.acknowledge([acked(group_desk, message)], group_desk.position(), START_MS)

    told = await asyncio.gather(*[news_of(store, group_desk, START_MS) for store in (receipts, others)])

    assert sum(told) >= 1
    assert [await news_of(store, group_desk, START_MS) for store in (receipts, others)] == [0, 0]


async def test_receipts_of_a_large_group_are_counted(
    groups: CassandraGroupStore, receipts: CassandraReceiptStore, group_desk: GroupDesk
) -> None:
    messages = [group_desk.say()._replace(recipient_count=1000, message_id=MessageId(one)) for one in hours(group_desk)]
    await groups.accept(group_desk.shard, messages)
    await receipts.acknowledge([acked(group_desk, *messages)], group_desk.position(), START_MS)

    for message in messages:
        assert await tally(receipts, message) == Tally(group_desk.alice, 1000, 1, 0)


async def test_messages_of_a_day_are_counted_together(
    cut: Cut, groups: CassandraGroupStore, receipts: CassandraReceiptStore, group_desk: GroupDesk
) -> None:
    messages = [group_desk.say() for _ in range(100)]
    await groups.accept(group_desk.shard, messages)
    await receipts.acknowledge([acked(group_desk, *messages[::2])], group_desk.position(), START_MS)

    cut.partitions_read = 0
    found = await receipts.tally([MessageName(one.group_id, one.message_id) for one in messages])

    assert found == [Tally(group_desk.alice, 2, 1, 0), Tally(group_desk.alice, 2, 0, 0)] * 50
    # One for what the messages are, and one for their receipts.
    assert cut.partitions_read == 2


def hours(desk: GroupDesk) -> list[bytes]:
    """Mints ids of three hours."""
    return [desk.uuid7(START_MS - n * 3_600_000) for n in range(3)]


async def test_receipts_of_what_disappears_do_so_too(
    cassandra_store: CassandraMessageStore, cassandra_connection: Connection, group_desk: GroupDesk
) -> None:
    stays, goes = group_desk.say(), group_desk.say()._replace(expiry_s=600)
    await cassandra_store.groups.accept(group_desk.shard, [stays, goes])
    await cassandra_store.receipts.acknowledge([acked(group_desk, stays, goes)], group_desk.position(), START_MS)
    left = """
        SELECT ttl(delivered_ms) FROM group_receipts WHERE conversation_id = ? AND hour = ? AND message_id = ?
    """

    partition = receipts_of(group_desk.group_id, stays.message_id, 2)
    found = await cassandra_connection.read([Read(left, (*partition, one.message_id)) for one in (stays, goes)])

    ((forever,),), ((left_s,),) = found
    assert forever is None
    assert 0 < left_s <= 600 + LINGER_S


def read_by_bob(desk: GroupDesk, message: NewGroupMessage, *, device: int) -> MemberReadUpdate:
    """Says that bob has read up to a message, on one of his devices."""
    return MemberReadUpdate(
        user_id=desk.bob,
        device_id=DeviceId(device),
        group_id=desk.group_id,
        windows=ALWAYS,
        upto=message.message_id,
        messages=(ReadMessage(message.message_id, is_told=True),),
        is_forced=False,
        position=desk.position(),
        recorded_ms=START_MS,
    )


async def test_a_read_that_comes_before_the_line_of_its_chat_list_moves_its_place(
    cassandra_store: CassandraMessageStore,
    groups: CassandraGroupStore,
    receipts: CassandraReceiptStore,
    group_desk: GroupDesk,
) -> None:
    desk, message = group_desk, group_desk.say()
    await groups.accept(desk.shard, [message])
    # Lines are written after the pointers of all members.
    await groups.expand([desk.expand(message)], [])
    read = read_by_bob(desk, message, device=2)

    (own_read,) = (await receipts.read([read])).own_reads
    await groups.expand([], [desk.touch(message)])

    (chat,) = (await cassandra_store.list_chats(desk.bob, None, 10)).chats
    assert own_read is not None
    assert (own_read.read_upto, chat.read_upto) == (message.message_id, message.message_id)


async def test_nor_does_a_members_own_row_keep_that_it_read_it(
    cassandra_store: CassandraMessageStore, cassandra_connection: Connection, group_desk: GroupDesk
) -> None:
    goes, bob = group_desk.say()._replace(expiry_s=600), group_desk.bob
    await cassandra_store.groups.accept(group_desk.shard, [goes])
    await cassandra_store.receipts.acknowledge([acked(group_desk, goes)], group_desk.position(), START_MS)
    read = read_by_bob(group_desk, goes, device=1)
    await cassandra_store.receipts.read([read])
    left = """
        SELECT ttl(delivered_ms), ttl(read_ms) FROM messages
        WHERE user_id = ? AND conversation_id = ? AND bucket = ? AND message_id = ?
    """

    key = CopyKey(bob, goes.group_id, goes.message_id)
    ((cells,),) = await cassandra_connection.read([Read(left, (*key[:2], key.bucket, key.message_id))])

    assert all(0 < left_s <= 600 + LINGER_S for left_s in cells)


class LateClock(SystemClock):
    """A clock that is two hours late."""

    def wall_ms(self) -> int:
        return super().wall_ms() - 7_200_000


async def test_one_comparison_with_the_stores_clock_counts_for_groups_too(
    cassandra_connection: Connection, group_desk: GroupDesk
) -> None:
    store, message = CassandraMessageStore(cassandra_connection, clock=LateClock()), group_desk.say()
    with pytest.raises(ClockUntrustedError):
        await store.groups.accept(group_desk.shard, [message])

    await store.clock_ms()

    (answer,) = await store.groups.accept(group_desk.shard, [message])
    assert answer.verdict is Verdict.STORED
