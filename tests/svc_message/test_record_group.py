"""Who may record receipts of groups, who learns of them, and how often."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chappe.runtime.errors import UnavailableError
from chappe.runtime.tasks import Tasks
from svc_message.adapters.group_store_memory import MemoryGroupStore
from svc_message.adapters.item_protobuf import item_key
from svc_message.adapters.journal_memory import MemoryJournal
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.adapters.receipt_store_memory import MemoryReceiptStore
from svc_message.model import (
    Answer,
    DeviceAck,
    DeviceId,
    GroupReceiptEvent,
    MessageId,
    OwnReadEvent,
    Refused,
    SendGroupRead,
    SendRequest,
    Stored,
    UserId,
)
from svc_message.model.group import Window
from svc_message.model.receipt import MessageName
from svc_message.protocol import WRITE_WINDOW_S, LedgerClock
from svc_message.service import tell
from svc_message.service.record_group import GroupRecording
from svc_message.service.sight import Sight
from svc_message.service.tell import EVENT_MESSAGES, Telling
from svc_message.worker.tell import tell_for_ever
from tests.svc_message.desk import inbox, stranger
from tests.svc_message.fakes import (
    FakeDirectory,
    FakeDispatcher,
    FakeGroupDirectory,
    HandClock,
    ManualClock,
    message_id,
)
from tests.svc_message.group_desk import GroupDesk, group_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.model import Position
    from svc_message.model.group import NewGroupMessage
    from svc_message.model.receipt import (
        Came,
        MemberAck,
        MemberRead,
        MemberReadUpdate,
        MessageName,
        News,
        ReadOutcome,
        Tally,
        Unread,
    )


class SlowReceiptStore(MemoryReceiptStore):
    """A store that lets time pass around its writes, counts its calls, and is down when it is told so."""

    def __init__(self, store: MemoryMessageStore, clock: ManualClock) -> None:
        super().__init__(store)
        self.clock = clock
        self.delays_s: list[float] = []
        self.is_down = False
        self.calls = 0
        self.reads: list[MemberRead] = []

    async def unread(self, batch: Sequence[MemberRead]) -> list[Unread]:
        self.reads += batch
        return await super().unread(batch)

    async def acknowledge(self, batch: Sequence[MemberAck], change: Position, recorded_ms: int) -> list[Came]:
        self._pass()
        return await super().acknowledge(batch, change, recorded_ms)

    async def read(self, batch: Sequence[MemberReadUpdate]) -> ReadOutcome:
        outcome = await super().read(batch)
        self._pass()
        return outcome

    async def tally(self, names: Sequence[MessageName]) -> list[Tally | None]:
        self._pass()
        return await super().tally(names)

    async def claim_news(self, position: Position, now_ms: int, until_ms: int) -> list[News]:
        found = await super().claim_news(position, now_ms, until_ms)
        self._pass()
        return found

    def _pass(self) -> None:
        self.calls += 1
        if self.delays_s:
            self.clock.pass_s(self.delays_s.pop(0))
        if self.is_down:
            raise UnavailableError("store", "the outcome is unknown")


class GroupRecords:
    """Alice's messages to the group, and the rules that record what became of them."""

    def __init__(self, desk: GroupDesk) -> None:
        self.desk = desk
        self.clock = ManualClock()
        self.store = MemoryMessageStore(self.clock)
        self.groups = MemoryGroupStore(self.store, MemoryJournal(self.clock))
        self.receipts = SlowReceiptStore(self.store, self.clock)
        self.directory = FakeDirectory()
        self.directory.add(*desk.members)
        self.group_directory = FakeGroupDirectory()
        self.group_directory.add(group_of(desk.group_id, *desk.members))
        self.dispatcher = FakeDispatcher()
        clock = LedgerClock(self.clock, bytes(8))
        self.telling = Telling(self.receipts, self.directory, self.dispatcher, clock)
        self.recording = GroupRecording(
            self.receipts, Sight(self.group_directory), self.directory, self.dispatcher, clock, self.telling
        )

    async def say(self, *, sender: UserId | None = None, version: int = 1) -> NewGroupMessage:
        message = self.desk.say(sender=sender, version=version)
        await self.groups.accept(self.desk.shard, [message])
        await self.groups.expand([self.desk.expand(message)], [self.desk.touch(message)])
        return message

    async def acknowledge(self, *messages: NewGroupMessage, user: UserId | None = None) -> None:
        keys = b"".join(item_key(message.to_event()) for message in messages)
        await self.recording.acknowledge([DeviceAck(user or self.desk.bob, DeviceId(1), keys, is_resent=False)])

    def request(
        self, *messages: NewGroupMessage, upto: bytes = b"", user: UserId | None = None, attempt: int = 1
    ) -> SendRequest:
        reader = user or self.desk.bob
        ids = tuple(message.message_id for message in messages)
        minted = message_id(reader, 1, self.clock.wall_ms(), attempt)
        return SendRequest(reader, DeviceId(1), minted, attempt, SendGroupRead(self.desk.group_id, upto, ids))

    async def read(
        self, *messages: NewGroupMessage, upto: bytes = b"", user: UserId | None = None
    ) -> list[Answer | SendRequest]:
        return await self.recording.read([self.request(*messages, upto=upto, user=user)])

    def refuse_receipts(self, user_id: UserId) -> None:
        """Lets a user switch its read receipts off."""
        self.directory.truth[user_id] = self.directory.truth[user_id]._replace(gives_read_receipts=False)
        self.directory.copies[user_id] = self.directory.truth[user_id]

    async def tally(self, message: NewGroupMessage) -> tuple[int, int]:
        (tally,) = await self.receipts.tally([MessageName(message.group_id, message.message_id)])
        assert tally is not None
        return tally.delivered, tally.read

    def told(self) -> list[GroupReceiptEvent]:
        """Returns the events that were handed over for Alice."""
        return [
            hint.event
            for hint in self.dispatcher.hints
            if isinstance(hint.event, GroupReceiptEvent) and hint.user_ids == (self.desk.alice,)
        ]


