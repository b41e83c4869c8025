"""What the stores in memory share: plain tables, and the log of changes."""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

from svc_identity.adapters.group_rows_memory import GroupRow
from svc_identity.model import (
    Change,
    ChangeKind,
    Charge,
    Contact,
    Cursor,
    Device,
    DeviceId,
    DeviceRef,
    Phone,
    Profile,
    SessionId,
    SigningKey,
    UserId,
    Verification,
)
from svc_identity.model.group import GroupId
from svc_identity.model.privacy import PrivacyAspect, Settings
from svc_identity.protocol.limit import check_charge, day_of
from svc_identity.protocol.privacy import Sight, may_see


@dataclass(kw_only=True, slots=True)
class UserRow:
    """An account."""

    user_id: UserId
    phone: Phone | None
    """None for a bot."""
    profile_name: str
    about: str = ""
    photo_media_id: bytes = b""
    version: int = 1
    next_device_id: int = 1


@dataclass(kw_only=True, slots=True)
class SessionRow:
    """A sign-in session."""

    session_id: SessionId
    device: DeviceRef
    create_ms: int
    refresh_ms: int
    revoke_ms: int = 0
    """Zero while it lives."""


@dataclass(kw_only=True, slots=True)
class VerificationRow:
    """A verification and what became of it."""

    verification: Verification
    attempts: int = 0
    is_used: bool = False


@dataclass(kw_only=True, slots=True)
class GrantRow:
    """A registration token or a link code, and who used it."""

    expire_ms: int
    phone: Phone | None = None
    asked_by: DeviceRef | None = None
    public_key: bytes = b""
    joined: DeviceRef | None = None


