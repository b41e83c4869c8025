"""Somebody with an account, a device and a connection on which anything can be said."""

import secrets
import time
from typing import Any, Self

from chappe.api.edge.v1 import client_frame_pb2, send_pb2, server_frame_pb2
from chappe.api.message.v1 import history_service_pb2
from chappe.api.type.v1 import envelope_pb2, error_reason_pb2
from chappe.client.device import NONCE_BYTES, Device
from chappe.client.door import Door
from chappe.client.methods import CREATE_SESSION, LIST_MESSAGES, Answer, Method, Question
from chappe.client.mint import IdMint, mint_tag_of
from chappe.client.registration import enrol
from chappe.client.seams import SystemRandomness, system_seams
from tests.svc_edge.client import Client

SUITE_NONE = envelope_pb2.ENCRYPTION_SUITE_NONE


def now_ms() -> int:
    """Returns the time of this machine, which is that of the servers."""
    return int(time.time() * 1000)


def reason_of(refusal: Any) -> str:
    """Returns the reason of a SendNack or a CallError, without the prefix."""
    return error_reason_pb2.ErrorReason.Name(refusal.reason).removeprefix("ERROR_REASON_")


def message_to(peer_id: bytes, content: bytes = b"hello") -> send_pb2.SendMessage:
    """Returns an ordinary message."""
    envelope = envelope_pb2.Envelope(suite=SUITE_NONE, content=content)
    return send_pb2.SendMessage(user_id=peer_id, envelope=envelope)


class Person:
    """One device of one user; `client` is its latest connection."""

    def __init__(self, device: Device, url: str) -> None:
        self.device = device
        self.user_id = device.user_id
        self.token = ""
        self.session_id = b""
        self.client = Client(url)
        self._url = url
        self._calls = 0
        self._tag = mint_tag_of(device.user_id, device.device_id)
        self._mint = IdMint(self._tag, SystemRandomness())

    @classmethod
    async def register(cls, url: str, phone_number: str, name: str = "Somebody") -> Self:
        """Makes an account, or takes over that of the number, and signs its new device in."""
        async with Door(url, system_seams()) as door:
            person = cls(await enrol(door, phone_number, name), url)
            await person.take_token(door)
        return person

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        self.client.abort()

    async def take_token(self, door: Door) -> None:
        """Gets an access token."""
        request = self.device.session_request(now_ms(), secrets.token_bytes(NONCE_BYTES))
        answer = await door.call(CREATE_SESSION, request)
        self.token, self.session_id = answer.access_token, answer.session_id

    async def connect(self, cursor: bytes = b"") -> Client:
        """Opens a connection and says Hello; whatever the edge answers is left to be read."""
        self.client.abort()
        client = self.client = Client(self._url)
        await client.request()
        proof = self.device.hello(self.token, now_ms(), secrets.token_bytes(NONCE_BYTES), client.host)
        client.send(hello=client_frame_pb2.Hello(protocol=1, signed=proof, cursor=cursor))
        return client

    async def sign_in(self, cursor: bytes = b"") -> Self:
        """Opens a session and reads its log to the end."""
        client = await self.connect(cursor)
        await client.expect("caught_up")
        return self

    def new_id(self, time_ms: int | None = None) -> bytes:
        """Returns a message id of this device."""
        return self._mint.mint(now_ms() if time_ms is None else time_ms)

    async def submit(self, send: send_pb2.Send | bytes) -> Any:
        """Sends a Send, or what stands for one, and returns its SendAck or SendNack."""
        frame = client_frame_pb2.ClientFrame()
        if isinstance(send, bytes):
            frame.send.MergeFromString(send)
        else:
            frame.send.CopyFrom(send)
        self.client.send(send=frame.send)
        while (answer := await self.client.read()) is not None:
            if answer.WhichOneof("frame") in {"send_ack", "send_nack"}:
                return answer.send_ack if answer.HasField("send_ack") else answer.send_nack
        raise AssertionError(f"the edge closed with {self.client.closed} before it answered the Send")

    async def say(self, peer: "Person", content: bytes = b"hello", **send: Any) -> Any:
        """Sends a message; returns its SendAck or SendNack."""
        fields: dict[str, Any] = {"message_id": send.pop("message_id", None) or self.new_id(), "attempt": 1} | send
        return await self.submit(send_pb2.Send(message=message_to(peer.user_id, content), **fields))

    async def read(self, peer_id: bytes, **named: Any) -> Any:
        """Says that messages were read; returns the SendAck or SendNack."""
        read = send_pb2.SendRead(peer_user_id=peer_id, **named)
        return await self.submit(send_pb2.Send(message_id=self.new_id(), attempt=1, read=read))

    async def attempt(self, method: str, payload: bytes) -> server_frame_pb2.CallResult:
        """Calls a method with any bytes."""
        self._calls += 1
        self.client.send(call=client_frame_pb2.Call(id=self._calls, method=method, payload=payload))
        result: server_frame_pb2.CallResult = await self.client.expect("call_result")
        return result

    async def call(self, method: Method[Question, Answer], question: Question) -> Answer:
        """Calls a method that has to succeed."""
        result = await self.attempt(method.name, question.SerializeToString())
        assert result.WhichOneof("outcome") == "payload", result.error
        return method.answer.FromString(result.payload)

    async def refusal(self, method: Method[Question, Answer], question: Question) -> server_frame_pb2.CallError:
        """Calls a method that has to refuse."""
        result = await self.attempt(method.name, question.SerializeToString())
        assert result.WhichOneof("outcome") == "error", method.answer.FromString(result.payload)
        return result.error

    async def history(self, peer: "Person", **fields: Any) -> list[history_service_pb2.StoredMessage]:
        """Returns the newest messages of the chat with a person, newest first."""
        request = history_service_pb2.ListMessagesRequest(peer_user_id=peer.user_id, **fields)
        return list((await self.call(LIST_MESSAGES, request)).messages)
