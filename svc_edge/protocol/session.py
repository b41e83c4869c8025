"""One connection of a client: its phase, its budgets, and what is due when."""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING, NamedTuple

from svc_edge.errors import CloseCode, SessionClosed
from svc_edge.model import Member, SessionId, user_tag
from svc_edge.protocol.budget import Bucket
from svc_edge.protocol.delivery import EARLY_VERIFY_AT, Delivery

if TYPE_CHECKING:
    from svc_edge.model import Frame
    from svc_edge.ports import Door
    from svc_edge.protocol.budget import CallBudgets, Rate
    from svc_edge.protocol.looks import Looks
    from svc_edge.protocol.traced import Traced

HELLO_TIMEOUT_S = 5.0
PING_INTERVAL_S = 20.0
LIFE_TIMEOUT_S = 45.0
LIFE_SLACK_S = 5.0
STALL_TIMEOUT_S = 30.0
FRAGMENT_TIMEOUT_S = 10.0
ANONYMOUS_LIFE_S = 600.0
EARLY_VERIFY_AFTER_S = 30.0
FIRST_VERIFY_S = 12.0
"""A new session is verified once after this time: until then a carrier that could not be told of it may push to where
its user was before (ROUTE_MEMORY_S of svc_fanout)."""
FIRST_VERIFY_JITTER_S = 3.0
MAX_CALLS = 8
TIMES_A_SEND_MAY_WAIT = 8
"""While nothing is answered, a client repeats each Send of its window on the same connection, and each repetition is a
frame that waits for an answer of its own; so many are five minutes of silence."""
NEVER = float("inf")


class Phase(enum.IntEnum):
    """How far a connection has come; only ever rises."""

    CONNECTED = 0
    """Nothing was said yet."""
    SIGNING_IN = 1
    """A Hello is being checked."""
    ANONYMOUS = 2
    """Open calls only."""
    LIVE = 3
    """A user's device."""
    CLOSING = 4
    """GoAway was sent; frames are ignored, answers that are on their way still go out."""
    CLOSED = 5


class Limits(NamedTuple):
    """What one connection may do."""

    frames: Rate
    """How many frames a client may send."""
    """Per second."""
    send_window: int
    """Sends without an answer, however often each is repeated."""
    receive_window: int
    """Items without an acknowledgement, when the client names none."""
    verify_interval_s: float
    verify_jitter_s: float


class Due(NamedTuple):
    """What a look at the clock found to be due."""

    wants_ping: bool
    wants_refresh: bool
    wants_verify: bool


