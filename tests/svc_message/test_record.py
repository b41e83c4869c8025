"""Receipts of a flush are coalesced by conversation, made durable, and told to the senders."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from chappe.runtime.errors import UnavailableError
from svc_message.adapters.item_protobuf import item_key
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.model import (
    Answer,
    DeviceAck,
    DeviceId,
    Event,
    MessageId,
    OwnReadEvent,
    ReceiptEvent,
    ReceiptState,
    Refused,
    SendRead,
    SendRequest,
    Stored,
    UserId,
)
from svc_message.protocol import FUTURE_BOUND_MS, WRITE_WINDOW_S, LedgerClock, direct_conversation
from svc_message.service.record import FORCED_MARGIN_MS, Recording
from tests.svc_message.desk import Desk, event, inbox
from tests.svc_message.fakes import FakeDirectory, FakeDispatcher, ManualClock, message_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.model import Applied, NewMessage, ReceiptUpdate


class WatchedStore(MemoryMessageStore):
    """A store that remembers what it was given, lets time pass, and fails if it is told so."""

    def __init__(self, clock: ManualClock) -> None:
        super().__init__(clock)
        self.clock = clock
        self.batches: list[Sequence[ReceiptUpdate]] = []
        self.delays_s: list[float] = []
        self.cost_s = 0.0
        """How long one update takes."""
        self.is_down = False

    async def apply_receipts(self, batch: Sequence[ReceiptUpdate]) -> list[Applied]:
        self.batches.append(batch)
        applied = await super().apply_receipts(batch)
        self.clock.pass_s(self.cost_s * len(batch))
        if self.delays_s:
            self.clock.pass_s(self.delays_s.pop(0))
        if self.is_down:
            raise UnavailableError("store", "the outcome is unknown")
        return applied


class Records:
    """Alice's messages to Bob, and the rules that record what became of them."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.store = WatchedStore(self.clock)
        self.dispatcher = FakeDispatcher()
        self.desk = Desk()
        self.directory = FakeDirectory()
        self.directory.add(self.desk.alice, self.desk.bob)
        self.recording = Recording(self.store, self.directory, self.dispatcher, LedgerClock(self.clock, bytes(8)))

    async def write(self, sender: UserId | None = None) -> NewMessage:
        message = self.desk.write(sender=sender)
        await self.store.accept([message])
        return message

    def ack(self, *messages: NewMessage, user: UserId | None = None, is_resent: bool = False) -> DeviceAck:
        """Says that Bob's first device has stored messages."""
        keys = b"".join(item_key(event(message)) for message in messages)
        return DeviceAck(user or self.desk.bob, DeviceId(1), keys, is_resent)

    def read(self, *messages: NewMessage, upto: bytes = b"", attempt: int = 1, device: int = 1) -> SendRequest:
        """Says that Bob has read messages of Alice's."""
        minted = message_id(self.desk.bob, 1, self.clock.wall_ms(), attempt)
        action = SendRead(self.desk.alice, upto, tuple(message.message_id for message in messages))
        return SendRequest(self.desk.bob, DeviceId(device), minted, attempt, action)

    def read_of(self, message: NewMessage) -> SendRequest:
        """Says that Bob has read up to a message of anybody's."""
        minted = message_id(self.desk.bob, 1, self.clock.wall_ms(), 1)
        return SendRequest(self.desk.bob, DeviceId(1), minted, 1, SendRead(message.sender_id, message.message_id, ()))

    async def told(self) -> list[ReceiptEvent]:
        """Returns the receipts in Alice's inbox."""
        return [event for event in await inbox(self.store, self.desk.alice) if isinstance(event, ReceiptEvent)]

    def hinted(self) -> list[tuple[Event, tuple[UserId, ...], int]]:
        return [(hint.event, hint.user_ids, hint.origin_device_id) for hint in self.dispatcher.hints]


@pytest.fixture
def records() -> Records:
    return Records()


