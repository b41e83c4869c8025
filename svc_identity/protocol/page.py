"""Page tokens: a place in a list that only its list and its user can go on from."""

import base64
import binascii
import hashlib
import hmac

from svc_identity.errors import InvalidPageTokenError
from svc_identity.model import UserId

DEFAULT_SIZE = 200
MOST_SIZE = 1000

_TAG_LENGTH = 16


def page_size(asked: int) -> int:
    """Returns how many entries a page has; nonsense is read as the default, too many as the most."""
    return min(asked, MOST_SIZE) if asked > 0 else DEFAULT_SIZE


def page_token(pepper: bytes, what: str, user_id: UserId, after: bytes) -> str:
    """Returns the token that goes on after an entry."""
    return base64.urlsafe_b64encode(_tag(pepper, what, user_id, after) + after).decode()


def page_start(pepper: bytes, what: str, user_id: UserId, token: str) -> bytes:
    """Returns the entry after which a token goes on; nothing for no token.

    Raises:
        InvalidPageTokenError: The token was altered, or made for another list or user.
    """
    if not token:
        return b""
    try:
        raw = base64.b64decode(token.encode(), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raw = b""
    after = raw[_TAG_LENGTH:]
    if not hmac.compare_digest(raw[:_TAG_LENGTH], _tag(pepper, what, user_id, after)):
        raise InvalidPageTokenError("page_token is not one that this call gave to this user; start without one")
    return after


def _tag(pepper: bytes, what: str, user_id: UserId, after: bytes) -> bytes:
    signed = b"\0".join((b"chappe-page", what.encode(), user_id, after))
    return hmac.digest(pepper, signed, hashlib.sha256)[:_TAG_LENGTH]
