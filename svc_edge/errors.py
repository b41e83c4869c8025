"""How the edge says no to a client."""

from __future__ import annotations

import enum
from typing import NamedTuple

from chappe.runtime.errors import ChappeError


class CloseCode(enum.IntEnum):
    """The close codes of the contract, and those of RFC 6455 that the edge itself sends."""

    NORMAL = 1000
    PROTOCOL_ERROR = 1002
    INVALID_TEXT = 1007
    DRAIN = 4000
    SLOW = 4001
    TIMEOUT = 4002
    RATE = 4100
    OVERLOAD = 4101
    MALFORMED = 4400
    AUTH = 4401
    FORBIDDEN = 4403
    REPLACED = 4409
    TOO_LARGE = 4413


class Closing(NamedTuple):
    """Why a session ends: the close code, the same for people, and when the client may come back."""

    code: CloseCode
    detail: str
    reconnect_after_ms: int = 0


class SessionClosed(Exception):  # noqa: N818 - it says what happens to the session, which need not be an error
    """Ends the session that caused it; the door sends GoAway and the close frame."""

    def __init__(self, code: CloseCode, detail: str, *, reconnect_after_ms: int = 0) -> None:
        super().__init__(detail)
        self.closing = Closing(code, detail, reconnect_after_ms)


class InvalidTokenError(ChappeError):
    """Refuses an access token."""

    code = "UNAUTHENTICATED"
    reason = "INVALID_TOKEN"


class InvalidProofError(ChappeError):
    """Refuses a proof that the device's key is at hand."""

    code = "UNAUTHENTICATED"
    reason = "INVALID_PROOF"


class SessionRevokedError(ChappeError):
    """Refuses a token whose sign-in session was ended."""

    code = "UNAUTHENTICATED"
    reason = "SESSION_REVOKED"


class WrongBootError(ChappeError):
    """Refuses a Push stream that was meant for an earlier start of this process."""

    code = "FAILED_PRECONDITION"
    reason = "MALFORMED"

    def __init__(self, meant: int, actual: int) -> None:
        super().__init__(f"edge_boot_id {meant:016x} is another boot than this one, {actual:016x}: forget its routes")
