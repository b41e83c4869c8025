"""Keeps what the ledger's book holds of groups in memory, beside a `MemoryMessageStore`."""

from collections.abc import Sequence
from typing import Final

from svc_message.adapters.journal_memory import MemoryJournal
from svc_message.adapters.message_store_memory import MemoryMessageStore
from svc_message.adapters.message_store_memory.book import Line
from svc_message.model import (
    NO_POSITION,
    Event,
    MessageEvent,
    PageRead,
    ReceiptState,
    StoredMessage,
    UserId,
    Verdict,
)
from svc_message.model.action import Acted, ActionKind, EditEvent, NewAction, ReactionEvent, RevokeEvent, event_of
from svc_message.model.group import (
    Entry,
    Expansion,
    GroupAccepted,
    GroupChat,
    GroupLine,
    NewGroupMessage,
    Shard,
    Touch,
    Window,
    left_version_of,
)

_UNREAD_SHOWN: Final = 100


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
        self._actions = store.actions

    async def accept(self, shard: Shard, batch: Sequence[NewGroupMessage]) -> list[GroupAccepted]:
        """Makes messages durable, each with the sender's pointer and an entry in the journal."""
        return [self._accept(shard, message) for message in batch]

    async def act(self, shard: Shard, batch: Sequence[NewAction]) -> list[Acted]:
        """Makes actions durable, each with the user's own pointer and an entry in the journal."""
        outcomes = await self._actions.act(batch)
        for action, acted in zip(batch, outcomes, strict=True):
            is_told = acted.verdict in {Verdict.STORED, Verdict.DUPLICATE} and action.kind is not ActionKind.HIDE
            if is_told and self._book.there(action.conversation_id, action.message_id) is not None:
                event = event_of(action, acted.accepted_ms, acted.expires_ms)._replace(position=NO_POSITION)
                version = acted.members_version
                entry = Entry(action.position, action.conversation_id, action.user_id, version, event)
                self._journal.write(shard, entry)
        return outcomes

    async def expand(self, expansions: Sequence[Expansion], touches: Sequence[Touch]) -> None:
        """Writes the pointers of members, and the lines of their chat lists."""
        for expansion in expansions:
            for event in expansion.events:
                self._book.append(placed(event, expansion), *expansion.user_ids)
        for touch in touches:
            for user_id in touch.user_ids:
                line = self._book.lines[user_id].get(touch.conversation_id, Line(UserId(touch.conversation_id), 0, b""))
                settings = line.settings
                if line.archived_ms < touch.last_ms:
                    settings = settings._replace(is_archived=False)
                raised = line._replace(last_ms=max(line.last_ms, touch.last_ms), settings=settings)
                self._book.lines[user_id][touch.conversation_id] = raised

    async def read_page(self, read: PageRead, windows: Sequence[Window]) -> list[StoredMessage]:
        """Returns messages of a group that its reader sees, newest first."""
        found = [
            message
            for message in self._listed(read.owner_id, GroupLine(read.conversation_id, tuple(windows)))
            if read.after < message.message_id and (not read.before or message.message_id < read.before)
        ]
        chosen = found[-read.limit :] if read.after else found[: read.limit]
        left_version = left_version_of(windows)
        return [self._stored(read.owner_id, message, left_version) for message in chosen]

    async def read_chats(self, owner_id: UserId, lines: Sequence[GroupLine]) -> list[GroupChat]:
        """Returns what a chat list shows of groups, in order."""
        return [self._chat(owner_id, line) for line in lines]

    def _listed(self, user_id: UserId, group: GroupLine) -> list[NewGroupMessage]:
        """Returns the messages that a user sees and has not cleared, newest first."""
        line = self._book.lines[user_id].get(group.group_id, Line(UserId(group.group_id), 0, b""))
        return sorted(
            (
                message
                for message in self._book.messages[group.group_id].values()
                if isinstance(message, NewGroupMessage)
                and line.shows(message)
                and not self._book.is_over(message)
                and any(window.shows(message.members_version) for window in group.windows)
                and not self._book.altered.seen(user_id, (group.group_id, message.message_id)).is_hidden
            ),
            reverse=True,
        )

    def _stored(self, user_id: UserId, message: NewGroupMessage, left_version: int) -> StoredMessage:
        receipt = self._book.group_receipts[message.group_id, message.message_id].get(user_id)
        stored = self._book.stored(user_id, message, left_version)
        return stored._replace(state=receipt.state, delivered_ms=receipt[1], read_ms=receipt[2]) if receipt else stored

    def _chat(self, user_id: UserId, group: GroupLine) -> GroupChat:
        listed = self._listed(user_id, group)
        line = self._book.lines[user_id].get(group.group_id)
        read_upto, left_version = line.read_upto if line else b"", left_version_of(group.windows)
        unread = [
            stored
            for stored in (self._stored(user_id, message, left_version) for message in listed)
            if stored.message.sender_id != user_id
            and stored.message.message_id > read_upto
            and stored.state < ReceiptState.READ
            and not stored.message.revoked_ms
        ]
        newest = self._stored(user_id, listed[0], left_version) if listed else None
        return GroupChat(newest, min(len(unread), _UNREAD_SHOWN))

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
            is_altered=bool(altered.edited_ms or altered.revoked_ms) or self._book.is_over(first),
        )


def placed(event: Event, expansion: Expansion) -> Event:
    """Returns an event as it stands in the inboxes of members."""
    if not isinstance(event, MessageEvent | EditEvent | RevokeEvent | ReactionEvent):
        raise TypeError(f"{event!r}: not one that members of a group are told")
    return event._replace(position=expansion.position)
