"""The loops of the carrier, on a clock that a test moves."""

from collections.abc import AsyncIterator

import pytest

from chappe.runtime.tasks import Tasks
from svc_fanout.model import Delivery
from svc_fanout.service import FanoutService
from svc_fanout.worker import LOOK_S, MAX_AHEAD, FanoutWorker, Limits
from tests.spans import Spans, sampled, trace_of
from tests.svc_fanout.fakes import FakeEdges, FakeRegistry, Grants, HandClock, hint, route, settle

AMPLE = Limits(max_waiting_hints=100_000, max_waiting_bytes=1_000_000, large_deliveries_per_s=1000)


class Bench:
    """A worker and everything around it."""

    def __init__(self, tasks: Tasks) -> None:
        self.registry = FakeRegistry(route(1), route(2))
        self.edges = FakeEdges()
        self.clock = HandClock()
        self.grants = Grants()
        self.service = FanoutService(self.registry, self.edges, self.clock)
        self.worker = FanoutWorker(
            self.service,
            self.edges,
            tasks=tasks,
            clock=self.clock,
            limits=Limits(max_waiting_hints=10, max_waiting_bytes=1000, large_deliveries_per_s=1000),
        )

    def take(self, *items: bytes) -> None:
        self.worker.take([hint(item, 1, grant=self.grants) for item in items])

    def give_back(self, deliveries: list[Delivery]) -> None:
        self.worker.take_again(self.service.returned(deliveries))


@pytest.fixture
async def bench() -> AsyncIterator[Bench]:
    async with Tasks() as tasks:
        yield Bench(tasks)


async def test_hints_are_pushed_and_their_credit_given_back(bench: Bench) -> None:
    bench.take(b"one", b"two")
    await bench.worker.drain()

    assert bench.edges.items() == [(b"one", 1), (b"two", 1)]
    assert bench.grants.total == 2
    assert bench.worker.waiting_hints == 0


async def test_what_gathers_during_a_round_is_one_round_and_several_are_in_flight(bench: Bench) -> None:
    bench.registry.gate.clear()
    bench.take(b"one")
    await settle()
    bench.take(b"two")
    bench.take(b"three")
    await bench.registry.questions.reach(2)

    bench.registry.gate.set()
    await bench.worker.drain()

    assert bench.worker.counters.rounds == 2
    assert bench.edges.items() == [(b"one", 1), (b"two", 1), (b"three", 1)]


async def test_rounds_push_in_the_order_in_which_they_began(bench: Bench) -> None:
    bench.registry.gate.clear()
    bench.take(b"one")
    await settle()
    late, bench.registry.gate = bench.registry.gate, bench.registry.gate.__class__()
    bench.registry.gate.set()
    bench.take(b"two")
    await settle()
    before = bench.edges.items()

    late.set()
    await bench.worker.drain()

    assert before == []
    assert bench.edges.items() == [(b"one", 1), (b"two", 1)]


async def test_a_round_asks_for_as_many_users_as_one_question_may_name(bench: Bench) -> None:
    bench.worker._limits = AMPLE
    small = [hint(b"small", *range(start, start + 250)) for start in range(10_000, 12_500, 250)]

    bench.worker.take([hint(b"large", *range(101, 1601)), hint(b"large", *range(2001, 2601)), *small])
    await bench.worker.drain()

    assert sorted(len(users) for users, _ in bench.registry.questions.entries) == [500, 600, 1500, 2000]


def crowd(bench: Bench, count: int = 1024) -> range:
    """Lets users from 101 on be online, and anything wait."""
    users = range(101, 101 + count)
    bench.registry.routes += [route(user) for user in users]
    bench.worker._limits = AMPLE
    return users


async def test_a_large_group_gets_one_burst(bench: Bench) -> None:
    users = crowd(bench)

    bench.worker.take([hint(b"large", *users, grant=bench.grants)])
    await bench.worker.drain()

    assert bench.edges.items() == [(b"large", user) for user in users]
    assert bench.grants.total == 1


async def test_the_next_large_hint_waits_until_the_one_before_is_paid_for(bench: Bench) -> None:
    users = crowd(bench, 500)
    bench.worker.take([hint(b"first", *users)])
    await settle()
    bench.worker.take([hint(b"second", *users)])
    await bench.clock.advance(0.4)
    before = {item for item, _ in bench.edges.items()}

    await bench.clock.advance(0.2)

    assert before == {b"first"}
    assert {item for item, _ in bench.edges.items()} == {b"first", b"second"}


