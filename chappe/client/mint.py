"""Mints message ids by the server's time, and derives what is derived from ids."""

import hashlib
import math
from collections import deque

from chappe.client.seams import Randomness

MAX_BUMP_MS = 2_500
"""How far a mint may run ahead of the estimated server time to stay behind what was seen in a conversation."""

_SAMPLES = 8
_DRIFT_MS = 1_000
"""More than two clocks drift apart in 8 exchanges."""
_PROOF_MS = 60_000
"""How far a proof of possession may be from the time of the server that reads it."""
_COUNTER_MAX = 0xFFF
_MIN_TIME_MS = 1 << 40


def conversation_of(one: bytes, other: bytes) -> bytes:
    """Returns the id of the direct conversation of two users, a UUIDv8; of one user with itself for notes."""
    digest = bytearray(hashlib.sha256(b"chappe-dm" + min(one, other) + max(one, other)).digest()[:16])
    digest[6] = (digest[6] & 0x0F) | 0x80
    digest[8] = (digest[8] & 0x3F) | 0x80
    return bytes(digest)


def is_group(conversation_id: bytes) -> bool:
    """Tells the conversation of a group, which has the group's id, a UUIDv7, from a direct one."""
    return conversation_id[6] & 0xF0 == 0x70  # noqa: PLR2004 - the version in RFC 9562


def mint_tag_of(user_id: bytes, device_id: int) -> bytes:
    """Returns the 6 bytes that bind a message id to a device."""
    return hashlib.sha256(b"chappe-mid" + user_id + device_id.to_bytes(4, "big")).digest()[:6]


def time_ms_of(message_id: bytes) -> int:
    """Returns the Unix milliseconds in a UUIDv7: the time by which a message is sorted and shown."""
    return int.from_bytes(message_id[:6], "big")


class ServerClock:
    """Estimates the server's time from the exchange with the shortest round trip among the last 8 that can all be true.

    An edge says what time it is, and its clock may be behind; what the ledger has accepted says that it is not earlier.
    """

    def __init__(self, wall_ms: int, now_s: float) -> None:
        """Starts with the machine's own time, which is all there is before the first answer."""
        self._offset_ms = wall_ms - now_s * 1000
        self._is_known = False
        self._least_ms = -math.inf
        self._samples: deque[tuple[float, float]] = deque(maxlen=_SAMPLES)

    def estimate_ms(self, now_s: float) -> int:
        """Returns the server's time in Unix milliseconds."""
        return int(now_s * 1000 + max(self._offset_ms, self._least_ms))

    def certain_ms(self, now_s: float) -> int:
        """Returns what time it is on the server at least: what is thrown away by a clock nobody brings back.

        Before the first answer that is what the ledger has accepted, since the machine's own time may be ahead.
        """
        if self._is_known:
            return self.estimate_ms(now_s)
        return 0 if math.isinf(self._least_ms) else int(now_s * 1000 + self._least_ms)

    def sample(self, sent_s: float, received_s: float, server_ms: int) -> None:
        """Learns from one question and its answer."""
        if server_ms < _MIN_TIME_MS:
            return
        self._is_known = True
        trip_s, offset_ms = received_s - sent_s, server_ms - (sent_s + received_s) * 500
        if self._samples:
            best_trip_s, best_ms = min(self._samples)
            if abs(offset_ms - best_ms) > (trip_s + best_trip_s) * 500 + _DRIFT_MS:
                self._begin_anew(offset_ms)
        self._samples.append((trip_s, offset_ms))
        self._offset_ms = min(self._samples)[1]

    def accepted(self, server_ms: int, now_s: float) -> None:
        """Learns that the ledger had this time when it accepted something, which is heard of now."""
        self._least_ms = max(self._least_ms, server_ms - now_s * 1000)

    def correct(self, server_ms: int, now_s: float) -> None:
        """Forgets everything: the ledger says that the estimate was wrong."""
        if server_ms >= _MIN_TIME_MS:
            self._samples.clear()
            self._is_known = True
            self._least_ms = -math.inf
            self._offset_ms = server_ms - now_s * 1000

    def _begin_anew(self, offset_ms: float) -> None:
        # The old and the new cannot both be right: the machine slept, in which its monotonic clock stands still, or
        # another clock was set. An edge may still be behind the ledger, but not so far that it lets nobody in.
        self._samples.clear()
        if self._least_ms > offset_ms + _PROOF_MS:
            self._least_ms = -math.inf


class IdMint:
    """Mints the message ids of one device: UUIDv7, strictly rising, later than what the conversation has shown."""

    def __init__(self, tag: bytes, randomness: Randomness, last_id: bytes = b"") -> None:
        """Makes a mint.

        Args:
            tag: The device's mint tag, 6 bytes.
            randomness: For the last 14 bits.
            last_id: The greatest id that this device minted before, so that a restart does not go back behind it.
        """
        self._tag: int = int.from_bytes(tag, "big") << 14
        self._randomness = randomness
        self._random: bytes = b""
        self._used = 0
        self._last_ms = time_ms_of(last_id) if last_id else 0
        self._counter = int.from_bytes(last_id[6:8], "big") & _COUNTER_MAX if last_id else 0

    def mint(self, server_ms: int, seen_ms: int = 0) -> bytes:
        """Returns a new id.

        Args:
            server_ms: The estimated time of the server.
            seen_ms: The time of the newest message seen in the conversation; the id sorts after it, within the bump.
        """
        time_ms = server_ms
        if seen_ms >= server_ms:
            time_ms = min(seen_ms + 1, server_ms + MAX_BUMP_MS)
        if time_ms > self._last_ms:
            self._counter = 0
        elif self._counter < _COUNTER_MAX:
            time_ms = self._last_ms
            self._counter += 1
        else:
            time_ms = self._last_ms + 1
            self._counter = 0
        self._last_ms = time_ms
        high = (time_ms << 16) | 0x7000 | self._counter
        return ((high << 64) | (1 << 63) | self._tag | self._bits()).to_bytes(16, "big")

    def step_back(self) -> None:
        """Lets the next id be earlier than the last: the server refused it because it lay in the future."""
        self._last_ms = 0

    def _bits(self) -> int:
        if self._used == len(self._random):
            self._random = self._randomness.token(512)
            self._used = 0
        bits = (self._random[self._used] << 6) | (self._random[self._used + 1] >> 2)
        self._used += 2
        return bits
