"""Writing to many sessions at once lets the loop turn, and nobody who comes meanwhile waits behind all of them."""

import asyncio
from typing import Any

from chappe.runtime.clock import Seams, SystemClock, SystemRandomness
from svc_edge.protocol.session import Session
from svc_edge.service.sessions import Sessions
from svc_edge.ws.connection import House
from svc_edge.ws.server import WRITTEN_AT_ONCE, UpgradeTerms, WsServer
from tests.svc_edge.test_protocol import LIMITS, NoDoor


class CountingDoor(NoDoor):
    """Counts what is written."""

    session: Session

    def __init__(self, written: list["CountingDoor"]) -> None:
        self._written = written

    def flush(self) -> None:
        self.session.is_dirty = False
        self._written.append(self)


async def test_who_comes_while_a_thousand_are_written_to_is_written_to_next() -> None:
    sessions = Sessions(Seams(SystemClock(), SystemRandomness()), LIMITS)
    unused: Any = None
    WsServer(
        House(sessions, unused, unused, unused),
        UpgradeTerms(frozenset(), may_use_json=False, max_connections=1),
        unused,
    )
    written: list[CountingDoor] = []

    def opened() -> Session:
        door = CountingDoor(written)
        session = door.session = sessions.open(door)
        return session

    crowd, one = [opened() for _ in range(1000)], opened()
    for session in crowd:
        sessions.mark(session)
    await asyncio.sleep(0)
    first_turn = len(written)
    sessions.mark(one)
    await asyncio.sleep(0)
    after_two = list(written)
    for _ in range(len(crowd) // WRITTEN_AT_ONCE):
        await asyncio.sleep(0)

    assert first_turn == WRITTEN_AT_ONCE
    assert one.door in after_two
    assert len(after_two) == 2 * WRITTEN_AT_ONCE + 1
    assert {door.session.session_id for door in written} == set(sessions.by_id)
    assert not any(session.is_dirty for session in sessions.by_id.values())
