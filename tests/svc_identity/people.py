"""People who register, and a clock that they all look at."""

import asyncio
import itertools

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chappe.runtime.clock import SystemRandomness
from svc_identity.model import (
    Charge,
    DeviceRef,
    Grant,
    Phone,
    Registration,
    SendPolicy,
    UserId,
    Verification,
)
from svc_identity.ports import IdentityStore
from svc_identity.protocol.identifier import draw_uuid7

START_MS = 1_790_000_000_000
POLICY = SendPolicy(wait_ms=60_000, per_day=5)
RANDOM = SystemRandomness()
_numbers = itertools.count(1)


class ToldClock:
    """A clock that only moves when it is told to."""

    def __init__(self) -> None:
        self.now_ms = START_MS

    def wall_ms(self) -> int:
        return self.now_ms

    def monotonic_s(self) -> float:
        return self.now_ms / 1000

    async def sleep(self, delay_s: float) -> None:
        self.now_ms += int(delay_s * 1000)
        await asyncio.sleep(0)

    def pass_s(self, seconds: float) -> None:
        self.now_ms += int(seconds * 1000)


def new_phone() -> Phone:
    """Returns a number that nobody has used."""
    return Phone(f"+4477{next(_numbers):08d}")


def public_key(key: Ed25519PrivateKey) -> bytes:
    """Returns the 32 bytes of a key's other half."""
    return key.public_key().public_bytes_raw()


def charge(amount: int = 1, limit: int = 500, now_ms: int = START_MS) -> Charge:
    """Returns a charge of the budget "test"."""
    return Charge(budget="test", amount=amount, limit=limit, now_ms=now_ms)


def verification(phone: Phone, now_ms: int = START_MS) -> Verification:
    """Returns a verification whose code has the HMAC "right"."""
    return Verification(
        verification_id=RANDOM.token(16), phone=phone, code_hmac=b"right", send_ms=now_ms, expire_ms=now_ms + 600_000
    )


async def token_for(store: IdentityStore, phone: Phone, now_ms: int = START_MS) -> bytes:
    """Verifies a number; returns the hash of its registration token."""
    opened = verification(phone, now_ms)
    token_hash = RANDOM.token(32)
    await store.registrations.open_verification(opened, SendPolicy(wait_ms=0, per_day=1000))
    grant = Grant(token_hash, now_ms + 300_000)
    await store.registrations.redeem_code(opened.verification_id, b"right", grant, now_ms)
    return token_hash


def registration(token_hash: bytes, name: str = "Ada", key: bytes = b"", now_ms: int = START_MS) -> Registration:
    """Returns a registration of a new device."""
    return Registration(
        token_hash=token_hash,
        user_id=UserId(draw_uuid7(now_ms, RANDOM)),
        public_key=key or RANDOM.token(32),
        profile_name=name,
        platform="test",
        now_ms=now_ms,
    )


async def register(
    store: IdentityStore, phone: Phone | None = None, name: str = "Ada", key: bytes = b"", now_ms: int = START_MS
) -> DeviceRef:
    """Registers a person."""
    token_hash = await token_for(store, phone or new_phone(), now_ms)
    return await store.registrations.register(registration(token_hash, name, key, now_ms))


async def crowd(store: IdentityStore, count: int) -> list[UserId]:
    """Registers several people, one after the other."""
    return [(await register(store)).user_id for _ in range(count)]
