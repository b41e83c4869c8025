"""One Push stream: from this process to one edge."""

from __future__ import annotations

import functools
import hashlib
import logging
from typing import TYPE_CHECKING, Any

import grpc.aio

from chappe.api.edge.v1 import edge_service_pb2, edge_service_pb2_grpc
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.streams import DialHandler, Identity, StreamBrokenError, StreamClient
from svc_fanout.model import Delivery, Hint, UserId

if TYPE_CHECKING:
    from collections.abc import Callable

    from chappe.runtime.clock import Seams
    from chappe.runtime.tasks import Tasks
    from svc_fanout.ports import EdgeListener

PUSH_CREDITS = 0
"""An edge sends no items."""
MAX_FAILURES = 3
"""For an edge that could not be dialled so often in a row nothing is kept until it answers."""
STRAY_S = 1.0
"""How long a delivery for another boot is kept, in case the edge has restarted and the stream has yet to notice."""
SILENT_S = 30.0
"""How long it is kept while the edge says nothing: a stream to an edge that is gone has been ended by then."""
MAX_WAITING = 65_536
"""How many deliveries may wait for one edge."""
MAX_WAITING_BYTES = 64 * 1024 * 1024
DELIVERY_BYTES = 20
"""What a delivery takes in a batch beside its item."""
ITEM_BYTES = 90
"""What an item takes in a batch beside its own bytes: key, flags, lengths."""

_log = logging.getLogger(__name__)

PushRequest = edge_service_pb2.PushRequest
PushResponse = edge_service_pb2.PushResponse


class PushStream(StreamClient[Delivery, PushRequest, PushResponse]):
    """The stream to one edge, whichever boot it has; nothing reaches an edge of another boot than its route names."""

    def __init__(
        self,
        edge_id: str,
        channel: grpc.aio.Channel,
        listener: EdgeListener,
        *,
        identity: Identity,
        tasks: Tasks,
        seams: Seams,
    ) -> None:
        """Starts to dial.

        Args:
            edge_id: The address of the edge.
            channel: To that address; closed with the stream.
            listener: Takes what the edge says.
            identity: Of this process.
            tasks: Owns the tasks of the stream.
            seams: For jitter and waiting.
        """
        self._channel = channel
        self._stub: Any = edge_service_pb2_grpc.EdgeServiceStub(channel)
        self._listener = listener
        self._pusher = Pusher(identity, listener, self._opened, self._relieved)
        self._waiting: list[Delivery] = []
        self._strays: list[Delivery] = []
        self._owed = ("", 0)
        self._failures = -1
        super().__init__(
            f"push to {edge_id}", self._start_call, self._pusher, tasks=tasks, seams=seams, weigh=self._pusher.weigh
        )

    def push(self, deliveries: list[Delivery]) -> None:
        """Sends deliveries, or keeps them until the edge answers, or gives them back."""
        if self.is_accepting:
            self._send(deliveries)
        elif self._failures >= MAX_FAILURES:
            self._give_up(deliveries)
        elif len(self._waiting) + len(deliveries) > MAX_WAITING:
            self._owe(f"{self.name}: too much waited for the edge", 0)
        else:
            self._waiting += deliveries

    def verify_all(self, reason: str, spread_ms: int) -> None:
        """Asks the edge to let all sessions read their logs; as soon as it can be reached."""
        if not self.is_accepting:
            self._owe(reason, spread_ms)
            return
        request = PushRequest(verify_all=edge_service_pb2.VerifyAll(reason=reason, spread_ms=spread_ms))
        self._tasks.spawn(self._write_quietly(request), name=f"{self.name}-verify")

    async def aclose(self) -> None:
        """Ends politely, and closes the channel."""
        await super().aclose()
        await self._channel.close()

    def _start_call(self) -> Any:
        self._failures += 1
        if self._failures == MAX_FAILURES:
            _log.warning(
                "%s: the edge did not answer %d times, nothing is kept for it until it does", self.name, MAX_FAILURES
            )
            waiting, self._waiting = self._waiting, []
            self._give_up(waiting)
        return self._stub.Push()

    def _opened(self) -> None:
        self._failures = -1
        self._listener.lost_touch()
        waiting = self._waiting + self._strays
        self._waiting, self._strays = [], []
        self._send(waiting)
        self._pay()

    def _relieved(self) -> None:
        if self._owed[0] and self.pending * 2 < MAX_WAITING:
            self._pay()

    def _send(self, deliveries: list[Delivery]) -> None:
        boot_id = self._pusher.boot_id
        strays = [delivery for delivery in deliveries if delivery.route.boot_id != boot_id]
        if strays:
            self._keep_strays(strays, boot_id)
            deliveries = [delivery for delivery in deliveries if delivery.route.boot_id == boot_id]
        size = sum([len(delivery.hint.item) for delivery in deliveries])
        if self.pending + len(deliveries) > MAX_WAITING or self._pusher.waiting_bytes + size > MAX_WAITING_BYTES:
            self._owe(f"{self.name}: the edge is slow", 0)
            return
        self._pusher.waiting_bytes += size
        self.batcher.extend(deliveries)

    def _keep_strays(self, strays: list[Delivery], boot_id: int) -> None:
        if not self._strays:
            self._tasks.spawn(self._judge_strays(boot_id), name=f"{self.name}-strays")
        if len(self._strays) + len(strays) > MAX_WAITING:
            self._owe(f"{self.name}: too much waited for another boot of the edge", 0)
        else:
            self._strays += strays

    async def _judge_strays(self, boot_id: int) -> None:
        """Gives back what is for another boot, once the edge has gone on for a while with the one that it has.

        While it is silent it may be gone, and the other boot the one that is there now, whose routes are right.
        """
        answers, silent_s = self._pusher.answers, 0.0
        while self._pusher.answers == answers and silent_s < SILENT_S:
            await self._seams.clock.sleep(STRAY_S)
            silent_s += STRAY_S
        strays, self._strays = self._strays, []
        if not strays:
            return
        if self.is_accepting and self._pusher.boot_id == boot_id:
            self._listener.returned(strays)
        else:
            self.push(strays)

    def _give_up(self, deliveries: list[Delivery]) -> None:
        if deliveries:
            # The sessions may live on behind a broken network; they read their logs when it is mended.
            self._owe(f"{self.name}: the edge could not be reached", 0)
            self._listener.unreachable(deliveries)

    def _owe(self, reason: str, spread_ms: int) -> None:
        self._owed = (reason, max(self._owed[1], spread_ms))

    def _pay(self) -> None:
        (reason, spread_ms), self._owed = self._owed, ("", 0)
        if reason:
            self.verify_all(reason, spread_ms)

    async def _write_quietly(self, request: PushRequest) -> None:
        try:
            await self._write(self._call, request)
        except StreamBrokenError as error:
            # The stream ended without its marker, which makes the edge verify all by itself.
            _log.info("%s: could not ask to verify: %s", self.name, error)


