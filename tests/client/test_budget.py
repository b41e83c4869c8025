"""A device sends no more frames than an edge takes: the core against the bucket of an edge, then over a real socket."""

from collections.abc import AsyncIterator

import pytest

from chappe.api.edge.v1 import client_frame_pb2, server_frame_pb2
from chappe.client.budget import BELOW_EDGE, UNLIMITED, FrameBudget, FrameRate
from chappe.client.calls import Outcome
from chappe.client.connection import ConnectionOptions
from chappe.client.device import Device, DeviceKey
from chappe.client.lean import LeanClient, LeanParts
from svc_edge.protocol.budget import Bucket, Rate
from tests.client.fakes import Desk
from tests.client.model_edge import DEVICE, ME, PEER, ModelEdge, message_item
from tests.client.socket_edge import SocketEdge
from tests.client.test_connection import Someone, until

EDGE = Rate(400, 50)


class StrictEdge(ModelEdge):
    """An edge that counts frames as a real one does, and answers calls."""

    def __init__(self) -> None:
        super().__init__()
        self.window = 10_000
        self.kinds: list[str] = []
        self.now_s = 0.0
        self._bucket = Bucket(EDGE, 0.0)

    def take(self, data: bytes) -> None:
        assert self._bucket.spend(self.now_s) == 0, f"closed with 4100 after {len(self.kinds)} frames"
        self.kinds.append(str(client_frame_pb2.ClientFrame.FromString(data).WhichOneof("frame")))
        super().take(data)

    def _call(self, call: client_frame_pb2.Call) -> None:
        self.tell(call_result=server_frame_pb2.CallResult(id=call.id))


class StrictDesk(Desk):
    """A device before such an edge; time passes as the budget says."""

    def __init__(self, rate: FrameRate = BELOW_EDGE) -> None:
        self.strict = StrictEdge()
        super().__init__(edge=self.strict, rate=rate)
        self.began_s = self.clock.now_s
        self.connect()
        self.settle()

    def flush(self) -> None:
        self.strict.now_s = self.clock.now_s
        super().flush()

    def wait(self) -> None:
        """Lets time pass until the next frame may leave, and sends it."""
        self.clock.pass_s(self.core.budget.wait_s(self.clock.now_s) + 1e-6)
        self.settle()

    def wait_for(self, frames: int) -> list[str]:
        """Returns what the next so many frames are."""
        begin = len(self.strict.kinds)
        while len(self.strict.kinds) < begin + frames:
            self.wait()
        return self.strict.kinds[begin : begin + frames]


def test_a_thousand_messages_leave_no_faster_than_the_edge_takes_them() -> None:
    desk = StrictDesk()
    said = [desk.say(b"%d" % number) for number in range(1000)]

    desk.settle()
    at_once = len(desk.sent())
    while desk.core.turns.is_held:
        desk.wait()

    assert desk.sent() == said
    assert at_once == BELOW_EDGE.burst - 1
    assert desk.clock.now_s - desk.began_s == pytest.approx((1001 - BELOW_EDGE.burst) / BELOW_EDGE.per_s, rel=0.01)


def test_what_is_sent_again_after_a_broken_line_keeps_to_the_budget_too() -> None:
    desk = StrictDesk()
    said = [desk.say(b"%d" % number) for number in range(300)]
    desk.flush()
    desk.drop()
    more = [desk.say(b"%d" % number) for number in range(300)]
    desk.strict._bucket = Bucket(EDGE, desk.clock.now_s)

    desk.connect()
    desk.settle()
    while desk.core.turns.is_held:
        desk.wait()

    assert desk.sent() == said + more


def test_acknowledgements_of_single_messages_gather_when_there_are_many() -> None:
    desk = StrictDesk()
    for number in range(1, 1001):
        desk.edge.log.append(message_item(number))
        desk.edge.push(number - 1, number)
        desk.settle()

    while desk.core.turns.is_held:
        desk.wait()

    assert desk.edge.acked == 1000
    assert desk.strict.kinds.count("ack") <= BELOW_EDGE.burst


def test_acknowledgements_calls_and_messages_take_turns_when_frames_are_scarce() -> None:
    desk = StrictDesk(FrameRate(8, 1.0))
    outcomes: list[Outcome] = []
    for number in range(20):
        desk.say(b"%d" % number)
        desk.core.calls.ask("a/B", b"", outcomes.append)
    # What is answered makes room for the next calls.
    desk.settle()
    desk.edge.log.append(message_item(1))
    desk.edge.push(0, 1)

    kinds = desk.wait_for(6)

    assert set(kinds) == {"ack", "call", "send"}
    assert kinds.count("call") >= 2
    assert kinds.count("send") >= 2


def test_a_call_that_waits_for_its_turn_fails_with_the_connection() -> None:
    desk = StrictDesk(FrameRate(1, 1.0))
    outcomes: list[Outcome] = []
    desk.core.calls.ask("a/B", b"", outcomes.append)
    desk.flush()

    desk.drop()

    assert [type(outcome.error).__name__ for outcome in outcomes] == ["NotConnectedError"]
    assert not desk.core.turns.is_held


def test_a_budget_that_an_edge_finds_too_large_shrinks_and_grows_again() -> None:
    budget = FrameBudget(BELOW_EDGE)
    rooms = []
    for change in (budget.shrink, budget.shrink, budget.grow, budget.grow, budget.grow):
        change()
        budget.begin(1.0)
        rooms.append(budget.room(1.0))

    assert rooms == [160, 80, 160, 320, 320]
    for _ in range(20):
        budget.shrink()
    budget.begin(2.0)
    assert budget.room(2.0) == 8


def test_whoever_knew_no_limit_learns_one_when_an_edge_has_it() -> None:
    budget = FrameBudget(UNLIMITED)
    budget.shrink()
    budget.begin(0.0)

    assert budget.room(0.0) == BELOW_EDGE.burst


@pytest.fixture
async def edge() -> AsyncIterator[SocketEdge]:
    async with SocketEdge() as edge:
        yield edge


async def test_what_waits_for_the_budget_leaves_by_itself(edge: SocketEdge) -> None:
    options = ConnectionOptions(ping_s=None, rate=FrameRate(5, 200.0))
    client = LeanClient(Device(ME, DEVICE, DeviceKey.generate()), edge.address, parts=LeanParts(options=options))
    await client.start()

    for number in range(30):
        client.send(PEER, b"%d" % number)
    await until(lambda: len(edge.model.stored) == 30)

    await client.close()


async def test_an_edge_that_says_that_it_was_too_much_is_sent_half_as_much(edge: SocketEdge) -> None:
    someone = Someone(edge.address)
    await someone.client.start()

    edge.close(4100, "too much")
    await until(lambda: someone.caught_up == 2)

    budget = someone.client.engine.core.budget
    assert budget.room(someone.clock.now_s) <= BELOW_EDGE.burst // 2
    await someone.client.close()
