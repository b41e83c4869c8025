"""Lets a program of the mesh speak as a user, so that nothing it says is lost or said twice.

async with Bot("127.0.0.1:7120", files) as bot:
    await bot.send(alice, "the build is green")
"""

import asyncio
from types import TracebackType
from typing import Any, NamedTuple, Self

import grpc.aio

from chappe.api.edge.v1 import send_pb2, server_frame_pb2
from chappe.api.message.v1 import message_service_pb2, message_service_pb2_grpc
from chappe.api.type.v1 import envelope_pb2
from chappe.client.content import SUITE_NONE, Said, encode
from chappe.client.errors import NotConnectedError, RefusedError
from chappe.client.mint import IdMint
from chappe.client.outbox import reason_name
from chappe.runtime import channels
from chappe.runtime.clock import Seams, system_seams
from chappe.runtime.errors import from_rpc_error
from chappe.runtime.pki import TlsFiles

CALL_TIMEOUT_S = 10.0
FIRST_DELAY_S = 0.1
LAST_DELAY_S = 2.0
MOST_IDS = 4
"""With so many request ids a message is tried, where one after the other cannot be used."""

_TAG_BYTES = 6
# The id was at fault, not the message: nothing was stored under it and nothing will be.
_OF_THE_ID = frozenset({"CLOCK_SKEW", "STALE_MESSAGE_ID", "DUPLICATE_CONFLICT"})
# Nobody knows what became of it: under another id it would be said twice.
_MAY_BE_STORED = frozenset({"UNAVAILABLE", "INTERNAL"})
_OF_THE_CLOCK = frozenset({"CLOCK_SKEW", "STALE_MESSAGE_ID"})


class Spoken(NamedTuple):
    """A message that is durable."""

    message_id: bytes
    conversation_id: bytes
    accepted_ms: int
    """When the server accepted it, Unix milliseconds."""


class Bot:
    """The user as which this program speaks; `chappe bot create` and `python -m svc_identity bot create` make one."""

    def __init__(self, target: str, files: TlsFiles | None, *, seams: Seams | None = None) -> None:
        """Prepares; nothing is dialled.

        Args:
            target: Where svc_message is: "host:port", several with commas, or a headless DNS name with a port.
            files: The certificate of this program; None for plain text, which only tests use.
            seams: Clock and randomness, the system's unless a test says otherwise.
        """
        self._target, self._files = target, files
        self._clock, randomness = seams or system_seams()
        self._mint = IdMint(randomness.token(_TAG_BYTES), randomness)
        self._ahead_ms = 0
        self._channel: grpc.aio.Channel
        self._stub: Any

    async def __aenter__(self) -> Self:
        contracts = [message_service_pb2.DESCRIPTOR]
        self._channel = channels.channel(self._target, self._files, server_name="svc-message", contracts=contracts)
        self._stub = message_service_pb2_grpc.MessageServiceStub(self._channel)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._channel.close()

    def new_request_id(self) -> bytes:
        """Mints the id of a request, 16 bytes.

        A program that keeps it before it speaks says the same again after a crash, and nothing is said twice.
        """
        return self._mint.mint(self._clock.wall_ms() + self._ahead_ms)

    async def send(
        self, user_id: bytes, text: str, *, expiry_s: int = 0, request_id: bytes = b"", timeout_s: float = 30.0
    ) -> Spoken:
        """Says something to a user, and returns when it is durable.

        Args:
            user_id: To whom, 16 bytes.
            text: What.
            expiry_s: After how many seconds it disappears; 0 for never.
            request_id: Names what is said for ever, from `new_request_id`; empty for a new one. Without it a program
                that crashes meanwhile does not know whether it has spoken.
            timeout_s: For how long the server is asked.

        Raises:
            RefusedError: It was refused for good, with the reason. STALE_MESSAGE_ID: nothing is stored under a request
                id of more than 10 minutes ago, and nothing ever will be, so it may be said under a new one.
            NotConnectedError: The server has not answered in time; with the same request id it may be said again.
        """
        message = send_pb2.SendMessage(user_id=user_id, expiry_s=expiry_s, envelope=_envelope(text))
        return await self._send(message, request_id, timeout_s)

    async def send_to_group(
        self, group_id: bytes, text: str, *, expiry_s: int = 0, request_id: bytes = b"", timeout_s: float = 30.0
    ) -> Spoken:
        """Says something to a group in which the bot is; everything else as in `send`."""
        message = send_pb2.SendMessage(group_id=group_id, expiry_s=expiry_s, envelope=_envelope(text))
        return await self._send(message, request_id, timeout_s)

    async def _send(self, message: send_pb2.SendMessage, request_id: bytes, timeout_s: float) -> Spoken:
        heard: list[str] = []
        try:
            async with asyncio.timeout(timeout_s):
                if request_id:
                    request = message_service_pb2.SendRequest(request_id=request_id, message=message)
                    return await self._ask(request, heard)
                return await self._say(message, heard)
        except TimeoutError:
            why = f"no answer of svc_message at {self._target} in {timeout_s:g} s"
            raise NotConnectedError(f"{why}; last: {heard[-1]}" if heard else why) from None

    async def _say(self, message: send_pb2.SendMessage, heard: list[str]) -> Spoken:
        """Says something under ids of its own, a new one where the id was at fault."""
        for _ in range(MOST_IDS - 1):
            request = message_service_pb2.SendRequest(request_id=self.new_request_id(), message=message)
            try:
                return await self._ask(request, heard)
            except RefusedError as error:
                if error.reason not in _OF_THE_ID:
                    raise
        request = message_service_pb2.SendRequest(request_id=self.new_request_id(), message=message)
        return await self._ask(request, heard)

    async def _ask(self, request: message_service_pb2.SendRequest, heard: list[str]) -> Spoken:
        """Makes the same request until it has an answer; whatever else is heard is noted, the newest last."""
        delay_s = FIRST_DELAY_S
        while True:
            wait_s = delay_s
            try:
                response = await self._stub.Send(request, timeout=CALL_TIMEOUT_S)
            except grpc.aio.AioRpcError as rpc_error:
                error = from_rpc_error(rpc_error, dependency="svc_message")
                if error.code not in _MAY_BE_STORED:
                    raise RefusedError(error.reason, error.message) from rpc_error
                heard.append(str(error))
            else:
                if response.HasField("stored"):
                    stored = response.stored
                    return Spoken(stored.message_id, stored.conversation_id, stored.accepted_ms)
                self._check(response.refused)
                heard.append(response.refused.detail)
                wait_s = max(delay_s, response.refused.retry_after_ms / 1000)
            await self._clock.sleep(wait_s)
            delay_s = min(delay_s * 2, LAST_DELAY_S)

    def _check(self, refused: server_frame_pb2.SendNack) -> None:
        """Raises a refusal that is final, and learns from it what time it is."""
        if refused.is_retryable:
            return
        reason = reason_name(refused.reason)
        if reason in _OF_THE_CLOCK:
            self._ahead_ms = refused.server_ms - self._clock.wall_ms()
            self._mint.step_back()
        raise RefusedError(reason, refused.detail)


def _envelope(text: str) -> envelope_pb2.Envelope:
    return envelope_pb2.Envelope(suite=SUITE_NONE, content=encode(Said(text)))
