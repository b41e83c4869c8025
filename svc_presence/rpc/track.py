"""One edge's stream: its batches are written in order and answered one by one, and news go back as it takes them."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING

from chappe.api.presence.v1 import track_pb2
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.contract import validate
from chappe.runtime.errors import InvalidFieldError, UnavailableError
from chappe.runtime.metrics import Counters
from chappe.runtime.streams import ServeHandler, StreamServer
from svc_presence.model import Edge, UserId
from svc_presence.protocol.news import News
from svc_presence.rpc.wire import conversation_of, to_changes, to_news, to_result, to_typing

if TYPE_CHECKING:
    from chappe.runtime.clock import Clock
    from chappe.runtime.streams import Identity
    from chappe.runtime.tasks import Tasks
    from svc_presence.service.desk import Desk

TRACK_CREDITS = 4096
NEWS_AT_ONCE = 2048
"""So many watches are told something in one message."""

_log = logging.getLogger(__name__)

TrackRequest = track_pb2.TrackRequest
TrackResponse = track_pb2.TrackResponse
TrackResults = track_pb2.TrackResults


class TrackCounters(Counters):
    """What the edges said."""

    connects: int
    """Sessions that began."""
    refreshes: int
    """Signs of life of sessions."""
    byes: int
    """Sessions that ended."""
    typings: int
    """Times that somebody said to be writing, or no longer."""
    watches: int
    """Watches of people or of typing that began."""
    failed_batches: int
    """Batches that could not be written."""
    located_users: int
    """Users who were asked for."""


class TrackHandler(ServeHandler[None, TrackRequest, TrackResponse]):
    """Serves one edge.

    Every batch that speaks of sessions, or of nothing, has an answer of its own, and news go out in messages of their
    own: what is to be said waits here, and the stream is handed one mark at a time.
    """

    stream: StreamServer[None, TrackRequest, TrackResponse]

    def __init__(self, desk: Desk, identity: Identity, tasks: Tasks, counters: TrackCounters, clock: Clock) -> None:
        self._desk = desk
        self._counters = counters
        self._identity = identity
        self._tasks = tasks
        self._clock = clock
        self._edge = Edge("", 0)
        self._waiting: deque[tuple[track_pb2.TrackBatch, int]] = deque()
        """What is to be written, and when it came: a connect that waits for long must not end a newer session."""
        self._arrived = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._answers: deque[TrackResults] = deque()
        self._is_marked = False
        self._news = News(self._mark)
        self._writer: asyncio.Task[None] | None = None

    def opened(self, request: TrackRequest) -> None:
        """Learns which edge speaks; raises `InvalidFieldError` when nobody could dial it."""
        self._edge = Edge(request.edge_id, request.hello.boot_id)
        host, _, port = request.edge_id.rpartition(":")
        # The bar would break the values of the store; a host name or an address has none.
        if not host or not port.isdecimal() or "|" in request.edge_id:
            message = f"must be the address at which fanout reaches the edge, host:port, not {request.edge_id!r}"
            raise InvalidFieldError("edge_id", message)
        validate(request)
        self._news.credit = request.hello.credits
        self._writer = self._tasks.spawn(self._write_batches(), name=f"track {request.edge_id}")

    def hello(self) -> TrackResponse:
        """Returns the answer to the hello."""
        return TrackResponse(hello=self._identity.hello(TRACK_CREDITS))

    def count(self, request: TrackRequest) -> int:
        """Returns how many items a batch holds."""
        return _sessions(request.batch) + _others(request.batch)

    def received(self, kind: str, request: TrackRequest) -> None:
        """Takes a batch; raises `InvalidFieldError` when something in it has no proper name."""
        batch = request.batch
        validate(batch)
        self._counters.connects += len(batch.connects)
        self._counters.refreshes += len(batch.refreshes)
        self._counters.byes += len(batch.byes)
        self._counters.typings += len(batch.typing)
        self._counters.watches += len(batch.watches) + len(batch.openings)
        self._take_others(batch)
        self._waiting.append((batch, self._clock.wall_ms()))
        self._idle.clear()
        self._arrived.set()

    def encode(self, items: list[None]) -> TrackResponse:
        """Returns one answer, or news when there is none."""
        self._is_marked = False
        if self._answers:
            response = TrackResponse(results=self._answers.popleft())
        else:
            response = TrackResponse(news=to_news(self._news.take(NEWS_AT_ONCE)))
        if self._answers or self._news.is_ready:
            self._mark()
        return response

    def credit(self, items: int) -> TrackResponse:
        """Returns a grant."""
        return TrackResponse(credit=stream_pb2.StreamCredit(items=items))

    def drain(self, reason: str) -> TrackResponse:
        """Returns the drain marker."""
        return TrackResponse(drain=stream_pb2.StreamDrain(reason=reason))

    async def settled(self) -> None:
        """Returns once every batch is answered."""
        await self._idle.wait()

    def closed(self, *, is_clean: bool) -> None:
        """Stops writing: the edge sends the state of its sessions and its watches again on its next stream."""
        self._desk.end(self._news)
        if self._writer is not None:
            self._writer.cancel()

    def _mark(self) -> None:
        if not self._is_marked and (self._answers or self._news.is_ready):
            self._is_marked = True
            self.stream.add(None)

    def _take_others(self, batch: track_pb2.TrackBatch) -> None:
        """Takes what needs no answer, before what takes a while."""
        desk, news = self._desk, self._news
        for watch in batch.watches:
            desk.watching.watch(news, watch.number, UserId(watch.viewer_user_id), UserId(watch.target_user_id))
        for opening in batch.openings:
            viewer_id = UserId(opening.viewer_user_id)
            desk.rooms.open(news, opening.number, viewer_id, conversation_of(viewer_id, opening.conversation))
        if batch.typing:
            desk.rooms.type([to_typing(signal) for signal in batch.typing])
        for number in batch.unwatches:
            desk.unwatch(news, number)
            news.forget(number)
        if batch.news_credit:
            news.grant(batch.news_credit)
        self.stream.grant(_others(batch))

    async def _write_batches(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            while self._waiting:
                batch, sent_ms = self._waiting.popleft()
                results = await self._write(batch, sent_ms) if _sessions(batch) else TrackResults(number=batch.number)
                self._answers.append(results)
                self._mark()
                self.stream.grant(_sessions(batch))
            self._idle.set()

    async def _write(self, batch: track_pb2.TrackBatch, sent_ms: int) -> TrackResults:
        waited_ms = max(self._clock.wall_ms() - sent_ms, 0)
        try:
            answer = await self._desk.track(self._edge, to_changes(batch, waited_ms), sent_ms)
        except UnavailableError as error:
            _log.warning("batch %d of %s was not written: %s", batch.number, self._edge.edge_id, error)
            return self._failed(batch)
        except Exception:  # noqa: BLE001 - a supervisor: one bad batch must not silence an edge
            _log.exception("batch %d of %s was not written", batch.number, self._edge.edge_id)
            return self._failed(batch)
        connects = [
            to_result(connect.item_id, answered)
            for connect, answered in zip(batch.connects, answer.connects, strict=True)
        ]
        return TrackResults(number=batch.number, connects=connects, replaced_session_ids=answer.replaced_session_ids)

    def _failed(self, batch: track_pb2.TrackBatch) -> TrackResults:
        self._counters.failed_batches += 1
        return TrackResults(number=batch.number, is_failed=True)


def _sessions(batch: track_pb2.TrackBatch) -> int:
    return len(batch.connects) + len(batch.refreshes) + len(batch.byes)


def _others(batch: track_pb2.TrackBatch) -> int:
    grants = 1 if batch.news_credit else 0
    return len(batch.typing) + len(batch.watches) + len(batch.openings) + len(batch.unwatches) + grants
