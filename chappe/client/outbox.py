"""The sending side of the core: ids, windows, retries. Every change is stored once, whatever happens on the way."""

from bisect import insort
from collections import deque
from collections.abc import Iterable
from operator import attrgetter

from chappe.api.edge.v1 import server_frame_pb2
from chappe.api.type.v1 import error_reason_pb2
from chappe.client.budget import FrameBudget
from chappe.client.changes import SendRefused, Sent
from chappe.client.frames import parse_action, send_frame
from chappe.client.mint import IdMint, ServerClock, time_ms_of
from chappe.client.outgoing import OutboxRow, Outgoing
from chappe.client.recorder import Recorder
from chappe.client.recording import recorded_action
from chappe.client.store import Batch, Restored

FIRST_RETRY_S = 4.0
LONGEST_RETRY_S = 60.0
REFUSED_RETRY_S = (1.0, 2.0)
"""How long a change that was refused for now waits at least: the first time, and every time after it."""
CLOCK_TOLERANCE_MS = 1_000
"""A server that says so differs by more than this from the estimate is right, and the estimate is not."""

MAX_MINTS = 8
"""After so many ids a draft is given up: the two clocks cannot agree."""

_SKEW = error_reason_pb2.ERROR_REASON_CLOCK_SKEW
_MINT_ANEW = frozenset((_SKEW, error_reason_pb2.ERROR_REASON_STALE_MESSAGE_ID))


def reason_name(reason: int) -> str:
    """Returns the name of an ErrorReason without its prefix; of one that this version does not know, its number."""
    try:
        name: str = error_reason_pb2.ErrorReason.Name(error_reason_pb2.ErrorReason.ValueType(reason))
    except ValueError:
        return f"REASON_{reason}"
    return name.removeprefix("ERROR_REASON_")


def retry_s(unanswered: int) -> float:
    """Returns how long to wait after so many attempts without an answer: 4, 8, 16 and so on up to 60 seconds."""
    return min(LONGEST_RETRY_S, FIRST_RETRY_S * 2.0 ** min(unanswered - 1, 10))


