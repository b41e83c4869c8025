"""New ids: UUIDv7, whose byte order is the order of time, and ids that a request fixes."""

import hashlib

from chappe.runtime.clock import Randomness


def draw_uuid7(now_ms: int, randomness: Randomness) -> bytes:
    """Returns a new id, 16 bytes."""
    raw = bytearray(now_ms.to_bytes(6) + randomness.token(10))
    raw[6] = raw[6] & 0x0F | 0x70
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)


def requested_id(what: str, user_id: bytes, request_id: bytes) -> bytes:
    """Returns the id of what a user asks for under an id of its own, the same for every retry.

    Its version is 7 although it holds no time: by the version svc_message tells the conversation of a group from a
    direct one, whose id is a UUIDv8.
    """
    raw = bytearray(hashlib.sha256(b"\0".join((what.encode(), user_id, request_id))).digest()[:16])
    raw[6] = raw[6] & 0x0F | 0x70
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)
