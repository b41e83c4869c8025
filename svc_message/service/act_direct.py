"""Who may do what to messages of direct conversations, and who learns of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from svc_message.model import ConversationId, Refused, SendRequest
from svc_message.model.action import Acted, ActionKind, NewAction, SendAction, Target, event_of
from svc_message.protocol import LedgerClock, direct_conversation
from svc_message.service.accept import is_only_device
from svc_message.service.act import NOT_FOUND, Acting, ActionCandidate, Judged, Told, Windows, own_within

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.model import DirectoryUser, UserId
    from svc_message.ports import ActionStore, Directory, Dispatcher


class DirectRules:
    """The rules of direct conversations."""

    def __init__(
        self, store: ActionStore, directory: Directory, dispatcher: Dispatcher, clock: LedgerClock, windows: Windows
    ) -> None:
        self._store = store
        self._directory = directory
        self._dispatcher = dispatcher
        self._clock = clock
        self._windows = windows

    def refusal(self) -> Refused | None:
        """Takes everything: what waits here is bounded by the edges' windows."""
        return None

    def conversation(self, request: SendRequest) -> ConversationId:
        """Returns the conversation of the two."""
        return direct_conversation(request.user_id, _action(request).peer_id)

    async def judge(self, new: Sequence[Judged]) -> list[ActionCandidate | Refused]:
        """Decides for each action; what a blocked user does looks accepted and reaches nobody."""
        users = await self._peers([candidate for candidate, _ in new])
        now_ms = self._clock.wall_ms()
        return [self._judge(candidate, target, users, now_ms) for candidate, target in new]

    async def store(self, actions: Sequence[NewAction]) -> list[Acted]:
        """Makes actions durable."""
        return await self._store.act(actions)

    def tell(self, actions: Sequence[NewAction], told: Sequence[Told]) -> None:
        """Hands over the hints of what stands."""
        del actions
        for action, outcome in told:
            if outcome.is_standing:
                self._dispatch(action, outcome)

    def _judge(
        self, candidate: ActionCandidate, target: Target, users: dict[bytes, DirectoryUser], now_ms: int
    ) -> ActionCandidate | Refused:
        user_id, peer_id = candidate.request.user_id, _action(candidate.request).peer_id
        refusal = self._forbidden(user_id, candidate.action.kind, target, now_ms)
        if refusal is not None:
            return refusal
        # A message that never reached its recipient is its sender's alone, whatever is done to it.
        if target.is_withheld:
            return candidate
        is_blocked = user_id in users[peer_id].blocked_user_ids
        return candidate._replace(peer_id=None if peer_id == user_id else peer_id, is_withheld=is_blocked)

    async def _peers(self, candidates: list[ActionCandidate]) -> dict[bytes, DirectoryUser]:
        """Returns what the peers allow: a cached yes may be up to 2 s old, a no is read through."""
        users: dict[bytes, DirectoryUser] = {}
        unsure: dict[UserId, None] = {}
        for candidate in candidates:
            peer_id = _action(candidate.request).peer_id
            peer = self._directory.cached(peer_id)
            if peer is None or candidate.request.user_id in peer.blocked_user_ids:
                unsure[peer_id] = None
            else:
                users[peer_id] = peer
        if unsure:
            ids = list(unsure)
            users.update(zip(ids, await self._directory.read(ids), strict=True))
        return users

    def _forbidden(self, user_id: UserId, kind: ActionKind, target: Target, now_ms: int) -> Refused | None:
        """Returns why a user may not do this to a message; None when it may."""
        if not _sees(user_id, target, kind):
            return NOT_FOUND
        if kind is ActionKind.EDIT:
            return own_within(user_id, target, now_ms, self._windows.edit_s, "edited")
        if kind is ActionKind.REVOKE:
            return own_within(user_id, target, now_ms, self._windows.revoke_s, "taken back for everyone")
        return None

    def _dispatch(self, action: NewAction, outcome: Acted) -> None:
        users: tuple[UserId, ...] = () if outcome.peer_id is None else (outcome.peer_id,)
        if not is_only_device(self._directory.cached(action.user_id), action.device_id):
            users += (action.user_id,)
        if users:
            event = event_of(action, outcome.accepted_ms, outcome.expires_ms)
            self._dispatcher.dispatch(event, users, action.device_id, wants_receipt=False)


def acting_directly(
    store: ActionStore, directory: Directory, dispatcher: Dispatcher, clock: LedgerClock, windows: Windows
) -> Acting:
    """Returns what accepts actions on messages of direct conversations."""
    return Acting(store, DirectRules(store, directory, dispatcher, clock, windows), clock)


def _action(request: SendRequest) -> SendAction:
    action = request.action
    assert isinstance(action, SendAction)  # noqa: S101 - the door sorts sends by action
    return action


def _sees(user_id: UserId, target: Target, kind: ActionKind) -> bool:
    if kind in {ActionKind.EDIT, ActionKind.REACTION} and target.is_hidden:
        return False
    return user_id == target.sender_id or (user_id == target.recipient_id and not target.is_withheld)
