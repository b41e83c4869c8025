"""The session as a pure state machine: by cases, and by whatever hypothesis makes of it."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from chappe.runtime.clock import Seams
from svc_edge.errors import Closing, SessionClosed
from svc_edge.model import ConnectOutcome, DeviceId, InboxAnswer, Member, SessionId, SessionRef, SignInId, UserId
from svc_edge.protocol.account import Account
from svc_edge.protocol.budget import Rate
from svc_edge.protocol.delivery import MAX_HELD, MAX_KNOWN, Delivery, Page, Reading
from svc_edge.protocol.session import (
    FIRST_VERIFY_JITTER_S,
    FIRST_VERIFY_S,
    PING_INTERVAL_S,
    Limits,
    Phase,
    Session,
)
from svc_edge.service.mesh import Mesh
from svc_edge.service.sessions import SLOT_S, Sessions
from svc_edge.service.sign_in import SignIn
from svc_edge.service.tokens import Revocations
from tests.svc_fanout.fakes import SeededRandomness

LIMITS = Limits(Rate(10, 5), 3, 20, 120.0, 30.0)
FIRST_MESSAGE = 1_000_000
ALICE = Member(UserId(b"a" * 16), DeviceId(1), SignInId(b"s" * 16))


class NoDoor:
    """Stands where the socket is."""

    def flush(self) -> None: ...

    def ping(self) -> None: ...

    def warn(self, closing: Closing) -> None: ...
    def close_soon(self, closing: Closing) -> None: ...

    def close(self, closing: Closing) -> None: ...


class StillClock:
    """Stands still."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def wall_ms(self) -> int:
        return int(self.now_s * 1000)

    def monotonic_s(self) -> float:
        return self.now_s

    async def sleep(self, delay_s: float) -> None:
        raise NotImplementedError


class LateRegistry:
    """Takes whoever comes."""

    async def connect(self, session: SessionRef, nonce: bytes, age_s: float) -> ConnectOutcome | None:
        return ConnectOutcome("", SessionId(0))

    def refresh(self, session: SessionRef) -> None: ...

    def bye(self, session: SessionRef) -> None: ...


class NoReader:
    """Stands where logs are read, and where carriers are told."""

    def pump(self, session: Session) -> None: ...

    def arrived(self, user_id: UserId) -> None: ...


def entry(number: int, message: int | None = None) -> tuple[bytes, bytes, int]:
    """Returns the item of a message at a position; `message` names it when that is not the first time."""
    position = number.to_bytes(16, "big")
    message_id = (FIRST_MESSAGE + (number if message is None else message)).to_bytes(16, "big")
    return b"\x0a\x10" + position + b"\x12\x12\x0a\x10" + message_id, position + message_id + bytes(32), 1


def answer(entries: list[Any], *, bound: int = 0, has_more: bool = False, cursor: bytes = b"") -> InboxAnswer:
    bound_bytes = bound.to_bytes(16, "big")
    items, keys, flags = [list(column) for column in zip(*entries, strict=True)] or [[], [], []]
    return InboxAnswer(items, keys, flags, has_more, cursor or bound_bytes, bound_bytes, is_resync=False)


def due_page(delivery: Delivery) -> Page:
    page = delivery.next_page()
    assert page is not None
    return page


def ids_in(known: bytes) -> list[bytes]:
    return [known[start : start + 16] for start in range(0, len(known), 16)]


def caught_up(window: int = 20) -> Delivery:
    """Returns a delivery whose first pass is over."""
    delivery = Delivery(b"", window)
    delivery.request_pass(Reading.CATCH_UP)
    delivery.take_page(due_page(delivery), answer([]))
    assert delivery.take().caught_up is not None
    return delivery


def new_session() -> Session:
    session = Session(SessionId(1), NoDoor(), LIMITS, 100.0)
    session.begin_hello()
    session.begin_delivery(ALICE, b"", 0)
    session.begin_live(100.0, 0.0)
    return session


def test_a_push_is_sent_once_however_often_it_comes() -> None:
    delivery = caught_up()

    for _ in range(3):
        assert delivery.offer(*entry(1))

    assert delivery.take().items == [entry(1)[0]]
    assert delivery.offer(*entry(1))
    assert not delivery.has_output


