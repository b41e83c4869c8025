"""How the registry says no."""

from __future__ import annotations

from chappe.runtime.errors import ChappeError


class NotInConversationError(ChappeError):
    """Refuses whoever has no part in a conversation."""

    code = "PERMISSION_DENIED"
    reason = "NOT_IN_CONVERSATION"

    def __init__(self) -> None:
        super().__init__("the conversation does not exist, or you have no part in it")
