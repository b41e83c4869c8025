"""Hands hints to svc_fanout over one Dispatch stream to each replica."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from google.protobuf.message import DecodeError

from chappe.api.fanout.v1 import fanout_service_pb2, fanout_service_pb2_grpc
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.metrics import FlushTimings
from chappe.runtime.replicas import Replicas
from chappe.runtime.streams import DialHandler, Identity, StreamClient
from svc_message.adapters.item_protobuf import FLAG_SAMPLED, FLAG_WANTS_RECEIPT, item_bytes, item_key
from svc_message.model import MessageEvent, ReceiptEvent

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import grpc.aio

    from chappe.runtime.clock import Seams
    from chappe.runtime.tasks import Tasks
    from chappe.runtime.tracing import Sampled
    from svc_message.model import Event, UserId

    _LinksOf = Callable[[list["Hint"]], list[stream_pb2.TraceLink]]

MAX_WAITING = 20_000
"""How many hints may wait for one replica before new ones are dropped and counted."""


class Hint(NamedTuple):
    """One item for some users, as it goes into the columns of a batch."""

    item: bytes
    key: bytes
    user_ids: tuple[UserId, ...]
    origin_device_id: int
    flags: int
    drawn: tuple[Sampled, ...] = ()
    """The drawn messages that the item is or tells of."""


class _Losses:
    """The hints that were dropped: all, and those that no replica was told of yet."""

    def __init__(self) -> None:
        self.hints = 0
        self._untold = 0
        self.tell: Callable[[], None] = _nobody_listens
        """Tells a replica, if there is one that listens; the next batch of any hints would tell it too."""

    @property
    def are_untold(self) -> bool:
        """Whether there is something to tell."""
        return self._untold > 0

    def add(self, hints: int) -> None:
        """Counts dropped hints."""
        self.hints += hints
        self._untold += hints

    def take(self) -> int:
        """Returns what the next batch has to tell."""
        untold, self._untold = self._untold, 0
        return untold

    def take_back(self, told: int) -> None:
        """Learns that a batch did not arrive that told of so many."""
        self._untold += told


class _Stream(
    DialHandler[Hint, fanout_service_pb2.DispatchRequest, fanout_service_pb2.DispatchResponse],
):
    """One replica's stream: encodes, and says in its next batch what was dropped on the way to any replica."""

    def __init__(self, identity: Identity, losses: _Losses, hand_on: Callable[[Hint], None], links: _LinksOf) -> None:
        self._identity = identity
        self._losses = losses
        self._hand_on = hand_on
        self._links = links
        self._untaken: deque[tuple[int, int, int]] = deque()
        """Of each batch its number, how many hints it held, and of how many it told that they were dropped."""

    def hello(self) -> fanout_service_pb2.DispatchRequest:
        return fanout_service_pb2.DispatchRequest(hello=self._identity.hello(0))

    def encode(self, number: int, items: list[Hint]) -> fanout_service_pb2.DispatchRequest:
        told = self._losses.take()
        self._untaken.append((number, len(items), told))
        batch = fanout_service_pb2.DispatchBatch(
            number=number,
            items=[hint.item for hint in items],
            keys=[hint.key for hint in items],
            user_counts=[len(hint.user_ids) for hint in items],
            user_ids=[user_id for hint in items for user_id in hint.user_ids],
            origin_device_ids=[hint.origin_device_id for hint in items],
            flags=[hint.flags for hint in items],
            dropped_hints=told,
            trace_links=self._links(items),
        )
        return fanout_service_pb2.DispatchRequest(batch=batch)

    def drain(self, reason: str) -> fanout_service_pb2.DispatchRequest:
        return fanout_service_pb2.DispatchRequest(drain=stream_pb2.StreamDrain(reason=reason))

    def opened(self, hello: stream_pb2.StreamHello) -> None:  # noqa: ARG002 - any replica of the carrier will do
        # A report that was on its way when the stream before ended has come after that.
        self._give_up()
        # While nobody listened hints were dropped, and the next one may be long in coming.
        self._losses.tell()

    def received(self, kind: str, response: fanout_service_pb2.DispatchResponse) -> None:
        """Learns which batches were taken into memory; numbers are cumulative."""
        while kind == "taken" and self._untaken and self._untaken[0][0] <= response.taken.number:
            self._untaken.popleft()

    def closed(self, unsent: list[Hint], *, is_clean: bool) -> None:  # noqa: ARG002 - fanout judges the end
        self._give_up()
        for hint in unsent:
            self._hand_on(hint)
        self._losses.tell()

    def _give_up(self) -> None:
        """Counts what was written to a carrier that died: it may never have been read, and no edge knows of it."""
        self._losses.add(sum(hints for _, hints, _ in self._untaken))
        self._losses.take_back(sum(told for _, _, told in self._untaken))
        self._untaken.clear()


