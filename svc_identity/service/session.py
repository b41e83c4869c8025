"""Signs devices in and out."""

from typing import NamedTuple

from chappe.runtime.clock import Seams
from chappe.runtime.errors import RateLimitedError, UnavailableError
from svc_identity.errors import DeviceUnlinkedError
from svc_identity.model import DeviceId, DeviceRef, Session, SessionId, SignIn, SigningKey, UserId
from svc_identity.ports import SessionStore
from svc_identity.protocol.identifier import draw_uuid7
from svc_identity.protocol.proof import WINDOW_MS, check_signature, check_time, session_proof, wrong_signature
from svc_identity.protocol.token import (
    ROTATE_LEAST_MS,
    SIGN_DELAY_MS,
    AccessToken,
    draw_signing_key,
    mint,
    public_key_of,
    signer_of,
)

KEYS_LIFE_S = 20.0
"""How long keys are remembered; shorter than what a new key waits before it signs."""
# A proof may be dated ahead by one window, and the clocks of two replicas may differ by another.
_NONCE_LIFE_MS = 3 * WINDOW_MS


class Proof(NamedTuple):
    """What a device shows to sign in."""

    timestamp_ms: int
    nonce: bytes
    signature: bytes


class PublicKey(NamedTuple):
    """By which tokens are verified."""

    key_id: str
    public_key: bytes


class SessionRules:
    """Says which device is signed in."""

    def __init__(self, store: SessionStore, seams: Seams) -> None:
        self._store = store
        self._clock, self._randomness = seams
        self._keys: list[SigningKey] = []
        self._keys_until_s = 0.0

    async def sign_in(self, ref: DeviceRef, proof: Proof) -> tuple[Session, AccessToken]:
        """Returns the device's session and a fresh token of it."""
        now_ms = self._clock.wall_ms()
        check_time(proof.timestamp_ms, now_ms)
        device = await self._store.find_device(ref)
        if device is None:
            # In the same words, or anybody could ask which devices an account has.
            raise wrong_signature()
        check_signature(device.public_key, proof.signature, session_proof(ref, proof.timestamp_ms, proof.nonce))
        if not device.is_linked:
            raise DeviceUnlinkedError("this device was unlinked; register or link it again")
        key = await self._signer(now_ms)
        session = await self._store.open_session(
            SignIn(
                device=ref,
                nonce=proof.nonce,
                nonce_expire_ms=now_ms + _NONCE_LIFE_MS,
                session_id=SessionId(draw_uuid7(now_ms, self._randomness)),
                now_ms=now_ms,
            )
        )
        return session, mint(key, ref.user_id, device, session, now_ms)

    async def sessions(self, user_id: UserId) -> list[Session]:
        """Returns the sessions that are not revoked, by device."""
        return await self._store.list_sessions(user_id)

    async def revoke(self, user_id: UserId, target: SessionId | DeviceId) -> None:
        """Ends a session, or all of a device."""
        now_ms = self._clock.wall_ms()
        if isinstance(target, bytes):
            await self._store.revoke_session(user_id, target, now_ms)
        else:
            await self._store.revoke_device(DeviceRef(user_id, target), now_ms)

    async def public_keys(self) -> list[PublicKey]:
        """Returns the keys by which tokens are verified, the newest first; always as they are now."""
        keys = await self._store.signing_keys()
        return [PublicKey(key.key_id, public_key_of(key)) for key in keys]

    async def ensure_key(self) -> None:
        """Makes the first signing key if there is none; it signs at once."""
        now_ms = self._clock.wall_ms()
        key = draw_signing_key(self._randomness, now_ms, sign_from_ms=now_ms)
        await self._store.add_signing_key(key, is_first=True)

    async def rotate_key(self) -> str:
        """Makes a new signing key, which signs in a minute, and retires the oldest; returns the new one's id.

        Raises:
            RateLimitedError: The newest key is so young that tokens of the one before it still live.
        """
        now_ms = self._clock.wall_ms()
        keys = await self._store.signing_keys()
        ready_ms = keys[0].create_ms + ROTATE_LEAST_MS if keys else now_ms
        if ready_ms > now_ms:
            raise RateLimitedError("signing key rotation", retry_after_ms=ready_ms - now_ms)
        key = draw_signing_key(self._randomness, now_ms, sign_from_ms=now_ms + SIGN_DELAY_MS)
        await self._store.add_signing_key(key, is_first=False)
        return key.key_id

    async def _signer(self, now_ms: int) -> SigningKey:
        now_s = self._clock.monotonic_s()
        if now_s >= self._keys_until_s or not self._keys:
            self._keys = await self._store.signing_keys()
            self._keys_until_s = now_s + KEYS_LIFE_S
        key = signer_of(self._keys, now_ms)
        if key is None:
            raise UnavailableError("signing keys", "there is none; restart svc_identity, which makes the first")
        return key
