"""One WebSocket to an edge, over picows."""

import asyncio
import ssl
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

import picows

from chappe.client.errors import ChappeClientError, NotConnectedError

SUBPROTOCOL = "chappe.v1"

_BINARY = picows.WSMsgType.BINARY
_CLOSE = picows.WSMsgType.CLOSE
_BROKEN = 1006


class Closed(NamedTuple):
    """How a connection ended: the close code (1006 when there was none) and what was said."""

    code: int
    detail: str


class FrameHandler(Protocol):
    """Takes what comes over a wire; called on the event loop."""

    def frame_arrived(self, data: bytes, *, is_last: bool) -> None:
        """Takes one frame; `is_last` when no other lies ready behind it."""
        ...


@dataclass(frozen=True, kw_only=True, slots=True)
class WireOptions:
    """How connections are made."""

    idle_s: float = 30.0
    """Silence after which the edge is pinged."""
    reply_s: float = 10.0
    """How long it then has to answer before the connection is given up."""
    handshake_s: float = 5.0
    """How long the edge has to accept a connection."""
    max_frame_bytes: int = 1 << 20
    """A larger frame ends the connection."""
    tls: ssl.SSLContext | None = None
    """For wss addresses; None trusts what the system trusts."""
    user_agent: str = "chappe-python"
    """Names the program to operators."""


class Wire(picows.WSListener):
    """A WebSocket: hands frames to its handler and says when it has ended."""

    def __init__(self, host: str, handler: FrameHandler) -> None:
        self.host = host
        """The host and port that were dialled, as in the Host header."""
        self.closed: asyncio.Future[Closed] = asyncio.get_running_loop().create_future()
        """Done once the connection has ended; never fails."""
        self._handler = handler
        self._transport: picows.WSTransport | None = None
        self._close = Closed(_BROKEN, "the connection broke")

    def send(self, frames: Sequence[bytes]) -> None:
        """Sends frames; those for a connection that has ended are dropped."""
        transport = self._transport
        if transport is not None:
            for frame in frames:
                transport.send(_BINARY, frame)

    def close(self, code: int = 1000, detail: str = "") -> None:
        """Ends the connection; harmless when it has ended."""
        transport = self._transport
        if transport is None:
            # One that breaks with the end of its handshake: picows tells neither that it began nor that it ended.
            if not self.closed.done():
                self.closed.set_result(Closed(code, detail))
        elif not transport.is_close_frame_sent:
            self._close = Closed(code, detail)
            # picows names the codes of the standard only; the number is what counts.
            transport.send_close(picows.WSCloseCode(code), detail.encode())
            transport.disconnect()

    def abandon(self, detail: str) -> None:
        """Gives the connection up at once: to send a farewell on a line that is broken may take minutes."""
        transport = self._transport
        if transport is None:
            self.close(_BROKEN, detail)
        else:
            self._close = Closed(_BROKEN, detail)
            transport.disconnect(False)  # noqa: FBT003 - picows knows it by its place: not after what is unsent

    def on_ws_connected(self, transport: picows.WSTransport) -> None:
        """Keeps the transport."""
        self._transport = transport

    def on_ws_frame(self, transport: picows.WSTransport, frame: picows.WSFrame) -> None:
        """Hands a frame on."""
        kind = frame.msg_type
        if kind == _BINARY:
            self._handler.frame_arrived(frame.get_payload_as_bytes(), is_last=frame.last_in_buffer)
        elif kind == _CLOSE:
            self._close = Closed(int(frame.get_close_code().value), frame.get_close_reason() or "")
            transport.disconnect()

    def on_ws_disconnected(self, transport: picows.WSTransport) -> None:  # noqa: ARG002 - picows names it
        """Says how it ended."""
        self._transport = None
        if not self.closed.done():
            self.closed.set_result(self._close)


async def open_wire(address: str, handler: FrameHandler, options: WireOptions) -> Wire:
    """Connects to an edge.

    Args:
        address: `ws://host:port` or `wss://host:port`.
        handler: Takes the frames.
        options: How to connect.

    Raises:
        NotConnectedError: There is no edge, or it did not accept.
        ChappeClientError: The address is not one.
    """
    parts = urlsplit(address)
    if parts.scheme not in {"ws", "wss"} or not parts.hostname:
        raise ChappeClientError(f"{address!r} is not the address of an edge; it has the form ws://host:port")
    wire = Wire(parts.netloc, handler)
    try:
        await picows.ws_connect(
            lambda: wire,
            address,
            ssl_context=options.tls,
            websocket_handshake_timeout=options.handshake_s,
            enable_auto_ping=True,
            auto_ping_idle_timeout=options.idle_s,
            auto_ping_reply_timeout=options.reply_s,
            max_frame_size=options.max_frame_bytes,
            max_redirects=0,
            extra_headers={"Sec-WebSocket-Protocol": SUBPROTOCOL},
        )
    except (OSError, picows.WSError, TimeoutError) as error:
        raise NotConnectedError(f"{address} does not answer as an edge: {error}") from error
    return wire
