"""How the edge says no to a client."""

from __future__ import annotations

from chappe.runtime.errors import ChappeError
from svc_edge.model import CloseCode, Closing


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