def test_a_message_that_was_written_again_under_a_fresh_position_is_the_same() -> None:
    delivery = caught_up()

    delivery.offer(*entry(1, message=7))
    delivery.offer(*entry(2, message=7))

    assert len(delivery.take().items) == 1


def test_two_receipts_that_name_the_same_message_are_two() -> None:
    delivery = caught_up()

    for number in (1, 2):
        item, key, _ = entry(number, message=7)
        delivery.offer(item[:18] + b"\x1a" + item[19:], key, 0)

    assert len(delivery.take().items) == 2


def test_pushes_wait_until_the_first_pass_is_through() -> None:
    delivery = Delivery(b"", 20)
    delivery.request_pass(Reading.CATCH_UP)
    page = due_page(delivery)

    delivery.offer(*entry(9))
    delivery.take_page(page, answer([entry(1), entry(2)], bound=5))
    first, second = delivery.take(), delivery.take()

    assert (first.items, first.caught_up is not None) == ([entry(1)[0], entry(2)[0]], True)
    assert second.items == [entry(9)[0]]


def test_pushes_beyond_what_may_wait_are_read_from_the_log() -> None:
    delivery = Delivery(b"", 1000)
    delivery.request_pass(Reading.CATCH_UP)
    page = due_page(delivery)

    offered = [delivery.offer(*entry(number)) for number in range(1, MAX_HELD + 2)]
    delivery.take_page(page, answer([]))
    delivery.take()

    assert (offered[-2], offered[-1]) == (True, False)
    assert delivery.next_page() is not None


def test_a_page_asks_on_where_the_last_one_ended_with_the_same_bound() -> None:
    delivery = Delivery(b"start", 20)
    delivery.request_pass(Reading.CATCH_UP)

    first = due_page(delivery)
    delivery.take_page(first, answer([entry(1), entry(2)], bound=50, has_more=True))
    delivery.take()
    second = due_page(delivery)

    assert (first.cursor, first.after, first.bound) == (b"start", b"", b"")
    assert (second.after, second.bound) == (entry(2)[1][:16], (50).to_bytes(16, "big"))


def test_pushes_beside_a_verification_leave_room_for_what_it_finds() -> None:
    delivery = caught_up(8)
    delivery.request_pass(Reading.VERIFY)
    page = due_page(delivery)

    for number in range(9, 17):
        delivery.offer(*entry(number))
    delivery.take_page(page, answer([entry(number) for number in range(1, 1 + page.limit)]))

    assert len(delivery.take().items) == 8


def test_a_read_without_an_answer_gives_back_the_room_for_what_it_would_have_brought() -> None:
    delivery = caught_up(8)
    delivery.request_pass(Reading.VERIFY)
    due_page(delivery)

    delivery.drop_page()

    assert delivery.room == 8


def test_a_page_names_the_messages_that_it_may_hold_and_that_were_sent_already() -> None:
    delivery = Delivery(b"", 20)
    delivery.request_pass(Reading.CATCH_UP)
    delivery.take_page(due_page(delivery), answer([entry(1)], bound=1))
    delivery.take()
    item, key, flags = entry(3)
    for delivered in (entry(2), (b"\x0a\x10" + key[:16] + b"\x1a" + item[19:], key, flags), entry(4)):
        delivery.offer(*delivered)
    delivery.request_pass(Reading.VERIFY)

    page = due_page(delivery)

    assert ids_in(page.known) == [entry(number)[1][16:32] for number in (2, 4)]


def test_a_page_names_no_more_messages_than_the_contract_allows() -> None:
    delivery = caught_up(2 * MAX_KNOWN)
    for number in range(1, MAX_KNOWN + 3):
        delivery.offer(*entry(number))
    delivery.request_pass(Reading.VERIFY)

    known = ids_in(due_page(delivery).known)

    assert known == [entry(number)[1][16:32] for number in range(1, MAX_KNOWN + 1)]


def test_what_a_socket_that_was_paused_did_not_take_is_named_no_more() -> None:
    delivery = caught_up()
    delivery.offer(*entry(1))
    delivery.pause()
    delivery.is_paused = False

    assert due_page(delivery).known == b""