async def test_small_hints_need_not_wait_for_a_large_one_that_is_paced(bench: Bench) -> None:
    users = crowd(bench, 500)
    bench.worker.take([hint(b"first", *users)])
    await settle()
    bench.worker.take([hint(b"second", *users)])

    bench.take(b"small")
    await settle()

    assert bench.edges.items()[-1] == (b"small", 1)


async def test_small_hints_go_first_between_the_pieces_of_a_large_one(bench: Bench) -> None:
    users = crowd(bench)
    bench.worker.take([hint(b"large", *users), hint(b"small", 1)])
    await bench.edges.pushed.reach(1)
    bench.take(b"later")

    await bench.worker.drain()

    items = [item for item, _ in bench.edges.items()]
    assert items.index(b"small") <= 256
    assert items.index(b"later") <= 512


async def test_large_hints_hold_back_for_an_edge_that_is_behind_but_not_for_ever(bench: Bench) -> None:
    users = crowd(bench, 300)
    bench.edges.backlog = MAX_AHEAD + 1
    bench.worker.take([hint(b"large", *users)])
    await settle()
    before = bench.edges.items()

    for _ in range(30):
        await bench.clock.advance(LOOK_S)

    assert before == []
    assert len(bench.edges.items()) == 300


async def test_large_hints_are_dropped_before_small_ones(bench: Bench) -> None:
    users = crowd(bench, 300)
    bench.registry.gate.clear()
    bench.worker._limits = AMPLE._replace(max_waiting_hints=400)
    bench.worker.take([hint(b"small", 1, grant=bench.grants)])
    bench.worker.take([hint(b"large %d" % number, *users, grant=bench.grants) for number in range(2)])
    bench.registry.gate.set()
    await bench.worker.drain()

    assert {item for item, _ in bench.edges.items()} == {b"small", b"large 1"}
    assert bench.grants.total == 3
    assert bench.worker.counters.dropped_hints == 1


async def test_above_the_bound_the_oldest_are_dropped_and_all_sessions_verify(bench: Bench) -> None:
    bench.take(*[b"%d" % number for number in range(15)])
    await bench.worker.drain()

    assert bench.edges.items() == [(b"%d" % number, 1) for number in range(5, 15)]
    assert bench.grants.total == 15
    assert [spread for _, spread in bench.edges.verified.entries] == [45_000]
    assert "dropped 5 items" in bench.edges.verified.entries[0][0]


async def test_above_the_bound_of_bytes_the_oldest_are_dropped(bench: Bench) -> None:
    bench.take(bytes(600), bytes(500), bytes(400))
    await bench.worker.drain()

    assert [len(item) for item, _ in bench.edges.items()] == [500, 400]


