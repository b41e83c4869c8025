"""A WebSocket client that can also do everything wrong."""

import asyncio
import base64
import json
import os
from typing import Any, NamedTuple, Self

from chappe.api.edge.v1 import client_frame_pb2, send_pb2, server_frame_pb2
from chappe.api.type.v1 import envelope_pb2
from tests.svc_edge.fakes import FakeMesh, Person, message_id_of, signed_hello

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
WAIT_S = 30.0


class Closed(NamedTuple):
    """How the edge closed: its GoAway, if it came, and the close frame (code 0 when there was none)."""

    code: int
    reason: str
    go_away: server_frame_pb2.GoAway | None


class Client:
    """One connection."""

    def __init__(self, url: str, protocol: str = "chappe.v1") -> None:
        self.host = url.removeprefix("ws://").removesuffix("/")
        self.protocol = protocol
        self.address = "127.0.0.1"
        """Where it dials from; all of 127.0.0.0/8 is this machine."""
        self.status = 0
        self.body = ""
        self.pings = 0
        self.may_pong = True
        self.welcome = server_frame_pb2.Welcome()
        self.go_away: server_frame_pb2.GoAway | None = None
        self.closed: Closed | None = None
        self.after_close = 0
        """How many data messages came behind the edge's Close."""
        self.seen: list[Any] = []
        self.presences: dict[bytes, int] = {}
        self.kinds: list[str] = []
        self._reader: asyncio.StreamReader
        self._writer: asyncio.StreamWriter

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        self.abort()

    def abort(self) -> None:
        if hasattr(self, "_writer"):
            self._writer.transport.abort()

    def hang_up(self) -> None:
        """Ends the connection once what was written has gone out."""
        if hasattr(self, "_writer"):
            self._writer.close()

    async def dial(self) -> None:
        """Connects, and says nothing."""
        host, port = self.host.split(":")
        self._reader, self._writer = await asyncio.open_connection(
            host, int(port), limit=2**22, local_addr=(self.address, 0)
        )

    async def request(self, target: str = "/", **headers: str) -> int:
        """Connects and asks for an upgrade; returns the status."""
        given = {
            "Host": self.host,
            "Upgrade": "websocket",
            "Connection": "keep-alive, Upgrade",
            "Sec-WebSocket-Version": "13",
            "Sec-WebSocket-Key": base64.b64encode(os.urandom(16)).decode(),
            "Sec-WebSocket-Protocol": self.protocol,
        } | {name.replace("_", "-"): value for name, value in headers.items()}
        await self.dial()
        lines = [f"GET {target} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items() if value), "", ""]
        self._writer.write("\r\n".join(lines).encode())
        head = await asyncio.wait_for(self._reader.readuntil(b"\r\n\r\n"), WAIT_S)
        self.status = int(head.split()[1])
        self.head = head.decode()
        if self.status != 101:
            self.body = (await asyncio.wait_for(self._reader.read(), WAIT_S)).decode()
        return self.status

    def pause_reading(self) -> None:
        """Lets what the edge writes pile up."""
        self._writer.transport.pause_reading()  # type: ignore[attr-defined]  # it reads, too

    def resume_reading(self) -> None:
        """Reads again."""
        self._writer.transport.resume_reading()  # type: ignore[attr-defined]  # it reads, too

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    def write_frame(self, opcode: int, payload: bytes, *, first: int = 0x80, is_masked: bool = True) -> None:
        """Writes one WebSocket frame; `first` holds the FIN and reserved bits."""
        size, bit = len(payload), 0x80 if is_masked else 0
        if size < 126:
            length = bytes((bit | size,))
        elif size < 65536:
            length = bytes((bit | 126,)) + size.to_bytes(2, "big")
        else:
            length = bytes((bit | 127,)) + size.to_bytes(8, "big")
        self._writer.write(bytes((first | opcode,)) + length + (bytes(4) if is_masked else b"") + payload)

    def send(self, **frame: Any) -> None:
        """Sends a ClientFrame."""
        self.write_frame(BINARY, client_frame_pb2.ClientFrame(**frame).SerializeToString())

    def say(self, number: int, content: bytes = b"hi", to: bytes = b"r" * 16) -> bytes:
        """Sends a message; returns its id."""
        message_id = message_id_of(number)
        self.repeat(message_id, 1, content, to)
        return message_id

    def repeat(self, message_id: bytes, attempt: int, content: bytes = b"hi", to: bytes = b"r" * 16) -> None:
        """Sends a message under an id, for the first time or once more."""
        message = send_pb2.SendMessage(user_id=to)
        message.envelope.suite = envelope_pb2.ENCRYPTION_SUITE_NONE
        message.envelope.content = content
        self.send(send=send_pb2.Send(message_id=message_id, attempt=attempt, message=message))

    def ack(self, count: int) -> None:
        self.send(ack=client_frame_pb2.Ack(count=count))

    def send_json(self, frame: Any) -> None:
        self.write_frame(TEXT, json.dumps(frame).encode())

    async def read_message(self) -> bytes | None:
        """Returns the next data message; answers pings; None once the edge has closed."""
        while True:
            try:
                head = await asyncio.wait_for(self._reader.readexactly(2), WAIT_S)
            except (asyncio.IncompleteReadError, ConnectionError):
                self.closed = self.closed or Closed(0, "", self.go_away)
                return None
            size = head[1] & 0x7F
            if size >= 126:
                size = int.from_bytes(await self._reader.readexactly(2 if size == 126 else 8), "big")
            payload = await self._reader.readexactly(size)
            opcode = head[0] & 15
            if opcode in {TEXT, BINARY}:
                self.after_close += self.closed is not None
                return payload
            if opcode == CLOSE:
                self.closed = Closed(int.from_bytes(payload[:2], "big"), payload[2:].decode(), self.go_away)
                self.write_frame(CLOSE, payload[:2])
            elif opcode == PING:
                self.pings += 1
                if self.may_pong:
                    self.write_frame(PONG, payload)

    async def read(self) -> server_frame_pb2.ServerFrame | None:
        """Returns the next ServerFrame; None once the edge has closed."""
        payload = await self.read_message()
        if payload is None:
            return None
        frame = server_frame_pb2.ServerFrame.FromString(payload)
        if frame.HasField("go_away"):
            self.go_away = frame.go_away
        self.seen += frame.events.items
        self.presences.update((one.user_id, one.state) for one in frame.presence_delta.presences)
        self.kinds.append(str(frame.WhichOneof("frame")))
        return frame

    async def read_json(self) -> Any:
        """Returns the next frame of the JSON sub-protocol."""
        payload = await self.read_message()
        assert payload is not None, self.closed
        return json.loads(payload)

    async def expect(self, kind: str) -> Any:
        """Reads on to a frame of a kind, and returns it."""
        while (frame := await self.read()) is not None:
            if frame.WhichOneof("frame") == kind:
                return getattr(frame, kind)
        raise AssertionError(f"the edge closed with {self.closed} before a {kind}")

    async def ping(self) -> Any:
        """Asks for a Pong and reads on to it."""
        self.send(ping=client_frame_pb2.Ping(client_ms=5))
        return await self.expect("pong")

    async def items(self, count: int) -> list[Any]:
        """Reads so many items of Events."""
        found: list[Any] = []
        while len(found) < count:
            found += (await self.expect("events")).items
        return found

    async def messages(self, count: int) -> list[Any]:
        """Reads so many messages; what else the log holds, such as a change of the account, is passed over."""
        found: list[Any] = []
        while len(found) < count:
            found += [item.message for item in (await self.expect("events")).items if item.HasField("message")]
        return found

    async def read_close(self) -> Closed:
        """Reads to the end; returns how the edge closed."""
        while await self.read() is not None:
            pass
        assert self.closed is not None
        return self.closed

    async def sign_in(
        self, mesh: FakeMesh, person: Person, *, cursor: bytes = b"", window: int = 0, **extra: Any
    ) -> Any:
        """Upgrades and says Hello; returns the Welcome."""
        await self.say_hello(mesh, person, cursor=cursor, window=window, **extra)
        self.welcome = await self.expect("welcome")
        return self.welcome

    async def say_hello(
        self, mesh: FakeMesh, person: Person, *, cursor: bytes = b"", window: int = 0, **extra: Any
    ) -> None:
        """Upgrades and says Hello."""
        await self.request()
        self.write_hello(mesh, person, cursor=cursor, receive_window=window, **extra)

    def write_hello(self, mesh: FakeMesh, person: Person, *, token: str = "", **extra: Any) -> None:
        """Says Hello on a connection that is upgraded, with a token of now unless another is given."""
        signed = signed_hello(token or mesh.token(person), person.key, self.host)
        self.send(hello=client_frame_pb2.Hello(protocol=1, signed=signed, **extra))
