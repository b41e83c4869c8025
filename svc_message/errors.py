"""How the ledger says no."""

from chappe.runtime.errors import ChappeError


class ClockUntrustedError(ChappeError):
    """Says that this process's clock cannot be trusted at the moment: nothing is minted and no cursor moves."""

    code = "UNAVAILABLE"
    reason = "CLOCK_UNTRUSTED"

    def __init__(self, why: str) -> None:
        super().__init__(
            f"{why}; nothing is accepted until it agrees with the store's again: let both machines follow the same "
            "time servers (chronyc tracking)",
            retry_after_ms=1000,
        )


class InvalidPageTokenError(ChappeError):
    """Refuses a page token that was altered or belongs to another list."""

    code = "INVALID_ARGUMENT"
    reason = "INVALID_PAGE_TOKEN"

    def __init__(self) -> None:
        super().__init__("page_token: not one that this list gave to this user; start again without it")


class OwnerNotAllowedError(ChappeError):
    """Refuses a client that names somebody else as the owner of what it reads."""

    code = "PERMISSION_DENIED"
    reason = "NOT_IN_CONVERSATION"

    def __init__(self) -> None:
        super().__init__("owner_user_id: a client reads its own conversations; leave the field empty")


class OwnerMissingError(ChappeError):
    """Refuses an internal caller that does not say whose conversation it reads."""

    code = "INVALID_ARGUMENT"
    reason = "INVALID_FIELD"

    def __init__(self) -> None:
        super().__init__(
            "owner_user_id: an internal caller must say whose view it reads", metadata={"field": "owner_user_id"}
        )


class MessageNotFoundError(ChappeError):
    """Says that a message that is named does not exist."""

    code = "NOT_FOUND"
    reason = "MESSAGE_NOT_FOUND"

    def __init__(self) -> None:
        super().__init__("message_id: there is no such message in this conversation")


class NoBotError(ChappeError):
    """Refuses a program that speaks as nobody."""

    code = "NOT_FOUND"
    reason = "USER_NOT_FOUND"

    def __init__(self, spiffe_id: str) -> None:
        super().__init__(
            f"{spiffe_id} speaks as no user; make one: python -m svc_identity bot create --name NAME"
            f" --spiffe-id {spiffe_id}"
        )


class NotInConversationError(ChappeError):
    """Refuses what concerns a conversation that the caller does not have."""

    code = "NOT_FOUND"
    reason = "NOT_IN_CONVERSATION"

    def __init__(self) -> None:
        super().__init__("conversation: the caller has no part in it, and there is nobody to begin one with")
