"""The stream of changes, against a directory that says what a test wants."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import grpc
import grpc.aio
import pytest

from chappe.api.identity.v1 import directory_service_pb2 as wire
from chappe.api.identity.v1 import directory_service_pb2_grpc
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.changes import WINDOW, ChangeStream
from chappe.runtime.clock import Seams, SystemClock, SystemRandomness
from chappe.runtime.errors import ChappeError
from chappe.runtime.interceptors import abort
from chappe.runtime.streams import Identity
from chappe.runtime.tasks import Tasks
from tests.runtime.probe import ALONE


class ExpiredError(ChappeError):
    code = "FAILED_PRECONDITION"
    reason = "CURSOR_EXPIRED"


class Directory(directory_service_pb2_grpc.DirectoryServiceServicer):
    """Notes with which cursor each stream begins, and can no longer read some cursors."""

    def __init__(self) -> None:
        self.cursors: list[bytes] = []
        self.expired: set[bytes] = set()
        self.granted = 0
        self._contexts: list[Any] = []

    async def WatchChanges(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # read, write
        first = await context.read()
        await context.write(
            wire.WatchChangesResponse(hello=stream_pb2.StreamHello(protocol=1, peer_id="i", boot_id=1, credits=9))
        )
        self.cursors.append(first.cursor)
        if first.cursor in self.expired:
            await abort(context, ExpiredError("the log does not reach back so far"))
        self._contexts.append(context)
        while (request := await context.read()) is not grpc.aio.EOF:
            self.granted += request.credit.items

    async def tell(self, *user_ids: bytes, cursor: bytes) -> None:
        changes = [wire.DirectoryChange(kind=wire.DIRECTORY_CHANGE_KIND_USER, user_id=one) for one in user_ids]
        await self._contexts[-1].write(
            wire.WatchChangesResponse(batch=wire.ChangeBatch(changes=changes, cursor=cursor))
        )

    async def beat(self, until_ms: int, cursor: bytes) -> None:
        heartbeat = wire.ChangeHeartbeat(complete_until_ms=until_ms, cursor=cursor)
        await self._contexts[-1].write(wire.WatchChangesResponse(heartbeat=heartbeat))

    async def break_off(self) -> None:
        with contextlib.suppress(grpc.aio.AbortError):
            await self._contexts[-1].abort(grpc.StatusCode.UNAVAILABLE, "gone")


class Listener:
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.heard: list[object] = []

    def began(self) -> None:
        self.heard.append("began")

    def changed(self, change: wire.DirectoryChange) -> None:
        self.heard.append(change.user_id)

    def complete(self, until_ms: int) -> None:
        self.heard.append(until_ms)


async def until(condition: Callable[[], bool]) -> None:
    deadline = asyncio.get_running_loop().time() + 30
    while not condition():
        assert asyncio.get_running_loop().time() < deadline
        await asyncio.sleep(0.01)


@pytest.fixture
def directory() -> Directory:
    return Directory()  # type: ignore[abstract]  # the other calls are not made


@pytest.fixture
async def listener(directory: Directory) -> AsyncIterator[Listener]:
    server = grpc.aio.server(options=ALONE)
    directory_service_pb2_grpc.add_DirectoryServiceServicer_to_server(directory, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    heard = Listener()
    async with Tasks() as tasks, grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = directory_service_pb2_grpc.DirectoryServiceStub(channel)
        seams = Seams(SystemClock(), SystemRandomness())
        stream = ChangeStream(stub, heard, identity=Identity("reader", 1), tasks=tasks, seams=seams)
        await until(lambda: heard.heard == ["began"])
        yield heard
        await stream.aclose()
    await server.stop(None)


async def test_changes_and_heartbeats_are_handed_on_in_order(directory: Directory, listener: Listener) -> None:
    await directory.tell(b"a", b"b", cursor=b"1")
    await directory.beat(77, b"2")

    await until(lambda: listener.heard == ["began", b"a", b"b", 77])


async def test_a_stream_that_broke_goes_on_from_its_cursor_and_nothing_begins_anew(
    directory: Directory, listener: Listener
) -> None:
    await directory.tell(b"a", cursor=b"1")
    await until(lambda: b"a" in listener.heard)

    await directory.break_off()
    await until(lambda: len(directory.cursors) == 2)
    await directory.tell(b"b", cursor=b"2")

    await until(lambda: listener.heard == ["began", b"a", b"b"])
    assert directory.cursors == [b"", b"1"]


async def test_a_cursor_that_has_expired_is_given_up_and_everything_begins_anew(
    directory: Directory, listener: Listener
) -> None:
    await directory.tell(b"a", cursor=b"1")
    await until(lambda: b"a" in listener.heard)
    directory.expired.add(b"1")

    await directory.break_off()

    await until(lambda: listener.heard == ["began", b"a", "began"])
    assert directory.cursors == [b"", b"1", b""]


async def test_a_first_stream_that_broke_before_it_had_a_cursor_begins_anew(
    directory: Directory, listener: Listener
) -> None:
    await directory.break_off()

    await until(lambda: listener.heard == ["began", "began"])


async def test_what_was_taken_is_granted_again_a_quarter_of_the_window_at_a_time(
    directory: Directory, listener: Listener
) -> None:
    await directory.tell(*[b"a"] * (WINDOW // 4 - 1), cursor=b"1")
    await directory.tell(b"b", cursor=b"2")

    await until(lambda: directory.granted == WINDOW // 4)
    assert listener.heard[-1] == b"b"
