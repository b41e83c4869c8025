"""The doors of ContactService and BlockService."""

from typing import Any

from chappe.api.identity.v1 import (
    block_service_pb2,
    block_service_pb2_grpc,
    contact_service_pb2_grpc,
)
from chappe.api.identity.v1 import contact_service_pb2 as wire
from chappe.runtime.principal import principal
from svc_identity.model import Contact, Phone, UserId
from svc_identity.service.contact import ContactRules


class ContactRpc(contact_service_pb2_grpc.ContactServiceServicer):
    """Keeps a user's address book."""

    def __init__(self, rules: ContactRules) -> None:
        self._rules = rules

    async def ListContacts(self, request: wire.ListContactsRequest, context: Any) -> wire.ListContactsResponse:
        """Returns a page of the user's contacts."""
        page = await self._rules.contacts(UserId(principal().user_id), request.page_size, request.page_token)
        return wire.ListContactsResponse(
            contacts=[_to_wire(contact) for contact in page.entries], next_page_token=page.next_token
        )

    async def AddContact(self, request: wire.AddContactRequest, context: Any) -> wire.AddContactResponse:
        """Adds a person by phone number, or renames one."""
        contact = await self._rules.add(UserId(principal().user_id), Phone(request.phone_number), request.contact_name)
        return wire.AddContactResponse(contact=_to_wire(contact))

    async def RemoveContact(self, request: wire.RemoveContactRequest, context: Any) -> wire.RemoveContactResponse:
        """Removes a person from the address book."""
        await self._rules.remove(UserId(principal().user_id), Phone(request.phone_number))
        return wire.RemoveContactResponse()

    async def LookupContacts(self, request: wire.LookupContactsRequest, context: Any) -> wire.LookupContactsResponse:
        """Says which phone numbers have an account."""
        phones = [Phone(phone) for phone in request.phone_numbers]
        found = await self._rules.lookup(UserId(principal().user_id), phones)
        return wire.LookupContactsResponse(user_ids=[user_id or b"" for user_id in found])

    async def ListMutualGroups(
        self, request: wire.ListMutualGroupsRequest, context: Any
    ) -> wire.ListMutualGroupsResponse:
        """Returns a page of the groups that the user and another are both members of."""
        user_id, other_id = UserId(principal().user_id), UserId(request.user_id)
        page = await self._rules.mutual_groups(user_id, other_id, request.page_size, request.page_token)
        groups = [wire.MutualGroup(group_id=group.group_id, group_name=group.name) for group in page.entries]
        return wire.ListMutualGroupsResponse(groups=groups, next_page_token=page.next_token)


class BlockRpc(block_service_pb2_grpc.BlockServiceServicer):
    """Keeps whom a user wants to hear nothing from."""

    def __init__(self, rules: ContactRules) -> None:
        self._rules = rules

    async def BlockUser(
        self, request: block_service_pb2.BlockUserRequest, context: Any
    ) -> block_service_pb2.BlockUserResponse:
        """Blocks a user."""
        await self._rules.block(UserId(principal().user_id), UserId(request.user_id))
        return block_service_pb2.BlockUserResponse()

    async def UnblockUser(
        self, request: block_service_pb2.UnblockUserRequest, context: Any
    ) -> block_service_pb2.UnblockUserResponse:
        """Lets a user through again."""
        await self._rules.unblock(UserId(principal().user_id), UserId(request.user_id))
        return block_service_pb2.UnblockUserResponse()

    async def ListBlocks(
        self, request: block_service_pb2.ListBlocksRequest, context: Any
    ) -> block_service_pb2.ListBlocksResponse:
        """Returns a page of the users that are blocked."""
        page = await self._rules.blocks(UserId(principal().user_id), request.page_size, request.page_token)
        return block_service_pb2.ListBlocksResponse(user_ids=page.entries, next_page_token=page.next_token)


def _to_wire(contact: Contact) -> wire.Contact:
    return wire.Contact(phone_number=contact.phone, contact_name=contact.name, user_id=contact.user_id or b"")
