"""What the ledger traces of drawn messages: the flush, the message, the hint and the receipt; of others nothing."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from chappe.api.message.v1 import message_service_pb2
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.tracing import part
from svc_message.adapters.item_protobuf import item_key
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.model import NO_POSITION, InboxRead, MessageEvent
from svc_message.protocol import direct_conversation
from svc_message.rpc import traces
from svc_message.rpc.traces import Traces
from tests.spans import TRACEPARENT, Spans, trace_of
from tests.svc_message.doors import ALICE, BOB, Batch, Doors, Edge, open_doors
from tests.svc_message.fakes import ManualClock, message_id
from tests.svc_message.test_dispatcher_grpc import FakeFanout, accepting, dispatching

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence

    from svc_message.model import Accepted, NewMessage


class MeasuredStore(MemoryMessageStore):
    """A store that says, as the one on PostgreSQL does, that its part of the work is its own."""

    async def accept(self, batch: Sequence[NewMessage]) -> list[Accepted]:
        with part("store"):
            return await super().accept(batch)


class Traced:
    """A ledger whose spans are kept, and an edge that sends to it."""

    def __init__(self, doors: Doors, edge: Edge, spans: Spans) -> None:
        self.doors, self.edge, self.spans = doors, edge, spans

    async def send(self, *sends: bytes, drawn: Sequence[int] = (), first: int = 1) -> None:
        """Sends a batch of Alice's, some of it drawn, and waits for the answers."""
        count = len(sends)
        await self.edge.write(
            Batch(
                item_ids=range(first, first + count),
                user_ids=[ALICE] * count,
                device_ids=[1] * count,
                sends=sends,
                trace_links=[stream_pb2.TraceLink(item_index=index, traceparent=TRACEPARENT) for index in drawn],
            )
        )
        await self.edge.until(len(self.edge.verdicts) + count)

    async def event(self) -> MessageEvent:
        """Returns the message in Bob's inbox."""
        (page,) = await self.doors.store.read_inbox([InboxRead(BOB, NO_POSITION, 10)])
        (event,) = page.events
        assert isinstance(event, MessageEvent)
        return event


@pytest.fixture
async def ledger() -> AsyncIterator[Traced]:
    spans = Spans()
    async with open_doors(MeasuredStore(ManualClock())) as doors:
        doors.flushes.traces = Traces(spans.tracing)
        yield Traced(doors, await doors.submit(), spans)


async def test_a_drawn_message_has_a_span_of_its_own_with_the_stores_share(ledger: Traced) -> None:
    await ledger.send(ledger.edge.say(1), ledger.edge.say(2), drawn=[1])

    assert ledger.spans.names == ["ledger.flush", "ledger.accept"]
    (batch,), said = ledger.spans.of("ledger.flush"), ledger.spans.said("ledger.accept")
    drawn = message_id(ALICE, 1, ledger.doors.clock.wall_ms(), 2)
    assert (said["message_id"], said["verdict"], said["batch_items"]) == (drawn.hex(), "stored", 2)
    assert (said["conversation_id"], said["is_duplicate"]) == (direct_conversation(ALICE, BOB).hex(), False)
    assert said["store_ms"] >= 0
    assert said["wait_ms"] >= 0
    assert [f"{link.context.trace_id:032x}" for link in batch.links] == [
        trace_of(hop) for hop in ledger.spans.of("ledger.accept")
    ]
    assert ledger.doors.flushes.traces.drawn == {}


async def test_messages_that_are_not_drawn_make_no_span(ledger: Traced) -> None:
    await ledger.send(*(ledger.edge.say(number) for number in range(20)))
    await ledger.edge.acknowledge(bytes(64))
    await ledger.edge.until(21)

    assert ledger.spans.names == []


async def test_a_message_that_has_to_be_looked_up_is_followed_until_its_answer(ledger: Traced) -> None:
    await ledger.send(ledger.edge.say(1, to=b"?" * 16), drawn=[0])

    assert ledger.spans.names == ["ledger.flush", "ledger.look_up", "ledger.accept"]
    said = ledger.spans.said("ledger.accept")
    assert (said["verdict"], said["reason"]) == ("refused", "RECIPIENT_NOT_FOUND")


async def test_a_receipt_of_a_drawn_message_is_traced_once_it_is_durable(ledger: Traced) -> None:
    await ledger.send(ledger.edge.say(1))
    event = await ledger.event()
    link = stream_pb2.TraceLink(item_index=0, traceparent=TRACEPARENT, message_id=event.message_id)
    # The last key is the reader's own message, for which nobody has to be told.
    keys = item_key(event) + item_key(event._replace(sender_id=BOB))

    await ledger.edge.write(
        Batch(ack_item_ids=[9], ack_user_ids=[BOB], ack_device_ids=[1], ack_keys=[keys], ack_trace_links=[link])
    )
    await ledger.edge.until(2)

    assert ledger.spans.names == ["ledger.acknowledge", "ledger.receipt"]
    assert ledger.spans.said("ledger.receipt")["message_id"] == event.message_id.hex()


