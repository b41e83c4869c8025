"""Profiles in memory."""

from collections.abc import Sequence

from svc_identity.adapters.tables_memory import Tables
from svc_identity.errors import UserNotFoundError
from svc_identity.model import ChangeKind, DirectoryUser, Profile, UserId
from svc_identity.model.privacy import Settings


class MemoryProfileStore:
    """Keeps what people say of themselves, until the process ends."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def profiles(self, viewer_id: UserId, user_ids: Sequence[UserId]) -> list[Profile]:
        """Returns what the viewer may see, in order; a user that does not exist has version 0."""
        return [self._tables.profile(viewer_id, user_id) for user_id in user_ids]

    async def update_profile(
        self, user_id: UserId, profile_name: str | None, about: str | None, photo_media_id: bytes | None = None
    ) -> None:
        """Changes what is not None, no bytes take the photo away; what is so already is no change."""
        user = self._tables.users.get(user_id)
        if user is None:
            raise UserNotFoundError("the user does not exist")
        before = (user.profile_name, user.about, user.photo_media_id)
        user.profile_name = user.profile_name if profile_name is None else profile_name
        user.about = user.about if about is None else about
        user.photo_media_id = user.photo_media_id if photo_media_id is None else photo_media_id
        if (user.profile_name, user.about, user.photo_media_id) != before:
            self._tables.record(ChangeKind.PROFILE, user_id)

    async def users(self, user_ids: Sequence[UserId]) -> list[DirectoryUser]:
        """Returns what other services may know, in order; a user that does not exist has version 0."""
        return [self._user(user_id) for user_id in user_ids]

    def _user(self, user_id: UserId) -> DirectoryUser:
        user = self._tables.users.get(user_id)
        if user is None:
            return DirectoryUser(user_id=user_id)
        devices = self._tables.linked(user_id)
        return DirectoryUser(
            user_id=user_id,
            version=user.version,
            blocked=tuple(sorted(blocked for blocker, blocked in self._tables.blocks if blocker == user_id)),
            device_ids=tuple(device.device_id for device in devices),
            generations=tuple(device.generation for device in devices),
            gives_read_receipts=self._tables.settings.get(user_id, Settings()).read_receipts,
        )
