"""Expands what was accepted for groups: a pointer in the inbox of every member who is entitled, then the hints.

Entitled is who was a member of the version that was current at acceptance, and is a member still. Nothing of this is
decided for a single member: members are columns, and almost always all of them are entitled to everything. What was
done to a message is for whoever could see the message, so for those as well who have left since and come back.
"""

from __future__ import annotations

import asyncio
from itertools import chain
from typing import TYPE_CHECKING, NamedTuple

from chappe.runtime.errors import ChappeError, UnavailableError
from svc_message.model import MessageEvent
from svc_message.model.action import EditEvent, ReactionEvent, RevokeEvent
from svc_message.model.group import Expansion, Touch
from svc_message.protocol import LedgerClock, came_ms

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from svc_message.model import ConversationId, Event, Position, UserId
    from svc_message.model.group import DirectoryGroup, Entry, Window
    from svc_message.ports import Dispatcher
    from svc_message.ports.group import GroupDirectory, GroupStore

MAX_ROWS = 8192
"""How many rows one call of the store writes, unless a group has more members; the write window is for all of them."""
MAX_READ = 64
"""How many groups are read before what was accepted for them is written: what was read first grows old meanwhile."""
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


_Pair = tuple["ConversationId", "UserId"]
_Returned = dict[int, tuple["UserId", ...]]
"""By a version of a group."""


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
            ChappeError: The store or the directory does not answer; whatever is not done has to be expanded again. A
                group of which the directory does not know enough holds up no other.
        """
        by_group: dict[ConversationId, list[Entry]] = {}
        for entry in entries:
            by_group.setdefault(entry.conversation_id, []).append(entry)
        failures: list[ChappeError] = []
        copies = self._copies(by_group)
        await self._expand(copies, by_group, done, failures)
        unsure = [group_id for group_id in by_group if group_id not in copies]
        for start in range(0, len(unsure), MAX_READ):
            groups = await self._read(unsure[start : start + MAX_READ], failures)
            known = {group.group_id: group for group in groups if _is_known(group, by_group[group.group_id])}
            if len(known) < len(groups):
                why = f"it knows {len(groups) - len(known)} groups as they were only"
                failures.append(UnavailableError("svc_identity", why))
            await self._expand(known, by_group, done, failures)
        if failures:
            # After the others, who are not to wait for it.
            raise failures[0]

    def is_large(self, entry: Entry, size: int) -> bool:
        """Tells whether an entry is for more members than so many, as far as is known without asking."""
        group = self._directory.cached(entry.conversation_id)
        return group is not None and len(group.user_ids) > size

    def _copies(self, wanted: dict[ConversationId, list[Entry]]) -> dict[ConversationId, DirectoryGroup]:
        """Returns the groups of which there are copies that are not older than any entry."""
        copies: dict[ConversationId, DirectoryGroup] = {}
        for group_id, entries in wanted.items():
            version = _least_version(entries)
            group = self._directory.cached(group_id)
            if group is not None and group.version >= version:
                copies[group_id] = group
        return copies

    async def _read(self, group_ids: Sequence[ConversationId], failures: list[ChappeError]) -> list[DirectoryGroup]:
        """Returns the groups that can be read."""

        async def read(group_id: ConversationId) -> list[DirectoryGroup]:
            try:
                return await self._directory.read([group_id])
            except ChappeError as error:
                failures.append(error)
                return []

        return list(chain.from_iterable(await asyncio.gather(*map(read, group_ids))))

    async def _expand(
        self,
        groups: dict[ConversationId, DirectoryGroup],
        by_group: dict[ConversationId, list[Entry]],
        done: Callable[[Iterable[Position]], None],
        failures: list[ChappeError],
    ) -> None:
        """Writes the pointers of entries of groups that are known, but for those whose past cannot be read."""
        returned = await self._returned(groups, by_group, failures)
        units = [
            unit
            for group_id, group in groups.items()
            if group_id in returned
            for unit in _units(group, by_group[group_id], returned[group_id])
        ]
        for batch in _batches(units):
            await self._write(batch)
            for unit in batch:
                done(unit.positions)

    async def _returned(
        self,
        groups: dict[ConversationId, DirectoryGroup],
        by_group: dict[ConversationId, list[Entry]],
        failures: list[ChappeError],
    ) -> dict[ConversationId, _Returned]:
        """Returns who became a member after the version of an action's message, but had been one in it."""
        late = {
            group_id: {
                entry.members_version: group.since(entry.members_version)
                for entry in by_group[group_id]
                if not isinstance(entry.event, MessageEvent)
            }
            for group_id, group in groups.items()
        }
        pairs = {
            (group_id, user_id)
            for group_id, versions in late.items()
            for user_ids in versions.values()
            for user_id in user_ids
        }
        windows = await self._windows(list(pairs), failures)
        unread = {group_id for group_id, user_id in pairs if (group_id, user_id) not in windows}
        return {
            group_id: {
                version: tuple(
                    [user_id for user_id in user_ids if any(time.shows(version) for time in windows[group_id, user_id])]
                )
                for version, user_ids in versions.items()
                if user_ids
            }
            for group_id, versions in late.items()
            if group_id not in unread
        }

    async def _windows(self, pairs: Sequence[_Pair], failures: list[ChappeError]) -> dict[_Pair, tuple[Window, ...]]:
        """Returns the times of users in groups, of those groups that can be read."""
        if not pairs:
            return {}
        try:
            found = await self._directory.memberships(pairs)
        except ChappeError as error:
            by_group: dict[ConversationId, list[_Pair]] = {}
            for pair in pairs:
                by_group.setdefault(pair[0], []).append(pair)
            if len(by_group) == 1:
                failures.append(error)
                return {}
            # It may be one group's fault.
            answers = await asyncio.gather(*[self._windows(asked, failures) for asked in by_group.values()])
            return {pair: windows for answer in answers for pair, windows in answer.items()}
        return {pair: membership.windows for pair, membership in zip(pairs, found, strict=True)}

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


def _least_version(entries: list[Entry]) -> int:
    """Returns the version that a group has to be known in."""
    return max(entry.members_version for entry in entries)


def _is_known(group: DirectoryGroup, entries: list[Entry]) -> bool:
    return not group.exists or group.version >= _least_version(entries)


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
            _bundle([entry], returned.get(entry.members_version, ()))
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
    messages = [entry.event for entry in entries if isinstance(entry.event, MessageEvent)]
    if not messages:
        return None
    last_ms = max(came_ms(message.message_id, message.accepted_ms) for message in messages)
    version = max(entry.members_version for entry in entries)
    # Of the version whose members they are: with the group's own, who joined since would count as written.
    return Touch(group.group_id, last_ms, version, group.entitled(version))


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
