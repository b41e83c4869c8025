"""Carries out actions on messages: every one is looked for first, and what is found is carried out again.

The cells of messages are written so that the outcome is the same in whatever order actions come, see `changes`.
"""

import asyncio
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from chappe.runtime.errors import UnavailableError
from svc_message.adapters.ledger_cassandra.actions import (
    ActionKey,
    Deed,
    Reactions,
    StoredAction,
    read_actions,
    read_reactions,
    set_action_void,
    store_action,
)
from svc_message.adapters.ledger_cassandra.bodies import BodyKey, read_bodies, with_own
from svc_message.adapters.ledger_cassandra.bounds import Bounds
from svc_message.adapters.ledger_cassandra.cells import Edit, pointer_ttl_s, time_to_live_s
from svc_message.adapters.ledger_cassandra.changes import RowKey, changes_of, empty_edit
from svc_message.adapters.ledger_cassandra.connection import DEPENDENCY, Connection, Write
from svc_message.adapters.ledger_cassandra.contents import forget_contents, keep
from svc_message.adapters.ledger_cassandra.copies import Copy, CopyKey, read_copies
from svc_message.adapters.ledger_cassandra.pointers import Place
from svc_message.model import ConversationId, MessageId, UserId, Verdict
from svc_message.model.action import (
    Acted,
    ActionKind,
    ActionRef,
    FoundAction,
    NewAction,
    Sight,
    Target,
)
from svc_message.protocol import is_group

_Message = tuple[ConversationId, MessageId]


class Carried(NamedTuple):
    """What becomes of an action."""

    action: NewAction
    acted: Acted
    deed: Deed | None
    """None when it is refused."""
    rows: list[Write]
    """To be written before the answer, the action's own first; none when it is refused."""
    is_new: bool


class _Looked(NamedTuple):
    """What stands under the ids of actions, and of their messages."""

    actions: dict[ActionKey, StoredAction]
    copies: dict[CopyKey, Copy]
    bodies: dict[BodyKey, Copy]
    reactions: dict[_Message, Reactions]

    def is_message(self, user_id: UserId, key: ActionKey) -> bool:
        """Tells whether the id of an action is that of a message, or was declared never to be one."""
        if is_group(key.conversation_id):
            return BodyKey(key.conversation_id, key.action_id) in self.bodies
        copy = self.copies.get(CopyKey(user_id, key.conversation_id, key.action_id))
        return copy is not None and (copy.header is not None or copy.is_void)

    def seen_by(self, user_id: UserId, place: _Message) -> Copy | None:
        """Returns a message as one user sees it."""
        own = self.copies.get(CopyKey(user_id, *place))
        if not is_group(place[0]):
            return own
        body = self.bodies.get(BodyKey(*place))
        return None if body is None else with_own(body, own)

    def public(self, deed: Deed, place: _Message) -> Copy | None:
        """Returns a message as everybody sees it: as its recipient does, for what was withheld stands on other rows."""
        if is_group(place[0]):
            return self.bodies.get(BodyKey(*place))
        users = [user_id for user_id in (deed.peer_id, deed.user_id) if user_id is not None]
        rows = [(user_id, self.copies.get(CopyKey(user_id, *place))) for user_id in users]
        there = [(user_id, row, row.header) for user_id, row in rows if row is not None and row.header is not None]
        recipients = (row for user_id, row, header in there if header.recipient_id == user_id)
        return next(recipients, there[0][1] if there else None)

    def target(self, deed: Deed, place: _Message) -> Copy | None:
        """Returns a message that is acted on, in whichever row it stands."""
        return self.seen_by(deed.user_id, place) or self.public(deed, place)


class CassandraActionStore:
    """The port `ActionStore` on Cassandra."""

    def __init__(self, connection: Connection, bounds: Bounds) -> None:
        """Prepares; nothing is dialled."""
        self._connection = connection
        self._bounds = bounds

    async def sight(self, refs: Sequence[ActionRef]) -> list[Sight]:
        """Looks for actions by their ids and for the messages that they are done to, in order."""
        looked = await _look(self._connection, refs)
        return [_sight(ref, looked, self._bounds.now_ms()) for ref in refs]

    async def act(self, batch: Sequence[NewAction]) -> list[Acted]:
        """Makes actions durable with what follows from them."""
        carried = await carry_out(self._connection, self._bounds, batch)
        await write_out(self._connection, carried)
        return [one.acted for one in carried]

    async def declare_actions_void(self, refs: Sequence[ActionRef]) -> list[bool]:
        """Writes void where nothing is; says of each whether it is void now."""
        keys = [ActionKey(ref.conversation_id, ref.action_id) for ref in refs]
        if keys:
            self._bounds.check(*[key.action_id for key in keys])
        before = await read_actions(self._connection, keys)
        missing = [key for key in keys if key not in before or before[key] == StoredAction(None, is_void=False)]
        await self._connection.write([[set_action_void(key)] for key in missing])
        after = await read_actions(self._connection, missing)
        late = [key for key, found in after.items() if found.deed is not None]
        await self._connection.write([[set_action_void(key, is_withdrawn=True)] for key in late])
        return [after[key].deed is None if key in after else before[key].is_void for key in keys]


