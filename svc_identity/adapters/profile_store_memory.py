"""Profiles in memory."""

from collections.abc import Sequence

from svc_identity.adapters.tables_memory import Tables
from svc_identity.errors import UserNotFoundError
from svc_identity.model import ChangeKind, DirectoryUser, Profile, UserId


class MemoryProfileStore:
    """Keeps what people say of themselves, until the process ends."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def profiles(self, viewer_id: UserId, user_ids: Sequence[UserId]) -> list[Profile]:
        """Returns what the viewer may see, in order; a user that does not exist has version 0."""
        return [self._profile(viewer_id, user_id) for user_id in user_ids]

    async def update_profile(self, user_id: UserId, profile_name: str | None, about: str | None) -> None:
        """Changes what is not None."""
        user = self._tables.users.get(user_id)
        if user is None:
            raise UserNotFoundError("the user does not exist")
        user.profile_name = user.profile_name if profile_name is None else profile_name
        user.about = user.about if about is None else about
        self._tables.record(ChangeKind.PROFILE, user_id)

    async def users(self, user_ids: Sequence[UserId]) -> list[DirectoryUser]:
        """Returns what other services may know, in order; a user that does not exist has version 0."""
        return [self._user(user_id) for user_id in user_ids]

    def _profile(self, viewer_id: UserId, user_id: UserId) -> Profile:
        user = self._tables.users.get(user_id)
        if user is None:
            return Profile(user_id=user_id)
        is_self = viewer_id == user_id
        is_friend = self._has(user_id, viewer_id) and (user_id, viewer_id) not in self._tables.blocks
        is_kept = is_self or self._has(viewer_id, user_id)
        return Profile(
            user_id=user_id,
            profile_name=user.profile_name,
            about=user.about if is_self or is_friend else "",
            phone=(user.phone or "") if is_kept else "",
            version=user.version,
        )

    def _has(self, owner_id: UserId, user_id: UserId) -> bool:
        contacts = self._tables.contacts.items()
        return any(owner == owner_id and contact.user_id == user_id for (owner, _), contact in contacts)

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
        )
