"""Carries out actions on messages: edits, revokes and reactions, by the same promises as messages.

Idempotency comes before every other check here, too: an action that is found is acknowledged whatever has changed
since, and a refusal of a retry makes sure first that its id can never be accepted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from chappe.runtime.errors import ChappeError
from svc_message.model import Answer, ConversationId, Refused, SendRequest, Stored, Verdict
from svc_message.model.action import Acted, ActionKind, ActionRef, NewAction, SendAction, Target, event_of
from svc_message.protocol import (
    FIRST_ACCEPT_AGE_MS,
    FUTURE_BOUND_MS,
    LedgerClock,
    Stamp,
    TagCache,
    action_hash,
    direct_conversation,
    milliseconds_of,
)
from svc_message.service.accept import MAX_WRITES, is_only_device
from svc_message.service.sift import conflict, retryable, stale, without_doubles

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.model import DirectoryUser, UserId
    from svc_message.ports import ActionStore, Directory, Dispatcher

_NOT_FOUND = Refused("MESSAGE_NOT_FOUND", "message_id: there is no such message in this conversation, or not any more")


class Windows(NamedTuple):
    """For how long after it was accepted a message may be changed."""

    edit_s: float
    revoke_s: float
    """For everyone; a user hides a message from itself at any time."""


class _Candidate(NamedTuple):
    """An action on its way through the checks."""

    slot: int
    request: SendRequest
    action: SendAction
    conversation_id: ConversationId
    content_hash: bytes
    is_known: bool = False
    """Found, or known to be there: it is completed without further checks."""
    is_withheld: bool = False
    is_alone: bool = False
    """Nobody else has ever seen the message."""

    @property
    def ref(self) -> ActionRef:
        """Names the action for look-ups."""
        request = self.request
        return ActionRef(request.message_id, self.conversation_id, self.action.message_id, request.user_id)


_Answers = list["Answer | None"]


class Acting:
    """Accepts batches of action sends; one instance for the process, no state but caches."""

    def __init__(
        self, store: ActionStore, directory: Directory, dispatcher: Dispatcher, clock: LedgerClock, windows: Windows
    ) -> None:
        self._store = store
        self._directory = directory
        self._dispatcher = dispatcher
        self._clock = clock
        self._windows = windows
        self._tags = TagCache()

    async def act(self, batch: Sequence[SendRequest]) -> list[Answer]:
        """Answers the sends of a batch, in order; never raises for a store that does not answer.

        Hints for what was accepted are handed over before this returns, so before any answer leaves.
        """
        answers: _Answers = [None] * len(batch)
        try:
            self._clock.check()
            for slots in without_doubles(batch):
                await self._round(batch, slots, answers)
        except ChappeError as error:
            refusal = retryable(error)
            return [refusal if answer is None else answer for answer in answers]
        return [answer for answer in answers if answer is not None]

    async def _round(self, batch: Sequence[SendRequest], slots: list[int], answers: _Answers) -> None:
        candidates = [c for c in (self._candidate(slot, batch[slot], answers) for slot in slots) if c is not None]
        if not candidates:
            return
        sights = await self._store.sight([c.ref for c in candidates])
        known: list[_Candidate] = []
        new: list[tuple[_Candidate, Target | None]] = []
        for candidate, (earlier, target) in zip(candidates, sights, strict=True):
            if earlier is None:
                new.append((candidate, target))
            elif earlier.is_void or earlier.content_hash != candidate.content_hash:
                answers[candidate.slot] = stale() if earlier.is_void else conflict()
            else:
                known.append(candidate._replace(is_known=True))
        known += await self._check(new, answers)
        if known:
            await self._write(known, answers)

    async def _check(self, new: list[tuple[_Candidate, Target | None]], answers: _Answers) -> list[_Candidate]:
        """Returns those of the actions that were never seen which may be carried out; refuses the others."""
        users = await self._peers([candidate for candidate, _ in new])
        alive: list[_Candidate] = []
        refused: list[tuple[_Candidate, Refused]] = []
        for candidate, target in new:
            now_ms = self._clock.wall_ms()
            refusal = _untimely(candidate, now_ms) or self._forbidden(candidate, target, now_ms)
            if refusal is not None or target is None:
                refused.append((candidate, refusal or _NOT_FOUND))
                continue
            is_blocked = candidate.request.user_id in users[candidate.action.peer_id].blocked_user_ids
            # A message that never reached its recipient is its sender's alone, whatever is done to it.
            alive.append(
                candidate._replace(is_withheld=is_blocked and not target.is_withheld, is_alone=target.is_withheld)
            )
        return alive + await self._refuse_for_ever(refused, answers)

    def _candidate(self, slot: int, request: SendRequest, answers: _Answers) -> _Candidate | None:
        action = request.action
        assert isinstance(action, SendAction)  # noqa: S101 - the door sorts sends by action
        if not self._tags.owns(request.user_id, request.device_id, request.message_id):
            answers[slot] = Refused("INVALID_MESSAGE_ID", "message_id: not a UUIDv7 with the mint tag of this device")
            return None
        hashed = action_hash(request.user_id, action.kind, action.message_id, action.envelope)
        conversation_id = direct_conversation(request.user_id, action.peer_id)
        return _Candidate(slot, request, action, conversation_id, hashed)

    async def _peers(self, candidates: list[_Candidate]) -> dict[bytes, DirectoryUser]:
        """Returns what the peers allow: a cached yes may be up to 2 s old, a no is read through."""
        users: dict[bytes, DirectoryUser] = {}
        unsure: dict[UserId, None] = {}
        for candidate in candidates:
            peer_id = candidate.action.peer_id
            peer = self._directory.cached(peer_id)
            if peer is None or candidate.request.user_id in peer.blocked_user_ids:
                unsure[peer_id] = None
            else:
                users[peer_id] = peer
        if unsure:
            ids = list(unsure)
            users.update(zip(ids, await self._directory.read(ids), strict=True))
        return users

    def _forbidden(self, candidate: _Candidate, target: Target | None, now_ms: int) -> Refused | None:
        """Returns why a user may not do this to a message; None when it may."""
        user_id, kind = candidate.request.user_id, candidate.action.kind
        if target is None or not _sees(user_id, target, kind):
            return _NOT_FOUND
        if kind is ActionKind.EDIT:
            return _own_within(user_id, target, now_ms, self._windows.edit_s, "edited")
        if kind is ActionKind.REVOKE:
            return _own_within(user_id, target, now_ms, self._windows.revoke_s, "taken back for everyone")
        return None

    async def _refuse_for_ever(self, refused: list[tuple[_Candidate, Refused]], answers: _Answers) -> list[_Candidate]:
        """Refuses, after declaring void what may have been sent before; returns those that were there after all."""
        retries = [c for c, _ in refused if c.request.attempt > 1]
        voided = await self._store.declare_actions_void([c.ref for c in retries]) if retries else []
        there = {c.slot: c for c, is_void in zip(retries, voided, strict=True) if not is_void}
        for candidate, answer in refused:
            if candidate.slot not in there:
                answers[candidate.slot] = answer
        return [c._replace(is_known=True) for c in there.values()]

    async def _write(self, candidates: list[_Candidate], answers: _Answers) -> None:
        """Writes until the position of every acknowledged action is young enough."""
        left = candidates
        for _ in range(MAX_WRITES):
            stamps = self._clock.mint_many(len(left))
            actions = [_new(candidate, stamp) for candidate, stamp in zip(left, stamps, strict=True)]
            outcomes = await self._store.act(actions)
            is_fresh = self._clock.is_fresh(stamps[0])
            for candidate, action, outcome in zip(left, actions, outcomes, strict=True):
                answers[candidate.slot] = self._answer(candidate, action, outcome, is_fresh=is_fresh)
            left = [candidate for candidate in left if answers[candidate.slot] is None]
            if not left:
                return
        for candidate in left:
            answers[candidate.slot] = Refused(
                "DEPENDENCY_UNAVAILABLE", "the ledger is too slow at the moment; send again", is_retryable=True
            )

    def _answer(self, candidate: _Candidate, action: NewAction, outcome: Acted, *, is_fresh: bool) -> Answer | None:
        if outcome.verdict is Verdict.CONFLICT:
            return conflict()
        if outcome.verdict is Verdict.VOID:
            return stale()
        if not is_fresh:
            return None
        if outcome.is_standing:
            self._dispatch(action, outcome)
        return Stored(outcome.accepted_ms, action.conversation_id, is_duplicate=candidate.is_known)

    def _dispatch(self, action: NewAction, outcome: Acted) -> None:
        users: tuple[UserId, ...] = () if outcome.is_withheld or action.peer_id is None else (action.peer_id,)
        if not is_only_device(self._directory.cached(action.user_id), action.device_id):
            users += (action.user_id,)
        if users:
            event = event_of(action, outcome.accepted_ms)
            self._dispatcher.dispatch(event, users, action.device_id, wants_receipt=False)


def _untimely(candidate: _Candidate, now_ms: int) -> Refused | None:
    minted_ms = milliseconds_of(candidate.request.message_id)
    if minted_ms > now_ms + FUTURE_BOUND_MS:
        detail = f"message_id: {minted_ms - now_ms} ms in the future; correct the clock, mint a new id"
        return Refused("CLOCK_SKEW", detail)
    return stale() if minted_ms < now_ms - FIRST_ACCEPT_AGE_MS else None


def _sees(user_id: UserId, target: Target, kind: ActionKind) -> bool:
    if kind in {ActionKind.EDIT, ActionKind.REACTION} and target.is_hidden:
        return False
    return user_id == target.sender_id or (user_id == target.recipient_id and not target.is_withheld)


def _own_within(user_id: UserId, target: Target, now_ms: int, window_s: float, done: str) -> Refused | None:
    if target.sender_id != user_id:
        return Refused("NOT_OWN_MESSAGE", f"message_id: only its sender may have it {done}")
    if now_ms - target.accepted_ms > window_s * 1000:
        return Refused("TOO_LATE", f"message_id: it may be {done} for {window_s:g} s after it was accepted")
    return None


def _new(candidate: _Candidate, stamp: Stamp) -> NewAction:
    request, action = candidate.request, candidate.action
    is_private = action.kind is ActionKind.HIDE or action.peer_id == request.user_id or candidate.is_alone
    return NewAction(
        action_id=request.message_id,
        conversation_id=candidate.conversation_id,
        kind=action.kind,
        message_id=action.message_id,
        user_id=request.user_id,
        device_id=request.device_id,
        peer_id=None if is_private else action.peer_id,
        envelope=action.envelope,
        content_hash=candidate.content_hash,
        is_withheld=candidate.is_withheld,
        position=stamp.position,
        accepted_ms=stamp.wall_ms,
    )
