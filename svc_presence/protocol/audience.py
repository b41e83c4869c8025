"""Who watches whom, and who looks at which conversation: the same three indexes for both."""

from __future__ import annotations

from typing import TYPE_CHECKING, Generic, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from svc_presence.model import Conversation, ConversationId, Sight, Typist, UserId, View
    from svc_presence.ports import Feed

Topic_co = TypeVar("Topic_co", bound=bytes, covariant=True)
Topic = TypeVar("Topic", bound=bytes)


class Looking(Protocol[Topic_co]):
    """Somebody behind an edge who is to be told of something."""

    @property
    def feed(self) -> Feed:
        """The way to the edge."""
        ...

    @property
    def number(self) -> int:
        """The edge's number."""
        ...

    @property
    def viewer_id(self) -> UserId:
        """Who looks."""
        ...

    @property
    def topic_id(self) -> Topic_co:
        """At what: a person or a conversation."""
        ...


Looker = TypeVar("Looker", bound="Looking[bytes]")


class Watch:
    """One viewer of one person."""

    __slots__ = ("feed", "is_unjudged", "number", "shown", "sight", "ticket", "topic_id", "viewer_id")

    def __init__(self, feed: Feed, number: int, viewer_id: UserId, target_id: UserId) -> None:
        self.feed = feed
        self.number = number
        self.viewer_id = viewer_id
        self.topic_id = target_id
        self.sight: Sight | None = None
        """How much may be seen; None until that is known."""
        self.is_unjudged = False
        """The directory was asked how much may be seen, and did not answer."""
        self.ticket = 0
        """Rises whenever an answer of the directory that is on its way must no longer count."""
        self.shown: View | None = None
        """What was told last."""


class Opening:
    """One viewer of one conversation."""

    __slots__ = ("conversation", "feed", "number", "shown", "viewer_id")

    def __init__(self, feed: Feed, number: int, viewer_id: UserId, conversation: Conversation) -> None:
        self.feed = feed
        self.number = number
        self.viewer_id = viewer_id
        self.conversation = conversation
        self.shown: tuple[Typist, ...] = ()
        """Who was said to be writing."""

    @property
    def topic_id(self) -> ConversationId:
        """The conversation."""
        return self.conversation.conversation_id


class Audience(Generic[Looker]):
    """Everybody who looks at something, by what they look at, by who they are, and by the edge that asked."""

    def __init__(self) -> None:
        self._by_topic: dict[bytes, dict[Looker, None]] = {}
        self._by_viewer: dict[bytes, dict[Looker, None]] = {}
        self._by_feed: dict[Feed, dict[int, Looker]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._by_feed.values()))

    def __iter__(self) -> Iterator[Looker]:
        return (looker for numbers in self._by_feed.values() for looker in numbers.values())

    def __contains__(self, topic_id: bytes) -> bool:
        return topic_id in self._by_topic

    def add(self, looker: Looker) -> None:
        """Adds somebody, in the place of whoever had the number on the same feed."""
        self.remove(looker.feed, looker.number)
        self._by_feed.setdefault(looker.feed, {})[looker.number] = looker
        self._by_topic.setdefault(looker.topic_id, {})[looker] = None
        self._by_viewer.setdefault(looker.viewer_id, {})[looker] = None

    def remove(self, feed: Feed, number: int) -> Looker | None:
        """Removes and returns whoever has a number on a feed; None when nobody has."""
        numbers = self._by_feed.get(feed, {})
        looker = numbers.pop(number, None)
        if looker is None:
            return None
        if not numbers:
            del self._by_feed[feed]
        _discard(self._by_topic, looker.topic_id, looker)
        _discard(self._by_viewer, looker.viewer_id, looker)
        return looker

    def end(self, feed: Feed) -> list[Looker]:
        """Removes and returns everybody of a feed."""
        return [looker for number in list(self._by_feed.get(feed, ())) if (looker := self.remove(feed, number))]

    def of(self, topic_id: bytes) -> Collection[Looker]:
        """Returns who looks at something."""
        return self._by_topic.get(topic_id, {}).keys()

    def viewing(self, viewer_id: bytes) -> Collection[Looker]:
        """Returns what somebody looks at."""
        return self._by_viewer.get(viewer_id, {}).keys()


def _discard(index: dict[bytes, dict[Looker, None]], key: bytes, looker: Looker) -> None:
    lookers = index[key]
    del lookers[looker]
    if not lookers:
        del index[key]