async def test_links_that_lead_nowhere_change_nothing(ledger: Traced) -> None:
    await ledger.send(ledger.edge.say(1), b"\xff", drawn=[7, 1])

    assert ledger.spans.names == []
    assert ledger.doors.flushes.traces.drawn == {}


async def test_what_is_never_flushed_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(traces, "MOST_HELD", 2)
    held = Traces(Spans().tracing)
    for number in range(4):
        link = stream_pb2.TraceLink(traceparent=TRACEPARENT, message_id=bytes([number]) * 16)
        held.take(message_service_pb2.SubmitBatch(ack_trace_links=[link]))
    few = list(held.drawn)

    monkeypatch.setattr(traces, "HELD_NS", 0)
    held.take(message_service_pb2.SubmitBatch(ack_trace_links=[link]))

    assert (few, list(held.drawn)) == ([b"\x02" * 16, b"\x03" * 16], [b"\x03" * 16])


async def test_without_tracing_nothing_is_held() -> None:
    held = Traces()
    link = stream_pb2.TraceLink(traceparent=TRACEPARENT, message_id=b"m" * 16)

    held.take(message_service_pb2.SubmitBatch(ack_trace_links=[link]))

    assert held.drawn == {}


async def test_the_hints_of_drawn_messages_carry_their_links_and_the_flag() -> None:
    fanout, spans = FakeFanout(), Spans()
    async with contextlib.AsyncExitStack() as stack:
        dispatcher = await stack.enter_async_context(dispatching(fanout))
        await accepting(dispatcher, 1)
        doors = await stack.enter_async_context(open_doors())
        doors.flushes.traces = Traces(spans.tracing)
        dispatcher.drawn = doors.flushes.traces.drawn
        doors.dispatcher.dispatch = dispatcher.dispatch  # type: ignore[method-assign]  # the real one
        ledger = Traced(doors, await doors.submit(), spans)

        await ledger.send(ledger.edge.say(1), ledger.edge.say(2), drawn=[1])
        await fanout.until(lambda: len(fanout.items) == 2)
        await ledger.send(ledger.edge.say(3), first=3)
        await fanout.until(lambda: len(fanout.items) == 3)

    first, second = flags_and_links(fanout)
    assert first == ([1, 3], [(1, TRACEPARENT, b"")])
    assert second == ([1], [])


async def test_the_hint_of_a_receipt_names_the_drawn_messages_that_it_tells_of() -> None:
    fanout, spans = FakeFanout(), Spans()
    async with contextlib.AsyncExitStack() as stack:
        dispatcher = await stack.enter_async_context(dispatching(fanout))
        await accepting(dispatcher, 1)
        doors = await stack.enter_async_context(open_doors())
        doors.flushes.traces = Traces(spans.tracing)
        dispatcher.drawn = doors.flushes.traces.drawn
        doors.dispatcher.dispatch = dispatcher.dispatch  # type: ignore[method-assign]  # the real one
        edge = await doors.submit()
        await edge.send(edge.say(1), edge.say(2))
        await edge.until(2)
        (page,) = await doors.store.read_inbox([InboxRead(BOB, NO_POSITION, 10)])
        link = stream_pb2.TraceLink(traceparent=TRACEPARENT, message_id=item_key(page.events[1])[16:32])

        keys = b"".join(map(item_key, page.events))
        await edge.write(
            Batch(ack_item_ids=[9], ack_user_ids=[BOB], ack_device_ids=[1], ack_keys=[keys], ack_trace_links=[link])
        )
        await edge.until(3)
        await fanout.until(lambda: len(fanout.items) == 3)

    assert flags_and_links(fanout)[-1] == ([2], [(0, TRACEPARENT, link.message_id)])


def flags_and_links(fanout: FakeFanout) -> list[tuple[list[int], list[Any]]]:
    return [
        (
            list(batch.flags),
            [(link.item_index, link.traceparent, link.message_id) for link in batch.trace_links],
        )
        for batch in fanout.batches
    ]


async def test_a_message_to_a_group_is_followed_until_the_hint_to_its_members() -> None:
    fanout, spans = FakeFanout(), Spans()
    async with contextlib.AsyncExitStack() as stack:
        dispatcher = await stack.enter_async_context(dispatching(fanout))
        await accepting(dispatcher, 1)
        doors = await stack.enter_async_context(open_doors())
        traced = doors.flushes.traces = Traces(spans.tracing)
        dispatcher.drawn, dispatcher.expanding, dispatcher.expanded = traced.drawn, traced.expanding, traced.expanded
        doors.dispatcher.dispatch = dispatcher.dispatch  # type: ignore[method-assign]  # the real one
        ledger = Traced(doors, await doors.submit(), spans)

        await ledger.send(ledger.edge.say_to_group(1), drawn=[0])
        await fanout.until(lambda: bool(fanout.items))

    assert spans.names == ["ledger.flush", "ledger.accept", "ledger.expand"]
    assert spans.said("ledger.expand")["users"] == 2
    assert flags_and_links(fanout)[0][1] == [(0, TRACEPARENT, b"")]
    assert (traced.drawn, traced.expanding) == ({}, {})
