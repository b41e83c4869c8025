"""Records receipts of groups: what devices have stored and what members have read, exact at every size."""

from __future__ import annotations

from typing import TYPE_CHECKING

from chappe.runtime.errors import ChappeError, UnavailableError
from svc_message.model import (
    NO_POSITION,
    Answer,
    ConversationId,
    DeviceAck,
    MessageId,
    Refused,
    SendGroupRead,
    SendRequest,
    Stored,
    UserId,
)
from svc_message.model.receipt import MemberAck, MemberRead, MemberReadUpdate, ReadMessage
from svc_message.protocol import KEY_BYTES, LedgerClock, MessageKey, TagCache, is_group
from svc_message.protocol.portion import Portion
from svc_message.service.accept import MAX_WRITES
from svc_message.service.giving import givers_of_receipts
from svc_message.service.reads import Furthest, furthest, left_of, put_off, refusal_of
from svc_message.service.sift import retryable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from svc_message.model.group import Window
    from svc_message.model.receipt import ReadOutcome, Unread
    from svc_message.ports import Directory, Dispatcher
    from svc_message.ports.receipt import ReceiptStore
    from svc_message.service.sight import Pair, Seen, Sight
    from svc_message.service.tell import Telling

_STRANGER = Refused("NOT_IN_CONVERSATION", "read.group_id: there is no such group that this user is or was in")


class GroupRecording:
    """Records batches of device acknowledgements and reads; one instance for the process."""

    def __init__(
        self,
        store: ReceiptStore,
        sight: Sight,
        directory: Directory,
        dispatcher: Dispatcher,
        clock: LedgerClock,
        telling: Telling,
    ) -> None:
        self._store = store
        self._sight = sight
        self._directory = directory
        self._dispatcher = dispatcher
        self._clock = clock
        self._telling = telling
        self._tags = TagCache()
        self._portion = Portion()

    async def acknowledge(self, batch: Sequence[DeviceAck]) -> None:
        """Makes the delivered receipts of a batch durable; raises when it could not.

        Keys of direct messages are passed over. Repeating a batch whose outcome is unknown does no harm.
        """
        named = _gather(batch)
        if not named:
            return
        windows = await self._sight.windows(named)
        acks = [
            MemberAck(user_id, group_id, windows[group_id, user_id], tuple(ids))
            for (group_id, user_id), ids in named.items()
        ]
        stamp = self._clock.mint()
        self._telling.note(await self._store.acknowledge(acks, stamp.position, stamp.wall_ms))

    async def read(self, batch: Sequence[SendRequest]) -> list[Answer | SendRequest]:
        """Answers every read of a batch, in order; never raises for a store that does not answer.

        What is more than one portion comes back, to be read with a later batch, and so does the rest of a read that
        stands for more messages than it may.
        """
        answers: list[Answer | SendRequest | None] = [None] * len(batch)
        try:
            now_ms = self._clock.trusted_ms()
            answers = [refusal_of(request, self._tags, now_ms) for request in batch]
            await self._read(batch, answers)
        except ChappeError as error:
            refusal = retryable(error)
            return [refusal if answer is None else answer for answer in answers]
        return [answer for answer in answers if answer is not None]

    async def _read(self, batch: Sequence[SendRequest], answers: list[Answer | SendRequest | None]) -> None:
        open_ = [(slot, request) for slot, request in enumerate(batch) if answers[slot] is None]
        sights = await self._sight.seen((_action(request).group_id, request.user_id) for _, request in open_)
        reads: list[tuple[Furthest, MemberRead]] = []
        for one in furthest(batch, [slot for slot, _ in open_]):
            request, action = one.request, _action(one.request)
            windows = sights[action.group_id, request.user_id].windows
            if windows:
                named = MemberRead(
                    request.user_id, action.group_id, windows, action.read_upto, action.message_ids, action.read_after
                )
                reads.append((one, named))
            for slot in () if windows else one.slots:
                answers[slot] = _STRANGER
        if not reads:
            return
        put_off(batch, answers, (one for one, _ in reads[self._portion.size :]))
        reads = reads[: self._portion.size]
        unread = await self._unread([read for _, read in reads], sights)
        people = {read.user_id for _, read in reads}
        people.update(message.sender_id for found in unread for message in found.messages)
        givers = await givers_of_receipts(self._directory, people)
        await self._write(
            [_update(one.request, read, found, givers) for (one, read), found in zip(reads, unread, strict=True)]
        )
        now_ms = self._clock.wall_ms()
        for (one, read), found in zip(reads, unread, strict=True):
            for slot in one.slots:
                stored = Stored(now_ms, read.group_id, is_duplicate=False)
                answers[slot] = left_of(batch[slot], found.rest) or stored

    async def _unread(self, reads: list[MemberRead], sights: dict[Pair, Seen]) -> list[Unread]:
        """Returns what reads stand for, without what was sent after a reader had left, of which no copy told yet."""
        unread = await self._store.unread(reads)
        pairs = [(read.group_id, read.user_id) for read in reads]
        found = list(zip(pairs, unread, strict=True))
        unsure = {pair for pair, one in found if any(m.members_version > sights[pair].version for m in one.messages)}
        certain = await self._sight.ask(unsure)
        return [_seen_of(one, certain[pair].windows) if pair in certain else one for pair, one in found]

    async def _write(self, updates: list[MemberReadUpdate]) -> None:
        """Writes until the positions are young enough to be relied on; a repetition tells everything again."""
        for attempt in range(MAX_WRITES):
            stamps = self._clock.mint_many(len(updates))
            fresh = [
                update._replace(
                    position=stamp.position, recorded_ms=stamp.wall_ms, is_forced=update.is_forced or attempt > 0
                )
                for update, stamp in zip(updates, stamps, strict=True)
            ]
            try:
                outcome = await self._store.read(fresh)
            finally:
                self._portion.note(len(fresh), self._clock.age_s(stamps[0]))
            self._tell(fresh, outcome)
            if self._clock.is_fresh(stamps[0]):
                return
        raise UnavailableError("ledger", "receipts took longer than their positions may be old; send again")

    def _tell(self, updates: list[MemberReadUpdate], outcome: ReadOutcome) -> None:
        self._telling.note(outcome.came)
        for update, own_read in zip(updates, outcome.own_reads, strict=True):
            if own_read is not None:
                self._dispatcher.dispatch(own_read, (update.user_id,), update.device_id, wants_receipt=False)


