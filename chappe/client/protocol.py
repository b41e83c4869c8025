"""The protocol core of a client: no I/O, no clock, no tasks.

It is fed frames and the time, and gives frames to send, batches to store and changes to show. One rule holds it
together: what must not be forgotten goes through `take_batch` and `committed` before its consequence leaves the device.

    connected() -> received()* -> take_batch() -> (the store commits) -> committed() -> frames and changes
"""

import math
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from google.protobuf.message import DecodeError

from chappe.api.edge.v1 import server_frame_pb2
from chappe.client.acks import Acks
from chappe.client.budget import UNLIMITED, FrameBudget, FrameRate
from chappe.client.calls import Calls
from chappe.client.changes import (
    CaughtUp,
    Change,
    Disconnected,
    GoingAway,
    LogChange,
    Resynced,
    Welcomed,
)
from chappe.client.errors import ProtocolError
from chappe.client.frames import ack_ids_frame, ping_frame
from chappe.client.mint import IdMint, ServerClock, mint_tag_of
from chappe.client.outbox import Outbox, reason_name
from chappe.client.recorder import Recorder
from chappe.client.recording import record
from chappe.client.seams import Seams
from chappe.client.store import Batch, Restored
from chappe.client.turns import Turns
from chappe.client.watches import Watches

BATCH_ITEMS = 32
"""So many events are worth a commit of their own before the end of a turn of the loop."""


class Session(NamedTuple):
    """What a Welcome said."""

    session_id: int
    edge: str
    heartbeat_ms: int


_NO_SESSION = Session(0, "", 0)


