"""WebSockets over the simulated network: what client and edge use of picows."""

import asyncio
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from picows import WSCloseCode, WSMsgType

from svc_edge.ws.connection import Connection
from svc_edge.ws.server import BINARY, WsServer
from tests.simulation.loop import Process, present
from tests.simulation.network import Network, Way

CONNECT_S = 5.0
IDLE_S = 30.0
REPLY_S = 10.0
_LARGEST_SHORT = 125
_MEDIUM = 126


class Frame(NamedTuple):
    """One frame, as picows hands it to a listener."""

    msg_type: WSMsgType
    payload: bytes
    last_in_buffer: bool = True
    fin: bool = True
    rsv1: bool = False
    rsv2: bool = False
    rsv3: bool = False

    @property
    def payload_size(self) -> int:
        return len(self.payload)

    def get_payload_as_bytes(self) -> bytes:
        return self.payload

    def get_close_code(self) -> WSCloseCode:
        return WSCloseCode(int.from_bytes(self.payload[:2], "big") if self.payload else 1005)

    def get_close_reason(self) -> str:
        return self.payload[2:].decode()


class Transport:
    """One end of a WebSocket, and the socket below it."""

    is_close_frame_sent = False
    upgraded: "asyncio.Future[None] | None" = None
    """Settled when the client has the answer to its request."""

    def __init__(self, listener: Any, way: Way, network: Network) -> None:
        self.peer: Transport
        self.last_heard_s = network.loop.time()
        self._listener = listener
        self._way = way
        self._network = network
        self._is_open = False
        self._is_over = False

    def open(self) -> bool:
        """Lets the listener know, in the process of this end; false when the socket is gone by now."""
        self._is_open = not self._is_over
        if not self._is_open:
            return False
        self._listener.on_ws_connected(self)
        if self.upgraded is not None and not self.upgraded.done():
            self._way.send(_settle, self.upgraded)
        return True

    @property
    def underlying_transport(self) -> "Transport":
        return self

    def get_extra_info(self, name: str) -> tuple[str, int] | None:
        return ("10.0.0.1", 40_000) if name == "peername" else None

    def send(self, msg_type: WSMsgType, payload: bytes) -> None:
        if not self._is_over:
            self._way.send(self.peer.arrived, Frame(msg_type, bytes(payload)))

    def write(self, data: bytes) -> None:
        """Sends several messages whose headers are made."""
        frames: list[Frame] = []
        while data:
            size, start = data[1], 2
            if size > _LARGEST_SHORT:
                start = 4 if size == _MEDIUM else 10
                size = int.from_bytes(data[2:start], "big")
            frames.append(Frame(WSMsgType(data[0] & 0x0F), data[start : start + size], last_in_buffer=False))
            data = data[start + size :]
        frames[-1] = frames[-1]._replace(last_in_buffer=True)
        if not self._is_over:
            self._way.send(self.peer.all_arrived, frames)

    def send_ping(self, payload: bytes = b"") -> None:
        self.send(WSMsgType.PING, payload)

    def send_pong(self, payload: bytes = b"") -> None:
        self.send(WSMsgType.PONG, payload)

    def send_close(self, code: int, reason: bytes | str = b"") -> None:
        said = reason.encode() if isinstance(reason, str) else reason
        self.send(WSMsgType.CLOSE, int(code).to_bytes(2, "big") + said)
        self.is_close_frame_sent = True

    def disconnect(self, *_: Any, **__: Any) -> None:
        """Closes the socket; both listeners hear of it."""
        if not self._is_over:
            self._way.send(self.peer.lost)
            self.lost()

    def all_arrived(self, frames: list[Frame]) -> None:
        for frame in frames:
            self.arrived(frame)

    def arrived(self, frame: Frame) -> None:
        """Takes a frame in the process of this end."""
        if self._is_over:
            return
        self.last_heard_s = self._network.loop.time()
        if frame.msg_type == WSMsgType.PING and not isinstance(self._listener, Connection):
            self.send_pong(frame.payload)
        else:
            self._listener.on_ws_frame(self, frame)

    def lost(self) -> None:
        """Ends the socket, in the process of this end."""
        if not self._is_over:
            self._is_over = True
            self._way.close()
            if self.upgraded is not None and not self.upgraded.done() and not isinstance(self._listener, Connection):
                self.upgraded.set_exception(ConnectionResetError("the edge has gone"))
            if self._is_open:
                asyncio.get_running_loop().call_soon(self._listener.on_ws_disconnected, self)

    def watch(self) -> None:
        """Gives up on silence, as a client of picows does."""
        if not self._is_over:
            loop = self._network.loop
            if loop.time() - self.last_heard_s >= IDLE_S + REPLY_S:
                self.lost()
            else:
                loop.call_later(REPLY_S, self.watch)


async def _upgraded(ours: Transport, theirs: Transport) -> None:
    """Waits for the answer of the edge."""
    upgraded = ours.upgraded = theirs.upgraded = asyncio.get_running_loop().create_future()
    ours._way.send(theirs.open)
    try:
        async with asyncio.timeout(CONNECT_S):
            await upgraded
    except TimeoutError:
        ours.lost()
        raise


def _settle(upgraded: "asyncio.Future[None]") -> None:
    if not upgraded.done():
        upgraded.set_result(None)


class _Listening:
    """Stands for the `asyncio.Server` of an edge."""

    def __init__(self, address: tuple[str, int], close: Callable[[], None]) -> None:
        self._address = address
        self.close = close

    @property
    def sockets(self) -> "list[_Listening]":
        return [self]

    def getsockname(self) -> tuple[str, int]:
        return self._address


class Sockets:
    """Who listens where, and how clients reach them; takes the place of picows' own functions."""

    def __init__(self, network: Network) -> None:
        self._network = network
        self._servers: dict[str, tuple[WsServer, Process]] = {}

    async def listen(self, admit: Any, host: str, port: int, **_: Any) -> _Listening:
        """Stands for `picows.ws_create_server`."""
        name = f"{host}:{port}"
        self._servers[name] = admit.__self__, present()
        return _Listening((host, port), lambda: self._close(name))

    async def connect(self, make_listener: Callable[[], Any], address: str, **_: Any) -> None:
        """Stands for `picows.ws_connect`; raises OSError when nobody is there."""
        place, client = urlsplit(address).netloc, present()
        lots = self._network.lots_of(client.name)
        await asyncio.sleep(lots.uniform(0.001, 0.02))
        found = self._servers.get(place)
        if found is None or found[1].is_dead:
            raise ConnectionRefusedError(f"nobody listens at {place}")
        server, edge = found
        if server._house.sessions.is_draining:
            raise ConnectionRefusedError(f"{place} takes no connections any more")
        if edge.is_paused:
            await asyncio.sleep(CONNECT_S)
            raise TimeoutError(f"{place} does not answer")
        listener = make_listener()
        connection = Connection(server._house, server._codecs[BINARY], place)
        ours = Transport(listener, self._network.way(client, edge), self._network)
        theirs = Transport(connection, self._network.way(edge, client), self._network)
        ours.peer, theirs.peer = theirs, ours
        ours._way.on_break, theirs._way.on_break = theirs.lost, ours.lost
        await _upgraded(ours, theirs)
        if not ours.open():
            raise ConnectionResetError(f"{place} has gone")
        ours.watch()

    def _close(self, name: str) -> None:
        self._servers.pop(name, None)
