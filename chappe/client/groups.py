"""What a user does with groups: make them, change them, be in them. Sending to one is `Client.send`, as to a person."""

from collections.abc import Iterable

from chappe.api.edge.v1 import item_pb2
from chappe.api.identity.v1 import group_service_pb2
from chappe.client.errors import UnknownPersonError
from chappe.client.group_views import Group, GroupOutcome, Invite, Member, Role, to_refusals
from chappe.client.known_groups import KnownGroups, Named
from chappe.client.methods import (
    ADD_MEMBERS,
    CREATE_GROUP,
    CREATE_INVITE,
    JOIN_BY_INVITE,
    LEAVE_GROUP,
    REMOVE_MEMBER,
    REVOKE_INVITE,
    SET_ROLE,
    UPDATE_GROUP,
)
from chappe.client.people import Calling, People
from chappe.client.seams import Randomness

_REQUEST_BYTES = 16
_MOST_NAMES = 10


class Groups:
    """The groups of a user; every method raises RefusedError when the service says no.

    A group is named by itself, by its name, by its id, or by the first hex digits of its id, at least 4.
    People are named as in `People.resolve`; who is in the group already, also by the name that the user sees.
    """

    def __init__(self, calling: Calling, people: People, known: KnownGroups, randomness: Randomness) -> None:
        self._calling = calling
        self._people = people
        self._known = known
        self._randomness = randomness

    async def create(
        self,
        name: str,
        people: Iterable[str | bytes] = (),
        *,
        description: str = "",
        is_announcement_only: bool = False,
        expiry_s: int = 0,
    ) -> GroupOutcome:
        """Creates a group that the user owns.

        Args:
            name: What everybody in it sees.
            people: Who else is in it; those who may not be added come back with the reason.
            description: What it is about.
            is_announcement_only: Only admins may write.
            expiry_s: After how long new messages disappear; 0 for never.
        """
        request = group_service_pb2.CreateGroupRequest(
            request_id=self._randomness.token(_REQUEST_BYTES),
            group_name=name,
            description=description,
            user_ids=await self._ids(people),
            is_announcement_only=is_announcement_only,
            expiry_s=expiry_s,
        )
        answer = await self._calling.call(CREATE_GROUP, request)
        return GroupOutcome(group=await self._known.learn(answer.group), refusals=to_refusals(list(answer.refusals)))

    async def get(self, group: Named) -> Group:
        """Returns a group, from the server when this device does not know its newest version."""
        return await self._known.get(await self._known.resolve(group))

    async def update(
        self,
        group: Named,
        *,
        name: str | None = None,
        description: str | None = None,
        is_announcement_only: bool | None = None,
        expiry_s: int | None = None,
    ) -> Group:
        """Changes a group, as an admin; what is None stays."""
        request = group_service_pb2.UpdateGroupRequest(
            group_id=await self._known.resolve(group),
            group_name=name,
            description=description,
            is_announcement_only=is_announcement_only,
            expiry_s=expiry_s,
        )
        return await self._known.learn((await self._calling.call(UPDATE_GROUP, request)).group)

    async def add(self, group: Named, people: Iterable[str | bytes]) -> GroupOutcome:
        """Adds people, as an admin; those who may not be added come back with the reason."""
        request = group_service_pb2.AddMembersRequest(
            group_id=await self._known.resolve(group), user_ids=await self._ids(people)
        )
        answer = await self._calling.call(ADD_MEMBERS, request)
        return GroupOutcome(group=await self._known.learn(answer.group), refusals=to_refusals(list(answer.refusals)))

    async def remove(self, group: Named, person: str | bytes) -> Group:
        """Removes a member, as an admin; nothing that is accepted 2 seconds later reaches it."""
        group_id = await self._known.resolve(group)
        request = group_service_pb2.RemoveMemberRequest(group_id=group_id, user_id=await self._member(group_id, person))
        return await self._known.learn((await self._calling.call(REMOVE_MEMBER, request)).group)

    async def leave(self, group: Named) -> None:
        """Leaves a group; an owner hands over to the admin, else the member, who has been there longest."""
        group_id = await self._known.resolve(group)
        await self._calling.call(LEAVE_GROUP, group_service_pb2.LeaveGroupRequest(group_id=group_id))
        await self._known.left(group_id)

    async def set_role(self, group: Named, person: str | bytes, role: Role) -> Group:
        """Gives a member a role, as an admin; only the owner makes another the owner, and becomes an admin by it."""
        group_id = await self._known.resolve(group)
        request = group_service_pb2.SetRoleRequest(
            group_id=group_id,
            user_id=await self._member(group_id, person),
            role=item_pb2.GroupRole.ValueType(role),
        )
        return await self._known.learn((await self._calling.call(SET_ROLE, request)).group)

    async def members(self, group: Named) -> list[Member]:
        """Returns the members, the owner first, then the admins; from the server when this device is not up to date."""
        return await self._known.members(await self._known.resolve(group))

    async def invite(self, group: Named, *, lifetime_s: int = 0, use_limit: int = 0) -> Invite:
        """Makes an invite, as an admin.

        Args:
            group: To which group.
            lifetime_s: How long it works; 0 for a week.
            use_limit: How many may join by it; 0 for as many as there is room for.
        """
        request = group_service_pb2.CreateInviteRequest(
            request_id=self._randomness.token(_REQUEST_BYTES),
            group_id=await self._known.resolve(group),
            lifetime_s=lifetime_s,
            use_limit=use_limit,
        )
        made = (await self._calling.call(CREATE_INVITE, request)).invite
        return Invite(
            invite_id=made.invite_id, code=made.invite_code, expire_ms=made.expire_ms, use_limit=made.use_limit
        )

    async def revoke_invites(self, group: Named, invite_id: bytes = b"") -> None:
        """Ends an invite, or all of the group, as an admin."""
        request = group_service_pb2.RevokeInviteRequest(group_id=await self._known.resolve(group), invite_id=invite_id)
        await self._calling.call(REVOKE_INVITE, request)

    async def join(self, code: str) -> Group:
        """Joins the group that an invite opens."""
        request = group_service_pb2.JoinByInviteRequest(invite_code=code)
        return await self._known.learn((await self._calling.call(JOIN_BY_INVITE, request)).group)

    async def _member(self, group_id: bytes, person: str | bytes) -> bytes:
        """Returns who is meant in a group: there the members may also be named as the user sees them."""
        try:
            return await self._people.resolve(person)
        except UnknownPersonError:
            names = await self._people.names_of(member.user_id for member in await self._known.members(group_id))
        found = [user_id for user_id, name in names.items() if name.casefold() == str(person).strip().casefold()]
        if len(found) == 1:
            return found[0]
        who = ", ".join(user_id.hex() for user_id in found) or ", ".join(sorted(names.values())[:_MOST_NAMES])
        raise UnknownPersonError(f"{person!r} {'may be any of' if found else 'is none of the members'}: {who}")

    async def _ids(self, people: Iterable[str | bytes]) -> list[bytes]:
        return [await self._people.resolve(person) for person in people]

    async def list(self) -> list[Group]:
        """Returns the groups of which the user is a member, by name, from the server."""
        return await self._known.mine()
