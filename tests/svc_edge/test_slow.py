"""Clients that do not read what the edge writes: nobody waits for them, and they lose nothing."""

from collections.abc import Callable

import pytest

from chappe.api.type.v1 import error_reason_pb2
from svc_edge.service.calls import UNREAD
from tests.svc_edge.client import CLOSE, Client
from tests.svc_edge.conftest import Edge
from tests.svc_edge.fakes import FakeFanout, FakeMesh, Person
from tests.svc_edge.test_app import LIST_MESSAGES, call
from tests.svc_edge.test_budgets import READ
from tests.svc_edge.test_ws import eventually

Connect = Callable[..., Client]


@pytest.fixture
def alice() -> Person:
    return Person.new()


@pytest.fixture
async def slow(connect: Connect, mesh: FakeMesh, fanout: FakeFanout, alice: Person) -> Client:
    """Returns a client of Alice that reads nothing, and whose socket is full."""
    client = connect()
    session_id = (await client.sign_in(mesh, alice, window=1000)).session_id
    await client.expect("caught_up")
    await fanout.dial()
    client.pause_reading()
    is_slow = False
    while not is_slow:
        entries = [mesh.append(alice.user_id, bytes(60_000)) for _ in range(10)]
        is_slow = session_id in (await fanout.push([session_id], alice.user_id, entries)).slow_session_ids
    return client


def logged(mesh: FakeMesh, person: Person) -> list[bytes]:
    return [entry.item for entry in mesh.logs[person.user_id]]


async def items(client: Client, count: int) -> list[bytes]:
    return [item.SerializeToString() for item in await client.items(count)]


async def test_a_client_that_reads_slowly_loses_nothing(slow: Client, mesh: FakeMesh, alice: Person) -> None:
    slow.resume_reading()

    wanted = logged(mesh, alice)
    assert await items(slow, len(wanted)) == wanted


async def test_a_socket_that_takes_nothing_for_30_seconds_is_cut_off(slow: Client, mesh: FakeMesh, edge: Edge) -> None:
    edge.clock.leap(31)

    await eventually(lambda: slow.welcome.session_id in mesh.byes, "the session ends")
    assert 'chappe_edge_closes_total{code="4001"} 1\n' in edge.app.metrics.render()


async def test_a_client_that_reads_again_after_30_seconds_learns_that_it_was_too_slow(
    slow: Client, mesh: FakeMesh, alice: Person, edge: Edge
) -> None:
    edge.clock.leap(31)
    await eventually(lambda: 'code="4001"' in edge.app.metrics.render(), "the edge closes")

    slow.resume_reading()
    closed = await slow.read_close()

    assert (closed.code, "took nothing for 30 seconds" in closed.reason) == (4001, True)
    assert closed.go_away is not None
    assert closed.go_away.close_code == 4001
    got = [item.SerializeToString() for item in slow.seen]
    assert got == logged(mesh, alice)[: len(got)]


async def test_a_client_that_says_close_and_reads_nothing_is_ended(slow: Client, mesh: FakeMesh) -> None:
    slow.write_frame(CLOSE, (1000).to_bytes(2, "big"))

    await eventually(lambda: slow.welcome.session_id in mesh.byes, "the session ends")


async def test_calls_of_a_client_that_reads_nothing_are_refused_so_that_their_results_do_not_pile_up(
    slow: Client, connect: Connect, mesh: FakeMesh, edge: Edge
) -> None:
    slow.send(call=call(LIST_MESSAGES, READ))
    await eventually(lambda: f'refused_calls_total{{budget="{UNREAD}"}} 1\n' in edge.app.metrics.render(), "a refusal")

    slow.resume_reading()
    refused = (await slow.expect("call_result")).error
    slow.send(call=call(LIST_MESSAGES, READ))
    again = await slow.expect("call_result")

    assert refused.reason == error_reason_pb2.ERROR_REASON_RATE_LIMITED
    assert refused.retry_after_ms == 1000
    assert again.WhichOneof("outcome") == "payload"


async def test_a_client_that_reads_again_in_time_is_kept(slow: Client, edge: Edge) -> None:
    edge.clock.leap(29)
    slow.resume_reading()
    await slow.ping()

    edge.clock.leap(10)

    assert (await slow.ping()).client_ms == 5


async def test_what_a_client_that_was_cut_off_did_not_read_is_there_when_it_comes_back(
    slow: Client, connect: Connect, mesh: FakeMesh, alice: Person, edge: Edge
) -> None:
    edge.clock.leap(31)
    await eventually(lambda: slow.welcome.session_id in mesh.byes, "the session ends")
    mesh.append(alice.user_id, b"while it was gone")

    again = connect()
    await again.sign_in(mesh, alice, window=1000)

    wanted = logged(mesh, alice)
    assert await items(again, len(wanted)) == wanted
