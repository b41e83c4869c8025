"""Raises the receipts of direct conversations, and tells of it.

How far a message has come stands on both rows: on the reader's as it is, on the sender's as far as the sender may know.
The reader's row is there only if the peer wrote the message and it was not withheld, so it is looked at first, unless
this process has just made it. It also decides what is raised, so it is written last: what failed before is told again
by whoever acknowledges next, and so is what took so long, from the look on, that whoever reads on may have passed its
position by. So what stands on the reader's row was told in time, and nobody looks for what is to be told again.
"""

import asyncio
from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from svc_message.adapters.inbox_rows import last_end, own_read_data, receipt_data
from svc_message.adapters.ledger_cassandra.bounds import Bounds
from svc_message.adapters.ledger_cassandra.cells import (
    Rank,
    bigint,
    boolean,
    integer,
    pointer_ttl_s,
    stamp,
    time_to_live_s,
)
from svc_message.adapters.ledger_cassandra.connection import Connection, Write
from svc_message.adapters.ledger_cassandra.copies import Copy, CopyKey, Stretch, read_copies, read_stretches
from svc_message.adapters.ledger_cassandra.late import Past, read_late
from svc_message.adapters.ledger_cassandra.lines import Line, move, read_lines
from svc_message.adapters.ledger_cassandra.pointers import Place
from svc_message.adapters.ledger_cassandra.recent import Recent
from svc_message.model import (
    Applied,
    ConversationId,
    MessageId,
    OwnReadEvent,
    ReceiptEvent,
    ReceiptState,
    ReceiptUpdate,
    UserId,
)
from svc_message.protocol import after_id, first_late, first_unread, may_be_untold

EVENT_IDS: Final = 40
EXPANDED: Final = 1000
"""How many messages one update goes through."""

DELIVERED: Final = """
    UPDATE messages USING TIMESTAMP ? AND TTL ? SET delivered_ms = ?
    WHERE user_id = ? AND conversation_id = ? AND bucket = ? AND message_id = ?
"""
READ: Final = """
    UPDATE messages USING TIMESTAMP ? AND TTL ? SET read_ms = ?, is_read_told = ?
    WHERE user_id = ? AND conversation_id = ? AND bucket = ? AND message_id = ?
"""

_Place = tuple[UserId, ConversationId]
"""A reader in a conversation."""


class _Expanded(NamedTuple):
    """What one portion of the `read_upto` of an update stands for."""

    upto: bytes
    """The newest message of the portion that the reader sees; empty for none."""
    message_ids: tuple[MessageId, ...]
    rest: bytes
    """Where the portion ended; empty when it was the last."""


class _Raised(NamedTuple):
    """A message of an update that is raised, or told again."""

    message_id: MessageId
    copy: Copy
    is_rising: bool
    is_told: bool
    """The peer may know that it was read."""
    is_news: bool
    """It is to be told."""


async def apply_receipts(
    connection: Connection, bounds: Bounds, recent: Recent, batch: Sequence[ReceiptUpdate]
) -> list[Applied]:
    """Raises what a batch raises."""
    if not batch:
        return []
    start_s = bounds.now_s()
    bounds.check(*[update.position for update in batch])
    places = list(dict.fromkeys(_place(update) for update in batch))
    lines = dict(zip(places, await _lines(connection, batch, places), strict=True))
    now_ms = bounds.now_ms()
    expanded, looked = await _expand(connection, batch, lines, now_ms)
    winners = _winners(batch, expanded)
    forced = {_place(update) for update in batch if update.is_forced}
    keys = [CopyKey(*_place(batch[n]), message_id) for n, ids in winners.items() for message_id in ids]
    # What is forced may be written in part already, and says so on its row alone.
    young = {key: copy for key in keys if (copy := recent.take(key, now_ms)) is not None and key[:2] not in forced}
    known = young | looked
    copies = known | await read_copies(connection, [key for key in keys if key not in known])
    raised = [list(_raise(update, winners.get(n, ()), copies, forced)) for n, update in enumerate(batch)]
    own_reads = await _move(connection, batch, (expanded, raised), lines)
    told = [_events(update, found) for update, found in zip(batch, raised, strict=True)]
    await connection.write(
        [list(_for_others(*one, now_ms)) for one in zip(batch, raised, told, own_reads, strict=True)]
    )
    bounds.check_age(start_s)
    await connection.write([list(_for_reader(*one, now_ms)) for one in zip(batch, raised, own_reads, strict=True)])
    return [
        Applied(tuple(events), own_read, one.rest)
        for events, own_read, one in zip(told, own_reads, expanded, strict=True)
    ]


