"""Accepts direct messages: the checks, the first decision, and the promise of the answer.

Idempotency comes before every other check, see `sift`: a message that is found is acknowledged whatever has changed
since.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from chappe.runtime.errors import ChappeError
from svc_message.model import (
    Accepted,
    Answer,
    ConversationId,
    MessageEvent,
    NewMessage,
    Refused,
    SendMessage,
    SendRequest,
    Stored,
    Verdict,
    expires_at,
)
from svc_message.protocol import (
    FIRST_ACCEPT_AGE_MS,
    FUTURE_BOUND_MS,
    LedgerClock,
    Stamp,
    TagCache,
    content_hash,
    direct_conversation,
)
from svc_message.service.sift import (
    Candidate,
    Sifting,
    conflict,
    not_minted_here,
    retryable,
    stale,
    too_slow,
    without_doubles,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.model import DirectoryUser, UserId
    from svc_message.ports import Directory, Dispatcher, MessageStore

MAX_WRITES = 3
"""How often a flush whose position grew too old is written again before its sends are refused as retryable."""

_CONVERSATIONS_KEPT = 200_000

_Candidate = Candidate[SendMessage]
_Entry = tuple[int, NewMessage]
"""A message with its place in the batch."""


class Accepting:
    """Accepts batches of message sends; one instance for the process, no state but caches."""

    def __init__(self, store: MessageStore, directory: Directory, dispatcher: Dispatcher, clock: LedgerClock) -> None:
        self._store = store
        self._directory = directory
        self._dispatcher = dispatcher
        self._clock = clock
        self._sifting = Sifting(store, clock)
        self._tags = TagCache()
        self._conversations: dict[bytes, ConversationId] = {}

    async def accept(self, batch: Sequence[SendRequest]) -> list[Answer | None]:
        """Answers the sends of a batch that need no look-up, in order; never raises for a store that does not answer.

        Hints for the accepted are handed over before this returns, so before any answer leaves. None stands for a send
        that `accept_after_looking` has to answer: it must not hold up the others.
        """
        answers: list[Answer | None] = [None] * len(batch)
        entries: list[_Entry] = []
        try:
            stamps = self._clock.mint_many(len(batch))
            entries = self._first_attempts(batch, stamps)
            if entries:
                await self._write(entries, stamps[0], answers)
        except ChappeError as error:
            refusal = retryable(error)
            slots = [slot for slot, _ in entries] or range(len(batch))
            for slot in slots:
                answers[slot] = answers[slot] or refusal
        return answers

    async def accept_after_looking(self, batch: Sequence[SendRequest]) -> list[Answer]:
        """Answers every send of a batch, in order, after whatever must be looked up; never raises like `accept`."""
        answers: list[Answer | None] = [None] * len(batch)
        try:
            self._clock.check()
            for slots in without_doubles(batch):
                await self._accept_round(batch, slots, answers)
        except ChappeError as error:
            refusal = retryable(error)
            return [refusal if answer is None else answer for answer in answers]
        return [answer for answer in answers if answer is not None]

    def _first_attempts(self, batch: Sequence[SendRequest], stamps: list[Stamp]) -> list[_Entry]:
        """Returns what may be written at once: first attempts of the right age whose recipients' copies say yes."""
        now_ms = self._clock.wall_ms()
        oldest, newest = _least_id(now_ms - FIRST_ACCEPT_AGE_MS), _least_id(now_ms + FUTURE_BOUND_MS + 1)
        owns, cached, conversation = self._tags.owns, self._directory.cached, self._conversation
        seen: set[bytes] = set()
        entries: list[_Entry] = []
        for slot, (user_id, device_id, message_id, attempt, action) in enumerate(batch):
            assert isinstance(action, SendMessage)  # noqa: S101 - the door sorts sends by action
            if attempt > 1 or message_id in seen or not oldest <= message_id < newest:
                continue
            recipient_id, envelope, expiry_s = action
            recipient = cached(recipient_id)
            if recipient is None or not recipient.is_active or user_id in recipient.blocked_user_ids:
                continue
            if not owns(user_id, device_id, message_id):
                continue
            seen.add(message_id)
            hashed = content_hash(recipient_id, envelope, expiry_s)
            position, accepted_ms, _ = stamps[slot]
            message = NewMessage(
                message_id,
                conversation(user_id, recipient_id),
                user_id,
                device_id,
                recipient_id,
                envelope,
                hashed,
                False,  # noqa: FBT003 - by position because it is made once for each message: not withheld
                False,  # noqa: FBT003 - the same: no retry
                position,
                accepted_ms,
                expiry_s,
            )
            entries.append((slot, message))
        return entries

    async def _accept_round(self, batch: Sequence[SendRequest], slots: list[int], answers: list[Answer | None]) -> None:
        candidates = [self._candidate(slot, batch[slot], answers) for slot in slots]
        alive = [c for c in candidates if c is not None]
        alive = await self._sifting.resolve_retries(alive, answers)
        alive = await self._sifting.check_age(alive, answers)
        users = await self._recipients(alive)
        alive = await self._check_recipients(alive, users, answers)
        if alive:
            stamps = self._clock.mint_many(len(alive))
            entries = [
                (candidate.slot, _message(candidate, users.get(candidate.action.recipient_id), stamp))
                for candidate, stamp in zip(alive, stamps, strict=True)
            ]
            await self._write(entries, stamps[0], answers)

    def _candidate(self, slot: int, request: SendRequest, answers: list[Answer | None]) -> _Candidate | None:
        action = request.action
        assert isinstance(action, SendMessage)  # noqa: S101 - the door sorts sends by action
        if not self._tags.owns(request.user_id, request.device_id, request.message_id):
            answers[slot] = not_minted_here()
            return None
        conversation_id = self._conversation(request.user_id, action.recipient_id)
        hashed = content_hash(action.recipient_id, action.envelope, action.expiry_s)
        return Candidate(slot, request, action, conversation_id, hashed, is_known=False)

    def _conversation(self, one: bytes, other: bytes) -> ConversationId:
        key = one + other
        found = self._conversations.get(key)
        if found is None:
            if len(self._conversations) >= _CONVERSATIONS_KEPT:
                self._conversations.clear()
            found = self._conversations[key] = direct_conversation(one, other)
        return found

    async def _check_recipients(
        self, candidates: list[_Candidate], users: dict[bytes, DirectoryUser], answers: list[Answer | None]
    ) -> list[_Candidate]:
        unknown = [c for c in candidates if not c.is_known and not users[c.action.recipient_id].is_active]
        if not unknown:
            return candidates
        refusal = Refused("RECIPIENT_NOT_FOUND", "message.user_id: there is no such user")
        there = await self._sifting.refuse_for_ever([(c, refusal) for c in unknown], answers)
        gone = {c.slot for c in unknown}
        return [c for c in candidates if c.slot not in gone] + there

    async def _recipients(self, candidates: list[_Candidate]) -> dict[bytes, DirectoryUser]:
        """Returns what the recipients allow: a cached yes may be up to 2 s old, a no is read through."""
        users: dict[bytes, DirectoryUser] = {}
        unsure: dict[UserId, None] = {}
        for candidate in candidates:
            if candidate.is_known:
                continue
            recipient_id = candidate.action.recipient_id
            user = self._directory.cached(recipient_id)
            if user is None or not user.is_active or candidate.request.user_id in user.blocked_user_ids:
                unsure[recipient_id] = None
            else:
                users[recipient_id] = user
        if unsure:
            ids = list(unsure)
            users.update(zip(ids, await self._directory.read(ids), strict=True))
        return users

    async def _write(self, entries: list[_Entry], stamp: Stamp, answers: list[Answer | None]) -> None:
        """Writes until the position of every acknowledged message is young enough; `stamp` is the first one's."""
        left, messages = entries, [message for _, message in entries]
        for _ in range(MAX_WRITES):
            outcomes = await self._store.accept(messages)
            is_fresh = self._clock.is_fresh(stamp)
            self._settle(left, messages, outcomes, answers, is_fresh=is_fresh)
            if is_fresh:
                return
            left = [entry for entry in left if answers[entry[0]] is None]
            if not left:
                return
            stamps = self._clock.mint_many(len(left))
            stamp = stamps[0]
            messages = [
                message._replace(position=position, accepted_ms=wall_ms, is_retry=True)
                for (_, message), (position, wall_ms, _) in zip(left, stamps, strict=True)
            ]
        for slot, _ in left:
            answers[slot] = too_slow()

    def _settle(
        self,
        entries: list[_Entry],
        messages: list[NewMessage],
        outcomes: list[Accepted],
        answers: list[Answer | None],
        *,
        is_fresh: bool,
    ) -> None:
        for (slot, first), message, outcome in zip(entries, messages, outcomes, strict=True):
            verdict, accepted_ms, is_withheld, is_altered = outcome
            if verdict is Verdict.CONFLICT:
                answers[slot] = conflict()
            elif verdict is Verdict.VOID:
                answers[slot] = stale()
            elif is_fresh:
                is_duplicate = first.is_retry and verdict is Verdict.DUPLICATE
                answers[slot] = Stored(accepted_ms, message.conversation_id, is_duplicate)
                if not is_altered:
                    self._dispatch(message, accepted_ms, is_withheld=is_withheld)

    def _dispatch(self, message: NewMessage, accepted_ms: int, *, is_withheld: bool) -> None:
        message_id, conversation_id, sender_id, device_id, recipient_id, envelope, _, _, _, position, _, expiry_s = (
            message
        )
        event = MessageEvent(
            position, message_id, conversation_id, sender_id, device_id, recipient_id, accepted_ms, envelope
        )
        if expiry_s:
            event = event._replace(expires_ms=expires_at(accepted_ms, expiry_s))
        users: tuple[UserId, ...] = () if is_withheld or recipient_id == sender_id else (recipient_id,)
        if not is_only_device(self._directory.cached(sender_id), device_id):
            users += (sender_id,)
        if users:
            self._dispatcher.dispatch(event, users, device_id, wants_receipt=True)


def _least_id(unix_ms: int) -> bytes:
    """Returns what sorts before every id of a millisecond and after those of the millisecond before."""
    return max(unix_ms, 0).to_bytes(6, "big")


def _message(candidate: _Candidate, recipient: DirectoryUser | None, stamp: Stamp) -> NewMessage:
    request, action = candidate.request, candidate.action
    is_withheld = recipient is not None and request.user_id in recipient.blocked_user_ids
    return NewMessage(
        message_id=request.message_id,
        conversation_id=candidate.conversation_id,
        sender_id=request.user_id,
        sender_device_id=request.device_id,
        recipient_id=action.recipient_id,
        envelope=action.envelope,
        content_hash=candidate.content_hash,
        is_withheld=is_withheld,
        is_retry=request.attempt > 1 or candidate.is_known,
        position=stamp.position,
        accepted_ms=stamp.wall_ms,
        expiry_s=action.expiry_s,
    )


def is_only_device(user: DirectoryUser | None, device_id: int) -> bool:
    """Tells whether nobody else has to hear of what a device did: most senders have one device.

    A device that was linked in the last moments may be missed; it reads the log when it connects, and again when its
    session is verified.
    """
    return user is not None and len(user.device_ids) == 1 and device_id in user.device_ids
