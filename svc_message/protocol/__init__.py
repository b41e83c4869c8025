"""The pure rules of the ledger: ids, positions, the horizon, and what makes two sends the same. No I/O.

Sources: RFC 9562 for UUIDv7 and UUIDv8; the horizon rule and its parameters were settled by a discrete-event model in
which the naive cursor ("last position seen") lost 8 to 15 % of acknowledged messages under faults, and this rule none.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple, cast

from chappe.runtime import conversation
from svc_message.errors import ClockUntrustedError
from svc_message.model import ConversationId, MessageId, Position, UserId

if TYPE_CHECKING:
    from collections.abc import Callable

    from chappe.runtime.clock import Clock

WRITE_WINDOW_S = 4.0
"""W: a write is acknowledged only while its position is younger."""
HORIZON_S = 10.0
"""H: a cursor never passes now minus this; at least W and twice the greatest clock skew."""
MAX_SKEW_S = 0.5
"""S: how far a clock may be off before its process mints nothing."""
MAX_STEP_S = 0.25
"""How far wall and monotonic time may drift apart between two looks."""
FUTURE_BOUND_MS = 5_000
"""F: how far in the future a message id may lie."""
FIRST_ACCEPT_AGE_MS = 10 * 60 * 1000
"""A: how old a message id may be when it is first accepted."""
LATE_MS = 30 * 1000
"""A message that was accepted so long after the time in its id is late: stores find those apart from all others."""
READ_OVERLAP_MS = FUTURE_BOUND_MS + LATE_MS + 60 * 1000
"""How far before the place up to which everything was read something may be unread that is not late."""
LATE_OVERLAP_MS = FIRST_ACCEPT_AGE_MS + 60 * 1000
"""How far before it something may be that is."""
TOLD_AGAIN_MS = 60_000
"""For how long a device that acknowledges again is a sign that the sender may not have been told."""
RESYNC_AGE_MS = 30 * 24 * 3600 * 1000
"""How long an inbox log is kept: an older cursor starts anew."""
EPOCH_REWIND_MS = 3600 * 1000
"""How far a cursor of another epoch is set back."""

KEY_BYTES = 64
_ID_BYTES = 16


class MessageKey(NamedTuple):
    """The 64 bytes that name an item everywhere on its way, taken apart."""

    position: Position
    message_id: bytes
    conversation_id: bytes
    sender_id: bytes

    @classmethod
    def of(cls, key: bytes) -> MessageKey:
        """Takes one key apart."""
        return cls(Position(key[:16]), key[16:32], key[32:48], key[48:64])


def may_be_untold(delivered_ms: int, recorded_ms: int) -> bool:
    """Tells whether the event of a delivery may have been passed over, when a device acknowledges once more.

    A device that is not sure that its acknowledgement has arrived repeats it, under a session of its own. What it said
    first may have been written so late that its position was no longer looked at, by a process that is gone.

    Args:
        delivered_ms: When the delivery was recorded; zero when it is not.
        recorded_ms: When the device acknowledged again.
    """
    return WRITE_WINDOW_S * 1000 <= recorded_ms - delivered_ms <= TOLD_AGAIN_MS


direct_conversation = cast("Callable[[bytes, bytes], ConversationId]", conversation.direct_conversation)
"""The id of the direct conversation of two users: a UUIDv8 that both derive and no client supplies."""


def is_group(conversation_id: bytes) -> bool:
    """Tells the conversation of a group, which has the group's id, from a direct one by the version of its UUID."""
    return conversation_id[6] & 0xF0 == 0x70  # noqa: PLR2004 - the version in RFC 9562


def mint_tag(user_id: bytes, device_id: int) -> bytes:
    """Returns the 6 bytes that bind message ids to the device that minted them."""
    return hashlib.sha256(b"chappe-mid" + user_id + device_id.to_bytes(4, "big")).digest()[:6]


def milliseconds_of(uuid7: bytes) -> int:
    """Returns the Unix milliseconds of a UUIDv7."""
    return int.from_bytes(uuid7[:6], "big")


def is_late(message_id: bytes, accepted_ms: int) -> bool:
    """Tells whether a message was accepted so late that who has read up to a place may not have seen it before it."""
    return accepted_ms - milliseconds_of(message_id) > LATE_MS


