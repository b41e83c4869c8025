"""The core against a model of an edge: by single cases, then by everything that hypothesis can think of."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from chappe.api.edge.v1 import client_frame_pb2, item_pb2, server_frame_pb2
from chappe.api.type.v1 import error_reason_pb2 as reasons
from chappe.client.acks import LATE_ACKS
from chappe.client.calls import MOST_OPEN, Outcome
from chappe.client.changes import (
    CaughtUp,
    Disconnected,
    GoingAway,
    ItemArrived,
    ReadElsewhere,
    Resynced,
    TickRaised,
    Welcomed,
)
from chappe.client.errors import NotConnectedError, ProtocolError, RefusedError
from chappe.client.mint import time_ms_of
from chappe.client.store_memory import LeanStore
from chappe.client.store_sqlite import SqliteStore
from chappe.testing.history import HistoryWriter, actor_of, read_history
from tests.client.fakes import Desk, Notes
from tests.client.model_edge import (
    CONVERSATION,
    DEVICE,
    ME,
    PEER,
    ModelEdge,
    frame,
    message_item,
    read_item,
    receipt_item,
)

OPS = {"connect", "disconnect", "send", "stored", "apply", "ack", "read", "tick"}


@pytest.fixture(params=["lean", "sqlite"])
def store(request: pytest.FixtureRequest) -> Iterator[LeanStore | SqliteStore]:
    store = LeanStore() if request.param == "lean" else SqliteStore(None, ME, DEVICE)
    yield store
    store.close()


@pytest.fixture
def desk(store: LeanStore | SqliteStore) -> Desk:
    desk = Desk(store)
    desk.connect()
    desk.settle()
    return desk


def test_a_session_opens_with_a_hello_and_catches_up(desk: Desk) -> None:
    assert [type(change) for change in desk.shown] == [Welcomed, CaughtUp]
    assert desk.edge.hellos[0].cursor == b""


def test_a_message_is_stored_and_then_settled(desk: Desk) -> None:
    outgoing = desk.say()

    desk.settle()

    assert list(desk.edge.stored) == [outgoing.message_id]
    assert desk.sent() == [outgoing]


def test_nothing_leaves_before_it_is_in_the_outbox(desk: Desk) -> None:
    desk.say()

    batch = desk.core.take_batch(desk.clock.now_s)

    assert batch is not None
    assert batch.rows[0].message_id
    assert desk.core.frames == []


def test_what_is_composed_offline_gets_its_id_when_it_is_sent(store: LeanStore | SqliteStore) -> None:
    desk = Desk(store)
    outgoing = desk.say()
    desk.flush()
    assert outgoing.message_id == b""

    desk.clock.pass_s(3600)
    desk.edge.now_ms += 3_600_000
    desk.connect()
    desk.settle()

    assert time_ms_of(outgoing.message_id) >= desk.edge.now_ms
    assert desk.sent() == [outgoing]


def test_a_retry_repeats_the_bytes_and_raises_the_attempt(desk: Desk) -> None:
    outgoing = desk.say()
    desk.flush()
    desk.drop()

    desk.connect()
    desk.settle()

    attempts = desk.edge.bodies[outgoing.message_id]
    assert [attempt for attempt, _ in attempts] == [1, 2]
    assert attempts[0][1] == attempts[1][1]


def test_an_entry_from_the_disk_is_at_least_a_second_attempt(desk: Desk) -> None:
    outgoing = desk.say()
    desk.flush()

    desk.start()
    desk.connect()
    desk.settle()

    assert [attempt for attempt, _ in desk.edge.bodies[outgoing.message_id]] == [1, 2]
    assert len(desk.sent()) == 1


def test_an_answer_that_does_not_come_is_asked_for_again_after_4_8_and_16_seconds(desk: Desk) -> None:
    outgoing = desk.say()
    desk.flush()
    times = []

    for second in range(40):
        desk.edge.frames.clear()
        desk.clock.pass_s(1)
        desk.core.tick(desk.clock.now_s)
        if desk.core.frames:
            times.append(second + 1)
        desk.flush()

    assert times == [4, 12, 28]
    assert [attempt for attempt, _ in desk.edge.bodies[outgoing.message_id]] == [1, 2, 3, 4]


def test_a_retryable_refusal_waits_as_long_as_the_edge_says(desk: Desk) -> None:
    desk.edge.refuse_next(reasons.ERROR_REASON_RATE_LIMITED, is_retryable=True, retry_after_ms=9_000)
    outgoing = desk.say()
    desk.settle()

    desk.clock.pass_s(8.9)
    desk.core.tick(desk.clock.now_s)
    early = list(desk.core.frames)
    desk.clock.pass_s(0.2)
    desk.core.tick(desk.clock.now_s)
    desk.settle()

    assert early == []
    assert desk.sent() == [outgoing]


def test_after_a_restart_an_answer_sorts_after_what_was_seen_though_edge_and_device_are_behind(desk: Desk) -> None:
    seen = message_item(30_000)
    desk.edge.log.append(seen)
    desk.edge.push(0, 1)
    desk.settle()

    desk.start()
    desk.connect()
    outgoing = desk.say()
    desk.settle()

    assert outgoing.message_id > seen.message.message_id


def resent(desk: Desk, within_s: float, *, is_answered: bool = True) -> list[float]:
    """Returns after how many seconds the core sends again."""
    times = []
    for step in range(1, int(within_s * 2) + 1):
        desk.clock.pass_s(0.5)
        desk.core.tick(desk.clock.now_s)
        if desk.core.frames:
            times.append(step / 2)
        desk.flush()
        if not is_answered:
            desk.edge.frames.clear()
        desk.settle()
    return times


def test_who_is_refused_for_now_comes_again_after_a_second_and_then_every_two(desk: Desk) -> None:
    outgoing = desk.say()
    for _ in range(4):
        desk.edge.refuse_next(reasons.ERROR_REASON_DEPENDENCY_UNAVAILABLE, is_retryable=True, retry_after_ms=1_000)
    desk.settle()

    assert resent(desk, within_s=10) == [1, 3, 5, 7]
    assert desk.sent() == [outgoing]


def test_silence_after_refusals_counts_from_its_beginning(desk: Desk) -> None:
    desk.say()
    for _ in range(3):
        desk.edge.refuse_next(reasons.ERROR_REASON_DEPENDENCY_UNAVAILABLE, is_retryable=True, retry_after_ms=1_000)
    desk.settle()
    resent(desk, within_s=3)

    assert resent(desk, within_s=20, is_answered=False) == [2, 6, 14]


@pytest.mark.parametrize("reason", [reasons.ERROR_REASON_STALE_MESSAGE_ID, reasons.ERROR_REASON_CLOCK_SKEW])
def test_a_stale_or_skewed_id_is_minted_anew_from_the_same_draft(desk: Desk, reason: int) -> None:
    desk.edge.now_ms -= 600_000
    desk.edge.refuse_next(reason, is_retryable=False)
    outgoing = desk.say()

    desk.settle()

    (first, second) = desk.edge.bodies
    assert desk.edge.bodies[first][0][1][18:] == desk.edge.bodies[second][0][1][18:]
    assert list(desk.edge.stored) == [second] == [outgoing.message_id]
    assert desk.edge.bodies[second][0][0] == 1
    assert abs(time_ms_of(second) - desk.edge.now_ms) < 10 or reason == reasons.ERROR_REASON_STALE_MESSAGE_ID


def test_what_is_refused_at_once_as_stale_is_minted_anew_in_the_order_in_which_it_was_said(desk: Desk) -> None:
    said = [desk.say(b"%d" % number) for number in range(3)]
    for _ in said:
        desk.edge.refuse_next(reasons.ERROR_REASON_STALE_MESSAGE_ID, is_retryable=False)
    desk.flush()

    while desk.edge.frames:
        desk.receive()
    desk.settle()

    assert list(desk.edge.stored) == [outgoing.message_id for outgoing in said] == sorted(desk.edge.stored)


def test_what_is_minted_anew_goes_before_what_was_said_after_it(store: LeanStore | SqliteStore) -> None:
    desk = Desk(store, ModelEdge())
    desk.edge.window = 2
    desk.connect()
    desk.settle()
    said = [desk.say(b"%d" % number) for number in range(5)]
    for _ in range(2):
        desk.edge.refuse_next(reasons.ERROR_REASON_STALE_MESSAGE_ID, is_retryable=False)
    desk.flush()

    while desk.edge.frames:
        desk.receive()
    desk.settle()

    assert list(desk.edge.stored) == [outgoing.message_id for outgoing in said] == sorted(desk.edge.stored)


def test_a_draft_that_is_always_too_late_is_given_up(desk: Desk) -> None:
    for _ in range(8):
        desk.edge.refuse_next(reasons.ERROR_REASON_STALE_MESSAGE_ID, is_retryable=False)
    desk.say()

    desk.settle()

    assert [refusal.reason for refusal in desk.refused()] == ["STALE_MESSAGE_ID"]


def test_another_final_refusal_fails_the_send_for_good(desk: Desk) -> None:
    desk.edge.refuse_next(reasons.ERROR_REASON_RECIPIENT_NOT_FOUND, is_retryable=False)
    outgoing = desk.say()
    desk.settle()

    desk.start()
    desk.connect()
    desk.settle()

    assert [(change.outgoing, change.reason) for change in desk.refused()] == [(outgoing, "RECIPIENT_NOT_FOUND")]
    assert len(desk.edge.bodies[outgoing.message_id]) == 1


def test_no_more_sends_are_open_than_the_edge_allows(store: LeanStore | SqliteStore) -> None:
    desk = Desk(store, ModelEdge())
    desk.edge.window = 2
    desk.connect()
    desk.settle()
    for _ in range(5):
        desk.say()

    desk.flush()
    open_at_once = len(desk.edge.stored)
    desk.settle()

    assert open_at_once == 2
    assert len(desk.edge.stored) == 5


def test_what_is_composed_while_others_wait_leaves_after_them(store: LeanStore | SqliteStore) -> None:
    desk = Desk(store, ModelEdge())
    desk.edge.window = 3
    desk.connect()
    desk.settle()
    for _ in range(4):
        desk.say()
    desk.flush()

    while desk.edge.frames:
        desk.receive()
    desk.say()
    desk.settle()

    assert len(desk.edge.stored) == 5
    assert list(desk.edge.stored) == sorted(desk.edge.stored)


def test_reading_on_goes_through_the_outbox(desk: Desk) -> None:
    item = message_item(1)
    desk.edge.log.append(item)
    desk.edge.push(0, 1)
    desk.settle()

    desk.mark_read(item.message.message_id)
    desk.settle()

    assert desk.edge.read_upto == [item.message.message_id]


def test_events_are_shown_once_and_acknowledged_by_count(desk: Desk) -> None:
    desk.edge.log += [message_item(number) for number in range(1, 6)]
    desk.edge.push(0, 3)
    desk.edge.push(1, 5, cursor=5)

    desk.settle()

    assert desk.arrived() == [item.message.message_id for item in desk.edge.log]
    assert desk.edge.acked == 7
    assert desk.store.load().cursor == (5).to_bytes(4, "big")


def test_what_was_stored_and_not_acknowledged_before_a_crash_comes_again_and_is_shown_once(desk: Desk) -> None:
    item = message_item(1)
    desk.edge.log.append(item)
    desk.edge.push(0, 1)
    desk.receive()
    desk.commit()
    desk.show()
    assert desk.edge.acked == 0

    desk.start()
    desk.connect()
    desk.settle()

    assert desk.arrived() == [item.message.message_id]
    assert desk.edge.acked == 1


def test_an_ack_of_an_earlier_connection_is_not_sent_on_the_next(desk: Desk) -> None:
    desk.edge.log += [message_item(1)]
    desk.edge.push(0, 1)
    desk.receive()
    batch = desk.core.take_batch(desk.clock.now_s)
    desk.core.disconnected()
    desk.is_connected = False
    assert batch is not None

    desk.connect()
    desk.core.committed(batch, desk.store.commit(batch), desk.clock.now_s)

    assert desk.core.frames == []


def test_what_came_by_pages_is_acknowledged_by_the_next_session_when_its_own_ended_meanwhile(desk: Desk) -> None:
    message = message_item(1).message
    desk.core.outbox.batch.items.append(item_pb2.Item(message=message))
    desk.core.outbox.batch.history_ids.append(message.message_id)
    batch = desk.core.take_batch(desk.clock.now_s)
    assert batch is not None

    desk.drop()
    desk.core.committed(batch, desk.store.commit(batch), desk.clock.now_s)
    desk.connect()
    early = list(desk.edge.acked_ids)
    desk.settle()

    assert (early, desk.edge.acked_ids) == ([], [message.message_id])


def test_a_session_resumes_at_the_cursor_that_was_stored(desk: Desk) -> None:
    desk.edge.log += [message_item(1), message_item(2)]
    desk.edge.push(0, 2, cursor=2)
    desk.settle()
    desk.drop()

    desk.connect()
    desk.settle()

    assert desk.edge.hellos[-1].cursor == (2).to_bytes(4, "big")
    assert len(desk.arrived()) == 2


def test_a_cursor_waits_for_the_items_before_it(desk: Desk) -> None:
    desk.edge.log += [message_item(1)]
    desk.edge.push(0, 1, cursor=1)

    desk.receive()

    assert desk.core.cursor == b""
    assert desk.store.load().cursor == b""


def test_ticks_only_rise(desk: Desk) -> None:
    outgoing = desk.say()
    desk.settle()
    ids = [outgoing.message_id]
    desk.edge.log += [receipt_item(1, ids, 3), receipt_item(2, ids, 2), receipt_item(3, ids, 3)]
    desk.edge.push(0, 3)

    desk.settle()

    assert [(tick.message_id, tick.state) for tick in desk.of(TickRaised)] == [(ids[0], 3)]


def test_what_was_read_elsewhere_is_told_once_and_only_when_it_is_more(desk: Desk) -> None:
    upto = [message_item(number).message.message_id for number in (1, 2, 3)]
    desk.edge.log += [read_item(number, upto[read]) for number, read in enumerate((1, 0, 1, 2), 1)]
    desk.edge.push(0, 4)
    desk.settle()
    desk.drop()

    desk.connect()
    desk.settle()

    assert desk.of(ReadElsewhere) == [ReadElsewhere(CONVERSATION, upto[1]), ReadElsewhere(CONVERSATION, upto[2])]
    assert desk.edge.acked == 4


def test_receipts_are_acknowledged_with_what_comes_next(desk: Desk) -> None:
    outgoing = desk.say()
    desk.settle()
    desk.edge.log += [receipt_item(1, [outgoing.message_id]), message_item(2)]

    desk.edge.push(0, 1)
    desk.settle()
    assert (desk.edge.acked, desk.core.acks.is_owed) == (0, True)

    desk.edge.push(1, 2)
    desk.settle()
    assert (desk.edge.acked, desk.core.acks.is_owed) == (2, False)


def test_receipts_after_which_nothing_comes_are_acknowledged_at_the_next_tick(desk: Desk) -> None:
    outgoing = desk.say()
    desk.settle()
    desk.edge.log.append(receipt_item(1, [outgoing.message_id]))
    desk.edge.push(0, 1)
    desk.settle()

    desk.core.tick(1.0)
    desk.settle()

    assert (desk.edge.acked, desk.core.acks.is_owed) == (1, False)


def test_an_acknowledgement_that_was_put_off_ends_with_its_connection(desk: Desk) -> None:
    outgoing = desk.say()
    desk.settle()
    desk.edge.log.append(receipt_item(1, [outgoing.message_id]))
    desk.edge.push(0, 1)
    desk.settle()
    assert desk.core.acks.is_owed

    desk.core.disconnected()

    assert not desk.core.acks.is_owed


def test_many_receipts_are_acknowledged_without_waiting(desk: Desk) -> None:
    outgoing = desk.say()
    desk.settle()
    desk.edge.log += [receipt_item(number, [outgoing.message_id]) for number in range(1, LATE_ACKS + 1)]

    desk.edge.push(0, LATE_ACKS)
    desk.settle()

    assert desk.edge.acked == LATE_ACKS


def test_an_event_that_is_not_known_is_stored_and_acknowledged(desk: Desk) -> None:
    desk.edge.log.append(item_pb2.Item.FromString(b"\x0a\x10" + bytes(16) + b"\x7a\x02\x08\x01"))
    desk.edge.push(0, 1)

    desk.settle()

    assert desk.edge.acked == 1
    assert len(desk.of(ItemArrived)) == 1


def test_a_resync_starts_the_log_from_its_beginning(desk: Desk) -> None:
    desk.edge.log += [message_item(1)]
    desk.edge.push(0, 1, cursor=1)
    desk.settle()

    resync = server_frame_pb2.Resync(reason=reasons.ERROR_REASON_CURSOR_EXPIRED, detail="too old")
    desk.edge.frames.append(frame(resync=resync).SerializeToString())
    desk.settle()

    assert desk.store.load().cursor == b""
    assert desk.of(Resynced) == [Resynced("CURSOR_EXPIRED", "too old")]


def test_a_frame_that_is_none_is_an_error_and_one_of_a_new_kind_is_not(desk: Desk) -> None:
    desk.core.received(b"\xfa\x07\x00", desk.clock.now_s)

    with pytest.raises(ProtocolError, match="edge:1 sent a frame of 3 bytes"):
        desk.core.received(b"\x0a\xff\xff", desk.clock.now_s)


def test_a_pong_teaches_the_clock(desk: Desk) -> None:
    desk.edge.now_ms += 5_000
    desk.core.ping(desk.clock.now_s)

    desk.settle()

    assert desk.core.clock.estimate_ms(desk.clock.now_s) == pytest.approx(desk.edge.now_ms - 5_000, abs=5_001)
    assert len(desk.edge.pings) == 1


def test_an_answer_sorts_after_what_it_answers_though_the_edge_is_behind(desk: Desk) -> None:
    desk.edge.now_ms -= 30_000
    desk.drop()
    desk.connect()
    desk.settle()
    asked = message_item(1)
    desk.edge.log.append(asked)
    desk.edge.push(0, 1)
    desk.settle()

    answer = desk.say()
    desk.settle()

    assert answer.message_id > asked.message.message_id


def test_a_goaway_is_passed_on_with_its_delay(desk: Desk) -> None:
    go_away = server_frame_pb2.GoAway(close_code=4000, detail="drain", reconnect_after_ms=1500)
    desk.edge.frames.append(frame(go_away=go_away).SerializeToString())

    desk.settle()

    assert desk.of(GoingAway) == [GoingAway(4000, "drain", 1500)]


def test_a_call_gets_its_own_answer(desk: Desk) -> None:
    outcomes: list[Outcome] = []
    for _ in range(2):
        desk.core.calls.begin("a/B", b"", outcomes.append)

    results = [
        server_frame_pb2.CallResult(id=2, payload=b"two"),
        server_frame_pb2.CallResult(
            id=1, error=server_frame_pb2.CallError(code=8, reason=reasons.ERROR_REASON_RATE_LIMITED, detail="slow")
        ),
        server_frame_pb2.CallResult(id=7, payload=b"nobody asked"),
    ]
    desk.edge.frames += [frame(call_result=result).SerializeToString() for result in results]
    desk.settle()

    assert outcomes[0].payload == b"two"
    assert isinstance(outcomes[1].error, RefusedError)
    assert outcomes[1].error.reason == "RATE_LIMITED"


def test_no_more_calls_are_under_way_than_an_edge_takes(desk: Desk) -> None:
    outcomes: list[Outcome] = []
    for _ in range(MOST_OPEN + 2):
        desk.core.calls.ask("a/B", b"", outcomes.append)
    asked: list[int] = []
    desk.edge.take = lambda data: asked.append(client_frame_pb2.ClientFrame.FromString(data).call.id)  # type: ignore[method-assign]  # an edge that answers later
    desk.flush()
    at_first = list(asked)

    for number in at_first[:1]:
        desk.core.received(frame(call_result=server_frame_pb2.CallResult(id=number)).SerializeToString(), 0.0)
    desk.flush()

    assert at_first == list(range(1, MOST_OPEN + 1))
    assert (asked[MOST_OPEN:], len(outcomes)) == ([MOST_OPEN + 1], 1)


def test_a_call_without_an_answer_fails_with_the_connection(desk: Desk) -> None:
    outcomes: list[Outcome] = []
    desk.core.calls.begin("a/B", b"", outcomes.append)

    desk.drop()

    assert isinstance(outcomes[0].error, NotConnectedError)
    assert len(desk.of(Disconnected)) == 1


def test_the_history_says_what_happened_before_it_has_consequences(store: LeanStore | SqliteStore) -> None:
    notes = Notes()
    desk = Desk(store, recorder=notes)
    desk.connect()
    desk.settle()
    desk.edge.log.append(message_item(1))
    outgoing = desk.say()
    desk.edge.push(0, 1)
    desk.settle()
    desk.edge.log.append(receipt_item(2, [outgoing.message_id]))
    desk.edge.push(1, 2)
    desk.mark_read(message_item(1).message.message_id)
    desk.settle()

    names = [name for name, _ in notes.lines]
    assert names == ["note", "send", "apply", "ack", "stored", "read_upto", "send", "tick", "stored"]
    assert notes.named("tick") == [(outgoing.message_id, "delivered", PEER)]
    assert notes.named("apply")[0][0].conv == CONVERSATION


def test_the_writer_of_histories_is_a_recorder(store: LeanStore | SqliteStore, tmp_path: Path) -> None:
    with HistoryWriter(tmp_path / "alice.jsonl", actor_of(ME, DEVICE)) as recorder:
        desk = Desk(store, recorder=recorder)
        desk.connect()
        outgoing = desk.say()
        desk.edge.log += [message_item(1), receipt_item(2, [outgoing.message_id])]
        desk.settle()
        desk.edge.push(0, 2)
        desk.mark_read(message_item(1).message.message_id)
        desk.settle()
        desk.drop()

    lines = list(read_history([tmp_path / "alice.jsonl"]))

    assert {line["op"] for line in lines} == OPS


class DeviceMachine(RuleBasedStateMachine):
    """Breaks connections, restarts clients, loses, repeats and shuffles frames; then lets everything come to rest."""

    @initialize(is_lean=st.booleans())
    def begin(self, *, is_lean: bool) -> None:
        self.desk = Desk(LeanStore() if is_lean else SqliteStore(None, ME, DEVICE))
        self.said = 0
        self.pushed = 0

    @rule()
    def say(self) -> None:
        self.desk.say(b"%d" % self.said)
        self.said += 1
        # In the outbox before the next thing happens; what a crash takes earlier was never promised.
        self.commit()

    @rule(count=st.integers(1, 40))
    def peer_says(self, count: int) -> None:
        edge = self.desk.edge
        edge.log += [message_item(len(edge.log) + 1 + index) for index in range(count)]

    @precondition(lambda self: self.desk.is_connected and self.desk.core.session.session_id)
    @rule(back=st.integers(0, 5), length=st.integers(1, 50), has_cursor=st.booleans())
    def push(self, back: int, length: int, *, has_cursor: bool) -> None:
        edge = self.desk.edge
        start = max(0, self.pushed - back)
        end = min(len(edge.log), start + length)
        cursor = edge.verified() if has_cursor else None
        if end > start:
            edge.push(start, end, cursor)
            self.pushed = end

    @precondition(lambda self: not self.desk.is_connected)
    @rule()
    def connect(self) -> None:
        self.desk.connect()
        self.pushed = len(self.desk.edge.log)

    @precondition(lambda self: self.desk.is_connected)
    @rule()
    def drop(self) -> None:
        self.desk.drop()

    @rule(is_committed=st.booleans())
    def crash(self, *, is_committed: bool) -> None:
        if is_committed:
            self.commit()
        self.desk.start()

    @precondition(lambda self: self.desk.edge.frames)
    @rule(count=st.integers(1, 8))
    def receive(self, count: int) -> None:
        for _ in range(min(count, len(self.desk.edge.frames))):
            self.desk.receive()

    @precondition(lambda self: self.desk.edge.frames)
    @rule(index=st.integers(0, 20))
    def swap_answers(self, index: int) -> None:
        frames = self.desk.edge.frames
        answers = [at for at, data in enumerate(frames) if data[:1] in {b"\x12", b"\x1a"}]
        if len(answers) > 1:
            one, other = answers[index % len(answers)], answers[0]
            frames[one], frames[other] = frames[other], frames[one]

    @precondition(lambda self: self.desk.edge.frames)
    @rule(index=st.integers(0, 20))
    def repeat_an_answer(self, index: int) -> None:
        answers = [data for data in self.desk.edge.frames if data[:1] in {b"\x12", b"\x1a"}]
        if answers:
            self.desk.edge.frames.append(answers[index % len(answers)])

    @rule()
    def flush(self) -> None:
        self.desk.flush()

    @rule()
    def commit(self) -> None:
        self.desk.commit()
        self.desk.show()

    @rule(delay_s=st.floats(0.1, 20))
    def wait(self, delay_s: float) -> None:
        self.desk.clock.pass_s(delay_s)
        self.desk.edge.now_ms += int(delay_s * 1000)
        if self.desk.is_connected:
            self.desk.core.tick(self.desk.clock.now_s)

    @rule(is_retryable=st.booleans())
    def refuse(self, *, is_retryable: bool) -> None:
        reason = reasons.ERROR_REASON_RATE_LIMITED if is_retryable else reasons.ERROR_REASON_STALE_MESSAGE_ID
        self.desk.edge.refuse_next(reason, is_retryable=is_retryable)

    @invariant()
    def nothing_is_shown_twice(self) -> None:
        arrived = self.desk.arrived()
        assert len(arrived) == len(set(arrived))

    @invariant()
    def the_cursor_is_not_ahead_of_what_is_stored(self) -> None:
        cursor = int.from_bytes(self.desk.store.load().cursor, "big")
        before = {item.message.message_id for item in self.desk.edge.log[:cursor]}
        assert before <= set(self.desk.arrived())

    @invariant()
    def retries_repeat_the_bytes(self) -> None:
        for attempts in self.desk.edge.bodies.values():
            assert len({body for _, body in attempts}) == 1
            assert attempts[0][0] >= 1
            assert all(attempt >= 2 for attempt, _ in attempts[1:])

    def teardown(self) -> None:
        desk = self.desk
        desk.edge._refusals.clear()
        for _ in range(3):
            if desk.is_connected:
                desk.drop()
            desk.connect()
            desk.settle()
        texts = sorted(int(body.rsplit(b"\x12", 1)[1][1:]) for body in desk.edge.stored.values())
        assert texts == list(range(self.said))
        assert set(desk.arrived()) == {item.message.message_id for item in desk.edge.log}
        assert desk.core.outbox.pending == 0


TestDevice = pytest.mark.untraced(DeviceMachine.TestCase)
TestDevice.settings = settings(max_examples=60, stateful_step_count=60)
