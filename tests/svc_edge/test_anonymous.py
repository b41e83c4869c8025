"""How many connections without a user there may be: of one address, and in all."""

from collections.abc import Callable

import pytest

from chappe.api.edge.v1 import client_frame_pb2
from tests.svc_edge.client import CLOSE, Client, Closed
from tests.svc_edge.conftest import Edge
from tests.svc_edge.fakes import FakeMesh, Person
from tests.svc_edge.test_app import anonymous
from tests.svc_edge.test_ws import eventually

Connect = Callable[..., Client]
HELLO = client_frame_pb2.Hello(protocol=1, anonymous=client_frame_pb2.AnonymousHello())
TWO_OF_AN_ADDRESS = pytest.mark.parametrize("limits", [{"anonymous_per_address": 2}])


def connections(edge: Edge, count: int) -> Callable[[], bool]:
    return lambda: f"chappe_edge_connections {count}\n" in edge.app.metrics.render()


async def refused(client: Client) -> Closed:
    """Says Hello without a user; returns how the edge closed instead of a Welcome."""
    await client.request()
    client.send(hello=HELLO)
    closed = await client.read_close()
    assert "welcome" not in client.kinds
    return closed


@TWO_OF_AN_ADDRESS
async def test_one_connection_too_many_of_an_address_is_told_when_to_come_back(connect: Connect) -> None:
    for _ in range(2):
        await anonymous(connect())

    closed = await refused(connect())

    assert (closed.code, "anonymous connections" in closed.reason) == (4101, True)
    assert closed.go_away is not None
    assert (closed.go_away.close_code, closed.go_away.reconnect_after_ms) == (4101, 10_000)


@TWO_OF_AN_ADDRESS
async def test_the_cap_of_an_address_touches_nobody_else(connect: Connect, mesh: FakeMesh) -> None:
    first, second, elsewhere, member = connect(), connect(), connect(), connect()
    elsewhere.address = "127.0.0.2"
    for client in (first, second):
        await anonymous(client)
    await refused(connect())

    assert (await anonymous(elsewhere)).session_id
    assert (await member.sign_in(mesh, Person.new())).session_id
    assert [(await client.ping()).client_ms for client in (first, second)] == [5, 5]


@TWO_OF_AN_ADDRESS
@pytest.mark.parametrize("leave", [Client.hang_up, Client.abort, lambda client: client.write_frame(CLOSE, b"\x03\xe8")])
async def test_a_place_is_free_again_once_its_connection_has_ended(
    connect: Connect, edge: Edge, leave: Callable[[Client], None]
) -> None:
    leaving, staying = connect(), connect()
    for client in (leaving, staying):
        await anonymous(client)

    leave(leaving)
    await eventually(connections(edge, 1), "the connection ends")

    assert (await anonymous(connect())).session_id
    assert (await refused(connect())).code == 4101


@TWO_OF_AN_ADDRESS
async def test_whoever_was_refused_takes_no_place_and_gives_none_back(connect: Connect, edge: Edge) -> None:
    await anonymous(connect())
    await anonymous(connect())
    for _ in range(3):
        await refused(connect())
    await eventually(connections(edge, 2), "the refused ones have gone")

    assert (await refused(connect())).code == 4101


@TWO_OF_AN_ADDRESS
async def test_a_hello_that_comes_with_the_end_of_its_connection_keeps_no_place(connect: Connect, edge: Edge) -> None:
    for leave in [Client.hang_up, Client.abort, lambda client: client.write_frame(CLOSE, b"\x03\xe8")]:
        client = connect()
        await client.request()
        client.send(hello=HELLO)
        leave(client)
    await eventually(connections(edge, 0), "all have gone")

    assert (await anonymous(connect())).session_id
    assert (await anonymous(connect())).session_id


@TWO_OF_AN_ADDRESS
async def test_a_connection_that_says_no_hello_takes_no_place(connect: Connect) -> None:
    for _ in range(3):
        await connect().request()

    assert (await anonymous(connect())).session_id


@pytest.mark.parametrize("limits", [{"anonymous_in_all": 2}])
async def test_there_are_only_so_many_in_all_wherever_they_come_from(connect: Connect) -> None:
    clients = [connect() for _ in range(3)]
    for number, client in enumerate(clients, start=1):
        client.address = f"127.0.0.{number}"
    for client in clients[:2]:
        await anonymous(client)

    closed = await refused(clients[2])

    assert closed.code == 4101
    assert closed.go_away is not None
    assert closed.go_away.reconnect_after_ms == 10_000
