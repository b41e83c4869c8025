"""Cursors of the log of changes as bytes, and the names of its changes."""

import hashlib

from svc_identity.errors import CursorExpiredError
from svc_identity.model import Change, Cursor

_VERSION = 1
_MOST_BYTES = 900
_HEADER_LENGTH = 17
_VARINT_MOST_BITS = 63
_MORE = 0x80
"""Set in every byte of a varint but its last."""


def encode_cursor(cursor: Cursor) -> bytes:
    """Returns a cursor as readers keep it.

    One with very many running transactions is rounded down to the oldest of them: its reader sees some changes twice
    and loses none.
    """
    deltas = bytearray()
    before = cursor.xmin
    for xid in (*cursor.running, cursor.xmax):
        deltas += _varint(xid - before)
        before = xid
    head = bytes((_VERSION,)) + cursor.epoch.to_bytes(8) + cursor.xmin.to_bytes(8)
    return head + (deltas if len(deltas) <= _MOST_BYTES else _varint(0))


def decode_cursor(raw: bytes) -> Cursor:
    """Returns the cursor that a reader kept.

    Raises:
        CursorExpiredError: These bytes are not one.
    """
    if len(raw) <= _HEADER_LENGTH or raw[0] != _VERSION:
        raise CursorExpiredError("the cursor cannot be read; forget what is cached and start with an empty one")
    xmin = int.from_bytes(raw[9:_HEADER_LENGTH])
    places: list[int] = []
    place, value, shift = xmin, 0, 0
    for byte in raw[_HEADER_LENGTH:]:
        value |= (byte & 0x7F) << shift
        shift += 7
        if byte < _MORE or shift > _VARINT_MOST_BITS:
            place += value
            places.append(place)
            value, shift = 0, 0
    if shift or not places or places[-1] >= 1 << 63:
        raise CursorExpiredError("the cursor was cut off or altered; forget what is cached and start with an empty one")
    return Cursor(int.from_bytes(raw[1:9]), xmin, places[-1], tuple(places[:-1]))


def has_seen(cursor: Cursor, xid: int) -> bool:
    """Tells whether a transaction was over, and so its changes visible, when the cursor was taken."""
    if xid < cursor.xmin:
        return True
    return xid < cursor.xmax and xid not in cursor.running


def change_id(epoch: int, change: Change, *, is_for_others: bool) -> bytes:
    """Returns the name under which a change is told to inboxes, the same for ever."""
    parts = (b"chappe-change", epoch.to_bytes(8), change.number.to_bytes(8), bytes((is_for_others,)))
    digest = bytearray(hashlib.sha256(b"".join(parts)).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return bytes(digest)


def _varint(value: int) -> bytes:
    encoded = bytearray()
    while value >= _MORE:
        encoded.append(value & 0x7F | _MORE)
        value >>= 7
    encoded.append(value)
    return bytes(encoded)
