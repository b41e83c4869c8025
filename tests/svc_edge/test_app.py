"""How the edge lives with the services behind it: outages, replacements, revocation, drain, calls and time."""

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from chappe.api.edge.v1 import client_frame_pb2
from chappe.api.identity.v1 import registration_service_pb2
from chappe.api.message.v1 import history_service_pb2
from chappe.api.type.v1 import error_reason_pb2, principal_pb2
from svc_edge.protocol.session import TIMES_A_SEND_MAY_WAIT
from svc_fanout.protocol import ROUTE_MEMORY_S
from tests.svc_edge.client import CLOSE, PONG, Client
from tests.svc_edge.conftest import Edge
from tests.svc_edge.fakes import FakeMesh, Person, signed_hello
from tests.svc_edge.test_ws import eventually

Connect = Callable[..., Client]
LIST_MESSAGES = "chappe.api.message.v1.HistoryService/ListMessages"
START_VERIFICATION = "chappe.api.identity.v1.RegistrationService/StartVerification"


def call(method: str, payload: bytes = b"", number: int = 1) -> client_frame_pb2.Call:
    return client_frame_pb2.Call(id=number, method=method, payload=payload)


async def leap_until(reading: asyncio.Task[Any], edge: Edge, client: Client | None, step_s: float = 1) -> Any:
    """Sets the clock forward until a client has read what it waits for; the client is alive unless it is None."""
    while not reading.done():
        edge.clock.leap(step_s)
        if client is not None:
            client.write_frame(PONG, b"")
        await asyncio.sleep(0.01)
    return await reading


async def anonymous(client: Client) -> Any:
    await client.request()
    client.send(hello=client_frame_pb2.Hello(protocol=1, anonymous=client_frame_pb2.AnonymousHello()))
    return await client.expect("welcome")


async def test_a_call_is_forwarded_for_its_user(connect: Connect, mesh: FakeMesh) -> None:
    client, alice = connect(), Person.new()
    await client.sign_in(mesh, alice)
    request = history_service_pb2.ListMessagesRequest(peer_user_id=b"p" * 16).SerializeToString()

    client.send(call=call(LIST_MESSAGES, request, 42))
    result = await client.expect("call_result")

    assert result.id == 42
    assert result.payload == history_service_pb2.ListMessagesResponse(next_page_token="more").SerializeToString()
    principal = principal_pb2.Principal.FromString(mesh.principals[0])
    assert (principal.user_id, principal.device_id, principal.session_id) == (alice.user_id, 1, alice.sign_in_id)
    assert mesh.caller_address == ""


@pytest.mark.parametrize(
    ("method", "payload", "reason"),
    [
        ("chappe.api.message.v1.HistoryService/SyncInbox", b"", "METHOD_NOT_ALLOWED"),
        ("chappe.api.message.v1.MessageService/Submit", b"", "METHOD_NOT_ALLOWED"),
        ("chappe.api.edge.v1.EdgeService/Push", b"", "METHOD_NOT_ALLOWED"),
        ("nowhere.Service/Method", b"", "METHOD_NOT_ALLOWED"),
        (LIST_MESSAGES, b"\xff", "MALFORMED"),
        (LIST_MESSAGES, b"\x12\x01x", "INVALID_FIELD"),
        (LIST_MESSAGES, b"\x12\x10" + b"p" * 16 + b"\x3a\x01x", "INVALID_FIELD"),
    ],
)
async def test_a_call_that_is_refused_says_why(
    connect: Connect, mesh: FakeMesh, method: str, payload: bytes, reason: str
) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())

    client.send(call=call(method, payload))
    error = (await client.expect("call_result")).error

    assert error_reason_pb2.ErrorReason.Name(error.reason) == f"ERROR_REASON_{reason}"
    assert error.detail


async def test_an_anonymous_session_may_only_call_open_methods(connect: Connect, mesh: FakeMesh) -> None:
    client = connect()
    welcome = await anonymous(client)
    request = registration_service_pb2.StartVerificationRequest(phone_number="+390101234567")

    client.send(call=call(START_VERIFICATION, request.SerializeToString(), 1))
    allowed = await client.expect("call_result")
    client.send(call=call(LIST_MESSAGES, b"", 2))
    refused = await client.expect("call_result")
    client.say(1)

    assert (welcome.user_id, allowed.WhichOneof("outcome"), mesh.principals) == (b"", "payload", [])
    assert mesh.caller_address == "127.0.0.1"
    assert refused.error.reason == error_reason_pb2.ERROR_REASON_METHOD_NOT_ALLOWED
    assert (await client.read_close()).code == 4403


