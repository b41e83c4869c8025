"""The `Ledger` port over svc_message: one Submit stream to each replica, and batched reads of logs."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from google.protobuf.message import DecodeError

from chappe.api.edge.v1 import send_pb2, server_frame_pb2
from chappe.api.message.v1 import history_service_pb2, history_service_pb2_grpc, message_service_pb2
from chappe.api.message.v1.message_service_pb2_grpc import MessageServiceStub
from chappe.api.type.v1 import error_reason_pb2, stream_pb2
from chappe.runtime.errors import TooLargeError, from_rpc_error
from chappe.runtime.metrics import FlushTimings
from chappe.runtime.replicas import Replicas
from chappe.runtime.streams import DialHandler, Identity, StreamClient
from svc_edge.adapters.ledger_traces import LedgerTraces
from svc_edge.model import InboxAnswer, Verdict

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from chappe.runtime.clock import Clock, Seams
    from chappe.runtime.tasks import Tasks
    from chappe.runtime.tracing import Root, Sampled
    from svc_edge.model import InboxQuery, Member, SessionId
    from svc_edge.ports import LedgerListener

SYNC_TIMEOUT_S = 10.0
WAIT_LIMIT_S = 5.0
MAX_WAITING = 20_000
RETRY_AFTER_MS = 1000

_ID_HEAD = b"\x0a\x10"
_SWEEP_INTERVAL_S = 0.5
_ITEM_OVERHEAD_BYTES = 64
_VERDICTS = {verdict.value: verdict for verdict in Verdict}
_REFUSED = Verdict.REFUSED.value
_UNWELL = {error_reason_pb2.ERROR_REASON_CLOCK_UNTRUSTED, error_reason_pb2.ERROR_REASON_DEPENDENCY_UNAVAILABLE}
"""Reasons that are the replica's and not the Send's: another one may well take it."""
_SPARED_SWEEPS = 2
_SPARED_BURDEN = 1_000_000
"""More than any number of unanswered items."""


class _Item:
    """A Send or an acknowledgement that has no answer yet."""

    __slots__ = ("is_ack", "item_id", "member", "payload", "resends", "session_id", "since_s", "was_handed_on")

    def __init__(self, item_id: int, session_id: SessionId, member: Member, payload: bytes, *, is_ack: bool) -> None:
        self.item_id = item_id
        self.session_id = session_id
        self.member = member
        self.payload = payload
        self.is_ack = is_ack
        self.resends = 0
        self.since_s = 0.0
        self.was_handed_on = False


class _Lane(DialHandler[_Item, message_service_pb2.SubmitRequest, message_service_pb2.SubmitResponse]):
    """One replica's stream and the items that it has not answered."""

    client: StreamClient[_Item, message_service_pb2.SubmitRequest, message_service_pb2.SubmitResponse]

    def __init__(self, ledger: GrpcLedger, identity: Identity) -> None:
        self._ledger = ledger
        self._identity = identity
        self.unanswered: dict[int, _Item] = {}
        self.spared = 0
        """For how many more sweeps others are preferred, because it has refused what another may take."""

    @property
    def burden(self) -> int:
        """Returns what speaks against handing it the next item."""
        return len(self.unanswered) + (_SPARED_BURDEN if self.spared else 0)

    def hello(self) -> message_service_pb2.SubmitRequest:
        return message_service_pb2.SubmitRequest(hello=self._identity.hello(0))

    def encode(self, number: int, items: list[_Item]) -> message_service_pb2.SubmitRequest:
        sends = [item for item in items if not item.is_ack]
        acks = [item for item in items if item.is_ack]
        item_ids, ack_item_ids = [item.item_id for item in sends], [item.item_id for item in acks]
        batch = message_service_pb2.SubmitBatch(
            number=number,
            item_ids=item_ids,
            user_ids=[item.member.user_id for item in sends],
            device_ids=[item.member.device_id for item in sends],
            resends=[item.resends for item in sends],
            sends=[item.payload for item in sends],
            trace_links=self._ledger.traces.send_links(item_ids),
            ack_item_ids=ack_item_ids,
            ack_user_ids=[item.member.user_id for item in acks],
            ack_device_ids=[item.member.device_id for item in acks],
            ack_keys=[item.payload for item in acks],
            ack_resends=[item.resends for item in acks],
            ack_trace_links=self._ledger.traces.ack_links(ack_item_ids),
        )
        return message_service_pb2.SubmitRequest(batch=batch)

    def drain(self, reason: str) -> message_service_pb2.SubmitRequest:
        return message_service_pb2.SubmitRequest(drain=stream_pb2.StreamDrain(reason=reason))

    def opened(self, hello: stream_pb2.StreamHello) -> None:  # noqa: ARG002 - any replica of the ledger will do
        self._ledger.submit_waiting()

    def received(self, kind: str, response: message_service_pb2.SubmitResponse) -> None:
        if kind != "results":
            return
        results, take, listener = response.results, self.unanswered.pop, self._ledger.listener
        went_on: set[int] = set()
        for item_id, verdict, frame in zip(results.item_ids, results.verdicts, results.frames, strict=True):
            item = take(item_id, None)
            if item is None:
                continue
            if verdict == _REFUSED and self._goes_elsewhere(item, frame):
                went_on.add(item_id)
            else:
                listener.answered(item.session_id, _VERDICTS[verdict], frame)
        for item_id in results.acked_item_ids:
            item = take(item_id, None)
            if item is not None:
                listener.confirmed(item.session_id, item_id)
        self._ledger.traces.answered(results.item_ids, results.verdicts, but=went_on)
        self._ledger.traces.confirmed(results.acked_item_ids)

    def _goes_elsewhere(self, item: _Item, frame: bytes) -> bool:
        """Spares this replica if its refusal tells of trouble of its own, and hands the item to another one, once."""
        if not _tells_of_trouble(frame):
            return False
        # One that refuses at once never has anything unanswered, and would be handed everything.
        self.spared = _SPARED_SWEEPS
        other = _least_burdened(self._ledger.lanes)
        if item.was_handed_on or other is None or other.spared:
            return False
        item.was_handed_on = True
        item.resends += 1
        self._ledger.resubmit([item])
        return True

    def closed(self, unsent: list[_Item], *, is_clean: bool) -> None:  # noqa: ARG002 - resent either way
        items, self.unanswered = self.unanswered, {}
        never_sent = {item.item_id for item in unsent}
        for item in items.values():
            item.resends += item.item_id not in never_sent
        self._ledger.resubmit(items.values())


