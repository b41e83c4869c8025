"""What people allow, in memory."""

from collections.abc import Callable, Sequence

from svc_identity.adapters.tables_memory import Tables
from svc_identity.errors import UserNotFoundError
from svc_identity.model import ChangeKind, Profile, UserId
from svc_identity.model.privacy import PrivacyAspect, Settings


class MemoryPrivacyStore:
    """Keeps settings, until the process ends."""

    def __init__(self, tables: Tables) -> None:
        self._tables = tables

    async def profile_with_settings(self, user_id: UserId) -> tuple[Profile, Settings]:
        """Returns what a user says of itself and what it has set, as itself sees it."""
        if user_id not in self._tables.users:
            raise UserNotFoundError("the user does not exist")
        return self._tables.profile(user_id, user_id), self._tables.settings.get(user_id, Settings())

    async def update_settings(self, user_id: UserId, change: Callable[[Settings], Settings]) -> None:
        """Changes the settings of a user; what makes no difference is no change."""
        _, before = await self.profile_with_settings(user_id)
        after = change(before)
        if after != before:
            self._tables.settings[user_id] = after
            self._tables.record(ChangeKind.SETTINGS, user_id)

    async def may_see(self, aspect: PrivacyAspect, pairs: Sequence[tuple[UserId, UserId]]) -> list[bool]:
        """Says for pairs of viewer and target whether the one may see that aspect of the other, in order."""
        return [self._tables.may_see(aspect, viewer_id, target_id) for viewer_id, target_id in pairs]
