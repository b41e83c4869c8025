"""Keeps address books and blocks."""

from collections.abc import Sequence

from chappe.runtime.clock import Clock
from svc_identity.errors import SelfNotAllowedError
from svc_identity.model import Charge, Contact, Phone, UserId
from svc_identity.model.group import NamedGroup
from svc_identity.ports import ContactStore
from svc_identity.ports.group import MembershipStore
from svc_identity.protocol.page import page_size
from svc_identity.service.page import Listing, Page

LOOKUPS = "look-ups of phone numbers"
"""The daily budget of everything that tells whether a number has an account."""

_CONTACTS = "contacts"
_BLOCKS = "blocks"
_MUTUAL_GROUPS = "mutual groups/"


class ContactRules:
    """Says whom a user knows and whom it wants to hear nothing from."""

    def __init__(
        self, store: ContactStore, memberships: MembershipStore, clock: Clock, pepper: bytes, lookups_per_day: int
    ) -> None:
        self._store = store
        self._memberships = memberships
        self._clock = clock
        self._pepper = pepper
        self._lookups_per_day = lookups_per_day

    async def add(self, owner_id: UserId, phone: Phone, name: str) -> Contact:
        """Adds a person, who need not have an account, or renames it."""
        return await self._store.add_contact(owner_id, phone, name, self._charge(1))

    async def remove(self, owner_id: UserId, phone: Phone) -> None:
        """Removes a person."""
        await self._store.remove_contact(owner_id, phone)

    async def contacts(self, owner_id: UserId, asked_size: int, token: str) -> Page[Contact]:
        """Returns a page of the address book, by number."""
        listing = Listing(self._pepper, _CONTACTS, owner_id)
        after = listing.start(token).decode()
        found = await self._store.list_contacts(owner_id, after, page_size(asked_size) + 1)
        return listing.page(found, asked_size, lambda contact: contact.phone.encode())

    async def lookup(self, owner_id: UserId, phones: Sequence[Phone]) -> list[UserId | None]:
        """Returns who has which number, in order; every number is charged."""
        return await self._store.lookup(owner_id, phones, self._charge(len(phones)))

    async def block(self, blocker_id: UserId, blocked_id: UserId) -> None:
        """Blocks a user.

        Raises:
            SelfNotAllowedError: It is the user itself.
        """
        if blocker_id == blocked_id:
            raise SelfNotAllowedError("a user cannot block itself")
        await self._store.block(blocker_id, blocked_id)

    async def unblock(self, blocker_id: UserId, blocked_id: UserId) -> None:
        """Lets a user through again."""
        await self._store.unblock(blocker_id, blocked_id)

    async def blocks(self, blocker_id: UserId, asked_size: int, token: str) -> Page[UserId]:
        """Returns a page of the blocked users, by id."""
        listing = Listing(self._pepper, _BLOCKS, blocker_id)
        found = await self._store.list_blocks(blocker_id, listing.start(token), page_size(asked_size) + 1)
        return listing.page(found, asked_size, bytes)

    async def mutual_groups(self, user_id: UserId, other_id: UserId, asked_size: int, token: str) -> Page[NamedGroup]:
        """Returns a page of the groups that the user and another are both in, by id.

        Raises:
            SelfNotAllowedError: The other is the user itself.
        """
        if other_id == user_id:
            raise SelfNotAllowedError("a user has no groups in common with itself; call ListGroups")
        listing = Listing(self._pepper, _MUTUAL_GROUPS + other_id.hex(), user_id)
        limit = page_size(asked_size) + 1
        found = await self._memberships.mutual_groups(user_id, other_id, listing.start(token), limit)
        return listing.page(found, asked_size, lambda group: group.group_id)

    def _charge(self, amount: int) -> Charge:
        now_ms = self._clock.wall_ms()
        return Charge(budget=LOOKUPS, amount=amount, limit=self._lookups_per_day, now_ms=now_ms)
