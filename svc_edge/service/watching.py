"""Takes what clients say of watching and writing, and writes to each what is new, once for a turn of the loop."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chappe.runtime.conversation import direct_conversation
from svc_edge.model import (
    Conversation,
    Opened,
    Presence,
    PresenceDelta,
    Typing,
    TypingDelta,
    UserId,
    View,
    Watched,
    WatchRefused,
)
from svc_edge.protocol.looks import Audience, Looks
from svc_edge.protocol.session import NEVER

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from svc_edge.model import Topic, TypingKind, Typist
    from svc_edge.ports import Watches
    from svc_edge.protocol.looks import WatchLimits
    from svc_edge.protocol.session import Session
    from svc_edge.service.sessions import Sessions

UNKNOWN = View(Presence.UNKNOWN, 0)
RETRY_AFTER_MS = 1_000

Ref = tuple[bytes, bytes]
"""How a client names a conversation: the peer and the group, of which one is empty."""


class Watching:
    """The rules of Watch, Unwatch, OpenConversation and Typing; all raise `SessionClosed` before the Welcome.

    It is the listener of svc_presence, too: what that says of a topic is given to every session that asked for it, and
    each of them is written to at the end of the turn, as long as it is signed in and its socket takes something.
    """

    def __init__(
        self, sessions: Sessions, watches: Watches, limits: WatchLimits, monotonic_s: Callable[[], float]
    ) -> None:
        self._sessions = sessions
        self._watches = watches
        self._limits = limits
        self._monotonic_s = monotonic_s
        self._audience = Audience()
        self.dropped_typings = 0
        """Times that somebody said to be writing once too often."""

    @property
    def topic_count(self) -> int:
        """How many topics svc_presence tells of."""
        return len(self._audience)

    def watch(self, session: Session, user_ids: Iterable[bytes]) -> None:
        """Watches people as far as the budgets go; of the others it says that they are not watched."""
        session.expect_live("Watch")
        looks, limits, now_s = self._looks(session), self._limits, self._monotonic_s()
        above: list[UserId] = []
        later: list[UserId] = []
        for user_id in map(UserId, dict.fromkeys(user_ids)):
            if user_id in looks.watched:
                continue
            if len(looks.watched) >= limits.per_session:
                above.append(user_id)
            elif len(self._audience) >= limits.in_all or not looks.spend(now_s):
                later.append(user_id)
            else:
                topic = looks.watched[user_id] = Watched(looks.viewer_id, user_id)
                self._subscribe(topic, looks)
        if above:
            detail = f"a session watches at most {limits.per_session} people: unwatch some first"
            session.frames.append(WatchRefused("LIST_FULL", detail, above, 0))
        if later:
            detail = "too many new watches: ask for these again later, and do not watch by turns"
            session.frames.append(WatchRefused("RATE_LIMITED", detail, later, RETRY_AFTER_MS))
        self._sessions.mark(session)

    def unwatch(self, session: Session, user_ids: Iterable[bytes]) -> None:
        """Watches people no longer."""
        session.expect_live("Unwatch")
        looks = self._looks(session)
        for user_id in map(UserId, user_ids):
            topic = looks.watched.pop(user_id, None)
            if topic is not None:
                self._unsubscribe(topic, looks)

    def open(self, session: Session, refs: Sequence[Ref]) -> None:
        """Looks at these conversations, in the place of those before; what is beyond the budget is passed over."""
        session.expect_live("OpenConversation")
        looks, now_s = self._looks(session), self._monotonic_s()
        wanted = {conversation: None for ref in refs if (conversation := _conversation(looks.viewer_id, ref))}
        for conversation in [known for known in looks.opened if known not in wanted]:
            self._unsubscribe(looks.opened.pop(conversation), looks)
        for conversation in wanted:
            if conversation in looks.opened:
                continue
            if len(self._audience) >= self._limits.in_all or not looks.spend(now_s):
                break
            topic = looks.opened[conversation] = Opened(looks.viewer_id, conversation)
            self._subscribe(topic, looks)
        self._mark(looks)

    def type(self, session: Session, ref: Ref, kind: TypingKind, *, is_over: bool) -> None:
        """Passes on that the user is writing, or no longer; what comes too often is dropped."""
        session.expect_live("Typing")
        looks = self._looks(session)
        conversation = _conversation(looks.viewer_id, ref)
        if conversation is None:
            return
        if looks.may_type(conversation.conversation_id, self._monotonic_s(), is_over=is_over):
            self._watches.type(Typing(looks.viewer_id, conversation, kind, is_over))
        else:
            self.dropped_typings += 1

    def settle(self, session: Session) -> None:
        """Ends a turn of a live session: what is new becomes frames, or waits while the socket takes nothing."""
        looks = session.looks
        if looks is None or session.paused_since_s < NEVER:
            return
        if looks.presences:
            views, looks.presences = looks.presences, {}
            session.frames.append(PresenceDelta(views))
        if looks.typing:
            typing, looks.typing = looks.typing, {}
            session.frames.append(TypingDelta(typing))

    def resume(self, session: Session) -> None:
        """Learns that the socket takes again."""
        if session.looks is not None:
            self._mark(session.looks)

    def end(self, session: Session) -> None:
        """Forgets what a connection that is gone had asked for."""
        looks, session.looks = session.looks, None
        if looks is not None:
            for topic in looks.topics:
                self._unsubscribe(topic, looks)

    def told(self, topic: Topic, state: View | tuple[Typist, ...]) -> None:
        """Learns how a person is, or who is writing in a conversation."""
        for looks in self._audience.told(topic, state):
            self._sessions.mark(looks.session)

    def lost(self, topics: Iterable[Topic]) -> None:
        """Learns that nobody can say any more."""
        for topic in topics:
            self.told(topic, UNKNOWN if isinstance(topic, Watched) else ())

    def _looks(self, session: Session) -> Looks:
        looks = session.looks
        if looks is None:
            assert session.member is not None  # noqa: S101 - a live session has a user
            looks = session.looks = Looks(session, session.member.user_id, self._limits, self._monotonic_s())
        return looks

    def _subscribe(self, topic: Topic, looks: Looks) -> None:
        if self._audience.add(topic, looks):
            self._watches.subscribe(topic)

    def _unsubscribe(self, topic: Topic, looks: Looks) -> None:
        if self._audience.remove(topic, looks):
            self._watches.unsubscribe(topic)

    def _mark(self, looks: Looks) -> None:
        if looks.has_output:
            self._sessions.mark(looks.session)


def _conversation(user_id: UserId, ref: Ref) -> Conversation | None:
    """Returns the conversation that a user names; None for its notes to itself, where nobody else writes."""
    peer_id, group_id = ref
    if group_id:
        return Conversation(group_id, b"", group_id)
    return None if peer_id == user_id else Conversation(direct_conversation(user_id, peer_id), peer_id, b"")
