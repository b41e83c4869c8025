"""A session without a user: what a device does before it can sign in."""

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from google.protobuf.message import DecodeError

from chappe.api.edge.v1 import server_frame_pb2
from chappe.client.calls import Calls, Outcome
from chappe.client.errors import ChappeClientError, NotConnectedError, SessionEndedError
from chappe.client.frames import anonymous_hello
from chappe.client.methods import Answer, Method, Question
from chappe.client.mint import ServerClock
from chappe.client.reconnect import Comeback, reconnect_policy
from chappe.client.seams import Seams
from chappe.client.wire import Closed, Wire, WireOptions, open_wire

CALL_TIMEOUT_S = 15.0

Begin = Callable[[str, bytes, Callable[[Outcome], None]], None]
"""Starts a call: method, serialised request, and who is told what came of it."""


async def call_over(begin: Begin, method: Method[Question, Answer], question: Question) -> Answer:
    """Makes one call and waits for its answer, at most 15 seconds.

    Raises:
        RefusedError: The service said no.
        NotConnectedError: No answer came.
    """
    return method.answer.FromString(await call_bytes(begin, method.name, question.SerializeToString()))


async def call_bytes(begin: Begin, method: str, request: bytes) -> bytes:
    """Makes one call like `call_over`; takes and returns what is serialised."""
    outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

    def resolve(result: Outcome) -> None:
        if not outcome.done():
            outcome.set_result(result)

    begin(method, request, resolve)
    try:
        async with asyncio.timeout(CALL_TIMEOUT_S):
            payload, error = await outcome
    except TimeoutError:
        raise NotConnectedError(f"{method} got no answer in {CALL_TIMEOUT_S:.0f} s") from None
    if error is not None:
        raise error
    return payload


class Door:
    """An anonymous session; a context manager. One door serves any number of calls, for at most 10 minutes."""

    def __init__(
        self, address: str, seams: Seams, clock: ServerClock | None = None, options: WireOptions | None = None
    ) -> None:
        """Makes a door that opens when it is entered.

        Args:
            address: Of the edge.
            seams: Time and randomness.
            clock: Taught by the edge's Welcome; by default one of its own.
            options: How to connect.
        """
        self.clock = clock or ServerClock(seams.clock.wall_ms(), seams.clock.monotonic_s())
        self._address = address
        self._seams = seams
        self._options = options or WireOptions()
        self._calls = Calls()
        self._wire: Wire | None = None
        self._welcome: asyncio.Future[ChappeClientError | None]
        self._sent_s = 0.0

    async def call(self, method: Method[Question, Answer], question: Question) -> Answer:
        """Calls a method that is open to everybody.

        Raises:
            RefusedError: The service said no.
            NotConnectedError: No answer came.
            SessionEndedError: The edge does not want this client.
        """
        return await call_over(self._begin, method, question)

    async def welcomed(self) -> None:
        """Waits until the edge has said what time it is.

        Raises:
            NotConnectedError: It says nothing, or has closed.
        """
        try:
            async with asyncio.timeout(CALL_TIMEOUT_S):
                error = await self._welcome
        except TimeoutError:
            raise NotConnectedError(f"{self._address} did not welcome in {CALL_TIMEOUT_S:.0f} s") from None
        if error is not None:
            raise error

    async def __aenter__(self) -> Self:
        self._welcome = asyncio.get_running_loop().create_future()
        self._wire = await open_wire(self._address, self, self._options)
        self._wire.closed.add_done_callback(lambda closed: self._ended(closed.result()))
        self._sent_s = self._seams.clock.monotonic_s()
        self._wire.send([anonymous_hello(self._options.user_agent)])
        # The edge takes nothing before it has answered the Hello.
        try:
            await self.welcomed()
        except BaseException:
            self._wire.close()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._wire is not None:
            self._wire.close()
            await self._wire.closed

    def frame_arrived(self, data: bytes, *, is_last: bool) -> None:  # noqa: ARG002 - nothing is gathered here
        """Takes a frame of the edge."""
        try:
            frame = server_frame_pb2.ServerFrame.FromString(data)
        except DecodeError:
            self._wire_or_raise().close(1002, "not a frame")
            return
        if frame.HasField("welcome"):
            self.clock.sample(self._sent_s, self._seams.clock.monotonic_s(), frame.welcome.server_ms)
            if not self._welcome.done():
                self._welcome.set_result(None)
        elif frame.HasField("call_result"):
            self._calls.resolve(frame.call_result)

    def _begin(self, method: str, payload: bytes, answer: Callable[[Outcome], None]) -> None:
        wire = self._wire_or_raise()
        if wire.closed.done():
            answer(Outcome(b"", NotConnectedError(f"{self._address} closed: {wire.closed.result().detail}")))
        else:
            wire.send([self._calls.begin(method, payload, answer)])

    def _ended(self, closed: Closed) -> None:
        error: ChappeClientError = NotConnectedError(f"{self._address} closed ({closed.code}): {closed.detail}")
        if reconnect_policy(closed.code) is Comeback.NEVER:
            error = SessionEndedError(closed.code, closed.detail)
        self._calls.fail_with(error)
        if not self._welcome.done():
            self._welcome.set_result(error)

    def _wire_or_raise(self) -> Wire:
        if self._wire is None:
            raise NotConnectedError("this door was not opened; use it as `async with Door(...) as door`")
        return self._wire
