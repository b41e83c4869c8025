"""What svc_identity knows, in memory, for tests and simulations."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

from chappe.runtime.errors import UnavailableError
from svc_presence.model import GroupId, Sight, UserId

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_presence.ports import DirectoryListener

Answer = TypeVar("Answer")


class MemoryDirectory:
    """The `Directory` of one process. Its tables may be changed; whoever does so tells the listener."""

    listener: DirectoryListener

    def __init__(self) -> None:
        self.allowed: dict[tuple[UserId, UserId], Sight] = {}
        """How much each viewer may see of each person; nothing where nothing is said."""
        self.members: set[tuple[GroupId, UserId]] = set()
        self.apart: set[frozenset[UserId]] = set()
        """Pairs of whom one has blocked the other."""
        self.is_fresh = True
        """Whether every change up to a moment ago is known; without that nothing is answered, either."""

    def sight(self, viewer_id: UserId, target_id: UserId) -> Sight | None:
        """Returns how much of a person a viewer may see; None out of lease."""
        if not self.is_fresh:
            return None
        return Sight.LAST_SEEN if viewer_id == target_id else self.allowed.get((viewer_id, target_id), Sight.NOTHING)

    async def sights(self, pairs: Sequence[tuple[UserId, UserId]]) -> list[Sight]:
        """Returns how much each viewer may see of its target."""
        return [_answered(self.sight(*pair)) for pair in pairs]

    def membership(self, group_id: GroupId, user_id: UserId) -> bool | None:
        """Returns whether a user is in a group; None out of lease."""
        return (group_id, user_id) in self.members if self.is_fresh else None

    async def memberships(self, pairs: Sequence[tuple[GroupId, UserId]]) -> list[bool]:
        """Returns whether each user is in its group."""
        return [_answered(self.membership(*pair)) for pair in pairs]

    def separation(self, one: UserId, other: UserId) -> bool | None:
        """Returns whether one of two people has blocked the other; None out of lease."""
        return frozenset((one, other)) in self.apart if self.is_fresh else None

    async def separations(self, pairs: Sequence[tuple[UserId, UserId]]) -> list[bool]:
        """Returns for each pair whether one has blocked the other."""
        return [_answered(self.separation(*pair)) for pair in pairs]


def _answered(value: Answer | None) -> Answer:
    if value is None:
        raise UnavailableError("svc_identity", "it does not answer")
    return value
