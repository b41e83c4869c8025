"""How much an account may have and use up."""

from chappe.runtime.errors import RateLimitedError
from svc_identity.errors import ListFullError, TooManyDevicesError
from svc_identity.model import Charge
from svc_identity.protocol.code import DAY_MS

MOST_DEVICES = 8
MOST_CONTACTS = 10_000
MOST_BLOCKS = 1_000


def check_devices(count: int) -> None:
    """Returns when an account may have one more device.

    Raises:
        TooManyDevicesError: It may not.
    """
    if count >= MOST_DEVICES:
        raise TooManyDevicesError(MOST_DEVICES)


def check_contacts(count: int) -> None:
    """Returns when an address book takes one more person.

    Raises:
        ListFullError: It does not.
    """
    if count >= MOST_CONTACTS:
        raise ListFullError("contacts", MOST_CONTACTS)


def check_blocks(count: int) -> None:
    """Returns when one more user may be blocked.

    Raises:
        ListFullError: None may.
    """
    if count >= MOST_BLOCKS:
        raise ListFullError("blocked users", MOST_BLOCKS)


def day_of(now_ms: int) -> int:
    """Returns the number of the day, in UTC, since 1970."""
    return now_ms // DAY_MS


def check_charge(charge: Charge, used: int) -> int:
    """Returns what is used up with a charge.

    Args:
        charge: What a call takes.
        used: What was used up today.

    Raises:
        RateLimitedError: It is more than is left; the budget is fresh at midnight, UTC.
    """
    total = used + charge.amount
    if total > charge.limit:
        raise RateLimitedError(charge.budget, retry_after_ms=DAY_MS - charge.now_ms % DAY_MS)
    return total
