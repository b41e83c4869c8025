"""Sifts sends whose fate must be looked up, before anything else is asked of them.

Idempotency comes before every other check: what is found is completed, what is void or taken is refused, and a refusal
that lets the client mint a new id first makes sure that the old one can never be accepted.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeVar

from svc_message.model import MessageRef, Refused, Stored, UserId
from svc_message.protocol import FIRST_ACCEPT_AGE_MS, FUTURE_BOUND_MS, LedgerClock, milliseconds_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from chappe.runtime.errors import ChappeError
    from svc_message.model import Answer, ConversationId, SendGroupMessage, SendMessage, SendRequest
    from svc_message.ports import MessageStore

_log = logging.getLogger(__name__)

A = TypeVar("A", "SendMessage", "SendGroupMessage")


class Candidate(NamedTuple, Generic[A]):
    """A message send on its way through the checks that need a look-up."""

    slot: int
    request: SendRequest
    action: A
    conversation_id: ConversationId
    content_hash: bytes
    is_known: bool
    """Found by the look-up of a retry: it is completed without further checks."""

    @property
    def ref(self) -> MessageRef:
        """Names the message for look-ups."""
        request = self.request
        recipient_id = UserId(self.action.recipient_id)
        return MessageRef(request.message_id, self.conversation_id, request.user_id, recipient_id)


class Sifting:
    """Decides what the past says of sends, for direct messages and for groups."""

    def __init__(self, store: MessageStore, clock: LedgerClock) -> None:
        self._store = store
        self._clock = clock

    async def resolve_retries(self, candidates: list[Candidate[A]], answers: list[Answer | None]) -> list[Candidate[A]]:
        """Answers what is void or taken; returns the rest, of which what was found is known."""
        retries = [c for c in candidates if c.request.attempt > 1]
        if not retries:
            return candidates
        found = await self._store.find([c.ref for c in retries])
        kept = {c.slot: c for c in candidates}
        for candidate, earlier in zip(retries, found, strict=True):
            if earlier is None:
                continue
            if earlier.is_void:
                answers[candidate.slot] = stale()
            elif earlier.content_hash != candidate.content_hash:
                answers[candidate.slot] = conflict()
            elif earlier.is_spent:
                answers[candidate.slot] = Stored(earlier.accepted_ms, candidate.conversation_id, is_duplicate=True)
            else:
                kept[candidate.slot] = candidate._replace(is_known=True)
                continue
            del kept[candidate.slot]
        return list(kept.values())

    async def check_age(self, candidates: list[Candidate[A]], answers: list[Answer | None]) -> list[Candidate[A]]:
        """Answers what is too old, or of a time to come; returns the rest."""
        now_ms = self._clock.trusted_ms()
        kept: list[Candidate[A]] = []
        refused: list[tuple[Candidate[A], Refused]] = []
        for candidate in candidates:
            minted_ms = milliseconds_of(candidate.request.message_id)
            if candidate.is_known or now_ms - FIRST_ACCEPT_AGE_MS <= minted_ms <= now_ms + FUTURE_BOUND_MS:
                kept.append(candidate)
            elif minted_ms > now_ms:
                refused.append((candidate, of_the_future(minted_ms - now_ms)))
            else:
                refused.append((candidate, stale()))
        return kept + await self.refuse_for_ever(refused, answers)

    async def refuse_for_ever(
        self, refused: list[tuple[Candidate[A], Refused]], answers: list[Answer | None]
    ) -> list[Candidate[A]]:
        """Refuses, after declaring it void for every attempt; returns those that were there after all.

        Of a first attempt too: a second one may be under way, and by then things may be such that it would be taken.

        While it cannot be declared void no such answer may leave: the client would send the same under a new id.
        """
        candidates = [c for c, _ in refused]
        voided = await self._store.declare_void([c.ref for c in candidates]) if candidates else []
        there = {c.slot: c for c, is_void in zip(candidates, voided, strict=True) if not is_void}
        for candidate, answer in refused:
            if candidate.slot not in there:
                answers[candidate.slot] = answer
        return [c._replace(is_known=True) for c in there.values()]


def retryable(error: ChappeError) -> Refused:
    """Returns the refusal that tells a client to send the same bytes again."""
    _log.warning("requests are refused as retryable: %s", error)
    return Refused(error.reason, error.message, is_retryable=True, retry_after_ms=error.retry_after_ms)


def without_doubles(batch: Sequence[SendRequest]) -> list[list[int]]:
    """Returns the places of a batch in rounds in which no message id occurs twice; nearly always one round."""
    rounds: list[list[int]] = []
    counts: dict[bytes, int] = {}
    for slot, request in enumerate(batch):
        number = counts.get(request.message_id, 0)
        counts[request.message_id] = number + 1
        if number == len(rounds):
            rounds.append([])
        rounds[number].append(slot)
    return rounds


def stale() -> Refused:
    """Refuses an id for ever."""
    return Refused("STALE_MESSAGE_ID", "message_id: too old to be accepted for the first time; mint a new one")


def of_the_future(ahead_ms: int) -> Refused:
    """Refuses an id that was made so many milliseconds after now."""
    return Refused("CLOCK_SKEW", f"message_id: {ahead_ms} ms in the future; correct the clock, mint a new id")


def conflict() -> Refused:
    """Refuses other content under a taken id."""
    return Refused("DUPLICATE_CONFLICT", "message_id: used before with other content; the first is kept")


def not_minted_here() -> Refused:
    """Refuses an id that the sending device cannot have made."""
    return Refused(
        "INVALID_MESSAGE_ID", "message_id: not a UUIDv7 with the mint tag of this device (see Welcome.mint_tag)"
    )


def too_slow() -> Refused:
    """Refuses for now what could not be written before its position was too old to be relied on."""
    return Refused("DEPENDENCY_UNAVAILABLE", "the ledger is too slow at the moment; send again", is_retryable=True)
