"""Carries out actions on messages: edits, revokes and reactions, by the same promises as messages.

Idempotency comes before every other check here, too: an action that is found is acknowledged whatever has changed
since, and a refusal of a retry makes sure first that its id can never be accepted. Who may do what, and who learns of
it, is said by the rules of direct conversations and of groups.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Protocol

from chappe.runtime.errors import ChappeError
from svc_message.model import Answer, ConversationId, Refused, SendRequest, Stored, Verdict
from svc_message.model.action import Acted, ActionKind, ActionRef, NewAction, SendAction, SendGroupAction, Target
from svc_message.protocol import (
    FIRST_ACCEPT_AGE_MS,
    FUTURE_BOUND_MS,
    LedgerClock,
    Stamp,
    TagCache,
    action_hash,
    milliseconds_of,
)
from svc_message.service.accept import MAX_WRITES
from svc_message.service.sift import (
    conflict,
    not_minted_here,
    of_the_future,
    retryable,
    stale,
    too_slow,
    without_doubles,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.model import UserId
    from svc_message.ports import ActionStore

NOT_FOUND = Refused("MESSAGE_NOT_FOUND", "message_id: there is no such message in this conversation, or not any more")


class Windows(NamedTuple):
    """For how long after it was accepted a message may be changed."""

    edit_s: float
    revoke_s: float
    """For everyone; a user hides a message from itself at any time."""


class ActionCandidate(NamedTuple):
    """An action on its way through the checks."""

    slot: int
    request: SendRequest
    action: SendAction | SendGroupAction
    conversation_id: ConversationId
    content_hash: bytes
    is_known: bool = False
    """Found, or known to be there: it is completed without further checks."""
    peer_id: UserId | None = None
    """Who else is to learn of it, by the rules; of what is known the first decision stands."""
    is_withheld: bool = False
    group_version: int = 0
    """Of the group when it was judged; 0 in a direct conversation."""

    @property
    def ref(self) -> ActionRef:
        """Names the action for look-ups."""
        request = self.request
        return ActionRef(request.message_id, self.conversation_id, self.action.message_id, request.user_id)


Judged = tuple[ActionCandidate, Target]
"""An action that was never seen, with the message that it is to be done to."""
Told = tuple[NewAction, Acted]
"""An action that is acknowledged, with what the store answered."""


class ActionRules(Protocol):
    """Says who may do what to which message of a kind of conversation, and lets those know whom it concerns."""

    def refusal(self) -> Refused | None:
        """Returns why nothing can be taken at the moment; None when everything can."""
        ...

    def conversation(self, request: SendRequest) -> ConversationId:
        """Returns the conversation that an action names."""
        ...

    async def judge(self, new: Sequence[Judged]) -> list[ActionCandidate | Refused]:
        """Returns each of the actions with whom it reaches, or why it is refused, in order."""
        ...

    async def store(self, actions: Sequence[NewAction]) -> list[Acted]:
        """Makes actions durable."""
        ...

    def tell(self, actions: Sequence[NewAction], told: Sequence[Told]) -> None:
        """Lets those of the stored actions be known that are acknowledged."""
        ...


_Answers = list["Answer | None"]


class Acting:
    """Accepts batches of action sends; one instance for each kind of conversation, no state but caches."""

    def __init__(self, store: ActionStore, rules: ActionRules, clock: LedgerClock) -> None:
        self._store = store
        self._rules = rules
        self._clock = clock
        self._tags = TagCache()

    async def act(self, batch: Sequence[SendRequest]) -> list[Answer]:
        """Answers the sends of a batch, in order; never raises for a store that does not answer.

        Hints for what was accepted are handed over before this returns, so before any answer leaves.
        """
        refusal = self._rules.refusal()
        if refusal is not None:
            return [refusal] * len(batch)
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
        known: list[ActionCandidate] = []
        new: list[tuple[ActionCandidate, Target | None]] = []
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

    def _candidate(self, slot: int, request: SendRequest, answers: _Answers) -> ActionCandidate | None:
        action = request.action
        assert isinstance(action, SendAction | SendGroupAction)  # noqa: S101 - the door sorts sends by action
        if not self._tags.owns(request.user_id, request.device_id, request.message_id):
            answers[slot] = not_minted_here()
            return None
        hashed = action_hash(request.user_id, action.kind, action.message_id, action.envelope)
        return ActionCandidate(slot, request, action, self._rules.conversation(request), hashed)

    async def _check(
        self, new: list[tuple[ActionCandidate, Target | None]], answers: _Answers
    ) -> list[ActionCandidate]:
        """Returns those of the actions that were never seen which may be carried out; refuses the others."""
        now_ms = self._clock.trusted_ms()
        refused: list[tuple[ActionCandidate, Refused]] = []
        timely: list[Judged] = []
        for candidate, target in new:
            refusal = _untimely(candidate, now_ms)
            if refusal is None and target is not None:
                timely.append((candidate, target))
            else:
                refused.append((candidate, refusal or NOT_FOUND))
        alive: list[ActionCandidate] = []
        for (candidate, _), judged in zip(timely, await self._rules.judge(timely) if timely else (), strict=True):
            if isinstance(judged, Refused):
                refused.append((candidate, judged))
            else:
                alive.append(judged)
        return alive + await self._refuse_for_ever(refused, answers)

    async def _refuse_for_ever(
        self, refused: list[tuple[ActionCandidate, Refused]], answers: _Answers
    ) -> list[ActionCandidate]:
        """Refuses, after declaring it void for every attempt; returns those that were there after all.

        Of a first attempt too: a second one may be under way, and by then things may be such that it would be taken.
        """
        candidates = [c for c, _ in refused]
        voided = await self._store.declare_actions_void([c.ref for c in candidates]) if candidates else []
        there = {c.slot: c for c, is_void in zip(candidates, voided, strict=True) if not is_void}
        for candidate, answer in refused:
            if candidate.slot not in there:
                answers[candidate.slot] = answer
        return [c._replace(is_known=True) for c in there.values()]

    async def _write(self, candidates: list[ActionCandidate], answers: _Answers) -> None:
        """Writes until the position of every acknowledged action is young enough."""
        left = candidates
        for _ in range(MAX_WRITES):
            stamps = self._clock.mint_many(len(left))
            actions = [_new(candidate, stamp) for candidate, stamp in zip(left, stamps, strict=True)]
            outcomes = await self._rules.store(actions)
            is_fresh = self._clock.is_fresh(stamps[0])
            told: list[Told] = []
            for candidate, action, outcome in zip(left, actions, outcomes, strict=True):
                answer = _answer(candidate, outcome, is_fresh=is_fresh)
                answers[candidate.slot] = answer
                if isinstance(answer, Stored):
                    told.append((action, outcome))
            self._rules.tell(actions, told)
            left = [candidate for candidate in left if answers[candidate.slot] is None]
            if not left:
                return
        for candidate in left:
            answers[candidate.slot] = too_slow()


def own_within(user_id: UserId, target: Target, now_ms: int, window_s: float, done: str) -> Refused | None:
    """Returns why a message is not its user's to change: another's, or too old; `done` says what would be done."""
    if target.sender_id != user_id:
        return Refused("NOT_OWN_MESSAGE", f"message_id: only its sender may have it {done}")
    return within(target, now_ms, window_s, done)


def within(target: Target, now_ms: int, window_s: float, done: str) -> Refused | None:
    """Returns why a message is too old to be changed; None when it is not."""
    if now_ms - target.accepted_ms > window_s * 1000:
        return Refused("TOO_LATE", f"message_id: it may be {done} for {window_s:g} s after it was accepted")
    return None


def _untimely(candidate: ActionCandidate, now_ms: int) -> Refused | None:
    minted_ms = milliseconds_of(candidate.request.message_id)
    if minted_ms > now_ms + FUTURE_BOUND_MS:
        return of_the_future(minted_ms - now_ms)
    return stale() if minted_ms < now_ms - FIRST_ACCEPT_AGE_MS else None


def _answer(candidate: ActionCandidate, outcome: Acted, *, is_fresh: bool) -> Answer | None:
    if outcome.verdict is Verdict.CONFLICT:
        return conflict()
    if outcome.verdict is Verdict.VOID:
        return stale()
    if not is_fresh:
        return None
    return Stored(outcome.accepted_ms, candidate.conversation_id, is_duplicate=candidate.is_known)


def _new(candidate: ActionCandidate, stamp: Stamp) -> NewAction:
    request, action = candidate.request, candidate.action
    return NewAction(
        action_id=request.message_id,
        conversation_id=candidate.conversation_id,
        kind=action.kind,
        message_id=action.message_id,
        user_id=request.user_id,
        device_id=request.device_id,
        peer_id=None if action.kind is ActionKind.HIDE else candidate.peer_id,
        envelope=action.envelope,
        content_hash=candidate.content_hash,
        is_withheld=candidate.is_withheld,
        position=stamp.position,
        accepted_ms=stamp.wall_ms,
        group_version=candidate.group_version,
    )
