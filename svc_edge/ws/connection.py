"""One WebSocket connection: frames in, frames out, and its end."""

from __future__ import annotations

import asyncio
import logging
import sys
from typing import TYPE_CHECKING, Final, NamedTuple

from picows import WSListener, WSMsgType

from chappe.runtime import contract
from chappe.runtime.errors import InvalidFieldError
from svc_edge.errors import CloseCode, Closing, SessionClosed
from svc_edge.model import Call, Hello, SignedHello
from svc_edge.protocol.session import NEVER, Phase
from svc_edge.service.frames import Caller
from svc_edge.ws.messages import Assembler, check_reserved, check_size, check_utf8, close_answer
from svc_edge.ws.presence import TAKING
from svc_edge.ws.wire import ack_count_of, send_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from picows import WSFrame, WSTransport

    from chappe.api.edge.v1 import client_frame_pb2
    from svc_edge.protocol.session import Session
    from svc_edge.service.frames import Frames
    from svc_edge.service.keeper import Keeper
    from svc_edge.service.sessions import Sessions
    from svc_edge.ws.wire import Codec

_log = logging.getLogger(__name__)

CLOSE_GRACE_S = 1.0
ANSWER_GRACE_S = 0.5
_MAX_REASON_BYTES = 120
_FIRST_OWN_CODE = 4000
_FAULTS_OF_CLIENTS: Final = frozenset(
    {CloseCode.PROTOCOL_ERROR, CloseCode.INVALID_TEXT, CloseCode.MALFORMED, CloseCode.TOO_LARGE}
)
_LARGEST_SHORT = 125
_LARGEST_MEDIUM = 0xFFFF
# Looking a member of an enum up costs ten times a comparison (CPython 3.11), and these are needed for every frame.
_ANONYMOUS = Phase.ANONYMOUS
_CLOSING = Phase.CLOSING
_CLOSED = Phase.CLOSED
_BINARY = WSMsgType.BINARY
_TEXT = WSMsgType.TEXT
_CLOSE = WSMsgType.CLOSE
_PING = WSMsgType.PING
_PONG = WSMsgType.PONG
_CONTINUATION = WSMsgType.CONTINUATION


class House(NamedTuple):
    """What every connection shares."""

    sessions: Sessions
    frames: Frames
    keeper: Keeper
    monotonic_s: Callable[[], float]


