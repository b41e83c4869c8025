"""Raises the receipts of groups.

How far a message has come with a member stands on the member's own row as it is, and in a table for the sender as far
as that may know. The own row decides what is raised, so it is written last: what failed before is written again, and
what took so long that whoever tells the news may have passed its position by.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from operator import attrgetter
from typing import Final, NamedTuple

from svc_message.adapters.inbox_rows import own_read_data
from svc_message.adapters.ledger_cassandra.bodies import BodyKey, read_bodies, with_own
from svc_message.adapters.ledger_cassandra.bounds import Bounds
from svc_message.adapters.ledger_cassandra.cells import (
    HOUR_MS,
    Header,
    Rank,
    bigint,
    boolean,
    integer,
    stamp,
    time_to_live_s,
)
from svc_message.adapters.ledger_cassandra.connection import Connection, Write
from svc_message.adapters.ledger_cassandra.copies import Copy, CopyKey, read_copies
from svc_message.adapters.ledger_cassandra.group_walk import Sight, Walk, read_many, sights, walk
from svc_message.adapters.ledger_cassandra.late import Past, read_late
from svc_message.adapters.ledger_cassandra.lines import Line, move, no_line, read_lines
from svc_message.adapters.ledger_cassandra.news import NewsDesk
from svc_message.adapters.ledger_cassandra.pointers import Place
from svc_message.adapters.ledger_cassandra.receipts import DELIVERED, EXPANDED, READ
from svc_message.model import ConversationId, MessageId, OwnReadEvent, Position, UserId
from svc_message.model.receipt import (
    Came,
    MemberAck,
    MemberRead,
    MemberReadUpdate,
    ReadOutcome,
    Unread,
    UnreadMessage,
)
from svc_message.protocol import after_id, first_late, first_unread

LARGE_GROUP: Final = 256
"""With so many recipients a message's receipts are in a partition of an hour and not of a day."""

_NEAR: Final = 20
"""How many rows are read at once where the newest is wanted."""
_RAISE_DELIVERED: Final = """
    UPDATE group_receipts USING TIMESTAMP ? AND TTL ? SET delivered_ms = ?
    WHERE conversation_id = ? AND hour = ? AND message_id = ? AND user_id = ?
"""
_RAISE_READ: Final = """
    UPDATE group_receipts USING TIMESTAMP ? AND TTL ? SET read_ms = ?
    WHERE conversation_id = ? AND hour = ? AND message_id = ? AND user_id = ?
"""

_Place = tuple[UserId, ConversationId]
"""A member in a group."""


class _Raised(NamedTuple):
    """A message that is raised for one member."""

    key: CopyKey
    header: Header
    is_read: bool
    """Otherwise it was received and no more."""
    is_told: bool
    """The sender may know that it was read."""
    was_delivered: bool
    recorded_ms: int


class _Target(NamedTuple):
    """Up to where a member has read a group, by the update at place `n`."""

    is_whole: bool
    upto: MessageId
    n: int


async def acknowledge(
    connection: Connection, bounds: Bounds, news: NewsDesk, batch: Sequence[MemberAck], change: tuple[Position, int]
) -> list[Came]:
    """Raises what a batch raises, at a position and a time."""
    position, recorded_ms = change
    bounds.check(position)
    start_s = bounds.now_s()
    now_ms = bounds.now_ms()
    keys = [CopyKey(ack.user_id, ack.group_id, message_id) for ack in batch for message_id in ack.message_ids]
    bodies, own = await asyncio.gather(
        _bodies(connection, [(ack.group_id, ack.message_ids) for ack in batch]), read_copies(connection, keys)
    )
    headers = {
        CopyKey(ack.user_id, ack.group_id, message_id): header
        for ack in batch
        for message_id, header in _named(ack, bodies, now_ms)
    }
    raised = [
        _Raised(key, header, is_read=False, is_told=False, was_delivered=False, recorded_ms=recorded_ms)
        for key, header in headers.items()
        if not _is_delivered(own.get(key))
    ]
    came = list(dict.fromkeys(map(_came, raised)))
    notes = await news.note([(one.sender_id, one.group_id) for one in came], position, recorded_ms)
    await connection.write([*[list(_for_sender(one, now_ms)) for one in raised], *notes.units])
    bounds.check_age(start_s)
    news.noted(notes)
    await connection.write([list(_for_member(one, now_ms)) for one in raised])
    return came


