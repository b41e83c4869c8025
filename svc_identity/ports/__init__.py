"""What the directory needs from outside.

Every method of a store is one transaction, and no error of a driver leaves it.
"""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from typing import NamedTuple, Protocol

from svc_identity.model import (
    ChangeKind,
    ChangePage,
    Charge,
    CodeCharge,
    Contact,
    Cursor,
    Device,
    DeviceRef,
    DirectoryUser,
    Grant,
    Joining,
    Phone,
    Profile,
    Registration,
    SendPolicy,
    Session,
    SessionId,
    SignIn,
    SigningKey,
    UserId,
    Verification,
)
from svc_identity.model.group import GroupChange, GroupId, GroupNews
from svc_identity.ports.bot import BotStore
from svc_identity.ports.group import GroupStore, InviteStore, MembershipStore
from svc_identity.ports.privacy import PrivacyStore


class RegistrationStore(Protocol):
    """Keeps verifications and makes accounts."""

    async def open_verification(
        self, verification: Verification, policy: SendPolicy, charges: Sequence[CodeCharge] = ()
    ) -> int:
        """Stores a verification; returns how many ms its number waits for the next one. A refusal charges nobody.

        Raises:
            RateLimitedError: The number has to wait, or a charge is too much.
        """
        ...

    async def redeem_code(self, verification_id: bytes, code_hmac: bytes, token: Grant, now_ms: int) -> None:
        """Uses a verification up and stores the registration token that its holder gets.

        Every call counts as an attempt, whatever comes of it.

        Raises:
            WrongCodeError: It is another code.
            RateLimitedError: The attempts are used up.
            VerificationNotFoundError: There is no such verification, or no longer.
        """
        ...

    async def register(self, registration: Registration) -> DeviceRef:
        """Makes an account or takes it over; the same token and key get the same answer again.

        The other tokens and verifications of the number end, so that nobody takes it over with one from before.

        Raises:
            InvalidRegistrationTokenError: The token is unknown, expired, ended, or used with another key.
        """
        ...


class SessionStore(Protocol):
    """Keeps sign-in sessions and the keys that sign their tokens."""

    async def find_device(self, device: DeviceRef) -> Device | None:
        """Returns a device, also an unlinked one."""
        ...

    async def open_session(self, sign_in: SignIn) -> Session:
        """Takes the nonce and returns the device's session, a new one if it has none.

        Raises:
            InvalidProofError: The nonce was taken before.
            DeviceUnlinkedError: The device is not linked.
        """
        ...

    async def list_sessions(self, user_id: UserId) -> list[Session]:
        """Returns the sessions that are not revoked, by device."""
        ...

    async def revoke_session(self, user_id: UserId, session_id: SessionId, now_ms: int) -> None:
        """Ends a session; one that has ended stays so.

        Raises:
            SessionNotFoundError: The user never had it.
        """
        ...

    async def revoke_device(self, device: DeviceRef, now_ms: int) -> None:
        """Ends all sessions of a device.

        Raises:
            DeviceNotFoundError: The user never had the device.
        """
        ...

    async def signing_keys(self) -> list[SigningKey]:
        """Returns the keys that count, at most two, the newest first."""
        ...

    async def add_signing_key(self, key: SigningKey, *, is_first: bool) -> bool:
        """Stores a key; returns whether it did. A first key is stored only when there is none."""
        ...


class DeviceStore(Protocol):
    """Keeps the devices of accounts."""

    async def list_devices(self, user_id: UserId) -> list[Device]:
        """Returns the linked devices, by id."""
        ...

    async def start_link(self, device: DeviceRef, code: Grant, charge: Charge) -> None:
        """Stores a link code, which is good while the device that asks for it is linked.

        Raises:
            DeviceUnlinkedError: The device is not linked.
            TooManyDevicesError: The account can have no more.
            RateLimitedError: The charge is too much.
        """
        ...

    async def link_device(self, joining: Joining) -> DeviceRef:
        """Adds a device; the same code and key get the same answer again.

        Raises:
            LinkCodeNotFoundError: The code is unknown, expired or used with another key, or its device is unlinked.
            TooManyDevicesError: The account can have no more.
        """
        ...

    async def unlink_device(self, device: DeviceRef, now_ms: int) -> None:
        """Takes a device out of its account and ends its sessions; one that is out stays so.

        Raises:
            DeviceNotFoundError: The user never had the device.
        """
        ...