def came_ms(message_id: bytes, accepted_ms: int) -> int:
    """Returns when a message came: when it was accepted, or later if its id is ahead of our clock."""
    return max(milliseconds_of(message_id), accepted_ms)


def first_unread(read_upto: bytes) -> bytes:
    """Returns a place that nothing but late messages can be unread before, once everything up to an id was read.

    The id was there when it was read, so it was not minted later than that but for the bound of the future; and what is
    not late was there when its id was that old, and a minute more for writes that hang and clocks that are off.
    """
    return _before(read_upto, READ_OVERLAP_MS)


def first_late(read_upto: bytes) -> bytes:
    """Returns a place that no message is unread before, late or not: ids are accepted for 10 minutes only (ADR 12)."""
    return _before(read_upto, LATE_OVERLAP_MS)


def _before(message_id: bytes, milliseconds: int) -> bytes:
    return max(milliseconds_of(message_id) - milliseconds, 0).to_bytes(6, "big") + bytes(10)


def position_at(unix_ms: int) -> Position:
    """Returns the least position of a millisecond."""
    return Position(max(unix_ms, 0).to_bytes(6, "big") + b"\x70" + bytes(1) + b"\x80" + bytes(7))


def after_id(message_id: bytes) -> bytes:
    """Returns the bytes after an id, so that what lies before them includes it; empty, no bound, after the last."""
    number = int.from_bytes(message_id, "big") + 1
    return number.to_bytes(16, "big") if number < 2**128 else b""


def content_hash(recipient_id: bytes, envelope: bytes, expiry_s: int = 0) -> bytes:
    """Returns the 16 bytes by which two sends with one id are the same."""
    if expiry_s:
        envelope += expiry_s.to_bytes(4, "big")
        return hashlib.blake2b(recipient_id + envelope, digest_size=16, person=b"expiry").digest()
    return hashlib.blake2b(recipient_id + envelope, digest_size=16).digest()


def action_hash(user_id: bytes, kind: int, message_id: bytes, envelope: bytes) -> bytes:
    """Returns the 16 bytes by which two actions with one id are the same."""
    return hashlib.blake2b(user_id + bytes((kind,)) + message_id + envelope, digest_size=16).digest()


class Stamp(NamedTuple):
    """A position with the two clocks at its minting."""

    position: Position
    wall_ms: int
    monotonic_s: float