async def unread(connection: Connection, bounds: Bounds, batch: Sequence[MemberRead]) -> list[Unread]:
    """Looks up what reads stand for: each for the next 1,000 messages up to its place, the oldest first."""
    now_ms = bounds.now_ms()
    whole = [read for read in batch if read.read_upto]
    bodies, seen, lines = await asyncio.gather(
        _bodies(connection, [(read.group_id, read.message_ids) for read in batch]),
        sights(connection, [(read.user_id, read.group_id, read.windows) for read in whole]),
        read_lines(connection, [(read.user_id, read.group_id) for read in whole]),
    )
    portions = await asyncio.gather(
        *[_portion(connection, *one) for one in zip(seen, whole, lines, strict=True)],
    )
    found = iter(zip(seen, portions, strict=True))
    answers: list[Unread] = []
    for read in batch:
        upto, rest, messages = b"", b"", dict(_named(read, bodies, now_ms))
        if read.read_upto:
            sight, (copies, rest) = next(found)
            upto = await _newest(connection, sight, rest or read.read_upto, (copies, now_ms))
            messages |= {one.message_id: header for one, header in _unread_of(read.user_id, copies, now_ms)}
        found_messages = [UnreadMessage(name, one.sender_id, one.members_version) for name, one in messages.items()]
        answers.append(Unread(upto, tuple(found_messages), rest))
    return answers


async def read(
    connection: Connection, bounds: Bounds, news: NewsDesk, batch: Sequence[MemberReadUpdate]
) -> ReadOutcome:
    """Raises what a batch raises, and moves the places."""
    if not batch:
        return ReadOutcome([], [])
    bounds.check(*[update.position for update in batch])
    now_ms, start_s = bounds.now_ms(), bounds.now_s()
    targets = _targets(batch)
    raised, lines = await asyncio.gather(_read(connection, batch, now_ms), read_lines(connection, list(targets)))
    moving = _moving(batch, targets, lines)
    own_reads = await _move(connection, batch, moving, {one.key for one in raised}, now_ms)
    came = list(dict.fromkeys(_came(one) for one in raised if one.is_told or not one.was_delivered))
    latest = max(batch, key=lambda update: update.position)
    notes = await news.note([(one.sender_id, one.group_id) for one in came], latest.position, latest.recorded_ms)
    told = [one for one in own_reads if one is not None]
    pointers = [[_pointer(one)] for one in told]
    await connection.write([*[list(_for_sender(one, now_ms)) for one in raised], *notes.units, *pointers])
    bounds.check_age(start_s)
    news.noted(notes)
    moves = [[move(one.user_id, one.conversation_id, one.read_upto)] for one in told]
    await connection.write([*[list(_for_member(one, now_ms)) for one in raised], *moves])
    return ReadOutcome(came, own_reads)


async def _read(connection: Connection, batch: Sequence[MemberReadUpdate], now_ms: int) -> list[_Raised]:
    """Returns what is raised; of two updates for one message the later stands."""
    named = {
        CopyKey(update.user_id, update.group_id, message.message_id): (update, message.is_told)
        for update in batch
        for message in update.messages
    }
    bodies, own = await asyncio.gather(
        _bodies(connection, [(key.conversation_id, (key.message_id,)) for key in named]),
        read_copies(connection, named),
    )
    raised: list[_Raised] = []
    for key, (update, is_told) in named.items():
        header = _header(bodies.get(BodyKey(key.conversation_id, key.message_id)), now_ms)
        copy = own.get(key)
        if header is not None and not (copy and copy.read_ms):
            was_delivered = _is_delivered(copy)
            raised.append(_Raised(key, header, True, is_told, was_delivered, update.recorded_ms))  # noqa: FBT003 - read
    return raised


def _targets(batch: Sequence[MemberReadUpdate]) -> dict[_Place, _Target]:
    """Returns the furthest place up to which each member has read."""
    targets: dict[_Place, _Target] = {}
    for n, update in enumerate(batch):
        upto = update.upto or max((message.message_id for message in update.messages), default=b"")
        if upto:
            place, mine = (update.user_id, update.group_id), _Target(bool(update.upto), MessageId(upto), n)
            targets[place] = max(targets.get(place, mine), mine)
    return targets