def _place(update: ReceiptUpdate) -> _Place:
    return update.reader_id, update.conversation_id


async def _lines(connection: Connection, batch: Sequence[ReceiptUpdate], places: Sequence[_Place]) -> list[Line | None]:
    """Reads the lines of those who have read something."""
    reading = {_place(update) for update in batch if update.state is ReceiptState.READ}
    readers = [place for place in places if place in reading]
    found = dict(zip(readers, await read_lines(connection, readers), strict=True))
    return [found.get(place) for place in places]


async def _expand(
    connection: Connection, batch: Sequence[ReceiptUpdate], lines: dict[_Place, Line | None], now_ms: int
) -> tuple[list[_Expanded], dict[CopyKey, Copy]]:
    """Finds for each update what is unread among the next 1,000 messages up to `read_upto`, the oldest first.

    They begin where the portion before ended, or before the place up to which everything was read by what may not have
    been there then; late ones lie further back, and are found by themselves. With them come the rows that were looked
    at.
    """
    stretches: dict[int, Stretch] = {}
    for n, update in enumerate(batch):
        line = lines[_place(update)]
        if line is not None and update.read_upto and update.state is ReceiptState.READ:
            after = update.read_after or (first_unread(line.read_upto) if line.read_upto else b"")
            stretches[n] = Stretch(*_place(update), line.buckets, after, after_id(update.read_upto))
    late, near = await asyncio.gather(_late(connection, batch, stretches, lines), _near(connection, stretches))
    # Behind so many late ones others are looked for from the last of them on.
    cut = {
        n: stretches[n]._replace(after=end)
        for n, (_, end) in late.items()
        if end < min(stretches[n].after, batch[n].read_upto)
    }
    near |= await _near(connection, cut)
    expanded = [_Expanded(b"", (), b"")] * len(batch)
    looked: dict[CopyKey, Copy] = {}
    for n, copies in near.items():
        portion = [*(late[n][0] if n in late else ()), *copies]
        expanded[n] = _expanded(batch[n], portion, now_ms)
        looked |= {CopyKey(*_place(batch[n]), copy.message_id): copy for copy in portion}
    return expanded, looked


async def _near(connection: Connection, stretches: dict[int, Stretch]) -> dict[int, list[Copy]]:
    """Returns the rows of portions, and one more, which says that there is a rest."""
    found = await read_stretches(connection, list(stretches.values()), EXPANDED + 1, is_oldest_first=True)
    return dict(zip(stretches, found, strict=True))


async def _late(
    connection: Connection,
    batch: Sequence[ReceiptUpdate],
    stretches: dict[int, Stretch],
    lines: dict[_Place, Line | None],
) -> dict[int, tuple[list[Copy], bytes]]:
    """Returns for the first portions of updates late messages, the oldest first, and up to where these are all."""
    past: dict[int, Past] = {}
    for n, stretch in stretches.items():
        update, line = batch[n], lines[_place(batch[n])]
        if stretch.after and not update.read_after and line is not None:
            upto = min(stretch.after, update.read_upto)
            past[n] = Past(update.conversation_id, first_late(line.read_upto), upto)
    found = dict(zip(past, await read_late(connection, list(past.values()), EXPANDED), strict=True))
    keys = {n: [CopyKey(*_place(batch[n]), one) for one in late.ids] for n, late in found.items()}
    copies = await read_copies(connection, [key for named in keys.values() for key in named])
    return {n: ([copies[key] for key in named if key in copies], found[n].end) for n, named in keys.items()}


