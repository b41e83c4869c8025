"""What the chat shows, and how events change it. No I/O, and nothing of terminals."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from chappe.cli.chat_list import MOST_UNREAD
from chappe.cli.sentences import sentence
from chappe.cli.written import shortened
from chappe.client import (
    Chat,
    ChatChanged,
    ChatSettings,
    Deleted,
    Edited,
    Event,
    Expired,
    GroupChanged,
    GroupEvent,
    GroupTickChanged,
    Message,
    Offline,
    Online,
    Presence,
    PresenceChanged,
    Reacted,
    Reaction,
    ReadOnOtherDevice,
    SendFailed,
    TickChanged,
    TypingChanged,
    Typist,
)


@dataclass(frozen=True, slots=True)
class Notice:
    """Something that happened in a chat and is no message."""

    text: str
    sent_ms: int
    version: int = 0
    """Of the group, after it; names the notice within its chat."""


Entry = Message | Notice


@dataclass(kw_only=True, slots=True)
class Row:
    """One chat."""

    conversation_id: bytes
    peer_id: bytes = b""
    """Empty in a group."""
    title: str = ""
    last: Message | None = None
    unread: int = 0
    settings: ChatSettings = field(default_factory=ChatSettings)
    entries: list[Entry] = field(default_factory=list[Entry])
    """The oldest first."""
    older: str | None = ""
    """For the page before the oldest entry: empty when none was read yet, None when there is none."""
    members: tuple[bytes, ...] = ()
    """Of a group; empty while they are not known."""
    typists: tuple[Typist, ...] = ()
    draft: str = ""
    """What was typed and not sent when another chat was opened."""

    @property
    def is_group(self) -> bool:
        """Whether it is a group."""
        return not self.peer_id


@dataclass(kw_only=True, slots=True)
class State:
    """Everything that is shown."""

    me: bytes
    names: dict[bytes, str] = field(default_factory=dict[bytes, str])
    """How people are called; the own user is "you"."""
    rows: dict[bytes, Row] = field(default_factory=dict[bytes, Row])
    open_id: bytes = b""
    """The chat that is shown; empty while there is none."""
    scroll: int = 0
    """How many lines above the newest the view ends; 0 shows the newest."""
    scroll_ms: int = 0
    """What came later than this is not shown while the view is scrolled back, so that it stands still."""
    presences: dict[bytes, PresenceChanged] = field(default_factory=dict[bytes, PresenceChanged])
    is_online: bool = False
    message: str = ""
    """A line for the user, until the next key."""
    is_helping: bool = False

    @property
    def chats(self) -> list[Row]:
        """The chats that are listed: pinned ones first, then the one with the newest message; archived ones last."""
        return sorted(self.rows.values(), key=_place)

    @property
    def open_row(self) -> Row | None:
        """The chat that is shown."""
        return self.rows.get(self.open_id)

    @property
    def unread(self) -> int:
        """How many messages are unread in all chats that are not muted."""
        return sum(row.unread for row in self.rows.values() if not row.settings.muted_until_ms)

    def name(self, user_id: bytes) -> str:
        """Returns how somebody is called."""
        return self.names.get(user_id) or user_id.hex()[:8]

    def list_chats(self, chats: Iterable[Chat], titles: dict[bytes, str]) -> None:
        """Takes the chat list; what is known of chats beside it stays."""
        for chat in chats:
            row = self.row(chat.conversation_id, chat.peer_id)
            row.title = titles.get(chat.conversation_id, row.title)
            row.last = chat.last_message or row.last
            row.unread = 0 if self.is_seen(row) else chat.unread_count
            row.settings = chat.settings

    def row(self, conversation_id: bytes, peer_id: bytes) -> Row:
        """Returns a chat; a new one when there is none."""
        row = self.rows.get(conversation_id)
        if row is None:
            row = self.rows[conversation_id] = Row(conversation_id=conversation_id, peer_id=peer_id)
        return row

    def is_seen(self, row: Row) -> bool:
        """Tells whether the newest messages of a chat are on the screen."""
        return row.conversation_id == self.open_id and self.scroll == 0 and not self.is_helping

    def scroll_to(self, lines: int) -> None:
        """Scrolls back so many lines; 0 shows the newest again."""
        row = self.open_row
        if not self.scroll and row is not None and row.entries:
            self.scroll_ms = row.entries[-1].sent_ms
        self.scroll = max(0, lines)

    def add_page(self, row: Row, messages: Iterable[Message], next_page: str) -> None:
        """Takes a page of a chat, the newest message first; doubles are passed over."""
        known = {entry.message_id for entry in row.entries if isinstance(entry, Message)}
        row.entries += [message for message in messages if message.message_id not in known]
        row.entries.sort(key=_order)
        row.older = next_page or None

    def add_notices(self, row: Row, changes: Iterable[GroupChanged]) -> None:
        """Takes what happened to a group; doubles are passed over."""
        known = {entry.version for entry in row.entries if isinstance(entry, Notice)}
        names = {**self.names, self.me: "you"}
        row.entries += [
            Notice(sentence(change, names), change.changed_ms, change.version)
            for change in changes
            if change.version not in known
        ]
        row.entries.sort(key=_order)

    def apply(self, event: Event) -> None:
        """Takes what happened."""
        handler: Callable[[State, Any], None] | None = _HANDLERS.get(type(event))
        if handler is not None:
            handler(self, event)

    def alter(self, conversation_id: bytes, message_id: bytes, change: Callable[[Message], Message | None]) -> None:
        """Changes a message wherever it is shown; None takes it away."""
        row = self.rows.get(conversation_id)
        if row is None:
            return
        changed = [
            change(entry) if isinstance(entry, Message) and entry.message_id == message_id else entry
            for entry in row.entries
        ]
        row.entries = [entry for entry in changed if entry is not None]
        if row.last is not None and row.last.message_id == message_id:
            row.last = change(row.last) or _newest(row)


def _newest(row: Row) -> Message | None:
    return next((entry for entry in reversed(row.entries) if isinstance(entry, Message)), None)


def _place(row: Row) -> tuple[bool, bool, bytes]:
    last = row.last.message_id if row.last is not None else b""
    # Falling in the last part: the bytes are turned round.
    return row.settings.is_archived, not row.settings.pinned_ms, bytes(255 - byte for byte in last or bytes(16))


def _order(entry: Entry) -> tuple[int, bytes]:
    return (entry.sent_ms, entry.message_id) if isinstance(entry, Message) else (entry.sent_ms, b"")


def _message(state: State, message: Message) -> None:
    row = state.row(message.conversation_id, message.peer_id)
    if all(not isinstance(entry, Message) or entry.message_id != message.message_id for entry in row.entries):
        row.entries.append(message)
        row.entries.sort(key=_order)
    # What is not newer than the last message that is known has been counted by the server.
    is_new = row.last is None or message.message_id > row.last.message_id
    if is_new:
        row.last = message
    row.settings = replace(row.settings, is_archived=False)
    row.typists = tuple(typist for typist in row.typists if typist.user_id != message.sender_id)
    if is_new and not message.is_mine and not state.is_seen(row):
        row.unread = min(MOST_UNREAD, row.unread + 1)


def _tick(state: State, change: TickChanged) -> None:
    state.alter(
        change.conversation_id,
        change.message_id,
        lambda message: replace(message, tick=max(message.tick, change.tick)),
    )


def _group_tick(state: State, change: GroupTickChanged) -> None:
    state.alter(
        change.group_id,
        change.message_id,
        lambda message: replace(message, counts=change.counts, tick=max(message.tick, change.counts.tick)),
    )


def _edited(state: State, change: Edited) -> None:
    state.alter(
        change.conversation_id,
        change.message_id,
        lambda message: replace(message, text=change.text, edited_ms=change.edited_ms),
    )


def _deleted(state: State, change: Deleted) -> None:
    def take_back(message: Message) -> Message | None:
        return None if change.is_for_me else replace(message, text="", revoked_ms=change.deleted_ms, reactions=())

    state.alter(change.conversation_id, change.message_id, take_back)


def _reacted(state: State, change: Reacted) -> None:
    def react(message: Message) -> Message:
        others = tuple(one for one in message.reactions if one.user_id != change.by_user_id)
        new = Reaction(user_id=change.by_user_id, emoji=change.emoji, reacted_ms=change.reacted_ms)
        return replace(message, reactions=(new, *others) if change.emoji else others)

    state.alter(change.conversation_id, change.message_id, react)


def _expired(state: State, change: Expired) -> None:
    state.alter(change.conversation_id, change.message_id, lambda _: None)


def _kept(state: State, change: ChatChanged) -> None:
    row = state.rows.get(change.conversation_id)
    if row is not None:
        row.settings = change.settings
        row.entries = [e for e in row.entries if not isinstance(e, Message) or not _is_cleared(e, change.settings)]
        if row.last is not None and _is_cleared(row.last, change.settings):
            row.last = _newest(row)


def _is_cleared(message: Message, settings: ChatSettings) -> bool:
    came_later = bool(settings.cleared_ms) and message.accepted_ms > settings.cleared_ms
    return message.message_id <= settings.cleared_upto and not came_later


def _group(state: State, change: GroupChanged) -> None:
    row = state.row(change.group_id, b"")
    newest = max((entry.version for entry in row.entries if isinstance(entry, Notice)), default=0)
    state.add_notices(row, [change])
    if change.version < newest:
        return
    row.title = change.name
    gone, come = {GroupEvent.REMOVED, GroupEvent.LEFT}, {GroupEvent.ADDED, GroupEvent.JOINED, GroupEvent.CREATED}
    if row.members and change.what in gone:
        row.members = tuple(user_id for user_id in row.members if user_id not in change.user_ids)
    elif row.members and change.what in come:
        row.members = tuple(dict.fromkeys((*row.members, *change.user_ids)))


def _read(state: State, change: ReadOnOtherDevice) -> None:
    row = state.rows.get(change.conversation_id)
    if row is not None and (row.last is None or row.last.message_id <= change.read_upto):
        row.unread = 0


def _failed(state: State, change: SendFailed) -> None:
    said = f"{shortened(change.text)}: " if change.text else ""
    state.message = f"not sent: {said}{change.detail or change.reason}"


def _presence(state: State, change: PresenceChanged) -> None:
    state.presences[change.user_id] = change


def _typing(state: State, change: TypingChanged) -> None:
    state.row(change.conversation_id, change.peer_id).typists = change.typists


def _online(state: State, change: Online | Offline) -> None:
    state.is_online = isinstance(change, Online)
    if not state.is_online:
        state.presences = {
            user_id: replace(told, presence=Presence.UNKNOWN) for user_id, told in state.presences.items()
        }


_HANDLERS: dict[type[Any], Callable[[State, Any], None]] = {
    Message: _message,
    TickChanged: _tick,
    GroupTickChanged: _group_tick,
    Edited: _edited,
    Deleted: _deleted,
    Reacted: _reacted,
    Expired: _expired,
    ChatChanged: _kept,
    GroupChanged: _group,
    ReadOnOtherDevice: _read,
    SendFailed: _failed,
    PresenceChanged: _presence,
    TypingChanged: _typing,
    Online: _online,
    Offline: _online,
}
