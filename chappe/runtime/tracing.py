"""Traces of single messages: which are drawn, and the spans of those that are.

A span for each message would cost more than the message. Where a message enters, lots are drawn: a countdown, so that
a message that is not drawn costs one comparison. One that is drawn carries a W3C traceparent through every stream
(`TraceLink`), and each process adds short spans of its own to that trace, made afterwards from moments that it noted. A
batch with drawn messages has one span in a trace of its own, linked to theirs. No span ever holds content, a phone
number or a token: what may be said is in `ATTRIBUTES`.
"""

from __future__ import annotations

import math
import time
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Self, TypeAlias

from google.protobuf.message import DecodeError

from chappe.api.edge.v1 import item_pb2, send_pb2
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.errors import ChappeError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from types import TracebackType

    from opentelemetry.trace import Link, Span, SpanContext, Tracer

    from chappe.runtime.clock import Randomness

Value: TypeAlias = "str | int | float | bool"

PREFIX: Final = "chappe."
"""Stands before the name of every attribute."""
ATTRIBUTES: Final = {
    "message_id": "The message, 32 hexadecimal digits.",
    "conversation_id": "The conversation that it belongs to, 32 hexadecimal digits.",
    "verdict": "What became of it: stored or refused.",
    "reason": "Why it was refused or dropped, by the name of its ErrorReason.",
    "is_duplicate": "Whether an earlier attempt was found.",
    "item": "What was carried: message, receipt, or another field of Item.",
    "attempt": "How often the hop was tried.",
    "users": "How many users the item is for.",
    "deliveries": "How many devices of theirs were online and were pushed to, the sender's own apart.",
    "own_deliveries": "How many other devices of the sender were online and were pushed to.",
    "is_own": "Whether the device is another one of the sender.",
    "device_id": "The device whose socket took it, or that acknowledged it.",
    "batch_items": "How many items the batch had in which it was handled.",
    "wait_ms": "How long the batch waited in this process until its work began.",
    "store_ms": "The share of the store, with the wait for a connection.",
    "locate_ms": "The share of the question to svc_presence.",
}
"""What a span may say, with its meaning."""

_SEND_ID_HEAD: Final = b"\x0a\x10"
_ID_BYTES: Final = 16
_TAG_AT: Final = 18
"""Where the tag of what happened stands in a serialised Item: behind its position."""
_CONTINUES: Final = 0x80
_PARTS: Final = 4
_TRACE_DIGITS: Final = 32
_SPAN_DIGITS: Final = 16
_LEAST_LOT: Final = 2.0**-53


class Sampled(NamedTuple):
    """A drawn message in this process."""

    message_id: bytes
    traceparent: str
    since_ns: int
    """When its present hop began, Unix nanoseconds."""

    @classmethod
    def of(cls, link: stream_pb2.TraceLink, message_id: bytes, now_ns: int) -> Sampled:
        """Takes a link of a batch; `message_id` is that of the item, which the link may replace."""
        return cls(link.message_id or message_id, link.traceparent, now_ns)

    def link(self, item_index: int, item_message_id: bytes = b"") -> stream_pb2.TraceLink:
        """Returns the link for an item of a batch; the message's id is left out where it is the item's own."""
        message_id = b"" if self.message_id == item_message_id else self.message_id
        return stream_pb2.TraceLink(item_index=item_index, traceparent=self.traceparent, message_id=message_id)


class Lots:
    """Draws lots for messages that are counted anyway: tells the number of the next one that is drawn."""

    def __init__(self, randomness: Randomness, ratio: float) -> None:
        """Prepares; a ratio of 0 draws none and of 1 all."""
        self._randomness = randomness
        self._ratio = ratio

    def after(self, number: int) -> int:
        """Returns the number of the next drawn message after so many; 0 when none will be.

        The distances are those of independent lots for each message (a geometric distribution).
        """
        if self._ratio <= 0.0:
            return 0
        if self._ratio >= 1.0:
            return number + 1
        lot = max(self._randomness.uniform(0.0, 1.0), _LEAST_LOT)
        return number + 1 + int(math.log(lot) / math.log1p(-self._ratio))