class GrpcLedger:
    """Hands items to the replica that has the fewest unanswered; resends what a stream that ended left open.

    A replica that refuses because of its own clock, store or peers is spared for a second while there is another one,
    and what it has refused goes there: a client would come back with it only after some seconds.
    """

    listener: LedgerListener

    def __init__(
        self,
        target: str,
        channel: Callable[[str], grpc.aio.Channel],
        identity: Identity,
        *,
        tasks: Tasks,
        seams: Seams,
    ) -> None:
        """Prepares; `start` dials.

        Args:
            target: The replicas, see `chappe.runtime.replicas`.
            channel: Opens the channel to one address, or to all of a target for unary calls.
            identity: Who this process is on its streams.
            tasks: Owns the streams' tasks.
            seams: Clock and randomness.
        """
        self._channel = channel
        self._identity = identity
        self._tasks = tasks
        self._seams = seams
        self._clock: Clock = seams.clock
        self.lanes: list[_Lane] = []
        """One for each replica."""
        self._waiting: deque[_Item] = deque()
        self._last_id = 0
        self._replicas: Replicas[Any] = Replicas(target, self._connect, tasks=tasks, clock=seams.clock)
        self._replicas.on_change = self._forget_lanes
        self._history: Any = history_service_pb2_grpc.HistoryServiceStub(channel(target))
        self.resent_items = 0
        self.traces = LedgerTraces()
        self.timings = FlushTimings()
        """Of the batches of items, on all streams together."""

    async def start(self) -> None:
        """Dials every replica."""
        await self._replicas.start()
        self._tasks.spawn(self._sweep(), name="submit-sweep")

    async def aclose(self) -> None:
        """Ends every stream politely."""
        await self._replicas.aclose()

    @property
    def is_reachable(self) -> bool:
        """Whether items go out at the moment."""
        return any(lane.client.is_accepting for lane in self.lanes)

    def send(self, session_id: SessionId, member: Member, send: bytes, root: Root | None = None) -> None:
        """Hands over a serialised Send; the answer comes to the listener, and ends the root of its trace."""
        self._last_id += 1
        if root is not None:
            self.traces.sends[self._last_id] = root
        self._submit(_Item(self._last_id, session_id, member, send, is_ack=False))

    def acknowledge(self, session_id: SessionId, member: Member, keys: bytes, drawn: Sequence[Sampled] = ()) -> int:
        """Hands over what a device stored; the listener learns the number that is returned when it is durable."""
        self._last_id += 1
        if drawn:
            self.traces.acks[self._last_id] = drawn
        self._submit(_Item(self._last_id, session_id, member, keys, is_ack=True))
        return self._last_id

    async def sync(self, queries: Sequence[InboxQuery]) -> list[InboxAnswer]:
        """Reads on in many logs; raises `TooLargeError`, `UnavailableError`, or what the ledger refused with."""
        request = history_service_pb2.SyncInboxRequest(
            queries=[
                history_service_pb2.InboxQuery(
                    user_id=query.user_id,
                    device_id=query.device_id,
                    cursor=query.cursor,
                    after_position=query.after,
                    pass_bound=query.bound,
                    limit=query.limit,
                    known_message_ids=query.known,
                )
                for query in queries
            ]
        )
        try:
            response = await self._history.SyncInbox(request, timeout=SYNC_TIMEOUT_S)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED:
                raise TooLargeError("the logs that were read do not fit into one answer", limit=len(queries)) from error
            raise from_rpc_error(error, dependency="svc_message") from error
        return [
            InboxAnswer(
                list(answer.items),
                list(answer.keys),
                list(answer.flags),
                answer.has_more,
                answer.cursor,
                answer.pass_bound,
                answer.is_resync,
            )
            for answer in response.answers
        ]

    def submit_waiting(self) -> None:
        """Hands over what waited for a stream."""
        waiting, self._waiting = self._waiting, deque()
        for item in waiting:
            self._submit(item)

    def resubmit(self, items: Iterable[_Item]) -> None:
        """Hands what a stream left unanswered to another one."""
        for item in items:
            self.resent_items += 1
            self._submit(item)

    def _submit(self, item: _Item) -> None:
        lane = _least_burdened(self.lanes)
        if lane is not None:
            lane.unanswered[item.item_id] = item
            lane.client.add(item)
            return
        item.since_s = item.since_s or self._clock.monotonic_s()
        if len(self._waiting) >= MAX_WAITING and not item.is_ack:
            self._refuse(item)
        else:
            self._waiting.append(item)

    def _connect(self, address: str) -> StreamClient[Any, Any, Any]:
        stub: Any = MessageServiceStub(self._channel(address))
        lane = _Lane(self, self._identity)
        lane.client = StreamClient(
            f"submit to {address}", stub.Submit, lane, tasks=self._tasks, seams=self._seams, weigh=_weigh
        )
        lane.client.batcher.timings = self.timings
        self.lanes.append(lane)
        return lane.client

    def _forget_lanes(self) -> None:
        clients = set(self._replicas.streams.values())
        self.lanes = [lane for lane in self.lanes if lane.client in clients or lane.unanswered]

    async def _sweep(self) -> None:
        while True:
            await self._clock.sleep(_SWEEP_INTERVAL_S)
            for lane in self.lanes:
                lane.spared = max(0, lane.spared - 1)
            oldest_s = self._clock.monotonic_s() - WAIT_LIMIT_S
            if self._waiting and self._waiting[0].since_s < oldest_s:
                self._give_up(oldest_s)

    def _give_up(self, oldest_s: float) -> None:
        """Refuses the Sends that waited too long; acknowledgements wait on, for their cursors wait for them."""
        waiting, self._waiting = self._waiting, deque()
        for item in waiting:
            if item.is_ack or item.since_s >= oldest_s:
                self._waiting.append(item)
            else:
                self._refuse(item)

    def _refuse(self, item: _Item) -> None:
        verdict, frame = _refusal(item.payload, self._clock.wall_ms())
        self.listener.answered(item.session_id, verdict, frame)
        self.traces.answered([item.item_id], [verdict])


