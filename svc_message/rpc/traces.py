"""Follows drawn messages through the ledger: what comes with a link is accepted, hinted and receipted under its trace.

The tables are empty nearly always, and then nothing here costs more than a look.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chappe.runtime.tracing import Sampled, Tracing, message_id_of
from svc_message.model import Refused, SendGroupMessage
from svc_message.protocol import KEY_BYTES

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from contextlib import AbstractContextManager

    from chappe.api.message.v1 import message_service_pb2
    from chappe.runtime.tracing import Batch, Value
    from svc_message.model import Answer, DeviceAck, SendRequest

MOST_HELD: Final = 4096
HELD_NS: Final = 60 * 1_000_000_000
"""What was never flushed, a Send that was refused at the door for example, is forgotten after so long."""


class Traces:
    """The drawn messages that are on their way through this process, by message id."""

    def __init__(self, tracing: Tracing | None = None) -> None:
        """Prepares; without tracing everything passes by."""
        self._tracing = tracing or Tracing()
        self.drawn: dict[bytes, Sampled] = {}
        """Messages that are being accepted, and those whose receipts are being recorded."""
        self.expanding: dict[bytes, Sampled] = {}
        """Messages to groups that were accepted and have not reached the inboxes of the members yet."""

    def take(self, batch: message_service_pb2.SubmitBatch) -> None:
        """Takes the links of a batch that an edge sent."""
        if not self._tracing.is_on:
            return
        now_ns = self._tracing.now_ns()
        for link in batch.trace_links:
            if link.item_index < len(batch.sends):
                _hold(self.drawn, Sampled.of(link, message_id_of(batch.sends[link.item_index]), now_ns))
        for link in batch.ack_trace_links:
            _hold(self.drawn, Sampled.of(link, b"", now_ns))

    def flush(self, name: str, message_ids: Iterable[bytes], items: int) -> AbstractContextManager[Batch | None]:
        """Returns the span of a flush, if there are drawn messages in it."""
        held = self.drawn
        found = [held[message_id] for message_id in message_ids if message_id in held] if held else []
        return self._tracing.batch(name, found, items)

    def answered(self, request: SendRequest, answer: Answer, batch: Batch | None) -> None:
        """Records that a drawn message was accepted or refused."""
        sampled = self.drawn.pop(request.message_id, None)
        if sampled is None:
            return
        said: dict[str, Value] = {} if batch is None else batch.attributes(sampled)
        if isinstance(answer, Refused):
            self._tracing.hop("ledger.accept", sampled, verdict="refused", reason=answer.reason, **said)
        else:
            conversation = answer.conversation_id.hex()
            duplicate = answer.is_duplicate
            self._tracing.hop(
                "ledger.accept", sampled, verdict="stored", conversation_id=conversation, is_duplicate=duplicate, **said
            )

            if isinstance(request.action, SendGroupMessage):
                _hold(self.expanding, sampled._replace(since_ns=self._tracing.now_ns()))

    def expanded(self, message_id: bytes, users: int) -> Sampled | None:
        """Records that a message to a group stands in the inboxes of its members; returns it if it was drawn."""
        sampled = self.expanding.pop(message_id, None)
        if sampled is not None:
            self._tracing.hop("ledger.expand", sampled, users=users)
        return sampled

    def acknowledged(self, acks: Sequence[DeviceAck], batch: Batch | None) -> None:
        """Records that the delivered receipts of drawn messages are durable."""
        for message_id in acknowledged_ids(acks):
            sampled = self.drawn.pop(message_id, None)
            if sampled is not None:
                said: dict[str, Value] = {} if batch is None else batch.attributes(sampled)
                self._tracing.hop("ledger.receipt", sampled, **said)


def _hold(held: dict[bytes, Sampled], sampled: Sampled) -> None:
    """Keeps a message; forgets those that were never taken out, and the oldest when there are too many."""
    if not sampled.message_id:
        return
    while held:
        oldest = next(iter(held))
        if len(held) < MOST_HELD and sampled.since_ns - held[oldest].since_ns < HELD_NS:
            break
        del held[oldest]
    held[sampled.message_id] = sampled


def acknowledged_ids(acks: Sequence[DeviceAck]) -> list[bytes]:
    """Returns the messages of other people that acknowledgements name."""
    return [
        ack.keys[start + 16 : start + 32]
        for ack in acks
        for start in range(0, len(ack.keys), KEY_BYTES)
        if ack.keys[start + 48 : start + KEY_BYTES] != ack.user_id
    ]
