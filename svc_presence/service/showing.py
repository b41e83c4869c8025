"""Shows typing to those who look at a conversation, and to nobody whom it is not for.

Typing is shown to whoever has a part in the conversation, unless one of the two has blocked the other: it is said to
the conversation, as a message is, so the settings of the typist do not matter. All of that is looked up in the leased
copies of the directory at the moment of showing: what is not known there is not shown.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from chappe.runtime.batching import Batcher
from chappe.runtime.errors import ChappeError
from svc_presence.model import Typist
from svc_presence.protocol.trust import Trust

if TYPE_CHECKING:
    from collections.abc import Iterable

    from chappe.runtime.tasks import Tasks
    from svc_presence.model import ConversationId, GroupId, UserId
    from svc_presence.ports import Directory
    from svc_presence.protocol.audience import Audience, Opening
    from svc_presence.protocol.rooms import Rooms
    from svc_presence.protocol.trust import Trusting

_log = logging.getLogger(__name__)


class Showing:
    """Looks up in batches what is needed to show a conversation, and shows it."""

    def __init__(
        self, directory: Directory, audience: Audience[Opening], rooms: Rooms, trusting: Trusting, tasks: Tasks
    ) -> None:
        self._trusting = trusting
        self._directory = directory
        self._audience = audience
        self._rooms = rooms
        self._reviews: Batcher[ConversationId] = Batcher(self._review, tasks, name="review-typing")
        self.unreviewed: dict[ConversationId, None] = {}
        """What could not be looked up, and is to be reviewed again."""

    def review(self, conversation_ids: Iterable[ConversationId]) -> None:
        """Shows conversations once it is known what may be shown."""
        self._reviews.extend(conversation_ids)

    def show(self, conversation_id: ConversationId) -> None:
        """Tells everybody who looks at a conversation who is typing there, if that is something new."""
        if self._trusting.trust is Trust.WAIT and conversation_id in self._rooms:
            # What is over may be said at any time.
            return
        typing = self._rooms.typists(conversation_id).items()
        for opening in self._audience.of(conversation_id):
            typists = tuple(Typist(user_id, kind) for user_id, kind in typing if self._may_see(opening, user_id))
            if typists != opening.shown:
                opening.shown = typists
                opening.feed.tell_typing(opening.number, typists)

    async def _review(self, conversation_ids: list[ConversationId]) -> None:
        places = [place for place in dict.fromkeys(conversation_ids) if place in self._rooms]
        members = dict.fromkeys(pair for place in places for pair in self._members(place))
        pairs = dict.fromkeys(pair for place in places for pair in self._pairs(place))
        try:
            await self._directory.memberships(list(members))
            await self._directory.separations(list(pairs))
        except ChappeError as error:
            _log.warning("who may see typing in %d conversations could not be read: %s", len(places), error)
            self.unreviewed.update(dict.fromkeys(places))
        for place in places:
            self.show(place)

    def _members(self, place: ConversationId) -> Iterable[tuple[GroupId, UserId]]:
        for opening in self._audience.of(place):
            group_id = opening.conversation.group_id
            if group_id is not None:
                yield group_id, opening.viewer_id
                yield from ((group_id, user_id) for user_id in self._rooms.typists(place))

    def _pairs(self, place: ConversationId) -> Iterable[tuple[UserId, UserId]]:
        for opening in self._audience.of(place):
            yield from ((opening.viewer_id, user_id) for user_id in self._rooms.typists(place))

    def _may_see(self, opening: Opening, typist_id: UserId) -> bool:
        viewer_id, group_id, directory = opening.viewer_id, opening.conversation.group_id, self._directory
        if typist_id == viewer_id or directory.separation(viewer_id, typist_id) is not False:
            return False
        return group_id is None or all(
            directory.membership(group_id, user_id) is True for user_id in (viewer_id, typist_id)
        )