async def test_a_code_that_a_signed_in_client_asks_for_is_charged_to_its_address(
    connect: Connect, mesh: FakeMesh
) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())
    request = registration_service_pb2.StartVerificationRequest(phone_number="+390101234567")

    client.send(call=call(START_VERIFICATION, request.SerializeToString()))
    await client.expect("call_result")

    assert (len(mesh.principals), mesh.caller_address) == (1, "127.0.0.1")


async def test_an_anonymous_session_ends_after_ten_minutes(connect: Connect, edge: Edge) -> None:
    client = connect()
    await anonymous(client)

    closed = await leap_until(asyncio.create_task(client.read_close()), edge, client, step_s=10)

    assert (closed.code, "10 minutes" in closed.reason) == (4002, True)


async def test_a_send_without_a_ledger_is_refused_as_retryable(connect: Connect, mesh: FakeMesh, edge: Edge) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())
    mesh.ledger_is_up = False
    await mesh.break_streams(mesh.submit_contexts)

    sent = client.say(1)
    reading = asyncio.create_task(client.expect("send_nack"))
    nack = await leap_until(reading, edge, client)

    assert (nack.message_id, nack.is_retryable, nack.retry_after_ms) == (sent, True, 1000)


async def test_what_a_stream_left_unanswered_is_sent_again_and_counted(connect: Connect, mesh: FakeMesh) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())
    mesh.answers.clear()
    sent = client.say(1)
    await client.ping()

    await mesh.break_streams(mesh.submit_contexts)
    mesh.answers.set()
    ack = await client.expect("send_ack")

    assert ack.message_id == sent
    assert mesh.resends[-1] == 1


async def test_a_session_is_signed_in_without_the_registry_and_registered_later(
    connect: Connect, mesh: FakeMesh, edge: Edge
) -> None:
    client, alice = connect(), Person.new()
    mesh.presence_is_up = False
    await mesh.break_streams(mesh.track_contexts)
    edge.clock.leap(3)

    welcome = await client.sign_in(mesh, alice)
    mesh.presence_is_up = True
    while welcome.session_id not in mesh.refreshed:
        edge.clock.leap(1)
        await client.ping()

    assert mesh.routes[alice.user_id, 1] == welcome.session_id


async def test_a_session_that_is_registered_late_says_how_long_ago_it_began(
    connect: Connect, mesh: FakeMesh, edge: Edge
) -> None:
    late, fresh = connect(), connect()
    mesh.presence_is_up = False
    await mesh.break_streams(mesh.track_contexts)
    edge.clock.leap(3)

    welcome = await late.sign_in(mesh, Person.new())
    edge.clock.leap(4)
    mesh.presence_is_up = True
    while welcome.session_id not in mesh.ages_ms:
        edge.clock.leap(1)
        await late.ping()
    at_once = await fresh.sign_in(mesh, Person.new())

    assert mesh.ages_ms[welcome.session_id] >= 5_000
    assert mesh.ages_ms[at_once.session_id] < 1_000


async def test_a_session_that_was_signed_in_without_the_registry_wins_over_the_route_that_still_stands(
    connect: Connect, mesh: FakeMesh, edge: Edge
) -> None:
    client, alice = connect(), Person.new()
    mesh.presence_is_up = False
    mesh.routes[alice.user_id, 1] = 12345
    await mesh.break_streams(mesh.track_contexts)
    edge.clock.leap(3)

    welcome = await client.sign_in(mesh, alice)
    mesh.presence_is_up = True
    while welcome.session_id not in mesh.refreshed:
        edge.clock.leap(1)
        await client.ping()

    assert mesh.routes[alice.user_id, 1] == welcome.session_id


