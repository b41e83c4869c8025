"""The Submit door: items of many edges gather into one flush of the ledger, and each gets its own answer.

Group commit is here: whatever the edges have sent while a flush was in flight is the next flush. Nothing in this room
waits for one message alone.
"""

from __future__ import annotations

import asyncio
import itertools
import operator
from typing import TYPE_CHECKING, NamedTuple, Protocol

from chappe.api.edge.v1 import send_pb2
from chappe.api.message.v1 import message_service_pb2
from chappe.api.type.v1 import stream_pb2
from chappe.runtime import contract
from chappe.runtime.batching import STEADY, Batcher
from chappe.runtime.errors import ChappeError
from chappe.runtime.streams import Identity, ServeHandler, StreamServer
from svc_message.adapters.item_protobuf import refused_frame, stored_frame
from svc_message.model import (
    Answer,
    DeviceAck,
    DeviceId,
    Refused,
    SendGroupMessage,
    SendGroupRead,
    SendMessage,
    SendRequest,
    Stored,
    UserId,
)
from svc_message.model.action import SendAction, SendGroupAction
from svc_message.rpc.parse import Result, check_columns, names_group, parse_send
from svc_message.rpc.traces import Traces, acknowledged_ids

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from chappe.runtime.clock import Clock
    from chappe.runtime.tasks import Tasks
    from chappe.runtime.tracing import Batch
    from svc_message.rpc.group_flushes import GroupFlushes
    from svc_message.service.accept import Accepting
    from svc_message.service.act import Acting
    from svc_message.service.record import Recording

    Record = Callable[[Sequence[DeviceAck]], Awaitable[None]]

CREDITS = 8192
"""How many items of one edge may wait for their answers."""
PARALLEL_FLUSHES = 2
"""How many flushes of messages are in flight: while one commits, the next gathers and one more computes."""
FIRST_RETRY_S = 0.05
LAST_RETRY_S = 1.0

_SIZE = operator.attrgetter("size")
_MESSAGE_ID = operator.attrgetter("request.message_id")
_STORED = message_service_pb2.SUBMIT_VERDICT_STORED
_REFUSED = message_service_pb2.SUBMIT_VERDICT_REFUSED


class Asker(Protocol):
    """Whoever waits for answers."""

    def answer(self, results: list[Result]) -> None:
        """Takes answers to its items."""
        ...


class Item(NamedTuple):
    """A send that waits for its flush."""

    stream: Asker
    item_id: int
    request: SendRequest
    size: int
    """The bytes of the Send."""


class AckItem(NamedTuple):
    """An acknowledgement that waits for its flush."""

    stream: SubmitStream
    item_id: int
    ack: DeviceAck


def distinct(items: Sequence[Item]) -> tuple[list[SendRequest], list[int]]:
    """Returns the sends of a batch, each once however often it was sent again meanwhile, and the place of each item's.

    While the store is slow, clients send again what waits for it, and doing the same thing many times over would make
    it slower yet.
    """
    places: dict[SendRequest, int] = {}
    requests: list[SendRequest] = []
    found: list[int] = []
    for item in items:
        request = item.request
        place = places.setdefault(request._replace(attempt=0), len(requests))
        if place == len(requests):
            requests.append(request)
        elif request.attempt > requests[place].attempt:
            requests[place] = request
        found.append(place)
    return requests, found