def _refusal(send: bytes, now_ms: int) -> tuple[Verdict, bytes]:
    message_id = send[2:18]
    if not send.startswith(_ID_HEAD):
        try:
            message_id = send_pb2.Send.FromString(send).message_id
        except DecodeError:
            return Verdict.MALFORMED, b""
    nack = server_frame_pb2.SendNack(
        message_id=message_id,
        reason=error_reason_pb2.ERROR_REASON_DEPENDENCY_UNAVAILABLE,
        detail="svc_message does not answer: send the same bytes again",
        is_retryable=True,
        retry_after_ms=RETRY_AFTER_MS,
        server_ms=now_ms,
    )
    return Verdict.REFUSED, server_frame_pb2.ServerFrame(send_nack=nack).SerializeToString()


def _least_burdened(lanes: list[_Lane]) -> _Lane | None:
    best = None
    for lane in lanes:
        if lane.client.is_accepting and (best is None or lane.burden < best.burden):
            best = lane
    return best


def _tells_of_trouble(frame: bytes) -> bool:
    answer = server_frame_pb2.ServerFrame.FromString(frame)
    return answer.send_nack.is_retryable and answer.send_nack.reason in _UNWELL


def _weigh(item: _Item) -> int:
    return len(item.payload) + _ITEM_OVERHEAD_BYTES
