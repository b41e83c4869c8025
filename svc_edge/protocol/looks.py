"""Whom the sessions of this edge watch and which conversations they have open, and what each is still to be told.

A topic is watched once for all sessions of a user. What a session is told is state: only the newest waits for it, so a
session that takes nothing costs no more than what it watches.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from svc_edge.model import Opened, Watched
from svc_edge.protocol.budget import Bucket, Rate

if TYPE_CHECKING:
    from collections.abc import Iterable

    from svc_edge.model import Conversation, Topic, Typist, UserId, View
    from svc_edge.protocol.session import Session

TYPING_INTERVAL_S = 1.0
"""Of what a session says of its writing in one conversation in this time only the first counts."""
MOST_TYPING = 64
"""In so many conversations a session may be writing at once."""


class WatchLimits(NamedTuple):
    """What one session, and all of them, may watch."""

    per_session: int
    in_all: int
    burst: int = 1_000
    """So many topics a session may begin to watch at once."""
    rate: int = 50
    """So many in each second after that: whoever watches by turns learns little."""


class Looks:
    """What one session watches, and what it is still to be told."""

    __slots__ = ("_budget", "_typed", "opened", "presences", "session", "typing", "viewer_id", "watched")

    def __init__(self, session: Session, viewer_id: UserId, limits: WatchLimits, now_s: float) -> None:
        self.session = session
        self.viewer_id = viewer_id
        self.watched: dict[UserId, Watched] = {}
        self.opened: dict[Conversation, Opened] = {}
        self.presences: dict[UserId, View] = {}
        """How people are, as far as it was not written yet."""
        self.typing: dict[Conversation, tuple[Typist, ...]] = {}
        """Who is writing, as far as it was not written yet."""
        self._budget = Bucket(Rate(limits.burst, limits.rate), now_s)
        self._typed: dict[bytes, tuple[float, bool]] = {}

    @property
    def topics(self) -> list[Topic]:
        """Everything that it is told of."""
        return [*self.watched.values(), *self.opened.values()]

    @property
    def has_output(self) -> bool:
        """Whether something is to be written."""
        return bool(self.presences or self.typing)

    def spend(self, now_s: float) -> bool:
        """Charges one more topic; returns False when the budget is used up."""
        return self._budget.spend(now_s) == 0

    def may_type(self, conversation_id: bytes, now_s: float, *, is_over: bool) -> bool:
        """Returns whether what a session says of its writing counts: once a second, and once that it is over."""
        last_s, was_over = self._typed.get(conversation_id, (float("-inf"), True))
        if is_over:
            if was_over:
                return False
            self._typed[conversation_id] = last_s, True
            return True
        if now_s < last_s + TYPING_INTERVAL_S:
            return False
        if len(self._typed) >= MOST_TYPING:
            self._typed = {key: value for key, value in self._typed.items() if now_s < value[0] + TYPING_INTERVAL_S}
        if len(self._typed) >= MOST_TYPING:
            return False
        self._typed[conversation_id] = now_s, False
        return True


class Audience:
    """All topics of an edge: who is told of each, and what was said of it last."""

    def __init__(self) -> None:
        self._lookers: dict[Topic, dict[Looks, None]] = {}
        self._states: dict[Topic, View | tuple[Typist, ...]] = {}

    def __len__(self) -> int:
        return len(self._lookers)

    def add(self, topic: Topic, looks: Looks) -> bool:
        """Lets a session be told of a topic, at once what is known; returns whether the topic is new to the edge."""
        lookers = self._lookers.get(topic)
        is_new = lookers is None
        if lookers is None:
            lookers = self._lookers[topic] = {}
        lookers[looks] = None
        state = self._states.get(topic)
        if state:
            _note(looks, topic, state)
        return is_new

    def remove(self, topic: Topic, looks: Looks) -> bool:
        """Tells a session no more; returns whether nobody is left who is told of the topic."""
        lookers = self._lookers.get(topic)
        if lookers is None or looks not in lookers:
            return False
        del lookers[looks]
        if isinstance(topic, Watched):
            looks.presences.pop(topic.target_id, None)
        else:
            looks.typing.pop(topic.conversation, None)
        if lookers:
            return False
        del self._lookers[topic]
        self._states.pop(topic, None)
        return True

    def told(self, topic: Topic, state: View | tuple[Typist, ...]) -> Iterable[Looks]:
        """Takes what is new of a topic; returns who has to be written to."""
        lookers = self._lookers.get(topic)
        if lookers is None or self._states.get(topic) == state:
            return ()
        is_silence = topic not in self._states and not state
        self._states[topic] = state
        if is_silence:
            # That nobody is writing is what everybody believes.
            return ()
        for looks in lookers:
            _note(looks, topic, state)
        return lookers


def _note(looks: Looks, topic: Topic, state: View | tuple[Typist, ...]) -> None:
    if isinstance(topic, Watched):
        looks.presences[topic.target_id] = state  # type: ignore[assignment]  # a person's state is a View
    else:
        looks.typing[topic.conversation] = state  # type: ignore[assignment]  # a conversation's are its typists
