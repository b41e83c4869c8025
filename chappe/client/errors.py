"""How the SDK says no: one hierarchy of its own, so that no driver's exception ever reaches an application."""


class ChappeClientError(Exception):
    """Anything that the SDK raises."""


class RefusedError(ChappeClientError):
    """A send, a call or a sign-in was refused, for good."""

    def __init__(self, reason: str, detail: str, *, retry_after_ms: int = 0) -> None:
        """Keeps why.

        Args:
            reason: The name of an ErrorReason without its prefix, for example "RATE_LIMITED".
            detail: The same for people.
            retry_after_ms: The least delay before a retry; zero when a retry does not help.
        """
        super().__init__(f"{reason}: {detail}" if detail else reason)
        self.reason = reason
        self.detail = detail
        self.retry_after_ms = retry_after_ms


class NotConnectedError(ChappeClientError):
    """There is no session now, or it ended before the answer came; what is in the outbox stays there."""


class WaitsInOutboxError(NotConnectedError):
    """A change was not answered in time; it is in the outbox on the disk, and the next session sends it."""


class SessionEndedError(ChappeClientError):
    """The edge closed the session with a code that says not to come back."""

    def __init__(self, code: int, detail: str) -> None:
        """Keeps the close code, a value of CloseCode, and what the edge said."""
        super().__init__(f"the session has ended ({code}): {detail}")
        self.code = code
        self.detail = detail


class ProtocolError(ChappeClientError):
    """The other side sent what is not of the contract."""


class UnknownPersonError(ChappeClientError):
    """A person is named who is neither a contact nor somebody with an account."""


class UnknownGroupError(ChappeClientError):
    """A group is named that is none of the user's, or the name fits more than one."""


class ProfileError(ChappeClientError):
    """A profile is missing, damaged or in use; the message says where and what to do."""


class ProfileInUseError(ProfileError):
    """Another process holds the profile."""


class StoreError(ChappeClientError):
    """The local store cannot be read or written; nothing that it did not store was acknowledged."""
