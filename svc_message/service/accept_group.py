"""Accepts messages to groups: who may write, the first decision on who may read, and the promise of the answer.

What is promised is the message, the sender's pointer and the entry in the journal; the members' pointers follow.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from chappe.runtime.errors import ChappeError
from svc_message.model import (
    NO_POSITION,
    Answer,
    ConversationId,
    Refused,
    SendGroupMessage,
    SendRequest,
    Stored,
    Verdict,
)
from svc_message.model.group import DirectoryGroup, Entry, GroupAccepted, NewGroupMessage, Shard
from svc_message.protocol import (
    FIRST_ACCEPT_AGE_MS,
    FUTURE_BOUND_MS,
    LedgerClock,
    TagCache,
    content_hash,
    milliseconds_of,
)
from svc_message.service.accept import MAX_WRITES
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

    from svc_message.ports import MessageStore
    from svc_message.ports.group import Expander, GroupDirectory, GroupStore

_Candidate = Candidate[SendGroupMessage]
_Slotted = tuple[int, NewGroupMessage]
"""A message with its place in the batch."""


class Stores(NamedTuple):
    """The two halves of the book."""

    messages: MessageStore
    """Knows what became of ids."""
    groups: GroupStore


class GroupAccepting:
    """Accepts batches of message sends to groups; one instance for the process, no state but caches."""

    def __init__(
        self,
        stores: Stores,
        directory: GroupDirectory,
        clock: LedgerClock,
        expander: Expander,
        shard: Shard,
    ) -> None:
        self._store = stores.groups
        self._directory = directory
        self._clock = clock
        self._expander = expander
        self._shard = shard
        self._sifting = Sifting(stores.messages, clock)
        self._tags = TagCache()

    async def accept(self, batch: Sequence[SendRequest]) -> list[Answer | None]:
        """Answers the sends of a batch that need no look-up, in order; never raises for a store that does not answer.

        None stands for a send that `accept_after_looking` has to answer: it must not hold up the others.
        """
        answers: list[Answer | None] = [None] * len(batch)
        if self._expander.is_full:
            return [busy()] * len(batch)
        slotted: list[_Slotted] = []
        try:
            self._clock.check()
            slotted = self._first_attempts(batch)
            if slotted:
                await self._write(slotted, answers)
        except ChappeError as error:
            refusal = retryable(error)
            for slot in [slot for slot, _ in slotted] or range(len(batch)):
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

    def _first_attempts(self, batch: Sequence[SendRequest]) -> list[_Slotted]:
        """Returns what may be written at once: first attempts of the right age that the groups' copies allow."""
        now_ms = self._clock.wall_ms()
        seen: set[bytes] = set()
        slotted: list[_Slotted] = []
        for slot, request in enumerate(batch):
            action = _action(request)
            age_ms = now_ms - milliseconds_of(request.message_id)
            group = self._directory.cached(action.recipient_id)
            if (
                request.attempt == 1
                and request.message_id not in seen
                and -FUTURE_BOUND_MS <= age_ms <= FIRST_ACCEPT_AGE_MS
                and group is not None
                and _refusal(group, request) is None
                and self._tags.owns(request.user_id, request.device_id, request.message_id)
            ):
                seen.add(request.message_id)
                slotted.append((slot, _message(request, group, _hash(action), is_known=False)))
        return slotted

    async def _accept_round(self, batch: Sequence[SendRequest], slots: list[int], answers: list[Answer | None]) -> None:
        candidates = [self._candidate(slot, batch[slot], answers) for slot in slots]
        alive = [candidate for candidate in candidates if candidate is not None]
        alive = await self._sifting.resolve_retries(alive, answers)
        alive = await self._sifting.check_age(alive, answers)
        groups = await self._groups(alive)
        alive = await self._check_groups(alive, groups, answers)
        if alive:
            slotted = [
                (
                    one.slot,
                    _message(one.request, groups.get(one.action.recipient_id), one.content_hash, is_known=one.is_known),
                )
                for one in alive
            ]
            await self._write(slotted, answers)

    def _candidate(self, slot: int, request: SendRequest, answers: list[Answer | None]) -> _Candidate | None:
        if not self._tags.owns(request.user_id, request.device_id, request.message_id):
            answers[slot] = not_minted_here()
            return None
        action = _action(request)
        return Candidate(slot, request, action, action.recipient_id, _hash(action), is_known=False)

    async def _groups(self, candidates: list[_Candidate]) -> dict[ConversationId, DirectoryGroup]:
        """Returns what groups allow: a cached yes may be up to 2 s old, a no is read through."""
        groups: dict[ConversationId, DirectoryGroup] = {}
        unsure: dict[ConversationId, None] = {}
        for candidate in candidates:
            if candidate.is_known:
                continue
            group_id = candidate.action.recipient_id
            group = self._directory.cached(group_id)
            if group is None or _refusal(group, candidate.request) is not None:
                unsure[group_id] = None
            else:
                groups[group_id] = group
        if unsure:
            ids = list(unsure)
            groups.update(zip(ids, await self._directory.read(ids), strict=True))
        return groups

    async def _check_groups(
        self,
        candidates: list[_Candidate],
        groups: dict[ConversationId, DirectoryGroup],
        answers: list[Answer | None],
    ) -> list[_Candidate]:
        allowed: list[_Candidate] = []
        refused: list[tuple[_Candidate, Refused]] = []
        for candidate in candidates:
            refusal = None
            if not candidate.is_known:
                refusal = _refusal(groups[candidate.action.recipient_id], candidate.request, is_certain=True)
            if refusal is None:
                allowed.append(candidate)
            else:
                refused.append((candidate, refusal))
        return allowed + await self._sifting.refuse_for_ever(refused, answers)

    async def _write(self, slotted: list[_Slotted], answers: list[Answer | None]) -> None:
        """Writes until the position of every acknowledged message is young enough."""
        left = slotted
        for attempt in range(MAX_WRITES):
            stamps = self._clock.mint_many(len(left))
            messages = [
                message._replace(
                    position=stamp.position, accepted_ms=stamp.wall_ms, is_retry=message.is_retry or attempt > 0
                )
                for (_, message), stamp in zip(left, stamps, strict=True)
            ]
            positions = [message.position for message in messages]
            self._expander.begin(positions)
            try:
                outcomes = await self._store.accept(self._shard, messages)
            except BaseException:
                # Nothing was promised: a retry finds what was stored, and writes another entry.
                self._expander.abandon(positions)
                raise
            is_fresh = self._clock.is_fresh(stamps[0])
            self._settle(left, messages, outcomes, answers, is_fresh=is_fresh)
            left = [(slot, message) for slot, message in left if answers[slot] is None]
            if not left:
                return
        for slot, _ in left:
            answers[slot] = too_slow()

    def _settle(
        self,
        slotted: list[_Slotted],
        messages: list[NewGroupMessage],
        outcomes: list[GroupAccepted],
        answers: list[Answer | None],
        *,
        is_fresh: bool,
    ) -> None:
        entries: list[Entry] = []
        for (slot, first), message, outcome in zip(slotted, messages, outcomes, strict=True):
            if outcome.verdict is Verdict.CONFLICT:
                answers[slot] = conflict()
            elif outcome.verdict is Verdict.VOID:
                answers[slot] = stale()
            elif is_fresh:
                is_duplicate = first.is_retry and outcome.verdict is Verdict.DUPLICATE
                answers[slot] = Stored(outcome.accepted_ms, message.group_id, is_duplicate)
                entries.append(_entry(message, outcome))
        kept = {entry.position for entry in entries}
        self._expander.abandon([message.position for message in messages if message.position not in kept])
        self._expander.add(entries)