class ProfileStore(Protocol):
    """Keeps what people say of themselves."""

    async def profiles(self, viewer_id: UserId, user_ids: Sequence[UserId]) -> list[Profile]:
        """Returns what the viewer may see, in order; a user that does not exist has version 0."""
        ...

    async def update_profile(
        self, user_id: UserId, profile_name: str | None, about: str | None, photo_media_id: bytes | None = None
    ) -> None:
        """Changes what is not None, no bytes take the photo away; what is so already is no change.

        Raises:
            UserNotFoundError: There is no such user.
        """
        ...

    async def users(self, user_ids: Sequence[UserId]) -> list[DirectoryUser]:
        """Returns what other services may know, in order; a user that does not exist has version 0."""
        ...


class ContactStore(Protocol):
    """Keeps address books and blocks."""

    async def add_contact(self, owner_id: UserId, phone: Phone, name: str, charge: Charge) -> Contact:
        """Adds a person or renames it; only a new number is charged.

        Raises:
            SelfNotAllowedError: It is the owner's own number.
            ListFullError: The address book is full.
            RateLimitedError: The charge is too much.
        """
        ...

    async def remove_contact(self, owner_id: UserId, phone: Phone) -> None:
        """Removes a person.

        Raises:
            ContactNotFoundError: It is not there.
        """
        ...

    async def list_contacts(self, owner_id: UserId, after: str, limit: int) -> list[Contact]:
        """Returns contacts with numbers after one, by number."""
        ...

    async def lookup(self, owner_id: UserId, phones: Sequence[Phone], charge: Charge) -> list[UserId | None]:
        """Returns who has which number, in order.

        Raises:
            RateLimitedError: The charge is too much.
        """
        ...

    async def block(self, blocker_id: UserId, blocked_id: UserId) -> None:
        """Blocks a user; one that is blocked stays so.

        Raises:
            UserNotFoundError: There is no such user.
            ListFullError: The list is full.
        """
        ...

    async def unblock(self, blocker_id: UserId, blocked_id: UserId) -> None:
        """Lets a user through; one that is not blocked stays so."""
        ...

    async def list_blocks(self, blocker_id: UserId, after: bytes, limit: int) -> list[UserId]:
        """Returns blocked users with ids after one, by id."""
        ...


class Lead(Protocol):
    """The right to tell inboxes of changes, which one process at a time holds."""

    async def mark(self) -> Cursor | None:
        """Returns how far inboxes have been told; None when they never were."""
        ...

    async def move(self, mark: Cursor) -> None:
        """Says durably how far inboxes have been told.

        Raises:
            UnavailableError: The store does not answer, or the right was lost.
        """
        ...

    async def prune(self, before_ms: int) -> int:
        """Removes changes from before a time that inboxes were told of, and grants long expired; returns how many."""
        ...


class ChangeLog(Protocol):
    """The log of changes."""

    async def read(self, after: Cursor | None, page: ChangePage | None = None) -> ChangePage:
        """Returns what a cursor has not seen; without a cursor nothing but the newest one.

        Args:
            after: The reader's cursor.
            page: The page before, when that was not the last.

        Raises:
            CursorExpiredError: The cursor is older than what the log keeps, or from another life of it.
        """
        ...

    async def watchers(self, user_id: UserId) -> list[UserId]:
        """Returns whose contact a user is, without those whom it has blocked."""
        ...

    async def group_news(self, group_id: GroupId, version: int) -> GroupNews | None:
        """Returns what made a version of a group, and who learns of it; None when that was forgotten."""
        ...

    def lead(self) -> AbstractAsyncContextManager[Lead | None]:
        """Tries to become the one that tells inboxes; None when another process is."""
        ...


class IdentityStore(NamedTuple):
    """Everything that the directory remembers."""

    registrations: RegistrationStore
    sessions: SessionStore
    devices: DeviceStore
    profiles: ProfileStore
    contacts: ContactStore
    changes: ChangeLog
    groups: GroupStore
    invites: InviteStore
    memberships: MembershipStore
    privacy: PrivacyStore
    bots: BotStore


class SmsSender(Protocol):
    """Reaches phones."""

    async def send_code(self, phone: Phone, code: str) -> None:
        """Sends a one-time code.

        Raises:
            UnavailableError: The message did not get out.
        """
        ...


class InboxEvent(NamedTuple):
    """Something that users' devices are to learn."""

    change_id: bytes
    """16 bytes, the same whenever the change is told again."""
    kind: ChangeKind
    about: UserId
    """Whose account has changed; nobody's when it is a group."""
    version: int
    recipients: tuple[UserId, ...]
    """The user itself, those whose contact it is, or those who were in the group."""
    is_for_others: bool
    group: GroupChange | None = None
    """Set when it is a group that has changed."""


class Inbox(Protocol):
    """Reaches the inboxes of users."""

    async def append(self, events: Sequence[InboxEvent]) -> None:
        """Returns when the events are durable; doing it twice does no harm.

        Raises:
            ChappeError: It is not known whether they are, or they were refused.
        """
        ...
