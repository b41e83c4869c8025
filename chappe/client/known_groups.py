"""Which group is meant by a name, and what this device knows of it; asks the server for what it does not."""

import re
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from typing import NamedTuple

from chappe.api.identity.v1 import group_pb2, group_service_pb2
from chappe.client.errors import NotConnectedError, RefusedError, UnknownGroupError
from chappe.client.group_views import Group, Member, to_group_view, to_role
from chappe.client.membership import KnownGroup, KnownMember
from chappe.client.methods import GET_GROUP, LIST_GROUPS, LIST_MEMBERS
from chappe.client.people import Calling, InStore
from chappe.client.store import GroupBook

_PAGE = 1000
_ID = re.compile(r"[0-9a-f]{32}")
_ID_START = re.compile(r"[0-9a-f]{4,31}")
_ID_BYTES = 16
_MOST_NAMES = 10

Named = Group | str | bytes
"""A group, its name, its id, or the beginning of its id in at least 4 hex digits."""


class Terms(NamedTuple):
    """What a message to a group is sent with."""

    members_version: int
    """The newest version of the group that this device knows of; zero when it knows none."""
    expiry_s: int
    """The group's timer."""


class KnownGroups:
    """The groups that a device has heard of."""

    def __init__(self, calling: Calling, book: GroupBook, in_store: InStore) -> None:
        self._calling = calling
        self._book = book
        self._in_store = in_store

    async def resolve(self, group: Named) -> bytes:
        """Returns the id of a group.

        Raises:
            UnknownGroupError: None is meant, or more than one.
        """
        if isinstance(group, Group):
            return group.group_id
        if isinstance(group, bytes):
            if len(group) != _ID_BYTES:
                raise UnknownGroupError(f"a group id has 16 bytes, and this has {len(group)}")
            return group
        if _ID.fullmatch(group):
            return bytes.fromhex(group)
        if not group.strip():
            raise UnknownGroupError("no group is named; write its name, its id, or the beginning of its id")
        found = await self.find(group)
        if not found:
            raise UnknownGroupError(f"{group!r} is none of your groups: {await self.some_names()}")
        return found

    async def some_names(self) -> str:
        """Returns what some of the groups are called, to help whoever has mistyped one."""
        return ", ".join(group.name for group in (await self.mine())[:_MOST_NAMES]) or "none"

    async def find(self, text: str) -> bytes:
        """Returns the id of the group that a name or the beginning of an id means; empty when none is meant.

        Raises:
            UnknownGroupError: More than one is meant.
        """
        found = _meant(await self._all(), text)
        if not found:
            await self.mine()
            found = _meant(await self._all(), text)
        if len(found) > 1:
            ids = ", ".join(known.group_id.hex() for known in found)
            raise UnknownGroupError(f"{text!r} may be any of the groups {ids}; use the beginning of the id")
        return found[0].group_id if found else b""

    async def is_known(self, group_id: bytes) -> bool:
        """Tells whether this device has heard of a group of this id."""
        return await self._in_store(self._book.find, group_id) is not None

    async def terms(self, group_id: bytes, is_reachable: Callable[[], Awaitable[bool]]) -> Terms:
        """Returns what a message to a group is sent with; by what this device knows while no server can be reached."""
        known = await self._find(group_id)
        if known.details_version != known.version and await is_reachable():
            with suppress(RefusedError, NotConnectedError):
                await self.get(group_id)
                known = await self._find(group_id)
        return Terms(known.version, known.expiry_s)

    async def get(self, group_id: bytes) -> Group:
        """Returns a group, from the server when this device does not know its newest version."""
        known = await self._find(group_id)
        if known.version and known.details_version == known.version:
            return known.view()
        request = group_service_pb2.GetGroupRequest(group_id=group_id)
        return await self.learn((await self._calling.call(GET_GROUP, request)).group)

    async def name_of(self, group_id: bytes) -> str:
        """Returns what a group is called; its id when that cannot be found out."""
        known = await self._find(group_id)
        if known.name:
            return known.name
        try:
            return (await self.get(group_id)).name
        except (RefusedError, NotConnectedError):
            return group_id.hex()

    async def mine(self) -> list[Group]:
        """Returns the groups of which the user is a member, by name, from the server."""
        found: list[Group] = []
        token = ""
        while True:
            request = group_service_pb2.ListGroupsRequest(page_size=_PAGE, page_token=token)
            page = await self._calling.call(LIST_GROUPS, request)
            found += [await self.learn(group) for group in page.groups]
            token = page.next_page_token
            if not token:
                return sorted(found, key=lambda group: (group.name.casefold(), group.group_id))

    async def members(self, group_id: bytes) -> list[Member]:
        """Returns the members, the owner first, then the admins; from the server when this device is not up to date."""
        known = await self._find(group_id)
        if not known.members_version or known.members_version < known.version:
            await self._fetch_members(group_id)
        members: Iterable[KnownMember] = await self._in_store(self._book.members, group_id)
        return sorted((member.view() for member in members), key=lambda member: (-member.role, member.user_id))

    async def learn(self, group: group_pb2.Group) -> Group:
        """Remembers what the server says of a group, and returns what is known of it."""
        known: KnownGroup = await self._in_store(self._book.learn, to_group_view(group))
        return known.view()

    async def left(self, group_id: bytes) -> None:
        """Remembers that the user is no member any more."""
        await self._in_store(self._book.leave, group_id)

    async def _fetch_members(self, group_id: bytes) -> None:
        found: list[KnownMember] = []
        version = 0
        token = ""
        while True:
            request = group_service_pb2.ListMembersRequest(group_id=group_id, page_size=_PAGE, page_token=token)
            page = await self._calling.call(LIST_MEMBERS, request)
            if token and page.version != version:
                # Pages of different versions do not fit together.
                found, token = [], ""
                continue
            version = page.version
            found += [KnownMember(member.user_id, to_role(member.role), member.join_ms) for member in page.members]
            token = page.next_page_token
            if not token:
                await self._in_store(self._book.learn_members, group_id, version, found)
                return

    async def _find(self, group_id: bytes) -> KnownGroup:
        known: KnownGroup | None = await self._in_store(self._book.find, group_id)
        return known or KnownGroup(group_id)

    async def _all(self) -> list[KnownGroup]:
        known: list[KnownGroup] = await self._in_store(self._book.all)
        return known


def _meant(groups: list[KnownGroup], text: str) -> list[KnownGroup]:
    """Returns the groups that a text means: by name, else by the start of the id; past ones when there is no other."""
    folded = text.strip().casefold()
    # A group of which no more than its id was heard has no name yet, and answers to none.
    named = [known for known in groups if folded and known.name.casefold() == folded]
    if not named and _ID_START.fullmatch(folded):
        named = [known for known in groups if known.group_id.hex().startswith(folded)]
    return [known for known in named if known.role] or named
