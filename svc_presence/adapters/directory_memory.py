"""What svc_identity knows, in memory, for tests and simulations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chappe.runtime.errors import UnavailableError
from svc_presence.model import GroupId, Sight, UserId

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from svc_presence.ports import DirectoryListener


class MemoryDirectory:
    """The `Directory` of one process; everybody may see nothing of anybody else until it is told otherwise."""

    listener: DirectoryListener

    def __init__(self) -> None:
        self._sights: dict[tuple[UserId, UserId], Sight] = {}
        self._members: set[tuple[GroupId, UserId]] = set()
        self._is_up = True

    @property
    def is_fresh(self) -> bool:
        """Whether every change up to a moment ago is known."""
        return self._is_up

    def sight(self, viewer_id: UserId, target_id: UserId) -> Sight | None:
        """Returns how much of a person a viewer may see; None out of lease."""
        return self._sight(viewer_id, target_id) if self.is_fresh else None

    async def sights(self, pairs: Sequence[tuple[UserId, UserId]]) -> list[Sight]:
        """Returns how much each viewer may see of its target."""
        self._check()
        return [self._sight(*pair) for pair in pairs]

    def membership(self, group_id: GroupId, user_id: UserId) -> bool | None:
        """Returns whether a user is in a group; None out of lease."""
        return (group_id, user_id) in self._members if self.is_fresh else None

    async def memberships(self, pairs: Sequence[tuple[GroupId, UserId]]) -> list[bool]:
        """Returns whether each user is in its group."""
        self._check()
        return [pair in self._members for pair in pairs]

    def allow(self, viewer_id: UserId, target_id: UserId, sight: Sight) -> None:
        """Lets a viewer see so much of a person, as a change of one of them."""
        self._sights[viewer_id, target_id] = sight
        self._tell(lambda listener: listener.user_changed(target_id))

    def join(self, group_id: GroupId, *user_ids: UserId) -> None:
        """Makes users members of a group."""
        self._members.update((group_id, user_id) for user_id in user_ids)
        self._tell(lambda listener: listener.group_changed(group_id))

    def leave(self, group_id: GroupId, user_id: UserId) -> None:
        """Ends a membership."""
        self._members.discard((group_id, user_id))
        self._tell(lambda listener: listener.group_changed(group_id))

    def stop(self) -> None:
        """Stops answering."""
        self._is_up = False

    def start(self) -> None:
        """Answers again; changes may have been missed."""
        self._is_up = True
        self._tell(lambda listener: listener.everything_changed())

    def _sight(self, viewer_id: UserId, target_id: UserId) -> Sight:
        return Sight.LAST_SEEN if viewer_id == target_id else self._sights.get((viewer_id, target_id), Sight.NOTHING)

    def _check(self) -> None:
        if not self._is_up:
            raise UnavailableError("svc_identity", "stopped by the test")

    def _tell(self, tell: Callable[[DirectoryListener], None]) -> None:
        listener = getattr(self, "listener", None)
        if listener is not None:
            tell(listener)
