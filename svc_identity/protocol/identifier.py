"""New ids: UUIDv7, whose byte order is the order of time."""

from chappe.runtime.clock import Randomness


def draw_uuid7(now_ms: int, randomness: Randomness) -> bytes:
    """Returns a new id, 16 bytes."""
    raw = bytearray(now_ms.to_bytes(6) + randomness.token(10))
    raw[6] = raw[6] & 0x0F | 0x70
    raw[8] = raw[8] & 0x3F | 0x80
    return bytes(raw)