async def test_an_acknowledgement_becomes_one_receipt_for_each_conversation(records: Records) -> None:
    first, second = await records.write(), await records.write()

    await records.recording.acknowledge([records.ack(first, second), records.ack(second)])

    (receipt,) = await records.told()
    assert receipt.message_ids == (first.message_id, second.message_id)
    assert (receipt.state, receipt.reader_id) == (ReceiptState.DELIVERED, records.desk.bob)
    assert records.hinted() == [(receipt, (records.desk.alice,), 0)]


async def test_several_conversations_of_a_flush_are_one_batch(records: Records) -> None:
    carol = UserId(b"C" * 16)
    first, second = await records.write(), await records.write(sender=carol)

    await records.recording.acknowledge([records.ack(first), records.ack(second)])

    (batch,) = records.store.batches
    assert {update.peer_id for update in batch} == {records.desk.alice, carol}
    assert len({update.position for update in batch}) == 2


async def test_what_a_user_sent_itself_needs_no_receipt(records: Records) -> None:
    message = await records.write()

    await records.recording.acknowledge([records.ack(message, user=records.desk.alice)])

    assert records.store.batches == []


@pytest.mark.parametrize("order", [(False, True), (True, False)])
async def test_one_resent_acknowledgement_makes_its_conversation_tell_again(
    records: Records, order: tuple[bool, ...]
) -> None:
    message = await records.write()
    await records.recording.acknowledge([records.ack(message)])

    await records.recording.acknowledge([records.ack(message, is_resent=is_resent) for is_resent in order])

    assert [receipt.message_ids for receipt in await records.told()] == [(message.message_id,)] * 2


async def test_an_acknowledgement_raises_when_the_store_does_not_answer(records: Records) -> None:
    message = await records.write()
    records.store.is_down = True

    with pytest.raises(UnavailableError):
        await records.recording.acknowledge([records.ack(message)])


async def test_receipts_that_took_too_long_are_written_again_under_a_fresh_position(records: Records) -> None:
    message = await records.write()
    records.store.delays_s = [WRITE_WINDOW_S + 1]

    await records.recording.acknowledge([records.ack(message)])

    first, second = await records.told()
    assert first.message_ids == second.message_ids
    assert first.position < second.position


async def test_receipts_that_always_take_too_long_are_not_confirmed(records: Records) -> None:
    message = await records.write()
    records.store.delays_s = [WRITE_WINDOW_S + 1] * 3

    with pytest.raises(UnavailableError, match="send again"):
        await records.recording.acknowledge([records.ack(message)])


async def test_what_takes_a_slow_store_too_long_at_once_is_written_in_smaller_portions(records: Records) -> None:
    senders = [UserId(bytes(15) + bytes((number,))) for number in range(1, 61)]
    messages = [await records.write(sender=sender) for sender in senders]
    records.store.cost_s = 0.1

    await records.recording.acknowledge([records.ack(*messages)])

    assert [len(batch) for batch in records.store.batches[:3]] == [60, 10, 10]
    for sender in senders:
        receipts = [one for one in await inbox(records.store, sender) if isinstance(one, ReceiptEvent)]
        assert receipts
        assert records.clock.wall_ms() - receipts[-1].recorded_ms < 7_000


async def test_of_the_reads_that_pile_up_at_a_slow_store_those_of_one_portion_are_answered(records: Records) -> None:
    senders = [UserId(bytes(15) + bytes((number,))) for number in range(1, 61)]
    records.directory.add(*senders)
    messages = [await records.write(sender=sender) for sender in senders]
    records.store.cost_s = 0.05
    await records.recording.acknowledge([records.ack(*messages)])

    answers = await records.recording.read([records.read_of(message) for message in messages])
    left = [answer for answer in answers if isinstance(answer, SendRequest)]
    more = await records.recording.read(left)

    assert [type(answer) for answer in answers] == [Stored] * 20 + [SendRequest] * 40
    assert [type(answer) for answer in more] == [Stored] * 20 + [SendRequest] * 20


async def test_a_store_that_is_quick_again_is_given_everything_at_once_again(records: Records) -> None:
    senders = [UserId(bytes(15) + bytes((number,))) for number in range(1, 61)]
    messages = [await records.write(sender=sender) for sender in senders]
    records.store.cost_s = 0.1
    await records.recording.acknowledge([records.ack(*messages)])
    records.store.cost_s = 0.001

    for _ in range(3):
        await records.recording.acknowledge([records.ack(*messages, is_resent=True)])

    assert len(records.store.batches[-1]) == 60