class ClientProtocol:
    """The state of one device between its application, its store and an edge."""

    def __init__(
        self,
        user_id: bytes,
        device_id: int,
        restored: Restored,
        seams: Seams,
        recorder: Recorder | None = None,
        rate: FrameRate = UNLIMITED,
    ) -> None:
        """Takes up where the store left off.

        Args:
            user_id: The device's user.
            device_id: The device.
            restored: What the store still knew.
            seams: For the first estimate of the time, and for ids.
            recorder: Where to write the history, if anywhere.
            rate: How many frames it sends.
        """
        self.clock = ServerClock(seams.clock.wall_ms(), seams.clock.monotonic_s())
        if restored.accepted_ms:
            self.clock.accepted(restored.accepted_ms, seams.clock.monotonic_s())
        mint = IdMint(mint_tag_of(user_id, device_id), seams.randomness, restored.last_minted)
        self.budget = FrameBudget(rate)
        self.outbox = Outbox(self.clock, mint, self.budget, recorder, restored)
        self.calls = Calls()
        self.turns = Turns(self.budget, self.calls, self.outbox)
        self.watches = Watches(user_id, recorder)
        self.cursor = restored.cursor
        """Where the next Hello resumes: the last cursor that was committed."""
        self.frames: list[bytes] = []
        """To be sent, in order; the caller empties it."""
        self.changes: list[Change] = []
        """To be shown, in order; the caller empties it."""
        self.session = _NO_SESSION
        self._recorder = recorder
        self._edge = ""
        self._generation = 0
        self.acks = Acks()
        self._is_sync = True
        self._hello_s = 0.0
        self._pings: deque[tuple[int, float]] = deque(maxlen=8)
        self._handlers: dict[str | None, Callable[[Any, float], None]] = {
            "welcome": self._on_welcome,
            "send_ack": lambda ack, _now_s: self.outbox.stored(ack),
            "send_nack": self.outbox.refused,
            "events": self._on_events,
            "caught_up": self._on_caught_up,
            "call_result": lambda result, _now_s: self.calls.resolve(result),
            "resync": self._on_resync,
            "go_away": lambda away, _now_s: self.changes.append(
                GoingAway(away.close_code, away.detail, away.reconnect_after_ms)
            ),
            "pong": self._on_pong,
            "presence_delta": lambda delta, _now_s: self.changes.extend(self.watches.presences(delta)),
            "typing_delta": lambda delta, _now_s: self.changes.extend(self.watches.typing(delta)),
            "watch_refused": lambda refused, _now_s: self.changes.extend(self.watches.refused(refused)),
        }

    def connected(self, hello: bytes, edge: str, now_s: float) -> None:
        """Opens a connection with this Hello."""
        self.frames = [hello]
        self.budget.begin(now_s)
        self.budget.spend()
        self._edge = edge
        self._hello_s = now_s
        self._generation += 1
        self.acks.begin()
        self.turns.begin()
        self._is_sync = True
        self._pings.clear()

    def received(self, data: bytes, now_s: float) -> bool:
        """Takes one frame of the edge; returns whether so much has gathered that it should be committed now.

        Raises:
            ProtocolError: The bytes are not a frame.
        """
        try:
            frame = server_frame_pb2.ServerFrame.FromString(data)
        except DecodeError as error:
            raise ProtocolError(f"{self._edge} sent a frame of {len(data)} bytes that is none: {error}") from error
        kind = frame.WhichOneof("frame")
        handler = self._handlers.get(kind)
        if handler is not None:
            handler(getattr(frame, str(kind)), now_s)
        return len(self.outbox.batch.items) >= BATCH_ITEMS

    def disconnected(self) -> None:
        """Ends the connection: sends wait for the next one, calls fail."""
        session, self.session = self.session, _NO_SESSION
        self.frames = []
        self._generation += 1
        self.acks.begin()
        self.turns.begin()
        self.outbox.offline()
        self.outbox.batch.is_caught_up = False
        self.calls.fail(f"the connection to {self._edge} ended before the answer came")
        if session.session_id:
            if self._recorder is not None:
                self._recorder.note("disconnect", session=f"{session.session_id:016x}", edge=session.edge)
            self.changes.append(Disconnected(session.session_id, session.edge))
            self.changes += self.watches.offline()

    def tick(self, now_s: float) -> None:
        """Sends again what an edge has not answered in time, and the acknowledgement that had time.

        An edge that answers no change is asked for its time as well, which it tells without the help of any other.
        """
        if self.outbox.tick(self.frames, now_s):
            self.ping(now_s)
        if self.session.session_id and (count := self.acks.overdue()):
            self.turns.acknowledge(count, self.frames, now_s)

    @property
    def asked_s(self) -> float:
        """Since when the edge has been asked for its time and has not told it; infinite when it has."""
        return self._pings[0][1] if self._pings else math.inf

    def ping(self, now_s: float) -> None:
        """Asks the edge for its time; does nothing without a session."""
        if self.session.session_id:
            client_ms = int(now_s * 1000)
            self._pings.append((client_ms, now_s))
            self.frames.append(ping_frame(client_ms))
            self.budget.spend()

    def take_batch(self, now_s: float) -> Batch | None:
        """Returns what has to be stored before anything follows from it, if there is anything.

        Batches are committed in the order in which they were taken.
        """
        self.turns.let_out(self.frames, now_s)
        watching = self.watches.take_frames()
        self.budget.spend(len(watching))
        self.frames += watching
        batch = self.outbox.batch
        if batch.is_empty():
            return None
        self.outbox.batch = Batch()
        batch.rows = [entry.row() for entry in batch.puts.values()]
        batch.count = self.acks.received if batch.items else 0
        batch.generation = self._generation
        batch.is_sync = self._is_sync
        batch.now_ms = self.clock.estimate_ms(now_s)
        self._is_sync = self._is_sync and not batch.is_caught_up
        return batch

    def committed(self, batch: Batch, changes: list[LogChange], now_s: float) -> None:
        """Draws the consequences of a batch that is stored: sends, acknowledges, shows.

        Args:
            batch: What was stored.
            changes: What of its events the store did not have before.
            now_s: The time.
        """
        if batch.cursor is not None:
            self.cursor = batch.cursor
        if batch.rows:
            self.outbox.committed(batch.rows, batch.puts, self.frames, now_s)
        if batch.resynced is not None:
            self.changes.append(batch.resynced)
        self.changes += batch.settled
        self.changes += changes
        if batch.items and self._recorder is not None:
            record(self._recorder, batch, changes)
        self.acks.owe(batch.history_ids)
        # An Ack counts from Welcome, so that one of an earlier connection would be a lie on this one.
        if batch.generation == self._generation and self.session.session_id:
            self._acknowledge(batch, now_s)

    def _acknowledge(self, batch: Batch, now_s: float) -> None:
        if batch.is_caught_up:
            self.changes.append(CaughtUp())
        if batch.count and (count := self.acks.stored(batch.items, batch.count, is_sync=batch.is_sync)):
            self.turns.acknowledge(count, self.frames, now_s)
        # An id means nothing to an edge before it has sent what the log has of it.
        if not self._is_sync:
            named = [ack_ids_frame(ids) for ids in self.acks.take_ids()]
            self.budget.spend(len(named))
            self.frames += named

    def _on_welcome(self, welcome: server_frame_pb2.Welcome, now_s: float) -> None:
        self.session = Session(welcome.session_id, self._edge, welcome.heartbeat_ms)
        self.clock.sample(self._hello_s, now_s, welcome.server_ms)
        if self._recorder is not None:
            self._recorder.note("connect", session=f"{welcome.session_id:016x}", edge=self._edge)
        self.outbox.online(welcome.send_window)
        self.watches.online()
        self.changes.append(Welcomed(welcome.session_id, self._edge))

    def _on_events(self, events: server_frame_pb2.Events, now_s: float) -> None:
        batch = self.outbox.batch
        items = events.items
        self.acks.received += len(items)
        batch.items.extend(items)
        if events.cursor:
            batch.cursor = events.cursor
        for item in items:
            message = item.message
            if message.message_id:
                self.outbox.saw(message.conversation_id, message.message_id)
                self.clock.accepted(message.accepted_ms, now_s)

    def _on_caught_up(self, caught_up: server_frame_pb2.CaughtUp, _now_s: float) -> None:
        if caught_up.cursor:
            self.outbox.batch.cursor = caught_up.cursor
        self.outbox.batch.is_caught_up = True

    def _on_resync(self, resync: server_frame_pb2.Resync, _now_s: float) -> None:
        batch = self.outbox.batch
        batch.cursor, batch.resynced = b"", Resynced(reason_name(resync.reason), resync.detail)

    def _on_pong(self, pong: server_frame_pb2.Pong, now_s: float) -> None:
        while self._pings:
            client_ms, sent_s = self._pings.popleft()
            if client_ms == pong.client_ms:
                self.clock.sample(sent_s, now_s, pong.server_ms)
                return
