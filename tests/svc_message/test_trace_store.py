"""What every store tells operators of a message: facts, places and receipts, and never what it says."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import pytest

from chappe.api.message.v1 import trace_service_pb2, trace_service_pb2_grpc
from chappe.runtime.clock import SystemClock
from chappe.runtime.errors import UnavailableError
from svc_message.adapters.group_store_memory import MemoryGroupStore
from svc_message.adapters.journal_memory import MemoryJournal
from svc_message.adapters.ledger_cassandra.message_store import CassandraMessageStore
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.adapters.message_store_postgres import PostgresMessageStore
from svc_message.adapters.receipt_store_memory import MemoryReceiptStore
from svc_message.adapters.trace_store_memory import MemoryTraceStore
from svc_message.adapters.trace_store_postgres import PostgresTraceStore
from svc_message.errors import MessageNotFoundError
from svc_message.model import ConversationId, MessageId, ReceiptState
from svc_message.model.group import Window
from svc_message.model.receipt import MemberAck
from svc_message.model.trace import InboxPointer, MessageTrace, TracedKind, TraceQuery, UserReceipt
from svc_message.protocol import direct_conversation
from svc_message.service.trace import TraceReading
from tests.svc_message.desk import Desk, ref
from tests.svc_message.doors import ALICE, BOB, open_doors
from tests.svc_message.group_desk import Books, GroupDesk

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from svc_message.model import NewMessage
    from svc_message.ports import MessageStore, TraceStore

TRACES = trace_service_pb2_grpc.TraceServiceStub


class Book(NamedTuple):
    """A book that can be written and asked."""

    messages: MessageStore
    traces: TraceStore

    async def trace(self, message: NewMessage) -> MessageTrace:
        found = await self.traces.read_trace(query_of(message))
        assert found is not None
        return found


def query_of(message: NewMessage) -> TraceQuery:
    return TraceQuery(message.conversation_id, message.message_id)


@pytest.fixture
async def postgres_book(ledger_dsn: str, postgres_store: PostgresMessageStore) -> AsyncIterator[Book]:
    traces = PostgresTraceStore(ledger_dsn)
    yield Book(postgres_store, traces)
    await traces.aclose()


@pytest.fixture
def cassandra_book(cassandra_store: CassandraMessageStore) -> Book:
    return Book(cassandra_store, cassandra_store.traces)


@pytest.fixture(params=["memory", "postgres", "cassandra"])
def book(request: pytest.FixtureRequest) -> Book:
    """Returns every book there is, one after the other."""
    if request.param == "memory":
        messages = MemoryMessageStore(SystemClock())
        return Book(messages, MemoryTraceStore(messages))
    found: Book = request.getfixturevalue(f"{request.param}_book")
    return found


async def test_a_message_is_told_with_its_places_in_both_inboxes(book: Book, desk: Desk) -> None:
    message = desk.write()
    await book.messages.accept([message, desk.write()])

    found = await book.trace(message)

    assert found == MessageTrace(
        TracedKind.MESSAGE,
        message.accepted_ms,
        desk.alice,
        message.sender_device_id,
        desk.bob,
        0,
        is_withheld=False,
        pointers=tuple(InboxPointer(message.position, user_id) for user_id in sorted([desk.alice, desk.bob])),
        receipts=(),
    )


async def test_every_attempt_has_left_its_places(book: Book, desk: Desk) -> None:
    message = desk.write()
    again = desk.retry(message)
    await book.messages.accept([message])
    await book.messages.accept([again])

    found = await book.trace(message)

    assert found.accepted_ms == message.accepted_ms
    assert [pointer.position for pointer in found.pointers] == [message.position] * 2 + [again.position] * 2


async def test_a_withheld_message_stands_in_its_senders_inbox_only(book: Book, desk: Desk) -> None:
    message = desk.write(is_withheld=True)
    await book.messages.accept([message])

    found = await book.trace(message)

    assert found.is_withheld
    assert [pointer.user_id for pointer in found.pointers] == [desk.alice]


async def test_a_note_to_self_has_one_place(book: Book, desk: Desk) -> None:
    note = desk.write(recipient=desk.alice)
    await book.messages.accept([note])

    assert (await book.trace(note)).pointers == (InboxPointer(note.position, desk.alice),)


async def test_receipts_are_told_with_their_times(book: Book, desk: Desk) -> None:
    message = desk.write()
    await book.messages.accept([message])
    delivered = desk.receive(message)
    await book.messages.apply_receipts([delivered])
    before = await book.trace(message)
    read = desk.read(message)
    await book.messages.apply_receipts([read])
    after = await book.trace(message)

    assert before.receipts == (UserReceipt(desk.bob, ReceiptState.DELIVERED, delivered.recorded_ms, 0),)
    assert after.receipts == (UserReceipt(desk.bob, ReceiptState.READ, delivered.recorded_ms, read.recorded_ms),)


async def test_a_message_to_a_group_is_told_with_its_size_and_the_place_in_its_senders_inbox(
    books: Books, ledger_dsn: str, group_desk: GroupDesk
) -> None:
    message = group_desk.say()
    await books.groups.accept(group_desk.shard, [message])
    traces: TraceStore = PostgresTraceStore(ledger_dsn)
    if isinstance(books.store, MemoryMessageStore):
        traces = MemoryTraceStore(books.store)
    elif isinstance(books.store, CassandraMessageStore):
        traces = books.store.traces

    found = await traces.read_trace(TraceQuery(message.group_id, message.message_id))

    assert found is not None
    assert (found.sender_id, found.recipient_id, found.recipient_count) == (group_desk.alice, b"", 2)
    assert found.pointers == (InboxPointer(message.position, group_desk.alice),)
    if isinstance(traces, PostgresTraceStore):
        await traces.aclose()


async def test_a_void_id_is_told_as_such(book: Book, desk: Desk) -> None:
    message = desk.write()
    await book.messages.declare_void([ref(message)])

    found = await book.trace(message)

    assert (found.kind, found.accepted_ms, found.sender_id, found.pointers) == (TracedKind.VOID, 0, b"", ())


async def test_a_message_that_was_never_heard_of_in_a_conversation_is_not_told(book: Book, desk: Desk) -> None:
    message = desk.write()
    await book.messages.accept([message])
    elsewhere = query_of(message)._replace(conversation_id=ConversationId(desk.uuid7()))
    unknown = query_of(message)._replace(message_id=MessageId(desk.uuid7()))

    assert [await book.traces.read_trace(query) for query in (elsewhere, unknown)] == [None, None]


async def test_a_store_that_does_not_answer_is_unavailable(desk: Desk) -> None:
    traces = PostgresTraceStore("postgresql://127.0.0.1:1/none", timeout_s=1.0)

    with pytest.raises(UnavailableError):
        await traces.read_trace(query_of(desk.write()))

    await traces.aclose()


async def test_every_book_is_asked_until_one_knows_the_message(book: Book, desk: Desk) -> None:
    message = desk.write()
    await book.messages.accept([message])
    nothing = MemoryMessageStore(SystemClock())
    empty, receipts = MemoryTraceStore(nothing), MemoryReceiptStore(nothing)

    found = await TraceReading([empty, book.traces], receipts).read(query_of(message))

    assert found.accepted_ms == message.accepted_ms
    with pytest.raises(MessageNotFoundError):
        await TraceReading([empty], receipts).read(query_of(message))


async def test_the_receipts_of_a_group_are_those_that_its_sender_may_know(group_desk: GroupDesk) -> None:
    store = MemoryMessageStore(SystemClock())
    receipts, message = MemoryReceiptStore(store), group_desk.say()
    groups = MemoryGroupStore(store, MemoryJournal(SystemClock()))
    await groups.accept(group_desk.shard, [message])
    ack = MemberAck(group_desk.bob, message.group_id, (Window(1, 0),), (message.message_id,))
    await receipts.acknowledge([ack], group_desk.position(), 7)

    reading = TraceReading([MemoryTraceStore(store)], receipts)
    found = await reading.read(TraceQuery(message.group_id, message.message_id))

    assert found.receipts == (UserReceipt(group_desk.bob, ReceiptState.DELIVERED, 7, 0),)


async def test_get_message_trace_tells_internal_callers_everything_but_content() -> None:
    async with open_doors() as doors:
        edge = await doors.submit()
        send = edge.say(1, b"a secret")
        await edge.send(send)
        await edge.until(1)
        await edge.call.done_writing()
        doors.caller = "tool"
        request = trace_service_pb2.GetMessageTraceRequest(
            message_id=send[2:18], conversation_id=direct_conversation(ALICE, BOB)
        )

        answer = await doors.call(TRACES, "GetMessageTrace", request)
        request.message_id = bytes(16)
        unknown = await doors.refusal(TRACES, "GetMessageTrace", request)
        doors.caller = "svc-fanout"
        forbidden = await doors.refusal(TRACES, "GetMessageTrace", request)

    assert (answer.kind, answer.sender_user_id, answer.recipient_user_id) == (1, ALICE, BOB)
    assert {pointer.user_id for pointer in answer.pointers} == {ALICE, BOB}
    assert b"a secret" not in answer.SerializeToString()
    assert (unknown.reason, forbidden.reason) == ("MESSAGE_NOT_FOUND", "CALLER_NOT_ALLOWED")
