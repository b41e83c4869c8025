"""Who is shown who is typing.

Typing is shown to whoever has the conversation open, has a part in it, and may see that the typist is online. All of
that is looked up in the leased copies of the directory at the moment of showing: what is not known there is not shown.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from chappe.runtime.batching import Batcher
from chappe.runtime.errors import ChappeError
from svc_presence.model import ConversationId, Sight, TypingKind, Typist, UserId
from svc_presence.ports import TYPING_S
from svc_presence.protocol.audience import Audience, Opening
from svc_presence.protocol.deadlines import Deadlines

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chappe.runtime.clock import Clock
    from chappe.runtime.tasks import Tasks
    from svc_presence.model import Conversation, GroupId, Typing
    from svc_presence.ports import Directory, Feed, PresenceStore

REVIEW_AGAIN_S = 1.0
"""What could not be looked up is looked up again after this time."""

_log = logging.getLogger(__name__)


class TypingRooms:
    """The conversations that somebody looks at, and who is typing there."""

    def __init__(self, store: PresenceStore, directory: Directory, *, clock: Clock, tasks: Tasks) -> None:
        """Starts to work.

        Args:
            store: Where late joiners learn who is typing.
            directory: Who has a part in what.
            clock: For deadlines.
            tasks: Owns the asking.
        """
        self._store = store
        self._directory = directory
        self._clock = clock
        self._audience: Audience[Opening] = Audience()
        self._rooms: dict[ConversationId, dict[UserId, TypingKind]] = {}
        self._deadlines: Deadlines[tuple[ConversationId, UserId]] = Deadlines()
        self._unreviewed: dict[ConversationId, None] = {}
        self._review_again_s = 0.0
        self._is_fresh = directory.is_fresh
        self._typings: Batcher[Typing] = Batcher(self._take, tasks, name="typing")
        self._writes: Batcher[Typing] = Batcher(self._write, tasks, name="write-typing")
        self._reads: Batcher[ConversationId] = Batcher(self._read, tasks, name="read-typing")
        self._reviews: Batcher[ConversationId] = Batcher(self._review, tasks, name="review-typing")

    @property
    def opening_count(self) -> int:
        """How many viewers look at conversations."""
        return len(self._audience)

    def open(self, feed: Feed, number: int, viewer_id: UserId, conversation: Conversation) -> None:
        """Begins to tell a viewer behind an edge who is typing."""
        self.close(feed, number)
        self._audience.add(Opening(feed, number, viewer_id, conversation))
        # Another replica may have been told of those who are typing now.
        self._reads.add(conversation.conversation_id)

    def close(self, feed: Feed, number: int) -> None:
        """Stops telling a watch, if there is such a one."""
        opening = self._audience.remove(feed, number)
        if opening is not None:
            self._forget(opening)

    def end(self, feed: Feed) -> None:
        """Stops telling an edge."""
        for opening in self._audience.end(feed):
            self._forget(opening)

    def type(self, typings: Iterable[Typing]) -> None:
        """Takes what people say of their own writing; what they have no part in is passed over."""
        self._typings.extend(typings)

    def user_changed(self, user_id: UserId) -> None:
        """Shows anew what a user looks at, and where it is typing."""
        self._reviews.extend({opening.topic_id for opening in self._audience.viewing(user_id)})
        self._reviews.extend([topic_id for topic_id, room in self._rooms.items() if user_id in room])

    def group_changed(self, group_id: GroupId) -> None:
        """Shows a group anew."""
        if group_id in self._audience:
            self._reviews.add(ConversationId(group_id))

    def everything_changed(self) -> None:
        """Shows everything anew."""
        self._reviews.extend({opening.topic_id for opening in self._audience})

    def tick(self) -> None:
        """Does what is due; to be called several times a second."""
        now_s = self._clock.monotonic_s()
        for conversation_id, user_id in self._deadlines.due(now_s):
            self._stop(conversation_id, user_id)
        if self._unreviewed and now_s >= self._review_again_s:
            self._review_again_s = now_s + REVIEW_AGAIN_S
            unreviewed, self._unreviewed = self._unreviewed, {}
            self._reviews.extend(unreviewed)
        if self._directory.is_fresh is not self._is_fresh:
            self._is_fresh = self._directory.is_fresh
            self._reviews.extend(list(self._rooms))

    async def _take(self, typings: list[Typing]) -> None:
        """Lets those through who have a part in their conversation."""
        pairs = [(group_id, typing.user_id) for typing in typings if (group_id := typing.conversation.group_id)]
        members: set[tuple[bytes, UserId]] = set()
        if pairs:
            try:
                answers = await self._directory.memberships(pairs)
            except ChappeError as error:
                _log.warning("typing in %d groups is passed over, who is in them cannot be read: %s", len(pairs), error)
            else:
                members = {pair for pair, is_member in zip(pairs, answers, strict=True) if is_member}
        for typing in typings:
            group_id = typing.conversation.group_id
            if group_id is None or (group_id, typing.user_id) in members:
                self._accept(typing)

    def _accept(self, typing: Typing) -> None:
        self._writes.add(typing)
        conversation_id = typing.conversation.conversation_id
        if conversation_id not in self._audience:
            return
        if typing.is_over:
            self._stop(conversation_id, typing.user_id)
        else:
            self._start(conversation_id, Typist(typing.user_id, typing.kind), float(TYPING_S))

    def _start(self, conversation_id: ConversationId, typist: Typist, left_s: float) -> None:
        room = self._rooms.setdefault(conversation_id, {})
        self._deadlines.set((conversation_id, typist.user_id), self._clock.monotonic_s() + left_s)
        if room.get(typist.user_id) is not typist.kind:
            room[typist.user_id] = typist.kind
            self._reviews.add(conversation_id)

    def _stop(self, conversation_id: ConversationId, user_id: UserId) -> None:
        room = self._rooms.get(conversation_id, {})
        self._deadlines.drop((conversation_id, user_id))
        if room.pop(user_id, None) is not None:
            self._show(conversation_id)
        if not room:
            self._rooms.pop(conversation_id, None)

    def _forget(self, opening: Opening) -> None:
        if opening.topic_id not in self._audience:
            for user_id in self._rooms.pop(opening.topic_id, {}):
                self._deadlines.drop((opening.topic_id, user_id))

    async def _write(self, typings: list[Typing]) -> None:
        try:
            await self._store.write_typing(typings)
        except ChappeError as error:
            _log.warning("typing of %d people is not known to late joiners: %s", len(typings), error)

    async def _read(self, conversation_ids: list[ConversationId]) -> None:
        wanted = [topic_id for topic_id in dict.fromkeys(conversation_ids) if topic_id in self._audience]
        try:
            answers = await self._store.read_typing(wanted)
        except ChappeError as error:
            # Those who go on typing say so again within two seconds.
            _log.warning("who is typing in %d conversations could not be read: %s", len(wanted), error)
            return
        for topic_id, lasting in zip(wanted, answers, strict=True):
            for typist, left_ms in lasting:
                if (topic_id, typist.user_id) not in self._deadlines and topic_id in self._audience:
                    self._start(topic_id, typist, left_ms / 1000)
            self._reviews.add(topic_id)

    async def _review(self, conversation_ids: list[ConversationId]) -> None:
        """Looks up what is needed to show conversations, and shows them."""
        topics = dict.fromkeys(topic_id for topic_id in conversation_ids if topic_id in self._rooms)
        try:
            parts = dict.fromkeys(pair for topic_id in topics for pair in self._group_pairs(topic_id))
            await self._directory.memberships(list(parts))
            await self._directory.sights([pair for topic_id in topics for pair in self._pairs(topic_id)])
        except ChappeError as error:
            _log.warning("who may see typing in %d conversations could not be read: %s", len(topics), error)
            self._unreviewed.update(topics)
        for topic_id in topics:
            self._show(topic_id)

    def _group_pairs(self, topic_id: ConversationId) -> Iterable[tuple[GroupId, UserId]]:
        for opening in self._audience.of(topic_id):
            group_id = opening.conversation.group_id
            if group_id is not None:
                yield group_id, opening.viewer_id
                yield from ((group_id, user_id) for user_id in self._rooms.get(topic_id, ()))

    def _pairs(self, topic_id: ConversationId) -> Iterable[tuple[UserId, UserId]]:
        for opening in self._audience.of(topic_id):
            for user_id in self._rooms.get(topic_id, ()):
                if user_id != opening.viewer_id:
                    yield opening.viewer_id, user_id

    def _show(self, topic_id: ConversationId) -> None:
        """Tells everybody who looks at a conversation who is typing there, if that is something new."""
        room = self._rooms.get(topic_id, {})
        for opening in self._audience.of(topic_id):
            typists = tuple(Typist(user_id, kind) for user_id, kind in room.items() if self._may_see(opening, user_id))
            if typists != opening.shown:
                opening.shown = typists
                opening.feed.tell_typing(opening.number, typists)

    def _may_see(self, opening: Opening, typist_id: UserId) -> bool:
        viewer_id, group_id = opening.viewer_id, opening.conversation.group_id
        if typist_id == viewer_id:
            return False
        if group_id is not None and not all(
            self._directory.membership(group_id, user_id) for user_id in (viewer_id, typist_id)
        ):
            return False
        return (self._directory.sight(viewer_id, typist_id) or Sight.NOTHING) >= Sight.ONLINE
