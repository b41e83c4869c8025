"""What devices sign to show that they hold their key."""

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from svc_identity.errors import InvalidProofError
from svc_identity.model import DeviceRef

WINDOW_MS = 60_000
"""How far the time in a proof may be from the server's."""

_REGISTER = b"chappe-register/1\0"
_LINK = b"chappe-link/1\0"
_SESSION = b"chappe-session/1\0"
# For these keys anybody can make signatures: the points of small order, by their y without the sign of x.
# Source: libsodium, ge25519_has_small_order.
_WEAK_KEYS = frozenset(
    bytes.fromhex(encoded)
    for encoded in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)


def register_proof(token: bytes) -> bytes:
    """Returns the bytes that a new account's first device signs."""
    return _REGISTER + token


def link_proof(link_code: str) -> bytes:
    """Returns the bytes that a device which joins an account signs."""
    return _LINK + link_code.encode("ascii")


def session_proof(device: DeviceRef, timestamp_ms: int, nonce: bytes) -> bytes:
    """Returns the bytes that a device signs to sign in."""
    return b"".join(
        (_SESSION, device.user_id, device.device_id.to_bytes(4), timestamp_ms.to_bytes(8), nonce),
    )


def check_signature(public_key: bytes, signature: bytes, signed: bytes) -> None:
    """Returns when the signature is the key's.

    Raises:
        InvalidProofError: It is not, or the key is not one.
    """
    if public_key[:-1] + bytes((public_key[-1] & 0x7F,)) in _WEAK_KEYS:
        raise InvalidProofError("this key is one for which anybody can sign; make a random one")
    try:
        Ed25519PublicKey.from_public_bytes(public_key).verify(signature, signed)
    except (InvalidSignature, ValueError) as error:
        raise wrong_signature() from error


def wrong_signature() -> InvalidProofError:
    """Returns the refusal of a signature that is not the device's; also of one for a device that does not exist."""
    return InvalidProofError(
        "the signature is not the device key's over the bytes that the contract names; sign those, with that key"
    )


def check_time(timestamp_ms: int, now_ms: int) -> None:
    """Returns when a proof is young enough.

    Raises:
        InvalidProofError: It is too old, or from the future.
    """
    if abs(now_ms - timestamp_ms) > WINDOW_MS:
        raise InvalidProofError(
            f"the proof's time is {timestamp_ms - now_ms:+d} ms from the server's, {WINDOW_MS} are allowed; "
            f"correct the clock: it is {now_ms} here",
        )