class Connection(WSListener):
    """A client's socket and the session behind it; the session's `Door`."""

    def __init__(self, house: House, codec: Codec, host: str) -> None:
        self._house = house
        self._codec = codec
        self._message_type = _TEXT if codec.is_text else _BINARY
        self._host = host
        self._address = ""
        self._user_agent = ""
        self._fragments: Assembler | None = None
        self._is_warned = False
        self._is_closed = False
        self._transport: WSTransport
        self._session: Session

    def on_ws_connected(self, transport: WSTransport) -> None:
        """Begins a session; the client has 5 s to say Hello."""
        self._transport = transport
        peer = transport.underlying_transport.get_extra_info("peername")
        self._address = str(peer[0]) if peer else ""
        self._session = self._house.sessions.open(self)

    def on_ws_disconnected(self, transport: WSTransport) -> None:  # noqa: ARG002 - picows says whose end it is
        """Ends the session."""
        if not self._is_closed:
            self._house.sessions.count_close("lost")
        self._house.keeper.end(self._session)
        self._house.frames.end(self._session, Caller(self._address, self._host))

    def on_ws_frame(self, transport: WSTransport, frame: WSFrame) -> None:
        """Takes one frame of any kind."""
        session = self._session
        if frame.msg_type == _CLOSE:
            self._answer_close(transport, frame)
            return
        if session.phase >= _CLOSING:
            return
        session.life_s = self._house.sessions.now_s
        try:
            session.spend_frame(self._house.monotonic_s() if session.is_spent else 0.0)
            check_reserved(frame)
            if frame.msg_type == _PING:
                transport.send_pong(frame.get_payload_as_bytes())
            elif frame.msg_type != _PONG:
                self._take_data(frame)
        except SessionClosed as closed:
            self.close(closed.closing)

    def pause_writing(self) -> None:
        """Stops giving the session items: the log keeps them."""
        self._session.pause(self._house.monotonic_s())
        self._house.sessions.plan(self._session)

    def resume_writing(self) -> None:
        """Lets the session read its log on."""
        self._house.frames.resume(self._session)

    def ping(self) -> None:
        """Asks for a sign of life."""
        self._transport.send_ping()

    def flush(self) -> None:
        """Settles and writes what this turn of the loop has gathered."""
        session = self._session
        session.is_dirty = False
        # Nothing may follow a Close (RFC 6455, 5.5.1); the next session finds in the log what was to be said.
        if session.phase is _CLOSED or self._is_closed:
            return
        self._house.frames.settle(session)
        payloads: list[bytes] = []
        if session.frames:
            frames, session.frames = session.frames, []
            payloads = [self._codec.write(frame) for frame in frames]
        delivery = session.delivery
        while delivery.has_output:
            outgoing = delivery.take()
            if session.traced is not None:
                self._house.frames.traces.written(session, outgoing.items)
            if outgoing.items or outgoing.cursor:
                payloads.append(self._codec.events(outgoing.items, outgoing.cursor))
            if outgoing.caught_up:
                payloads.append(self._codec.write(outgoing.caught_up))
        if payloads:
            _write_all(self._transport, self._message_type, payloads)
        self._house.frames.read_on(session)

    def warn(self, closing: Closing) -> None:
        """Says GoAway and takes no more frames, but still writes answers."""
        if not self._is_warned and not self._is_closed:
            self._is_warned = True
            self.flush()
            self._session.phase = _CLOSING
            if closing.code >= _FIRST_OWN_CODE:
                self._transport.send(self._message_type, self._codec.write(closing))

    def close(self, closing: Closing) -> None:
        """Writes what waits, says why, and closes; may be called twice."""
        if self._is_closed:
            return
        self.warn(closing)
        self.flush()
        self._is_closed = True
        self._house.sessions.count_close(str(int(closing.code)))
        if closing.code in _FAULTS_OF_CLIENTS:
            # Not why: that may quote what the client has sent, and the client is told.
            _log.warning("a client that calls itself %r does not keep the contract: %d", self._user_agent, closing.code)
        reason = closing.detail.encode()[:_MAX_REASON_BYTES].decode(errors="ignore")
        self._transport.send_close(closing.code, reason)  # type: ignore[arg-type]  # private codes are no enum members
        _cut_off_soon(self._transport)

    def close_soon(self, closing: Closing) -> None:
        """Warns now and closes half a second later, so that answers that are on their way still arrive."""
        self.warn(closing)
        asyncio.get_running_loop().call_later(ANSWER_GRACE_S, self.close, closing)

    def _take_data(self, frame: WSFrame) -> None:
        if frame.fin and frame.msg_type != _CONTINUATION and self._fragments is None:
            check_size(frame.payload_size)
            self._take_message(frame.get_payload_as_bytes(), is_text=frame.msg_type == _TEXT)
            return
        if self._fragments is None:
            self._fragments = Assembler()
        whole = self._fragments.add(frame)
        if whole is None:
            if self._session.fragment_since_s == NEVER:
                self._session.fragment_since_s = self._house.monotonic_s()
                self._house.sessions.plan(self._session)
            return
        self._fragments, self._session.fragment_since_s = None, NEVER
        self._take_message(whole[0], is_text=whole[1])

    def _take_message(self, payload: bytes, *, is_text: bool) -> None:
        if is_text is not self._codec.is_text:
            wanted = "text" if self._codec.is_text else "binary"
            raise SessionClosed(CloseCode.MALFORMED, f"this sub-protocol has {wanted} frames only")
        if is_text:
            check_utf8(payload)
        else:
            send = send_of(payload)
            if send is not None:
                self._house.frames.send(self._session, send)
                return
            count = ack_count_of(payload)
            if count:
                self._house.frames.acknowledge(self._session, count, ())
                return
        self._take_frame(self._codec.read(payload))

    def _take_frame(self, frame: client_frame_pb2.ClientFrame) -> None:
        session, frames, kind = self._session, self._house.frames, frame.WhichOneof("frame")
        if kind != "hello" and session.phase < _ANONYMOUS:
            session.expect_live("a frame")
        if kind == "send":
            # Its limits are the ledger's to check, as for a Send that was not parsed.
            frames.send(session, frame.send.SerializeToString())
            return
        _validate(frame)
        if kind == "hello":
            # Thousands of connections have the same.
            self._user_agent = sys.intern(frame.hello.user_agent)
            frames.hello(session, _hello(frame.hello), Caller(self._address, self._host))
        elif kind == "ack":
            frames.acknowledge(session, frame.ack.count, frame.ack.message_ids)
        elif kind == "call":
            frames.call(session, Call(frame.call.id, frame.call.method, frame.call.payload))
        elif kind == "ping":
            frames.ping(session, frame.ping.client_ms)
        elif kind in TAKING:
            TAKING[kind](frames.watching, session, frame)
        # Anything else is of a later version of the contract, and ignored.

    def _answer_close(self, transport: WSTransport, frame: WSFrame) -> None:
        # An Ack may have come in the same read, and what a session that closes has acknowledged is not settled.
        self._house.frames.settle(self._session)
        self._session.phase = max(self._session.phase, _CLOSING)
        if not self._is_closed:
            self._house.sessions.count_close("client")
        if not transport.is_close_frame_sent:
            transport.send_close(close_answer(frame))  # type: ignore[arg-type]  # the same numbers
        self._is_warned = self._is_closed = True
        transport.disconnect()
        # That waits until everything is written, which a client that reads no more would put off for ever.
        _cut_off_soon(transport)


