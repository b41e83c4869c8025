"""Changes how users keep their conversations, and tells their devices.

What a change sets is written at the time of its position, so that changes stand in the order of their positions
whatever comes first. The lines of two people are changed together, and not as one: who asks again completes it.
Of two changes that are written at the same time neither may have seen what the other sets, so each looks again: the
earlier one finds that it is not the newest, and comes again after the other.
"""

from collections.abc import Callable, Iterator
from typing import Any, Final

from svc_message.adapters.inbox_rows import SETTING
from svc_message.adapters.ledger_cassandra.bodies import newest_body, read_between
from svc_message.adapters.ledger_cassandra.bounds import Bounds
from svc_message.adapters.ledger_cassandra.cells import (
    NO_ID,
    bigint,
    integer,
    slot_at,
    stamp_of_id,
    stamp_of_position,
)
from svc_message.adapters.ledger_cassandra.connection import Connection, Write
from svc_message.adapters.ledger_cassandra.copies import Stretch, read_stretches
from svc_message.adapters.ledger_cassandra.history import woken
from svc_message.adapters.ledger_cassandra.lines import PINNED_SLOT, Line, read_lines, stand
from svc_message.adapters.ledger_cassandra.pointers import Place
from svc_message.model import UserId
from svc_message.model.setting import Changed, SettingEvent, SettingUpdate
from svc_message.protocol import after_id, is_group

_SEARCHED: Final = 100
_LATE_SEARCHED: Final = 1000
"""Among how many of the newest messages of some minutes the last is looked for that was accepted."""
_SET: Final = "UPDATE conversations USING TIMESTAMP ? SET {} = ? WHERE user_id = ? AND conversation_id = ?"
# By the name of the field of a line.
_COLUMNS: Final = (
    "peer_id",
    "muted_until_ms",
    "pinned_ms",
    "archived_ms",
    "expiry_s",
    "cleared_upto",
    "cleared_ms",
    "cleared_floor",
)
_QUERIES: Final = {"settings_position": _SET.format("settings_pos")} | {name: _SET.format(name) for name in _COLUMNS}
_GREATEST: Final = {"cleared_upto", "cleared_floor"}
"""Of these the greatest stands, and not the latest."""


class CassandraSettingStore:
    """The port `SettingStore` on Cassandra."""

    def __init__(self, connection: Connection, bounds: Bounds, forget: Callable[[bytes], None]) -> None:
        """Prepares; nothing is dialled.

        Args:
            connection: To the cluster.
            bounds: Refuses what lies too far ahead.
            forget: Called with a conversation that was archived: its next message is to bring it back. What other
                processes leave out for a minute is found when lists are read.
        """
        self._connection = connection
        self._bounds = bounds
        self._forget = forget

    async def change(self, update: SettingUpdate, floor: bytes) -> Changed | None:
        """Changes the lines of everyone it reaches and appends the events, written together."""
        self._bounds.check(update.position)
        users = list(dict.fromkeys((update.user_id, update.peer_id) if update.reaches_peer else (update.user_id,)))
        places = [(user_id, update.conversation_id) for user_id in users]
        found = await read_lines(self._connection, places)
        if found[0] is None and not update.may_begin:
            return None
        if any(line is not None and line.settings_position >= update.position for line in found):
            return Changed(is_stored=False, events=())
        lines = [line or _new_line(user_id, update) for user_id, line in zip(users, found, strict=True)]
        cleared = await self._cleared(update, lines[0], floor)
        values = [
            await self._back(user_id, line)
            | (_own(line, update) | cleared if user_id == update.user_id else _peers(line, update))
            for user_id, line in zip(users, lines, strict=True)
        ]
        rows = [row for user_id, changed in zip(users, values, strict=True) for row in _rows(user_id, update, changed)]
        await self._stand(update, lines[0], values[0])
        await self._connection.write([rows])
        if update.change.is_archived:
            self._forget(update.conversation_id)
        standing = await read_lines(self._connection, places)
        if standing[0] is not None and slot_at(standing[0].last_ms) != slot_at(lines[0].last_ms):
            # Somebody has moved it up meanwhile.
            await self._stand(update, standing[0], values[0])
        lines = [line for line in standing if line is not None and line.settings_position == update.position]
        if len(lines) < len(users):
            return Changed(is_stored=False, events=())
        events = [
            SettingEvent(update.position, user_id, update.conversation_id, line.settings())
            for user_id, line in zip(users, lines, strict=True)
        ]
        return Changed(is_stored=True, events=tuple(events))

    async def _stand(self, update: SettingUpdate, line: Line, values: dict[str, Any]) -> None:
        """Writes where in its list the user's line is met, before the change: what is met nowhere is on no list."""
        if order := list(_order(update, line, values)):
            await self._connection.write([order])

    async def _back(self, user_id: UserId, line: Line) -> dict[str, Any]:
        """Returns what any change sets in a line that somebody has brought back without moving it."""
        is_back = (await woken(self._connection, user_id, line)).is_archived != line.is_archived
        return {"archived_ms": 0} if is_back else {}

    async def _cleared(self, update: SettingUpdate, line: Line, floor: bytes) -> dict[str, Any]:
        """Returns what a change sets in the line of its user when it clears something."""
        place = update.change.cleared_upto
        newest = b"" if place is None else await self._newest(update, line, place)
        if place is None or not newest:
            return {}
        upto, cleared_ms = max(line.cleared_upto, newest), update.changed_ms
        if place < line.cleared_upto:
            # What came late between the two places is not cleared.
            cleared_ms = max(line.cleared_ms, await self._last_ms(update, line, (floor, place)))
            floor = min(floor, place)
        cleared_floor = max(line.cleared_floor, min(floor, upto))
        return {"cleared_ms": cleared_ms, "cleared_upto": upto, "cleared_floor": cleared_floor}

    async def _last_ms(self, update: SettingUpdate, line: Line, part: tuple[bytes, bytes]) -> int:
        """Returns when the last message after an id and up to another was accepted; 0 when there is none."""
        after, before = part[0], after_id(part[1])
        if is_group(update.conversation_id):
            copies = await read_between(self._connection, update.conversation_id, [(after, before)], _LATE_SEARCHED)
        else:
            stretch = Stretch(update.user_id, update.conversation_id, line.buckets, after, before)
            (copies,) = await read_stretches(self._connection, [stretch], _LATE_SEARCHED)
        there = [copy.header for copy in copies if copy.header is not None and not copy.is_void]
        return max((header.accepted_ms for header in there), default=0)

    async def _newest(self, update: SettingUpdate, line: Line, asked: bytes) -> bytes:
        """Returns the newest message at or before a place; empty for none."""
        if is_group(update.conversation_id):
            return await newest_body(self._connection, update.conversation_id, asked)
        before = after_id(asked)
        while True:
            stretch = Stretch(update.user_id, update.conversation_id, line.buckets, before=before)
            (copies,) = await read_stretches(self._connection, [stretch], _SEARCHED)
            for copy in copies:
                if copy.header is not None and not copy.is_void:
                    return copy.message_id
            if len(copies) < _SEARCHED:
                return b""
            before = copies[-1].message_id