def _action(request: SendRequest) -> SendGroupMessage:
    action = request.action
    assert isinstance(action, SendGroupMessage)  # noqa: S101 - the door sorts sends by action
    return action


def _hash(action: SendGroupMessage) -> bytes:
    return content_hash(action.recipient_id, action.envelope, action.expiry_s)


def _refusal(group: DirectoryGroup, request: SendRequest, *, is_certain: bool = False) -> Refused | None:
    """Returns why a group does not take a message; a copy that is older than the sender's knowledge says no, too."""
    at = group.place(request.user_id)
    if at < 0 or not group.exists:
        return Refused("NOT_IN_CONVERSATION", "message.group_id: there is no such group with this user in it")
    if group.is_announcement_only and not group.is_admin[at]:
        return Refused("ROLE_REQUIRED", "message.group_id: only admins write in this group")
    if not is_certain and group.version < _action(request).members_version:
        return Refused("DEPENDENCY_UNAVAILABLE", "message.members_version: newer than the copy", is_retryable=True)
    return None


def _message(request: SendRequest, group: DirectoryGroup | None, hashed: bytes, *, is_known: bool) -> NewGroupMessage:
    action = _action(request)
    return NewGroupMessage(
        message_id=request.message_id,
        group_id=action.recipient_id,
        sender_id=request.user_id,
        sender_device_id=request.device_id,
        envelope=action.envelope,
        content_hash=hashed,
        # Of what is known already the first decision stands.
        members_version=group.version if group is not None else 0,
        recipient_count=len(group.user_ids) - 1 if group is not None else 0,
        is_retry=request.attempt > 1 or is_known,
        position=NO_POSITION,
        accepted_ms=0,
        expiry_s=action.expiry_s,
    )


def _entry(message: NewGroupMessage, outcome: GroupAccepted) -> Entry:
    accepted = message._replace(accepted_ms=outcome.accepted_ms, members_version=outcome.members_version)
    event = accepted.to_event()
    version, is_quiet = outcome.members_version, outcome.is_altered
    return Entry(message.position, message.group_id, message.sender_id, version, event, is_quiet)


def busy() -> Refused:
    """Returns the refusal of what would have to wait too long until members are told."""
    return Refused(
        "DEPENDENCY_UNAVAILABLE",
        "too many messages to groups wait to be delivered at the moment; send again",
        is_retryable=True,
        retry_after_ms=1000,
    )