def _expanded(update: ReceiptUpdate, copies: Sequence[Copy], now_ms: int) -> _Expanded:
    there = [copy for copy in copies[:EXPANDED] if copy.is_there(now_ms)]
    ids = [
        copy.message_id
        for copy in there
        if copy.header is not None
        and copy.header.sender_id == update.peer_id
        and (not copy.read_ms or (update.is_forced and copy.read_ms >= update.forced_since_ms))
    ]
    rest = copies[EXPANDED - 1].message_id if len(copies) > EXPANDED else b""
    return _Expanded(there[-1].message_id if there else b"", tuple(ids), rest)


def _winners(batch: Sequence[ReceiptUpdate], expanded: Sequence[_Expanded]) -> dict[int, list[MessageId]]:
    """Returns by update the messages that it raises. Of two updates for one the higher state stands, or the later."""
    winners: dict[CopyKey, int] = {}
    for n, update in enumerate(batch):
        for message_id in (*update.message_ids, *expanded[n].message_ids):
            key = CopyKey(*_place(update), message_id)
            rival = winners.get(key)
            if rival is None or batch[rival].state <= update.state:
                winners[key] = n
    found: dict[int, list[MessageId]] = {}
    for key, n in sorted(winners.items()):
        found.setdefault(n, []).append(key.message_id)
    return found


def _raise(
    update: ReceiptUpdate, ids: Iterable[MessageId], copies: dict[CopyKey, Copy], forced: set[_Place]
) -> Iterator[_Raised]:
    """Yields what is raised of an update, and what is told again."""
    for message_id in ids:
        copy = copies.get(CopyKey(*_place(update), message_id))
        if copy is None or copy.header is None or copy.is_void or not _is_peers(update, copy):
            continue
        state = _state(copy)
        is_rising = state < update.state
        is_late = update.state is ReceiptState.DELIVERED and may_be_untold(copy.delivered_ms, update.recorded_ms)
        is_forced = is_late or _place(update) in forced
        if not is_rising and not is_forced:
            continue
        is_told = copy.is_read_told if state is ReceiptState.READ else update.is_told
        is_news = is_told or is_forced or state is ReceiptState.SENT
        yield _Raised(message_id, copy, is_rising, is_told, is_news)


def _is_peers(update: ReceiptUpdate, copy: Copy) -> bool:
    header = copy.header
    return header is not None and (header.sender_id, header.recipient_id) == (update.peer_id, update.reader_id)


def _state(copy: Copy) -> ReceiptState:
    if copy.read_ms:
        return ReceiptState.READ
    return ReceiptState.DELIVERED if copy.delivered_ms else ReceiptState.SENT


def _events(update: ReceiptUpdate, raised: Sequence[_Raised]) -> list[ReceiptEvent]:
    """Returns what the peer is told: of what it may not know that it was read, that it was delivered."""
    states = {False: ReceiptState.DELIVERED, True: update.state}
    return [
        ReceiptEvent(
            update.position,
            update.conversation_id,
            update.reader_id,
            tuple(ids[start : start + EVENT_IDS]),
            states[is_told],
            update.recorded_ms,
        )
        for is_told in (False, True)
        for ids in [[one.message_id for one in raised if one.is_news and one.is_told == is_told]]
        for start in range(0, len(ids), EVENT_IDS)
    ]


async def _move(
    connection: Connection,
    batch: Sequence[ReceiptUpdate],
    found: tuple[Sequence[_Expanded], Sequence[Sequence[_Raised]]],
    lines: dict[_Place, Line | None],
) -> list[OwnReadEvent | None]:
    """Returns for each update the event that its reader's other devices get; of several the furthest stands."""
    expanded, raised = found
    places: dict[_Place, tuple[bool, bytes, int]] = {}
    forced: set[_Place] = set()
    just_read: dict[_Place, set[MessageId]] = {}
    for n, update in enumerate(batch):
        upto = expanded[n].upto or max((one.message_id for one in raised[n]), default=b"")
        if update.state is not ReceiptState.READ or not upto:
            continue
        place = _place(update)
        mine = (bool(expanded[n].upto), upto, n)
        places[place] = max(places.get(place, mine), mine)
        just_read.setdefault(place, set()).update(one.message_id for one in raised[n])
        if update.is_forced:
            forced.add(place)
    moving = {
        place: (is_whole, upto, n)
        for place, (is_whole, upto, n) in places.items()
        if (line := lines[place]) is not None and (upto > line.read_upto or place in forced)
    }
    unread = await _unread_before(connection, batch, moving, lines)
    events: list[OwnReadEvent | None] = [None] * len(batch)
    for place, (_, upto, n) in moving.items():
        line, update = lines[place], batch[n]
        if line is not None and not unread.get(place, set()) - just_read[place]:
            furthest = MessageId(max(upto, line.read_upto))
            events[n] = OwnReadEvent(
                update.position, update.reader_id, update.conversation_id, furthest, update.reader_device_id
            )
    return events


