"""One WebSocket of the load client: picows, and frames taken apart by hand where there are many."""

import asyncio
import random
from typing import Any

from picows import WSCloseCode, WSFrame, WSListener, WSMsgType, WSTransport, ws_connect

from chappe.api.edge.v1 import server_frame_pb2
from chappe.client.frames import ack_frame, call_frame
from tests.bench.traffic import LoadError, Person, Traffic

_SUB_PROTOCOL = "chappe.v1"
_SEND_ACK = 0x12
"""The first byte of a ServerFrame names the field of its oneof."""
_EVENTS = 0x22
_ID_HEAD = b"\x0a\x10"
_CALL_TIMEOUT_S = 30.0
_LATE_ACKS = 64
_LATE_S = (0.1, 0.5)
"""As the SDK does: what is no direct message is acknowledged with what comes next, after so many items, or so long."""


class Connection(WSListener):
    """The connection of a person, or of nobody; acknowledges messages at the end of each turn of the loop."""

    def __init__(self, traffic: Traffic, person: Person | None) -> None:
        loop = asyncio.get_running_loop()
        self.welcomed: asyncio.Future[None] = loop.create_future()
        self.caught_up: asyncio.Future[None] = loop.create_future()
        self.items = 0
        self._traffic = traffic
        self._person = person
        self._loop = loop
        self._acknowledged = 0
        self._is_flush_due = False
        self._late: asyncio.TimerHandle | None = None
        self._calls: dict[int, asyncio.Future[bytes]] = {}
        self._last_call = 0
        self._transport: WSTransport
        self._is_open = False

    def open(self, hello: bytes) -> None:
        """Says Hello."""
        self._transport.send(WSMsgType.BINARY, hello)

    def send(self, frame: bytes) -> None:
        """Sends a frame."""
        self._transport.send(WSMsgType.BINARY, frame)

    async def call(self, method: str, payload: bytes) -> bytes:
        """Calls a method of a service through the edge; returns the serialised response.

        Raises:
            LoadError: The call failed.
        """
        self._last_call += 1
        answer = self._calls[self._last_call] = self._loop.create_future()
        self.send(call_frame(self._last_call, method, payload))
        return await asyncio.wait_for(answer, _CALL_TIMEOUT_S)

    def hang_up(self) -> None:
        """Closes politely; nothing that comes afterwards is a failure."""
        self._is_open = False
        if self._person is not None:
            self._person.left()
        self._transport.send_close(WSCloseCode.OK)
        self._transport.disconnect(False)  # noqa: FBT003 - picows takes it by position

    def on_ws_connected(self, transport: WSTransport) -> None:
        self._transport = transport
        self._is_open = True

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        if frame.msg_type != WSMsgType.BINARY:
            if frame.msg_type == WSMsgType.CLOSE:
                self._traffic.fail(f"the edge closed a connection: {frame.get_close_code()} {frame.get_close_reason()}")
            return
        data = frame.get_payload_as_bytes()
        kind = data[0]
        if kind == _EVENTS:
            self._take_events(server_frame_pb2.ServerFrame.FromString(data).events)
        elif kind == _SEND_ACK and data[2:4] == _ID_HEAD:
            self._traffic.acknowledged(data[4:20], data)
        else:
            self._take_rare(server_frame_pb2.ServerFrame.FromString(data))

    def on_ws_disconnected(self, transport: WSTransport) -> None:
        if self._is_open:
            self._is_open = False
            self._traffic.fail("the edge ended a connection")
        waiting: list[asyncio.Future[Any]] = [self.welcomed, self.caught_up, *self._calls.values()]
        for future in waiting:
            if not future.done():
                future.set_exception(LoadError(self._traffic.failure or "the connection has ended"))
                # Nobody may be waiting for it any more.
                future.exception()

    def _take_events(self, events: Any) -> None:
        person, traffic = self._person, self._traffic
        if person is None:
            return
        items = events.items
        self.items += len(items)
        has_message = False
        for item in items:
            message_id = item.message.message_id
            if message_id:
                has_message = has_message or not item.message.group_id
                traffic.delivered(message_id, person, item)
            elif item.receipt.message_ids:
                traffic.receipted(item.receipt, person)
        if events.cursor:
            person.cursor = events.cursor
        if items and not self._is_flush_due:
            self._plan_ack(has_message=has_message)

    def _plan_ack(self, *, has_message: bool) -> None:
        if has_message or self.items - self._acknowledged >= _LATE_ACKS:
            self._is_flush_due = True
            self._loop.call_soon(self._acknowledge)
        elif self._late is None:
            self._late = self._loop.call_later(random.uniform(*_LATE_S), self._acknowledge)

    def _acknowledge(self) -> None:
        self._is_flush_due = False
        if self._late is not None:
            self._late.cancel()
            self._late = None
        if self._is_open and self.items > self._acknowledged:
            self._acknowledged = self.items
            if self._person is not None:
                self._person.stored()
            self._transport.send(WSMsgType.BINARY, ack_frame(self.items))

    def _take_rare(self, frame: Any) -> None:
        kind = frame.WhichOneof("frame")
        if kind == "welcome":
            self._take_welcome(frame.welcome)
        elif kind == "caught_up":
            self._take_caught_up(frame.caught_up)
        elif kind == "call_result":
            self._take_result(frame.call_result)
        elif kind == "send_nack":
            self._traffic.refused(frame.send_nack)
        elif kind in {"go_away", "resync"}:
            self._traffic.fail(f"the edge says {kind}: {getattr(frame, kind).detail}")

    def _take_welcome(self, welcome: Any) -> None:
        if self._person is not None:
            self._person.welcomed(self, welcome.session_id)
        self.welcomed.set_result(None)

    def _take_caught_up(self, caught_up: Any) -> None:
        if self._person is not None and caught_up.cursor:
            self._person.cursor = caught_up.cursor
        if not self.caught_up.done():
            self.caught_up.set_result(None)

    def _take_result(self, result: Any) -> None:
        answer = self._calls.pop(result.id)
        if result.HasField("error"):
            answer.set_exception(LoadError(f"a call failed: {result.error.detail}"))
        elif not answer.done():
            answer.set_result(result.payload)


async def dial(url: str, traffic: Traffic, person: Person | None) -> Connection:
    """Opens a WebSocket; nothing has been said on it yet."""
    _, connection = await ws_connect(
        lambda: Connection(traffic, person),
        url,
        extra_headers={"Sec-WebSocket-Protocol": _SUB_PROTOCOL},
        websocket_handshake_timeout=30,
        read_buffer_init_size=2048,
        use_aiofastnet=False,
    )
    assert isinstance(connection, Connection)
    return connection
