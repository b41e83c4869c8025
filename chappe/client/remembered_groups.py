"""What this device remembers of groups by itself, without asking the server."""

from typing import Final

from chappe.client.group_views import GroupChanged
from chappe.client.membership import KnownGroup
from chappe.client.people import InStore
from chappe.client.store import GroupBook

_MOST_NOTICES: Final = 1000


class RememberedGroups:
    """The groups of the local store."""

    def __init__(self, book: GroupBook, in_store: InStore) -> None:
        self._book = book
        self._in_store = in_store

    async def named(self, name: str) -> list[bytes]:
        """Returns the groups of the user that are called so."""
        folded = name.strip().casefold()
        known: list[KnownGroup] = await self._in_store(self._book.all)
        return [group.group_id for group in known if group.role and group.name.casefold() == folded]

    async def is_past(self, group_id: bytes) -> bool:
        """Tells whether the user is no member of a group any more, as far as this device was told."""
        known: KnownGroup | None = await self._in_store(self._book.find, group_id)
        return known is not None and known.told_version > 0 and not known.role

    async def notices(self, group_id: bytes, since_ms: int) -> list[GroupChanged]:
        """Returns what happened to a group since a moment, the newest 1,000, the oldest of them first."""
        found: list[GroupChanged] = await self._in_store(self._book.notices, group_id, since_ms, _MOST_NOTICES)
        return found