class Flushes:
    """The group commits of the process: each kind of item in batches of what all edges sent."""

    def __init__(self, accepting: Accepting, recording: Recording, acting: Acting, clock: Clock, tasks: Tasks) -> None:
        self._accepting = accepting
        self._recording = recording
        self._acting = acting
        self._clock = clock
        self._is_draining = False
        self.groups: GroupFlushes
        """Those of groups; the composition root sets them."""
        self.traces = Traces()
        """Follows drawn messages; the composition root sets one that makes spans."""
        self.messages: Batcher[Item] = Batcher(
            self._flush_messages, tasks, name="accept", weigh=_SIZE, parallel=PARALLEL_FLUSHES
        )
        self.unsure: Batcher[Item] = Batcher(
            self._flush_unsure, tasks, name="look up", weigh=_SIZE, parallel=PARALLEL_FLUSHES
        )
        self.reads: Batcher[Item] = Batcher(self._flush_reads, tasks, name="read")
        self.actions: Batcher[Item] = Batcher(self._flush_actions, tasks, name="act", weigh=_SIZE)
        self.acks: Batcher[AckItem] = Batcher(self._flush_acks, tasks, name="acknowledge")
        for batcher in (self.messages, self.unsure, self.reads, self.actions):
            batcher.on_failure = self.refuse
        self.acks.on_failure = give_up
        self.messages.pace = self.acks.pace = STEADY

    async def drain(self) -> None:
        """Returns once everything that was taken has been answered, or given up."""
        self._is_draining = True
        batchers = (self.reads, self.actions, self.acks)
        await asyncio.gather(self._drain_messages(), self.groups.drain(), *(batcher.drain() for batcher in batchers))

    async def _drain_messages(self) -> None:
        await self.messages.drain()
        await self.unsure.drain()

    async def _flush_messages(self, items: list[Item]) -> None:
        with self.traces.flush("ledger.flush", map(_MESSAGE_ID, items), len(items)) as batch:
            answers = await self._accepting.accept([item.request for item in items])
        unsure = [item for item, answer in zip(items, answers, strict=True) if answer is None]
        if unsure:
            self.unsure.extend(unsure)
        self.tell(items, answers, batch)

    async def _flush_unsure(self, items: list[Item]) -> None:
        await self.answer(items, "ledger.look_up", self._accepting.accept_after_looking)

    async def _flush_reads(self, items: list[Item]) -> None:
        await self.mark(items, self._recording.read, self.reads)

    async def mark(
        self,
        items: list[Item],
        read: Callable[[Sequence[SendRequest]], Awaitable[list[Answer | SendRequest]]],
        batcher: Batcher[Item],
    ) -> None:
        """Answers reads as a rule decides; what is left of long ones goes behind those that wait."""
        with self.traces.flush("ledger.read", map(_MESSAGE_ID, items), len(items)) as batch:
            requests, places = distinct(items)
            found = await read(requests)
        outcomes = [found[place] for place in places]
        left = [
            item._replace(request=outcome)
            for item, outcome in zip(items, outcomes, strict=True)
            if isinstance(outcome, SendRequest)
        ]
        if left:
            batcher.extend(left)
        self.tell(items, [None if isinstance(outcome, SendRequest) else outcome for outcome in outcomes], batch)

    async def _flush_actions(self, items: list[Item]) -> None:
        await self.answer(items, "ledger.act", self._acting.act)

    async def answer(
        self, items: list[Item], name: str, decide: Callable[[Sequence[SendRequest]], Awaitable[list[Answer]]]
    ) -> None:
        """Answers items as a rule decides, under a span of a name."""
        with self.traces.flush(name, map(_MESSAGE_ID, items), len(items)) as batch:
            requests, places = distinct(items)
            found = await decide(requests)
        self.tell(items, [found[place] for place in places], batch)

    def tell(self, items: list[Item], answers: Sequence[Answer | None], batch: Batch | None = None) -> None:
        """Sends the answers that there are, each on the stream of its item."""
        now_ms = self._clock.wall_ms()
        results: dict[Asker, list[Result]] = {}
        for (stream, item_id, request, _), answer in zip(items, answers, strict=True):
            if answer is not None:
                results.setdefault(stream, []).append(_result(item_id, request.message_id, answer, now_ms))
        for stream, told in results.items():
            stream.answer(told)
        if self.traces.drawn:
            for item, answer in zip(items, answers, strict=True):
                if answer is not None:
                    self.traces.answered(item.request, answer, batch)

    def refuse(self, items: list[Item]) -> None:
        """Answers what a bug has left open: nothing is known of it, so the client sends the same again."""
        refusal = Refused("INTERNAL", "the ledger has a bug; send again", is_retryable=True, retry_after_ms=1000)
        self.tell(items, [refusal] * len(items))

    async def _flush_acks(self, items: list[AckItem]) -> None:
        await self.confirm(items, self._recording.acknowledge)

    async def confirm(self, items: list[AckItem], record: Record) -> None:
        """Repeats a flush until it is durable: an acknowledgement has no other answer, and credit bounds what waits.

        Not while the process stops: what has no answer then is resent to another replica.
        """
        acks = [item.ack for item in items]
        drawn = acknowledged_ids(acks) if self.traces.drawn else ()
        with self.traces.flush("ledger.acknowledge", drawn, len(items)) as batch:
            is_durable = await self._until_durable(acks, record)
        if not is_durable:
            give_up(items)
            return
        told: dict[SubmitStream, list[Result]] = {}
        for stream, item_id, _ in items:
            told.setdefault(stream, []).append(Result(item_id, 0, b""))
        for stream, results in told.items():
            stream.confirm(results)
        if drawn:
            self.traces.acknowledged(acks, batch)

    async def _until_durable(self, acks: list[DeviceAck], record: Record) -> bool:
        """Records acknowledgements; returns false when the process stops before they are durable."""
        delay_s = FIRST_RETRY_S
        while True:
            try:
                await record(acks)
            except ChappeError:
                if self._is_draining:
                    return False
                acks = [ack._replace(is_resent=True) for ack in acks]
                await self._clock.sleep(delay_s)
                delay_s = min(delay_s * 2, LAST_RETRY_S)
            else:
                return True