def _moving(
    batch: Sequence[MemberReadUpdate], targets: dict[_Place, _Target], lines: Iterable[Line | None]
) -> dict[_Place, tuple[_Target, Line]]:
    """Returns the places that move, or of which is told again, with where they are.

    Lines are written after the pointers of all members: who reads at once may have none yet.
    """
    forced = {(update.user_id, update.group_id) for update in batch if update.is_forced}
    known = {place: line or no_line(place[1]) for place, line in zip(targets, lines, strict=True)}
    return {
        place: (target, known[place])
        for place, target in targets.items()
        if target.upto > known[place].read_upto or place in forced
    }


async def _move(
    connection: Connection,
    batch: Sequence[MemberReadUpdate],
    moving: dict[_Place, tuple[_Target, Line]],
    just_read: set[CopyKey],
    now_ms: int,
) -> list[OwnReadEvent | None]:
    """Returns for each update the event that its reader's other devices get; of several the furthest stands."""
    skipping = await _leaving_unread(connection, batch, moving, just_read, now_ms)
    events: list[OwnReadEvent | None] = [None] * len(batch)
    for place, (target, line) in moving.items():
        update, furthest = batch[target.n], MessageId(max(target.upto, line.read_upto))
        if place not in skipping:
            events[target.n] = OwnReadEvent(update.position, *place, furthest, update.device_id)
    return events


async def _leaving_unread(
    connection: Connection,
    batch: Sequence[MemberReadUpdate],
    moving: dict[_Place, tuple[_Target, Line]],
    just_read: set[CopyKey],
    now_ms: int,
) -> set[_Place]:
    """Returns those of whose messages something would be passed that is unread: they named single messages."""
    named = {place: one for place, one in moving.items() if not one[0].is_whole}
    seen = await sights(connection, [(*place, batch[target.n].windows) for place, (target, _) in named.items()])
    ways = [Walk(EXPANDED, after=line.read_upto, before=target.upto, is_whole=False) for target, line in named.values()]
    found = await read_many(connection, list(zip(seen, ways, strict=True)))
    return {
        place
        for place, copies in zip(named, found, strict=True)
        # What lies before so many is not looked at, and not passed.
        if len(copies) == EXPANDED
        or any(CopyKey(*place, copy.message_id) not in just_read for copy, _ in _unread_of(place[0], copies, now_ms))
    }


async def _bodies(
    connection: Connection, names: Iterable[tuple[ConversationId, Iterable[MessageId]]]
) -> dict[BodyKey, Copy]:
    keys = {BodyKey(group_id, message_id) for group_id, ids in names for message_id in ids}
    return await read_bodies(connection, keys, is_whole=False)


async def _portion(
    connection: Connection, sight: Sight, asked: MemberRead, line: Line | None
) -> tuple[list[Copy], bytes]:
    """Returns the messages of a portion, and where it ended when there are more."""
    start = first_unread(line.read_upto) if line is not None and line.read_upto else b""
    copies: list[Copy] = []
    if line is not None and start and not asked.read_after:
        past = Past(asked.group_id, first_late(line.read_upto), min(start, asked.read_upto))
        copies, start = await _late(connection, sight, past)
    way = Walk(EXPANDED + 1, asked.read_after or start, after_id(asked.read_upto), is_oldest_first=True, is_whole=False)
    async for copy in walk(connection, sight, way):
        copies.append(copy)
        if len(copies) > EXPANDED:
            break
    rest = copies[EXPANDED - 1].message_id if len(copies) > EXPANDED else b""
    return copies[:EXPANDED], rest


async def _late(connection: Connection, sight: Sight, past: Past) -> tuple[list[Copy], bytes]:
    """Returns the late messages that a member sees of a part of a group, the oldest first, and up to where."""
    ((ids, end),) = await read_late(connection, [past], EXPANDED)
    if not ids:
        return [], end
    bodies, own = await asyncio.gather(
        read_bodies(connection, [BodyKey(past.conversation_id, one) for one in ids], is_whole=False),
        read_copies(connection, [CopyKey(sight.user_id, past.conversation_id, one) for one in ids]),
    )
    seen = [
        with_own(body, own.get(CopyKey(sight.user_id, past.conversation_id, body.message_id)))
        for body in sorted(bodies.values(), key=attrgetter("message_id"))
        if sight.shows(body)
    ]
    return seen, end


