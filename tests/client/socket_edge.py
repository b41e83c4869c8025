"""A small edge on a real socket: the model of one behind picows, with a bridge for calls."""

import asyncio
from collections.abc import Callable
from typing import Any, Self

import picows

from chappe.api.edge.v1 import client_frame_pb2, server_frame_pb2
from chappe.api.identity.v1 import contact_service_pb2, session_service_pb2
from chappe.client.methods import CREATE_SESSION, LIST_GROUPS, LOOKUP_CONTACTS
from tests.client.model_edge import PEER, ModelEdge, frame

Answer = Callable[[bytes], bytes | server_frame_pb2.CallError]


class SocketEdge:
    """Listens on a free port; every connection talks to the same ledger."""

    def __init__(self, model: ModelEdge | None = None) -> None:
        self.model = model or ModelEdge()
        self.sessions: list[Listener] = []
        self.calls: list[str] = []
        self.refuse_with: list[int] = []
        self.refuse_anonymous_with = 0
        self.is_mute = False
        self.answers: dict[str, Answer] = {
            CREATE_SESSION.name: self._create_session,
            LIST_GROUPS.name: lambda _: b"",
            LOOKUP_CONTACTS.name: lambda _: contact_service_pb2.LookupContactsResponse(
                user_ids=[PEER]
            ).SerializeToString(),
        }
        self.hosts: list[str] = []
        self.protocols: list[str] = []

    @property
    def address(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await picows.ws_create_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.stop()
        await asyncio.sleep(0)

    def stop(self) -> None:
        """Closes the port and every connection, as a kill does."""
        self._server.close()
        self.drop()

    def drop(self) -> None:
        """Breaks every connection without a word."""
        for session in self.sessions:
            session.transport.disconnect(graceful=False)
        self.sessions.clear()

    def close(self, code: int, detail: str = "") -> None:
        """Closes every connection with a code."""
        for session in self.sessions:
            session.transport.send_close(picows.WSCloseCode(code), detail.encode())
            session.transport.disconnect()
        self.sessions.clear()

    def deliver(self) -> None:
        """Sends what the model has to say to the newest signed session."""
        frames, self.model.frames = self.model.frames, []
        signed = [session for session in self.sessions if session.is_signed]
        if not self.is_mute and signed:
            for data in frames:
                signed[-1].transport.send(picows.WSMsgType.BINARY, data)

    def push(self, count: int = 1, cursor: int | None = None) -> None:
        """Sends the last so many events of the log."""
        self.model.push(len(self.model.log) - count, len(self.model.log), cursor)
        self.deliver()

    def _accept(self, request: picows.WSUpgradeRequest) -> "Listener":
        self.hosts.append(str(request.headers["Host"]))
        self.protocols.append(str(request.headers.get("Sec-WebSocket-Protocol", "")))
        return Listener(self)

    def _create_session(self, payload: bytes) -> bytes:
        question = session_service_pb2.CreateSessionRequest.FromString(payload)
        return session_service_pb2.CreateSessionResponse(
            access_token=f"token-{question.user_id.hex()}",
            session_id=bytes(16),
            expire_ms=self.model.now_ms + 900_000,
        ).SerializeToString()


class Listener(picows.WSListener):
    """One connection."""

    def __init__(self, edge: SocketEdge) -> None:
        self.edge = edge
        self.is_signed = False

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        self.transport = transport
        self.edge.sessions.append(self)

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:
        if self in self.edge.sessions:
            self.edge.sessions.remove(self)

    def on_ws_frame(self, transport: picows.WSTransport, received: picows.WSFrame) -> None:
        if received.msg_type != picows.WSMsgType.BINARY:
            transport.disconnect()
            return
        data = received.get_payload_as_bytes()
        client = client_frame_pb2.ClientFrame.FromString(data)
        kind = client.WhichOneof("frame")
        if kind == "hello" and client.hello.HasField("anonymous"):
            if self.edge.refuse_anonymous_with:
                self.edge.close(self.edge.refuse_anonymous_with, "refused")
                return
            self._put(welcome=server_frame_pb2.Welcome(session_id=9, server_ms=self.edge.model.now_ms))
        elif kind == "call":
            self._call(client.call)
        else:
            self._signed(kind == "hello", data)

    def _signed(self, is_hello: bool, data: bytes) -> None:  # noqa: FBT001 - a step of the function above
        if is_hello:
            self.is_signed = True
            if self.edge.refuse_with:
                self.edge.close(self.edge.refuse_with.pop(0), "refused")
                return
        self.edge.model.take(data)
        self.edge.deliver()

    def _call(self, call: client_frame_pb2.Call) -> None:
        self.edge.calls.append(call.method)
        answer = self.edge.answers[call.method](call.payload)
        result = server_frame_pb2.CallResult(id=call.id)
        if isinstance(answer, bytes):
            result.payload = answer
        else:
            result.error.CopyFrom(answer)
        # A connection that was dropped meanwhile gets no answer.
        if self in self.edge.sessions:
            self._put(call_result=result)

    def _put(self, **kind: Any) -> None:
        self.transport.send(picows.WSMsgType.BINARY, frame(**kind).SerializeToString())
