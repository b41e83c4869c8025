"""Goes through the messages of a group that one member sees.

Visible is what was for a version in the member's times. Ids and versions rise together but for the minutes in which an
id may be accepted late, so each time is one range of ids, in a few buckets.
"""

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Final, NamedTuple

from svc_message.adapters.ledger_cassandra.bodies import BETWEEN, LIGHT, WHOLE, bodies_of, with_own
from svc_message.adapters.ledger_cassandra.cells import bigint, body_bucket_of, integer, ordered, smallint
from svc_message.adapters.ledger_cassandra.connection import Connection, Read, Row
from svc_message.adapters.ledger_cassandra.copies import ROWS_WALKED, Copy, CopyKey, read_copies
from svc_message.adapters.ledger_cassandra.lines import LATE_MS
from svc_message.model import ConversationId, UserId
from svc_message.model.group import Window, left_version_of

BUCKETS_AT_ONCE: Final = 3
"""What lies in more buckets is read bucket by bucket: the first of them holds enough, nearly always."""
_FIRST_ID: Final = bytes(16)
_LAST_ID: Final = b"\xff" * 16
_NO_END: Final = 2**62

_BOUNDS: Final = """
    SELECT members_version, bucket, uuid_as_blob(message_id) FROM bounds
    WHERE conversation_id = ? AND members_version >= ? AND members_version < ?
    GROUP BY conversation_id, members_version, bucket
"""
_BOUND_AFTER: Final = """
    SELECT uuid_as_blob(message_id) FROM bounds WHERE conversation_id = ? AND members_version >= ? LIMIT 1
"""
_NEWEST: Final = f"{WHOLE} {BETWEEN} LIMIT ?"
_NEWEST_LIGHT: Final = f"{LIGHT} {BETWEEN} LIMIT ?"
_OLDEST: Final = f"{WHOLE} {BETWEEN} ORDER BY message_id ASC LIMIT ?"
_OLDEST_LIGHT: Final = f"{LIGHT} {BETWEEN} ORDER BY message_id ASC LIMIT ?"


class Range(NamedTuple):
    """One time of a member, and where the messages of it are."""

    window: Window
    buckets: frozenset[int]
    low: bytes
    high: bytes


class Sight(NamedTuple):
    """What one member sees of a group."""

    user_id: UserId
    group_id: ConversationId
    ranges: tuple[Range, ...]
    left_version: int
    """The first version without the member after its last time, 0 while that lasts."""

    def shows(self, body: Copy) -> bool:
        """Tells whether a message was for the member."""
        header = body.header
        return header is not None and any(one.window.shows(header.members_version) for one in self.ranges)


class Walk(NamedTuple):
    """Which messages are wanted, how many at once, in which order, and whether with what they say."""

    rows: int
    after: bytes = b""
    before: bytes = b""
    is_oldest_first: bool = False
    is_whole: bool = True

    def buckets(self, sight: Sight) -> list[int]:
        """Returns the buckets with messages that the member may see, in order."""
        low = body_bucket_of(self.after) if self.after else 0
        high = body_bucket_of(self.before) if self.before else 32_767
        found = {bucket for one in sight.ranges for bucket in one.buckets if low <= bucket <= high}
        return sorted(found, reverse=not self.is_oldest_first)

    def bounds(self, sight: Sight, bucket: int) -> tuple[bytes, bytes]:
        """Returns between which ids the messages of a bucket are."""
        ranges = [one for one in sight.ranges if bucket in one.buckets]
        low, high = min(one.low for one in ranges), max(one.high for one in ranges)
        return max(ordered(self.after or _FIRST_ID), low), min(ordered(self.before or _LAST_ID), high)

    def read(self, sight: Sight, bucket: int, bounds: tuple[bytes, bytes]) -> Read:
        """Returns what reads messages of a bucket."""
        whole, light = (_OLDEST, _OLDEST_LIGHT) if self.is_oldest_first else (_NEWEST, _NEWEST_LIGHT)
        query = whole if self.is_whole else light
        return Read(query, (sight.group_id, smallint(bucket), *bounds, integer(self.rows)))