class SubmitStream(
    ServeHandler[Result, message_service_pb2.SubmitRequest, message_service_pb2.SubmitResponse],
):
    """One edge's stream: takes batches apart, and puts answers together."""

    def __init__(self, flushes: Flushes, identity: Identity) -> None:
        self._flushes = flushes
        self._identity = identity
        self._unanswered = 0
        self._all_answered = asyncio.Event()
        self.server: StreamServer[Result, message_service_pb2.SubmitRequest, message_service_pb2.SubmitResponse]

    def opened(self, request: message_service_pb2.SubmitRequest) -> None:
        """Needs nothing of the hello beyond what the stream checks."""

    def hello(self) -> message_service_pb2.SubmitResponse:
        """Grants the window."""
        return message_service_pb2.SubmitResponse(hello=self._identity.hello(CREDITS))

    def count(self, request: message_service_pb2.SubmitRequest) -> int:
        """Counts sends and acknowledgements."""
        return len(request.batch.item_ids) + len(request.batch.ack_item_ids)

    def received(self, kind: str, request: message_service_pb2.SubmitRequest) -> None:
        """Hands every item to its flush."""
        batch = request.batch
        check_columns(batch)
        if batch.trace_links or batch.ack_trace_links:
            self._flushes.traces.take(batch)
        self._unanswered += len(batch.item_ids) + len(batch.ack_item_ids)
        self._take_sends(batch)
        self._take_acks(batch)

    def _take_sends(self, batch: message_service_pb2.SubmitBatch) -> None:
        messages: list[Item] = []
        find_violation = contract.checker(send_pb2.Send)
        for item_id, user_id, device_id, again, raw in zip(
            batch.item_ids,
            batch.user_ids,
            batch.device_ids,
            batch.resends or itertools.repeat(0),
            batch.sends,
            strict=False,
        ):
            parsed = parse_send(UserId(user_id), DeviceId(device_id), raw, again, find_violation)
            if isinstance(parsed, Result):
                self.answer([parsed._replace(item_id=item_id)])
            elif isinstance(parsed.action, SendMessage):
                messages.append(Item(self, item_id, parsed, len(raw)))
            elif isinstance(parsed.action, SendGroupMessage | SendGroupRead | SendGroupAction):
                self._flushes.groups.add(Item(self, item_id, parsed, len(raw)))
            elif isinstance(parsed.action, SendAction):
                self._flushes.actions.add(Item(self, item_id, parsed, len(raw)))
            else:
                self._flushes.reads.add(Item(self, item_id, parsed, len(raw)))
        if messages:
            self._flushes.messages.extend(messages)

    def _take_acks(self, batch: message_service_pb2.SubmitBatch) -> None:
        acks = [
            AckItem(self, item_id, DeviceAck(UserId(user_id), DeviceId(device_id), keys, again > 0))
            for item_id, user_id, device_id, keys, again in zip(
                batch.ack_item_ids,
                batch.ack_user_ids,
                batch.ack_device_ids,
                batch.ack_keys,
                batch.ack_resends or itertools.repeat(0),
                strict=False,
            )
        ]
        groups = [item for item in acks if names_group(item.ack.keys)]
        if groups:
            self._flushes.groups.acks.extend(groups)
            acks = [item for item in acks if not names_group(item.ack.keys)]
        if acks:
            self._flushes.acks.extend(acks)

    def answer(self, results: list[Result]) -> None:
        """Sends answers, with the next batch of them."""
        self.server.extend(results)
        self.give_up(len(results))

    def confirm(self, results: list[Result]) -> None:
        """Sends answers that only a cursor waits for: with others, or a moment later."""
        self.server.extend_late(results)
        self.give_up(len(results))

    def give_up(self, items: int) -> None:
        """Waits no longer for items; what got no answer the edge sends again once this stream has ended."""
        self._unanswered -= items
        self.server.grant(items)
        if self._unanswered == 0:
            self._all_answered.set()

    def encode(self, items: list[Result]) -> message_service_pb2.SubmitResponse:
        """Puts answers into columns."""
        sends = [item for item in items if item.verdict]
        results = message_service_pb2.SubmitResults(
            item_ids=[item.item_id for item in sends],
            verdicts=[item.verdict for item in sends],  # type: ignore[misc]  # the numbers are the contract's
            frames=[item.frame for item in sends],
            acked_item_ids=[item.item_id for item in items if not item.verdict],
        )
        return message_service_pb2.SubmitResponse(results=results)

    def credit(self, items: int) -> message_service_pb2.SubmitResponse:
        """Grants more items."""
        return message_service_pb2.SubmitResponse(credit=stream_pb2.StreamCredit(items=items))

    def drain(self, reason: str) -> message_service_pb2.SubmitResponse:
        """Ends politely."""
        return message_service_pb2.SubmitResponse(drain=stream_pb2.StreamDrain(reason=reason))

    async def settled(self) -> None:
        """Returns once every item has its answer."""
        while self._unanswered:
            self._all_answered.clear()
            await self._all_answered.wait()

    def closed(self, *, is_clean: bool) -> None:
        """Needs nothing: flushes of a stream that ended go on, and their answers are dropped."""


def give_up(items: list[AckItem]) -> None:
    """Leaves acknowledgements without an answer: the edge sends them again on another stream."""
    for item in items:
        item.stream.give_up(1)


def _result(item_id: int, message_id: bytes, answer: Answer, now_ms: int) -> Result:
    if isinstance(answer, Stored):
        return Result(item_id, _STORED, stored_frame(message_id, answer))
    return Result(item_id, _REFUSED, refused_frame(message_id, answer, now_ms))
