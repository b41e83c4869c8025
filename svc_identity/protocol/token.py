"""Access tokens: short-lived, signed with EdDSA, and worthless without the device's key."""

import base64
from typing import NamedTuple

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chappe.runtime.clock import Randomness
from svc_identity.model import Device, Session, SigningKey, UserId

TOKEN_LIFE_S = 15 * 60
"""How long an access token works."""
SIGN_DELAY_MS = 60_000
"""How long edges have to fetch a new key before tokens bear it."""
ROTATE_LEAST_MS = 20 * 60_000
"""How young a key may not be replaced: tokens of the one before it still live."""

_ISSUER = "chappe"
_AUDIENCE = "chappe-edge"


class AccessToken(NamedTuple):
    """A token and its end."""

    value: str
    expire_ms: int


def draw_signing_key(randomness: Randomness, now_ms: int, *, sign_from_ms: int) -> SigningKey:
    """Returns a new key."""
    return SigningKey(
        key_id=randomness.token(8).hex(),
        private_key=randomness.token(32),
        create_ms=now_ms,
        sign_from_ms=sign_from_ms,
    )


def public_key_of(key: SigningKey) -> bytes:
    """Returns the 32 bytes by which a key's tokens are verified."""
    return Ed25519PrivateKey.from_private_bytes(key.private_key).public_key().public_bytes_raw()


def signer_of(keys: list[SigningKey], now_ms: int) -> SigningKey | None:
    """Returns the newest key that may sign by now; the oldest when none may, None when there is none."""
    ready = [key for key in keys if key.sign_from_ms <= now_ms]
    chosen = ready or keys[-1:]
    return chosen[0] if chosen else None


def mint(key: SigningKey, user_id: UserId, device: Device, session: Session, now_ms: int) -> AccessToken:
    """Returns an access token of a session."""
    issued_s = now_ms // 1000
    expire_s = issued_s + TOKEN_LIFE_S
    claims = {
        "iss": _ISSUER,
        "aud": _AUDIENCE,
        "sub": user_id.hex(),
        "did": session.device_id,
        "sid": session.session_id.hex(),
        "gen": session.generation,
        "cnf": {"x": base64.urlsafe_b64encode(device.public_key).rstrip(b"=").decode()},
        "iat": issued_s,
        "nbf": issued_s,
        "exp": expire_s,
    }
    private_key = Ed25519PrivateKey.from_private_bytes(key.private_key)
    value = jwt.encode(claims, private_key, algorithm="EdDSA", headers={"kid": key.key_id})
    return AccessToken(value, expire_s * 1000)
