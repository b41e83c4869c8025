"""Who is typing in which conversation, until it ends or its time is over."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svc_presence.model import ConversationId, TypingKind, Typist, UserId
from svc_presence.protocol.deadlines import Deadlines

if TYPE_CHECKING:
    from collections.abc import Mapping

_EMPTY: dict[UserId, TypingKind] = {}


class Rooms:
    """The conversations in which somebody is typing; times are monotonic seconds."""

    def __init__(self) -> None:
        self._rooms: dict[ConversationId, dict[UserId, TypingKind]] = {}
        self._deadlines: Deadlines[tuple[ConversationId, UserId]] = Deadlines()

    def __len__(self) -> int:
        return len(self._rooms)

    def __contains__(self, conversation_id: ConversationId) -> bool:
        return conversation_id in self._rooms

    @property
    def all(self) -> list[ConversationId]:
        """Where somebody is typing."""
        return list(self._rooms)

    def typists(self, conversation_id: ConversationId) -> Mapping[UserId, TypingKind]:
        """Returns who is typing in a conversation, in the order in which they began."""
        return self._rooms.get(conversation_id, _EMPTY)

    def with_typist(self, user_id: UserId) -> list[ConversationId]:
        """Returns where a user is typing."""
        return [conversation_id for conversation_id, typists in self._rooms.items() if user_id in typists]

    def is_typing(self, conversation_id: ConversationId, user_id: UserId) -> bool:
        """Returns whether a user is typing in a conversation."""
        return user_id in self.typists(conversation_id)

    def start(self, conversation_id: ConversationId, typist: Typist, until_s: float) -> bool:
        """Learns that somebody is typing; returns whether that is news."""
        typists = self._rooms.setdefault(conversation_id, {})
        self._deadlines.set((conversation_id, typist.user_id), until_s)
        is_news = typists.get(typist.user_id) is not typist.kind
        typists[typist.user_id] = typist.kind
        return is_news

    def stop(self, conversation_id: ConversationId, user_id: UserId) -> bool:
        """Learns that somebody is typing no longer; returns whether that is news."""
        typists = self._rooms.get(conversation_id, {})
        if typists.pop(user_id, None) is None:
            return False
        self._deadlines.drop((conversation_id, user_id))
        if not typists:
            del self._rooms[conversation_id]
        return True

    def close(self, conversation_id: ConversationId) -> None:
        """Forgets a conversation."""
        for user_id in list(self.typists(conversation_id)):
            self.stop(conversation_id, user_id)

    def expire(self, now_s: float) -> list[ConversationId]:
        """Ends what is over; returns the conversations in which that is news."""
        due = self._deadlines.due(now_s)
        return list(dict.fromkeys(place for place, user_id in due if self.stop(place, user_id)))