def _seen_of(unread: Unread, windows: Sequence[Window]) -> Unread:
    seen = [one for one in unread.messages if any(window.shows(one.members_version) for window in windows)]
    return unread._replace(messages=tuple(seen))


def _gather(batch: Sequence[DeviceAck]) -> dict[tuple[ConversationId, UserId], dict[MessageId, None]]:
    """Returns by group and member what was stored of others' messages."""
    named: dict[tuple[ConversationId, UserId], dict[MessageId, None]] = {}
    for ack in batch:
        keys = ack.keys
        for start in range(0, len(keys) - KEY_BYTES + 1, KEY_BYTES):
            key = MessageKey.of(keys[start : start + KEY_BYTES])
            if is_group(key.conversation_id) and key.sender_id != ack.user_id:
                pair = (ConversationId(key.conversation_id), ack.user_id)
                named.setdefault(pair, {})[MessageId(key.message_id)] = None
    return named


def _action(request: SendRequest) -> SendGroupRead:
    action = request.action
    assert isinstance(action, SendGroupRead)  # noqa: S101 - the door sorts sends by action
    return action


def _update(request: SendRequest, read: MemberRead, found: Unread, givers: set[UserId]) -> MemberReadUpdate:
    gives = read.user_id in givers
    return MemberReadUpdate(
        user_id=read.user_id,
        device_id=request.device_id,
        group_id=read.group_id,
        windows=read.windows,
        upto=found.upto,
        messages=tuple(ReadMessage(message_id, gives and sender in givers) for message_id, sender, _ in found.messages),
        is_forced=request.attempt > 1,
        position=NO_POSITION,
        recorded_ms=0,
    )
