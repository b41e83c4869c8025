"""Verifications and accounts in memory."""

import hmac
from collections.abc import Sequence

from svc_identity.adapters.tables_memory import GrantRow, Tables, UserRow, VerificationRow
from svc_identity.errors import InvalidRegistrationTokenError
from svc_identity.model import (
    ChangeKind,
    CodeCharge,
    Contact,
    DeviceRef,
    Grant,
    Phone,
    Registration,
    SendPolicy,
    UserId,
    Verification,
)
from svc_identity.protocol.code import DAY_MS, check_resend, judge_code, verification_missing
from svc_identity.protocol.source import check_code_charge, hour_of


class MemoryRegistrationStore:
    """Keeps verifications and makes accounts, until the process ends."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables
        # Of each budget of codes its hour, and what was used up in it.
        self._codes: dict[tuple[str, bytes], tuple[int, int]] = {}

    async def open_verification(
        self, verification: Verification, policy: SendPolicy, charges: Sequence[CodeCharge] = ()
    ) -> int:
        """Stores a verification; returns how many ms its number waits for the next one."""
        since_ms = verification.send_ms - DAY_MS
        rows = [row.verification for row in self._tables.verifications.values()]
        sent_ms = sorted(row.send_ms for row in rows if row.phone == verification.phone and row.send_ms > since_ms)
        wait_ms = check_resend(sent_ms, policy, verification.send_ms)
        self._codes.update([self._charged(charge) for charge in charges])
        self._tables.verifications[verification.verification_id] = VerificationRow(verification=verification)
        return wait_ms

    async def redeem_code(self, verification_id: bytes, code_hmac: bytes, token: Grant, now_ms: int) -> None:
        """Uses a verification up and stores the registration token that its holder gets."""
        row = self._tables.verifications.get(verification_id)
        if row is None or row.is_used or row.verification.expire_ms <= now_ms:
            raise verification_missing()
        row.attempts += 1
        is_right = hmac.compare_digest(row.verification.code_hmac, code_hmac)
        judge_code(is_right=is_right, attempts=row.attempts)
        row.is_used = True
        self._tables.tokens[token.secret_hash] = GrantRow(expire_ms=token.expire_ms, phone=row.verification.phone)

    async def register(self, registration: Registration) -> DeviceRef:
        """Makes an account or takes it over; the same token and key get the same answer again."""
        token = self._tables.tokens.get(registration.token_hash)
        if token is None or token.phone is None or token.expire_ms <= registration.now_ms:
            raise InvalidRegistrationTokenError("the registration token is unknown or expired; verify again")
        if token.joined is not None:
            if token.public_key != registration.public_key:
                raise InvalidRegistrationTokenError("the registration token was used; verify again")
            return token.joined
        self._end_others(token.phone, registration.token_hash)
        user = self._take_over(token.phone, registration) or self._create(token.phone, registration)
        token.public_key = registration.public_key
        token.joined = self._tables.add_device(
            user, registration.public_key, registration.platform, registration.now_ms
        )
        return token.joined

    def _charged(self, charge: CodeCharge) -> tuple[tuple[str, bytes], tuple[int, int]]:
        key, now = (charge.budget, charge.holder), hour_of(charge.now_ms)
        hour, used = self._codes.get(key, (now, 0))
        # An hour that has begun does not end because for this caller it is still the one before.
        return key, (max(hour, now), check_code_charge(charge, used if hour >= now else 0))

    def _end_others(self, phone: Phone, token_hash: bytes) -> None:
        for row in self._tables.verifications.values():
            row.is_used = row.is_used or row.verification.phone == phone
        for other_hash, other in list(self._tables.tokens.items()):
            if other.phone == phone and other.joined is None and other_hash != token_hash:
                del self._tables.tokens[other_hash]

    def _take_over(self, phone: Phone, registration: Registration) -> UserRow | None:
        user = self._tables.user_of(phone)
        if user is None:
            return None
        for device in self._tables.linked(user.user_id):
            ref = DeviceRef(user.user_id, device.device_id)
            self._tables.revoke(ref, registration.now_ms, is_unlinked=True)
        user.profile_name = registration.profile_name
        self._tables.record(ChangeKind.PROFILE, user.user_id)
        return user

    def _create(self, phone: Phone, registration: Registration) -> UserRow:
        user = UserRow(user_id=registration.user_id, phone=phone, profile_name=registration.profile_name)
        self._tables.users[user.user_id] = user
        self._tables.record(ChangeKind.PROFILE, user.user_id)
        self._link_contacts(phone, user.user_id)
        return user

    def _link_contacts(self, phone: Phone, user_id: UserId) -> None:
        for (owner_id, number), contact in list(self._tables.contacts.items()):
            if number == phone:
                self._tables.contacts[owner_id, number] = Contact(phone=phone, name=contact.name, user_id=user_id)
                self._tables.record(ChangeKind.CONTACTS, owner_id)