@pytest.fixture
def records(group_desk: GroupDesk) -> GroupRecords:
    return GroupRecords(group_desk)


def reasons(answers: list[Answer | SendRequest]) -> list[str]:
    return [answer.reason if isinstance(answer, Refused) else "stored" for answer in answers]


async def test_what_the_devices_of_a_member_store_is_delivered(records: GroupRecords) -> None:
    first, second = await records.say(), await records.say()

    await records.acknowledge(first, second)
    await records.acknowledge(second, user=records.desk.carol)

    assert [await records.tally(message) for message in (first, second)] == [(1, 0), (2, 0)]


async def test_keys_of_direct_messages_and_of_own_ones_are_passed_over(records: GroupRecords) -> None:
    own = await records.say(sender=records.desk.bob)
    direct = records.desk.write()
    keys = direct.position + direct.message_id + direct.conversation_id + direct.sender_id

    await records.recording.acknowledge([DeviceAck(records.desk.bob, DeviceId(1), keys, is_resent=False)])
    await records.acknowledge(own)

    assert records.receipts.calls == 0


async def test_a_stranger_cannot_acknowledge(records: GroupRecords) -> None:
    message = await records.say()

    await records.acknowledge(message, user=stranger())

    assert await records.tally(message) == (0, 0)


async def test_who_has_left_still_acknowledges_what_it_saw(records: GroupRecords) -> None:
    seen, unseen = await records.say(version=1), await records.say(version=2)
    desk = records.desk
    records.group_directory.add(group_of(desk.group_id, desk.alice, desk.carol, version=2))
    records.group_directory.past[desk.group_id, desk.bob] = (Window(1, 2),)

    await records.acknowledge(seen, unseen)
    await records.acknowledge(seen)

    assert [await records.tally(message) for message in (seen, unseen)] == [(1, 0), (0, 0)]
    assert records.group_directory.reads == 2


async def test_what_came_after_a_removal_that_no_copy_tells_of_is_not_read_by_who_reads_on(
    records: GroupRecords,
) -> None:
    desk = records.desk
    await records.acknowledge(await records.say(version=1))
    # A message whose id is later has come to the reader as a member, so that reading up to it passes the other one.
    unseen, seen = await records.say(version=2), await records.say(version=1)
    records.group_directory.change(group_of(desk.group_id, desk.alice, desk.carol, version=2))
    records.group_directory.past[desk.group_id, desk.bob] = (Window(1, 2),)

    assert reasons(await records.read(upto=seen.message_id)) == ["stored"]

    assert [await records.tally(message) for message in (unseen, seen)] == [(0, 0), (1, 1)]


