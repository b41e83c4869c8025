"""Makes accounts of phone numbers that were verified."""

import unicodedata
from dataclasses import dataclass
from typing import NamedTuple

from chappe.runtime.clock import Seams
from chappe.runtime.errors import InvalidFieldError
from svc_identity.model import CodeCharge, DeviceRef, Grant, Phone, Registration, SendPolicy, UserId, Verification
from svc_identity.ports import RegistrationStore, SmsSender
from svc_identity.protocol.code import CODE_LIFE_MS, TOKEN_LIFE_MS, code_hmac, draw_code, token_hash
from svc_identity.protocol.identifier import draw_uuid7
from svc_identity.protocol.proof import check_signature, register_proof
from svc_identity.protocol.source import ADDRESS_BUDGET, RANGE_BUDGET, holder_of, network_of, range_of

_TOKEN_LENGTH = 32
# Letters and signs by their category, and yet nothing is drawn: fillers of Hangul, the empty pattern of Braille.
_EMPTY_LETTERS = frozenset("\u115f\u1160\u2800\u3164\uffa0")


class Started(NamedTuple):
    """A verification that waits for its code."""

    verification_id: bytes
    resend_after_ms: int
    development_code: str
    """The code itself; empty unless this is a development system."""


class CodeLimits(NamedTuple):
    """How many codes are sent."""

    policy: SendPolicy
    """To one number."""
    per_address: int
    """For clients of one address in an hour; zero for no limit."""
    per_range: int
    """To the numbers of one block in an hour; zero for no limit."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Newcomer:
    """What a person who registers says of itself and its device."""

    public_key: bytes
    profile_name: str
    platform: str


class RegistrationRules:
    """Says who gets an account."""

    def __init__(
        self, store: RegistrationStore, sms: SmsSender, seams: Seams, limits: CodeLimits, pepper: bytes
    ) -> None:
        self._store = store
        self._sms = sms
        self._clock, self._randomness = seams
        self._limits = limits
        self._pepper = pepper

    async def start(self, phone: Phone, address: str, *, shows_code: bool) -> Started:
        """Sends a code; whether the number has an account makes no difference and is not even looked up.

        Args:
            phone: To which number.
            address: Where the request comes from; empty when nobody knows.
            shows_code: Whether the caller is told the code itself.
        """
        now_ms = self._clock.wall_ms()
        code = draw_code(self._randomness)
        verification_id = self._randomness.token(16)
        verification = Verification(
            verification_id=verification_id,
            phone=phone,
            code_hmac=code_hmac(self._pepper, verification_id, code),
            send_ms=now_ms,
            expire_ms=now_ms + CODE_LIFE_MS,
        )
        charges = self._charges(phone, address, now_ms)
        wait_ms = await self._store.open_verification(verification, self._limits.policy, charges)
        await self._sms.send_code(phone, code)
        return Started(verification_id, wait_ms, code if shows_code else "")

    async def check(self, verification_id: bytes, code: str) -> bytes:
        """Returns a registration token for the right code."""
        now_ms = self._clock.wall_ms()
        token = self._randomness.token(_TOKEN_LENGTH)
        grant = Grant(token_hash(token), now_ms + TOKEN_LIFE_MS)
        await self._store.redeem_code(verification_id, code_hmac(self._pepper, verification_id, code), grant, now_ms)
        return token

    async def register(self, token: bytes, newcomer: Newcomer, proof: bytes) -> DeviceRef:
        """Makes the account and its first device."""
        check_signature(newcomer.public_key, proof, register_proof(token))
        now_ms = self._clock.wall_ms()
        return await self._store.register(
            Registration(
                token_hash=token_hash(token),
                user_id=UserId(draw_uuid7(now_ms, self._randomness)),
                public_key=newcomer.public_key,
                profile_name=checked_name(newcomer.profile_name, "profile_name"),
                platform=newcomer.platform,
                now_ms=now_ms,
            )
        )

    def _charges(self, phone: Phone, address: str, now_ms: int) -> list[CodeCharge]:
        budgets = (
            (ADDRESS_BUDGET, network_of(address), self._limits.per_address if address else 0),
            (RANGE_BUDGET, range_of(phone), self._limits.per_range),
        )
        return [
            CodeCharge(budget, holder_of(self._pepper, budget, whom), limit, now_ms)
            for budget, whom, limit in budgets
            if limit
        ]


def checked_name(given: str, field: str) -> str:
    """Returns a name as it is kept, without blanks around it.

    Raises:
        InvalidFieldError: Nothing is left; it tells the field.
    """
    name = given.strip()
    if all(unicodedata.category(letter)[0] in "CZ" or letter in _EMPTY_LETTERS for letter in name):
        raise InvalidFieldError(field, "must show something; it is blank")
    return name
