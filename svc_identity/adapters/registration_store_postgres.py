"""Verifications and accounts on PostgreSQL."""

import hmac
from collections.abc import Sequence

from svc_identity.adapters.database_postgres import Database, Work, uuid_of
from svc_identity.errors import InvalidRegistrationTokenError
from svc_identity.model import (
    ChangeKind,
    CodeCharge,
    DeviceId,
    DeviceRef,
    Grant,
    Phone,
    Registration,
    SendPolicy,
    UserId,
    Verification,
)
from svc_identity.protocol.code import DAY_MS, MOST_ATTEMPTS, check_resend, judge_code, verification_missing
from svc_identity.protocol.source import check_code_charge, hour_of

_LINK_CONTACTS = """
    WITH linked AS (
        UPDATE contacts SET contact_user_id = %s WHERE phone_e164 = %s AND contact_user_id IS NULL RETURNING owner_id
    ), bumped AS (
        UPDATE users SET version = version + 1 WHERE user_id IN (SELECT owner_id FROM linked) RETURNING user_id, version
    )
    INSERT INTO identity_changes (kind, entity, version) SELECT %s, user_id, version FROM bumped
"""


class PostgresRegistrationStore:
    """Keeps verifications and makes accounts."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def open_verification(
        self, verification: Verification, policy: SendPolicy, charges: Sequence[CodeCharge] = ()
    ) -> int:
        """Stores a verification; returns how many ms its number waits for the next one."""

        async def work(work: Work) -> int:
            await work.lock_phone(verification.phone)
            rows = await work.rows(
                "SELECT send_ms FROM verifications WHERE phone_e164 = %s AND send_ms > %s ORDER BY send_ms",
                *(verification.phone, verification.send_ms - DAY_MS),
            )
            wait_ms = check_resend([row[0] for row in rows], policy, verification.send_ms)
            for charge in charges:
                await _charge_code(work, charge)
            await work.run(
                "INSERT INTO verifications (verification_id, phone_e164, code_hmac, send_ms, expire_ms) "
                "VALUES (%s, %s, %s, %s, %s)",
                *(uuid_of(verification.verification_id), verification.phone, verification.code_hmac),
                *(verification.send_ms, verification.expire_ms),
            )
            return wait_ms

        return await self._database.write(work)

    async def redeem_code(self, verification_id: bytes, code_hmac: bytes, token: Grant, now_ms: int) -> None:
        """Uses a verification up and stores the registration token that its holder gets."""

        async def work(work: Work) -> tuple[bool, int] | None:
            row = await work.row(
                "UPDATE verifications SET attempts = least(attempts + 1, 1000) "
                "WHERE verification_id = %s AND NOT is_used AND expire_ms > %s "
                "RETURNING code_hmac, attempts, phone_e164",
                *(uuid_of(verification_id), now_ms),
            )
            if row is None:
                return None
            is_right = hmac.compare_digest(row[0], code_hmac)
            if is_right and row[1] <= MOST_ATTEMPTS:
                await work.run(
                    "UPDATE verifications SET is_used = true WHERE verification_id = %s", uuid_of(verification_id)
                )
                await work.run(
                    "INSERT INTO registration_tokens (token_hash, phone_e164, expire_ms) VALUES (%s, %s, %s)",
                    *(token.secret_hash, row[2], token.expire_ms),
                )
            return is_right, row[1]

        # Judged after the commit: a refusal must not undo that the attempt was counted.
        attempt = await self._database.write(work)
        if attempt is None:
            raise verification_missing()
        judge_code(is_right=attempt[0], attempts=attempt[1])

    async def register(self, registration: Registration) -> DeviceRef:
        """Makes an account or takes it over; the same token and key get the same answer again."""

        async def work(work: Work) -> DeviceRef:
            # The number before the token: whoever registers it ends its other tokens, also one that is held here.
            named = await work.row(
                "SELECT phone_e164 FROM registration_tokens WHERE token_hash = %s", registration.token_hash
            )
            if named is not None:
                await work.lock_phone(named[0])
            token = await work.row(
                "SELECT phone_e164, public_key, user_id, device_id FROM registration_tokens "
                "WHERE token_hash = %s AND expire_ms > %s FOR UPDATE",
                *(registration.token_hash, registration.now_ms),
            )
            if token is None:
                raise InvalidRegistrationTokenError("the registration token is unknown or expired; verify again")
            if token[1] is not None:
                if token[1] != registration.public_key:
                    raise InvalidRegistrationTokenError("the registration token was used; verify again")
                return DeviceRef(UserId(token[2]), DeviceId(token[3]))
            await _end_others(work, Phone(token[0]), registration.token_hash)
            user_id = await _account(work, Phone(token[0]), registration)
            device = await work.add_device(user_id, registration.public_key, registration.platform, registration.now_ms)
            await work.run(
                "UPDATE registration_tokens SET public_key = %s, user_id = %s, device_id = %s WHERE token_hash = %s",
                *(registration.public_key, uuid_of(user_id), device.device_id, registration.token_hash),
            )
            return device

        return await self._database.write(work)


async def _charge_code(work: Work, charge: CodeCharge) -> None:
    hour = hour_of(charge.now_ms)
    await work.run(
        "INSERT INTO code_budgets (budget, holder, hour, used) VALUES (%s, %s, %s, 0) ON CONFLICT DO NOTHING",
        *(charge.budget, charge.holder, hour),
    )
    row = await work.row(
        "SELECT hour, used FROM code_budgets WHERE budget = %s AND holder = %s FOR UPDATE",
        *(charge.budget, charge.holder),
    )
    # An hour that has begun does not end because here, by another clock, it is still the one before.
    used = row[1] if row is not None and row[0] >= hour else 0
    await work.run(
        "UPDATE code_budgets SET hour = greatest(hour, %s), used = %s WHERE budget = %s AND holder = %s",
        *(hour, check_code_charge(charge, used), charge.budget, charge.holder),
    )


async def _end_others(work: Work, phone: Phone, token_hash: bytes) -> None:
    """Ends the codes that were sent to a number, and its tokens but one and those that were used."""
    # Verifications first: what somebody makes of one meanwhile is among the tokens then.
    await work.run("UPDATE verifications SET is_used = true WHERE phone_e164 = %s AND NOT is_used", phone)
    await work.run(
        "DELETE FROM registration_tokens WHERE phone_e164 = %s AND public_key IS NULL AND token_hash <> %s",
        *(phone, token_hash),
    )


async def _account(work: Work, phone: Phone, registration: Registration) -> UserId:
    """Returns the account of a number that is locked, emptied of its devices, or a new one."""
    known = await work.row("SELECT user_id FROM users WHERE phone_e164 = %s FOR NO KEY UPDATE", phone)
    if known is None:
        await work.run(
            "INSERT INTO users (user_id, phone_e164, profile_name) VALUES (%s, %s, %s)",
            *(uuid_of(registration.user_id), phone, registration.profile_name),
        )
        await work.record(ChangeKind.PROFILE, registration.user_id)
        await work.run(_LINK_CONTACTS, uuid_of(registration.user_id), phone, int(ChangeKind.CONTACTS))
        return registration.user_id
    user_id = UserId(known[0])
    devices = await work.rows(
        "SELECT device_id FROM devices WHERE user_id = %s AND unlink_ms IS NULL ORDER BY device_id",
        uuid_of(user_id),
    )
    for (device_id,) in devices:
        await work.revoke(DeviceRef(user_id, DeviceId(device_id)), registration.now_ms, is_unlinked=True)
    await work.run("UPDATE users SET profile_name = %s WHERE user_id = %s", registration.profile_name, uuid_of(user_id))
    await work.record(ChangeKind.PROFILE, user_id)
    return user_id
