"""Times between which something was true for certain or perhaps: blocks, and memberships of groups."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass
from operator import attrgetter
from typing import NamedTuple

from chappe.testing.checker_state import NEVER, Limits, Message, User


@dataclass(slots=True)
class _Block:
    began: float
    returned: float
    lift_began: float = NEVER
    lifted: float = NEVER


class Blocks:
    """Who has blocked whom, and when for certain or perhaps."""

    def __init__(self, grace_ms: float) -> None:
        self._grace_ms = grace_ms
        self._blocks: dict[tuple[User, User], list[_Block]] = {}

    def __bool__(self) -> bool:
        return bool(self._blocks)

    def block(self, by: User, whom: User, began: float, returned: float) -> None:
        """Opens a block; blocking again changes nothing."""
        blocks = self._blocks.setdefault((by, whom), [])
        if not blocks or blocks[-1].lifted < NEVER:
            blocks.append(_Block(began, returned))

    def lift(self, by: User, whom: User, began: float, returned: float) -> None:
        """Closes the open block, if there is one."""
        blocks = self._blocks.get((by, whom))
        if blocks and blocks[-1].lifted == NEVER:
            blocks[-1].lift_began, blocks[-1].lifted = began, returned

    def may_bite(self, by: User, whom: User, start: float, end: float) -> bool:
        """Whether a message accepted between these times may rightly be withheld."""
        blocks = self._blocks.get((by, whom), ())
        return any(block.began <= end and block.lifted >= start for block in blocks)

    def may_withhold(self, message: Message, original: Message | None) -> bool:
        """Whether what somebody sent to a user, or what it changes, may rightly be withheld from that one.

        What was sent while its sender was blocked never arrives, nor does what changes it.
        """
        to, sender = message.to, message.sender
        return (
            to is not None
            and sender is not None
            and any(self.may_bite(to, sender.user, one.sent_t, one.stored_t) for one in (message, original or message))
        )

    def must_bite(self, by: User, whom: User, start: float, end: float) -> bool:
        """Whether a message accepted between these times must be withheld, whichever moment it was."""
        blocks = self._blocks.get((by, whom), ())
        return any(block.returned + self._grace_ms <= start and block.lift_began > end for block in blocks)


class Change(NamedTuple):
    """A membership that begins or ends."""

    version: int
    """Of the group afterwards; 0 when nobody has said."""
    returned: float
    began: float
    is_join: bool


@dataclass(slots=True)
class Span:
    """One membership of one user."""

    began: float
    """When it may have begun at the earliest."""
    joined: float
    """When it certainly had."""
    joined_version: int
    leave_began: float = NEVER
    left: float = NEVER
    left_version: int = 0

    def is_known_to(self, message: Message) -> bool:
        """Whether the sender of a message names a version of the group with this membership in it."""
        return 0 < self.joined_version <= message.version

    def is_over_for(self, message: Message) -> bool:
        """Whether the sender of a message names a version of the group in which this membership has ended."""
        return 0 < self.left_version <= message.version


class Audience(NamedTuple):
    """To whom a message goes."""

    certain: tuple[User, ...]
    """Those must have it."""
    unsure: tuple[User, ...]
    """Those may have it."""
    least: int
    """How many members there were at its acceptance, its sender too."""
    most: int


class Group:
    """The members of one group, as far as the history tells."""

    def __init__(self, name: str, limits: Limits) -> None:
        self.name = name
        self._limits = limits
        self._changes: dict[User, list[Change]] = {}
        self._spans: dict[User, list[Span]] = {}
        self._times: list[float] = []
        self._audiences: dict[tuple[int, int, int, int], Audience] = {}

    @property
    def users(self) -> Iterable[User]:
        """Everybody who ever was a member."""
        return self._changes

    @property
    def is_told(self) -> bool:
        """Whether anything is known of its members."""
        return bool(self._changes)

    def change(self, user: User, change: Change) -> None:
        """Takes note of a membership that began or ended."""
        self._changes.setdefault(user, []).append(change)
        self._spans.pop(user, None)
        self._audiences.clear()
        self._times = []

    def spans(self, user: User) -> list[Span]:
        """Returns the memberships of a user, in order."""
        found = self._spans.get(user)
        if found is None:
            found = self._spans[user] = _spans(self._changes.get(user, []))
        return found

    def is_steady(self, user: User, by_t: float) -> bool:
        """Whether a user has joined by a time and never left, as far as was told until now; a quick answer."""
        changes = self._changes.get(user)
        return changes is not None and len(changes) == 1 and changes[0].is_join and changes[0].began <= by_t

    def may_have(self, user: User, message: Message, by_t: float) -> bool:
        """Whether a user may have a message that was accepted by a time, whichever moment it was."""
        return any(self._may_cover(span, message, by_t) for span in self.spans(user))

    def has_left(self, user: User, t: float) -> bool:
        """Whether a user who was a member has been none for so long at a time that nothing may be written for it."""
        grace_ms = self._limits.change_grace_ms + self._limits.writing_ms
        past = [span for span in self.spans(user) if span.began <= t]
        return bool(past) and all(span.left + grace_ms <= t for span in past)

    def must_take(self, user: User, start: float, end: float) -> bool:
        """Whether a user is a member for certain at all times between two."""
        return any(span.joined <= start and span.leave_began > end for span in self.spans(user))

    def audience(self, message: Message) -> Audience:
        """Returns to whom a message goes that was stored; messages between two changes share the answer."""
        times = self._times or self._thresholds()
        stored_t = message.stored_t
        key = (
            bisect_right(times, message.sent_t),
            bisect_right(times, stored_t),
            bisect_right(times, stored_t + self._limits.expansion_ms),
            message.version,
        )
        found = self._audiences.get(key)
        if found is None:
            found = self._audiences[key] = self._audience(message)
        return found

    def _audience(self, message: Message) -> Audience:
        stored_t = message.stored_t
        certain: list[User] = []
        unsure: list[User] = []
        least = 0
        for user in self._changes:
            spans = [span for span in self.spans(user) if self._may_cover(span, message, stored_t)]
            sure = [span for span in spans if self._has_joined(span, message) and span.leave_began > stored_t]
            least += bool(sure)
            if any(span.leave_began > stored_t + self._limits.expansion_ms for span in sure):
                certain.append(user)
            elif spans:
                unsure.append(user)
        return Audience(tuple(certain), tuple(unsure), least, len(certain) + len(unsure))

    def _has_joined(self, span: Span, message: Message) -> bool:
        return span.is_known_to(message) or span.joined + self._limits.change_grace_ms <= message.sent_t

    def _may_cover(self, span: Span, message: Message, by_t: float) -> bool:
        if span.began > by_t or span.is_over_for(message):
            return False
        return span.left + self._limits.change_grace_ms > message.sent_t

    def _thresholds(self) -> list[float]:
        grace_ms = self._limits.change_grace_ms
        self._times = sorted(
            {
                t
                for user in self._changes
                for span in self.spans(user)
                for t in (span.began, span.joined + grace_ms, span.leave_began, span.left + grace_ms)
            }
        )
        return self._times


_returned = attrgetter("returned")


def _spans(changes: list[Change]) -> list[Span]:
    # By version, in which they happened; without one for each, in the order in which they returned.
    has_versions = all(change.version for change in changes)
    spans: list[Span] = []
    for version, returned, began, is_join in sorted(changes) if has_versions else sorted(changes, key=_returned):
        is_open = bool(spans) and spans[-1].left == NEVER
        if is_join and not is_open:
            spans.append(Span(began, returned, version))
        elif is_open and not is_join:
            spans[-1].leave_began, spans[-1].left, spans[-1].left_version = began, returned, version
    return spans