class Session:
    """The state of one connection. Times are monotonic seconds."""

    __slots__ = (
        "_frame_budget",
        "_limits",
        "_tokens",
        "address",
        "budgets",
        "calls",
        "delivery",
        "door",
        "expires_s",
        "fragment_since_s",
        "frames",
        "is_dirty",
        "life_s",
        "looks",
        "member",
        "opened_s",
        "paused_since_s",
        "phase",
        "ping_at_s",
        "planned_slot",
        "route_nonce",
        "sends",
        "session_id",
        "traced",
        "unsure_until_s",
        "user_tag",
        "verified_s",
        "verify_at_s",
    )

    def __init__(self, session_id: SessionId, door: Door, limits: Limits, now_s: float) -> None:
        self.session_id = session_id
        self.door = door
        self.phase = Phase.CONNECTED
        self.member: Member | None = None
        self.address = ""
        """Where the client comes from; known from its Hello on."""
        self.user_tag = -1
        self.route_nonce = b""
        """The nonce of the Hello, until svc_presence has answered for the route; empty from then on."""
        self.delivery = Delivery(b"", limits.receive_window)
        self.frames: list[Frame] = []
        self.is_dirty = False
        self.sends = 0
        self.calls = 0
        self.budgets: CallBudgets | None = None
        """Of calls; made with the first."""
        self.looks: Looks | None = None
        """Whom it watches and what it has open; None for a session that never asked."""
        self.traced: Traced | None = None
        """The drawn messages that are on their way to the device or back."""
        self.opened_s = self.life_s = now_s
        self.planned_slot = 0
        self.expires_s = self.ping_at_s = self.verify_at_s = NEVER
        # Until then a carrier may push to where the user was before: a verification before it is followed by another.
        self.verified_s = self.unsure_until_s = now_s
        self.paused_since_s = self.fragment_since_s = NEVER
        self._limits = limits
        self._frame_budget = Bucket(limits.frames, now_s)
        self._tokens = self._frame_budget.take(now_s)

    def spend_frame(self, clock_s: float) -> None:
        """Charges one frame to the budget; raises `SessionClosed` with RATE when it is used up.

        Tokens are taken from the bucket by the handful, so that a frame costs one subtraction.
        """
        self._tokens -= 1
        if self._tokens >= 0:
            return
        self._tokens = self._frame_budget.take(clock_s) - 1
        if self._tokens < 0:
            burst, per_s = self._limits.frames
            detail = (
                f"more than {burst} frames at once and {per_s:g} in each second after that: "
                "send less, and acknowledge items by the dozen"
            )
            raise SessionClosed(CloseCode.RATE, detail, reconnect_after_ms=1000)

    @property
    def is_spent(self) -> bool:
        """Whether the next frame needs a look at the clock."""
        return self._tokens <= 0

    def begin_hello(self) -> None:
        """Takes the first frame, a Hello; raises `SessionClosed` for another one."""
        if self.phase is not Phase.CONNECTED:
            raise SessionClosed(CloseCode.MALFORMED, "a second Hello: one connection has one session")
        self.phase = Phase.SIGNING_IN

    def begin_delivery(self, member: Member, cursor: bytes, window: int) -> None:
        """Learns who is there; pushes may arrive from now on."""
        self.member = member
        self.user_tag = user_tag(member.user_id)
        self.delivery = Delivery(cursor, window or self._limits.receive_window)

    def begin_live(self, now_s: float, jitter: float) -> None:
        """Starts the timers of a session that stands; `jitter` lies between -1 and 1."""
        self.phase = Phase.LIVE if self.member else Phase.ANONYMOUS
        # Never later than the interval: whoever was silent since Hello would not pass for alive, and miss a refresh.
        self.ping_at_s = now_s + PING_INTERVAL_S * (1 - abs(jitter) / 2)
        if self.member:
            self.plan_first_verify(now_s, jitter)
        else:
            self.expires_s = now_s + ANONYMOUS_LIFE_S

    def expect_live(self, what: str) -> None:
        """Raises `SessionClosed` unless a user's device is signed in."""
        if self.phase is Phase.LIVE:
            return
        if self.phase is Phase.ANONYMOUS:
            raise SessionClosed(CloseCode.FORBIDDEN, f"an anonymous session may only Call open methods, not {what}")
        raise SessionClosed(CloseCode.AUTH, f"{what} before the Welcome: say Hello first and wait for its answer")

    def begin_send(self) -> None:
        """Counts a Send that waits for its answer; raises `SessionClosed` beyond the window and its repetitions."""
        window = self._limits.send_window
        if self.sends >= window * TIMES_A_SEND_MAY_WAIT:
            detail = (
                f"more than {window} Sends without an answer, each {TIMES_A_SEND_MAY_WAIT} times: "
                "wait for SendAck or SendNack"
            )
            raise SessionClosed(CloseCode.RATE, detail, reconnect_after_ms=1000)
        self.sends += 1

    def pause(self, now_s: float) -> None:
        """Learns that the socket takes no more."""
        self.paused_since_s = now_s
        self.delivery.pause()

    def resume(self) -> None:
        """Learns that the socket takes again."""
        self.paused_since_s = NEVER
        self.delivery.is_paused = False

    def plan_first_verify(self, now_s: float, jitter: float) -> None:
        """Plans the verification that follows a sign-in; `jitter` lies between -1 and 1."""
        self.unsure_until_s = now_s + FIRST_VERIFY_S
        self.plan_verify(now_s, jitter)

    def plan_verify(self, now_s: float, jitter: float) -> None:
        """Plans the next verification; `jitter` lies between -1 and 1."""
        self.verified_s = now_s
        self.verify_at_s = now_s + self._limits.verify_interval_s + jitter * self._limits.verify_jitter_s
        if now_s < self.unsure_until_s:
            soon_s = self.unsure_until_s + abs(jitter) * FIRST_VERIFY_JITTER_S
            self.verify_at_s = min(self.verify_at_s, soon_s)

    def tick(self, now_s: float) -> Due:
        """Returns what is due; raises `SessionClosed` when the client's time is up."""
        if self.phase <= Phase.SIGNING_IN and now_s >= self.opened_s + HELLO_TIMEOUT_S:
            raise SessionClosed(CloseCode.TIMEOUT, f"no valid Hello within {HELLO_TIMEOUT_S:g} seconds")
        if now_s >= self.paused_since_s + STALL_TIMEOUT_S:
            raise SessionClosed(CloseCode.SLOW, f"the socket took nothing for {STALL_TIMEOUT_S:g} seconds")
        if now_s >= self.fragment_since_s + FRAGMENT_TIMEOUT_S:
            raise SessionClosed(CloseCode.MALFORMED, f"a fragmented message was not ended in {FRAGMENT_TIMEOUT_S:g} s")
        if now_s >= self.life_s + LIFE_TIMEOUT_S:
            raise SessionClosed(CloseCode.TIMEOUT, f"no frame and no pong for {LIFE_TIMEOUT_S:g} seconds")
        if now_s >= self.expires_s:
            raise SessionClosed(CloseCode.TIMEOUT, "an anonymous session lasts 10 minutes: sign in, or connect again")
        return self._due(now_s)

    def next_look_s(self) -> float:
        """Returns when `tick` is to be called next."""
        due = min(self.ping_at_s, self.verify_at_s, self.expires_s, self.life_s + LIFE_TIMEOUT_S)
        if self.phase <= Phase.SIGNING_IN:
            due = min(due, self.opened_s + HELLO_TIMEOUT_S)
        return min(due, self.paused_since_s + STALL_TIMEOUT_S, self.fragment_since_s + FRAGMENT_TIMEOUT_S)

    def _due(self, now_s: float) -> Due:
        wants_ping = now_s >= self.ping_at_s
        if wants_ping:
            self.ping_at_s = now_s + PING_INTERVAL_S
        is_crowded = self.delivery.remembered > EARLY_VERIFY_AT and now_s >= self.verified_s + EARLY_VERIFY_AFTER_S
        # A refresh rides on proof of life: something was heard since the last ping.
        is_alive = now_s - self.life_s <= PING_INTERVAL_S + LIFE_SLACK_S
        return Due(
            wants_ping,
            wants_ping and is_alive and self.member is not None,
            self.phase is Phase.LIVE and (is_crowded or now_s >= self.verify_at_s),
        )
