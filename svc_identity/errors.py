"""How the directory says no."""

from chappe.runtime.errors import ChappeError


class InvalidProofError(ChappeError):
    """Refuses a signature that the device's key did not make, that is too old, or that was used before."""

    code = "UNAUTHENTICATED"
    reason = "INVALID_PROOF"


class UserNotFoundError(ChappeError):
    """Refuses a user that does not exist."""

    code = "NOT_FOUND"
    reason = "USER_NOT_FOUND"


class VerificationNotFoundError(ChappeError):
    """Refuses a verification that does not exist, is used up or has expired."""

    code = "NOT_FOUND"
    reason = "VERIFICATION_NOT_FOUND"


class WrongCodeError(ChappeError):
    """Refuses a one-time code that is not the one that was sent."""

    code = "PERMISSION_DENIED"
    reason = "WRONG_CODE"

    def __init__(self, attempts_left: int) -> None:
        super().__init__(
            f"that is not the code that was sent; {attempts_left} attempts left, then ask for a new one",
            metadata={"attempts_left": str(attempts_left)},
        )


class InvalidRegistrationTokenError(ChappeError):
    """Refuses a registration token that is unknown, used or expired."""

    code = "PERMISSION_DENIED"
    reason = "INVALID_REGISTRATION_TOKEN"


class DeviceNotFoundError(ChappeError):
    """Refuses a device that the account does not have."""

    code = "NOT_FOUND"
    reason = "DEVICE_NOT_FOUND"


class DeviceUnlinkedError(ChappeError):
    """Refuses a device that was unlinked; only the holder of its key or of a token of it learns this."""

    code = "UNAUTHENTICATED"
    reason = "DEVICE_NOT_FOUND"


class TooManyDevicesError(ChappeError):
    """Refuses one more device."""

    code = "FAILED_PRECONDITION"
    reason = "TOO_MANY_DEVICES"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"the account has {limit} devices, which is the most; unlink one first", metadata={"limit": str(limit)}
        )


class LinkCodeNotFoundError(ChappeError):
    """Refuses a link code that is unknown, used or expired."""

    code = "NOT_FOUND"
    reason = "LINK_CODE_NOT_FOUND"


class SelfNotAllowedError(ChappeError):
    """Refuses what a user cannot do to itself."""

    code = "INVALID_ARGUMENT"
    reason = "SELF_NOT_ALLOWED"


class ContactNotFoundError(ChappeError):
    """Refuses a contact that is not in the address book."""

    code = "NOT_FOUND"
    reason = "CONTACT_NOT_FOUND"


class SessionNotFoundError(ChappeError):
    """Refuses a session that the user does not have."""

    code = "NOT_FOUND"
    reason = "SESSION_NOT_FOUND"


class ListFullError(ChappeError):
    """Refuses one more entry of a list."""

    code = "FAILED_PRECONDITION"
    reason = "LIST_FULL"

    def __init__(self, what: str, limit: int) -> None:
        super().__init__(
            f"there are {limit} {what}, which is the most; remove one first", metadata={"limit": str(limit)}
        )


class InvalidPageTokenError(ChappeError):
    """Refuses a page token that was altered, or made for another list or user."""

    code = "INVALID_ARGUMENT"
    reason = "INVALID_PAGE_TOKEN"


class CursorExpiredError(ChappeError):
    """Refuses a cursor from before what the log keeps, or from another life of the log."""

    code = "FAILED_PRECONDITION"
    reason = "CURSOR_EXPIRED"


class GroupNotFoundError(ChappeError):
    """Refuses a group that does not exist, or of which the caller may not know."""

    code = "NOT_FOUND"
    reason = "GROUP_NOT_FOUND"


class NotAMemberError(ChappeError):
    """Refuses a caller who was a member of the group and is no more."""

    code = "PERMISSION_DENIED"
    reason = "NOT_A_MEMBER"


class MemberNotFoundError(ChappeError):
    """Refuses a user, named by the caller, who is not a member of the group."""

    code = "NOT_FOUND"
    reason = "NOT_A_MEMBER"


class RoleRequiredError(ChappeError):
    """Refuses a member whose role does not allow this."""

    code = "PERMISSION_DENIED"
    reason = "ROLE_REQUIRED"

    def __init__(self, role: str) -> None:
        super().__init__(f"this takes the role {role}; ask somebody who has it", metadata={"role": role})


class OwnerProtectedError(ChappeError):
    """Refuses to remove the owner of a group, or to take the role away."""

    code = "FAILED_PRECONDITION"
    reason = "OWNER_PROTECTED"


class GroupFullError(ChappeError):
    """Refuses more members than there is room for."""

    code = "FAILED_PRECONDITION"
    reason = "GROUP_FULL"

    def __init__(self, limit: int, left: int) -> None:
        super().__init__(
            f"a group has {limit} members at most, {left} more fit in; name fewer", metadata={"limit": str(limit)}
        )


class InviteNotFoundError(ChappeError):
    """Refuses an invite that does not work, or not for this caller."""

    code = "NOT_FOUND"
    reason = "INVITE_NOT_FOUND"