async def _unread_before(
    connection: Connection,
    batch: Sequence[ReceiptUpdate],
    moving: dict[_Place, tuple[bool, bytes, int]],
    lines: dict[_Place, Line | None],
) -> dict[_Place, set[MessageId]]:
    """Returns what is unread before the places that were named by single ids."""
    stretches = {
        place: Stretch(*place, line.buckets, line.read_upto, upto)
        for place, (is_whole, upto, _) in moving.items()
        if not is_whole and (line := lines[place]) is not None
    }
    unread: dict[_Place, set[MessageId]] = {}
    found = await read_stretches(connection, list(stretches.values()), EXPANDED)
    for place, copies in zip(stretches, found, strict=True):
        update = batch[moving[place][2]]
        ids = {one.message_id for one in copies if not one.is_void and _is_peers(update, one) and not one.read_ms}
        # What lies before so many is not looked at, and not passed.
        unread[place] = ids | {MessageId(b"")} if len(copies) == EXPANDED else ids
    return unread


def _for_others(
    update: ReceiptUpdate,
    raised: Sequence[_Raised],
    events: Sequence[ReceiptEvent],
    own_read: OwnReadEvent | None,
    now_ms: int,
) -> Iterator[Write]:
    """Yields what the peer's row and the inboxes say; a receipt goes with the last of its messages."""
    place, conversation_id = Place(update.position), update.conversation_id
    if update.peer_id != update.reader_id:
        for one in raised:
            yield from _cells(update, one, CopyKey(update.peer_id, conversation_id, one.message_id), now_ms)
    ends = {one.message_id: one.copy.header.expires_ms for one in raised if one.copy.header is not None}
    for event in events:
        ttl_s = pointer_ttl_s(last_end([ends[message_id] for message_id in event.message_ids]), now_ms)
        yield place.receipt(update.peer_id, conversation_id, event.message_ids[0], receipt_data(event), ttl_s)
    if own_read is not None:
        yield place.own_read(update.reader_id, conversation_id, own_read.read_upto, own_read_data(own_read))


def _for_reader(
    update: ReceiptUpdate, raised: Sequence[_Raised], own_read: OwnReadEvent | None, now_ms: int
) -> Iterator[Write]:
    """Yields what decides whether anything is raised another time."""
    for one in raised:
        if one.is_rising:
            yield from _cells(update, one, CopyKey(update.reader_id, update.conversation_id, one.message_id), now_ms)
    if own_read is not None:
        yield move(update.reader_id, update.conversation_id, own_read.read_upto)


def _cells(update: ReceiptUpdate, one: _Raised, key: CopyKey, now_ms: int) -> Iterator[Write]:
    """Yields what one row says of how far a message has come, until the message disappears.

    What is told again may have been cut when it was written first: the peer's row gets all that the reader's has.
    """
    is_readers, partition = key.user_id == update.reader_id, (key.user_id, key.conversation_id, key.bucket)
    ttl = integer(time_to_live_s(one.copy.header.expires_ms if one.copy.header is not None else 0, now_ms))
    delivered_ms = one.copy.delivered_ms or update.recorded_ms
    read_ms = one.copy.read_ms or (update.recorded_ms if update.state is ReceiptState.READ else 0)
    if not (one.is_rising and one.copy.delivered_ms):
        at = stamp(key.message_id, Rank.DELIVERED)
        yield Write(DELIVERED, partition, (at, ttl, bigint(delivered_ms), *partition, key.message_id))
    if read_ms and (one.is_told or is_readers):
        at, told = stamp(key.message_id, Rank.READ), boolean(one.is_told)
        yield Write(READ, partition, (at, ttl, bigint(read_ms), told, *partition, key.message_id))
