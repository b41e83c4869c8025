"""Knows which messages of groups people may see: the times in which they are, or were, members.

The times before a membership began never change, so they are asked for once; whether it still lasts is known from the
leased copy of the group.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from svc_message.model import ConversationId, UserId
    from svc_message.model.group import DirectoryGroup, Window
    from svc_message.ports.group import GroupDirectory

CAPACITY = 200_000

_Pair = tuple["ConversationId", "UserId"]


class _Known(NamedTuple):
    """What was found out about one pair."""

    joined_version: int
    """Of the membership that lasted then; 0 for none."""
    group_version: int
    windows: tuple[Window, ...]


class Sight:
    """Answers for pairs of a group and a user; remembers what cannot change."""

    def __init__(self, directory: GroupDirectory) -> None:
        self._directory = directory
        self._known: dict[_Pair, _Known] = {}

    async def windows(self, pairs: Iterable[_Pair]) -> dict[_Pair, tuple[Window, ...]]:
        """Returns the times of users in groups, empty for strangers; raises `UnavailableError`."""
        found: dict[_Pair, tuple[Window, ...]] = {}
        unsure: dict[_Pair, None] = {}
        for pair in pairs:
            known = self._recall(pair)
            if known is None:
                unsure[pair] = None
            else:
                found[pair] = known
        if unsure:
            asked = list(unsure)
            for pair, membership in zip(asked, await self._directory.memberships(asked), strict=True):
                found[pair] = membership.windows
                self._keep(pair, membership.windows)
        return found

    def _recall(self, pair: _Pair) -> tuple[Window, ...] | None:
        known, group = self._known.get(pair), self._directory.cached(pair[0])
        if known is None or group is None:
            return None
        joined_version = _joined(group, pair[1])
        is_true = known.joined_version == joined_version and (joined_version or known.group_version == group.version)
        return known.windows if is_true else None

    def _keep(self, pair: _Pair, windows: tuple[Window, ...]) -> None:
        group = self._directory.cached(pair[0])
        last = windows[-1].joined_version if windows and not windows[-1].left_version else 0
        # An answer that is older than the copy, or newer, says nothing about its version.
        if group is None or last != _joined(group, pair[1]):
            return
        if len(self._known) >= CAPACITY:
            self._known.clear()
        self._known[pair] = _Known(last, group.version, windows)


def _joined(group: DirectoryGroup, user_id: UserId) -> int:
    at = group.place(user_id)
    return group.joined_versions[at] if at >= 0 and group.exists else 0