async def test_a_read_is_told_to_the_sender_and_to_the_readers_other_devices(records: Records) -> None:
    message = await records.write()

    answers = await records.recording.read([records.read(message)])

    conversation_id = direct_conversation(records.desk.alice, records.desk.bob)
    assert answers == [Stored(records.clock.wall_ms(), conversation_id, is_duplicate=False)]
    (receipt, for_alice, _), (own_read, for_bob, origin) = records.hinted()
    assert isinstance(receipt, ReceiptEvent)
    assert isinstance(own_read, OwnReadEvent)
    assert (receipt.state, own_read.read_upto) == (ReceiptState.READ, message.message_id)
    assert (for_alice, for_bob, origin) == ((records.desk.alice,), (records.desk.bob,), 1)


@pytest.mark.parametrize("whose", ["alice", "bob"])
async def test_a_read_is_kept_from_the_sender_while_either_side_gives_no_read_receipts(
    records: Records, whose: str
) -> None:
    message = await records.write()
    silent = records.desk.alice if whose == "alice" else records.desk.bob
    records.directory.set(silent, gives_read_receipts=False)

    (answer,) = await records.recording.read([records.read(message)])

    assert isinstance(answer, Stored)
    [(update,)] = [batch for batch in records.store.batches if batch]
    assert not update.is_told


async def test_who_gives_read_receipts_is_read_through_where_there_is_no_copy(records: Records) -> None:
    message = await records.write()
    records.directory.copies.clear()

    await records.recording.read([records.read(message)])

    assert records.directory.reads == 1


async def test_a_read_that_is_sent_again_is_told_again(records: Records) -> None:
    message = await records.write()
    await records.recording.read([records.read(upto=message.message_id)])

    await records.recording.read([records.read(upto=message.message_id, attempt=2)])

    assert len(await records.told()) == 2


async def test_a_read_that_is_sent_again_tells_of_what_was_read_since_it_was_sent_first(records: Records) -> None:
    early, late = await records.write(), await records.write()
    await records.recording.read([records.read(upto=early.message_id)])
    records.clock.pass_s(2 * FORCED_MARGIN_MS / 1000)
    again = records.read(upto=late.message_id, attempt=2)
    await records.recording.read([again._replace(attempt=1)])

    records.clock.pass_s(1)
    await records.recording.read([records.read(upto=late.message_id), again])

    first, second, third = await records.told()
    assert first.message_ids == (early.message_id,)
    assert second.message_ids == third.message_ids == (late.message_id,)


async def test_what_is_written_again_is_told_again_and_nothing_of_before(records: Records) -> None:
    early, late = await records.write(), await records.write()
    await records.recording.read([records.read(upto=early.message_id)])
    records.clock.pass_s(1)
    records.store.delays_s = [WRITE_WINDOW_S + 1]

    await records.recording.read([records.read(upto=late.message_id)])

    assert [event.message_ids for event in await records.told()] == [(early.message_id,)] + [(late.message_id,)] * 2


async def test_what_is_written_again_names_what_was_told_for_it_may_be_of_no_portion_any_more(records: Records) -> None:
    messages = [await records.write() for _ in range(2)]
    records.store.delays_s = [WRITE_WINDOW_S + 1] * 2

    await records.recording.read([records.read(upto=messages[1].message_id)])

    named = [update.message_ids for (update,) in records.store.batches]
    assert named == [(), *[tuple(message.message_id for message in messages)] * 2]