async def test_a_member_reads_what_is_newer_than_the_copy(records: GroupRecords) -> None:
    group = records.group_directory.truth[records.desk.group_id]
    await records.acknowledge(await records.say(version=1))
    records.group_directory.change(group._replace(version=2))
    message = await records.say(version=2)

    await records.read(upto=message.message_id)

    assert await records.tally(message) == (1, 1)


async def test_who_comes_back_acknowledges_and_reads_what_is_newer_than_the_copy(records: GroupRecords) -> None:
    desk = records.desk
    records.group_directory.add(group_of(desk.group_id, desk.alice, desk.carol, version=2))
    records.group_directory.past[desk.group_id, desk.bob] = (Window(1, 2),)
    await records.acknowledge(await records.say(version=1))
    back = group_of(desk.group_id, *desk.members, version=3)
    records.group_directory.change(
        back._replace(joined_versions=tuple(3 if user == desk.bob else 1 for user in back.user_ids), latest_join=3)
    )
    stored, read = await records.say(version=3), await records.say(version=3)

    await records.acknowledge(stored)
    await records.read(upto=read.message_id)

    assert [await records.tally(message) for message in (stored, read)] == [(1, 1), (1, 1)]


async def test_times_in_a_group_are_asked_for_again_once_they_may_have_changed(records: GroupRecords) -> None:
    desk, group = records.desk, records.group_directory.truth[records.desk.group_id]
    await records.acknowledge(await records.say())
    await records.acknowledge(await records.say())
    assert records.group_directory.reads == 1

    records.group_directory.add(group._replace(version=9, joined_versions=(1, 9, 1), latest_join=9))
    records.group_directory.past[desk.group_id, desk.bob] = (Window(1, 5),)
    message = await records.say(version=6)
    await records.acknowledge(message)

    assert await records.tally(message) == (0, 0)
    assert records.group_directory.reads == 2
    records.group_directory.copies.clear()
    await records.acknowledge(message)
    await records.acknowledge(message)
    assert records.group_directory.reads == 4


async def test_an_acknowledgement_raises_while_the_store_or_the_directory_is_down(records: GroupRecords) -> None:
    message = await records.say()
    records.group_directory.is_down = True
    with pytest.raises(UnavailableError):
        await records.acknowledge(message)
    records.group_directory.is_down, records.receipts.is_down = False, True

    with pytest.raises(UnavailableError):
        await records.acknowledge(message)


async def test_a_read_counts_and_is_told_to_the_readers_other_devices(records: GroupRecords) -> None:
    first, second = await records.say(), await records.say()

    answers = await records.read(upto=second.message_id)

    assert answers == [Stored(records.clock.wall_ms(), records.desk.group_id, is_duplicate=False)]
    assert [await records.tally(message) for message in (first, second)] == [(1, 1), (1, 1)]
    (hint,) = records.dispatcher.hints
    assert isinstance(hint.event, OwnReadEvent)
    assert (hint.event.read_upto, hint.user_ids, hint.origin_device_id) == (second.message_id, (records.desk.bob,), 1)


async def test_reads_that_cannot_be_taken_are_refused_beside_those_that_can(records: GroupRecords) -> None:
    message = await records.say()
    foreign = records.request(message)._replace(message_id=MessageId(bytes(16)))
    eve = stranger()

    answers = await records.recording.read(
        [foreign, records.request(message), records.request(), records.request(message, user=eve)]
    )

    assert reasons(answers) == ["INVALID_MESSAGE_ID", "stored", "INVALID_FIELD", "NOT_IN_CONVERSATION"]


async def test_refused_reads_alone_ask_nothing_of_the_store(records: GroupRecords) -> None:
    assert reasons(await records.read()) == ["INVALID_FIELD"]
    assert reasons(await records.read(upto=bytes(16), user=stranger())) == ["NOT_IN_CONVERSATION"]
    assert records.receipts.calls == 0


async def test_reads_are_retryable_while_the_store_does_not_answer(records: GroupRecords) -> None:
    message = await records.say()
    records.receipts.is_down = True

    (refused,) = await records.read(message)

    assert isinstance(refused, Refused)
    assert refused.is_retryable


async def test_a_read_that_took_too_long_is_written_again(records: GroupRecords) -> None:
    message = await records.say()
    records.receipts.delays_s = [WRITE_WINDOW_S + 1]

    assert reasons(await records.read(message)) == ["stored"]

    events = [event for event in await inbox(records.store, records.desk.bob) if isinstance(event, OwnReadEvent)]
    assert len(events) == 2
    assert events[0].position < events[1].position