async def test_known_keys_go_on_to_hold_without_svc_identity_and_others_are_no_refusal(
    connect: Connect, mesh: FakeMesh, edge: Edge
) -> None:
    known, unknown, alice = connect(), connect(), Person.new()
    mesh.identity_is_up = False
    edge.clock.leap(6)
    signed = signed_hello(mesh.token(alice, kid="key-2"), alice.key, unknown.host)

    await known.sign_in(mesh, alice)
    await unknown.request()
    unknown.send(hello=client_frame_pb2.Hello(protocol=1, signed=signed))

    assert known.welcome.session_id
    assert (await unknown.read_close()).code == 4101


async def test_a_session_that_another_edge_took_over_is_closed_at_its_refresh(
    connect: Connect, mesh: FakeMesh, edge: Edge
) -> None:
    client, alice = connect(), Person.new()
    await client.sign_in(mesh, alice)
    mesh.routes[alice.user_id, 1] = 12345

    closed = await leap_until(asyncio.create_task(client.read_close()), edge, client)

    assert closed.code == 4409


async def test_a_client_that_is_gone_is_closed_and_said_goodbye_for(
    connect: Connect, mesh: FakeMesh, edge: Edge
) -> None:
    client = connect()
    welcome = await client.sign_in(mesh, Person.new())
    client.may_pong = False

    closed = await leap_until(asyncio.create_task(client.read_close()), edge, None)

    assert closed.code == 4002
    assert client.pings in {1, 2, 3}
    await eventually(lambda: welcome.session_id in mesh.byes, "a bye")


async def test_every_session_is_verified_soon_after_it_began_and_then_by_and_by(
    connect: Connect, mesh: FakeMesh, edge: Edge
) -> None:
    client, alice = connect(), Person.new()
    begun_s = edge.clock.monotonic_s()
    await client.sign_in(mesh, alice)
    await client.expect("caught_up")

    lost = mesh.append(alice.user_id)
    items = await leap_until(asyncio.create_task(client.items(1)), edge, client)
    verified_s = edge.clock.monotonic_s()
    lost_later = mesh.append(alice.user_id)
    items += await leap_until(asyncio.create_task(client.items(1)), edge, client)

    assert [item.SerializeToString() for item in items] == [lost.item, lost_later.item]
    assert ROUTE_MEMORY_S < verified_s - begun_s < 30
    assert 80 < edge.clock.monotonic_s() - verified_s < 160


async def test_logs_that_do_not_fit_into_one_answer_are_read_in_parts(connect: Connect, mesh: FakeMesh) -> None:
    people, clients = [Person.new() for _ in range(3)], [connect() for _ in range(3)]
    for person in people:
        for _ in range(90):
            mesh.append(person.user_id, bytes(60_000))

    for person, client in zip(people, clients, strict=True):
        await client.sign_in(mesh, person)

    assert [len(await client.items(90)) for client in clients] == [90, 90, 90]


async def test_more_frames_than_the_budget(connect: Connect, mesh: FakeMesh) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())

    for _ in range(600):
        client.write_frame(PONG, b"")

    closed = await client.read_close()
    assert closed.code == 4100
    assert closed.go_away is not None
    assert closed.go_away.reconnect_after_ms > 0


async def test_more_sends_without_an_answer_than_the_window_and_its_repetitions(
    connect: Connect, mesh: FakeMesh
) -> None:
    client = connect()
    welcome = await client.sign_in(mesh, Person.new())
    mesh.answers.clear()

    for number in range(welcome.send_window * TIMES_A_SEND_MAY_WAIT + 1):
        client.say(number)

    closed = await client.read_close()
    mesh.answers.set()
    assert (closed.code, "without an answer" in closed.reason) == (4100, True)


async def test_a_window_of_sends_is_repeated_as_the_protocol_says_and_the_session_lives(
    connect: Connect, mesh: FakeMesh
) -> None:
    client = connect()
    welcome = await client.sign_in(mesh, Person.new())
    mesh.answers.clear()

    # The page says when: after 4, 8, 16, 32 and then every 60 seconds, of which these are the first four minutes.
    sent = [client.say(number) for number in range(welcome.send_window)]
    for attempt in range(2, TIMES_A_SEND_MAY_WAIT + 1):
        for message_id in sent:
            client.repeat(message_id, attempt)
    await client.ping()
    mesh.answers.set()
    answers = [await client.expect("send_ack") for _ in range(len(sent) * TIMES_A_SEND_MAY_WAIT)]

    assert {answer.message_id for answer in answers} == set(sent)
    assert await client.ping()


