"""Keeps what the ledger's book holds of groups in memory, beside a `MemoryMessageStore`."""

from collections.abc import Sequence

from svc_message.adapters.journal_memory import MemoryJournal
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.adapters.message_store_memory.book import Line
from svc_message.model import NO_POSITION, Event, MessageEvent, UserId, Verdict
from svc_message.model.group import Entry, Expansion, GroupAccepted, NewGroupMessage, Shard, Touch


class MemoryGroupStore:
    """The port `GroupStore` in memory; every call is carried out at once and as a whole."""

    def __init__(self, store: MemoryMessageStore, journal: MemoryJournal) -> None:
        """Shares the book of a store.

        Args:
            store: Whose inboxes and messages are written.
            journal: Gets the entries.
        """
        self._book = store.book
        self._journal = journal

    async def accept(self, shard: Shard, batch: Sequence[NewGroupMessage]) -> list[GroupAccepted]:
        """Makes messages durable, each with the sender's pointer and an entry in the journal."""
        return [self._accept(shard, message) for message in batch]

    async def expand(self, expansions: Sequence[Expansion], touches: Sequence[Touch]) -> None:
        """Writes the pointers of members, and the lines of their chat lists."""
        for expansion in expansions:
            for event in expansion.events:
                self._book.append(_placed(event, expansion), *expansion.user_ids)
        for touch in touches:
            for user_id in touch.user_ids:
                line = self._book.lines[user_id].get(touch.conversation_id, Line(UserId(touch.conversation_id), 0, b""))
                raised = line._replace(last_ms=max(line.last_ms, touch.last_ms))
                self._book.lines[user_id][touch.conversation_id] = raised

    def _accept(self, shard: Shard, message: NewGroupMessage) -> GroupAccepted:
        messages = self._book.messages[message.group_id]
        is_new = message.message_id not in messages
        first = messages.setdefault(message.message_id, message)
        if first is None:
            return GroupAccepted(Verdict.VOID, 0, 0, 0)
        assert isinstance(first, NewGroupMessage)  # noqa: S101 - a conversation is of one kind for ever
        is_same = (first.sender_id, first.content_hash) == (message.sender_id, message.content_hash)
        if is_same:
            event = first.to_event()._replace(position=NO_POSITION)
            self._book.append(event._replace(position=message.position), first.sender_id)
            entry = Entry(message.position, first.group_id, first.sender_id, first.members_version, event)
            self._journal.write(shard, entry)
        found = Verdict.DUPLICATE if is_same else Verdict.CONFLICT
        verdict = Verdict.STORED if is_new else found
        altered = self._book.altered.public((first.group_id, first.message_id))
        return GroupAccepted(
            verdict,
            first.accepted_ms,
            first.members_version,
            first.recipient_count,
            is_altered=bool(altered.edited_ms or altered.revoked_ms),
        )


def _placed(event: Event, expansion: Expansion) -> Event:
    if not isinstance(event, MessageEvent):
        raise TypeError(f"{event!r}: not one that members of a group are told")
    return event._replace(position=expansion.position)
