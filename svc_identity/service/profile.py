"""Shows and changes what people say of themselves."""

from collections.abc import Sequence

from chappe.runtime.errors import InvalidFieldError
from svc_identity.errors import UserNotFoundError
from svc_identity.model import DirectoryUser, Profile, UserId
from svc_identity.ports import ProfileStore
from svc_identity.service.registration import checked_name

_MEDIA_ID_BYTES = 16


class ProfileRules:
    """Says what one user may see of another."""

    def __init__(self, store: ProfileStore) -> None:
        self._store = store

    async def profile(self, viewer_id: UserId, user_id: UserId) -> Profile:
        """Returns a profile as its viewer may see it.

        Raises:
            UserNotFoundError: There is no such user.
        """
        (profile,) = await self._store.profiles(viewer_id, [user_id])
        if not profile.version:
            raise UserNotFoundError("the user does not exist")
        return profile

    async def profiles(self, viewer_id: UserId, user_ids: Sequence[UserId]) -> list[Profile]:
        """Returns profiles in order; of a user that does not exist only the id."""
        return await self._store.profiles(viewer_id, user_ids)

    async def update(
        self, user_id: UserId, profile_name: str | None, about: str | None, photo_media_id: bytes | None
    ) -> Profile:
        """Changes what is not None, no bytes take the photo away; returns the profile as it is then.

        Raises:
            InvalidFieldError: The name shows nothing, or the photo is not named by 16 bytes.
        """
        name = None if profile_name is None else checked_name(profile_name, "profile_name")
        if photo_media_id and len(photo_media_id) != _MEDIA_ID_BYTES:
            raise InvalidFieldError("photo_media_id", f"must have {_MEDIA_ID_BYTES} bytes, or none to take it away")
        if (name, about, photo_media_id) != (None, None, None):
            await self._store.update_profile(user_id, name, about, photo_media_id)
        return await self.profile(user_id, user_id)

    async def users(self, user_ids: Sequence[UserId]) -> list[DirectoryUser]:
        """Returns what other services may know, in order; a user that does not exist has version 0."""
        return await self._store.users(user_ids)
