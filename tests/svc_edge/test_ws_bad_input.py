"""What goes wrong at the door, by the numbers of the list of attacks: each has its answer, and the answer says why."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import time
from collections.abc import Callable
from typing import Any

import jwt
import psutil
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from chappe.api.edge.v1 import client_frame_pb2
from chappe.api.identity.v1 import directory_service_pb2
from svc_edge.service.sign_in import ASK_AGAIN_S
from tests.svc_edge.client import BINARY, CLOSE, PING, TEXT, Client
from tests.svc_edge.conftest import Edge
from tests.svc_edge.fakes import KEY_ID, FakeMesh, Person, signed_hello
from tests.svc_edge.test_app import leap_until
from tests.svc_edge.test_ws import eventually

Connect = Callable[..., Client]
KIB_256 = 256 * 1024
CONTINUATION = 0


def nested(depth: int) -> bytes:
    """Returns a protobuf group inside a group, many times over."""
    return b"\x0b" * depth + b"\x0c" * depth


async def test_a_client_that_does_not_keep_the_contract_is_named_to_operators(
    connect: Connect, caplog: pytest.LogCaptureFixture
) -> None:
    client = connect()
    await client.request()
    anonymous = client_frame_pb2.AnonymousHello()
    client.send(hello=client_frame_pb2.Hello(protocol=1, anonymous=anonymous, user_agent="third-client/1"))
    await client.expect("welcome")

    client.write_frame(TEXT, b"{}")

    assert (await client.read_close()).code == 4400
    assert "calls itself 'third-client/1' does not keep the contract: 4400" in caplog.text


async def test_01_text_instead_of_binary(connect: Connect, mesh: FakeMesh) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())

    client.write_frame(TEXT, b'{"ping":{}}')

    closed = await client.read_close()
    assert (closed.code, "binary frames only" in closed.reason) == (4400, True)


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(os.urandom(40).replace(b"\x12", b"\xff") + b"\xff", id="random bytes"),
        pytest.param(b"\x1a\x7f\x08", id="truncated"),
        pytest.param(b"\x1d\x01\x02\x03", id="wrong wire type"),
        pytest.param(b"\x1a\x80\x80\x80\x80\x04" + b"\x08", id="1 GiB declared"),
        pytest.param(b"\x1a\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", id="varint overflow"),
        pytest.param(nested(5000), id="case 3: nested groups"),
    ],
)
async def test_02_03_bytes_that_are_no_frame(connect: Connect, mesh: FakeMesh, payload: bytes) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())
    before = psutil.Process().memory_info().rss

    client.write_frame(BINARY, payload)

    closed = await client.read_close()
    assert closed.code == 4400
    assert closed.go_away is not None
    assert "ClientFrame" in closed.go_away.detail
    assert psutil.Process().memory_info().rss - before < 50 * 2**20


async def test_04_a_frame_that_is_too_large(connect: Connect, mesh: FakeMesh) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())

    client.write_frame(BINARY, bytes(KIB_256 + 1))

    closed = await client.read_close()
    assert (closed.code, str(KIB_256) in closed.reason) == (4413, True)


async def test_04_a_declared_gigabyte_is_never_waited_for(connect: Connect, mesh: FakeMesh) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())

    client.write(bytes((0x82, 0xFF)) + (2**30).to_bytes(8, "big") + bytes(4))

    assert (await client.read_close()).code == 1009


async def test_04_a_message_in_many_fragments(connect: Connect, mesh: FakeMesh) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())

    for number in range(17):
        client.write_frame(BINARY if number == 0 else CONTINUATION, b"x", first=0)

    closed = await client.read_close()
    assert (closed.code, "16 fragments" in closed.reason) == (4400, True)


async def test_04_fragments_that_add_up_to_too_much(connect: Connect, mesh: FakeMesh) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())

    client.write_frame(BINARY, bytes(200_000), first=0)
    client.write_frame(CONTINUATION, bytes(100_000))

    assert (await client.read_close()).code == 4413


async def test_04_a_fragmented_message_that_never_ends(connect: Connect, mesh: FakeMesh, edge: Edge) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())

    client.write_frame(BINARY, b"x", first=0)
    client.write_frame(PING, b"still here")
    await client.expect("caught_up")
    edge.clock.leap(11)

    closed = await client.read_close()
    assert (closed.code, "fragmented" in closed.reason) == (4400, True)


async def test_a_message_in_two_fragments_is_taken(connect: Connect, mesh: FakeMesh) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())
    frame = client_frame_pb2.ClientFrame(ping=client_frame_pb2.Ping(client_ms=77)).SerializeToString()

    client.write_frame(BINARY, frame[:2], first=0)
    client.write_frame(PING, b"in between")
    client.write_frame(CONTINUATION, frame[2:])

    assert (await client.expect("pong")).client_ms == 77


@pytest.mark.parametrize(
    "write",
    [
        pytest.param(lambda client: client.write_frame(BINARY, b"x", is_masked=False), id="unmasked"),
        pytest.param(lambda client: client.write_frame(BINARY, b"x", first=0xC0), id="reserved bit of data"),
        pytest.param(lambda client: client.write_frame(PING, b"x", first=0x90), id="reserved bit of a ping"),
        pytest.param(lambda client: client.write_frame(3, b"x"), id="reserved opcode"),
        pytest.param(lambda client: client.write_frame(11, b"x"), id="reserved control opcode"),
        pytest.param(lambda client: client.write_frame(PING, bytes(126)), id="oversize control frame"),
        pytest.param(lambda client: client.write_frame(PING, b"x", first=0), id="fragmented control frame"),
        pytest.param(lambda client: client.write_frame(CONTINUATION, b"x"), id="continuation of nothing"),
        pytest.param(lambda client: client.write_frame(CLOSE, b"\x03\xed"), id="close code 1005"),
        pytest.param(lambda client: client.write_frame(CLOSE, b"\x13\x88"), id="close code 5000"),
        pytest.param(lambda client: client.write_frame(CLOSE, b"\x03"), id="close of one byte"),
    ],
)
async def test_05_what_rfc_6455_forbids(connect: Connect, mesh: FakeMesh, write: Callable[[Client], None]) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())

    write(client)

    assert (await client.read_close()).code == 1002


async def test_05_a_message_inside_a_fragmented_one(connect: Connect, mesh: FakeMesh) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())

    client.write_frame(BINARY, b"x", first=0)
    client.write_frame(BINARY, b"y")

    assert (await client.read_close()).code == 1002


async def test_06_compression_is_never_agreed(connect: Connect) -> None:
    client = connect()

    await client.request(Sec_WebSocket_Extensions="permessage-deflate")

    assert (client.status, "extensions" in client.head.lower()) == (101, False)


async def test_07_a_client_that_says_nothing(connect: Connect, edge: Edge) -> None:
    client = connect()
    await client.request()

    edge.clock.leap(6)

    closed = await client.read_close()
    assert (closed.code, "Hello within 5 seconds" in closed.reason) == (4002, True)


async def test_07_a_request_that_comes_by_the_byte(connect: Connect) -> None:
    client = connect()

    await client.dial()
    client.write(b"GET / HTTP/1.1\r\nHos")

    assert await client.read_message() is None


async def test_08_a_frame_before_hello(connect: Connect) -> None:
    client = connect()
    await client.request()

    client.say(1)

    closed = await client.read_close()
    assert (closed.code, "say Hello first" in closed.reason) == (4401, True)


@pytest.mark.parametrize("payload", [b"", b"\xf8\x07\x01", b"\x1a\x00", b"\x2a\x00"])
async def test_08_any_other_frame_before_hello(connect: Connect, payload: bytes) -> None:
    client = connect()
    await client.request()

    client.write_frame(BINARY, payload)

    assert (await client.read_close()).code == 4401


async def test_08_a_second_hello(connect: Connect, mesh: FakeMesh) -> None:
    client, alice = connect(), Person.new()
    await client.sign_in(mesh, alice)

    signed = signed_hello(mesh.token(alice), alice.key, client.host)
    client.send(hello=client_frame_pb2.Hello(protocol=1, signed=signed))

    closed = await client.read_close()
    assert (closed.code, "second Hello" in closed.reason) == (4400, True)


@pytest.mark.parametrize(
    "origin", ["https://evil.example.com", "null", "https://app.example.com.evil", "http://app.example.com"]
)
async def test_09_a_page_of_another_origin(connect: Connect, origin: str) -> None:
    client = connect()

    assert await client.request(Origin=origin) == 403
    assert "Origin" in client.body


@pytest.mark.parametrize("origin", ["", "https://app.example.com"])
async def test_09_no_origin_and_an_allowed_one_may_connect(connect: Connect, origin: str) -> None:
    assert await connect().request(Origin=origin) == 101


async def test_10_a_token_in_the_address_or_a_cookie_is_not_looked_at(
    connect: Connect, mesh: FakeMesh, caplog: pytest.LogCaptureFixture
) -> None:
    client, token = connect(), mesh.token(Person.new())
    caplog.set_level("DEBUG")

    await client.request(f"/?access_token={token}", Cookie=f"token={token}")
    client.say(1)

    assert (await client.read_close()).code == 4401
    assert token not in caplog.text


@pytest.mark.parametrize(
    "payload",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"\x52\x00", id="a frame with the next number"),
        pytest.param(b"\xfa\x07\x03abc", id="a frame of the future"),
        pytest.param(b"\x2a\x05\x08\x05\xf8\x07\x01", id="a field of the future in a ping"),
    ],
)
async def test_11_what_a_later_contract_may_send_is_ignored(connect: Connect, mesh: FakeMesh, payload: bytes) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())

    client.write_frame(BINARY, payload)

    assert (await client.ping()).client_ms == 5


@pytest.mark.parametrize(
    ("hello", "path"),
    [
        pytest.param({"user_agent": "a\x00b"}, "hello.user_agent", id="NUL"),
        pytest.param({"user_agent": "a\u202eb"}, "hello.user_agent", id="bidi override"),
        pytest.param({"user_agent": "\U0001f600" * 129}, "hello.user_agent", id="129 emoji"),
        pytest.param({"cursor": bytes(65)}, "hello.cursor", id="long cursor"),
        pytest.param({"receive_window": 5000}, "hello.receive_window", id="large window"),
        pytest.param({"protocol": 0}, "hello.protocol", id="no protocol"),
        pytest.param({"protocol": 2}, "hello.protocol", id="protocol of the future"),
    ],
)
async def test_12_a_field_that_breaks_its_limit_is_named(
    connect: Connect, mesh: FakeMesh, hello: dict[str, Any], path: str
) -> None:
    client, alice = connect(), Person.new()
    await client.request()

    signed = signed_hello(mesh.token(alice), alice.key, client.host)
    given: dict[str, Any] = {"protocol": 1, "signed": signed}
    client.send(hello=client_frame_pb2.Hello(**(given | hello)))

    closed = await client.read_close()
    assert closed.code == 4400
    assert closed.go_away is not None
    assert closed.go_away.detail.startswith(path)


async def test_12_text_that_is_not_utf8_and_an_emoji_at_the_limit(connect: Connect, mesh: FakeMesh) -> None:
    good, bad = connect(), connect()
    await bad.request()

    welcome = await good.sign_in(mesh, Person.new(), user_agent="\U0001f600" * 128)
    bad.write_frame(BINARY, b"\x0a\x06\x08\x01\x32\x02\xc3\x28")

    assert welcome.session_id
    closed = await bad.read_close()
    assert (closed.code, "UTF-8" in (closed.go_away.detail if closed.go_away else "")) == (4400, True)


async def test_12_ids_of_a_wrong_length_are_named(connect: Connect, mesh: FakeMesh) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())

    client.send(ack=client_frame_pb2.Ack(message_ids=[bytes(16), bytes(17)]))

    closed = await client.read_close()
    assert (closed.code, closed.reason.startswith("ack.message_ids[1]")) == (4400, True)


async def test_47_an_ack_of_items_that_were_never_sent(connect: Connect, mesh: FakeMesh) -> None:
    client = connect()
    await client.sign_in(mesh, Person.new())

    client.ack(7)

    closed = await client.read_close()
    assert (closed.code, "ack.count is 7" in closed.reason) == (4400, True)


async def say_hello(client: Client, signed: client_frame_pb2.SignedHello) -> int:
    """Says Hello; returns the code with which the edge closed, 0 when it let the client in."""
    await client.request()
    client.send(hello=client_frame_pb2.Hello(protocol=1, signed=signed))
    frame = await client.read()
    assert frame is not None
    if frame.HasField("welcome"):
        return 0
    assert frame.go_away.detail
    return (await client.read_close()).code


NOW = int(time.time())
BAD_CLAIMS: list[Any] = [
    pytest.param({"exp": NOW - 1}, id="expired"),
    pytest.param({"nbf": NOW + 600}, id="not yet valid"),
    pytest.param({"aud": "other"}, id="wrong audience"),
    pytest.param({"iss": "other"}, id="wrong issuer"),
    pytest.param({"kid": "key-2"}, id="unknown key"),
    pytest.param({"kid": "../../etc/passwd"}, id="path in the key id"),
    pytest.param({"kid": 7}, id="key id is a number"),
    pytest.param({"sub": "zz"}, id="no user"),
    pytest.param({"did": "1"}, id="device is text"),
    pytest.param({"cnf": {}}, id="no device key"),
    pytest.param({"sid": None}, id="no session"),
]


@pytest.mark.parametrize("claims", BAD_CLAIMS)
async def test_19_20_tokens_that_do_not_hold(connect: Connect, mesh: FakeMesh, claims: dict[str, Any]) -> None:
    client, alice = connect(), Person.new()
    token = mesh.token(alice, **claims) if claims.get("kid") != 7 else bare({"alg": "EdDSA", "kid": 7}, {}, b"x")

    assert await say_hello(client, signed_hello(token, alice.key, client.host)) == 4401
    assert client.go_away is not None
    assert "INVALID_TOKEN" in client.go_away.detail


def bare(header: dict[str, Any], claims: dict[str, Any], signature: bytes) -> str:
    parts = [json.dumps(header).encode(), json.dumps(claims).encode(), signature]
    return ".".join(base64.urlsafe_b64encode(part).rstrip(b"=").decode() for part in parts)


def forgeries(mesh: FakeMesh, alice: Person) -> dict[str, str]:
    """Returns the token of somebody with all rights, forged in every known way."""
    claims = jwt.decode(mesh.token(alice), options={"verify_signature": False})
    public = mesh.signing_key.public_key().public_bytes_raw()
    head = {"alg": "HS256", "kid": KEY_ID}
    unsigned = bare(head, claims, b"").removesuffix(".")
    return {
        "none": bare({"alg": "none", "kid": KEY_ID}, claims, b""),
        "hmac": bare(head, claims, hmac.digest(public, unsigned.encode(), hashlib.sha256)),
        "empty": bare({"alg": "EdDSA", "kid": KEY_ID}, claims, b""),
        "other key": mesh.token(alice, signed_by=Ed25519PrivateKey.generate()),
        "not a token": "x.y.z",
    }


@pytest.mark.parametrize("way", ["none", "hmac", "empty", "other key", "not a token"])
async def test_20_forged_tokens(connect: Connect, mesh: FakeMesh, way: str) -> None:
    client, alice = connect(), Person.new()

    assert await say_hello(client, signed_hello(forgeries(mesh, alice)[way], alice.key, client.host)) == 4401


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"timestamp_ms": int((time.time() - 3600) * 1000)}, id="an hour old"),
        pytest.param({"timestamp_ms": int((time.time() + 3600) * 1000)}, id="an hour ahead"),
        pytest.param({"timestamp_ms": -(2**63)}, id="before the epoch"),
        pytest.param({"host": "other.example.com"}, id="for another host"),
    ],
)
async def test_21_proofs_for_another_time_or_place(connect: Connect, mesh: FakeMesh, changes: dict[str, Any]) -> None:
    client, alice = connect(), Person.new()
    signed = signed_hello(mesh.token(alice), alice.key, **({"host": client.host} | changes))

    assert await say_hello(client, signed) == 4401
    assert client.go_away is not None
    assert "INVALID_PROOF" in client.go_away.detail


async def test_21_a_proof_of_61_seconds_ago(connect: Connect, mesh: FakeMesh) -> None:
    client, alice = connect(), Person.new()
    signed = signed_hello(mesh.token(alice), alice.key, client.host, timestamp_ms=int((time.time() - 61) * 1000))

    assert await say_hello(client, signed) == 4401


async def test_21_a_proof_by_another_device(connect: Connect, mesh: FakeMesh) -> None:
    client, alice = connect(), Person.new()

    assert await say_hello(client, signed_hello(mesh.token(alice), Person.new().key, client.host)) == 4401


async def test_21_a_proof_that_is_replayed(connect: Connect, mesh: FakeMesh) -> None:
    client, again, alice = connect(), connect(), Person.new()
    signed = signed_hello(mesh.token(alice), alice.key, client.host)

    assert await say_hello(client, signed) == 0
    assert await say_hello(again, signed) == 4401
    assert await client.ping()


async def test_21_a_proof_that_another_edge_has_seen(connect: Connect, mesh: FakeMesh) -> None:
    client, alice = connect(), Person.new()
    signed = signed_hello(mesh.token(alice), alice.key, client.host)
    mesh.nonces[signed.nonce] = 1

    assert await say_hello(client, signed) == 4401
    assert client.go_away is not None
    assert "INVALID_PROOF" in client.go_away.detail


def revoked(alice: Person, *, is_unlinked: bool) -> directory_service_pb2.DirectoryChange:
    kind = directory_service_pb2.DIRECTORY_CHANGE_KIND_SESSION_REVOKED
    change = directory_service_pb2.DirectoryChange(kind=kind, user_id=alice.user_id, device_id=alice.device_id)
    if is_unlinked:
        change.kind = directory_service_pb2.DIRECTORY_CHANGE_KIND_DEVICES
    else:
        change.session_id = alice.sign_in_id
    return change


@pytest.mark.parametrize("is_unlinked", [False, True])
async def test_22_a_session_that_is_revoked(connect: Connect, mesh: FakeMesh, *, is_unlinked: bool) -> None:
    client, again, alice = connect(), connect(), Person.new()
    token = mesh.token(alice)
    await client.sign_in(mesh, alice)
    if is_unlinked:
        mesh.generations[Person.new().user_id, 9] = mesh.generations.pop((alice.user_id, alice.device_id))
    begun = time.monotonic()

    mesh.changes.put_nowait(revoked(alice, is_unlinked=is_unlinked))

    assert (await client.read_close()).code == 4401
    assert time.monotonic() - begun < 2
    assert await say_hello(again, signed_hello(token, alice.key, again.host)) == 4401
    assert again.go_away is not None
    assert "SESSION_REVOKED" in again.go_away.detail


async def test_22_a_token_that_was_revoked_before_the_edge_started(connect: Connect, mesh: FakeMesh) -> None:
    client, alice = connect(), Person.new()
    token = mesh.token(alice, iat=NOW - 300)
    mesh.generations[alice.user_id, alice.device_id] = 2

    assert await say_hello(client, signed_hello(token, alice.key, client.host)) == 4401
    assert client.go_away is not None
    assert "SESSION_REVOKED" in client.go_away.detail


async def test_22_a_revoked_token_that_could_not_be_looked_up_is_looked_up_until_there_is_an_answer(
    connect: Connect, mesh: FakeMesh, edge: Edge
) -> None:
    client, other, alice, bob = connect(), connect(), Person.new(), Person.new()
    revoked_token, valid_token = mesh.token(alice, iat=NOW - 300), mesh.token(bob, iat=NOW - 300)
    mesh.generations[alice.user_id, alice.device_id] = 2
    mesh.identity_is_up = False
    assert await say_hello(client, signed_hello(revoked_token, alice.key, client.host)) == 0
    assert await say_hello(other, signed_hello(valid_token, bob.key, other.host)) == 0
    asked = mesh.refused_questions
    edge.clock.leap(ASK_AGAIN_S)
    await eventually(lambda: mesh.refused_questions > asked, "svc_identity was asked again")

    mesh.identity_is_up = True
    closed = await leap_until(asyncio.create_task(client.read_close()), edge, client)

    assert closed.code == 4401
    assert closed.go_away is not None
    assert "SESSION_REVOKED" in closed.go_away.detail
    assert await other.ping()


@pytest.fixture
def hears_late(mesh: FakeMesh) -> None:
    """Lets an edge that is made after this hear of no changes yet."""
    mesh.tells_changes.clear()


@pytest.mark.usefixtures("hears_late")
async def test_22_a_token_that_was_revoked_before_the_edge_heard_of_changes_is_looked_up_again(
    mesh: FakeMesh, connect: Connect, edge: Edge
) -> None:
    client, alice = connect(), Person.new()
    assert await say_hello(client, signed_hello(mesh.token(alice), alice.key, client.host)) == 0
    mesh.generations[alice.user_id, alice.device_id] = 2

    mesh.tells_changes.set()
    closed = await leap_until(asyncio.create_task(client.read_close()), edge, client)

    assert closed.code == 4401


async def test_23_a_token_of_one_device_with_the_key_of_another(connect: Connect, mesh: FakeMesh) -> None:
    client, alice, bob = connect(), Person.new(), Person.new(device_id=2)
    swapped = mesh.token(alice, signed_by=bob.key, did=bob.device_id)

    assert await say_hello(client, signed_hello(swapped, bob.key, client.host)) == 4401


@pytest.mark.parametrize(
    ("target", "headers", "status"),
    [
        pytest.param("/", {"Upgrade": ""}, 426, id="no upgrade"),
        pytest.param("/", {"Connection": "keep-alive"}, 426, id="no connection header"),
        pytest.param("/", {"Sec_WebSocket_Version": "8"}, 426, id="old version"),
        pytest.param("/", {"Sec_WebSocket_Protocol": ""}, 400, id="no sub-protocol"),
        pytest.param("/", {"Sec_WebSocket_Protocol": "chat"}, 400, id="unknown sub-protocol"),
        pytest.param("/", {"Sec_WebSocket_Key": "short"}, 400, id="bad key"),
        pytest.param("/", {"Host": ""}, 400, id="no host"),
        pytest.param("/admin", {}, 404, id="unknown path"),
        pytest.param("/healthz", {"Upgrade": ""}, 200, id="health"),
    ],
)
async def test_16_upgrades_that_are_refused(
    connect: Connect, target: str, headers: dict[str, str], status: int
) -> None:
    client = connect()

    assert await client.request(target, **headers) == status
    assert client.body
