"""What a client sees, over a real socket."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import grpc.aio
import pytest

from chappe.api.edge.v1 import item_pb2
from tests.svc_edge.client import CLOSE, Client
from tests.svc_edge.conftest import Edge
from tests.svc_edge.fakes import FakeFanout, FakeMesh, Person

Connect = Callable[..., Client]


async def eventually(condition: Callable[[], Any], what: str) -> None:
    """Waits until a condition holds."""
    deadline = asyncio.get_running_loop().time() + 30
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, what
        await asyncio.sleep(0.01)


async def test_a_signed_hello_is_answered_with_welcome_and_the_log(connect: Connect, mesh: FakeMesh) -> None:
    alice, client = Person.new(), connect()
    logged = [mesh.append(alice.user_id) for _ in range(250)]

    welcome = await client.sign_in(mesh, alice)
    items = await client.items(200)

    assert (welcome.user_id, welcome.device_id, len(welcome.mint_tag)) == (alice.user_id, 1, 6)
    client.ack(200)
    items += await client.items(50)
    assert [item.SerializeToString() for item in items] == [entry.item for entry in logged]
    await client.expect("caught_up")


async def test_a_send_is_forwarded_as_it_came_and_answered(connect: Connect, mesh: FakeMesh) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())

    sent = [client.say(number) for number in range(20)]
    acked = {(await client.expect("send_ack")).message_id for _ in sent}

    assert acked == set(sent)
    assert [send.message_id for send in mesh.stored] == sent


async def test_nothing_follows_the_close_of_an_edge(connect: Connect, mesh: FakeMesh) -> None:
    alice, replaced, newer = Person.new(), connect(), connect()
    for _ in range(100):
        mesh.append(alice.user_id, bytes(5000))
    mesh.may_sync.clear()
    await replaced.sign_in(mesh, alice)
    replaced.pause_reading()
    await newer.sign_in(mesh, alice)

    mesh.may_sync.set()
    await newer.items(100)
    replaced.resume_reading()
    while await replaced.read() is not None:
        pass

    assert replaced.closed is not None
    assert (replaced.closed.code, replaced.after_close) == (4409, 0)


async def test_a_push_reaches_its_session_and_the_ack_reaches_the_ledger(
    connect: Connect, mesh: FakeMesh, fanout: FakeFanout
) -> None:
    alice, client = Person.new(), connect()
    welcome = await client.sign_in(mesh, alice)
    await client.expect("caught_up")
    await fanout.dial()
    entries = [mesh.append(alice.user_id) for _ in range(3)]

    taken = await fanout.push([welcome.session_id], alice.user_id, entries)
    items = await client.items(3)
    client.ack(3)

    assert not taken.absent_session_ids
    assert [item.SerializeToString() for item in items] == [entry.item for entry in entries]
    await eventually(lambda: mesh.acked == [entry.key for entry in entries], "the ack reaches the ledger")


async def test_an_ack_that_comes_with_the_close_of_its_client_reaches_the_ledger(
    connect: Connect, mesh: FakeMesh
) -> None:
    alice, client = Person.new(), connect()
    logged = mesh.append(alice.user_id)
    await client.sign_in(mesh, alice)
    await client.items(1)

    client.ack(1)
    client.write_frame(CLOSE, (1000).to_bytes(2, "big"))
    await client.read_close()

    await eventually(lambda: mesh.acked == [logged.key], "the ack reaches the ledger")


async def test_a_push_for_another_user_or_a_session_that_is_gone_meets_nobody(
    connect: Connect, mesh: FakeMesh, fanout: FakeFanout
) -> None:
    alice, bob, client = Person.new(), Person.new(), connect()
    session_id = (await client.sign_in(mesh, alice)).session_id
    await fanout.dial()

    wrong_user = await fanout.push([session_id], bob.user_id, [mesh.append(bob.user_id)])
    gone = await fanout.push([session_id + 9, session_id], alice.user_id, [mesh.append(alice.user_id)])

    assert list(wrong_user.absent_session_ids) == [session_id]
    assert (list(gone.absent_session_ids), list(gone.absent_delivery_indexes)) == ([session_id + 9], [0])
    items = await client.items(1)
    assert items[0].message.sender_user_id == bytes(16)


async def test_carriers_are_told_who_arrives_before_the_log_is_read(
    connect: Connect, mesh: FakeMesh, fanout: FakeFanout
) -> None:
    await fanout.dial()
    alice, bob = Person.new(), Person.new()

    await connect().sign_in(mesh, alice)
    await connect().sign_in(mesh, bob)

    assert await fanout.arrivals(2) == [alice.user_id, bob.user_id]


async def test_a_stream_for_another_boot_is_refused(edge: Edge, fanout: FakeFanout) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="another boot") as refused:
        await fanout.dial(edge.app.boot_id ^ 1)

    assert refused.value.code() == grpc.StatusCode.FAILED_PRECONDITION
    assert (await fanout.dial(edge.app.boot_id)).hello.boot_id == edge.app.boot_id


async def test_an_item_that_was_pushed_is_not_shown_again_by_a_verification(
    connect: Connect, mesh: FakeMesh, fanout: FakeFanout, edge: Edge
) -> None:
    alice, client = Person.new(), connect()
    welcome = await client.sign_in(mesh, alice)
    await client.expect("caught_up")
    await fanout.dial()
    pushed, lost = mesh.append(alice.user_id, b"pushed"), mesh.append(alice.user_id, b"lost")
    await fanout.push([welcome.session_id], alice.user_id, [pushed])
    assert (await client.items(1))[0].message.envelope.content == b"pushed"

    await fanout.verify_all(0)
    items = await client.items(1)

    assert items[0].SerializeToString() == lost.item


async def test_a_push_stream_that_breaks_makes_every_session_read_its_log(
    connect: Connect, mesh: FakeMesh, fanout: FakeFanout, edge: Edge
) -> None:
    alice, client = Person.new(), connect()
    await client.sign_in(mesh, alice)
    await client.expect("caught_up")
    await fanout.dial()
    lost = mesh.append(alice.user_id)

    fanout.break_off()
    while not client.seen:
        edge.clock.leap(1)
        await client.ping()

    assert client.seen[0].SerializeToString() == lost.item


async def test_the_cursor_comes_once_everything_is_acknowledged_and_confirmed(connect: Connect, mesh: FakeMesh) -> None:
    alice, client = Person.new(), connect()
    mesh.append(alice.user_id)
    mesh.confirms.clear()
    await client.sign_in(mesh, alice)
    caught_up = await client.expect("caught_up")

    client.ack(1)
    pong = await client.ping()
    mesh.confirms.set()
    events = await client.expect("events")

    assert (caught_up.cursor, pong.client_ms, len(pong.newest_position)) == (b"", 5, 16)
    assert (len(events.items), len(events.cursor)) == (0, 16)


async def test_a_client_that_resumes_from_its_cursor_gets_only_what_is_newer(connect: Connect, mesh: FakeMesh) -> None:
    alice = Person.new()
    mesh.append(alice.user_id)
    client = connect()
    await client.sign_in(mesh, alice)
    await client.items(1)
    client.ack(1)
    cursor = (await client.expect("events")).cursor
    newer = mesh.append(alice.user_id)

    again = connect()
    await again.sign_in(mesh, alice, cursor=cursor)

    assert [item.SerializeToString() for item in await again.items(1)] == [newer.item]


async def test_a_cursor_that_is_too_old_brings_resync_and_the_log_from_its_beginning(
    connect: Connect, mesh: FakeMesh
) -> None:
    alice, client = Person.new(), connect()
    mesh.append(alice.user_id)

    await client.sign_in(mesh, alice, cursor=b"expired")

    assert "cursor" in (await client.expect("resync")).detail
    assert len(await client.items(1)) == 1
    await client.expect("caught_up")


async def test_a_session_whose_window_is_full_reads_its_log_on_after_the_acks(
    connect: Connect, mesh: FakeMesh, fanout: FakeFanout
) -> None:
    alice, client = Person.new(), connect()
    welcome = await client.sign_in(mesh, alice, window=10)
    await client.expect("caught_up")
    await fanout.dial()
    entries = [mesh.append(alice.user_id) for _ in range(35)]

    taken = await fanout.push([welcome.session_id], alice.user_id, entries)
    items: list[item_pb2.Item] = []
    while len(items) < 35:
        items += await client.items(1)
        client.ack(len(items))

    assert welcome.session_id in taken.slow_session_ids
    assert [item.SerializeToString() for item in items] == [entry.item for entry in entries]


async def test_an_edge_whose_clock_is_behind_takes_the_tokens_of_now(connect: Connect, mesh: FakeMesh) -> None:
    alice, client = Person.new(), connect()

    welcome = await client.sign_in(mesh, alice, token=mesh.token(alice, nbf=int(time.time()) + 30))

    assert welcome.session_id


async def test_a_newer_connection_of_a_device_closes_the_older(connect: Connect, mesh: FakeMesh) -> None:
    alice, older, newer = Person.new(), connect(), connect()
    await older.sign_in(mesh, alice)

    await newer.sign_in(mesh, alice)

    closed = await older.read_close()
    assert closed.code == 4409
    assert closed.go_away is not None


async def test_an_earlier_connection_that_was_held_up_does_not_replace_a_later_one(
    connect: Connect, mesh: FakeMesh
) -> None:
    alice, earlier, later = Person.new(), connect(), connect()
    answer = mesh.next_answer = asyncio.Event()
    await earlier.say_hello(mesh, alice)
    await eventually(lambda: mesh.held_answers, "svc_identity was asked")
    await later.sign_in(mesh, alice)

    answer.set()

    assert (await earlier.read_close()).code == 4409
    assert await later.ping() is not None


async def test_an_earlier_connection_that_ended_meanwhile_does_not_replace_a_later_one(
    connect: Connect, mesh: FakeMesh
) -> None:
    alice, earlier, later = Person.new(), connect(), connect()
    answer = mesh.next_answer = asyncio.Event()
    await earlier.say_hello(mesh, alice)
    await eventually(lambda: mesh.held_answers, "svc_identity was asked")
    earlier.abort()
    welcome = await later.sign_in(mesh, alice)

    answer.set()

    assert await later.ping() is not None
    assert mesh.routes[alice.user_id, alice.device_id] == welcome.session_id


async def test_a_hello_that_comes_with_the_end_of_its_connection_ends_no_session_elsewhere(
    connect: Connect, mesh: FakeMesh
) -> None:
    alice, bob, gone, there = Person.new(), Person.new(), connect(), connect()
    await gone.request()

    # Both are in the socket before the edge looks at either, as after a pause of the edge. The token is younger than
    # the edge's watch for ended sign-ins, so that nobody is asked about it.
    gone.write_hello(mesh, alice, token=mesh.token(alice, iat=int(time.time()) + 60))
    gone.hang_up()
    await gone.read_message()
    welcome = await there.sign_in(mesh, bob)

    assert list(mesh.nonces.values()) == [welcome.session_id]
