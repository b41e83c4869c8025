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
    Refused,
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
from svc_message.service.accept import MAX_WRITES
from svc_message.service.furthest import furthest, left_of
from svc_message.service.giving import givers_of_receipts
from svc_message.service.sift import not_minted_here, retryable

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from svc_message.model import Applied
    from svc_message.ports import Directory, Dispatcher, MessageStore


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

        Of what stands for more messages than one portion holds the rest comes back, to be read with a later batch.
        """
        answers: list[Answer | SendRequest | None] = [self._refusal(request) for request in batch]
        reads = furthest(batch, [slot for slot, answer in enumerate(answers) if answer is None])
        updates = [_read_update(read.request, _first_forced_ms(batch, read.slots)) for read in reads]
        try:
            rests = await self._record(updates)
        except ChappeError as error:
            refusal = retryable(error)
            return [refusal if answer is None else answer for answer in answers]
        for read, rest in zip(reads, rests, strict=True):
            for slot in read.slots:
                answers[slot] = left_of(batch[slot], rest) or self._stored(batch[slot])
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

    def _refusal(self, request: SendRequest) -> Refused | None:
        action = read_of(request)
        if not self._tags.owns(request.user_id, request.device_id, request.message_id):
            return not_minted_here()
        if not action.read_upto and not action.message_ids:
            return Refused("INVALID_FIELD", "read: name read_upto or message_ids")
        return None

    async def _apply(self, updates: list[ReceiptUpdate]) -> list[Applied]:
        """Writes until the position is young enough to be relied on; a repetition tells everything again."""
        for attempt in range(MAX_WRITES):
            stamps = self._clock.mint_many(len(updates))
            fresh = [
                update._replace(position=stamp.position, recorded_ms=stamp.wall_ms)
                for update, stamp in zip(updates, stamps, strict=True)
            ]
            applied = await self._store.apply_receipts(fresh)
            for update, outcome in zip(fresh, applied, strict=True):
                self._dispatch(update, outcome)
            if self._clock.is_fresh(stamps[0]):
                return applied
            if not attempt:
                updates = [_forced(update, stamps[0].wall_ms) for update in updates]
        raise UnavailableError("ledger", "receipts took longer than their positions may be old; send again")

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


def _forced(update: ReceiptUpdate, since_ms: int) -> ReceiptUpdate:
    """Returns an update that tells again what was read since a time, or since its own."""
    return update if update.is_forced else update._replace(is_forced=True, forced_since_ms=since_ms)


def _first_forced_ms(batch: Sequence[SendRequest], slots: Iterable[int]) -> int:
    """Returns when those of some reads that come again came first, as their ids say, and a minute for clocks."""
    forced = [batch[slot].message_id for slot in slots if batch[slot].attempt > 1]
    return max(min(map(milliseconds_of, forced), default=0) - FORCED_MARGIN_MS, 0)


def _read_update(request: SendRequest, forced_since_ms: int) -> ReceiptUpdate:
    action = read_of(request)
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
        forced_since_ms=forced_since_ms,
    )
