"""Address books and blocks in memory."""

from collections.abc import Sequence

from svc_identity.adapters.tables_memory import Tables
from svc_identity.errors import ContactNotFoundError, SelfNotAllowedError, UserNotFoundError
from svc_identity.model import ChangeKind, Charge, Contact, Phone, UserId
from svc_identity.protocol.limit import check_blocks, check_contacts


class MemoryContactStore:
    """Keeps address books and blocks, until the process ends."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def add_contact(self, owner_id: UserId, phone: Phone, name: str, charge: Charge) -> Contact:
        """Adds a person or renames it; only a new number is charged."""
        user = self._tables.user_of(phone)
        if user is not None and user.user_id == owner_id:
            raise SelfNotAllowedError("this is the account's own number; it needs no contact")
        if (owner_id, phone) not in self._tables.contacts:
            check_contacts(sum(owner == owner_id for owner, _ in self._tables.contacts))
            self._tables.charge(owner_id, charge)
        contact = Contact(phone=phone, name=name, user_id=None if user is None else user.user_id)
        self._tables.contacts[owner_id, phone] = contact
        self._tables.record(ChangeKind.CONTACTS, owner_id)
        return contact

    async def remove_contact(self, owner_id: UserId, phone: Phone) -> None:
        """Removes a person."""
        if self._tables.contacts.pop((owner_id, phone), None) is None:
            raise ContactNotFoundError("this number is not in the address book")
        self._tables.record(ChangeKind.CONTACTS, owner_id)

    async def list_contacts(self, owner_id: UserId, after: str, limit: int) -> list[Contact]:
        """Returns contacts with numbers after one, by number."""
        contacts = self._tables.contacts.items()
        found = [contact for (owner, phone), contact in contacts if owner == owner_id and phone > after]
        return sorted(found, key=lambda contact: contact.phone)[:limit]

    async def lookup(self, owner_id: UserId, phones: Sequence[Phone], charge: Charge) -> list[UserId | None]:
        """Returns who has which number, in order."""
        self._tables.charge(owner_id, charge)
        users = [self._tables.user_of(phone) for phone in phones]
        return [None if user is None else user.user_id for user in users]

    async def block(self, blocker_id: UserId, blocked_id: UserId) -> None:
        """Blocks a user; one that is blocked stays so."""
        if blocked_id not in self._tables.users:
            raise UserNotFoundError("the user does not exist")
        if (blocker_id, blocked_id) in self._tables.blocks:
            return
        check_blocks(sum(blocker == blocker_id for blocker, _ in self._tables.blocks))
        self._tables.blocks.add((blocker_id, blocked_id))
        self._tables.record(ChangeKind.BLOCKS, blocker_id)

    async def unblock(self, blocker_id: UserId, blocked_id: UserId) -> None:
        """Lets a user through; one that is not blocked stays so."""
        if (blocker_id, blocked_id) in self._tables.blocks:
            self._tables.blocks.remove((blocker_id, blocked_id))
            self._tables.record(ChangeKind.BLOCKS, blocker_id)

    async def list_blocks(self, blocker_id: UserId, after: bytes, limit: int) -> list[UserId]:
        """Returns blocked users with ids after one, by id."""
        found = sorted(blocked for blocker, blocked in self._tables.blocks if blocker == blocker_id and blocked > after)
        return found[:limit]
