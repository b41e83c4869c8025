"""What a send is answered with."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from svc_message.model.ids import ConversationId


class Stored(NamedTuple):
    """The answer to a send that is durable."""

    accepted_ms: int
    conversation_id: ConversationId
    is_duplicate: bool


class Refused(NamedTuple):
    """The answer to a send that is not: the reason by the name of its ErrorReason, and the same for people."""

    reason: str
    detail: str
    is_retryable: bool = False
    retry_after_ms: int = 0


Answer = Stored | Refused