async def carry_out(connection: Connection, bounds: Bounds, batch: Sequence[NewAction]) -> list[Carried]:
    """Returns what becomes of the actions of a batch, and what is to be written for it; nothing is written yet.

    Who learns of an action is pointed to it, its user and its peer; the members of a group are told by the journal.
    """
    if not batch:
        return []
    bounds.check(*[action.action_id for action in batch], *[action.position for action in batch])
    refs = [ActionRef(a.action_id, a.conversation_id, a.message_id, a.user_id) for a in batch]
    looked = await _look(connection, refs, batch)
    now_ms = bounds.now_ms()
    deeds = [_deed(action, looked) for action in batch]
    stands = _standing(batch, deeds, looked, now_ms)
    return [
        _carried(action, deed, looked, now_ms, is_standing=is_standing)
        for action, deed, is_standing in zip(batch, deeds, stands, strict=True)
    ]


async def write_out(connection: Connection, carried: Sequence[Carried]) -> None:
    """Writes what is carried out: first that there are these actions, and what follows when none of them is void.

    Who declares an action void writes that and looks for it then, so one of the two finds the other: nobody ever sees
    an effect of what is void.

    Raises:
        UnavailableError: The outcome is unknown, or one of them was declared void meanwhile.
    """
    new = [one for one in carried if one.is_new]
    await connection.write([one.rows[:1] for one in new])
    found = await read_actions(connection, [ActionKey(one.action.conversation_id, one.action.action_id) for one in new])
    if any(one.is_void for one in found.values()):
        raise UnavailableError(DEPENDENCY, "an id is being declared void at this moment; send again")
    await connection.write([one.rows[1:] if one.is_new else one.rows for one in carried])


async def _look(connection: Connection, refs: Sequence[ActionRef], batch: Sequence[NewAction] = ()) -> _Looked:
    keys = {CopyKey(ref.user_id, ref.conversation_id, ref.message_id) for ref in refs}
    keys |= {CopyKey(ref.user_id, ref.conversation_id, ref.action_id) for ref in refs}
    keys |= {CopyKey(a.peer_id, a.conversation_id, a.message_id) for a in batch if a.peer_id is not None}
    bodies = {
        BodyKey(ref.conversation_id, message_id)
        for ref in refs
        if is_group(ref.conversation_id)
        for message_id in (ref.message_id, ref.action_id)
    }
    reacted = {(a.conversation_id, a.message_id) for a in batch if a.kind is ActionKind.REACTION}
    found = await asyncio.gather(
        read_actions(connection, [ActionKey(ref.conversation_id, ref.action_id) for ref in refs]),
        read_copies(connection, keys),
        read_bodies(connection, bodies),
        read_reactions(connection, reacted),
    )
    return _Looked(*found)


def _sight(ref: ActionRef, looked: _Looked, now_ms: int) -> Sight:
    key = ActionKey(ref.conversation_id, ref.action_id)
    found = looked.actions.get(key)
    earlier = None
    if found is not None and found.is_void:
        earlier = FoundAction(is_void=True, content_hash=b"", accepted_ms=0)
    elif found is not None and found.deed is not None:
        earlier = FoundAction(is_void=False, content_hash=found.deed.content_hash, accepted_ms=found.deed.accepted_ms)
    elif looked.is_message(ref.user_id, key):
        earlier = FoundAction(is_void=False, content_hash=b"", accepted_ms=0)
    copy = looked.seen_by(ref.user_id, (ref.conversation_id, ref.message_id))
    if copy is None or copy.header is None or not copy.is_there(now_ms):
        return Sight(earlier, None)
    header = copy.header
    target = Target(
        header.sender_id,
        header.recipient_id,
        header.accepted_ms,
        header.is_withheld,
        copy.is_hidden,
        header.members_version,
    )
    return Sight(earlier, target)


def _deed(action: NewAction, looked: _Looked) -> Deed | Verdict:
    """Returns what an action does, as its first attempt decided, or why it is refused."""
    key = ActionKey(action.conversation_id, action.action_id)
    found = looked.actions.get(key)
    if found is not None and found.is_void:
        return Verdict.VOID
    if found is not None and found.deed is not None:
        return found.deed if found.deed.content_hash == action.content_hash else Verdict.CONFLICT
    if looked.is_message(action.user_id, key):
        return Verdict.CONFLICT
    deed = Deed.of(action, 0)
    copy = looked.target(deed, (action.conversation_id, action.message_id))
    return deed if copy is None or copy.header is None else deed._replace(expires_ms=copy.header.expires_ms)


