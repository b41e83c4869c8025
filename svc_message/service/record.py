"""Records receipts: what devices have stored and what users have read, coalesced for each conversation of a flush."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from chappe.runtime.errors import ChappeError, UnavailableError
from svc_message.model import (
    NO_POSITION,
    Answer,
    DeviceAck,
    MessageId,
    ReceiptState,
    ReceiptUpdate,
    SendRead,
    SendRequest,
    Stored,
    UserId,
)
from svc_message.protocol import (
    KEY_BYTES,
    LedgerClock,
    MessageKey,
    TagCache,
    direct_conversation,
    milliseconds_of,
)
from svc_message.protocol.portion import Portion
from svc_message.service.accept import MAX_WRITES
from svc_message.service.giving import givers_of_receipts
from svc_message.service.reads import Furthest, furthest, left_of, put_off, refusal_of
from svc_message.service.sift import retryable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.model import Applied
    from svc_message.ports import Directory, Dispatcher, MessageStore
    from svc_message.protocol import Stamp


FORCED_MARGIN_MS = 60_000
"""By how much the clock of a device may be ahead of ours, when it says since when it has tried."""


class _Slot(NamedTuple):
    """One conversation's part of a flush: the ids, and whether any of them must be told again."""

    update: ReceiptUpdate
    message_ids: dict[bytes, None]


class Recording:
    """Records batches of device acknowledgements and reads."""

    def __init__(self, store: MessageStore, directory: Directory, dispatcher: Dispatcher, clock: LedgerClock) -> None:
        self._store = store
        self._directory = directory
        self._dispatcher = dispatcher
        self._clock = clock
        self._tags = TagCache()
        self._portion = Portion()

    async def acknowledge(self, batch: Sequence[DeviceAck]) -> None:
        """Makes the delivered receipts of a batch durable, in the inboxes of the senders; raises when it could not.

        After an error the outcome is unknown: the caller repeats the batch with `is_resent`.
        """
        slots: dict[tuple[bytes, bytes], _Slot] = {}
        for ack in batch:
            keys = ack.keys
            for start in range(0, len(keys) - KEY_BYTES + 1, KEY_BYTES):
                self._gather(slots, ack, MessageKey.of(keys[start : start + KEY_BYTES]))
        updates = [slot.update._replace(message_ids=tuple(map(MessageId, slot.message_ids))) for slot in slots.values()]
        if updates:
            await self._apply(updates)

    def _gather(self, slots: dict[tuple[bytes, bytes], _Slot], ack: DeviceAck, key: MessageKey) -> None:
        if key.sender_id == ack.user_id:
            return
        name = (ack.user_id, key.conversation_id)
        slot = slots.get(name)
        if slot is None:
            update = ReceiptUpdate(
                reader_id=ack.user_id,
                reader_device_id=ack.device_id,
                conversation_id=direct_conversation(ack.user_id, key.sender_id),
                peer_id=UserId(key.sender_id),
                state=ReceiptState.DELIVERED,
                message_ids=(),
                read_upto=b"",
                is_forced=ack.is_resent,
                position=NO_POSITION,
                recorded_ms=0,
            )
            slots[name] = slot = _Slot(update, {})
        elif ack.is_resent and not slot.update.is_forced:
            slots[name] = slot = _Slot(slot.update._replace(is_forced=True), slot.message_ids)
        slot.message_ids[key.message_id] = None

    async def read(self, batch: Sequence[SendRequest]) -> list[Answer | SendRequest]:
        """Answers every read of a batch, in order; never raises for a store that does not answer.

        What is more than one portion comes back, to be read with a later batch, and so does the rest of a read that
        stands for more messages than it may.
        """
        answers: list[Answer | SendRequest | None] = [None] * len(batch)
        try:
            now_ms = self._clock.trusted_ms()
            answers = [refusal_of(request, self._tags, now_ms) for request in batch]
            reads = furthest(batch, [slot for slot, answer in enumerate(answers) if answer is None])
            reads, later = reads[: self._portion.size], reads[self._portion.size :]
            rests = await self._record([_read_update(batch, read) for read in reads])
        except ChappeError as error:
            refusal = retryable(error)
            return [refusal if answer is None else answer for answer in answers]
        for read, rest in zip(reads, rests, strict=True):
            for slot in read.slots:
                answers[slot] = left_of(batch[slot], rest) or self._stored(batch[slot])
        put_off(batch, answers, later)
        return [answer for answer in answers if answer is not None]

    async def _record(self, updates: list[ReceiptUpdate]) -> list[bytes]:
        """Records what was read, and returns of each update where it ended when it is not done."""
        if not updates:
            return []
        people = {user_id for update in updates for user_id in (update.reader_id, update.peer_id)}
        givers = await givers_of_receipts(self._directory, people)
        applied = await self._apply([update._replace(is_told=_may_tell(update, givers)) for update in updates])
        return [one.rest for one in applied]

    def _stored(self, request: SendRequest) -> Stored:
        conversation_id = direct_conversation(request.user_id, read_of(request).peer_id)
        return Stored(self._clock.wall_ms(), conversation_id, is_duplicate=False)

    async def _apply(self, updates: list[ReceiptUpdate]) -> list[Applied]:
        """Writes until the positions are young enough to be relied on; a repetition tells everything again."""
        done: list[Applied] = []
        for _ in range(MAX_WRITES):
            while len(done) < len(updates):
                start, end = len(done), len(done) + self._portion.size
                applied, stamp = await self._write(updates[start:end])
                if not self._clock.is_fresh(stamp):
                    again = zip(updates[start:end], applied, strict=True)
                    updates[start:end] = [_told_again(update, outcome, stamp.wall_ms) for update, outcome in again]
                    break
                done += applied
            else:
                return done
        raise UnavailableError("ledger", "receipts took longer than their positions may be old; send again")

    async def _write(self, updates: list[ReceiptUpdate]) -> tuple[list[Applied], Stamp]:
        """Writes one portion, and returns with what came of it the oldest of its positions."""
        stamps = self._clock.mint_many(len(updates))
        fresh = [
            update._replace(position=stamp.position, recorded_ms=stamp.wall_ms)
            for update, stamp in zip(updates, stamps, strict=True)
        ]
        try:
            applied = await self._store.apply_receipts(fresh)
        finally:
            self._portion.note(len(updates), self._clock.age_s(stamps[0]))
        for update, outcome in zip(fresh, applied, strict=True):
            self._dispatch(update, outcome)
        return applied, stamps[0]

    def _dispatch(self, update: ReceiptUpdate, outcome: Applied) -> None:
        for event in outcome.receipt_events:
            self._dispatcher.dispatch(event, (update.peer_id,), 0, wants_receipt=False)
        if outcome.own_read is not None:
            self._dispatcher.dispatch(
                outcome.own_read, (update.reader_id,), update.reader_device_id, wants_receipt=False
            )


