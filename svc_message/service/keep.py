"""Changes how users keep their conversations, by the same promises as messages: durable, and told to every device."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from chappe.runtime.errors import InvalidFieldError, UnavailableError
from svc_message.errors import NotInConversationError
from svc_message.model import ConversationId, PageRead, UserId
from svc_message.model.setting import Changed, SettingChange, SettingEvent, SettingUpdate
from svc_message.protocol import FIRST_ACCEPT_AGE_MS, LedgerClock, Stamp, after_id, direct_conversation, position_at
from svc_message.service.accept import MAX_WRITES

if TYPE_CHECKING:
    from svc_message.ports import Directory, Dispatcher, SettingStore
    from svc_message.ports.group import GroupDirectory, GroupStore

LATE_MS = FIRST_ACCEPT_AGE_MS + 60_000
"""An id is never accepted for the first time so long after it was minted."""


class Chat(NamedTuple):
    """Which conversation: the direct one with a user, or that of a group."""

    peer_id: bytes
    """Empty for a group."""
    group_id: bytes = b""


class Keeping:
    """Changes settings, one call at a time."""

    def __init__(
        self,
        store: SettingStore,
        history: GroupStore,
        directory: Directory,
        groups: GroupDirectory,
        dispatcher: Dispatcher,
        clock: LedgerClock,
    ) -> None:
        self._store = store
        self._history = history
        self._directory = directory
        self._groups = groups
        self._dispatcher = dispatcher
        self._clock = clock

    async def change(self, user_id: UserId, chat: Chat, change: SettingChange) -> SettingEvent:
        """Makes a change durable and returns everything as it is then, at its place in the log.

        Raises:
            InvalidFieldError: Nothing is to be changed, or the timer of a group.
            NotInConversationError: The user has no such conversation, and there is nobody to begin one with.
            UnavailableError: The store did not answer in time; the same may be asked again.
        """
        if all(value is None for value in change):
            raise InvalidFieldError("update", "nothing is to be changed; set at least one field")
        if chat.group_id:
            if change.expiry_s is not None:
                raise InvalidFieldError("expiry_s", "a group has its own timer: see GroupService.UpdateGroup")
            update = await self._for_group(user_id, ConversationId(chat.group_id), change)
        else:
            update = await self._for_peer(user_id, UserId(chat.peer_id), change)
        return await self._write(update)

    async def _for_peer(self, user_id: UserId, peer_id: UserId, change: SettingChange) -> SettingUpdate:
        peer = self._directory.cached(peer_id)
        if peer is None or not peer.is_active or user_id in peer.blocked_user_ids:
            (peer,) = await self._directory.read([peer_id])
        is_heard = peer.is_active and user_id not in peer.blocked_user_ids and peer_id != user_id
        return SettingUpdate(
            user_id=user_id,
            conversation_id=direct_conversation(user_id, peer_id),
            peer_id=peer_id,
            change=change,
            may_begin=peer.is_active,
            reaches_peer=is_heard and change.expiry_s is not None,
            position=_UNSET.position,
            changed_ms=0,
        )

    async def _for_group(self, user_id: UserId, group_id: ConversationId, change: SettingChange) -> SettingUpdate:
        (membership,) = await self._groups.memberships([(group_id, user_id)])
        if change.cleared_upto is not None:
            read = PageRead(user_id, group_id, before=after_id(change.cleared_upto), after=b"", limit=1)
            # By itself a store comes down to the newest message that there is, of which who has left is not to learn.
            seen = await self._history.read_page(read, membership.windows)
            change = change._replace(cleared_upto=seen[0].message.message_id if seen else None)
        return SettingUpdate(
            user_id=user_id,
            conversation_id=group_id,
            peer_id=UserId(group_id),
            change=change,
            may_begin=membership.is_member,
            reaches_peer=False,
            position=_UNSET.position,
            changed_ms=0,
        )

    async def _write(self, update: SettingUpdate) -> SettingEvent:
        """Writes until the change stands under a position that is young enough."""
        for _ in range(MAX_WRITES):
            stamp = self._clock.mint()
            fresh = update._replace(position=stamp.position, changed_ms=stamp.wall_ms)
            changed = await self._store.change(fresh, position_at(stamp.wall_ms - LATE_MS))
            if changed is None:
                raise NotInConversationError
            if changed.is_stored and self._clock.is_fresh(stamp):
                self._tell(changed)
                return changed.events[0]
        raise UnavailableError("ledger", "another change of the conversation came in between, or it took too long")

    def _tell(self, changed: Changed) -> None:
        for event in changed.events:
            self._dispatcher.dispatch(event, (event.user_id,), 0, wants_receipt=False)


_UNSET = Stamp(position_at(0), 0, 0)