def _cut_off_soon(transport: WSTransport) -> None:
    asyncio.get_running_loop().call_later(CLOSE_GRACE_S, transport.disconnect, False)  # noqa: FBT003 - picows takes it by position


def _write_all(transport: WSTransport, message_type: WSMsgType, payloads: list[bytes]) -> None:
    """Writes several messages with one system call."""
    if len(payloads) == 1:
        transport.send(message_type, payloads[0])
        return
    first_byte = 0x81 if message_type is _TEXT else 0x82
    parts: list[bytes] = []
    for payload in payloads:
        parts += (_header(first_byte, len(payload)), payload)
    transport.underlying_transport.write(b"".join(parts))


def _validate(frame: client_frame_pb2.ClientFrame) -> None:
    try:
        contract.validate(frame)
    except InvalidFieldError as error:
        raise SessionClosed(CloseCode.MALFORMED, error.message) from None


def _hello(hello: client_frame_pb2.Hello) -> Hello:
    kind = hello.WhichOneof("identity")
    if hello.protocol != 1:
        raise SessionClosed(CloseCode.MALFORMED, f"hello.protocol is {hello.protocol}: this edge speaks 1")
    if kind is None:
        raise SessionClosed(CloseCode.MALFORMED, "hello: must have signed or anonymous set")
    signed = None
    if kind == "signed":
        given = hello.signed
        signed = SignedHello(given.access_token, given.timestamp_ms, given.nonce, given.host, given.signature)
    return Hello(signed, hello.cursor, hello.receive_window)


def _header(first_byte: int, size: int) -> bytes:
    if size <= _LARGEST_SHORT:
        return bytes((first_byte, size))
    if size <= _LARGEST_MEDIUM:
        return bytes((first_byte, 126)) + size.to_bytes(2, "big")
    return bytes((first_byte, 127)) + size.to_bytes(8, "big")
