"""How a user keeps a conversation: muted, pinned, archived, cleared, disappearing."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from svc_message.model.ids import ConversationId, Position, UserId


class Settings(NamedTuple):
    """How a user keeps one conversation."""

    muted_until_ms: int = 0
    pinned_ms: int = 0
    """When it was pinned; 0 when it is not."""
    is_archived: bool = False
    cleared_upto: bytes = b""
    """Everything up to this message id is cleared; empty when nothing is."""
    expiry_s: int = 0
    """After how long new messages of a direct conversation are to disappear; 0 for never."""
    cleared_ms: int = 0
    """What was accepted later is not cleared."""


class SettingChange(NamedTuple):
    """What is to be changed; None keeps what is."""

    muted_until_ms: int | None = None
    is_pinned: bool | None = None
    is_archived: bool | None = None
    cleared_upto: bytes | None = None
    """Only ever rises, and comes down to the newest message that the user sees."""
    expiry_s: int | None = None


class SettingUpdate(NamedTuple):
    """A change of one user's view of a conversation, to be made durable under a fresh position."""

    user_id: UserId
    conversation_id: ConversationId
    peer_id: UserId
    change: SettingChange
    may_begin: bool
    """The conversation may be kept before anything was said in it."""
    reaches_peer: bool
    """A timer that is set is the peer's, too."""
    position: Position
    changed_ms: int


class SettingEvent(NamedTuple):
    """An inbox event: how a user keeps a conversation, as it is when the event is read."""

    position: Position
    user_id: UserId
    conversation_id: ConversationId
    settings: Settings


class Changed(NamedTuple):
    """The store's answer to a `SettingUpdate`."""

    is_stored: bool
    """False when a change of a later position stands: this one is to come again, under a position after it."""
    events: tuple[SettingEvent, ...]
    """What was appended, for the user and then for the peer."""
