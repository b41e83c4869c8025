"""Answers to those who ask once: how people are, and who is typing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from chappe.runtime.errors import ChappeError
from svc_presence.errors import NotInConversationError
from svc_presence.model import Presence, Sight, Typist, View
from svc_presence.service.watching import HIDDEN, UNKNOWN, view_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_presence.model import Conversation, Seen, UserId
    from svc_presence.ports import Directory, PresenceStore

_log = logging.getLogger(__name__)


class Answers:
    """Reads the store for whoever may see what is in it; every replica answers for everybody."""

    def __init__(self, store: PresenceStore, directory: Directory) -> None:
        self._store = store
        self._directory = directory

    async def presence_of(self, viewer_id: UserId, user_ids: Sequence[UserId]) -> list[View]:
        """Returns how people are, in order, as far as a viewer may see it.

        Where the directory or the store does not answer, nobody can say. What may not be seen is not looked up, so that
        somebody who hides cannot be told from somebody who does not exist, not even by the time that it takes.
        """
        try:
            sights = await self._directory.sights([(viewer_id, user_id) for user_id in user_ids])
        except ChappeError as error:
            _log.warning("who may see what could not be read for %d people: %s", len(user_ids), error)
            return [UNKNOWN] * len(user_ids)
        seen = await self._read([user_id for user_id, sight in zip(user_ids, sights, strict=True) if sight])
        return [
            _view(sight, seen.get(user_id)) if sight else HIDDEN
            for user_id, sight in zip(user_ids, sights, strict=True)
        ]

    async def typing_in(self, viewer_id: UserId, conversation: Conversation) -> list[Typist]:
        """Returns who is typing in a conversation, but the viewer, by rising user id.

        Raises:
            NotInConversationError: The viewer has no part in it.
            UnavailableError: The store or the directory does not answer.
        """
        group_id = conversation.group_id
        if group_id is not None and not (await self._directory.memberships([(group_id, viewer_id)]))[0]:
            raise NotInConversationError
        lasting = (await self._store.read_typing([conversation.conversation_id]))[0]
        typists = [typist for typist, _ in lasting if typist.user_id != viewer_id]
        if group_id is not None:
            members = await self._directory.memberships([(group_id, typist.user_id) for typist in typists])
            typists = [typist for typist, is_member in zip(typists, members, strict=True) if is_member]
        apart = await self._directory.separations([(viewer_id, typist.user_id) for typist in typists])
        return [typist for typist, are_apart in zip(typists, apart, strict=True) if not are_apart]

    async def _read(self, user_ids: list[UserId]) -> dict[UserId, Seen]:
        if not user_ids:
            return {}
        try:
            return dict(zip(user_ids, await self._store.read_presence(user_ids), strict=True))
        except ChappeError as error:
            _log.warning("what is known of %d people could not be read: %s", len(user_ids), error)
            return {}


def _view(sight: Sight, seen: Seen | None) -> View:
    if seen is None or not (seen.online_left_ms or seen.last_seen_ms):
        return UNKNOWN
    if seen.online_left_ms:
        return View(Presence.ONLINE, 0)
    return view_of(sight, Presence.OFFLINE, seen.last_seen_ms)
