"""Expands what was accepted for groups: a pointer in the inbox of every member who is entitled, then the hints.

Entitled is who was a member of the version that was current at acceptance, and is a member still. Nothing of this is
decided for a single member: members are columns, and almost always all of them are entitled to everything. What was
done to a message is for whoever could see the message, so for those as well who have left since and come back.
"""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from chappe.runtime.errors import UnavailableError
from svc_message.model import MessageEvent
from svc_message.model.action import EditEvent, ReactionEvent, RevokeEvent
from svc_message.model.group import Expansion, Touch
from svc_message.protocol import LedgerClock, milliseconds_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from svc_message.model import ConversationId, Event, Position, UserId
    from svc_message.model.group import DirectoryGroup, Entry
    from svc_message.ports import Dispatcher
    from svc_message.ports.group import GroupDirectory, GroupStore

MAX_ROWS = 8192
"""How many rows one call of the store writes, unless a group has more members; the write window is for all of them."""
MAX_SHARED = 32
"""How many messages share a row."""
MAX_SHARED_BYTES = 64 * 1024
"""Of the envelopes of messages that share a row: a page of an inbox is never cut inside one."""


class _Bundle(NamedTuple):
    """What is one row for each of some members."""

    events: tuple[Event, ...]
    hints: tuple[Event, ...]
    """Those of the events that are told at once."""
    user_ids: tuple[UserId, ...]
    audience: tuple[UserId, ...]
    """Who is to be told: also who has a pointer already, for its other devices."""


class _Unit(NamedTuple):
    """What is to be written of one conversation, in one call of the store."""

    conversation_id: ConversationId
    positions: list[Position]
    """Of the entries that it stands for."""
    bundles: list[_Bundle]
    touch: Touch | None


_Returned = dict[tuple["ConversationId", int], tuple["UserId", ...]]
"""By a group and a version of it."""


class Expanding:
    """Expands batches of entries; no state, so anybody may expand anything, twice too."""

    def __init__(
        self, store: GroupStore, directory: GroupDirectory, dispatcher: Dispatcher, clock: LedgerClock
    ) -> None:
        self._store = store
        self._directory = directory
        self._dispatcher = dispatcher
        self._clock = clock

    async def expand(self, entries: Sequence[Entry], done: Callable[[Iterable[Position]], None]) -> None:
        """Writes the pointers of entries, and says step by step which are done.

        Raises:
            ChappeError: The store or the directory does not answer; whatever is not done has to be expanded again.
        """
        by_group: dict[ConversationId, list[Entry]] = {}
        for entry in entries:
            by_group.setdefault(entry.conversation_id, []).append(entry)
        groups = await self._groups(by_group)
        known = [entry for entry in entries if entry.conversation_id in groups]
        returned = await self._returned(groups, known)
        units = [unit for group_id, group in groups.items() for unit in _units(group, by_group[group_id], returned)]
        for batch in _batches(units):
            await self._write(batch)
            for unit in batch:
                done(unit.positions)
        if len(known) < len(entries):
            # After the others, who are not to wait for it.
            raise UnavailableError("svc_identity", f"it knows {len(by_group) - len(groups)} groups as they were only")

    def is_large(self, entry: Entry, size: int) -> bool:
        """Tells whether an entry is for more members than so many, as far as is known without asking."""
        group = self._directory.cached(entry.conversation_id)
        return group is not None and len(group.user_ids) > size

    async def _groups(self, wanted: dict[ConversationId, list[Entry]]) -> dict[ConversationId, DirectoryGroup]:
        """Returns the groups in versions that are not older than any entry, without those that are known as older."""
        least = {group_id: max(entry.members_version for entry in found) for group_id, found in wanted.items()}
        groups: dict[ConversationId, DirectoryGroup] = {}
        for group_id, version in least.items():
            group = self._directory.cached(group_id)
            if group is not None and group.version >= version:
                groups[group_id] = group
        unsure = [group_id for group_id in least if group_id not in groups]
        if unsure:
            groups.update(zip(unsure, await self._directory.read(unsure), strict=True))
        return {
            group_id: group
            for group_id, group in groups.items()
            if not group.exists or group.version >= least[group_id]
        }

    async def _returned(self, groups: dict[ConversationId, DirectoryGroup], entries: Sequence[Entry]) -> _Returned:
        """Returns who became a member after the version of an action's message, but had been one in it."""
        late = {
            (entry.conversation_id, entry.members_version): groups[entry.conversation_id].since(entry.members_version)
            for entry in entries
            if not isinstance(entry.event, MessageEvent)
        }
        pairs = list({(group_id, user_id) for (group_id, _), user_ids in late.items() for user_id in user_ids})
        if not pairs:
            return {}
        times = {
            pair: found.windows for pair, found in zip(pairs, await self._directory.memberships(pairs), strict=True)
        }
        return {
            (group_id, version): tuple(
                [user_id for user_id in user_ids if any(time.shows(version) for time in times[group_id, user_id])]
            )
            for (group_id, version), user_ids in late.items()
        }

    async def _write(self, units: list[_Unit]) -> None:
        """Writes once: a repetition looks anew at who is to have the rows, for somebody may have been removed.

        Raises:
            UnavailableError: It took so long that a reader may not find the rows.
        """
        bundles = [(unit.conversation_id, bundle) for unit in units for bundle in unit.bundles]
        touches = [unit.touch for unit in units if unit.touch is not None]
        if not bundles:
            return
        stamps = self._clock.mint_many(len(bundles))
        expansions = [
            Expansion(conversation_id, stamp.position, bundle.events, bundle.user_ids)
            for (conversation_id, bundle), stamp in zip(bundles, stamps, strict=True)
        ]
        await self._store.expand(expansions, touches)
        if not self._clock.is_fresh(stamps[0]):
            raise UnavailableError("ledger", "pointers took longer than their positions may be old")
        for (_, bundle), stamp in zip(bundles, stamps, strict=True):
            self._dispatch(bundle, stamp.position)

    def _dispatch(self, bundle: _Bundle, position: Position) -> None:
        for event in bundle.hints:
            is_message = isinstance(event, MessageEvent)
            placed = event._replace(position=position)
            self._dispatcher.dispatch(placed, bundle.audience, _origin(event), wants_receipt=is_message)