def test_the_answer_to_a_read_of_an_abandoned_pass_is_thrown_away() -> None:
    delivery = caught_up()
    delivery.request_pass(Reading.VERIFY)
    page = due_page(delivery)

    delivery.pause()
    delivery.is_paused = False
    delivery.request_pass(Reading.CATCH_UP)
    delivery.take_page(page, answer([entry(3)], has_more=True))

    assert not delivery.has_output
    assert due_page(delivery).after == b""


def test_a_paused_socket_drops_what_waits_and_reads_it_later() -> None:
    delivery = caught_up()
    delivery.offer(*entry(1))

    delivery.pause()
    slow = delivery.offer(*entry(2))
    delivery.is_paused = False
    delivery.take_page(due_page(delivery), answer([entry(1), entry(2)]))

    assert not slow
    assert delivery.take().items == [entry(1)[0], entry(2)[0]]


def test_a_full_window_waits_for_acks_and_then_reads_on() -> None:
    delivery = caught_up(window=2)

    offered = [delivery.offer(*entry(number)) for number in (1, 2, 3)]
    delivery.take()
    before = delivery.next_page()
    delivery.acknowledge(1)

    assert (offered, before) == ([True, True, False], None)
    assert due_page(delivery).limit == 1


def test_a_cursor_waits_for_every_frame_of_what_was_found_before_it() -> None:
    delivery = caught_up(window=300)
    for number in range(1, 151):
        delivery.offer(*entry(number))
    delivery.request_pass(Reading.VERIFY)
    delivery.take_page(due_page(delivery), answer([], bound=150))

    sent = [len(delivery.take().items) for _ in range(2)]
    delivery.acknowledge(100)
    delivery.account.settle()
    early = delivery.account.release()
    delivery.acknowledge(150)
    delivery.account.settle()

    assert (sent, early) == ([100, 50], b"")
    assert delivery.account.release() == (150).to_bytes(16, "big")


def test_a_cursor_waits_for_the_acks_and_for_the_ledger() -> None:
    account = Account(b"old")
    account.note_sent([b"k" * 64, b"", b"l" * 64])
    account.promise(b"new")

    account.acknowledge(3)
    before_settling = account.release()
    settlement = account.settle()
    assert settlement is not None
    account.await_confirmation(5, settlement)
    before_confirming = account.release()
    account.confirm(5)

    assert (settlement.keys, settlement.first) == (b"k" * 64 + b"l" * 64, 1)
    assert (before_settling, before_confirming, account.release()) == (b"", b"", b"new")


def test_ids_settle_the_items_that_they_name_once() -> None:
    account = Account(b"")
    keys = [number.to_bytes(16, "big") * 4 for number in (1, 2, 3)]
    account.note_sent(keys)

    named = account.settle_ids([keys[1][16:32], b"unknown" + bytes(9)])
    account.acknowledge(3)
    rest = account.settle()

    assert named is not None
    assert (named.keys, named.first) == (keys[1], 2)
    assert rest is not None
    assert rest.keys == keys[0] + keys[2]


def test_an_ack_beyond_what_was_sent_ends_the_session_and_a_lower_one_changes_nothing() -> None:
    account = Account(b"")
    account.note_sent([b"", b""])

    assert (account.acknowledge(2), account.acknowledge(1), account.acked) == (2, 0, 2)
    with pytest.raises(SessionClosed, match="only 2 items"):
        account.acknowledge(3)


def test_the_frame_budget_is_a_bucket() -> None:
    session = new_session()

    for _ in range(10):
        session.spend_frame(0.0)
    session.spend_frame(100.4)
    session.spend_frame(0.0)

    with pytest.raises(SessionClosed, match="10 frames at once"):
        session.spend_frame(100.5)


def test_a_session_says_when_to_look_at_it_and_what_is_due_then() -> None:
    session = new_session()

    first = session.tick(120.0)
    session.plan_verify(120.0, 0.0)
    session.life_s = 121.0
    second = session.tick(140.0)
    third = session.tick(160.0)

    assert (first.wants_ping, first.wants_refresh, first.wants_verify) == (True, True, True)
    assert (second.wants_ping, second.wants_refresh) == (True, True)
    assert (third.wants_ping, third.wants_refresh) == (True, False)
    assert session.next_look_s() == 166.0
    with pytest.raises(SessionClosed, match="no frame and no pong"):
        session.tick(166.0)


