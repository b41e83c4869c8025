"""Pages of lists: how long one is, and the token of the next, which belongs to one list of one user."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import Final

from svc_message.errors import InvalidPageTokenError

DEFAULT_PAGE: Final = 50
MAX_PAGE: Final = 200
_CHECK_BYTES: Final = 8


def page_size(asked: int) -> int:
    """Returns how long a page is that somebody asked for."""
    return min(asked, MAX_PAGE) if asked > 0 else DEFAULT_PAGE


def seal_token(scope: bytes, place: bytes) -> str:
    """Returns a token for a place: a checksum ties it to its list. What it may show is decided by the principal."""
    return base64.urlsafe_b64encode(place + _check(scope, place)).decode()


def open_token(scope: bytes, token: str, length: int) -> bytes:
    """Returns the place of a token; raises `InvalidPageTokenError` for one of another list."""
    try:
        raw = base64.b64decode(token, altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        raise InvalidPageTokenError from None
    place = raw[:length]
    if len(raw) != length + _CHECK_BYTES or raw[length:] != _check(scope, place):
        raise InvalidPageTokenError
    return place


def _check(scope: bytes, place: bytes) -> bytes:
    key = hashlib.blake2b(scope, digest_size=32).digest()
    return hashlib.blake2b(place, key=key, digest_size=_CHECK_BYTES).digest()