class Root:
    """The span that a drawn message has from where it enters until it is answered."""

    __slots__ = ("_now_ns", "_span", "sampled")

    def __init__(self, span: Span, sampled: Sampled, now_ns: Callable[[], int]) -> None:
        self._span = span
        self._now_ns = now_ns
        self.sampled = sampled

    def end(self, **attributes: Value) -> None:
        """Ends it with what became of the message."""
        self._span.set_attributes(named(attributes))
        self._span.end(self._now_ns())


class Batch:
    """A batch with drawn messages while it is worked on: its span, and which part of the work took how long."""

    def __init__(
        self, tracer: Tracer, name: str, drawn: Sequence[Sampled], items: int, now_ns: Callable[[], int]
    ) -> None:
        self._drawn = drawn
        self._items = items
        self._parts_ns: dict[str, int] = {}
        self._now_ns = now_ns
        self._start_ns = now_ns()
        links = list(to_links(sampled.traceparent for sampled in drawn))
        # What an error says may be about a person; the reason alone is told.
        self._scope = tracer.start_as_current_span(
            name,
            links=links,
            start_time=self._start_ns,
            record_exception=False,
            set_status_on_exception=False,
            end_on_exit=False,
        )
        self._span: Span
        self._token: Token[Batch | None]

    def add(self, part: str, took_ns: int) -> None:
        """Adds to the time of a part."""
        self._parts_ns[part] = self._parts_ns.get(part, 0) + took_ns

    def attributes(self, sampled: Sampled | None = None) -> dict[str, Value]:
        """Returns the size of the batch and the shares of its parts; for a message also how long it waited for it."""
        found: dict[str, Value] = {"batch_items": self._items}
        if sampled is not None:
            found["wait_ms"] = to_ms(max(self._start_ns - sampled.since_ns, 0))
        return found | {f"{part}_ms": to_ms(took_ns) for part, took_ns in self._parts_ns.items()}

    def __enter__(self) -> Self:
        self._token = _current.set(self)
        self._span = self._scope.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        _current.reset(self._token)
        reason = {"reason": error.reason} if isinstance(error, ChappeError) else {}
        self._span.set_attributes(named(self.attributes() | reason))
        self._scope.__exit__(kind, error, trace)
        self._span.end(self._now_ns())


class Tracing:
    """Makes the spans of drawn messages and of the batches that carry them; does nothing while telemetry is off."""

    def __init__(self, tracer: Tracer | None = None, now_ns: Callable[[], int] = time.time_ns) -> None:
        """Makes tracing that is off unless there is a tracer."""
        self.tracer = tracer
        self.now_ns = now_ns
        """Tells Unix nanoseconds: whoever notes the beginning of a hop asks here."""

    @property
    def is_on(self) -> bool:
        """Whether spans go anywhere."""
        return self.tracer is not None

    def begin(self, name: str, message_id: bytes) -> Root | None:
        """Begins the trace of a message that was drawn; None while telemetry is off."""
        if self.tracer is None:
            return None
        from opentelemetry.context import Context  # noqa: PLC0415 - loaded with the tracer

        now_ns = self.now_ns()
        attributes = named({"message_id": message_id.hex()})
        span = self.tracer.start_span(name, Context(), attributes=attributes, start_time=now_ns)
        context = span.get_span_context()
        traceparent = f"00-{context.trace_id:032x}-{context.span_id:016x}-01"
        return Root(span, Sampled(message_id, traceparent, now_ns), self.now_ns)

    def hop(self, name: str, sampled: Sampled, **attributes: Value) -> None:
        """Records what this process has done with a message, from `sampled.since_ns` until now.

        Raises:
            ValueError: An attribute is not one of `ATTRIBUTES`.
        """
        parent = to_context(sampled.traceparent)
        if self.tracer is None or parent is None:
            return
        from opentelemetry.context import Context  # noqa: PLC0415 - loaded with the tracer
        from opentelemetry.trace import NonRecordingSpan, set_span_in_context  # noqa: PLC0415 - the same

        context = set_span_in_context(NonRecordingSpan(parent), Context())
        said = named({"message_id": sampled.message_id.hex(), **attributes})
        self.tracer.start_span(name, context, attributes=said, start_time=sampled.since_ns).end(self.now_ns())

    def batch(self, name: str, drawn: Sequence[Sampled], items: int) -> AbstractContextManager[Batch | None]:
        """Returns a span for a batch, linked to the traces of its drawn messages; nothing when none was drawn.

        Args:
            name: What is done to the batch, like "ledger.flush".
            drawn: The drawn messages in it.
            items: How many items it has.
        """
        if not drawn or self.tracer is None:
            return _NO_BATCH
        return Batch(self.tracer, name, drawn, items, self.now_ns)


