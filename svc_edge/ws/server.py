"""Listens for WebSocket clients: who may upgrade, to which sub-protocol, and when their output is written."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any, NamedTuple

import picows
from picows import WSUpgradeResponse, WSUpgradeResponseWithListener

from svc_edge.errors import CloseCode, Closing
from svc_edge.ws.connection import Connection, House
from svc_edge.ws.text import JsonCodec
from svc_edge.ws.wire import MAX_FRAME_BYTES, BinaryCodec

if TYPE_CHECKING:
    from collections.abc import Callable, MutableMapping

    from picows import WSUpgradeRequest

    from svc_edge.protocol.session import Session
    from svc_edge.ws.wire import Codec

BINARY = "chappe.v1"
JSON = "chappe.v1.json"
UPGRADE_TIMEOUT_S = 5.0
READ_BUFFER_BYTES = 1024
# Above the limit of a message, so that the edge can say why it closes; what is far above it picows ends with 1009.
PARSER_LIMIT_BYTES = 2 * MAX_FRAME_BYTES

_PATHS = (b"/", b"/v1")
_HEALTH_PATH = b"/healthz"
_VERSION = "13"
WRITTEN_AT_ONCE = 64
"""How many sessions are written before the loop turns: one message to a large group would take 20 ms otherwise, in
which the edge heard nobody else.
"""

_log = logging.getLogger(__name__)


class UpgradeTerms(NamedTuple):
    """Who may upgrade."""

    origins: frozenset[str]
    """The origins of web pages that may connect; `*` for any. A client that is no browser sends none."""
    may_use_json: bool
    max_connections: int


class WsServer:
    """The listening socket, and the end of each turn of the loop at which sessions are written."""

    def __init__(self, house: House, terms: UpgradeTerms, now_ms: Callable[[], int]) -> None:
        self._house = house
        self._terms = terms
        self._codecs: dict[str, Codec] = {BINARY: BinaryCodec(now_ms)}
        if terms.may_use_json:
            self._codecs[JSON] = JsonCodec(now_ms)
        self._server: asyncio.Server | None = None
        self.accepted = 0
        self._behind: list[Session] = []
        house.sessions.on_dirty = self._flush_soon

    async def start(self, host: str, port: int) -> str:
        """Listens; returns the address as a client dials it, with the port that was given when it was 0."""
        self._server = await picows.ws_create_server(
            self._admit,
            host,
            port,
            websocket_handshake_timeout=UPGRADE_TIMEOUT_S,
            logger_name=_QuietLog(_log, {}),
            enable_auto_pong=False,
            max_frame_size=PARSER_LIMIT_BYTES,
            read_buffer_init_size=READ_BUFFER_BYTES,
            use_aiofastnet=False,
            backlog=4096,
        )
        bound_host, bound_port = self._server.sockets[0].getsockname()[:2]
        return f"ws://[{bound_host}]:{bound_port}/" if ":" in bound_host else f"ws://{bound_host}:{bound_port}/"

    def stop_listening(self) -> None:
        """Takes no new connections."""
        if self._server is not None:
            self._server.close()

    def _admit(self, request: WSUpgradeRequest) -> WSUpgradeResponseWithListener:
        """Answers an HTTP request: with a connection, or with what is wrong."""
        refusal = self._refusal(request)
        if refusal is not None:
            return WSUpgradeResponseWithListener(refusal, None)
        offered = _list_of(request, "Sec-WebSocket-Protocol")
        name = next((name for name in offered if name in self._codecs), None)
        if name is None:
            body = f"offer one of these in Sec-WebSocket-Protocol: {', '.join(self._codecs)}\n"
            return WSUpgradeResponseWithListener(_error(400, body), None)
        # picows wants the header to hold nothing else; browsers send "keep-alive, Upgrade".
        request.headers["Connection"] = "upgrade"
        self.accepted += 1
        connection = Connection(self._house, self._codecs[name], request.headers.get("Host", ""))
        response = WSUpgradeResponse.create_101_response({"Sec-WebSocket-Protocol": name})
        return WSUpgradeResponseWithListener(response, connection)

    def _refusal(self, request: WSUpgradeRequest) -> WSUpgradeResponse | None:
        headers, path = request.headers, request.path.split(b"?", 1)[0]
        is_draining = self._house.sessions.is_draining
        if path == _HEALTH_PATH and not is_draining:
            return _answer(WSUpgradeResponse.create_ok_response(b"ok\n"))
        if path not in (*_PATHS, _HEALTH_PATH):
            return _error(404, "there is nothing here: connect a WebSocket to /\n")
        if is_draining or len(self._house.sessions.by_id) >= self._terms.max_connections:
            return _error(503, "this edge takes no connections at the moment: try again\n", {"Retry-After": "1"})
        if headers.get("Upgrade", "").lower() != "websocket" or "upgrade" not in _list_of(request, "Connection"):
            return _error(426, "this is a WebSocket: upgrade\n", {"Upgrade": "websocket"})
        return self._refuse_headers(request)

    def _refuse_headers(self, request: WSUpgradeRequest) -> WSUpgradeResponse | None:
        headers, allowed = request.headers, self._terms.origins
        if headers.get("Sec-WebSocket-Version") != _VERSION:
            return _error(426, "speak version 13 of WebSocket\n", {"Sec-WebSocket-Version": _VERSION})
        if len(headers.getall("Host", [])) != 1:
            return _error(400, "send exactly one Host header\n")
        origins = headers.getall("Origin", [])
        if not origins or "*" in allowed or (len(origins) == 1 and origins[0] in allowed):
            return None
        return _error(403, "pages of this Origin may not connect: add it to CHAPPE_EDGE_ALLOWED_ORIGINS\n")

    def _flush_soon(self) -> None:
        # While some are behind, the next turn writes anyway.
        if not self._behind:
            asyncio.get_running_loop().call_soon(self._flush_some)

    def _flush_some(self) -> None:
        """Writes what this turn has gathered, and of what is behind; whoever comes now does not wait for those."""
        sessions = self._house.sessions
        dirty, sessions.dirty = sessions.dirty, []
        now = dirty[:WRITTEN_AT_ONCE] + self._behind[:WRITTEN_AT_ONCE]
        self._behind = self._behind[WRITTEN_AT_ONCE:] + dirty[WRITTEN_AT_ONCE:]
        if self._behind:
            asyncio.get_running_loop().call_soon(self._flush_some)
        for session in now:
            try:
                session.door.flush()
            except Exception:  # noqa: BLE001 - a supervisor: a bug in one session must not silence the others
                _log.exception("session %d could not be written", session.session_id)
                session.door.close(Closing(CloseCode.OVERLOAD, "a fault of the edge", 1000))


class _QuietLog(logging.LoggerAdapter[logging.Logger]):
    """Lowers what any client can cause to debug lines; a bug in a listener stays an error."""

    def info(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.debug(msg, *args, **kwargs)

    def error(self, msg: object, *args: object, **kwargs: Any) -> None:
        self.debug(msg, *args, **kwargs)

    def process(self, msg: Any, kwargs: MutableMapping[str, Any]) -> tuple[Any, MutableMapping[str, Any]]:
        return msg, kwargs


def _list_of(request: WSUpgradeRequest, name: str) -> list[str]:
    values = ",".join(request.headers.getall(name, [])).split(",")
    return [value.strip().lower() for value in values]


def _error(status: int, body: str, headers: dict[str, str] | None = None) -> WSUpgradeResponse:
    return _answer(WSUpgradeResponse.create_error_response(status, body.encode(), headers))


def _answer(response: Any) -> WSUpgradeResponse:
    """Gives picows' untyped constructors their type."""
    answer: WSUpgradeResponse = response
    return answer
