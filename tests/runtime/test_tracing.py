import sys
import timeit
from contextlib import nullcontext

import pytest

from chappe.api.edge.v1 import item_pb2, send_pb2
from chappe.api.type.v1 import stream_pb2
from chappe.runtime.clock import SystemRandomness
from chappe.runtime.errors import UnavailableError
from chappe.runtime.tracing import (
    ATTRIBUTES,
    Lots,
    Sampled,
    Tracing,
    kind_of,
    message_id_of,
    part,
    to_context,
    to_links,
)
from tests.spans import TRACE, TRACEPARENT, Spans, sampled, trace_of

ID = b"m" * 16
RUBBISH = ["", "rubbish", "00-x-y-01", f"00-{'z' * 32}-{'z' * 16}-01", f"00-{'0' * 32}-{'0' * 16}-01"]


@pytest.fixture
def spans() -> Spans:
    return Spans()


def test_a_message_that_is_drawn_begins_a_trace_of_its_own(spans: Spans) -> None:
    root = spans.tracing.begin("edge.send", ID)
    assert root is not None
    root.end(verdict="stored")

    (span,) = spans.of("edge.send")
    assert spans.said("edge.send") == {"message_id": ID.hex(), "verdict": "stored"}
    assert root.sampled.traceparent.split("-")[1] == trace_of(span)
    assert span.parent is None


def test_a_hop_is_a_child_of_the_messages_trace_from_when_it_began(spans: Spans) -> None:
    spans.tracing.hop("ledger.accept", sampled(ID, since_ns=5), store_ms=1.5)

    (span,) = spans.of("ledger.accept")
    assert span.parent is not None
    assert (trace_of(span), f"{span.parent.span_id:016x}") == tuple(TRACEPARENT.split("-")[1:3])
    assert span.start_time == 5
    assert spans.said("ledger.accept") == {"message_id": ID.hex(), "store_ms": 1.5}


@pytest.mark.parametrize("traceparent", RUBBISH)
def test_an_unreadable_traceparent_makes_no_span(spans: Spans, traceparent: str) -> None:
    drawn = Sampled(ID, traceparent, 0)

    spans.tracing.hop("ledger.accept", drawn)

    assert spans.names == []
    assert to_context(traceparent) is None
    assert len(list(to_links([traceparent, TRACEPARENT]))) == 1


def test_a_batch_is_linked_to_the_traces_of_its_drawn_messages_and_knows_its_shares(spans: Spans) -> None:
    with spans.tracing.batch("ledger.flush", [sampled(ID)], 7) as batch:
        with part("store"), part("store"):
            pass
        with part("locate"):
            pass

    (span,) = spans.of("ledger.flush")
    (link,) = span.links
    assert f"{link.context.trace_id:032x}" == TRACE != trace_of(span)
    assert batch is not None
    assert spans.said("ledger.flush").keys() == batch.attributes().keys() == {"batch_items", "store_ms", "locate_ms"}
    assert batch.attributes(sampled(ID))["batch_items"] == 7
    assert float(batch.attributes(sampled(ID, since_ns=sys.maxsize))["wait_ms"]) == 0


def test_a_batch_that_fails_tells_the_reason_and_nothing_else(spans: Spans) -> None:
    with (
        pytest.raises(UnavailableError),
        spans.tracing.batch("ledger.flush", [sampled(ID)], 1),
    ):
        raise UnavailableError("store", "a text that may be about a person")

    (span,) = spans.of("ledger.flush")
    assert spans.said("ledger.flush") == {"batch_items": 1, "reason": "DEPENDENCY_UNAVAILABLE"}
    assert (list(span.events), span.status.description) == ([], None)


def test_every_span_is_measured_by_the_clock_that_was_handed_in() -> None:
    told = iter(range(10, 90, 10))
    spans = Spans(lambda: next(told))

    root = spans.tracing.begin("edge.send", ID)
    assert root is not None
    with spans.tracing.batch("ledger.flush", [root.sampled], 1) as batch:
        spans.tracing.hop("ledger.accept", root.sampled._replace(since_ns=5))
    root.end()

    times = {name: (span.start_time, span.end_time) for name in spans.names for span in spans.of(name)}
    assert times == {"ledger.accept": (5, 30), "ledger.flush": (20, 40), "edge.send": (10, 50)}
    assert batch is not None
    assert batch.attributes(Sampled(ID, "", 20 - 1_500_000))["wait_ms"] == 1.5


