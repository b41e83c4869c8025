"""The rules of routes, over the store in memory."""

import pytest

from chappe.runtime.clock import SystemClock
from svc_presence.adapters.presence_store_memory import MemoryPresenceStore
from svc_presence.model import Changes, ConnectAnswer, DeviceId, Edge, NewSession, Session, SessionId, UserId
from svc_presence.service.routes import Routes

EDGE = Edge("paris.example:7443", 7)
ALICE = UserId(bytes(15) + b"a")
ACCEPTED = ConnectAnswer(is_refused=False, replaced_session_id=0)
REFUSED = ConnectAnswer(is_refused=True, replaced_session_id=0)


@pytest.fixture
def service() -> Routes:
    return Routes(MemoryPresenceStore(SystemClock()))


def now_ms() -> int:
    return SystemClock().wall_ms()


def connects(*numbers: int) -> Changes:
    """Connects sessions of one device, each with its own nonce."""
    return Changes([NewSession(session(number), number.to_bytes(16, "big")) for number in numbers], [], [])


def session(number: int) -> Session:
    return Session(ALICE, DeviceId(1), SessionId(number))


async def test_a_replaced_session_of_the_same_boot_is_told(service: Routes) -> None:
    await service.track(EDGE, connects(1), now_ms())

    answer = await service.track(EDGE, connects(2), now_ms())

    assert answer.connects == [ConnectAnswer(is_refused=False, replaced_session_id=1)]


@pytest.mark.parametrize("other", [Edge("lille.example:7443", 7), Edge("paris.example:7443", 8)])
async def test_a_replaced_session_of_another_edge_or_boot_is_not_told(service: Routes, other: Edge) -> None:
    await service.track(EDGE, connects(1), now_ms())

    answer = await service.track(other, connects(2), now_ms())

    assert answer.connects == [ACCEPTED]


async def test_a_refreshed_session_that_was_replaced_elsewhere_is_told(service: Routes) -> None:
    await service.track(EDGE, connects(1), now_ms())
    await service.track(Edge("lille.example:7443", 7), connects(2), now_ms())

    answer = await service.track(EDGE, Changes([], [session(1)], []), now_ms())

    assert answer.replaced_session_ids == [1]


@pytest.mark.parametrize("nonce", [b"", bytes(15), bytes(17)])
async def test_a_connect_without_a_proper_nonce_is_refused_and_others_are_not(service: Routes, nonce: bytes) -> None:
    good = connects(1).connects[0]

    answer = await service.track(EDGE, Changes([NewSession(session(2), nonce), good], [], []), now_ms())

    assert answer.connects == [REFUSED, ACCEPTED]
    assert [one.session_id for one in await service.locate([ALICE], [])] == [1]


async def test_a_question_about_nobody_is_answered_without_the_store(service: Routes) -> None:
    assert await service.locate([], []) == []