async def test_reads_that_always_take_too_long_are_not_confirmed(records: GroupRecords) -> None:
    message = await records.say()
    records.receipts.delays_s = [WRITE_WINDOW_S + 1] * 3

    (refused,) = await records.read(message)

    assert isinstance(refused, Refused)
    assert refused.is_retryable


@pytest.mark.parametrize("who", ["reader", "sender"])
async def test_a_read_is_nobodys_business_when_either_side_gives_no_receipts(records: GroupRecords, who: str) -> None:
    message = await records.say()
    records.refuse_receipts(records.desk.bob if who == "reader" else records.desk.alice)

    await records.read(message)
    await records.read(message, user=records.desk.carol)

    assert await records.tally(message) == (2, 1 if who == "reader" else 0)


async def test_who_is_not_known_by_heart_is_asked_for_before_a_read_is_told(records: GroupRecords) -> None:
    message = await records.say()
    records.refuse_receipts(records.desk.bob)
    records.directory.copies.clear()

    await records.read(message)

    assert await records.tally(message) == (1, 0)
    assert records.directory.reads == 1


async def test_counts_are_told_to_the_sender_once_however_many_came(records: GroupRecords) -> None:
    first, second = await records.say(), await records.say()
    await records.acknowledge(first, second)
    await records.read(first, user=records.desk.carol)
    assert records.told() == []

    await records.telling.tell_counts()
    await records.telling.tell_counts()

    (event,) = records.told()
    assert event.message_ids == (second.message_id, first.message_id)
    assert (event.delivered_counts, event.read_counts, event.recipient_counts) == ((1, 2), (0, 1), (2, 2))


async def test_a_sender_that_gives_no_receipts_sees_no_reads(records: GroupRecords) -> None:
    message = await records.say()
    await records.read(message)
    records.refuse_receipts(records.desk.alice)

    await records.telling.tell_counts()

    (event,) = records.told()
    assert (event.delivered_counts, event.read_counts) == ((1,), (0,))


async def test_an_event_counts_at_most_forty_messages_the_newest_first(records: GroupRecords) -> None:
    messages = [await records.say() for _ in range(EVENT_MESSAGES + 5)]
    await records.acknowledge(*messages)

    await records.telling.tell_counts()
    await records.telling.tell_counts()

    newest, rest = records.told()
    assert newest.message_ids == tuple(message.message_id for message in reversed(messages[5:]))
    assert rest.message_ids == tuple(message.message_id for message in reversed(messages[:5]))


async def test_a_turn_counts_only_so_many_and_everybody_has_one(
    records: GroupRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tell, "MAX_COUNTED", 3)
    by_alice = [await records.say() for _ in range(3)]
    by_carol = await records.say(sender=records.desk.carol)
    await records.acknowledge(*by_alice, by_carol)

    await records.telling.tell_counts()
    first = len(records.dispatcher.hints)
    await records.telling.tell_counts()

    assert (first, len(records.dispatcher.hints)) == (1, 2)


async def test_of_too_many_messages_the_oldest_are_left_to_the_inbox(
    records: GroupRecords, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tell, "MAX_REMEMBERED", 2)
    messages = [await records.say() for _ in range(4)]
    await records.acknowledge(*messages)

    await records.telling.tell_counts()

    (event,) = records.told()
    assert event.message_ids == (messages[3].message_id, messages[2].message_id)


async def test_counts_of_messages_that_are_gone_are_told_to_nobody(records: GroupRecords) -> None:
    message = await records.say()
    await records.acknowledge(message)
    records.store.book.messages[message.group_id].clear()

    await records.telling.tell_counts()

    assert records.told() == []


async def test_the_inbox_says_once_a_minute_that_something_came_further(records: GroupRecords) -> None:
    message = await records.say()
    await records.acknowledge(message)
    await records.telling.tell_news()
    await records.acknowledge(message, user=records.desk.carol)

    for _ in range(59):
        records.clock.pass_s(1)
        await records.telling.tell_news()
    assert len(records.told()) == 1
    records.clock.pass_s(1)
    await records.telling.tell_news()
    records.clock.pass_s(600)
    await records.telling.tell_news()

    logged = [event for event in await inbox(records.store, records.desk.alice) if isinstance(event, GroupReceiptEvent)]
    assert logged == records.told()
    assert [event.message_ids for event in logged] == [(), ()]