def test_a_batch_without_a_drawn_message_makes_no_span(spans: Spans) -> None:
    with spans.tracing.batch("ledger.flush", [], 100) as batch, part("store"):
        assert batch is None

    assert spans.names == []


def test_nothing_is_made_while_telemetry_is_off() -> None:
    off = Tracing()

    off.hop("ledger.accept", sampled(ID))

    assert off.begin("edge.send", ID) is None
    assert off.batch("ledger.flush", [sampled(ID)], 1).__enter__() is None
    assert not off.is_on


def test_a_span_says_nothing_that_is_not_on_the_list(spans: Spans) -> None:
    with pytest.raises(ValueError, match="a span may not say phone_number"):
        spans.tracing.hop("ledger.accept", sampled(ID), phone_number="+390101234567")

    assert all(meaning.endswith(".") for meaning in ATTRIBUTES.values())


@pytest.mark.parametrize(("ratio", "numbers"), [(0.0, [0, 0]), (1.0, [1, 5]), (2.0, [1, 5])])
def test_a_ratio_of_nought_draws_none_and_of_one_all(ratio: float, numbers: list[int]) -> None:
    lots = Lots(SystemRandomness(), ratio)

    assert [lots.after(0), lots.after(4)] == numbers


@pytest.mark.parametrize("ratio", [0.5, 0.1, 0.01])
def test_lots_fall_by_the_ratio_and_never_stand_still(ratio: float) -> None:
    lots, number, drawn = Lots(SystemRandomness(), ratio), 0, 0

    while number < 200_000:
        following = lots.after(number)
        assert following > number
        number, drawn = following, drawn + 1

    assert drawn / number == pytest.approx(ratio, rel=0.15)


class Unlucky(SystemRandomness):
    def uniform(self, low: float, high: float) -> float:
        return low


def test_the_rarest_lot_is_a_number_too() -> None:
    assert Lots(Unlucky(), 0.01).after(0) > 1000


@pytest.mark.untraced
def test_a_batch_costs_next_to_nothing_while_nothing_is_drawn() -> None:
    tracing = Spans().tracing

    def batch() -> None:
        with tracing.batch("ledger.flush", [], 1), part("store"):
            pass

    def nothing() -> None:
        with nullcontext(), nullcontext():
            pass

    cost_s = min(timeit.repeat(batch, number=1000, repeat=20)) - min(timeit.repeat(nothing, number=1000, repeat=20))

    assert cost_s / 1000 < 2e-6, "expected below 0.4 µs on an idle machine"


def test_a_link_names_the_message_only_where_the_item_is_not_the_message() -> None:
    drawn = sampled(ID)

    own, other = drawn.link(3, ID), drawn.link(4, b"o" * 16)

    assert own == stream_pb2.TraceLink(item_index=3, traceparent=TRACEPARENT)
    assert other == stream_pb2.TraceLink(item_index=4, traceparent=TRACEPARENT, message_id=ID)
    assert Sampled.of(own, ID, 9) == Sampled.of(other, b"o" * 16, 9) == drawn._replace(since_ns=9)


def test_the_message_of_a_send_is_found_in_its_bytes() -> None:
    send = send_pb2.Send(message_id=ID, attempt=1).SerializeToString()

    assert message_id_of(send) == message_id_of(b"\x10\x01" + send) == ID
    assert message_id_of(b"\xff") == message_id_of(b"") == message_id_of(b"\x10\x01") == b""


@pytest.mark.parametrize("field", [field for field in item_pb2.Item.DESCRIPTOR.fields if field.message_type])
def test_what_an_item_holds_is_read_from_its_tag(field: object) -> None:
    name = getattr(field, "name", "")
    item = item_pb2.Item(position=b"p" * 16)
    getattr(item, name).SetInParent()

    assert kind_of(item.SerializeToString()) == name


@pytest.mark.parametrize("item", [b"", b"short", b"\x0a\x10" + b"p" * 16, b"\x0a\x10" + b"p" * 16 + b"\xfa\x7f"])
def test_an_item_that_holds_nothing_known_is_called_so(item: bytes) -> None:
    assert kind_of(item) == "unknown"