async def sights(
    connection: Connection, asked: Sequence[tuple[UserId, ConversationId, Sequence[Window]]]
) -> list[Sight]:
    """Looks where the messages are that members see, in order; times in which nothing was said are left out."""
    places = [(n, window) for n, (_, _, windows) in enumerate(asked) for window in windows]
    reads: list[Read] = []
    for n, window in places:
        group_id, left = asked[n][1], bigint(window.left_version or _NO_END)
        reads.append(Read(_BOUNDS, (group_id, bigint(window.joined_version), left)))
        reads.append(Read(_BOUND_AFTER, (group_id, left)))
    found = await connection.read(reads)
    ranges: list[list[Range]] = [[] for _ in asked]
    for (n, window), inside, behind in zip(places, found[::2], found[1::2], strict=True):
        if inside:
            low = _moved(min(row[2] for row in inside), -LATE_MS)
            high = _moved(behind[0][0], LATE_MS) if behind else ordered(_LAST_ID)
            ranges[n].append(Range(window, frozenset(row[1] for row in inside), low, high))
    return [
        Sight(user_id, group_id, tuple(ranges[n]), left_version_of(windows))
        for n, (user_id, group_id, windows) in enumerate(asked)
    ]


async def walk(connection: Connection, sight: Sight, way: Walk) -> AsyncIterator[Copy]:
    """Goes through messages, each with what the member has of it; reads as it goes."""
    for bucket in way.buckets(sight):
        start, end = way.bounds(sight, bucket)
        while start < end:
            (rows,) = await connection.read([way.read(sight, bucket, (start, end))])
            for copy in (await _seen(connection, [(sight, rows)]))[0]:
                yield copy
            if len(rows) < way.rows:
                break
            way = way._replace(rows=max(way.rows, ROWS_WALKED))
            start, end = (rows[-1][0], end) if way.is_oldest_first else (start, rows[-1][0])


async def read_newest(connection: Connection, seen: Sequence[Sight], rows: int) -> list[list[Copy]]:
    """Reads the newest rows of the newest bucket of each."""
    way = Walk(rows)
    found = await _read(connection, [(sight, way, way.buckets(sight)[:1]) for sight in seen])
    return [copies for copies, _ in found]


async def read_many(connection: Connection, asked: Sequence[tuple[Sight, Walk]]) -> list[list[Copy]]:
    """Reads of each as many messages that the member sees as were asked for, the newest first."""
    places = [(sight, way, way.buckets(sight)) for sight, way in asked]
    near = [len(buckets) <= BUCKETS_AT_ONCE for _, _, buckets in places]
    at_once = iter(await _read(connection, [place for place, is_near in zip(places, near, strict=True) if is_near]))
    found: list[list[Copy]] = []
    for (sight, way), is_near in zip(asked, near, strict=True):
        copies, is_whole = next(at_once) if is_near else ([], False)
        # Of the rows that were read some may be of a time in which the member was away: it sees what lies before them.
        found.append(copies if is_whole else await _taken(walk(connection, sight, way), way.rows))
    return found


async def _taken(copies: AsyncIterator[Copy], count: int) -> list[Copy]:
    taken: list[Copy] = []
    async for copy in copies:
        taken.append(copy)
        if len(taken) == count:
            break
    return taken


async def _read(
    connection: Connection, asked: Sequence[tuple[Sight, Walk, Sequence[int]]]
) -> list[tuple[list[Copy], bool]]:
    """Reads so many rows of each, and tells whether the member sees all of them or there are no more."""
    places = [(n, bucket) for n, (_, _, buckets) in enumerate(asked) for bucket in buckets]
    reads = [asked[n][1].read(asked[n][0], bucket, asked[n][1].bounds(asked[n][0], bucket)) for n, bucket in places]
    rows: list[list[Row]] = [[] for _ in asked]
    for (n, _), found in zip(places, await connection.read(reads), strict=True):
        rows[n] += found[: asked[n][1].rows - len(rows[n])]
    seen = await _seen(connection, [(sight, found) for (sight, _, _), found in zip(asked, rows, strict=True)])
    return [
        (copies, len(copies) == len(found) or len(found) < way.rows)
        for copies, found, (_, way, _) in zip(seen, rows, asked, strict=True)
    ]


async def _seen(connection: Connection, found: Iterable[tuple[Sight, Sequence[Row]]]) -> list[list[Copy]]:
    """Returns those of some messages that each member sees, with what it has of them."""
    visible = [(sight, [body for body in bodies_of(connection, rows) if sight.shows(body)]) for sight, rows in found]
    own = await read_copies(connection, [_key(sight, body) for sight, bodies in visible for body in bodies])
    return [[with_own(body, own.get(_key(sight, body))) for body in bodies] for sight, bodies in visible]


def _key(sight: Sight, body: Copy) -> CopyKey:
    return CopyKey(sight.user_id, sight.group_id, body.message_id)


def _moved(message_id: bytes, by_ms: int) -> bytes:
    moved_ms = max(int.from_bytes(message_id[:6], "big") + by_ms, 0)
    return moved_ms.to_bytes(6, "big") + b"\x70" + bytes(9)
