"""A registry, edges and a clock that do what a test says."""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any, Generic, TypeVar

import grpc
import grpc.aio

from chappe.api.edge.v1 import edge_service_pb2, edge_service_pb2_grpc
from chappe.api.presence.v1 import presence_service_pb2, presence_service_pb2_grpc
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.clock import Seams, SystemClock
from chappe.runtime.errors import UnavailableError
from svc_fanout.model import Delivery, Hint, Located, Route, UserId
from tests.runtime.probe import ALONE

T = TypeVar("T")


def user(number: int) -> UserId:
    return UserId(number.to_bytes(16, "big"))


def route(number: int, edge_id: str = "a:1", boot_id: int = 7, device_id: int = 1, session_id: int = 0) -> Route:
    """Makes the route of a user's device; the session has the user's number unless said otherwise."""
    return Route(user(number), device_id, session_id or number, boot_id, edge_id)


def key(sender: int) -> bytes:
    return bytes(48) + user(sender)


class Grants:
    """Counts the credit that was given back."""

    def __init__(self) -> None:
        self.total = 0

    def __call__(self, hints: int) -> None:
        self.total += hints


def hint(item: bytes, *users: int, sender: int = 99, origin: int = 0, grant: Callable[[int], None] = print) -> Hint:
    return Hint(item, key(sender), 1, [user(number) for number in users], origin, grant)


class Log(Generic[T]):
    """Things that happened, and a way to wait for more of them."""

    def __init__(self) -> None:
        self.entries: list[T] = []
        self._added = asyncio.Event()

    def add(self, entry: T) -> None:
        self.entries.append(entry)
        self._added.set()

    async def reach(self, count: int) -> list[T]:
        async with asyncio.timeout(30):
            while len(self.entries) < count:
                self._added.clear()
                await self._added.wait()
        return self.entries


async def until(holds: Callable[[], bool]) -> None:
    """Waits for something that nobody tells."""
    async with asyncio.timeout(30):
        while True:
            if holds():
                return
            await asyncio.sleep(0.01)


class FakeRegistry:
    """The `Registry` port: routes that a test sets."""

    def __init__(self, *routes: Route) -> None:
        self.routes = list(routes)
        self.later: list[Route] = []
        self.questions: Log[tuple[list[UserId], list[Route]]] = Log()
        self.is_down = False
        self.gate = asyncio.Event()
        self.gate.set()

    async def locate(self, user_ids: Sequence[UserId], gone: Sequence[Route]) -> Located:
        self.questions.add((list(user_ids), list(gone)))
        self.routes = [one for one in self.routes if one not in gone] + (self.later if gone else [])
        found = {
            user_id: [one for one in self.routes if one.user_id == user_id]
            for user_id in user_ids
            if any(one.user_id == user_id for one in self.routes)
        }
        await self.gate.wait()
        if self.is_down:
            raise UnavailableError("svc_presence", "down")
        return Located(found, sorted({one.edge_id for ones in found.values() for one in ones}))


class FakeEdges:
    """The `Edges` port: writes down what it is told."""

    def __init__(self) -> None:
        self.pushed: Log[tuple[str, list[Delivery]]] = Log()
        self.verified: Log[tuple[str, int]] = Log()
        self.known: set[str] = set()
        self.sweeps = 0
        self.backlog = 0
        self.is_in_touch = True

    def push(self, edge_id: str, deliveries: list[Delivery]) -> None:
        self.pushed.add((edge_id, deliveries))

    def seen(self, edge_ids: Any) -> None:
        self.known.update(edge_ids)

    def verify_all(self, reason: str, spread_ms: int) -> None:
        self.verified.add((reason, spread_ms))

    def sweep(self) -> None:
        self.sweeps += 1

    def items(self) -> list[tuple[bytes, int]]:
        """Returns (item, session) of everything that was pushed."""
        return [(one.hint.item, one.route.session_id) for _, batch in self.pushed.entries for one in batch]


class HandClock:
    """A clock that stands still until a test moves it."""

    def __init__(self) -> None:
        self._now_s = 1000.0
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def wall_ms(self) -> int:
        return int(self._now_s * 1000)

    def monotonic_s(self) -> float:
        return self._now_s

    async def sleep(self, delay_s: float) -> None:
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._sleepers.append((self._now_s + delay_s, future))
        await future

    async def advance(self, delay_s: float) -> None:
        """Wakes who is due, and lets everything that follows from it happen."""
        await settle()
        self._now_s += delay_s
        due = [future for until_s, future in self._sleepers if until_s <= self._now_s]
        self._sleepers = [one for one in self._sleepers if one[0] > self._now_s]
        for future in due:
            if not future.done():
                future.set_result(None)
        await settle()


async def settle() -> None:
    """Lets everything happen that needs no time and no other process."""
    for _ in range(20):
        await asyncio.sleep(0)


class SeededRandomness:
    """Randomness that is the same every time."""

    def __init__(self) -> None:
        self._random = random.Random(7)

    def token(self, length: int) -> bytes:
        return self._random.randbytes(length)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)

    def nonzero_u64(self) -> int:
        return self._random.getrandbits(64) or 1