@dataclass(kw_only=True, slots=True)
class Tables:
    """Everything that is remembered; lost with the process."""

    changed: asyncio.Event
    """Set after every mutation."""
    wall_ms: Callable[[], int]
    """The time of the store."""
    users: dict[UserId, UserRow] = field(default_factory=dict[UserId, UserRow])
    devices: dict[DeviceRef, Device] = field(default_factory=dict[DeviceRef, Device])
    sessions: dict[SessionId, SessionRow] = field(default_factory=dict[SessionId, SessionRow])
    nonces: dict[tuple[DeviceRef, bytes], int] = field(default_factory=dict[tuple[DeviceRef, bytes], int])
    verifications: dict[bytes, VerificationRow] = field(default_factory=dict[bytes, VerificationRow])
    tokens: dict[bytes, GrantRow] = field(default_factory=dict[bytes, GrantRow])
    links: dict[bytes, GrantRow] = field(default_factory=dict[bytes, GrantRow])
    keys: list[SigningKey] = field(default_factory=list[SigningKey])
    contacts: dict[tuple[UserId, Phone], Contact] = field(default_factory=dict[tuple[UserId, Phone], Contact])
    blocks: set[tuple[UserId, UserId]] = field(default_factory=set[tuple[UserId, UserId]])
    budgets: dict[tuple[UserId, str], tuple[int, int]] = field(
        default_factory=dict[tuple[UserId, str], tuple[int, int]]
    )
    """Each with its day, and what was used up in it."""
    settings: dict[UserId, Settings] = field(default_factory=dict[UserId, Settings])
    """Of those who have changed something."""
    bots: dict[str, DeviceRef] = field(default_factory=dict[str, DeviceRef])
    groups: dict[GroupId, GroupRow] = field(default_factory=dict[GroupId, GroupRow])
    changes: list[tuple[int, Change]] = field(default_factory=list[tuple[int, Change]])
    """Each with the time of the store at which it was made, ms."""
    next_xid: int = 1
    epoch: int = 1
    floor_xid: int = 0
    mark: Cursor | None = None

    def user_of(self, phone: Phone) -> UserRow | None:
        """Returns the account of a number."""
        return next((user for user in self.users.values() if user.phone == phone), None)

    def linked(self, user_id: UserId) -> list[Device]:
        """Returns the linked devices of an account, by id."""
        devices = [device for ref, device in self.devices.items() if ref.user_id == user_id and device.is_linked]
        return sorted(devices, key=lambda device: device.device_id)

    def live_session(self, device: DeviceRef) -> SessionRow | None:
        """Returns the session of a device that is not revoked."""
        found = (row for row in self.sessions.values() if row.device == device and not row.revoke_ms)
        return next(found, None)

    def record(self, kind: ChangeKind, user_id: UserId, *, device_id: int = 0, session_id: bytes = b"") -> None:
        """Raises the version of an account and appends to the log."""
        version = 0
        if user_id in self.users:
            self.users[user_id].version += 1
            version = self.users[user_id].version
        self.append(kind, user_id, version, device_id=device_id, session_id=session_id)

    def append(
        self, kind: ChangeKind, entity: UserId, version: int, *, device_id: int = 0, session_id: bytes = b""
    ) -> None:
        """Appends to the log."""
        change = Change(self.next_xid, self.next_xid, kind, entity, version, device_id, session_id)
        self.changes.append((self.wall_ms(), change))
        self.next_xid += 1
        self.changed.set()

    def add_device(self, user: UserRow, public_key: bytes, platform: str, now_ms: int) -> DeviceRef:
        """Links a device under an id that was never used."""
        ref = DeviceRef(user.user_id, DeviceId(user.next_device_id))
        user.next_device_id += 1
        self.devices[ref] = Device(
            device_id=ref.device_id,
            public_key=public_key,
            platform=platform,
            generation=1,
            link_ms=now_ms,
            is_linked=True,
        )
        self.record(ChangeKind.DEVICES, user.user_id, device_id=ref.device_id)
        return ref

    def revoke(self, device: DeviceRef, now_ms: int, *, is_unlinked: bool) -> None:
        """Ends the session of a device, and its link if asked."""
        known = self.devices[device]
        session = self.live_session(device)
        if session is not None:
            session.revoke_ms = now_ms
        if session is None and not (is_unlinked and known.is_linked):
            return
        is_linked = known.is_linked and not is_unlinked
        self.devices[device] = replace(known, generation=known.generation + 1, is_linked=is_linked)
        if session is not None:
            self.record(
                ChangeKind.SESSION_REVOKED,
                device.user_id,
                device_id=device.device_id,
                session_id=session.session_id,
            )
        if is_unlinked and known.is_linked:
            self.record(ChangeKind.DEVICES, device.user_id, device_id=device.device_id)

    def charge(self, user_id: UserId, charge: Charge) -> None:
        """Takes a charge from a budget, or refuses it."""
        self.charge_all(user_id, [charge])

    def charge_all(self, user_id: UserId, charges: Sequence[Charge]) -> None:
        """Takes several charges, or none of them."""
        totals: dict[tuple[UserId, str], tuple[int, int]] = {}
        for charge in charges:
            key, today = (user_id, charge.budget), day_of(charge.now_ms)
            day, used = self.budgets.get(key, (today, 0))
            # A day that has begun does not end because for this caller it is still the one before.
            totals[key] = max(day, today), check_charge(charge, used if day >= today else 0)
        self.budgets.update(totals)

    def is_contact(self, owner_id: UserId, user_id: UserId) -> bool:
        """Tells whether a user is in somebody's address book."""
        contacts = self.contacts.items()
        return any(owner == owner_id and contact.user_id == user_id for (owner, _), contact in contacts)

    def may_see(self, aspect: PrivacyAspect, viewer_id: UserId, target_id: UserId) -> bool:
        """Tells whether one user may see something of another."""
        if target_id not in self.users or viewer_id == target_id:
            return target_id in self.users
        sight = Sight(
            viewer=self.settings.get(viewer_id, Settings()),
            target=self.settings.get(target_id, Settings()),
            is_contact=self.is_contact(target_id, viewer_id),
            is_blocked=not self.blocks.isdisjoint({(viewer_id, target_id), (target_id, viewer_id)}),
        )
        return may_see(aspect, sight)

    def profile(self, viewer_id: UserId, user_id: UserId) -> Profile:
        """Returns what one user may see of another."""
        user = self.users.get(user_id)
        if user is None:
            return Profile(user_id=user_id)
        is_kept = viewer_id == user_id or self.is_contact(viewer_id, user_id)
        return Profile(
            user_id=user_id,
            profile_name=user.profile_name,
            about=user.about if self.may_see(PrivacyAspect.ABOUT, viewer_id, user_id) else "",
            phone=(user.phone or "") if is_kept else "",
            version=user.version,
            photo_media_id=user.photo_media_id if self.may_see(PrivacyAspect.PHOTO, viewer_id, user_id) else b"",
        )