def _origin(event: Event) -> int:
    """Returns the device that knows already; 0 for none."""
    if isinstance(event, MessageEvent):
        return event.sender_device_id
    return event.device_id if isinstance(event, EditEvent | RevokeEvent | ReactionEvent) else 0


def _units(group: DirectoryGroup, entries: list[Entry], returned: _Returned) -> Iterator[_Unit]:
    """Divides the entries of a group, in order, into what one call of the store can write."""
    same: dict[bytes, list[Entry]] = {}
    for entry in entries:
        # A message that was completed meanwhile has several entries.
        name = entry.event.message_id if isinstance(entry.event, MessageEvent) else entry.position
        same.setdefault(name, []).append(entry)
    positions = {found[-1].position: [entry.position for entry in found] for found in same.values()}
    limit = max(1, MAX_ROWS // max(1, len(group.user_ids)))
    rows = list(_shared([found[-1] for found in same.values()]))
    for start in range(0, len(rows), limit):
        distinct = list(chain.from_iterable(rows[start : start + limit]))
        stood_for = [position for entry in distinct for position in positions[entry.position]]
        yield _Unit(group.group_id, stood_for, _bundles(group, distinct, returned), _touch(group, distinct))


def _bundles(group: DirectoryGroup, entries: list[Entry], returned: _Returned) -> list[_Bundle]:
    bundles = [_bundle(shared, user_ids) for seen, user_ids in _audiences(group, entries) for shared in _shared(seen)]
    if returned:
        bundles += [
            _bundle([entry], returned.get((group.group_id, entry.members_version), ()))
            for entry in entries
            if not isinstance(entry.event, MessageEvent)
        ]
    bundles += [_bundle([entry], (entry.causer_id,)) for entry in entries if _is_gone(group, entry)]
    return [bundle for bundle in bundles if bundle.audience]


def _bundle(shared: list[Entry], user_ids: tuple[UserId, ...]) -> _Bundle:
    return _Bundle(
        tuple(entry.event for entry in shared),
        tuple(entry.event for entry in shared if not entry.is_quiet),
        _without_causer(user_ids, shared),
        user_ids,
    )


def _is_gone(group: DirectoryGroup, entry: Entry) -> bool:
    """Tells whether who did it was removed since: its other devices are told of what they find in its inbox."""
    at = group.place(entry.causer_id)
    return at < 0 or group.joined_versions[at] > entry.members_version


def _audiences(group: DirectoryGroup, entries: list[Entry]) -> Iterator[tuple[list[Entry], tuple[UserId, ...]]]:
    """Divides the members by what they see: those who joined between two entries see the later one only."""
    versions = sorted({entry.members_version for entry in entries})
    earlier: set[UserId] = set()
    for version in versions:
        user_ids = group.entitled(version)
        if earlier:
            user_ids = tuple(user_id for user_id in user_ids if user_id not in earlier)
        yield [entry for entry in entries if entry.members_version >= version], user_ids
        if len(versions) > 1:
            earlier.update(user_ids)


def _shared(entries: list[Entry]) -> Iterator[list[Entry]]:
    """Divides entries into those that share a row: messages, as long as they are not too many or too large."""
    shared: list[Entry] = []
    size = 0
    for entry in entries:
        if not isinstance(entry.event, MessageEvent):
            yield [entry]
            continue
        size += len(entry.event.envelope)
        if len(shared) == MAX_SHARED or (shared and size > MAX_SHARED_BYTES):
            yield shared
            shared, size = [], len(entry.event.envelope)
        shared.append(entry)
    if shared:
        yield shared


def _without_causer(user_ids: tuple[UserId, ...], entries: list[Entry]) -> tuple[UserId, ...]:
    """Leaves out who has its own pointer; where several have one each, all get what they share."""
    causers = {entry.causer_id for entry in entries}
    if len(causers) > 1:
        return user_ids
    (causer_id,) = causers
    return tuple([user_id for user_id in user_ids if user_id != causer_id])


def _touch(group: DirectoryGroup, entries: list[Entry]) -> Touch | None:
    ids = [entry.event.message_id for entry in entries if isinstance(entry.event, MessageEvent)]
    if not ids:
        return None
    version = max(entry.members_version for entry in entries)
    # Of the version whose members they are: with the group's own, who joined since would count as written.
    return Touch(group.group_id, milliseconds_of(max(ids)), version, group.entitled(version))


def _batches(units: list[_Unit]) -> Iterator[list[_Unit]]:
    batch: list[_Unit] = []
    rows = 0
    for unit in units:
        size = sum(len(bundle.user_ids) for bundle in unit.bundles)
        # A call moves a conversation up in the chat lists once.
        if batch and (rows + size > MAX_ROWS or batch[-1].conversation_id == unit.conversation_id):
            yield batch
            batch, rows = [], 0
        batch.append(unit)
        rows += size
    if batch:
        yield batch
