"""The way to several replicas of svc_message: which one is handed what."""

import contextlib
from collections.abc import AsyncIterator

import grpc.aio
import pytest

from chappe.api.edge.v1 import send_pb2
from chappe.api.type.v1 import error_reason_pb2 as reasons
from chappe.runtime.clock import Seams, SystemRandomness
from chappe.runtime.streams import Identity
from chappe.runtime.tasks import Tasks
from svc_edge.adapters.ledger_grpc import GrpcLedger
from svc_edge.model import DeviceId, Member, SessionId, SignInId, UserId, Verdict
from tests.svc_edge.fakes import FakeMesh, LeapClock, message_id_of
from tests.svc_edge.test_ws import eventually

MEMBER = Member(UserId(b"u" * 16), DeviceId(1), SignInId(b"s" * 16))


class Answers:
    """What the ledger answered."""

    def __init__(self) -> None:
        self.verdicts: list[Verdict] = []

    def answered(self, session_id: SessionId, verdict: Verdict, frame: bytes) -> None:
        self.verdicts.append(verdict)

    def confirmed(self, session_id: SessionId, ack_id: int) -> None:
        """Receipts are not what these tests are about."""


class House:
    """An edge's ledger and two replicas."""

    def __init__(self, ledger: GrpcLedger, replicas: list[FakeMesh], clock: LeapClock) -> None:
        self.ledger = ledger
        self.replicas = replicas
        self.clock = clock
        self.heard = Answers()
        ledger.listener = self.heard
        self._said = 0

    def say(self, content: bytes = b"hello") -> None:
        """Sends one message."""
        self._said += 1
        send = send_pb2.Send(message_id=message_id_of(self._said))
        send.message.envelope.content = content
        self.ledger.send(SessionId(1), MEMBER, send.SerializeToString())

    async def send(self, content: bytes = b"hello") -> Verdict:
        """Sends one message, and returns once there is one more answer."""
        number = len(self.heard.verdicts) + 1
        self.say(content)
        await eventually(lambda: len(self.heard.verdicts) == number, "there is an answer")
        return self.heard.verdicts[-1]


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with contextlib.AsyncExitStack() as stack:
        replicas = [await stack.enter_async_context(FakeMesh()) for _ in range(2)]
        channels: dict[str, grpc.aio.Channel] = {}

        def channel(target: str) -> grpc.aio.Channel:
            address = target.partition(",")[0]
            return channels.setdefault(address, grpc.aio.insecure_channel(address))

        tasks, clock = await stack.enter_async_context(Tasks()), LeapClock()
        target = ",".join(replica.address for replica in replicas)
        seams = Seams(clock, SystemRandomness())
        ledger = GrpcLedger(target, channel, Identity("edge-1", 7), tasks=tasks, seams=seams)
        await ledger.start()
        await eventually(lambda: all(replica.submit_contexts for replica in replicas), "both replicas are there")
        await eventually(lambda: len(ledger._replicas.accepting) == 2, "both streams stand")
        yield House(ledger, replicas, clock)
        await ledger.aclose()
        for opened in channels.values():
            await opened.close()


@pytest.mark.parametrize("sick", [0, 1])
@pytest.mark.parametrize("reason", [reasons.ERROR_REASON_CLOCK_UNTRUSTED, reasons.ERROR_REASON_DEPENDENCY_UNAVAILABLE])
async def test_what_a_replica_refuses_for_reasons_of_its_own_another_one_takes(
    house: House, sick: int, reason: int
) -> None:
    house.replicas[sick].ledger_complaint = reason

    assert {await house.send() for _ in range(20)} == {Verdict.STORED}
    assert house.ledger.resent_items <= 1


async def test_what_is_handed_on_counts_as_a_retry(house: House) -> None:
    await house.send()
    asked_first, other = sorted(house.replicas, key=lambda replica: not replica.stored)
    asked_first.ledger_complaint = reasons.ERROR_REASON_DEPENDENCY_UNAVAILABLE

    await house.send()

    assert (asked_first.resends, other.resends) == ([0, 0], [1])


async def test_a_replica_that_is_spared_is_tried_again(house: House) -> None:
    first, second = house.replicas
    first.ledger_complaint = reasons.ERROR_REASON_DEPENDENCY_UNAVAILABLE
    await house.send()
    first.ledger_complaint = 0
    second.answers.clear()
    house.say()
    assert not first.stored

    house.clock.leap(1)
    await eventually(lambda: not any(lane.spared for lane in house.ledger.lanes), "nobody is spared any more")

    assert await house.send() == Verdict.STORED
    assert len(first.stored) == 1
    second.answers.set()


async def test_while_every_replica_refuses_each_send_is_answered(house: House) -> None:
    for replica in house.replicas:
        replica.ledger_complaint = reasons.ERROR_REASON_DEPENDENCY_UNAVAILABLE

    assert {await house.send() for _ in range(5)} == {Verdict.REFUSED}
    assert house.ledger.resent_items <= 1


async def test_a_send_that_is_wrong_says_nothing_of_its_replica(house: House) -> None:
    assert await house.send(b"") == Verdict.REFUSED
    assert house.ledger.resent_items == 0
    assert not any(lane.spared for lane in house.ledger.lanes)
