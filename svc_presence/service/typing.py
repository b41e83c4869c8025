"""Takes what people say of their own writing, and who looks at which conversation."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from chappe.runtime.batching import Batcher
from chappe.runtime.errors import ChappeError
from svc_presence.model import ConversationId, Typist
from svc_presence.ports import TYPING_S
from svc_presence.protocol.audience import Audience, Opening
from svc_presence.protocol.rooms import Rooms
from svc_presence.protocol.trust import Trusting
from svc_presence.service.showing import Showing

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chappe.runtime.clock import Clock
    from chappe.runtime.tasks import Tasks
    from svc_presence.model import Conversation, GroupId, Typing, UserId
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
        self._rooms = Rooms()
        self._review_again_s = 0.0
        self._trusting = Trusting(clock.monotonic_s())
        self._trusting.follow(clock.monotonic_s(), is_fresh=directory.is_fresh)
        self._showing = Showing(directory, self._audience, self._rooms, self._trusting, tasks)
        self._typings: Batcher[Typing] = Batcher(self._take, tasks, name="typing")
        self._writes: Batcher[Typing] = Batcher(self._write, tasks, name="write-typing")
        self._reads: Batcher[ConversationId] = Batcher(self._read, tasks, name="read-typing")

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
        if opening is not None and opening.topic_id not in self._audience:
            self._rooms.close(opening.topic_id)

    def end(self, feed: Feed) -> None:
        """Stops telling an edge."""
        for opening in self._audience.end(feed):
            if opening.topic_id not in self._audience:
                self._rooms.close(opening.topic_id)

    def type(self, typings: Iterable[Typing]) -> None:
        """Takes what people say of their own writing; what they have no part in is passed over."""
        self._typings.extend(typings)

    def user_changed(self, user_id: UserId) -> None:
        """Shows anew what a user looks at, and where it is typing."""
        self._showing.review({opening.topic_id for opening in self._audience.viewing(user_id)})
        self._showing.review(self._rooms.with_typist(user_id))

    def group_changed(self, group_id: GroupId) -> None:
        """Shows a group anew."""
        self._showing.review([ConversationId(group_id)])

    def everything_changed(self) -> None:
        """Shows everything anew."""
        self._showing.review(self._rooms.all)

    def tick(self) -> None:
        """Does what is due; to be called several times a second."""
        now_s = self._clock.monotonic_s()
        for conversation_id in self._rooms.expire(now_s):
            self._showing.show(conversation_id)
        if self._showing.unreviewed and now_s >= self._review_again_s:
            self._review_again_s = now_s + REVIEW_AGAIN_S
            unreviewed, self._showing.unreviewed = self._showing.unreviewed, {}
            self._showing.review(unreviewed)
        if self._trusting.follow(now_s, is_fresh=self._directory.is_fresh):
            self.everything_changed()

    async def _take(self, typings: list[Typing]) -> None:
        """Lets those through who have a part in their conversation."""
        pairs = [(group_id, typing.user_id) for typing in typings if (group_id := typing.conversation.group_id)]
        members: set[tuple[GroupId, UserId]] = set()
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
        place = typing.conversation.conversation_id
        if place not in self._audience:
            return
        if typing.is_over:
            if self._rooms.stop(place, typing.user_id):
                self._showing.show(place)
        elif self._rooms.start(place, Typist(typing.user_id, typing.kind), self._clock.monotonic_s() + TYPING_S):
            self._showing.review([place])

    async def _write(self, typings: list[Typing]) -> None:
        try:
            await self._store.write_typing(typings)
        except ChappeError as error:
            _log.warning("typing of %d people is not known to late joiners: %s", len(typings), error)

    async def _read(self, conversation_ids: list[ConversationId]) -> None:
        wanted = [place for place in dict.fromkeys(conversation_ids) if place in self._audience]
        try:
            answers = await self._store.read_typing(wanted)
        except ChappeError as error:
            # Those who go on typing say so again within two seconds.
            _log.warning("who is typing in %d conversations could not be read: %s", len(wanted), error)
            return
        now_s = self._clock.monotonic_s()
        for place, lasting in zip(wanted, answers, strict=True):
            for typist, left_ms in lasting:
                # What came here by itself is newer.
                if place in self._audience and not self._rooms.is_typing(place, typist.user_id):
                    self._rooms.start(place, typist, now_s + left_ms / 1000)
        self._showing.review(wanted)