async def _newest(connection: Connection, sight: Sight, end: bytes, found: tuple[Sequence[Copy], int]) -> bytes:
    """Returns the newest message of a portion, or else the newest up to its end."""
    copies, now_ms = found
    there = next((copy for copy in reversed(copies) if copy.is_there(now_ms)), None)
    if there is not None:
        return there.message_id
    async for copy in walk(connection, sight, Walk(_NEAR, before=after_id(end), is_whole=False)):
        if copy.is_there(now_ms):
            return copy.message_id
    return b""


def _named(
    asked: MemberAck | MemberRead, bodies: dict[BodyKey, Copy], now_ms: int
) -> Iterator[tuple[MessageId, Header]]:
    """Yields those of the messages that a member named which it sees, and has not sent itself."""
    for message_id in asked.message_ids:
        header = _header(bodies.get(BodyKey(asked.group_id, message_id)), now_ms)
        if header is None or header.sender_id == asked.user_id:
            continue
        if any(window.shows(header.members_version) for window in asked.windows):
            yield message_id, header


def _unread_of(user_id: UserId, copies: Iterable[Copy], now_ms: int) -> Iterator[tuple[Copy, Header]]:
    """Yields what a member has not read of others' messages."""
    for copy in copies:
        header = copy.header
        if header is not None and copy.is_there(now_ms) and header.sender_id != user_id and not copy.read_ms:
            yield copy, header


def _header(body: Copy | None, now_ms: int) -> Header | None:
    return body.header if body is not None and body.is_there(now_ms) else None


def _is_delivered(own: Copy | None) -> bool:
    return own is not None and bool(own.delivered_ms or own.read_ms)


def _came(one: _Raised) -> Came:
    return Came(one.header.sender_id, one.key.conversation_id, one.key.message_id)


def _for_sender(one: _Raised, now_ms: int) -> Iterator[Write]:
    """Yields the cells that the sender may know; those of a message that disappears do so, too."""
    user_id, group_id, message_id = one.key
    partition = receipts_of(group_id, message_id, one.header.recipient_count)
    ttl, recorded = _ttl(one, now_ms), bigint(one.recorded_ms)
    if not one.was_delivered:
        stamped = stamp(message_id, Rank.DELIVERED)
        yield Write(_RAISE_DELIVERED, partition, (stamped, ttl, recorded, *partition, message_id, user_id))
    if one.is_read and one.is_told:
        stamped = stamp(message_id, Rank.READ)
        yield Write(_RAISE_READ, partition, (stamped, ttl, recorded, *partition, message_id, user_id))


def _for_member(one: _Raised, now_ms: int) -> Iterator[Write]:
    """Yields the cells of the member's own row, for as long."""
    user_id, group_id, message_id = one.key
    partition = (user_id, group_id, one.key.bucket)
    ttl, recorded = _ttl(one, now_ms), bigint(one.recorded_ms)
    if not one.was_delivered:
        stamped = stamp(message_id, Rank.DELIVERED)
        yield Write(DELIVERED, partition, (stamped, ttl, recorded, *partition, message_id))
    if one.is_read:
        stamped, told = stamp(message_id, Rank.READ), boolean(one.is_told)
        yield Write(READ, partition, (stamped, ttl, recorded, told, *partition, message_id))


def _ttl(one: _Raised, now_ms: int) -> bytes:
    return integer(time_to_live_s(one.header.expires_ms, now_ms))


def _pointer(event: OwnReadEvent) -> Write:
    return Place(event.position).own_read(event.user_id, event.conversation_id, event.read_upto, own_read_data(event))


def receipts_of(group_id: ConversationId, message_id: MessageId, recipient_count: int) -> tuple[bytes, bytes]:
    """Returns the partition of the receipts of a message to so many recipients."""
    hour = int.from_bytes(message_id[:6], "big") // HOUR_MS
    return group_id, integer(hour if recipient_count >= LARGE_GROUP else hour - hour % 24)