class LedgerClock:
    """Mints positions, tells their ages and the bound of cursors, and refuses while the clock cannot be trusted.

    Wall minus monotonic time is compared at every use: a step freezes minting and cursors until a comparison with the
    store's clock shows that the time is right again. Freezing is always safe.
    """

    def __init__(self, clock: Clock, node: bytes) -> None:
        """Starts trusting the clock.

        Args:
            clock: The process's clock.
            node: 8 random bytes that no other process has.
        """
        self._clock = clock
        self._node = bytes([0x80 | (node[0] & 0x3F)]) + node[1:8]
        self._last = 0
        self._offset_s = clock.wall_ms() / 1000 - clock.monotonic_s()
        self._distrust = ""

    def check(self) -> None:
        """Raises `ClockUntrustedError` when the wall clock stepped, or differed from the store's."""
        if not self.is_trusted:
            raise ClockUntrustedError(self._distrust)

    @property
    def is_trusted(self) -> bool:
        """Whether positions are minted and cursors move; a step is noticed here."""
        self._notice_step()
        return not self._distrust

    def compare(self, store_ms: float, *, round_trip_s: float = 0.0) -> None:
        """Compares with the store's clock, as it was told just now: trust ends above 0.5 s and returns below.

        How long the question took is the error of the answer; where that leaves it open, all stays as it is.
        """
        self._notice_step()
        most_s = (self._clock.wall_ms() - store_ms) / 1000
        least_s = most_s - round_trip_s
        if least_s >= -MAX_SKEW_S and most_s <= MAX_SKEW_S:
            self._distrust = ""
        elif least_s > MAX_SKEW_S or most_s < -MAX_SKEW_S:
            self._distrust = f"the clock is {most_s:+.3f} s off the store's"

    def _notice_step(self) -> None:
        offset_s = self._clock.wall_ms() / 1000 - self._clock.monotonic_s()
        step_s = offset_s - self._offset_s
        if abs(step_s) > MAX_STEP_S:
            self._distrust = f"the clock stepped by {step_s:+.3f} s"
        self._offset_s = offset_s

    def mint(self) -> Stamp:
        """Mints the next position; raises `ClockUntrustedError`."""
        return self.mint_many(1)[0]

    def mint_many(self, count: int) -> list[Stamp]:
        """Mints positions, rising, at one moment; raises `ClockUntrustedError`."""
        self.check()
        wall_ms, monotonic_s = self._clock.wall_ms(), self._clock.monotonic_s()
        first = max(self._last + 1, wall_ms << 12)
        self._last = first + count - 1
        return [Stamp(self._position(ticks), wall_ms, monotonic_s) for ticks in range(first, first + count)]

    def age_s(self, stamp: Stamp) -> float:
        """Returns the age of a position: the larger of its wall age and its monotonic age."""
        wall_age_s = (self._clock.wall_ms() - stamp.wall_ms) / 1000
        return max(wall_age_s, self._clock.monotonic_s() - stamp.monotonic_s)

    def is_fresh(self, stamp: Stamp) -> bool:
        """Tells whether what was written under a position may be acknowledged now."""
        return self.age_s(stamp) <= WRITE_WINDOW_S

    def _position(self, ticks: int) -> Position:
        head = ((ticks >> 12) << 16 | 0x7000 | (ticks & 0xFFF)).to_bytes(8, "big")
        return Position(head + self._node)

    def bound(self) -> Position:
        """Returns the position that no cursor may pass now; to be taken before the first read of a pass."""
        self.check()
        return position_at(self._clock.wall_ms() - int(HORIZON_S * 1000))

    def wall_ms(self) -> int:
        """Returns Unix time in milliseconds."""
        return self._clock.wall_ms()

    def trusted_ms(self) -> int:
        """Returns it for a judgement on the clocks of others; raises `ClockUntrustedError`."""
        self.check()
        return self._clock.wall_ms()


def is_uuid7(value: bytes) -> bool:
    """Tells whether 16 bytes are a UUIDv7."""
    return len(value) == _ID_BYTES and value[6] & 0xF0 == 0x70 and value[8] & 0xC0 == 0x80  # noqa: PLR2004 - RFC 9562


def bot_message_id(request_id: bytes, user_id: bytes, device_id: int) -> MessageId:
    """Returns the id of what a bot says: the id of its request, a UUIDv7, with the mint tag of its device inside."""
    head, rest = _tag_in_place(mint_tag(user_id, device_id))
    return MessageId(request_id[:8] + head + bytes((rest | request_id[14] & 0x3F, request_id[15])))


class TagCache:
    """Remembers the mint tags of devices: one hash for each device, not for each message."""

    def __init__(self, capacity: int = 100_000) -> None:
        """Makes an empty cache that forgets everything when it is full."""
        self._tags: dict[tuple[bytes, int], tuple[bytes, int]] = {}
        self._capacity = capacity

    def owns(self, user_id: UserId, device_id: int, message_id: bytes) -> bool:
        """Tells whether an id is a UUIDv7 that the device minted."""
        found = self._tags.get((user_id, device_id))
        if found is None:
            if len(self._tags) >= self._capacity:
                self._tags.clear()
            found = self._tags[user_id, device_id] = _tag_in_place(mint_tag(user_id, device_id))
        head, rest = found
        return (
            message_id[8:14] == head
            and message_id[14] & 0xC0 == rest
            and message_id[6] & 0xF0 == 0x70  # noqa: PLR2004 - the version in RFC 9562
            and len(message_id) == _ID_BYTES
        )


def _tag_in_place(tag: bytes) -> tuple[bytes, int]:
    """Returns bytes 8 to 13 and the upper two bits of byte 14 of every id with a tag: the variant, then the tag."""
    bits = (0b10 << 48 | int.from_bytes(tag, "big")) << 6
    return (bits >> 8).to_bytes(6, "big"), bits & 0xFF