def _carried(action: NewAction, deed: Deed | Verdict, looked: _Looked, now_ms: int, *, is_standing: bool) -> Carried:
    if isinstance(deed, Verdict):
        return Carried(action, Acted(deed), None, [], is_new=False)
    key, place = ActionKey(action.conversation_id, action.action_id), (action.conversation_id, deed.message_id)
    is_new = key not in looked.actions or looked.actions[key].deed is None
    copy = looked.target(deed, place)
    version = 0 if copy is None or copy.header is None else copy.header.members_version
    verdict = Verdict.STORED if is_new else Verdict.DUPLICATE
    peer_id = None if deed.is_withheld else deed.peer_id
    acted = Acted(verdict, deed.accepted_ms, peer_id, is_standing, version, deed.expires_ms)
    seen = copy if deed.is_withheld else looked.public(deed, place)
    rows = [store_action(key, deed), *_changes(action, deed, seen, now_ms), *_pointers(action, deed, now_ms)]
    return Carried(action, acted, deed, rows, is_new)


def _changes(action: NewAction, deed: Deed, copy: Copy | None, now_ms: int) -> Iterator[Write]:
    """Yields what an action changes; nothing of what is gone, and no content of what was taken back."""
    if copy is None or copy.header is None or not copy.is_there(now_ms):
        return
    if copy.revoked_ms and deed.kind in {ActionKind.EDIT, ActionKind.REACTION}:
        return
    conversation_id, message_id, header = action.conversation_id, deed.message_id, copy.header
    rows: list[RowKey] = [CopyKey(deed.user_id, conversation_id, message_id)]
    change = Edit(action.action_id, deed.accepted_ms, action.envelope)
    ttl_s = time_to_live_s(header.expires_ms, now_ms)
    if not deed.is_withheld and is_group(conversation_id):
        body = BodyKey(conversation_id, message_id)
        rows = [body]
        if deed.kind is ActionKind.REVOKE:
            yield empty_edit(CopyKey(header.sender_id, conversation_id, message_id))
            yield forget_contents(body)
        elif deed.kind is not ActionKind.HIDE:
            yield keep(body, deed, change, ttl_s)
    elif not deed.is_withheld:
        rows = [CopyKey(user_id, conversation_id, message_id) for user_id in header.seers]
    yield from changes_of(conversation_id, deed, change, (rows, ttl_s))


def _pointers(action: NewAction, deed: Deed, now_ms: int) -> Iterator[Write]:
    place, ttl_s = Place(action.position), pointer_ttl_s(deed.expires_ms, now_ms)
    users = [deed.user_id] if deed.is_withheld or deed.peer_id is None else [deed.user_id, deed.peer_id]
    for user_id in users:
        yield place.action(user_id, action.conversation_id, action.action_id, ttl_s)


def _standing(batch: Sequence[NewAction], deeds: Sequence[Deed | Verdict], looked: _Looked, now_ms: int) -> list[bool]:
    """Tells of each action whether it is what its reader sees once the whole batch is written."""
    newest: dict[object, bytes] = {}
    revoked: set[object] = set()
    views: list[object] = []
    for action, deed in zip(batch, deeds, strict=True):
        if isinstance(deed, Verdict):
            views.append(None)
            continue
        place = (action.conversation_id, deed.message_id)
        reader = deed.user_id if deed.is_withheld else None
        view = (place, deed.kind, deed.user_id if deed.kind is ActionKind.REACTION else None, reader)
        views.append(view)
        copy = looked.seen_by(deed.user_id, place) if deed.is_withheld else looked.public(deed, place)
        if copy is None or copy.revoked_ms or not copy.is_there(now_ms):
            revoked.add((place, reader))
        if deed.kind is ActionKind.REVOKE:
            revoked |= {(place, None), (place, reader)} if not deed.is_withheld else {(place, reader)}
        before = copy.edit if copy is not None else None
        if deed.kind is ActionKind.REACTION:
            before = looked.reactions.get(place, {}).get((deed.user_id, deed.is_withheld))
        newest[view] = max(newest.get(view, b""), action.action_id, before.action_id if before else b"")
    return [
        not isinstance(deed, Verdict) and _stands(action, deed, (newest.get(view), revoked))
        for action, deed, view in zip(batch, deeds, views, strict=True)
    ]


def _stands(action: NewAction, deed: Deed, seen: tuple[bytes | None, set[object]]) -> bool:
    newest, revoked = seen
    if deed.kind not in {ActionKind.EDIT, ActionKind.REACTION}:
        return True
    place = (action.conversation_id, deed.message_id)
    is_revoked = (place, None) in revoked or (deed.is_withheld and (place, deed.user_id) in revoked)
    return newest == action.action_id and not is_revoked
