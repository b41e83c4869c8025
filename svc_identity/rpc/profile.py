"""The door of ProfileService."""

from typing import Any

from chappe.api.identity.v1 import profile_service_pb2 as wire
from chappe.api.identity.v1 import profile_service_pb2_grpc
from chappe.runtime.principal import principal
from svc_identity.model import Profile, UserId
from svc_identity.rpc.settings import changes_of, settings_to_wire
from svc_identity.service.profile import ProfileRules
from svc_identity.service.settings import SettingsRules


class ProfileRpc(profile_service_pb2_grpc.ProfileServiceServicer):
    """Shows and changes what people say of themselves, and what they allow."""

    def __init__(self, rules: ProfileRules, settings: SettingsRules) -> None:
        self._rules = rules
        self._settings = settings

    async def GetProfile(self, request: wire.GetProfileRequest, context: Any) -> wire.GetProfileResponse:
        """Returns the profile of the user or of another."""
        viewer_id = UserId(principal().user_id)
        profile = await self._rules.profile(viewer_id, UserId(request.user_id or viewer_id))
        return wire.GetProfileResponse(profile=_to_wire(profile))

    async def BatchGetProfiles(
        self, request: wire.BatchGetProfilesRequest, context: Any
    ) -> wire.BatchGetProfilesResponse:
        """Returns many profiles."""
        user_ids = [UserId(user_id) for user_id in request.user_ids]
        profiles = await self._rules.profiles(UserId(principal().user_id), user_ids)
        return wire.BatchGetProfilesResponse(profiles=[_to_wire(profile) for profile in profiles])

    async def UpdateProfile(self, request: wire.UpdateProfileRequest, context: Any) -> wire.UpdateProfileResponse:
        """Changes the user's own profile."""
        profile = await self._rules.update(
            UserId(principal().user_id),
            request.profile_name if request.HasField("profile_name") else None,
            request.about if request.HasField("about") else None,
            request.photo_media_id if request.HasField("photo_media_id") else None,
        )
        return wire.UpdateProfileResponse(profile=_to_wire(profile))

    async def GetSettings(self, request: wire.GetSettingsRequest, context: Any) -> wire.GetSettingsResponse:
        """Returns the user's own settings and profile."""
        profile, settings = await self._settings.settings(UserId(principal().user_id))
        return wire.GetSettingsResponse(settings=settings_to_wire(settings), profile=_to_wire(profile))

    async def UpdateSettings(self, request: wire.UpdateSettingsRequest, context: Any) -> wire.UpdateSettingsResponse:
        """Changes the user's own settings."""
        changes = changes_of(request.settings)
        profile, settings = await self._settings.update(UserId(principal().user_id), changes)
        return wire.UpdateSettingsResponse(settings=settings_to_wire(settings), version=profile.version)


def _to_wire(profile: Profile) -> wire.Profile:
    return wire.Profile(
        user_id=profile.user_id,
        profile_name=profile.profile_name,
        about=profile.about,
        phone_number=profile.phone,
        version=profile.version,
        photo_media_id=profile.photo_media_id,
    )
