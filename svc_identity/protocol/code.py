"""One-time codes and link codes: how they are drawn, kept and judged."""

import hashlib
import hmac

from chappe.runtime.clock import Randomness
from chappe.runtime.errors import RateLimitedError
from svc_identity.errors import LinkCodeNotFoundError, VerificationNotFoundError, WrongCodeError
from svc_identity.model import SendPolicy

CODE_LIFE_MS = 10 * 60_000
"""How long a one-time code works."""
TOKEN_LIFE_MS = 5 * 60_000
"""How long a registration token works."""
LINK_LIFE_MS = 5 * 60_000
"""How long a link code works."""
MOST_ATTEMPTS = 5
"""How many codes a verification looks at."""
DAY_MS = 86_400_000

_CODES = 1_000_000
_ALPHABET = "23456789ABCDEFGHJKMNPQRSTUVWXYZ"
_LINK_LENGTH = 8
_WAIT_FACTORS = (1, 2, 5)


def draw_code(randomness: Randomness) -> str:
    """Returns 6 digits."""
    # 2^64 is so much larger than a million that the remainder favours nothing measurably.
    return f"{int.from_bytes(randomness.token(8)) % _CODES:06d}"


def draw_link_code(randomness: Randomness) -> str:
    """Returns 8 letters and digits that nobody mistakes for each other."""
    number = int.from_bytes(randomness.token(16))
    letters: list[str] = []
    for _ in range(_LINK_LENGTH):
        number, index = divmod(number, len(_ALPHABET))
        letters.append(_ALPHABET[index])
    return "".join(letters)


def normal_link_code(typed: str) -> str:
    """Returns a link code as it was drawn from what a person typed.

    Raises:
        LinkCodeNotFoundError: It cannot be one.
    """
    link_code = typed.replace("-", "").replace(" ", "").upper()
    if len(link_code) != _LINK_LENGTH or not set(link_code) <= set(_ALPHABET):
        raise LinkCodeNotFoundError(f"a link code is {_LINK_LENGTH} of {_ALPHABET}; type it again")
    return link_code


def code_hmac(pepper: bytes, verification_id: bytes, code: str) -> bytes:
    """Returns what is kept of a one-time code."""
    return hmac.digest(pepper, b"chappe-code\0" + verification_id + code.encode(), hashlib.sha256)


def link_code_hmac(pepper: bytes, link_code: str) -> bytes:
    """Returns what is kept of a link code."""
    return hmac.digest(pepper, b"chappe-link-code\0" + link_code.encode("ascii"), hashlib.sha256)


def token_hash(token: bytes) -> bytes:
    """Returns what is kept of a registration token, which is too long to be guessed from its hash."""
    return hashlib.sha256(b"chappe-registration-token\0" + token).digest()


def judge_code(*, is_right: bool, attempts: int) -> None:
    """Returns when the code of an attempt is right.

    Args:
        is_right: Whether it is the code that was sent.
        attempts: How many there have been, with this one.

    Raises:
        RateLimitedError: There have been too many.
        WrongCodeError: It is another code.
    """
    if attempts > MOST_ATTEMPTS:
        raise RateLimitedError("code attempts", retry_after_ms=CODE_LIFE_MS)
    if not is_right:
        raise WrongCodeError(MOST_ATTEMPTS - attempts)


def verification_missing() -> VerificationNotFoundError:
    """Returns the refusal of a verification that is not there."""
    return VerificationNotFoundError("this verification is unknown, used or expired; ask for a new code")


def resend_wait_ms(sent_ms: list[int], policy: SendPolicy, now_ms: int) -> int:
    """Returns how long a number waits for its next code.

    Args:
        sent_ms: When codes were sent in the last 24 hours, rising.
        policy: What is allowed.
        now_ms: Now.
    """
    if not sent_ms:
        return 0
    factor = _WAIT_FACTORS[min(len(sent_ms), len(_WAIT_FACTORS)) - 1]
    ready_ms = sent_ms[-1] + factor * policy.wait_ms
    if len(sent_ms) >= policy.per_day:
        ready_ms = max(ready_ms, sent_ms[-policy.per_day] + DAY_MS)
    return max(0, ready_ms - now_ms)


def check_resend(sent_ms: list[int], policy: SendPolicy, now_ms: int) -> int:
    """Returns how long a number waits after a code that is sent now.

    Raises:
        RateLimitedError: It has to wait for that one.
    """
    wait_ms = resend_wait_ms(sent_ms, policy, now_ms)
    if wait_ms:
        raise RateLimitedError("codes for this number", retry_after_ms=wait_ms)
    return resend_wait_ms([*sent_ms, now_ms], policy, now_ms)