class Outbox:
    """Holds what is to be sent, in three places: not yet minted, waiting to be sent again, and with the edge."""

    def __init__(
        self, clock: ServerClock, mint: IdMint, budget: FrameBudget, recorder: Recorder | None, restored: Restored
    ) -> None:
        self._clock = clock
        self._budget = budget
        self._mint = mint
        self._recorder = recorder
        self._waiting: deque[Outgoing] = deque()
        self._again: deque[Outgoing] = deque()
        self._out: dict[bytes, Outgoing] = {}
        self.minting = 0
        """How many have an id, and leave as soon as the disk has it, too."""
        self.is_held = False
        """Whether something has not left for which there was a place with the edge, but no room."""
        self._window = 0
        self._seen_ms: dict[bytes, int] = dict(restored.seen_ms)
        self._next_draft = restored.next_draft
        self.batch = Batch()
        """What the next commit stores; shared with the core, which replaces it."""
        for entry in restored.outgoing:
            (self._again if entry.message_id else self._waiting).append(entry)

    @property
    def pending(self) -> int:
        """How many changes have no answer yet."""
        return len(self._waiting) + len(self._again) + len(self._out) + self.minting

    @property
    def is_awaiting(self) -> bool:
        """Whether an edge owes an answer, so that retries have to be looked after."""
        return bool(self._out)

    def add(self, outgoing: Outgoing) -> None:
        """Takes a change; it gets its number now and its id when there is room."""
        outgoing.draft = self._next_draft
        self._next_draft += 1
        self._waiting.append(outgoing)
        self.batch.puts[outgoing.draft] = outgoing

    def saw(self, conversation_id: bytes, message_id: bytes) -> None:
        """Takes note of a message of a conversation: the next own one is to sort after it."""
        time_ms = time_ms_of(message_id)
        if time_ms > self._seen_ms.get(conversation_id, 0):
            self._seen_ms[conversation_id] = time_ms

    def online(self, window: int) -> None:
        """Starts to send: the session stands, and so many may be unanswered."""
        self._window = max(1, window)

    def offline(self) -> None:
        """Stops sending; what has no answer is sent again in the next session, in the order in which it first was."""
        self._window = 0
        self.is_held = False
        self._again.extendleft(reversed(self._out.values()))
        self._out.clear()

    def pump(self, frames: list[bytes], now_s: float, room: int) -> int:
        """Sends again what is due and mints ids, as far as there is room; returns how much of it that takes."""
        places = self._window - len(self._out) - self.minting
        used = 0
        while self._again and used < min(places, room):
            self._transmit(self._again.popleft(), frames, now_s)
            used += 1
        while self._waiting and used < min(places, room):
            self._assign(self._waiting.popleft(), now_s)
            used += 1
        self.is_held = used < places and bool(self._again or self._waiting)
        return used

    def committed(
        self, rows: Iterable[OutboxRow], puts: dict[int, Outgoing], frames: list[bytes], now_s: float
    ) -> None:
        """Sends what has become durable under its id."""
        for row in rows:
            entry = puts[row.draft]
            if not row.message_id or entry.is_durable or row.message_id != entry.message_id:
                continue
            entry.is_durable = True
            self.minting -= 1
            if entry.kind == "read" and self._recorder is not None:
                self._recorder.read_upto(entry.conversation_id, parse_action(entry.action).read.read_upto)
            if self._window:
                self._transmit(entry, frames, now_s)
            else:
                self._again.append(entry)

    def tick(self, frames: list[bytes], now_s: float) -> bool:
        """Sends again what was not answered in time or was to be tried later; returns whether an answer is missing."""
        due = [entry for entry in self._out.values() if entry.due_s <= now_s]
        is_ignored = any(entry.unanswered for entry in due)
        for entry in due[: self._budget.room(now_s)]:
            self._transmit(entry, frames, now_s)
        return is_ignored

    def stored(self, ack: server_frame_pb2.SendAck) -> None:
        """Settles a change that the server has stored."""
        message_id = ack.message_id
        entry = self._out.pop(message_id, None)
        if entry is None:
            return
        if self._recorder is not None:
            self._recorder.stored(message_id, ack.accepted_ms, is_duplicate=ack.is_duplicate)
        self.batch.settled.append(Sent(entry, ack.accepted_ms, ack.is_duplicate))

    def refused(self, nack: server_frame_pb2.SendNack, now_s: float) -> None:
        """Puts a change off, gives it a new id, or gives it up, as the answer says."""
        entry = self._out.get(nack.message_id)
        if entry is None:
            return
        reason = reason_name(nack.reason)
        if self._recorder is not None:
            self._recorder.refused(entry.message_id, reason, is_final=not nack.is_retryable)
        if nack.is_retryable:
            # Whoever refuses is there: the pause does not grow as in silence, for all that is new waits behind it.
            entry.due_s = now_s + max(REFUSED_RETRY_S[entry.attempt > 1], nack.retry_after_ms / 1000)
            entry.unanswered = 0
            return
        del self._out[entry.message_id]
        if nack.reason in _MINT_ANEW and entry.mints < MAX_MINTS:
            self._begin_anew(entry, nack, now_s)
        else:
            self.batch.settled.append(SendRefused(entry, reason, nack.detail))

    def _begin_anew(self, entry: Outgoing, nack: server_frame_pb2.SendNack, now_s: float) -> None:
        if abs(nack.server_ms - self._clock.estimate_ms(now_s)) > CLOCK_TOLERANCE_MS:
            self._clock.correct(nack.server_ms, now_s)
        if nack.reason == _SKEW:
            self._mint.step_back()
        entry.message_id = b""
        entry.attempt = 0
        entry.unanswered = 0
        entry.is_durable = False
        # By its number: answers come several at once, and what was said first is minted first.
        insort(self._waiting, entry, key=attrgetter("draft"))

    def _assign(self, entry: Outgoing, now_s: float) -> None:
        seen_ms = self._seen_ms.get(entry.conversation_id, 0)
        entry.message_id = self._mint.mint(self._clock.estimate_ms(now_s), seen_ms)
        entry.mints += 1
        self.minting += 1
        # Taken out first: what is sent leaves in the order of its ids, also what was composed during this batch.
        self.batch.puts.pop(entry.draft, None)
        self.batch.puts[entry.draft] = entry

    def _transmit(self, entry: Outgoing, frames: list[bytes], now_s: float) -> None:
        entry.attempt += 1
        entry.unanswered += 1
        entry.due_s = now_s + retry_s(entry.unanswered)
        self._budget.spend()
        message_id = entry.message_id
        self._out[message_id] = entry
        if self._recorder is not None:
            self._recorder.send(recorded_action(entry), entry.attempt)
        frames.append(send_frame(message_id, entry.attempt, entry.action))