class _Part:
    """Measures a part of the work on a batch."""

    def __init__(self, batch: Batch, name: str) -> None:
        self._batch = batch
        self._name = name
        self._start_ns = 0

    def __enter__(self) -> None:
        self._start_ns = time.perf_counter_ns()

    def __exit__(self, *exc_info: object) -> None:
        self._batch.add(self._name, time.perf_counter_ns() - self._start_ns)


_current: ContextVar[Batch | None] = ContextVar("batch", default=None)
_NO_BATCH: AbstractContextManager[Batch | None] = nullcontext()
_NO_PART: AbstractContextManager[None] = nullcontext()


def part(name: str) -> AbstractContextManager[None]:
    """Measures a part of the work on the present batch, like "store"; costs next to nothing when none is traced."""
    batch = _current.get()
    return _NO_PART if batch is None else _Part(batch, name)


def named(attributes: dict[str, Any]) -> dict[str, Value]:
    """Returns attributes by their full names; raises `ValueError` for one that is not on the list."""
    unknown = attributes.keys() - ATTRIBUTES.keys()
    if unknown:
        raise ValueError(f"a span may not say {', '.join(sorted(unknown))}: add it to ATTRIBUTES with its meaning")
    return {PREFIX + name: value for name, value in attributes.items()}


def to_ms(nanoseconds: int) -> float:
    """Returns milliseconds with three digits."""
    return round(nanoseconds / 1e6, 3)


def to_context(traceparent: str) -> SpanContext | None:
    """Reads a traceparent; None for one that cannot be read."""
    parts = traceparent.split("-")
    if len(parts) != _PARTS or (len(parts[1]), len(parts[2])) != (_TRACE_DIGITS, _SPAN_DIGITS):
        return None
    try:
        trace_id, span_id, flags = int(parts[1], 16), int(parts[2], 16), int(parts[3], 16)
    except ValueError:
        return None
    from opentelemetry.trace import SpanContext, TraceFlags  # noqa: PLC0415 - only for drawn messages

    context = SpanContext(trace_id, span_id, is_remote=True, trace_flags=TraceFlags(flags))
    return context if context.is_valid else None


def to_links(traceparents: Iterable[str]) -> Iterable[Link]:
    """Yields a link for every traceparent that can be read; others are passed over."""
    from opentelemetry.trace import Link  # noqa: PLC0415 - only for drawn messages

    for traceparent in traceparents:
        context = to_context(traceparent)
        if context is not None:
            yield Link(context)


def message_id_of(send: bytes) -> bytes:
    """Returns the message id of a serialised Send; empty when there is none."""
    if send.startswith(_SEND_ID_HEAD):
        return send[2 : 2 + _ID_BYTES]
    try:
        found: bytes = send_pb2.Send.FromString(send).message_id
    except DecodeError:
        return b""
    return found if len(found) == _ID_BYTES else b""


def kind_of(item: bytes) -> str:
    """Returns what a serialised Item holds, by the name of its field: message, receipt and so on."""
    tag = shift = 0
    for byte in item[_TAG_AT : _TAG_AT + 3]:
        tag |= (byte & ~_CONTINUES) << shift
        shift += 7
        if byte < _CONTINUES:
            break
    field = item_pb2.Item.DESCRIPTOR.fields_by_number.get(tag >> 3)
    return "unknown" if field is None else field.name