def test_a_verification_that_came_early_does_not_stand_for_the_first_one() -> None:
    session = new_session()
    session.verify_at_s = 103.0

    session.plan_verify(103.0, 0.0)

    assert session.verify_at_s == 100.0 + FIRST_VERIFY_S


@pytest.mark.parametrize("jitter", [-1.0, -0.3, 0.0, 0.3, 1.0])
def test_a_client_that_is_silent_after_hello_is_refreshed_with_its_first_ping(jitter: float) -> None:
    sessions = Sessions(Seams(StillClock(100.0), SeededRandomness()), LIMITS)
    session = sessions.open(NoDoor())
    session.begin_hello()
    session.life_s = 100.0
    session.begin_delivery(ALICE, b"", 0)
    session.begin_live(100.0, jitter)

    assert session.ping_at_s <= 100.0 + PING_INTERVAL_S
    assert session.tick(session.ping_at_s + 2 * SLOT_S).wants_refresh


def test_what_a_registry_forgot_is_verified_once_nobody_remembers_where_it_was() -> None:
    sessions = Sessions(Seams(StillClock(100.0), SeededRandomness()), LIMITS)
    session = sessions.open(NoDoor())
    session.begin_hello()
    session.begin_delivery(ALICE, b"", 0)
    session.begin_live(0.0, 0.0)
    mesh = Mesh(sessions, Revocations(), Seams(StillClock(100.0), SeededRandomness()))

    session.verify_at_s = 101.0
    mesh.registry_forgot()
    refreshed_s = session.ping_at_s
    session.plan_verify(session.verify_at_s, 0.0)

    assert refreshed_s + FIRST_VERIFY_S <= session.verify_at_s <= 160.0


async def test_a_session_that_is_registered_late_is_looked_at_for_its_first_verification() -> None:
    clock = StillClock(100.0)
    seams = Seams(clock, SeededRandomness())
    sessions = Sessions(seams, LIMITS)
    reader: Any = NoReader()
    sign_in = SignIn(sessions, reader, LateRegistry(), reader, seams=seams, terms=(LIMITS, reader, frozenset()))
    sign_in.carriers = reader
    session = sessions.open(NoDoor())
    session.begin_hello()
    session.begin_delivery(ALICE, b"", 0)
    session.route_nonce = bytes(16)
    session.begin_live(0.0, 0.0)
    session.ping_at_s = session.verify_at_s = 200.0
    session.planned_slot = 0
    sessions.plan(session)

    await sign_in.register_late(session)

    assert (session.planned_slot - 1) * SLOT_S <= 100.0 + FIRST_VERIFY_S + FIRST_VERIFY_JITTER_S


def test_frames_have_their_phases() -> None:
    session = Session(SessionId(1), NoDoor(), LIMITS, 0.0)

    with pytest.raises(SessionClosed) as early:
        session.expect_live("Send")
    session.begin_hello()
    with pytest.raises(SessionClosed) as twice:
        session.begin_hello()
    session.begin_live(0.0, 0.0)
    with pytest.raises(SessionClosed) as anonymous:
        session.expect_live("Send")

    assert session.phase is Phase.ANONYMOUS
    assert [caught.value.closing.code for caught in (early, twice, anonymous)] == [4401, 4400, 4403]


