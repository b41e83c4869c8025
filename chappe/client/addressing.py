"""Which chat is meant: by a message of it, by a person, or by a group."""

import re
from collections.abc import Awaitable, Callable

from chappe.client.destination import Destination, to_group, to_person
from chappe.client.errors import UnknownPersonError
from chappe.client.group_views import Group
from chappe.client.known_groups import KnownGroups
from chappe.client.people import People
from chappe.client.remembered_groups import RememberedGroups
from chappe.client.views import Chat, Message

_NUMBER = re.compile(r"\+\d+")
_ID = re.compile(r"[0-9a-f]{32}")

Named = Message | Chat | Group | Destination | str | bytes
"""A message, a chat or a group as it is; a person's number, contact name or id; a group's name or start of its id."""


class Addressing:
    """Finds chats. A name that means a person and a group alike means neither: nothing is sent by a guess."""

    def __init__(
        self,
        people: People,
        groups: KnownGroups,
        remembered: RememberedGroups,
        user_id: bytes,
        is_reachable: Callable[[], Awaitable[bool]],
    ) -> None:
        self._people = people
        self._remembered = remembered
        self._is_reachable = is_reachable
        self._groups = groups
        self._user_id = user_id

    async def destination(self, chat: Named) -> Destination:
        """Returns the chat that is meant.

        Raises:
            UnknownPersonError: Nobody and no group is meant, or a person and a group alike.
            UnknownGroupError: More than one group is meant.
        """
        match chat:
            case Destination():
                return chat
            case Message() | Chat():
                return Destination(chat.conversation_id, chat.peer_id)
            case Group():
                return to_group(chat.group_id)
            case bytes():
                return await self._by_id(chat)
            case str():
                return await self._by_text(chat.strip())

    async def _by_id(self, id_: bytes) -> Destination:
        if await self._groups.is_known(id_):
            return to_group(id_)
        return to_person(self._user_id, await self._people.resolve(id_))

    async def _by_text(self, text: str) -> Destination:
        if _ID.fullmatch(text):
            return await self._by_id(bytes.fromhex(text))
        if _NUMBER.fullmatch(text):
            return to_person(self._user_id, await self._people.resolve(text))
        if not text:
            raise UnknownPersonError("no chat is named; write a contact's name, +number, or a group's name or id")
        if user_id := await self._person(text):
            await self._refuse_group_named(text)
            return to_person(self._user_id, user_id)
        if group_id := await self._groups.find(text):
            return to_group(group_id)
        raise UnknownPersonError(
            f"{text!r} is neither a contact with an account ({await self._people.some_names()}) nor a group of yours "
            f"({await self._groups.some_names()}); use a contact's name, +number, or a group's name or id"
        )

    async def _person(self, text: str) -> bytes:
        """Returns whom the address book calls so; while no server answers, that of this device has to do for groups."""
        if not await self._remembered.named(text) or await self._is_reachable():
            return await self._people.find(text)
        return self._people.known(text)

    async def _refuse_group_named(self, text: str) -> None:
        if group_ids := await self._remembered.named(text):
            groups = ", ".join(group_id.hex() for group_id in group_ids)
            raise UnknownPersonError(
                f"{text!r} is a contact and a group of yours; use the contact's +number, or the beginning of the id "
                f"of the group: {groups}"
            )