def seams() -> Seams:
    return Seams(SystemClock(), SeededRandomness())


class ServedEdge(edge_service_pb2_grpc.EdgeServiceServicer):
    """An edge behind real gRPC."""

    def __init__(self, boot_id: int = 7, credits_: int = 1000) -> None:
        self.boot_id = boot_id
        self.credits = credits_
        self.address = ""
        self.absent: set[int] = set()
        self.answers_until = 1
        """Batches before this one are not answered by themselves."""
        self.is_refusing = False
        self.grants = True
        self.hellos: Log[edge_service_pb2.PushRequest] = Log()
        self.batches: Log[edge_service_pb2.PushBatch] = Log()
        self.deliveries: Log[tuple[int, bytes]] = Log()
        self.verifications: Log[str] = Log()
        self.ends: Log[bool] = Log()
        self._contexts: list[Any] = []

    async def Push(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # context.write
        is_clean = False
        try:
            hello = await context.read()
            self.hellos.add(hello)
            if self.is_refusing:
                await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "another boot")
            mine = stream_pb2.StreamHello(protocol=1, peer_id="edge", boot_id=self.boot_id, credits=self.credits)
            await context.write(edge_service_pb2.PushResponse(hello=mine))
            self._contexts.append(context)
            while (request := await context.read()) is not grpc.aio.EOF:
                is_clean = is_clean or request.WhichOneof("frame") == "drain"
                await self._take(request, context)
        finally:
            if context in self._contexts:
                self._contexts.remove(context)
            self.ends.add(is_clean)

    async def _take(self, request: edge_service_pb2.PushRequest, context: Any) -> None:
        if request.WhichOneof("frame") == "verify_all":
            self.verifications.add(request.verify_all.reason)
        if request.WhichOneof("frame") != "batch":
            return
        batch = request.batch
        absent = [at for at, session in enumerate(batch.session_ids) if session in self.absent]
        taken = edge_service_pb2.PushTaken(
            number=batch.number,
            absent_session_ids=[batch.session_ids[at] for at in absent],
            absent_delivery_indexes=absent,
        )
        if batch.number >= self.answers_until:
            await context.write(edge_service_pb2.PushResponse(taken=taken))
        if self.grants:
            credit = stream_pb2.StreamCredit(items=len(batch.session_ids))
            await context.write(edge_service_pb2.PushResponse(credit=credit))
        self.batches.add(batch)
        for session, index in zip(batch.session_ids, batch.item_indexes, strict=True):
            if session not in self.absent:
                self.deliveries.add((session, batch.items[index]))

    async def announce(self, *user_ids: UserId) -> None:
        """Says that sessions of users have begun."""
        for context in self._contexts:
            taken = edge_service_pb2.PushTaken()
            await context.write(edge_service_pb2.PushResponse(taken=taken, arrived_user_ids=user_ids))

    async def drain(self) -> None:
        """Ends every stream politely from this side."""
        marker = edge_service_pb2.PushResponse(drain=stream_pb2.StreamDrain(reason="test"))
        for context in list(self._contexts):
            await context.write(marker)


class ServedRegistry(presence_service_pb2_grpc.PresenceServiceServicer):
    """A registry behind real gRPC, over the fake one."""

    def __init__(self, registry: FakeRegistry) -> None:
        self._registry = registry

    async def Track(self, request_iterator: Any, context: Any) -> None:  # type: ignore[override]  # never called
        raise NotImplementedError

    async def BatchGetPresence(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    async def ListTyping(self, request: Any, context: Any) -> Any:
        raise NotImplementedError

    async def Locate(
        self, request: presence_service_pb2.LocateRequest, context: Any
    ) -> presence_service_pb2.LocateResponse:
        gone = [Route(UserId(o.user_id), o.device_id, o.session_id, o.boot_id, o.edge_id) for o in request.gone]
        try:
            located = await self._registry.locate([UserId(one) for one in request.user_ids], gone)
        except UnavailableError:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "down")
        response = presence_service_pb2.LocateResponse()
        for index, user_id in enumerate(request.user_ids):
            for one in located.routes.get(UserId(user_id), []):
                response.user_indexes.append(index)
                response.device_ids.append(one.device_id)
                response.session_ids.append(one.session_id)
                response.edge_indexes.append(len(response.edge_ids))
                response.edge_ids.append(one.edge_id)
                response.boot_ids.append(one.boot_id)
        return response


@contextlib.asynccontextmanager
async def serving(
    register: Callable[[Any, Any], None], servicer: Any, port: int = 0, interceptors: Sequence[Any] = ()
) -> AsyncIterator[str]:
    """Serves on a loopback port, and ends every stream abruptly when it is left."""
    server = grpc.aio.server(interceptors=interceptors, options=ALONE)
    register(servicer, server)
    address = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{port}')}"
    await server.start()
    try:
        yield address
    finally:
        await server.stop(0)


@contextlib.asynccontextmanager
async def serving_edge(edge: ServedEdge, port: int = 0) -> AsyncIterator[ServedEdge]:
    async with serving(edge_service_pb2_grpc.add_EdgeServiceServicer_to_server, edge, port) as address:
        edge.address = address
        yield edge
