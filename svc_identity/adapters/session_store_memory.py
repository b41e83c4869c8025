"""Sign-in sessions and signing keys in memory."""

from svc_identity.adapters.tables_memory import SessionRow, Tables
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
    DeviceRef,
    Session,
    SessionId,
    SignIn,
    SigningKey,
    UserId,
)


class MemorySessionStore:
    """Keeps sign-in sessions and signing keys, until the process ends."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def find_device(self, device: DeviceRef) -> Device | None:
        """Returns a device, also an unlinked one."""
        return self._tables.devices.get(device)

    async def open_session(self, sign_in: SignIn) -> Session:
        """Takes the nonce and returns the device's session, a new one if it has none."""
        device = self._tables.devices.get(sign_in.device)
        if device is None or not device.is_linked:
            raise DeviceUnlinkedError("this device was unlinked; register or link it again")
        key = (sign_in.device, sign_in.nonce)
        if self._tables.nonces.get(key, 0) > sign_in.now_ms:
            raise InvalidProofError("the nonce was used before; draw a new one and sign again")
        self._tables.nonces[key] = sign_in.nonce_expire_ms
        row = self._tables.live_session(sign_in.device)
        if row is None:
            row = SessionRow(
                session_id=sign_in.session_id,
                device=sign_in.device,
                create_ms=sign_in.now_ms,
                refresh_ms=sign_in.now_ms,
            )
            self._tables.sessions[row.session_id] = row
        row.refresh_ms = sign_in.now_ms
        return _session(row, device)

    async def list_sessions(self, user_id: UserId) -> list[Session]:
        """Returns the sessions that are not revoked, by device."""
        rows = [row for row in self._tables.sessions.values() if row.device.user_id == user_id]
        found = [_session(row, self._tables.devices[row.device]) for row in rows if not row.revoke_ms]
        return sorted(found, key=lambda session: session.device_id)

    async def revoke_session(self, user_id: UserId, session_id: SessionId, now_ms: int) -> None:
        """Ends a session; one that has ended stays so."""
        row = self._tables.sessions.get(session_id)
        if row is None or row.device.user_id != user_id:
            raise SessionNotFoundError("this account has no such session; list its sessions")
        if not row.revoke_ms:
            self._tables.revoke(row.device, now_ms, is_unlinked=False)

    async def revoke_device(self, device: DeviceRef, now_ms: int) -> None:
        """Ends all sessions of a device."""
        if device not in self._tables.devices:
            raise DeviceNotFoundError("this account has no such device; list its devices")
        self._tables.revoke(device, now_ms, is_unlinked=False)

    async def signing_keys(self) -> list[SigningKey]:
        """Returns the keys that count, at most two, the newest first."""
        return self._tables.keys[:2]

    async def add_signing_key(self, key: SigningKey, *, is_first: bool) -> bool:
        """Stores a key; returns whether it did. A first key is stored only when there is none."""
        if is_first and self._tables.keys:
            return False
        self._tables.keys.insert(0, key)
        self._tables.record(ChangeKind.SIGNING_KEYS, NO_USER)
        return True


def _session(row: SessionRow, device: Device) -> Session:
    return Session(
        session_id=row.session_id,
        device_id=row.device.device_id,
        generation=device.generation,
        create_ms=row.create_ms,
        refresh_ms=row.refresh_ms,
    )