def _may_tell(update: ReceiptUpdate, givers: set[UserId]) -> bool:
    return update.reader_id in givers and update.peer_id in givers


def read_of(request: SendRequest) -> SendRead:
    """Returns what a send says was read."""
    action = request.action
    assert isinstance(action, SendRead)  # noqa: S101 - the door sorts sends by action
    return action


def _told_again(update: ReceiptUpdate, outcome: Applied, since_ms: int) -> ReceiptUpdate:
    """Returns an update that tells everything again: what it has just told, and what it told before that."""
    told = dict.fromkeys((*update.message_ids, *(one for event in outcome.receipt_events for one in event.message_ids)))
    since_ms = update.forced_since_ms if update.is_forced else since_ms
    return update._replace(message_ids=tuple(told), is_forced=True, forced_since_ms=since_ms)


def _read_update(batch: Sequence[SendRequest], read: Furthest) -> ReceiptUpdate:
    """Returns what a read asks for that stands for some of a batch.

    Of those that come again it says since when the first of them was tried, as its id says but for a minute for clocks,
    and what the least of them was about.
    """
    request, action = read.request, read_of(read.request)
    again = [one for one in (batch[slot] for slot in read.slots) if one.attempt > 1]
    first_ms = min((milliseconds_of(one.message_id) for one in again), default=0)
    return ReceiptUpdate(
        reader_id=request.user_id,
        reader_device_id=request.device_id,
        conversation_id=direct_conversation(request.user_id, action.peer_id),
        peer_id=action.peer_id,
        state=ReceiptState.READ,
        message_ids=action.message_ids,
        read_upto=action.read_upto,
        is_forced=request.attempt > 1,
        position=NO_POSITION,
        recorded_ms=0,
        read_after=action.read_after,
        forced_since_ms=max(first_ms - FORCED_MARGIN_MS, 0),
        forced_upto=min((read_of(one).read_upto for one in again), default=b""),
    )
