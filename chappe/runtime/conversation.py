"""How the id of a direct conversation follows from its two users, so that no client can supply one."""

import hashlib


def direct_conversation(one: bytes, other: bytes) -> bytes:
    """Returns the id of the direct conversation of two users, a UUIDv8; of one user with itself for notes."""
    low, high = (one, other) if one <= other else (other, one)
    digest = bytearray(hashlib.sha256(b"chappe-dm" + low + high).digest()[:16])
    digest[6] = (digest[6] & 0x0F) | 0x80
    digest[8] = (digest[8] & 0x3F) | 0x80
    return bytes(digest)
