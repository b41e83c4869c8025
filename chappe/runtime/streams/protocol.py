"""What both halves of a stream share: hello, identity, errors, and what their owners supply."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Awaitable
from typing import Any, Generic, NamedTuple, TypeVar

import grpc.aio

from chappe.api.type.v1 import stream_pb2
from chappe.runtime.errors import ChappeError, InvalidFieldError

PROTOCOL = 1
HELLO_TIMEOUT_S = 5.0

T = TypeVar("T")
Item = TypeVar("Item")
Request = TypeVar("Request", bound=Any)
Response = TypeVar("Response", bound=Any)


class StreamBrokenError(ChappeError):
    """The other side broke the contract of the stream."""

    code = "FAILED_PRECONDITION"
    reason = "MALFORMED"


class CreditExceededError(ChappeError):
    """The other side sent more items than it was granted."""

    code = "RESOURCE_EXHAUSTED"
    reason = "RATE_LIMITED"


class Identity(NamedTuple):
    """Who this process is on its streams."""

    peer_id: str
    boot_id: int

    def hello(self, credits_: int) -> stream_pb2.StreamHello:
        """Returns the hello of this process, granting so many items."""
        return stream_pb2.StreamHello(protocol=PROTOCOL, peer_id=self.peer_id, boot_id=self.boot_id, credits=credits_)


def check_hello(hello: stream_pb2.StreamHello) -> None:
    """Checks a peer's hello; raises `InvalidFieldError` naming what is wrong with it."""
    if hello.protocol not in (PROTOCOL, PROTOCOL - 1):
        message = (
            f"this stream speaks protocol {PROTOCOL} and {PROTOCOL - 1}, not {hello.protocol}: upgrade the older side"
        )
        raise InvalidFieldError("hello.protocol", message)
    if hello.protocol == 0 or hello.boot_id == 0:
        raise InvalidFieldError("hello.boot_id", "the hello needs a protocol and a random boot id other than zero")


class DialHandler(ABC, Generic[Item, Request, Response]):
    """What the owner of a dialled stream supplies. None of it may wait."""

    @abstractmethod
    def hello(self) -> Request:
        """Returns the first message."""

    @abstractmethod
    def encode(self, number: int, items: list[Item]) -> Request:
        """Returns one batch message."""

    @abstractmethod
    def drain(self, reason: str) -> Request:
        """Returns the drain marker."""

    @abstractmethod
    def opened(self, hello: stream_pb2.StreamHello) -> None:
        """Learns that the stream stands."""

    @abstractmethod
    def received(self, kind: str, response: Response) -> None:
        """Takes a message other than hello, credit and drain."""

    @abstractmethod
    def closed(self, unsent: list[Item], *, is_clean: bool) -> None:
        """Learns that a stream that stood has ended, and what was never written to it."""

    def failed(self, error: Exception) -> None:
        """Learns what ended a stream, or kept one from beginning; most owners need not know."""


class ServeHandler(ABC, Generic[Item, Request, Response]):
    """What the owner of a served stream supplies. None of it may wait, but `settled`."""

    @abstractmethod
    def opened(self, request: Request) -> None:
        """Takes the first message, a hello that was checked; raises a `ChappeError` to refuse the stream."""

    @abstractmethod
    def hello(self) -> Response:
        """Returns the answer to the hello."""

    @abstractmethod
    def count(self, request: Request) -> int:
        """Returns how many items of credit a message uses up."""

    @abstractmethod
    def received(self, kind: str, request: Request) -> None:
        """Takes a message other than hello and drain."""

    @abstractmethod
    def encode(self, items: list[Item]) -> Response:
        """Returns one message of answers."""

    @abstractmethod
    def credit(self, items: int) -> Response:
        """Returns a grant."""

    @abstractmethod
    def drain(self, reason: str) -> Response:
        """Returns the drain marker."""

    @abstractmethod
    async def settled(self) -> None:
        """Returns once every item that was received has had its answer added."""

    @abstractmethod
    def closed(self, *, is_clean: bool) -> None:
        """Learns that the stream has ended."""


async def unbroken(operation: Awaitable[T]) -> T:
    """Awaits an operation on a call; raises `StreamBrokenError` for every way in which gRPC lets one fail."""
    try:
        return await operation
    except asyncio.CancelledError:
        # gRPC raises it also for a call that was given up, and then nobody has cancelled this task.
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        raise StreamBrokenError("the call was given up") from None
    except (grpc.aio.AioRpcError, grpc.aio.BaseError, asyncio.InvalidStateError) as error:
        raise StreamBrokenError(describe(error)) from error


def describe(error: BaseException) -> str:
    """Returns an error of a stream in a few words, for logs."""
    if isinstance(error, grpc.aio.AioRpcError):
        return f"{error.code().name}: {error.details()}"
    return f"{type(error).__name__}: {error}"
