"""Frames as bytes: the binary sub-protocol.

What travels by the thousand is never parsed: a frame that holds a Send and nothing else is cut open by its length, and
an Events frame is joined from the bytes of its items. A test holds both to what protobuf itself would do.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from google.protobuf.message import DecodeError

from chappe.api.edge.v1 import client_frame_pb2, server_frame_pb2
from chappe.api.type.v1 import error_reason_pb2
from chappe.runtime.errors import reason_value
from svc_edge.errors import CloseCode, Closing, SessionClosed
from svc_edge.model import CallDone, CallFailed, CaughtUp, Pong, Resync, Welcome, mint_tag
from svc_edge.ws.presence import presence_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from svc_edge.model import Frame, PresenceFrame

MAX_FRAME_BYTES = 256 * 1024
HEARTBEAT_MS = 20_000

_SEND_TAG = 0x12
_ACK_TAG = 0x1A
_COUNT_TAG = 0x08
_SHORT = 0x80
_GRPC_CODES = {
    "INVALID_ARGUMENT": 3,
    "NOT_FOUND": 5,
    "ALREADY_EXISTS": 6,
    "PERMISSION_DENIED": 7,
    "RESOURCE_EXHAUSTED": 8,
    "FAILED_PRECONDITION": 9,
    "ABORTED": 10,
    "INTERNAL": 13,
    "UNAVAILABLE": 14,
    "UNAUTHENTICATED": 16,
}
_UNKNOWN = 2
_SHORTEST_ACK = 4
_LONGEST_ACK = 10
"""A count of seven bytes, which no session reaches; protobuf takes care of longer ones."""


class Codec(Protocol):
    """One sub-protocol."""

    is_text: bool

    def read(self, payload: bytes) -> client_frame_pb2.ClientFrame:
        """Parses a message of a client; raises `SessionClosed`."""
        ...

    def write(self, frame: Frame | CaughtUp | Closing) -> bytes:
        """Returns the payload of a message to a client."""
        ...

    def events(self, items: Sequence[bytes], cursor: bytes) -> bytes:
        """Returns the payload of an Events frame."""
        ...


class BinaryCodec:
    """The sub-protocol `chappe.v1`."""

    is_text = False

    def __init__(self, now_ms: Callable[[], int]) -> None:
        self._now_ms = now_ms
        self._last_item = b""
        self._last_frame = b""

    def read(self, payload: bytes) -> client_frame_pb2.ClientFrame:
        """Parses a message of a client; raises `SessionClosed`."""
        try:
            return client_frame_pb2.ClientFrame.FromString(payload)
        except DecodeError:
            detail = "the bytes are not a ClientFrame: wrong lengths, wire types or nesting, or text that is not UTF-8"
            raise SessionClosed(CloseCode.MALFORMED, detail) from None

    def write(self, frame: Frame | CaughtUp | Closing) -> bytes:
        """Returns the serialised ServerFrame."""
        return frame if isinstance(frame, bytes) else server_frame(frame, self._now_ms()).SerializeToString()

    def events(self, items: Sequence[bytes], cursor: bytes) -> bytes:
        """Returns a serialised ServerFrame with Events; an item for many sessions is joined once."""
        if cursor or len(items) != 1:
            return events_frame(items, cursor)
        if items[0] is not self._last_item:
            self._last_item, self._last_frame = items[0], events_frame(items, b"")
        return self._last_frame


def send_of(payload: bytes) -> bytes | None:
    """Returns the Send of a ClientFrame that holds nothing else, by its lengths alone; None for any other frame."""
    size = len(payload)
    if size < 3 or payload[0] != _SEND_TAG:  # noqa: PLR2004 - tag, length and at least one byte
        return None
    length, start = payload[1], 2
    if length >= _SHORT:
        length = length & 0x7F | payload[2] << 7
        start = 3
        if payload[2] >= _SHORT:
            if size < 4 or payload[3] >= _SHORT:  # noqa: PLR2004 - a length of three bytes goes to 2 MiB
                return None
            length = length & 0x3FFF | payload[3] << 14
            start = 4
    return payload[start:] if start + length == size else None


def ack_count_of(payload: bytes) -> int:
    """Returns the count of a ClientFrame that holds an Ack by count and nothing else; zero for any other frame."""
    size = len(payload)
    if (
        not _SHORTEST_ACK <= size <= _LONGEST_ACK
        or payload[0] != _ACK_TAG
        or payload[1] != size - 2
        or payload[2] != _COUNT_TAG
    ):
        return 0
    count = shift = 0
    for byte in payload[3:-1]:
        if byte < _SHORT:
            return 0
        count |= (byte & 0x7F) << shift
        shift += 7
    last = payload[-1]
    return count | last << shift if last < _SHORT else 0


def events_frame(items: Sequence[bytes], cursor: bytes) -> bytes:
    """Returns a serialised ServerFrame with Events."""
    parts: list[bytes] = []
    for item in items:
        parts += (b"\x0a", varint(len(item)), item)
    if cursor:
        parts += (b"\x12", varint(len(cursor)), cursor)
    body = b"".join(parts)
    return b"\x22" + varint(len(body)) + body


def varint(value: int) -> bytes:
    """Returns a number as a protobuf varint."""
    if value < _SHORT:
        return bytes((value,))
    parts = bytearray()
    while value >= _SHORT:
        parts.append(value & 0x7F | _SHORT)
        value >>= 7
    parts.append(value)
    return bytes(parts)


def server_frame(
    frame: Welcome | Resync | Pong | CallDone | CallFailed | CaughtUp | Closing | PresenceFrame, now_ms: int
) -> server_frame_pb2.ServerFrame:
    """Returns a frame as its message of the contract."""
    made = server_frame_pb2.ServerFrame()
    match frame:
        case Welcome():
            made.welcome.CopyFrom(_welcome(frame, now_ms))
        case CaughtUp():
            made.caught_up.cursor = frame.cursor
            made.caught_up.SetInParent()
        case Resync():
            made.resync.reason = error_reason_pb2.ERROR_REASON_CURSOR_EXPIRED
            made.resync.detail = frame.detail
        case Pong():
            made.pong.client_ms, made.pong.server_ms = frame.client_ms, now_ms
            made.pong.newest_position = frame.newest_position
        case CallDone() | CallFailed():
            made.call_result.CopyFrom(_call_result(frame))
        case Closing():
            made.go_away.close_code, made.go_away.detail = frame.code, frame.detail
            made.go_away.reconnect_after_ms = frame.reconnect_after_ms
        case _:
            made = presence_frame(frame)
    return made


def _welcome(frame: Welcome, now_ms: int) -> server_frame_pb2.Welcome:
    member = frame.member
    welcome = server_frame_pb2.Welcome(
        session_id=frame.session_id,
        server_ms=now_ms,
        heartbeat_ms=HEARTBEAT_MS,
        send_window=frame.send_window,
        receive_window=frame.receive_window,
        max_frame_bytes=MAX_FRAME_BYTES,
    )
    if member is not None:
        welcome.user_id, welcome.device_id = member.user_id, member.device_id
        welcome.mint_tag = mint_tag(member.user_id, member.device_id)
    return welcome


def _call_result(frame: CallDone | CallFailed) -> server_frame_pb2.CallResult:
    if isinstance(frame, CallDone):
        return server_frame_pb2.CallResult(id=frame.call_id, payload=frame.payload)
    return server_frame_pb2.CallResult(id=frame.call_id, error=_call_error(frame))


def _call_error(frame: CallFailed) -> server_frame_pb2.CallError:
    return server_frame_pb2.CallError(
        code=_GRPC_CODES.get(frame.code, _UNKNOWN),
        reason=reason_value(frame.reason),
        detail=frame.detail,
        metadata=frame.metadata,
        retry_after_ms=frame.retry_after_ms,
    )
