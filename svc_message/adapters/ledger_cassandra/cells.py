"""Knows the bytes of cells, the timestamps that they are written at, and the partitions that they stand in.

Cassandra keeps of a cell what has the greatest write timestamp, and of equal ones the greatest bytes. Timestamps come
from ids and not from clocks, and cells begin with what decides, so that every replica ends with the same whatever comes
first: see docs/adr/009-the-ledger-on-cassandra.md.
"""

import enum
from struct import Struct
from typing import Final, NamedTuple

from svc_message.model import DeviceId, MessageId, NewMessage, UserId, expires_at
from svc_message.model.group import NewGroupMessage

HOUR_MS: Final = 3_600_000
DAY_MS: Final = 24 * HOUR_MS
INBOX_TTL_S: Final = 30 * 86_400
"""How long events are kept; the table says the same."""
LINGER_S: Final = 20
"""For how long content outlives its end: nobody sees it, and the clocks of readers may be behind."""

_EPOCH_2020_DAY: Final = 18_262
_LATEST: Final = 2**63 - 1
_LAST_MS: Final = 2**48 - 1
"""The last time that an id can say."""
_FIRST: Final = Struct("!Q16s")
_HEADER: Final = Struct("!Q16sBI16s16sI")
_GROUP_HEADER: Final = Struct("!Q16sBI16s16sIQI")
_EDIT: Final = Struct("!16sQ")
_ID_BYTES: Final = 16
_VERSION_BYTE: Final = 6
_LONG: Final = Struct("!q")
_INT: Final = Struct("!i")
_SHORT: Final = Struct("!h")

AFTER_ALL: Final = _LONG.pack(2**62)
"""The write timestamp of what takes edits and reactions away for ever: later than that of any action."""
TRUE: Final = b"\x01"
FALSE: Final = b"\x00"
NO_ID: Final = bytes(_ID_BYTES)


class Rank(enum.IntEnum):
    """What a cell adds to the time of its message: of two writes into one cell the higher rank wins."""

    SENT = 0
    """header and envelope, by every attempt alike; an envelope that ends by itself is written before it."""
    DELIVERED = 10
    READ = 20
    CHANGED = 100
    """is_hidden, is_reacted: only ever true."""
    TAKEN_BACK = 990
    """What is empty for ever: the envelope of what was revoked. And when that was."""
    VOID = 995
    WITHDRAWN = 996
    """is_void that turned out to have come too late."""


class Header(NamedTuple):
    """What the first attempt decided; the cell begins with the earliest time, so the earliest of several wins whole."""

    accepted_ms: int
    content_hash: bytes
    is_withheld: bool
    expiry_s: int
    sender_id: UserId
    recipient_id: UserId
    sender_device_id: DeviceId
    members_version: int = 0
    recipient_count: int = 0

    @classmethod
    def of(cls, message: NewMessage | NewGroupMessage) -> "Header":
        """Returns what an attempt decides when it is the first."""
        version, count = (
            (message.members_version, message.recipient_count) if isinstance(message, NewGroupMessage) else (0, 0)
        )
        return cls(
            message.accepted_ms,
            message.content_hash,
            message.is_withheld,
            message.expiry_s,
            message.sender_id,
            message.recipient_id,
            message.sender_device_id,
            version,
            count,
        )

    @classmethod
    def read(cls, cell: bytes) -> "Header":
        """Reads the cell of a message; raises `struct.error` or `ValueError` when it is none."""
        if len(cell) == _HEADER.size:
            left_ms, hashed, withheld, expiry_s, sender, recipient, device = _HEADER.unpack(cell)
            version = count = 0
        else:
            left_ms, hashed, withheld, expiry_s, sender, recipient, device, version, count = _GROUP_HEADER.unpack(cell)
        if version > _LATEST:
            raise ValueError(f"version {version} of a group: not one that there can be")
        accepted_ms = checked_ms(_LATEST - left_ms)
        return cls(accepted_ms, hashed, withheld == 1, expiry_s, sender, recipient, DeviceId(device), version, count)

    def cell(self) -> bytes:
        """Writes the cell."""
        common = (
            _LATEST - self.accepted_ms,
            self.content_hash,
            self.is_withheld,
            self.expiry_s,
            self.sender_id,
            self.recipient_id,
            self.sender_device_id,
        )
        if not self.members_version:
            return _HEADER.pack(*common)
        return _GROUP_HEADER.pack(*common, self.members_version, self.recipient_count)

    def envelope_cell(self, envelope: bytes) -> bytes:
        """Writes the cell of the content: it begins as the header does, so that the same attempt wins both."""
        return _FIRST.pack(_LATEST - self.accepted_ms, self.content_hash) + envelope

    @property
    def expires_ms(self) -> int:
        """From when on nobody sees the message; 0 when it stays."""
        return expires_at(self.accepted_ms, self.expiry_s)

    @property
    def seers(self) -> tuple[UserId, ...]:
        """Who has a row of a direct message."""
        if self.is_withheld or self.recipient_id == self.sender_id:
            return (self.sender_id,)
        return (self.sender_id, self.recipient_id)


def envelope_of(cell: bytes | None) -> bytes:
    """Reads the content of a message; empty when it was taken back."""
    return cell[_FIRST.size :] if cell else b""


class Edit(NamedTuple):
    """The edit, or the reaction, that stands."""

    action_id: MessageId
    accepted_ms: int
    envelope: bytes

    @classmethod
    def read(cls, cell: bytes | None) -> "Edit | None":
        """Reads the cell; None when there is none, or none any more; raises as `Header.read`."""
        if not cell:
            return None
        action_id, accepted_ms = _EDIT.unpack_from(cell)
        return cls(MessageId(action_id), checked_ms(accepted_ms), cell[_EDIT.size :])

    def cell(self) -> bytes:
        """Writes the cell: of several the greatest id wins."""
        return _EDIT.pack(self.action_id, self.accepted_ms) + self.envelope