class Life(RuleBasedStateMachine):
    """A device behind an edge, over a log to which entries are added at its end, with pushes that may be lost.

    The model of the ledger: a read returns what is in the log and not known, and its cursor names the end of the log
    less a horizon.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log: list[int] = []
        self.shown: list[bytes] = []
        self.acked = 0
        self.unconfirmed: list[int] = []
        self.confirmed: set[bytes] = set()
        self.waiting: list[tuple[int, bytes]] = []
        self.page: Page | None = None
        self.kept = 0
        self.last_ack = 0

    @initialize(window=st.sampled_from([1, 2, 7, 40, 250]), size=st.integers(0, 250))
    def begin(self, window: int, size: int) -> None:
        self.log = list(range(1, size + 1))
        self.delivery = Delivery(b"", window)
        self.delivery.request_pass(Reading.CATCH_UP)

    @rule(count=st.integers(1, 120), arrive=st.one_of(st.just(-1), st.integers(0, 2**120)))
    def append(self, count: int, arrive: int) -> None:
        for index in range(count):
            self.log.append(len(self.log) + 1)
            if arrive >> index & 1:
                self.delivery.offer(*entry(self.log[-1]))

    @rule()
    def push_again(self) -> None:
        if self.log:
            self.delivery.offer(*entry(self.log[-1]))

    @rule()
    def ask(self) -> None:
        self.page = self.page or self.delivery.next_page()

    @rule(is_lost=st.booleans())
    def reply(self, *, is_lost: bool) -> None:
        if self.page is None:
            return
        page, self.page = self.page, None
        if is_lost:
            self.delivery.drop_page()
            return
        self.delivery.take_page(page, self._read(page))

    @rule()
    def verify(self) -> None:
        self.delivery.request_pass(Reading.VERIFY)

    @rule()
    def flush(self) -> None:
        while self.delivery.has_output:
            outgoing = self.delivery.take()
            self.shown += [item[2:18] for item in outgoing.items]
            self._keep(outgoing.cursor)

    @rule(part=st.floats(0, 1))
    def acknowledge(self, part: float) -> None:
        count = self.acked + int((len(self.shown) - self.acked) * part + 0.999)
        self.acked = min(count, len(self.shown))
        self.delivery.acknowledge(self.acked)
        settlement = self.delivery.account.settle()
        if settlement is not None:
            self.last_ack += 1
            self.waiting.append((self.last_ack, settlement.keys))
            self.delivery.account.await_confirmation(self.last_ack, settlement)
        self.delivery.note_release()

    @rule(which=st.integers(0, 5))
    def confirm(self, which: int) -> None:
        if self.waiting:
            ack_id, keys = self.waiting.pop(which % len(self.waiting))
            self.confirmed |= {keys[start : start + 16] for start in range(0, len(keys), 64)}
            self.delivery.confirm(ack_id)

    @rule()
    def pause(self) -> None:
        self.delivery.pause()

    @rule()
    def resume(self) -> None:
        self.delivery.is_paused = False

    @invariant()
    def no_item_is_shown_twice(self) -> None:
        assert len(set(self.shown)) == len(self.shown)

    @invariant()
    def the_counts_agree(self) -> None:
        if hasattr(self, "delivery"):
            assert self.delivery.account.sent == len(self.shown)
            assert self.delivery.account.acked == self.acked
            assert self.delivery.account.sent - self.acked <= self.delivery.window

    @invariant()
    def the_cursor_passes_nothing_that_is_not_acknowledged_and_confirmed(self) -> None:
        acked = set(self.shown[: self.acked])
        passed = {number.to_bytes(16, "big") for number in self.log if number <= self.kept}
        assert passed <= acked
        assert passed <= self.confirmed

    def teardown(self) -> None:
        """In the end, with a device that reads and acknowledges, everything in the log has been shown."""
        if not hasattr(self, "delivery"):
            return
        self.resume()
        self.verify()
        while len(self.shown) < len(self.log) or self.delivery.reading is not Reading.NOTHING:
            self.ask()
            self.reply(is_lost=False)
            self.flush()
            self.acknowledge(1.0)
            self.resume()
        assert {number.to_bytes(16, "big") for number in self.log} == set(self.shown)
        self.no_item_is_shown_twice()

    def _read(self, page: Page) -> InboxAnswer:
        bound = int.from_bytes(page.bound, "big") if page.bound else max(len(self.log) - 5, 0)
        after = int.from_bytes(page.after or page.cursor, "big")
        known = {int.from_bytes(one, "big") - FIRST_MESSAGE for one in ids_in(page.known)}
        found = [number for number in self.log if number > after and number not in known]
        entries = [entry(number) for number in found[: page.limit]]
        has_more = len(found) > len(entries)
        cursor = min(bound, found[len(entries) - 1]) if has_more else bound
        return answer(entries, bound=bound, has_more=has_more, cursor=cursor.to_bytes(16, "big"))

    def _keep(self, cursor: bytes) -> None:
        if cursor:
            self.kept = int.from_bytes(cursor, "big")


TestLife = pytest.mark.untraced(Life.TestCase)
TestLife.settings = settings(max_examples=75, stateful_step_count=40)
