"""Sign-in sessions and signing keys on PostgreSQL."""

from svc_identity.adapters.database_postgres import Database, Row, Work, uuid_of
from svc_identity.errors import (
    DeviceNotFoundError,
    DeviceUnlinkedError,
    InvalidProofError,
    SessionNotFoundError,
)
from svc_identity.model import (
    NO_USER,
    ChangeKind,
    Device,
    DeviceId,
    DeviceRef,
    Session,
    SessionId,
    SignIn,
    SigningKey,
    UserId,
)

# Any number would do, as long as every replica uses the same: the ASCII of "signkeys".
_KEYS_LOCK = int.from_bytes(b"signkeys")


class PostgresSessionStore:
    """Keeps sign-in sessions and signing keys."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def find_device(self, device: DeviceRef) -> Device | None:
        """Returns a device, also an unlinked one."""
        async with self._database.read() as work:
            row = await work.row(
                "SELECT device_id, public_key, platform, generation, link_ms, unlink_ms IS NULL FROM devices "
                "WHERE (user_id, device_id) = (%s, %s)",
                *(uuid_of(device.user_id), device.device_id),
            )
        return None if row is None else device_of(row)

    async def open_session(self, sign_in: SignIn) -> Session:
        """Takes the nonce and returns the device's session, a new one if it has none."""
        device = sign_in.device

        async def work(work: Work) -> Session:
            known = await work.row(
                "SELECT generation FROM devices WHERE (user_id, device_id) = (%s, %s) AND unlink_ms IS NULL "
                "FOR NO KEY UPDATE",
                *(uuid_of(device.user_id), device.device_id),
            )
            if known is None:
                raise DeviceUnlinkedError("this device was unlinked; register or link it again")
            await _take_nonce(work, sign_in)
            row = await work.row(
                "INSERT INTO auth_sessions (session_id, user_id, device_id, create_ms, refresh_ms) "
                "VALUES (%s, %s, %s, %s, %s) ON CONFLICT (user_id, device_id) WHERE revoke_ms IS NULL "
                "DO UPDATE SET refresh_ms = excluded.refresh_ms "
                "RETURNING session_id, device_id, %s::int, create_ms, refresh_ms",
                *(uuid_of(sign_in.session_id), uuid_of(device.user_id), device.device_id),
                *(sign_in.now_ms, sign_in.now_ms, known[0]),
            )
            if row is None:
                raise AssertionError("an upsert returns its row")
            return _session_of(row)

        return await self._database.write(work)

    async def list_sessions(self, user_id: UserId) -> list[Session]:
        """Returns the sessions that are not revoked, by device."""
        async with self._database.read() as work:
            rows = await work.rows(
                "SELECT s.session_id, s.device_id, d.generation, s.create_ms, s.refresh_ms "
                "FROM auth_sessions s JOIN devices d USING (user_id, device_id) "
                "WHERE s.user_id = %s AND s.revoke_ms IS NULL ORDER BY s.device_id",
                uuid_of(user_id),
            )
        return [_session_of(row) for row in rows]

    async def revoke_session(self, user_id: UserId, session_id: SessionId, now_ms: int) -> None:
        """Ends a session; one that has ended stays so."""

        async def work(work: Work) -> None:
            row = await work.row(
                "SELECT device_id FROM auth_sessions WHERE session_id = %s AND user_id = %s",
                *(uuid_of(session_id), uuid_of(user_id)),
            )
            if row is None:
                raise SessionNotFoundError("this account has no such session; list its sessions")
            device = DeviceRef(user_id, DeviceId(row[0]))
            await work.row(
                "SELECT 1 FROM devices WHERE (user_id, device_id) = (%s, %s) FOR NO KEY UPDATE",
                *(uuid_of(user_id), device.device_id),
            )
            is_live = await work.row(
                "SELECT 1 FROM auth_sessions WHERE session_id = %s AND revoke_ms IS NULL", uuid_of(session_id)
            )
            if is_live is not None:
                await work.revoke(device, now_ms, is_unlinked=False)

        await self._database.write(work)

    async def revoke_device(self, device: DeviceRef, now_ms: int) -> None:
        """Ends all sessions of a device."""

        async def work(work: Work) -> None:
            if not await work.revoke(device, now_ms, is_unlinked=False):
                raise DeviceNotFoundError("this account has no such device; list its devices")

        await self._database.write(work)

    async def signing_keys(self) -> list[SigningKey]:
        """Returns the keys that count, at most two, the newest first."""
        async with self._database.read() as work:
            rows = await work.rows(
                "SELECT key_id, private_key, create_ms, sign_from_ms FROM signing_keys "
                "ORDER BY create_ms DESC, key_id LIMIT 2"
            )
        return [SigningKey(key_id=row[0], private_key=row[1], create_ms=row[2], sign_from_ms=row[3]) for row in rows]

    async def add_signing_key(self, key: SigningKey, *, is_first: bool) -> bool:
        """Stores a key; returns whether it did. A first key is stored only when there is none."""

        async def work(work: Work) -> bool:
            await work.run("SELECT pg_advisory_xact_lock(%s)", _KEYS_LOCK)
            if is_first and await work.row("SELECT 1 FROM signing_keys LIMIT 1") is not None:
                return False
            await work.run(
                "INSERT INTO signing_keys (key_id, private_key, create_ms, sign_from_ms) VALUES (%s, %s, %s, %s)",
                *(key.key_id, key.private_key, key.create_ms, key.sign_from_ms),
            )
            await work.record(ChangeKind.SIGNING_KEYS, NO_USER)
            return True

        return await self._database.write(work)


def device_of(row: Row) -> Device:
    """Returns a device from id, key, platform, generation, link time and whether it is linked."""
    return Device(
        device_id=DeviceId(row[0]),
        public_key=row[1],
        platform=row[2],
        generation=row[3],
        link_ms=row[4],
        is_linked=row[5],
    )


async def _take_nonce(work: Work, sign_in: SignIn) -> None:
    key = (uuid_of(sign_in.device.user_id), sign_in.device.device_id)
    await work.run(
        "DELETE FROM session_nonces WHERE user_id = %s AND device_id = %s AND expire_ms <= %s",
        *(*key, sign_in.now_ms),
    )
    taken = await work.run(
        "INSERT INTO session_nonces VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
        *(*key, sign_in.nonce, sign_in.nonce_expire_ms),
    )
    if taken == 0:
        raise InvalidProofError("the nonce was used before; draw a new one and sign again")


def _session_of(row: Row) -> Session:
    return Session(
        session_id=SessionId(row[0]),
        device_id=DeviceId(row[1]),
        generation=row[2],
        create_ms=row[3],
        refresh_ms=row[4],
    )