def earliest(unix_ms: int) -> bytes:
    """Writes a time of which the earliest wins."""
    return _LONG.pack(_LATEST - unix_ms)


def time_of_earliest(cell: bytes | None) -> int:
    """Reads such a time; 0 for none; raises as `Header.read`."""
    return checked_ms(_LATEST - _LONG.unpack(cell)[0]) if cell else 0


def checked_ms(unix_ms: int) -> int:
    """Returns a time that was read; raises `ValueError` when it is none, as in a cell that was spoilt."""
    if not 0 <= unix_ms <= _LAST_MS:
        raise ValueError(f"{unix_ms} ms: not a time")
    return unix_ms


def stamp(message_id: bytes, rank: Rank) -> bytes:
    """Returns the write timestamp of a cell of a message, as a value."""
    return _LONG.pack(int.from_bytes(message_id[:6], "big") * 1000 + rank)


def stamp_of_id(uuid7: bytes) -> bytes:
    """Returns the write timestamp of a cell that holds the greatest of the ids that were written into it."""
    return _LONG.pack(int.from_bytes(uuid7[:6], "big") * 1000)


def stamp_of_position(position: bytes) -> bytes:
    """Returns the write timestamp of what is to stand by its position: the microseconds of a UUIDv7."""
    fraction = int.from_bytes(position[6:8], "big") & 0xFFF
    return _LONG.pack(int.from_bytes(position[:6], "big") * 1000 + fraction * 1000 // 4096)


def stamp_of_action(action_id: bytes) -> bytes:
    """Returns the write timestamp of an edit or a reaction, of which the greatest id is to stand.

    Not of the message, as other cells have it: where two cells of one timestamp end by themselves, the one that ends
    last wins, whatever bytes it begins with, and ends are worked out in whole seconds at every write.
    """
    return stamp_of_position(action_id)


def stamp_of_content(message_id: bytes, accepted_ms: int) -> bytes:
    """Returns the write timestamp of an envelope that ends by itself: the earlier it was accepted, the later it is.

    So that of two attempts the earlier stands, as everywhere, whatever their ends are. It lies before everything else
    that is written of the message: its id may be ahead of our clock by an hour.
    """
    sent_ms = int.from_bytes(message_id[:6], "big")
    lateness_ms = max(accepted_ms - sent_ms + HOUR_MS, 0)
    return _LONG.pack(max(sent_ms * 1000 + Rank.SENT - lateness_ms, 0))


def bigint(value: int) -> bytes:
    """Writes a bigint, or a write timestamp."""
    return _LONG.pack(value)


def integer(value: int) -> bytes:
    """Writes an int, or a time to live; 0 is for ever."""
    return _INT.pack(value)


def smallint(value: int) -> bytes:
    """Writes a smallint."""
    return _SHORT.pack(value)


def boolean(value: bool) -> bytes:  # noqa: FBT001 - it is the value that is written
    """Writes a boolean."""
    return TRUE if value else FALSE


def set_of_smallint(value: int) -> bytes:
    """Writes a set with one element, to be added to another."""
    return b"\x00\x00\x00\x01\x00\x00\x00\x02" + _SHORT.pack(value)


def list_of_ids(ids: "list[bytes] | tuple[bytes, ...]") -> bytes:
    """Writes a list of uuids, for IN."""
    size = _INT.pack(_ID_BYTES)
    return _INT.pack(len(ids)) + b"".join([size + one for one in ids])


def bucket_of(message_id: bytes) -> int:
    """Returns the bucket of 90 days of a message or an action."""
    return _bucket(message_id, 90)


def body_bucket_of(message_id: bytes) -> int:
    """Returns the bucket of 10 days of a message to a group."""
    return _bucket(message_id, 10)


def slot_at(unix_ms: int) -> int:
    """Returns the slot of a chat list in which a conversation stands that was moved up at a time."""
    return _bucket_at(unix_ms, 10)


def week_of(position: bytes) -> int:
    """Returns the week of a place in an inbox."""
    return week_at(int.from_bytes(position[:6], "big"))


def week_at(unix_ms: int) -> int:
    """Returns the week of a time."""
    return max(min(unix_ms // (7 * DAY_MS), 32_767), 0)


def _bucket(uuid7: bytes, days: int) -> int:
    return _bucket_at(int.from_bytes(uuid7[:6], "big"), days)


def _bucket_at(unix_ms: int, days: int) -> int:
    day = unix_ms // DAY_MS - _EPOCH_2020_DAY
    return max(min(day // days, 32_767), 0)


def ordered(bound: bytes) -> bytes:
    """Returns the UUIDv7 that lies among UUIDv7s where any 16 bytes do.

    Cassandra compares the versions of two UUIDs before it compares their bytes, and bounds may come from clients.
    """
    version = bound[_VERSION_BYTE] >> 4
    if version == 7:  # noqa: PLR2004 - the version in RFC 9562
        return bound
    rest = b"\x70" + bytes(9) if version < 7 else b"\x7f" + b"\xff" * 9  # noqa: PLR2004 - the same
    return bound[:_VERSION_BYTE] + rest


def time_to_live_s(expires_ms: int, now_ms: int) -> int:
    """Returns for how many seconds content is kept; 0 is for ever."""
    return max((expires_ms - now_ms + 999) // 1000, 0) + LINGER_S if expires_ms else 0


def pointer_ttl_s(expires_ms: int, now_ms: int) -> int:
    """Returns for how many seconds an event about a message is kept."""
    return min(time_to_live_s(expires_ms, now_ms) or INBOX_TTL_S, INBOX_TTL_S)
