"""What the directory needs in order to keep what people allow."""

from collections.abc import Callable, Sequence
from typing import Protocol

from svc_identity.model import Profile, UserId
from svc_identity.model.privacy import PrivacyAspect, Settings


class PrivacyStore(Protocol):
    """Keeps settings, and answers what they allow."""

    async def profile_with_settings(self, user_id: UserId) -> tuple[Profile, Settings]:
        """Returns what a user says of itself and what it has set, as itself sees it.

        Raises:
            UserNotFoundError: There is no such user.
        """
        ...

    async def update_settings(self, user_id: UserId, change: Callable[[Settings], Settings]) -> None:
        """Changes the settings of a user; what makes no difference is no change.

        Args:
            user_id: Whose.
            change: Returns the new settings of the old ones; may be called more than once.

        Raises:
            UserNotFoundError: There is no such user.
        """
        ...

    async def may_see(self, aspect: PrivacyAspect, pairs: Sequence[tuple[UserId, UserId]]) -> list[bool]:
        """Says for pairs of viewer and target whether the one may see that aspect of the other, in order."""
        ...
