"""Address books and blocks on PostgreSQL."""

from collections.abc import Sequence

from svc_identity.adapters.database_postgres import Database, Work, uuid_of
from svc_identity.errors import ContactNotFoundError, SelfNotAllowedError, UserNotFoundError
from svc_identity.model import ChangeKind, Charge, Contact, Phone, UserId
from svc_identity.protocol.limit import check_blocks, check_contacts

_BEFORE_ALL = bytes(16)


class PostgresContactStore:
    """Keeps address books and blocks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add_contact(self, owner_id: UserId, phone: Phone, name: str, charge: Charge) -> Contact:
        """Adds a person or renames it; only a new number is charged."""
        owner = uuid_of(owner_id)

        async def work(work: Work) -> Contact:
            # A registration of this number waits until we are through, or we for it: one of the two links the contact.
            await work.lock_phone(phone, is_shared=True)
            user = await work.row("SELECT user_id FROM users WHERE phone_e164 = %s", phone)
            if user is not None and user[0] == owner_id:
                raise SelfNotAllowedError("this is the account's own number; it needs no contact")
            is_kept = await work.row("SELECT 1 FROM contacts WHERE owner_id = %s AND phone_e164 = %s", owner, phone)
            if is_kept is None:
                await work.charge(owner_id, charge)
                count = await work.row("SELECT count(*) FROM contacts WHERE owner_id = %s", owner)
                check_contacts(count[0] if count is not None else 0)
            user_id = None if user is None else UserId(user[0])
            await work.run(
                "INSERT INTO contacts (owner_id, phone_e164, contact_user_id, contact_name) VALUES (%s, %s, %s, %s) "
                "ON CONFLICT (owner_id, phone_e164) DO UPDATE SET contact_name = excluded.contact_name, "
                "contact_user_id = excluded.contact_user_id",
                *(owner, phone, None if user_id is None else uuid_of(user_id), name),
            )
            await work.record(ChangeKind.CONTACTS, owner_id)
            return Contact(phone=phone, name=name, user_id=user_id)

        return await self._database.write(work)

    async def remove_contact(self, owner_id: UserId, phone: Phone) -> None:
        """Removes a person."""

        async def work(work: Work) -> None:
            removed = await work.run(
                "DELETE FROM contacts WHERE owner_id = %s AND phone_e164 = %s", uuid_of(owner_id), phone
            )
            if removed == 0:
                raise ContactNotFoundError("this number is not in the address book")
            await work.record(ChangeKind.CONTACTS, owner_id)

        await self._database.write(work)

    async def list_contacts(self, owner_id: UserId, after: str, limit: int) -> list[Contact]:
        """Returns contacts with numbers after one, by number."""
        async with self._database.read() as work:
            rows = await work.rows(
                "SELECT phone_e164, contact_name, contact_user_id FROM contacts "
                'WHERE owner_id = %s AND phone_e164 COLLATE "C" > %s ORDER BY phone_e164 COLLATE "C" LIMIT %s',
                *(uuid_of(owner_id), after, limit),
            )
        return [Contact(phone=Phone(row[0]), name=row[1], user_id=row[2]) for row in rows]

    async def lookup(self, owner_id: UserId, phones: Sequence[Phone], charge: Charge) -> list[UserId | None]:
        """Returns who has which number, in order."""

        async def work(work: Work) -> list[UserId | None]:
            await work.charge(owner_id, charge)
            rows = await work.rows(
                "SELECT u.user_id FROM unnest(%s::text[]) WITH ORDINALITY AS q(phone, place) "
                "LEFT JOIN users u ON u.phone_e164 = q.phone ORDER BY q.place",
                list(phones),
            )
            return [None if row[0] is None else UserId(row[0]) for row in rows]

        return await self._database.write(work)

    async def block(self, blocker_id: UserId, blocked_id: UserId) -> None:
        """Blocks a user; one that is blocked stays so."""
        blocker, blocked = uuid_of(blocker_id), uuid_of(blocked_id)

        async def work(work: Work) -> None:
            if await work.row("SELECT 1 FROM users WHERE user_id = %s", blocked) is None:
                raise UserNotFoundError("the user does not exist")
            # One block of an account at a time, so that the count is true.
            await work.row("SELECT 1 FROM users WHERE user_id = %s FOR NO KEY UPDATE", blocker)
            rows = await work.rows("SELECT blocked_id FROM blocks WHERE blocker_id = %s", blocker)
            if (blocked_id,) in rows:
                return
            check_blocks(len(rows))
            await work.run("INSERT INTO blocks (blocker_id, blocked_id) VALUES (%s, %s)", blocker, blocked)
            await work.record(ChangeKind.BLOCKS, blocker_id)

        await self._database.write(work)

    async def unblock(self, blocker_id: UserId, blocked_id: UserId) -> None:
        """Lets a user through; one that is not blocked stays so."""

        async def work(work: Work) -> None:
            removed = await work.run(
                "DELETE FROM blocks WHERE blocker_id = %s AND blocked_id = %s",
                *(uuid_of(blocker_id), uuid_of(blocked_id)),
            )
            if removed:
                await work.record(ChangeKind.BLOCKS, blocker_id)

        await self._database.write(work)

    async def list_blocks(self, blocker_id: UserId, after: bytes, limit: int) -> list[UserId]:
        """Returns blocked users with ids after one, by id."""
        async with self._database.read() as work:
            rows = await work.rows(
                "SELECT blocked_id FROM blocks WHERE blocker_id = %s AND blocked_id > %s ORDER BY blocked_id LIMIT %s",
                *(uuid_of(blocker_id), uuid_of(after or _BEFORE_ALL), limit),
            )
        return [UserId(row[0]) for row in rows]
