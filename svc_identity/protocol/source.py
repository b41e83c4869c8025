"""Where requests for one-time codes come from and where the codes go: what is budgeted besides the single number."""

import hashlib
import hmac
from ipaddress import IPv6Address, ip_address

from chappe.runtime.errors import RateLimitedError
from svc_identity.model import CodeCharge, Phone

HOUR_MS = 3_600_000
ADDRESS_BUDGET = "codes for this address"
RANGE_BUDGET = "codes for this range of numbers"

# Whoever has one IPv6 address has all of its network.
_NETWORK_BITS = 64
_ADDRESS_BITS = 128
# Numbers are given out in blocks of ten thousand.
_SUBSCRIBER_DIGITS = 4


def network_of(address: str) -> str:
    """Returns what stands for everybody behind an address: the address itself, or the network of an IPv6 address."""
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if not isinstance(parsed, IPv6Address):
        return str(parsed)
    if parsed.ipv4_mapped is not None:
        return str(parsed.ipv4_mapped)
    return f"{int(parsed) >> (_ADDRESS_BITS - _NETWORK_BITS):x}/{_NETWORK_BITS}"


def range_of(phone: Phone) -> str:
    """Returns what the numbers of one block have in common."""
    return phone[:-_SUBSCRIBER_DIGITS]


def holder_of(pepper: bytes, budget: str, whom: str) -> bytes:
    """Returns what is kept of an address or a range: 16 bytes that nobody can read without the pepper."""
    return hmac.digest(pepper, b"\0".join((b"chappe-code-budget", budget.encode(), whom.encode())), hashlib.sha256)[:16]


def hour_of(now_ms: int) -> int:
    """Returns the number of the hour since 1970."""
    return now_ms // HOUR_MS


def check_code_charge(charge: CodeCharge, used: int) -> int:
    """Returns what is used up with one more code.

    Args:
        charge: Whose budget it is.
        used: What was used up in this hour.

    Raises:
        RateLimitedError: There is nothing left; the budget is fresh at the full hour.
    """
    if used >= charge.limit:
        raise RateLimitedError(charge.budget, retry_after_ms=HOUR_MS - charge.now_ms % HOUR_MS)
    return used + 1
