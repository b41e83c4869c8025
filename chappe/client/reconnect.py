"""Says whether and when a client comes back after its connection has ended."""

import enum

from chappe.client.seams import Randomness

FIRST_STEP_S = 0.5
LONGEST_WAIT_S = 30.0


class Comeback(enum.Enum):
    """What a client does after a close."""

    AT_ONCE = "at once"
    """The edge is fine or another one is: no waiting."""
    AFTER_DELAY = "after a delay"
    """Too much was asked of the edge, or the connection broke: wait, longer each time."""
    NEVER = "never"
    """The same again would be refused again: something has to be changed first."""


def reconnect_policy(close_code: int) -> Comeback:
    """Returns what a close code asks for; every code outside 4000 to 4099 and 4400 to 4499 counts as a broken line."""
    if 4000 <= close_code <= 4099:  # noqa: PLR2004 - the ranges of CloseCode
        return Comeback.AT_ONCE
    if 4400 <= close_code <= 4499:  # noqa: PLR2004 - the ranges of CloseCode
        return Comeback.NEVER
    return Comeback.AFTER_DELAY


def backoff_s(failures: int, randomness: Randomness) -> float:
    """Returns how long to wait after so many connections in a row that failed: full jitter, at most 30 s."""
    if failures <= 0:
        return 0.0
    return randomness.uniform(0.0, min(LONGEST_WAIT_S, FIRST_STEP_S * 2.0 ** min(failures, 10)))
