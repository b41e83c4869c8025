"""What a user does with the own account: profile, devices, sign-ins and blocks."""

from chappe.api.identity.v1 import (
    block_service_pb2,
    contact_service_pb2,
    device_service_pb2,
    profile_service_pb2,
    session_service_pb2,
    settings_pb2,
)
from chappe.client.group_views import Group
from chappe.client.methods import (
    BLOCK_USER,
    GET_PROFILE,
    GET_SETTINGS,
    LIST_BLOCKS,
    LIST_DEVICES,
    LIST_MUTUAL_GROUPS,
    LIST_SESSIONS,
    REVOKE_SESSION,
    START_LINK,
    UNBLOCK_USER,
    UNLINK_DEVICE,
    UPDATE_PROFILE,
    UPDATE_SETTINGS,
)
from chappe.client.people import Calling, People

_PAGE = 1000


class Account:
    """The own account; every method raises RefusedError when the service says no."""

    def __init__(self, calling: Calling, people: People) -> None:
        self._calling = calling
        self._people = people

    async def profile(self, person: str | bytes | None = None) -> profile_service_pb2.Profile:
        """Returns the own profile, or that of a person."""
        user_id = b"" if person is None else await self._people.resolve(person)
        request = profile_service_pb2.GetProfileRequest(user_id=user_id)
        return (await self._calling.call(GET_PROFILE, request)).profile

    async def update_profile(self, *, name: str | None = None, about: str | None = None) -> profile_service_pb2.Profile:
        """Changes the own profile; what is None stays."""
        request = profile_service_pb2.UpdateProfileRequest(profile_name=name, about=about)
        return (await self._calling.call(UPDATE_PROFILE, request)).profile

    async def settings(self) -> settings_pb2.Settings:
        """Returns who may see what of the user, what its devices announce, and how the account is guarded."""
        return (await self._calling.call(GET_SETTINGS, profile_service_pb2.GetSettingsRequest())).settings

    async def update_settings(self, wanted: settings_pb2.Settings) -> settings_pb2.Settings:
        """Changes what is set in `wanted`, and returns all as it is then; holds everywhere within 2 seconds."""
        request = profile_service_pb2.UpdateSettingsRequest(settings=wanted)
        return (await self._calling.call(UPDATE_SETTINGS, request)).settings

    async def create_link_code(self) -> str:
        """Returns a short code with which another machine becomes a device of this account; it lives for 5 minutes."""
        return (await self._calling.call(START_LINK, device_service_pb2.StartLinkRequest())).link_code

    async def devices(self) -> list[device_service_pb2.Device]:
        """Returns the linked devices by id."""
        return list((await self._calling.call(LIST_DEVICES, device_service_pb2.ListDevicesRequest())).devices)

    async def unlink(self, device_id: int) -> None:
        """Takes a device out of the account."""
        await self._calling.call(UNLINK_DEVICE, device_service_pb2.UnlinkDeviceRequest(device_id=device_id))

    async def sessions(self) -> list[session_service_pb2.Session]:
        """Returns the sign-in sessions by device."""
        return list((await self._calling.call(LIST_SESSIONS, session_service_pb2.ListSessionsRequest())).sessions)

    async def revoke(self, *, session_id: bytes | None = None, device_id: int | None = None) -> None:
        """Ends one sign-in session, or all of a device; its connections are closed within 2 seconds."""
        request = session_service_pb2.RevokeSessionRequest()
        if session_id is not None:
            request.session_id = session_id
        elif device_id is not None:
            request.device_id = device_id
        await self._calling.call(REVOKE_SESSION, request)

    async def block(self, person: str | bytes) -> None:
        """Hears nothing from a person any more; the person is not told."""
        request = block_service_pb2.BlockUserRequest(user_id=await self._people.resolve(person))
        await self._calling.call(BLOCK_USER, request)

    async def unblock(self, person: str | bytes) -> None:
        """Hears from a person again, from the next message on."""
        request = block_service_pb2.UnblockUserRequest(user_id=await self._people.resolve(person))
        await self._calling.call(UNBLOCK_USER, request)

    async def groups_with(self, person: str | bytes) -> list[Group]:
        """Returns the groups that the user and a person are both in: their ids and names."""
        user_id = await self._people.resolve(person)
        found: list[Group] = []
        token = ""
        while True:
            request = contact_service_pb2.ListMutualGroupsRequest(user_id=user_id, page_size=_PAGE, page_token=token)
            page = await self._calling.call(LIST_MUTUAL_GROUPS, request)
            found += [Group(group_id=group.group_id, name=group.group_name) for group in page.groups]
            token = page.next_page_token
            if not token:
                return found

    async def blocked(self) -> list[bytes]:
        """Returns the ids of the blocked users."""
        found: list[bytes] = []
        token = ""
        while True:
            request = block_service_pb2.ListBlocksRequest(page_size=_PAGE, page_token=token)
            page = await self._calling.call(LIST_BLOCKS, request)
            found += page.user_ids
            token = page.next_page_token
            if not token:
                return found
