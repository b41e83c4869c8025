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

Pair = tuple["ConversationId", "UserId"]
"""A group and a user."""


class Seen(NamedTuple):
    """What a user may see of a group, as far as is known."""

    windows: tuple[Window, ...]
    """Empty for a stranger."""
    version: int
    """Up to this version of the group it is certain: the last time may have ended with the next."""


class _Known(NamedTuple):
    """What was found out about one membership that lasted then."""

    joined_version: int
    windows: tuple[Window, ...]


class Sight:
    """Answers for pairs of a group and a user; remembers what cannot change."""

    def __init__(self, directory: GroupDirectory) -> None:
        self._directory = directory
        self._known: dict[Pair, _Known] = {}

    async def windows(self, pairs: Iterable[Pair]) -> dict[Pair, tuple[Window, ...]]:
        """Returns the times of users in groups, empty for strangers; raises `UnavailableError`."""
        return {pair: seen.windows for pair, seen in (await self.seen(pairs)).items()}

    async def seen(self, pairs: Iterable[Pair]) -> dict[Pair, Seen]:
        """Returns the times of users in groups, and how certain they are; raises `UnavailableError`.

        A copy that names somebody as a member may be 2 s behind a removal. One that does not may be behind a join,
        after which messages have come already: whoever is no member is asked for.
        """
        found: dict[Pair, Seen] = {}
        unsure: dict[Pair, None] = {}
        for pair in pairs:
            seen = self._recall(pair)
            if seen is None:
                unsure[pair] = None
            else:
                found[pair] = seen
        return found | await self.ask(unsure)

    async def ask(self, pairs: Iterable[Pair]) -> dict[Pair, Seen]:
        """Returns what is certain of every version that was in use before; raises `UnavailableError`."""
        asked = list(pairs)
        if not asked:
            return {}
        found: dict[Pair, Seen] = {}
        for pair, membership in zip(asked, await self._directory.memberships(asked), strict=True):
            found[pair] = Seen(membership.windows, membership.group_version)
            self._keep(pair, membership.windows)
        return found

    def _recall(self, pair: Pair) -> Seen | None:
        known, group = self._known.get(pair), self._directory.cached(pair[0])
        if known is None or group is None or known.joined_version != _joined(group, pair[1]):
            return None
        return Seen(known.windows, group.version)

    def _keep(self, pair: Pair, windows: tuple[Window, ...]) -> None:
        group = self._directory.cached(pair[0])
        last = windows[-1].joined_version if windows and not windows[-1].left_version else 0
        # An answer that is older than the copy, or newer, says nothing about its version.
        if not last or group is None or last != _joined(group, pair[1]):
            return
        if len(self._known) >= CAPACITY:
            self._known.clear()
        self._known[pair] = _Known(last, windows)


def _joined(group: DirectoryGroup, user_id: UserId) -> int:
    at = group.place(user_id)
    return group.joined_versions[at] if at >= 0 and group.exists else 0