async def test_news_that_took_too_long_are_told_again(records: GroupRecords) -> None:
    await records.acknowledge(await records.say())
    records.receipts.delays_s = [WRITE_WINDOW_S + 1]

    await records.telling.tell_news()
    records.clock.pass_s(10)
    await records.telling.tell_news()

    assert len(records.told()) == 2


async def test_the_worker_has_a_turn_every_second_whatever_happens(
    records: GroupRecords, caplog: pytest.LogCaptureFixture
) -> None:
    clock = HandClock()
    message = await records.say()
    await records.acknowledge(message)
    records.receipts.is_down = True

    async with Tasks() as tasks:
        tasks.spawn(tell_for_ever(records.telling, clock), name="tell")
        await clock.advance(2.5)
        assert "could not be told" in caplog.text
        records.receipts.is_down = False
        records.clock.pass_s(60)
        await clock.advance(1)

    assert [event.message_ids for event in records.told()][-1] == ()


async def test_of_the_reads_that_pile_up_at_a_slow_store_those_of_one_portion_are_answered(
    records: GroupRecords,
) -> None:
    said = await records.say()
    bob, carol = records.desk.bob, records.desk.carol
    records.receipts.delays_s = [WRITE_WINDOW_S - 1]
    reads = [records.request(upto=said.message_id, user=user) for user in (bob, carol)]
    await records.recording.read(reads[:1])

    answers = await records.recording.read(reads)
    left = [answer for answer in answers if isinstance(answer, SendRequest)]
    finished = await records.recording.read(left)

    assert [type(answer) for answer in answers] == [Stored, SendRequest]
    assert [type(answer) for answer in finished] == [Stored]
    assert await records.tally(said) == (2, 2)


async def test_the_rest_of_a_long_read_comes_back(records: GroupRecords) -> None:
    said = [await records.say() for _ in range(1002)]

    (left,) = await records.read(upto=said[-1].message_id)
    assert isinstance(left, SendRequest)
    (answer,) = await records.recording.read([left])

    assert isinstance(answer, Stored)
    tallies = await records.receipts.tally([MessageName(records.desk.group_id, one.message_id) for one in said])
    assert {tally.read for tally in tallies if tally} == {1}


async def test_of_several_reads_of_one_member_the_furthest_alone_is_looked_up(records: GroupRecords) -> None:
    said = [await records.say() for _ in range(3)]
    bob, carol = records.desk.bob, records.desk.carol
    reads = [
        records.request(upto=said[1].message_id),
        records.request(upto=said[2].message_id),
        records.request(upto=said[0].message_id, user=carol),
        records.request(upto=said[0].message_id),
        records.request(said[0]),
    ]

    answers = await records.recording.read(reads)

    assert [(read.user_id, read.read_upto, read.message_ids) for read in records.receipts.reads] == [
        (bob, said[2].message_id, ()),
        (carol, said[0].message_id, ()),
        (bob, b"", (said[0].message_id,)),
    ]
    assert [type(answer) for answer in answers] == [Stored] * 5
    assert [await records.tally(one) for one in said] == [(2, 2), (1, 1), (1, 1)]


async def test_a_long_read_answers_what_lies_before_the_end_of_its_portion(records: GroupRecords) -> None:
    said = [await records.say() for _ in range(1002)]
    within, beyond, last = [records.request(upto=said[place].message_id) for place in (999, 1000, 1001)]

    done, *left = await records.recording.read([within, beyond, last])
    finished = await records.recording.read([one for one in left if isinstance(one, SendRequest)])

    assert isinstance(done, Stored)
    assert [type(answer) for answer in finished] == [Stored, Stored]
    assert [read.read_upto for read in records.receipts.reads] == [said[-1].message_id] * 2
    assert {await records.tally(one) for one in said} == {(1, 1)}


async def test_a_stranger_is_refused_every_one_of_its_reads(records: GroupRecords) -> None:
    said, nobody = await records.say(), stranger()

    answers = await records.recording.read([records.request(upto=said.message_id, user=nobody) for _ in range(2)])

    assert [answer.reason for answer in answers if isinstance(answer, Refused)] == ["NOT_IN_CONVERSATION"] * 2
