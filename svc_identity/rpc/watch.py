"""One stream of WatchChanges: hello, batches within the reader's credit, heartbeats when everything was sent."""

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass

from chappe.api.identity.v1 import directory_service_pb2 as wire
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.clock import Clock
from chappe.runtime.contract import validate
from chappe.runtime.errors import ChappeError, InvalidFieldError
from chappe.runtime.streams import PROTOCOL, check_hello
from chappe.runtime.tasks import Tasks
from svc_identity.model import Change, ChangeKind, ChangePage, Cursor
from svc_identity.protocol.cursor import decode_cursor, encode_cursor
from svc_identity.service.feed import ChangeFeed, Follower

HELLO_TIMEOUT_S = 5.0
MOST_GRANTS = 1_048_576
"""How many grants a reader may send on one stream; more than it can need."""
MOST_CHANGES = 512
"""In one batch."""

_KINDS = {
    ChangeKind.PROFILE: wire.DIRECTORY_CHANGE_KIND_USER,
    # Who is a contact decides what is shown to it.
    ChangeKind.CONTACTS: wire.DIRECTORY_CHANGE_KIND_USER,
    ChangeKind.SETTINGS: wire.DIRECTORY_CHANGE_KIND_USER,
    ChangeKind.BLOCKS: wire.DIRECTORY_CHANGE_KIND_USER,
    ChangeKind.DEVICES: wire.DIRECTORY_CHANGE_KIND_DEVICES,
    ChangeKind.SESSION_REVOKED: wire.DIRECTORY_CHANGE_KIND_SESSION_REVOKED,
    ChangeKind.SIGNING_KEYS: wire.DIRECTORY_CHANGE_KIND_SIGNING_KEYS,
    ChangeKind.GROUP: wire.DIRECTORY_CHANGE_KIND_GROUP,
}

Requests = AsyncIterator[wire.WatchChangesRequest]
Responses = AsyncIterator[wire.WatchChangesResponse]


@dataclass(frozen=True, kw_only=True, slots=True)
class WatchSettings:
    """What all streams of a process have in common."""

    peer_id: str
    boot_id: int
    heartbeat_s: float
    tasks: Tasks
    clock: Clock


class Watch:
    """One reader of changes, for as long as its stream lives."""

    def __init__(self, feed: ChangeFeed, settings: WatchSettings) -> None:
        self._feed = feed
        self._settings = settings
        self._follower: Follower | None = None
        self._credits = 0
        self._number = 0
        self._kept = b""
        self._heartbeat_at_s = 0.0
        self._is_draining = False
        self._mistake: ChappeError | None = None
        self._has_ended = asyncio.Event()
        self._has_news = asyncio.Event()
        self.closed = asyncio.Event()
        """Set by the door when the stream is over."""

    def drain(self) -> None:
        """Stops sending changes; the marker follows what is on its way."""
        self._is_draining = True
        self._stop()

    async def serve(self, requests: Requests) -> Responses:
        """Yields everything that goes to the reader.

        Raises:
            InvalidFieldError: The reader broke the contract.
            CursorExpiredError: The log does not reach back to its cursor.
        """
        follower = self._follower = self._feed.follow(await self._open(requests))
        yield wire.WatchChangesResponse(hello=self._hello())
        reader = self._settings.tasks.spawn(self._read(requests), name="watch-reader")
        if self._is_draining:
            follower.stop()
        try:
            async for page in follower.pages():
                async for response in self._page(page):
                    yield response
            if self._is_draining and not self._has_ended.is_set():
                yield wire.WatchChangesResponse(drain=stream_pb2.StreamDrain(reason="the directory stops"))
                await self._has_ended.wait()
            if self._mistake is not None:
                raise self._mistake
        finally:
            reader.cancel()

    async def _open(self, requests: Requests) -> Cursor | None:
        try:
            async with asyncio.timeout(HELLO_TIMEOUT_S):
                first = await anext(requests)
        except (StopAsyncIteration, TimeoutError):
            raise InvalidFieldError("hello", "a stream begins with a hello, within 5 seconds") from None
        if first.WhichOneof("frame") != "hello":
            raise InvalidFieldError("hello", "the first message of a stream must be its hello")
        validate(first)
        check_hello(first.hello)
        self._credits = first.hello.credits
        self._kept = first.cursor
        return decode_cursor(first.cursor) if first.cursor else None

    def _hello(self) -> stream_pb2.StreamHello:
        settings = self._settings
        # What a reader sends are its own grants, each of them one item of the stream.
        return stream_pb2.StreamHello(
            protocol=PROTOCOL, peer_id=settings.peer_id, boot_id=settings.boot_id, credits=MOST_GRANTS
        )

    async def _read(self, requests: Requests) -> None:
        try:
            async for request in requests:
                self._take(request)
        except ChappeError as error:
            self._mistake = error
        finally:
            self._has_ended.set()
            self._stop()

    def _take(self, request: wire.WatchChangesRequest) -> None:
        validate(request)
        kind = request.WhichOneof("frame")
        if kind == "credit":
            self._credits += request.credit.items
            self._has_news.set()
        elif kind == "drain":
            self._stop()
        else:
            raise InvalidFieldError("frame", "after the hello a reader sends credit or a drain marker")

    def _stop(self) -> None:
        if self._follower is not None:
            self._follower.stop()
        self._has_news.set()

    async def _page(self, page: ChangePage) -> Responses:
        cursor = encode_cursor(page.cursor)
        wanted = [_to_wire(change) for change in page.changes if change.kind in _KINDS]
        while wanted:
            size = await self._allowed()
            if not size:
                return
            batch, wanted = wanted[:size], wanted[size:]
            self._credits -= len(batch)
            if page.is_last and not wanted:
                self._kept = cursor
            self._number += 1
            yield wire.WatchChangesResponse(
                batch=wire.ChangeBatch(number=self._number, changes=batch, cursor=self._kept)
            )
        for heartbeat in self._heartbeats(page, cursor):
            yield heartbeat

    def _heartbeats(self, page: ChangePage, cursor: bytes) -> Iterator[wire.WatchChangesResponse]:
        now_s = self._settings.clock.monotonic_s()
        if page.is_last:
            self._kept = cursor
        if page.is_last and (page.changes or now_s >= self._heartbeat_at_s):
            self._heartbeat_at_s = now_s + self._settings.heartbeat_s
            yield wire.WatchChangesResponse(
                heartbeat=wire.ChangeHeartbeat(complete_until_ms=page.complete_until_ms, cursor=cursor)
            )

    async def _allowed(self) -> int:
        """Waits for credit; returns how many changes may be sent at once, 0 when the stream ends."""
        while not self._credits:
            if self._has_ended.is_set() or self._is_draining:
                return 0
            self._has_news.clear()
            await self._has_news.wait()
        return min(self._credits, MOST_CHANGES)


def _to_wire(change: Change) -> wire.DirectoryChange:
    if change.kind is ChangeKind.GROUP:
        return wire.DirectoryChange(kind=_KINDS[change.kind], group_id=change.user_id, version=change.version)
    return wire.DirectoryChange(
        kind=_KINDS[change.kind],
        user_id=change.user_id,
        version=change.version,
        device_id=change.device_id,
        session_id=change.session_id,
    )