class _Client(StreamClient[Hint, fanout_service_pb2.DispatchRequest, fanout_service_pb2.DispatchResponse]):
    """A dispatch stream that can speak of losses alone."""

    def report(self) -> None:
        """Sends a batch without hints, which says how many were dropped."""
        self._tasks.spawn(self._report(), name=f"{self.name}-report")

    async def _report(self) -> None:
        # It may have ended since; what is to be told is then told to whoever listens next.
        if self.is_accepting:
            await self._write_batch([])


class GrpcDispatcher:
    """The `Dispatcher` port over the replicas of svc_fanout."""

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
            channel: Makes the channel to one address.
            identity: Who this process is.
            tasks: Owns the streams' tasks.
            seams: Clock and randomness.
        """
        self._channel = channel
        self._identity = identity
        self._tasks = tasks
        self._seams = seams
        self._replicas: Replicas[_Client] = Replicas(target, self._connect, tasks=tasks, clock=seams.clock)
        self._losses = _Losses()
        self._losses.tell = self._report
        self.drawn: Mapping[bytes, Sampled] = {}
        """The drawn messages that are on their way through the process; the composition root sets the table."""
        self.expanding: Mapping[bytes, Sampled] = {}
        """Those to groups, whose hints come after their answers; set in the same way."""
        self.expanded: Callable[[bytes, int], Sampled | None] = _none_was_drawn
        """Told that a message to a group goes to so many users; returns it if it was drawn."""
        self._linked = 0
        self.timings = FlushTimings()
        """Of the batches of hints, on all streams together."""

    @property
    def dropped_hints(self) -> int:
        """How many hints no replica could take."""
        return self._losses.hints

    async def start(self) -> None:
        """Dials every replica."""
        await self._replicas.start()

    async def aclose(self) -> None:
        """Ends every stream politely."""
        await self._replicas.aclose()

    def dispatch(
        self, event: Event, user_ids: tuple[UserId, ...], origin_device_id: int, *, wants_receipt: bool
    ) -> None:
        """Hands over a hint; drops it, and counts it, when no replica can take it, or nobody could read it."""
        flags = FLAG_WANTS_RECEIPT if wants_receipt else 0
        try:
            hint = Hint(item_bytes(event), item_key(event), user_ids, origin_device_id, flags)
        except DecodeError:
            # It was read from the store, where it was spoilt.
            self._losses.add(1)
            return
        self._hand(self._traced(hint, event) if self.drawn or self.expanding else hint)

    def _traced(self, hint: Hint, event: Event) -> Hint:
        """Returns a hint with the drawn messages that it is or tells of."""
        ids = event.message_ids if isinstance(event, ReceiptEvent) else (hint.key[16:32],)
        drawn = tuple([self.drawn[message_id] for message_id in ids if message_id in self.drawn])
        if not drawn and isinstance(event, MessageEvent):
            sampled = self.expanded(event.message_id, len(hint.user_ids))
            drawn = () if sampled is None else (sampled,)
        if not drawn:
            return hint
        self._linked += 1
        return hint._replace(drawn=drawn, flags=hint.flags | FLAG_SAMPLED)

    def _links(self, hints: list[Hint]) -> list[stream_pb2.TraceLink]:
        """Returns the links of a batch; looks for them only while hints with links wait."""
        if not self._linked:
            return []
        self._linked -= sum([bool(hint.drawn) for hint in hints])
        return [sampled.link(index, hint.key[16:32]) for index, hint in enumerate(hints) for sampled in hint.drawn]

    def _hand(self, hint: Hint) -> None:
        streams = self._replicas.accepting
        if not streams:
            self._losses.add(1)
            return
        # One conversation stays with one replica while they last, which keeps its hints in order.
        stream = streams[hint.key[47] % len(streams)]
        if stream.pending >= MAX_WAITING:
            self._losses.add(1)
            return
        stream.add(hint)

    def _connect(self, address: str) -> _Client:
        stub: Any = fanout_service_pb2_grpc.FanoutServiceStub(self._channel(address))
        handler = _Stream(self._identity, self._losses, self._hand, self._links)
        client = _Client(
            f"dispatch to {address}", stub.Dispatch, handler, tasks=self._tasks, seams=self._seams, weigh=_weigh
        )
        client.batcher.timings = self.timings
        return client

    def _report(self) -> None:
        streams = self._replicas.accepting
        if streams and self._losses.are_untold:
            streams[0].report()


def _none_was_drawn(message_id: bytes, users: int) -> Sampled | None:  # noqa: ARG001 - it stands in
    """Stands in until there is tracing."""
    return None


def _nobody_listens() -> None:
    """Stands in until there is a dispatcher."""


def _weigh(hint: Hint) -> int:
    return len(hint.item) + len(hint.key) + 16 * len(hint.user_ids) + 16
