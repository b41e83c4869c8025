"""What RFC 6455 asks of a reader and picows leaves to its user: reserved bits, fragments, close codes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from picows import WSMsgType

from svc_edge.errors import CloseCode, SessionClosed
from svc_edge.ws.wire import MAX_FRAME_BYTES

if TYPE_CHECKING:
    from picows import WSFrame

MAX_FRAGMENTS = 16
_LAST_PRIVATE_CODE = 4999


class Assembler:
    """Puts the fragments of one message together."""

    __slots__ = ("_is_text", "_parts", "_size")

    def __init__(self) -> None:
        self._parts: list[bytes] = []
        self._size = 0
        self._is_text = False

    @property
    def is_open(self) -> bool:
        """Whether a fragmented message waits for its end."""
        return bool(self._parts)

    def add(self, frame: WSFrame) -> tuple[bytes, bool] | None:
        """Takes a data frame; returns the whole message and whether it is text, or None. Raises `SessionClosed`."""
        is_continuation = frame.msg_type == WSMsgType.CONTINUATION
        if is_continuation is not self.is_open:
            what = "a continuation without a beginning" if is_continuation else "a new message inside a fragmented one"
            raise SessionClosed(CloseCode.PROTOCOL_ERROR, f"RFC 6455, 5.4: {what}")
        if not is_continuation:
            self._is_text = frame.msg_type == WSMsgType.TEXT
        check_size(self._size + frame.payload_size)
        if len(self._parts) == MAX_FRAGMENTS:
            raise SessionClosed(CloseCode.MALFORMED, f"a message of more than {MAX_FRAGMENTS} fragments")
        self._parts.append(frame.get_payload_as_bytes())
        self._size += frame.payload_size
        if not frame.fin:
            return None
        parts, self._parts, self._size = self._parts, [], 0
        return b"".join(parts), self._is_text


def check_size(size: int) -> None:
    """Raises `SessionClosed` for a message above the limit."""
    if size > MAX_FRAME_BYTES:
        detail = f"a message of {size} bytes or more, the most is {MAX_FRAME_BYTES}"
        raise SessionClosed(CloseCode.TOO_LARGE, detail)


def check_reserved(frame: WSFrame) -> None:
    """Raises `SessionClosed` for reserved bits: no extension is ever agreed."""
    if frame.rsv1 or frame.rsv2 or frame.rsv3:
        raise SessionClosed(CloseCode.PROTOCOL_ERROR, "RFC 6455, 5.2: a reserved bit is set and no extension agreed")


def close_answer(frame: WSFrame) -> CloseCode:
    """Returns the code that answers a client's close frame; picows has refused the invalid ones below 3000."""
    code = int.from_bytes(frame.get_payload_as_bytes()[:2], "big")
    if code > _LAST_PRIVATE_CODE:
        return CloseCode.PROTOCOL_ERROR
    return CloseCode.NORMAL


def check_utf8(payload: bytes) -> None:
    """Raises `SessionClosed` for text that is not UTF-8."""
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        detail = f"RFC 6455, 8.1: the text is not UTF-8 at byte {error.start}"
        raise SessionClosed(CloseCode.INVALID_TEXT, detail) from None