@pytest.mark.untraced
async def test_a_read_that_comes_again_with_one_that_goes_further_is_told_from_where_it_was(records: Records) -> None:
    start_ms = records.clock.wall_ms() - 3_600_000
    messages = [records.desk.write(message_id=records.desk.uuid7(start_ms + n * 1000)) for n in range(1800)]
    await records.store.accept(messages)
    first = records.read(upto=messages[9].message_id)
    await records.recording.read([first])
    left: list[SendRequest] = [records.read(upto=messages[1700].message_id)]
    while left:
        left = [one for one in await records.recording.read(left) if isinstance(one, SendRequest)]

    left = [first._replace(attempt=2), records.read(upto=messages[1799].message_id)]
    while left:
        left = [one for one in await records.recording.read(left) if isinstance(one, SendRequest)]

    told = [message_id for receipt in await records.told() for message_id in receipt.message_ids]
    assert [told.count(message.message_id) for message in (messages[9], messages[1799])] == [2, 1]


def reasons(answers: list[Answer | SendRequest]) -> list[str]:
    return [answer.reason if isinstance(answer, Refused) else "stored" for answer in answers]


async def test_reads_that_cannot_be_taken_are_refused_beside_those_that_can(records: Records) -> None:
    message = await records.write()
    foreign = records.read(message)._replace(message_id=MessageId(bytes(16)))

    answers = await records.recording.read([foreign, records.read(message), records.read()])

    assert reasons(answers) == ["INVALID_MESSAGE_ID", "stored", "INVALID_FIELD"]


async def test_a_read_of_a_time_to_come_is_refused_for_it_says_since_when_it_has_been_tried(records: Records) -> None:
    message, now_ms = await records.write(), records.clock.wall_ms()
    minted = [message_id(records.desk.bob, 1, now_ms + FUTURE_BOUND_MS + ahead_ms, 1) for ahead_ms in (0, 1)]

    answers = await records.recording.read([records.read(message)._replace(message_id=one) for one in minted])

    assert reasons(answers) == ["stored", "CLOCK_SKEW"]


async def test_refused_reads_alone_ask_nothing_of_the_store(records: Records) -> None:
    assert reasons(await records.recording.read([records.read()])) == ["INVALID_FIELD"]
    assert records.store.batches == []


async def test_reads_are_retryable_while_the_store_does_not_answer(records: Records) -> None:
    message = await records.write()
    records.store.is_down = True

    refused, invalid = await records.recording.read([records.read(message), records.read()])

    assert isinstance(refused, Refused)
    assert isinstance(invalid, Refused)
    assert (refused.is_retryable, invalid.reason) == (True, "INVALID_FIELD")


async def test_the_rest_of_a_long_read_comes_back(records: Records) -> None:
    messages = [await records.write() for _ in range(1002)]
    request = records.read(upto=messages[-1].message_id)

    (left,) = await records.recording.read([request])
    assert isinstance(left, SendRequest)
    (answer,) = await records.recording.read([left])

    assert isinstance(answer, Stored)
    told = [message_id for receipt in await records.told() for message_id in receipt.message_ids]
    assert sorted(told) == sorted(message.message_id for message in messages)


async def test_of_several_reads_of_one_person_the_furthest_alone_is_recorded(records: Records) -> None:
    messages = [await records.write() for _ in range(3)]
    reads = [
        records.read(upto=messages[1].message_id),
        records.read(upto=messages[2].message_id),
        records.read(upto=messages[0].message_id, attempt=2),
        records.read(messages[0]),
    ]

    answers = await records.recording.read(reads)

    (batch,) = records.store.batches
    assert [(one.read_upto, one.message_ids, one.is_forced) for one in batch] == [
        (messages[2].message_id, (), True),
        (b"", (messages[0].message_id,), False),
    ]
    assert reasons(answers) == ["stored"] * 4


async def test_a_long_read_answers_what_lies_before_the_end_of_its_portion(records: Records) -> None:
    messages = [await records.write() for _ in range(1002)]
    within, beyond, last = [records.read(upto=messages[place].message_id) for place in (999, 1000, 1001)]

    done, *left = await records.recording.read([within, beyond, last])
    finished = await records.recording.read([one for one in left if isinstance(one, SendRequest)])

    assert isinstance(done, Stored)
    assert [type(answer) for answer in finished] == [Stored, Stored]
    assert [len(batch) for batch in records.store.batches] == [1, 1]
    told = [message_id for receipt in await records.told() for message_id in receipt.message_ids]
    assert sorted(told) == sorted(message.message_id for message in messages)