async def test_what_a_bug_in_a_round_drops_is_made_good(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    async def locate(hints: object) -> None:
        raise ValueError(hints)

    monkeypatch.setattr(bench.service, "locate", locate)
    bench.take(b"one")
    await bench.worker.drain()
    await settle()

    assert bench.worker.counters.dropped_hints == 1
    assert [spread for _, spread in bench.edges.verified.entries] == [45_000]


async def test_losses_that_follow_one_another_are_made_good_by_one_more_request(bench: Bench) -> None:
    bench.worker.lost("first")
    await settle()
    for _ in range(5):
        bench.worker.lost("later")
    await bench.clock.advance(4)
    before = list(bench.edges.verified.entries)

    await bench.clock.advance(2)
    await bench.clock.advance(10)

    assert before == [("first", 45_000)]
    assert bench.edges.verified.entries == [("first", 45_000), ("later", 45_000)]


async def test_without_the_registry_all_sessions_verify_every_ten_seconds_and_once_when_it_is_back(
    bench: Bench,
) -> None:
    bench.registry.is_down = True
    bench.take(b"one")
    await bench.worker.drain()
    bench.take(b"two")
    await bench.worker.drain()
    await bench.clock.advance(10)
    await bench.clock.advance(10)
    while_down = len(bench.edges.verified.entries)
    bench.registry.is_down = False
    await bench.clock.advance(10)
    await bench.clock.advance(30)

    assert while_down == 3
    reasons = [reason for reason, _ in bench.edges.verified.entries]
    assert reasons == ["svc_presence does not answer"] * 3 + ["svc_presence answers again"]
    assert bench.edges.items() == []
    assert bench.grants.total == 2


async def test_hints_flow_again_after_the_registry_is_back(bench: Bench) -> None:
    bench.registry.is_down = True
    bench.take(b"lost")
    await bench.worker.drain()
    bench.registry.is_down = False

    bench.take(b"kept")
    await bench.worker.drain()

    assert bench.edges.items() == [(b"kept", 1)]


async def test_a_returned_delivery_is_located_afresh_once(bench: Bench) -> None:
    bench.registry.routes = [route(1, session_id=13)]

    bench.give_back([Delivery(hint(b"one", 1), route(1))])
    await bench.worker.drain()
    (_, (delivery,)) = bench.edges.pushed.entries[0]
    bench.give_back([delivery])
    await bench.worker.drain()

    assert bench.edges.items() == [(b"one", 13)]
    assert [gone for _, gone in bench.registry.questions.entries] == [[route(1)]]
    assert bench.worker.counters.second_attempts == 1


async def test_idle_streams_are_swept_every_minute(bench: Bench) -> None:
    await bench.clock.advance(60)
    await bench.clock.advance(60)

    assert bench.edges.sweeps == 2


MESSAGE, RECEIPT = b"\x0a\x10" + bytes(16) + b"\x12\x00", b"\x0a\x10" + bytes(16) + b"\x1a\x00"


async def test_a_round_with_drawn_messages_is_traced_and_each_has_a_hop_with_its_shares(bench: Bench) -> None:
    spans = Spans()
    bench.worker.tracing = spans.tracing
    drawn = (sampled(b"m" * 16), sampled(b"n" * 16))
    receipts = hint(RECEIPT, 1, 2, 3, grant=bench.grants)._replace(drawn=drawn)

    bench.worker.take([hint(MESSAGE, 1, grant=bench.grants), receipts])
    await bench.worker.drain()

    assert spans.names == ["fanout.round", "fanout.carry", "fanout.carry"]
    (batch,), hops = spans.of("fanout.round"), spans.of("fanout.carry")
    assert {f"{link.context.trace_id:032x}" for link in batch.links} == {trace_of(hop) for hop in hops}
    said = [dict(hop.attributes or {}) for hop in hops]
    assert [one["chappe.message_id"] for one in said] == [(b"m" * 16).hex(), (b"n" * 16).hex()]
    about = {"item": "receipt", "users": 3, "deliveries": 2, "own_deliveries": 0, "attempt": 1, "batch_items": 2}
    assert {f"chappe.{name}": value for name, value in about.items()}.items() <= said[0].items()
    assert said[0].keys() >= {"chappe.wait_ms", "chappe.locate_ms"}


async def test_devices_of_the_sender_are_counted_apart_and_the_one_that_sent_not_at_all(bench: Bench) -> None:
    spans = Spans()
    bench.worker.tracing = spans.tracing
    bench.registry.routes = [route(1), route(2), route(2, device_id=2), route(2, device_id=3)]
    one = hint(MESSAGE, 1, 2, sender=2, origin=3, grant=bench.grants)._replace(drawn=(sampled(b"m" * 16),))

    bench.worker.take([one])
    await bench.worker.drain()

    said = spans.said("fanout.carry")
    assert (said["deliveries"], said["own_deliveries"]) == (1, 2)


async def test_a_drawn_message_that_was_dropped_says_why(bench: Bench) -> None:
    spans = Spans()
    bench.worker.tracing = spans.tracing
    bench.registry.is_down = True

    bench.worker.take([hint(MESSAGE, 1, grant=bench.grants)._replace(drawn=(sampled(b"m" * 16),))])
    await bench.worker.drain()

    assert spans.said("fanout.carry")["reason"] == "DEPENDENCY_UNAVAILABLE"
    assert "deliveries" not in spans.said("fanout.carry")


async def test_a_second_attempt_is_a_second_hop(bench: Bench) -> None:
    spans = Spans()
    bench.worker.tracing = spans.tracing
    one = hint(MESSAGE, 1, grant=bench.grants)._replace(drawn=(sampled(b"m" * 16),))

    bench.give_back([Delivery(one, route(1))])
    await bench.worker.drain()

    assert spans.said("fanout.carry")["attempt"] == 2


async def test_rounds_without_drawn_messages_make_no_span(bench: Bench) -> None:
    spans = Spans()
    bench.worker.tracing = spans.tracing

    bench.take(b"one", b"two")
    await bench.worker.drain()

    assert spans.names == []
