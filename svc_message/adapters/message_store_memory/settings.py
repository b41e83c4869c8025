"""Changes how users keep their conversations, in the book that is kept in memory."""

from collections.abc import Iterator

from svc_message.adapters.message_store_memory.book import Book, Line
from svc_message.model import MessageId, UserId
from svc_message.model.group import NewGroupMessage
from svc_message.model.setting import Changed, SettingEvent, SettingUpdate


class MemorySettingStore:
    """The port `SettingStore` in memory; every call is carried out at once and as a whole."""

    def __init__(self, book: Book) -> None:
        """Works on a book."""
        self._book = book

    async def change(self, update: SettingUpdate, floor: bytes) -> Changed | None:
        """Makes a change durable with a pointer in the inbox of everyone it reaches."""
        own = self._line(update.user_id, update)
        if own is None:
            if not update.may_begin:
                return None
            own = Line(update.peer_id, 0, b"")
        peer = self._line(update.peer_id, update) or Line(update.user_id, 0, b"")
        users = [update.user_id, update.peer_id] if update.reaches_peer else [update.user_id]
        lines = {update.user_id: own} if len(set(users)) == 1 else dict(zip(users, (own, peer), strict=True))
        if any(line.settings_position >= update.position for line in lines.values()):
            return Changed(is_stored=False, events=())
        events: list[SettingEvent] = []
        for user_id, line in lines.items():
            changed = self._changed(user_id, line, update, floor)
            self._book.lines[user_id][update.conversation_id] = changed
            event = SettingEvent(update.position, user_id, update.conversation_id, changed.settings)
            self._book.append(event, user_id)
            events.append(event)
        return Changed(is_stored=True, events=tuple(events))

    def _line(self, user_id: UserId, update: SettingUpdate) -> Line | None:
        return self._book.lines[user_id].get(update.conversation_id)

    def _changed(self, user_id: UserId, line: Line, update: SettingUpdate, floor: bytes) -> Line:
        change, kept = update.change, line.settings
        if change.expiry_s is not None:
            kept = kept._replace(expiry_s=change.expiry_s)
        if user_id == update.user_id:
            if change.muted_until_ms is not None:
                kept = kept._replace(muted_until_ms=change.muted_until_ms)
            if change.is_pinned is not None:
                kept = kept._replace(pinned_ms=(kept.pinned_ms or update.changed_ms) if change.is_pinned else 0)
            if change.is_archived is not None:
                kept = kept._replace(is_archived=change.is_archived)
                line = line._replace(archived_ms=update.changed_ms)
        line = line._replace(settings=kept, settings_position=update.position)
        if user_id == update.user_id and change.cleared_upto is not None:
            return self._cleared(line, update, change.cleared_upto, floor)
        return line

    def _cleared(self, line: Line, update: SettingUpdate, place: bytes, floor: bytes) -> Line:
        seen = {message_id: accepted_ms for message_id, accepted_ms in self._seen(update) if message_id <= place}
        if not seen:
            return line
        kept, below, cleared_ms = line.settings, floor, update.changed_ms
        upto = max(kept.cleared_upto, *seen)
        if place < kept.cleared_upto:
            # What came late between the two places is not cleared.
            below = min(floor, place)
            cleared_ms = max([kept.cleared_ms, *(ms for message_id, ms in seen.items() if message_id > floor)])
        line = line._replace(cleared_floor=max(line.cleared_floor, min(below, upto)))
        return line._replace(settings=kept._replace(cleared_upto=upto, cleared_ms=cleared_ms))

    def _seen(self, update: SettingUpdate) -> Iterator[tuple[MessageId, int]]:
        """Yields the messages that may be cleared, with when they were accepted."""
        for direct in self._book.visible(update.user_id, update.conversation_id):
            yield direct.message_id, direct.accepted_ms
        # Who sees what of a group is known to whoever asks.
        for message in self._book.messages[update.conversation_id].values():
            if isinstance(message, NewGroupMessage):
                yield message.message_id, message.accepted_ms