class Pusher(DialHandler[Delivery, PushRequest, PushResponse]):
    """Puts deliveries into columns, and takes what the edge says of them."""

    def __init__(
        self,
        identity: Identity,
        listener: EdgeListener,
        on_open: Callable[[], None],
        on_taken: Callable[[], None],
    ) -> None:
        self._identity = identity
        self._listener = listener
        self._on_open = on_open
        self._on_taken = on_taken
        self._sent: dict[int, list[Delivery]] = {}
        self._weighed: bytes | None = None
        self.boot_id = 0
        """Of the edge at the other end of the present stream."""
        self.answers = 0
        """How often it has said something."""
        self.waiting_bytes = 0
        """Of the items of the deliveries that wait to be written."""

    def hello(self) -> PushRequest:
        """Asks for whichever boot is there: its hello tells, and nothing is sent before."""
        return PushRequest(hello=self._identity.hello(PUSH_CREDITS), edge_boot_id=0)

    def opened(self, hello: stream_pb2.StreamHello) -> None:
        """Learns the boot of the edge."""
        self.boot_id = hello.boot_id
        self.answers += 1
        self._on_open()

    def weigh(self, delivery: Delivery) -> int:
        """Returns the bytes that a delivery adds to its batch: an item stands in it once."""
        hint = delivery.hint
        if hint.key is self._weighed:
            return DELIVERY_BYTES
        self._weighed = hint.key
        return DELIVERY_BYTES + ITEM_BYTES + len(hint.item)

    def encode(self, number: int, items: list[Delivery]) -> PushRequest:
        """Returns one batch in columns."""
        self._weighed = None
        self._sent[number] = items
        self.waiting_bytes -= sum([len(delivery.hint.item) for delivery in items])
        return PushRequest(batch=to_batch(number, items))

    def received(self, kind: str, response: PushResponse) -> None:
        """Gives the deliveries back whose sessions the edge does not have."""
        self.answers += 1
        if kind != "taken":
            return
        if response.arrived_user_ids:
            self._listener.arrived(map(UserId, response.arrived_user_ids))
        number = response.taken.number
        deliveries = self._sent.get(number, [])
        # Batches are answered in order, several by one answer.
        while self._sent and (oldest := next(iter(self._sent))) <= number:
            del self._sent[oldest]
        absent = [deliveries[at] for at in response.taken.absent_delivery_indexes if at < len(deliveries)]
        if absent:
            self._listener.returned(absent)
        self._on_taken()

    def drain(self, reason: str) -> PushRequest:
        """Returns the drain marker."""
        return PushRequest(drain=stream_pb2.StreamDrain(reason=reason))

    def closed(self, unsent: list[Delivery], *, is_clean: bool) -> None:
        """Looks for the sessions of an edge that left politely; any other edge verifies all by itself."""
        self._sent.clear()
        self._weighed = None
        self.boot_id = 0
        self.waiting_bytes = 0
        self._listener.lost_touch()
        if unsent and is_clean:
            self._listener.returned(unsent)


def to_batch(number: int, deliveries: list[Delivery]) -> edge_service_pb2.PushBatch:
    """Returns deliveries in columns, each item once."""
    indexes: dict[int, int] = {}
    item_indexes: list[int] = []
    hints: list[Hint] = []
    for delivery in deliveries:
        hint = delivery.hint
        # A second attempt is a hint of its own around the same bytes.
        index = indexes.setdefault(id(hint.key), len(hints))
        if index == len(hints):
            hints.append(hint)
        item_indexes.append(index)
    return edge_service_pb2.PushBatch(
        number=number,
        session_ids=[delivery.route.session_id for delivery in deliveries],
        user_tags=[user_tag(delivery.route.user_id) for delivery in deliveries],
        item_indexes=item_indexes,
        items=[hint.item for hint in hints],
        keys=[hint.key for hint in hints],
        flags=[hint.flags for hint in hints],
        trace_links=[
            sampled.link(index, hint.message_id) for index, hint in enumerate(hints) for sampled in hint.drawn
        ],
    )


@functools.lru_cache(maxsize=65_536)
def user_tag(user_id: bytes) -> int:
    """Returns the 32 bits by which an edge makes sure that a session belongs to the user who is meant."""
    return int.from_bytes(hashlib.sha256(b"chappe-user" + user_id).digest()[:4], "big")
