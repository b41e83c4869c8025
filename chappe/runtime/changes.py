"""The reading half of DirectoryService.WatchChanges, which keeps the leased copies of the other services true.

After an end the stream goes on from its cursor, so that nothing is missed. Only when the directory no longer reaches
back so far, or a first stream ended before it had a cursor, does it begin anew; then everything may have changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import grpc.aio

from chappe.api.identity.v1 import directory_service_pb2
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.errors import from_rpc_error
from chappe.runtime.streams import DialHandler, Identity, StreamClient

if TYPE_CHECKING:
    from collections.abc import Callable

    from chappe.runtime.clock import Seams
    from chappe.runtime.tasks import Tasks

WINDOW = 4096
"""How many changes the directory may send before it hears that they were taken."""

_CURSOR_REFUSED = frozenset({"CURSOR_EXPIRED", "INVALID_FIELD"})
"""Too old, of another epoch, or not to be read: the next attempt begins anew."""

_Request = directory_service_pb2.WatchChangesRequest
_Response = directory_service_pb2.WatchChangesResponse


class ChangeListener(Protocol):
    """What a service does with changes. Nothing here waits."""

    def began(self) -> None:
        """Learns that the stream begins now: changes before this moment may have gone unseen."""
        ...

    def changed(self, change: directory_service_pb2.DirectoryChange) -> None:
        """Takes one change."""
        ...

    def complete(self, until_ms: int) -> None:
        """Learns that everything up to a time has been told, Unix milliseconds by the directory's clock."""
        ...


class ChangeStream(StreamClient[int, _Request, _Response]):
    """The stream of changes from svc_identity; dials for ever, until it is closed."""

    def __init__(self, stub: Any, listener: ChangeListener, *, identity: Identity, tasks: Tasks, seams: Seams) -> None:
        """Starts to dial.

        Args:
            stub: Of the DirectoryService.
            listener: Takes the changes.
            identity: Of this process.
            tasks: Owns the stream's tasks.
            seams: For jitter and waiting.
        """
        handler = _Follower(identity, listener, self.add)
        super().__init__("watch changes", stub.WatchChanges, handler, tasks=tasks, seams=seams)


class _Follower(DialHandler[int, _Request, _Response]):
    """Hands changes on, and keeps the cursor. What it sends are grants, as numbers of changes."""

    def __init__(self, identity: Identity, listener: ChangeListener, grant: Callable[[int], None]) -> None:
        self._identity = identity
        self._listener = listener
        self._grant = grant
        self._cursor = b""
        self._ungranted = 0

    def hello(self) -> _Request:
        return _Request(hello=self._identity.hello(WINDOW), cursor=self._cursor)

    def encode(self, number: int, items: list[int]) -> _Request:  # noqa: ARG002 - grants are not counted
        return _Request(credit=stream_pb2.StreamCredit(items=sum(items)))

    def drain(self, reason: str) -> _Request:
        return _Request(drain=stream_pb2.StreamDrain(reason=reason))

    def opened(self, hello: stream_pb2.StreamHello) -> None:  # noqa: ARG002 - whoever answers is the directory
        self._ungranted = 0
        if not self._cursor:
            self._listener.began()

    def received(self, kind: str, response: _Response) -> None:
        if kind == "heartbeat":
            self._cursor = response.heartbeat.cursor
            self._listener.complete(response.heartbeat.complete_until_ms)
        elif kind == "batch":
            self._take(response.batch)

    def closed(self, unsent: list[int], *, is_clean: bool) -> None:
        """Leaves everything as it is: the lease runs out unless another stream stands soon."""

    def failed(self, error: Exception) -> None:
        if isinstance(error, grpc.aio.AioRpcError) and from_rpc_error(error).reason in _CURSOR_REFUSED:
            self._cursor = b""

    def _take(self, batch: directory_service_pb2.ChangeBatch) -> None:
        for change in batch.changes:
            self._listener.changed(change)
        self._cursor = batch.cursor
        self._ungranted += len(batch.changes)
        if self._ungranted * 4 >= WINDOW:
            self._grant(self._ungranted)
            self._ungranted = 0
