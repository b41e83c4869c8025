"""Who may do what to messages of groups, and who learns of it: members who could see the message."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from svc_message.model import ConversationId, Refused, SendRequest
from svc_message.model.action import Acted, ActionKind, NewAction, SendGroupAction, Target, event_of
from svc_message.model.group import DirectoryGroup, Entry, Shard, Window
from svc_message.service.accept_group import busy
from svc_message.service.act import NOT_FOUND, ActionCandidate, Judged, Told, Windows, own_within, within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.model import UserId
    from svc_message.ports import Dispatcher
    from svc_message.ports.group import Expander, GroupDirectory, GroupStore
    from svc_message.protocol import LedgerClock
    from svc_message.service.sight import Sight

_NOT_IN_IT = Refused("NOT_IN_CONVERSATION", "group_id: only members do something to a message for everyone to see")
_ONLY_ADMINS = Refused("ROLE_REQUIRED", "edit.group_id: only admins write in this group; a message may be taken back")
_MAY_BE_OLD = frozenset({"MESSAGE_NOT_FOUND", "NOT_IN_CONVERSATION", "NOT_OWN_MESSAGE", "ROLE_REQUIRED"})
"""A copy says no; whoever has just joined or was just made an admin is asked for again."""

_Pair = tuple["ConversationId", "UserId"]


class _Known(NamedTuple):
    """What is known of groups and of the times of users in them."""

    groups: dict[ConversationId, DirectoryGroup]
    windows: dict[_Pair, tuple[Window, ...]]

    def placed(self, candidate: ActionCandidate) -> ActionCandidate:
        """Returns an action with the version of the group that it is done in."""
        group = self.groups.get(candidate.conversation_id)
        return candidate if group is None else candidate._replace(group_version=group.version)


class Groups(NamedTuple):
    """Where groups and their members are known."""

    directory: GroupDirectory
    sight: Sight


class Ways(NamedTuple):
    """How others learn of what was done."""

    expander: Expander
    """Tells the members."""
    shard: Shard
    """Of this process."""
    dispatcher: Dispatcher
    """Tells the user's other devices of what it has hidden."""


class GroupActionRules:
    """The rules of groups."""

    def __init__(self, store: GroupStore, groups: Groups, ways: Ways, clock: LedgerClock, windows: Windows) -> None:
        """Makes the rules.

        Args:
            store: Keeps actions with their entries in the journal.
            groups: Who is in which.
            ways: To those who are to learn of it.
            clock: Says how old a message is.
            windows: For how long it may be changed.
        """
        self._store = store
        self._directory, self._sight = groups
        self._expander, self._shard, self._dispatcher = ways
        self._clock = clock
        self._windows = windows

    def refusal(self) -> Refused | None:
        """Takes nothing while too much waits to be told to members."""
        return busy() if self._expander.is_full else None

    def conversation(self, request: SendRequest) -> ConversationId:
        """Returns the group."""
        action = request.action
        assert isinstance(action, SendGroupAction)  # noqa: S101 - the door sorts sends by action
        return action.group_id

    async def judge(self, new: Sequence[Judged]) -> list[ActionCandidate | Refused]:
        """Decides for each action: a cached yes may be up to 2 s old, a no is read through."""
        now_ms, known = self._clock.wall_ms(), await self._known(new)
        refusals = self._refusals(new, known, now_ms)
        unsure = [n for n, refusal in enumerate(refusals) if refusal is not None and refusal.reason in _MAY_BE_OLD]
        if unsure:
            asked = [new[n] for n in unsure]
            read = await self._read(asked)
            again = self._refusals(asked, read, now_ms)
            refusals = [dict(zip(unsure, again, strict=True)).get(n, refusal) for n, refusal in enumerate(refusals)]
            known.groups.update(read.groups)
        return [refusal or known.placed(candidate) for (candidate, _), refusal in zip(new, refusals, strict=True)]

    async def store(self, actions: Sequence[NewAction]) -> list[Acted]:
        """Makes actions durable with their entries in the journal."""
        positions = [action.position for action in actions]
        self._expander.begin(positions)
        try:
            return await self._store.act(self._shard, actions)
        except BaseException:
            # Nothing was promised: a retry finds what was stored, and writes another entry.
            self._expander.abandon(positions)
            raise

    def tell(self, actions: Sequence[NewAction], told: Sequence[Told]) -> None:
        """Hands over the entries of what stands; of what is hidden only the own devices hear."""
        entries: list[Entry] = []
        for action, outcome in told:
            event = event_of(action, outcome.accepted_ms, outcome.expires_ms)
            if action.kind is ActionKind.HIDE:
                self._dispatcher.dispatch(event, (action.user_id,), action.device_id, wants_receipt=False)
            elif outcome.is_standing and outcome.members_version:
                group_id, version = action.conversation_id, outcome.members_version
                entries.append(Entry(action.position, group_id, action.user_id, version, event))
        kept = {entry.position for entry in entries}
        self._expander.abandon([action.position for action in actions if action.position not in kept])
        self._expander.add(entries)

    async def _known(self, new: Sequence[Judged]) -> _Known:
        pairs = _pairs(new)
        copies = {group_id: self._directory.cached(group_id) for group_id, _ in pairs}
        groups = {group_id: copy for group_id, copy in copies.items() if copy is not None}
        return _Known(groups, await self._sight.windows(pairs))

    async def _read(self, new: Sequence[Judged]) -> _Known:
        pairs = _pairs(new)
        group_ids = list(dict.fromkeys(group_id for group_id, _ in pairs))
        groups = dict(zip(group_ids, await self._directory.read(group_ids), strict=True))
        memberships = await self._directory.memberships(pairs)
        return _Known(groups, {pair: found.windows for pair, found in zip(pairs, memberships, strict=True)})

    def _refusals(self, new: Sequence[Judged], known: _Known, now_ms: int) -> list[Refused | None]:
        return [
            self._forbidden(
                candidate,
                target,
                known.groups.get(candidate.conversation_id),
                known.windows.get((candidate.conversation_id, candidate.request.user_id), ()),
                now_ms,
            )
            for candidate, target in new
        ]

    def _forbidden(
        self,
        candidate: ActionCandidate,
        target: Target,
        group: DirectoryGroup | None,
        times: tuple[Window, ...],
        now_ms: int,
    ) -> Refused | None:
        """Returns why a user may not do this to a message; None when it may."""
        user_id, kind = candidate.request.user_id, candidate.action.kind
        if not any(time.shows(target.members_version) for time in times):
            return NOT_FOUND
        if kind is ActionKind.HIDE:
            return None
        at = group.place(user_id) if group is not None and group.exists else -1
        if group is None or at < 0:
            return _NOT_IN_IT
        is_admin = group.is_admin[at]
        if kind is ActionKind.REVOKE:
            rule = within(target, now_ms, self._windows.revoke_s, "taken back for everyone")
            return rule if is_admin else own_within(user_id, target, now_ms, self._windows.revoke_s, "taken back")
        if target.is_hidden:
            return NOT_FOUND
        # Who edits writes.
        silenced = _ONLY_ADMINS if group.is_announcement_only and not is_admin else None
        rule = own_within(user_id, target, now_ms, self._windows.edit_s, "edited") or silenced
        return rule if kind is ActionKind.EDIT else None


def _pairs(new: Sequence[Judged]) -> list[_Pair]:
    return list(dict.fromkeys((candidate.conversation_id, candidate.request.user_id) for candidate, _ in new))