def _new_line(user_id: UserId, update: SettingUpdate) -> Line:
    peer_id = update.peer_id if user_id == update.user_id else update.user_id
    return Line(update.conversation_id, peer_id, 0, ())


def _peers(line: Line, update: SettingUpdate) -> dict[str, Any]:
    """Returns what a change sets in any line that it reaches."""
    values: dict[str, Any] = {"settings_position": update.position, "peer_id": line.peer_id}
    if update.change.expiry_s is not None:
        values["expiry_s"] = update.change.expiry_s
    return values


def _own(line: Line, update: SettingUpdate) -> dict[str, Any]:
    """Returns what a change sets in the line of its user, but for what it clears."""
    change, values = update.change, _peers(line, update)
    if change.muted_until_ms is not None:
        values["muted_until_ms"] = change.muted_until_ms
    if change.is_pinned is not None:
        values["pinned_ms"] = (line.pinned_ms or update.changed_ms) if change.is_pinned else 0
    if change.is_archived is not None:
        # Ids may be a little ahead of our clock: what is on the list now is not what brings it back.
        values["archived_ms"] = max(update.changed_ms, line.last_ms) if change.is_archived else 0
    return values


def _order(update: SettingUpdate, line: Line, values: dict[str, Any]) -> Iterator[Write]:
    """Yields where in its list the user's line is met from now on, if the change has moved it."""
    if values.keys().isdisjoint({"pinned_ms", "archived_ms"}):
        return
    archived_ms, pinned_ms = values.get("archived_ms", line.archived_ms), values.get("pinned_ms", line.pinned_ms)
    is_archived = line._replace(archived_ms=archived_ms).is_archived
    if pinned_ms:
        # On both lists: what comes later brings it back, and it is pinned there as well.
        yield stand(update.user_id, update.conversation_id, PINNED_SLOT, is_archived=True)
        yield stand(update.user_id, update.conversation_id, PINNED_SLOT, is_archived=False)
    if line.last_ms:
        yield stand(update.user_id, update.conversation_id, slot_at(line.last_ms), is_archived=is_archived)


def _rows(user_id: UserId, update: SettingUpdate, values: dict[str, Any]) -> Iterator[Write]:
    place, at = (user_id, update.conversation_id), stamp_of_position(update.position)
    for name, value in values.items():
        cell: bytes = integer(value) if name == "expiry_s" else bigint(value) if isinstance(value, int) else value
        stamp = stamp_of_id(cell) if name in _GREATEST else at
        yield Write(_QUERIES[name], (user_id,), (stamp, cell, *place))
    yield Place(update.position).row(user_id, SETTING, update.conversation_id, NO_ID)