async def test_bytes_that_the_ledger_cannot_parse_end_the_session(connect: Connect, mesh: FakeMesh) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())

    client.write_frame(2, b"\x12\x03\x0a\x7f\x00")

    assert (await client.read_close()).code == 4400


async def test_json_carries_the_same_frames(connect: Connect, mesh: FakeMesh) -> None:
    client, alice = connect("chappe.v1.json"), Person.new()
    mesh.append(alice.user_id, b"hello")
    await client.request()
    client.send_json({"hello": mesh.json_hello(alice, client.host)})

    frames = [await client.read_json() for _ in range(3)]
    client.send_json(
        {"call": {"id": 3, "method": LIST_MESSAGES, "payload": {"peerUserId": "cHBwcHBwcHBwcHBwcHBwcA=="}}}
    )
    result = await client.read_json()

    assert [next(iter(frame)) for frame in frames] == ["welcome", "events", "caughtUp"]
    assert frames[1]["events"]["items"][0]["message"]["envelope"]["content"] == "aGVsbG8="
    assert result == {"callResult": {"id": 3, "payload": {"nextPageToken": "more"}}}


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        (b'{"ping":', 4400),
        (b"[1]", 4400),
        (b"[" * 100_000, 4400),
        (b'{"ping":{"clientMs":"x"}}', 4400),
        (b'{"ack":{"count":-1}}', 4400),
        (b"\xc3\x28", 1007),
    ],
)
async def test_json_that_is_none(connect: Connect, mesh: FakeMesh, payload: bytes, code: int) -> None:
    client = connect("chappe.v1.json")
    await client.request()
    client.send_json({"hello": mesh.json_hello(Person.new(), client.host)})
    assert "welcome" in await client.read_json()

    client.write_frame(1, payload)

    while await client.read_message() is not None:
        pass
    assert client.closed is not None
    assert client.closed.code == code


async def test_a_drain_answers_what_was_sent_and_sends_everybody_away(
    connect: Connect, mesh: FakeMesh, edge: Edge
) -> None:
    client, late = connect(), connect()
    welcome = await client.sign_in(mesh, Person.new())
    mesh.answers.clear()
    sent = client.say(1)
    await client.ping()

    stopping = asyncio.create_task(edge.app.__aexit__())
    go_away = await client.expect("go_away")
    mesh.answers.set()
    ack = await client.expect("send_ack")
    closed = await client.read_close()
    await stopping

    assert (go_away.close_code, ack.message_id, closed.code) == (4000, sent, 4000)
    assert mesh.byes == [welcome.session_id]
    with pytest.raises(OSError, match="Connect call failed"):
        await late.dial()


async def test_a_drain_lets_everybody_come_back_at_another_time(
    connect: Connect, mesh: FakeMesh, edge: Edge, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svc_edge.service.keeper.COMEBACK_PER_SESSION_MS", 10_000)
    clients = [connect() for _ in range(4)]
    for client in clients:
        await client.sign_in(mesh, Person.new())

    stopping = asyncio.create_task(edge.app.__aexit__())
    comebacks_ms = {(await client.expect("go_away")).reconnect_after_ms for client in clients}
    await stopping

    assert len(comebacks_ms) > 1
    assert max(comebacks_ms) <= 40_000


async def test_connections_are_counted_by_how_they_end(connect: Connect, mesh: FakeMesh, edge: Edge) -> None:
    older, newer, leaving, lost = connect(), connect(), connect(), connect()
    alice = Person.new()
    await older.sign_in(mesh, alice)
    await newer.sign_in(mesh, alice)
    await older.read_close()
    await leaving.sign_in(mesh, Person.new())
    leaving.write_frame(CLOSE, (1000).to_bytes(2, "big"))
    await leaving.read_close()
    await lost.sign_in(mesh, Person.new())
    lost.abort()

    def counted() -> bool:
        text = edge.app.metrics.render()
        return all(f'chappe_edge_closes_total{{code="{code}"}} 1\n' in text for code in ("4409", "client", "lost"))

    await eventually(counted, "every end is counted once")
