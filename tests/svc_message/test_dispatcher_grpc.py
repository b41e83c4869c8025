"""Hints go out over one stream to each replica of svc_fanout; those that are dropped are counted and told."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
import pytest

from chappe.api.fanout.v1 import fanout_service_pb2 as wire
from chappe.api.fanout.v1 import fanout_service_pb2_grpc
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.clock import system_seams
from chappe.runtime.streams import Identity
from chappe.runtime.tasks import Tasks
from svc_message.adapters import dispatcher_grpc
from svc_message.adapters.dispatcher_grpc import GrpcDispatcher, Hint
from svc_message.adapters.item_protobuf import item_bytes, item_key
from svc_message.model import ConversationId, DeviceId, MessageEvent, MessageId, Position, UserId
from svc_message.model.action import EditEvent
from tests.runtime.probe import ALONE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

ALICE, BOB = UserId(b"A" * 16), UserId(b"B" * 16)


class FakeFanout(fanout_service_pb2_grpc.FanoutServiceServicer):
    """Takes hints, within the credits that it is told to give."""

    def __init__(self, credits_: int = 1000) -> None:
        self.credits = credits_
        self.batches: list[wire.DispatchBatch] = []
        self.contexts: list[Any] = []
        self.markers = 0
        self.takes = self.dies = False
        """Whether it says that it took a batch, and whether it ends a stream after one, without a marker."""
        self.changed = asyncio.Condition()
        self.server = grpc.aio.server(options=ALONE)
        fanout_service_pb2_grpc.add_FanoutServiceServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"

    @property
    def items(self) -> list[bytes]:
        return [item for batch in self.batches for item in batch.items]

    @property
    def dropped(self) -> int:
        return sum(batch.dropped_hints for batch in self.batches)

    async def Dispatch(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # read and write
        del request_iterator
        await context.read()
        await context.write(wire.DispatchResponse(hello=Identity("fanout", 9).hello(self.credits)))
        await self._note(lambda: self.contexts.append(context))
        while (request := await context.read()) is not grpc.aio.EOF:
            await self._note(partial(self._take, request))
            if self.takes:
                await context.write(wire.DispatchResponse(taken=wire.DispatchTaken(number=request.batch.number)))
            if self.dies:
                return

    async def drain(self) -> None:
        marker = wire.DispatchResponse(drain=stream_pb2.StreamDrain(reason="bye"))
        await self.contexts[-1].write(marker)

    async def until(self, condition: Callable[[], bool]) -> None:
        async with self.changed, asyncio.timeout(30):
            await self.changed.wait_for(condition)

    def _take(self, request: wire.DispatchRequest) -> None:
        if request.WhichOneof("frame") == "drain":
            self.markers += 1
        else:
            self.batches.append(request.batch)

    async def _note(self, change: Callable[[], None]) -> None:
        async with self.changed:
            change()
            self.changed.notify_all()


def event(number: int, conversation: int = 0) -> MessageEvent:
    position, message_id = number.to_bytes(16, "big"), number.to_bytes(16, "little")
    return MessageEvent(
        Position(position),
        MessageId(message_id),
        ConversationId(conversation.to_bytes(16, "big")),
        ALICE,
        DeviceId(3),
        BOB,
        1_800_000_000_000,
        b"",
    )


@contextlib.asynccontextmanager
async def dispatching(*fanouts: FakeFanout) -> AsyncIterator[GrpcDispatcher]:
    """Serves carriers and dials them."""
    target = ",".join(fanout.address for fanout in fanouts)
    async with Tasks() as tasks:
        dispatcher = GrpcDispatcher(
            target, grpc.aio.insecure_channel, Identity("ledger-1", 7), tasks=tasks, seams=system_seams()
        )
        for fanout in fanouts:
            await fanout.server.start()
        await dispatcher.start()
        for fanout in fanouts:
            await fanout.until(lambda fanout=fanout: bool(fanout.contexts))  # type: ignore[misc]  # bound for the loop
        yield dispatcher
        await dispatcher.aclose()
    for fanout in fanouts:
        await fanout.server.stop(None)


async def accepting(dispatcher: GrpcDispatcher, count: int) -> None:
    """Returns once hints go out on so many streams."""
    async with asyncio.timeout(30):
        while len(dispatcher._replicas.accepting) != count:  # noqa: ASYNC110 - the stream has no event for it
            await asyncio.sleep(0)


async def test_a_hint_carries_its_item_key_users_origin_and_flags() -> None:
    fanout = FakeFanout()
    async with dispatching(fanout) as dispatcher:
        await accepting(dispatcher, 1)
        first, second = event(1), event(2)

        dispatcher.dispatch(first, (BOB, ALICE), 3, wants_receipt=True)
        dispatcher.dispatch(second, (BOB,), 0, wants_receipt=False)
        await fanout.until(lambda: len(fanout.items) == 2)

        (batch,) = fanout.batches
        assert list(batch.items) == [item_bytes(first), item_bytes(second)]
        assert list(batch.keys) == [item_key(first), item_key(second)]
        assert (list(batch.user_counts), list(batch.user_ids)) == ([2, 1], [BOB, ALICE, BOB])
        assert (list(batch.origin_device_ids), list(batch.flags)) == ([3, 0], [1, 0])
        assert batch.dropped_hints == 0


async def test_84_what_was_spoilt_in_the_store_is_a_hint_that_is_lost_and_no_more() -> None:
    fanout = FakeFanout()
    async with dispatching(fanout) as dispatcher:
        await accepting(dispatcher, 1)
        place = (Position(bytes(16)), MessageId(bytes(16)), ConversationId(bytes(16)), MessageId(bytes(16)))

        dispatcher.dispatch(EditEvent(*place, ALICE, DeviceId(1), 1, b"?"), (BOB,), 0, wants_receipt=False)
        dispatcher.dispatch(event(1), (BOB,), 0, wants_receipt=True)
        await fanout.until(lambda: len(fanout.items) == 1)

        assert (fanout.items, fanout.dropped) == ([item_bytes(event(1))], 1)


async def test_a_conversation_stays_with_one_replica() -> None:
    fanouts = FakeFanout(), FakeFanout()
    async with dispatching(*fanouts) as dispatcher:
        await accepting(dispatcher, 2)

        for number in range(40):
            dispatcher.dispatch(event(number, conversation=number % 2), (BOB,), 0, wants_receipt=True)
        for fanout in fanouts:
            await fanout.until(lambda fanout=fanout: len(fanout.items) == 20)  # type: ignore[misc]  # bound

        conversations = [{key[32:48] for batch in fanout.batches for key in batch.keys} for fanout in fanouts]
        assert [len(found) for found in conversations] == [1, 1]


async def test_hints_dropped_while_nobody_listens_are_told_as_soon_as_somebody_does() -> None:
    fanout = FakeFanout()
    async with dispatching(fanout) as dispatcher:
        await accepting(dispatcher, 1)
        await fanout.drain()
        await accepting(dispatcher, 0)

        dispatcher.dispatch(event(1), (BOB,), 0, wants_receipt=True)
        await fanout.until(lambda: len(fanout.contexts) == 2)
        await fanout.until(lambda: fanout.dropped == 1)

        assert (dispatcher.dropped_hints, fanout.items) == (1, [])


async def test_hints_above_the_limit_are_dropped_and_told_with_the_next_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher_grpc, "MAX_WAITING", 3)
    fanout = FakeFanout(credits_=2)
    async with dispatching(fanout) as dispatcher:
        await accepting(dispatcher, 1)

        for number in range(5):
            dispatcher.dispatch(event(number), (BOB,), 0, wants_receipt=True)
        await fanout.until(lambda: len(fanout.items) == 2)
        await fanout.contexts[0].write(wire.DispatchResponse(credit=stream_pb2.StreamCredit(items=10)))
        await fanout.until(lambda: len(fanout.items) == 3)

        assert (dispatcher.dropped_hints, fanout.dropped) == (2, 2)


async def test_what_a_stream_has_not_sent_goes_to_another_replica() -> None:
    full, free = FakeFanout(credits_=0), FakeFanout()
    async with dispatching(full, free) as dispatcher:
        await accepting(dispatcher, 2)
        for conversation in range(10):
            dispatcher.dispatch(event(conversation, conversation), (BOB,), 0, wants_receipt=True)
        await free.until(lambda: len(free.items) == 5)

        await full.drain()
        await free.until(lambda: len(free.items) == 10)

        assert (dispatcher.dropped_hints, full.items) == (0, [])


@pytest.mark.parametrize(("takes", "told"), [(False, 1), (True, 0)])
async def test_what_a_carrier_that_dies_never_said_it_took_is_told_as_dropped(takes: bool, told: int) -> None:  # noqa: FBT001
    fanout = FakeFanout()
    fanout.takes, fanout.dies = takes, True
    async with dispatching(fanout) as dispatcher:
        await accepting(dispatcher, 1)

        dispatcher.dispatch(event(1), (BOB,), 0, wants_receipt=True)
        await fanout.until(lambda: len(fanout.contexts) == 2)
        fanout.dies = False
        await accepting(dispatcher, 1)
        dispatcher.dispatch(event(2), (BOB,), 0, wants_receipt=True)
        await fanout.until(lambda: len(fanout.items) == 2)

        assert (fanout.dropped, dispatcher.dropped_hints) == (told, told)


def stream_over(losses: dispatcher_grpc._Losses) -> dispatcher_grpc._Stream:
    losses.tell = lambda: None
    return dispatcher_grpc._Stream(Identity("ledger-1", 7), losses, lambda _: None, lambda _: [])


def test_what_does_not_arrive_again_and_again_is_counted_once() -> None:
    losses = dispatcher_grpc._Losses()
    stream = stream_over(losses)
    for number in (1, 2):
        hint = Hint(item_bytes(event(number)), item_key(event(number)), (BOB,), 0, 0)
        stream.encode(1, [hint])
        stream.closed([], is_clean=False)

    told = stream.encode(1, []).batch.dropped_hints

    assert (told, losses.hints) == (2, 2)


def test_losses_that_were_being_told_when_a_stream_ended_are_told_to_the_next() -> None:
    losses = dispatcher_grpc._Losses()
    stream = stream_over(losses)
    losses.add(3)
    stream.closed([], is_clean=False)
    stream.encode(8, [])

    stream.opened(stream_pb2.StreamHello())

    assert (losses.take(), losses.hints) == (3, 3)


async def test_a_polite_end_sends_what_waits_and_the_marker() -> None:
    fanout = FakeFanout()
    async with dispatching(fanout) as dispatcher:
        await accepting(dispatcher, 1)
        dispatcher.dispatch(event(1), (BOB,), 0, wants_receipt=True)

    assert (len(fanout.items), fanout.markers) == (1, 1)
