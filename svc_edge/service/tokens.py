"""Reads access tokens and proofs of possession; remembers what was revoked and which nonces were used."""

from __future__ import annotations

import base64
import binascii
import hashlib
from typing import TYPE_CHECKING, Any

import jwt
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from svc_edge.errors import InvalidProofError, InvalidTokenError, SessionRevokedError
from svc_edge.model import Claims, DeviceId, SignInId, UserId

if TYPE_CHECKING:
    from svc_edge.model import Revocation, SignedHello

ISSUER = "chappe"
AUDIENCE = "chappe-edge"
MAX_SKEW_MS = 60_000
"""How far the clocks of a device, or of svc_identity, may be from this edge's."""
NONCE_LIFE_S = 120.0
MAX_NONCES = 100_000
REVOCATION_LIFE_S = 20 * 60.0
"""Longer than any token lives."""

_UUID_BYTES = 16
_KEY_BYTES = 32
_MAX_KEY_ID_CHARACTERS = 64
# The times are checked here, by the injected clock.
_OPTIONS: Any = {
    "require": ["iss", "aud", "sub", "exp", "nbf", "iat"],
    "verify_exp": False,
    "verify_nbf": False,
    "verify_iat": False,
}


def key_id_of(token: str) -> str:
    """Returns the id of the key that a token says it is signed with; raises `InvalidTokenError`."""
    try:
        key_id = jwt.get_unverified_header(token).get("kid")
    except jwt.InvalidTokenError as error:
        raise InvalidTokenError(f"the access token is not a JWT: {error}") from None
    if not isinstance(key_id, str) or not 0 < len(key_id) <= _MAX_KEY_ID_CHARACTERS:
        raise InvalidTokenError("the access token names no key: ask SessionService.CreateSession for one")
    return key_id


def read_claims(token: str, public_key: bytes, now_s: float) -> Claims:
    """Verifies a token and returns what it says; raises `InvalidTokenError`."""
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            Ed25519PublicKey.from_public_bytes(public_key),
            algorithms=["EdDSA"],
            audience=AUDIENCE,
            issuer=ISSUER,
            options=_OPTIONS,
        )
        read = Claims(
            UserId(_identifier(claims, "sub")),
            DeviceId(_whole(claims, "did")),
            SignInId(_identifier(claims, "sid")),
            _whole(claims, "gen"),
            _device_key(claims),
            _whole(claims, "iat"),
            _whole(claims, "exp"),
        )
        not_before_s = _whole(claims, "nbf")
    except jwt.InvalidTokenError as error:
        raise InvalidTokenError(f"the access token does not hold: {error}") from None
    if now_s >= read.expires_s:
        raise InvalidTokenError(f"the access token expired {now_s - read.expires_s:.0f} s ago: ask for a new one")
    if now_s + MAX_SKEW_MS / 1000 < not_before_s:
        raise InvalidTokenError(f"the access token is valid only in {not_before_s - now_s:.0f} s")
    return read


def check_proof(hello: SignedHello, claims: Claims, hosts: frozenset[str], now_ms: int) -> None:
    """Checks that whoever says Hello holds the device's key; raises `InvalidProofError`."""
    off_ms = hello.timestamp_ms - now_ms
    if abs(off_ms) > MAX_SKEW_MS:
        raise InvalidProofError(
            f"signed.timestamp_ms is {off_ms:+d} ms off the server's time: at most 60 s are allowed"
        )
    if hello.host not in hosts:
        raise InvalidProofError(f"signed.host is {hello.host!r}, which is not the host that was dialled")
    try:
        Ed25519PublicKey.from_public_bytes(claims.device_key).verify(hello.signature, proof_bytes(hello))
    except InvalidSignature:
        raise InvalidProofError("signed.signature is not of the device that the access token was made for") from None


def proof_bytes(hello: SignedHello) -> bytes:
    """Returns what the device signs."""
    token_hash = hashlib.sha256(hello.access_token.encode()).digest()
    timestamp = hello.timestamp_ms.to_bytes(8, "big", signed=True)
    return b"chappe-hello/1\0" + token_hash + timestamp + hello.nonce + hello.host.encode()


class Nonces:
    """The nonces that this edge has seen lately; the registry's own are shared by all edges."""

    def __init__(self) -> None:
        self._used: dict[bytes, float] = {}

    def use(self, nonce: bytes, now_s: float) -> None:
        """Takes a nonce; raises `InvalidProofError` for one that was used in the last 120 s."""
        used = self._used
        while used and (next(iter(used.values())) <= now_s - NONCE_LIFE_S or len(used) >= MAX_NONCES):
            del used[next(iter(used))]
        if nonce in used:
            raise InvalidProofError("signed.nonce was used before: draw a new one and sign again")
        used[nonce] = now_s


class Revocations:
    """The sign-in sessions that ended lately, for as long as a token of theirs could live."""

    def __init__(self) -> None:
        self._sign_ins: dict[bytes, float] = {}
        self._devices: dict[tuple[UserId, DeviceId], float] = {}

    def add(self, revocation: Revocation, now_s: float) -> None:
        """Remembers a revocation; `now_s` is Unix time."""
        if revocation.sign_in_id:
            self._sign_ins[revocation.sign_in_id] = now_s
        else:
            self._devices[revocation.user_id, revocation.device_id] = now_s

    def check(self, claims: Claims) -> None:
        """Raises `SessionRevokedError` for a token of a session that ended."""
        revoked_s = self._devices.get((claims.user_id, claims.device_id), 0.0)
        if claims.sign_in_id in self._sign_ins or claims.issued_s <= revoked_s:
            raise SessionRevokedError("the sign-in session of this access token was ended: sign in again")

    def forget(self, now_s: float) -> None:
        """Forgets what no token can refer to any more."""
        oldest_s = now_s - REVOCATION_LIFE_S
        self._sign_ins = {name: at_s for name, at_s in self._sign_ins.items() if at_s > oldest_s}
        self._devices = {name: at_s for name, at_s in self._devices.items() if at_s > oldest_s}


def _identifier(claims: dict[str, Any], name: str) -> bytes:
    try:
        value = bytes.fromhex(claims[name])
    except (KeyError, TypeError, ValueError):
        value = b""
    if len(value) != _UUID_BYTES:
        raise jwt.InvalidTokenError(f"{name} is not an id of 16 bytes as hex")
    return value


def _whole(claims: dict[str, Any], name: str) -> int:
    value = claims.get(name)
    if not isinstance(value, int) or value < 0:
        raise jwt.InvalidTokenError(f"{name} is not a whole number")
    return value


def _device_key(claims: dict[str, Any]) -> bytes:
    try:
        text = claims["cnf"]["x"]
        key = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (KeyError, TypeError, ValueError, binascii.Error):
        key = b""
    if len(key) != _KEY_BYTES:
        raise jwt.InvalidTokenError("cnf.x is not an Ed25519 key")
    return key
