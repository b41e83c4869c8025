"""What people may not do to the accounts of others, and what strings may hold, by the list of attacks."""

import asyncio
import secrets
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from chappe.api.edge.v1 import client_frame_pb2
from chappe.api.identity.v1 import (
    block_service_pb2,
    contact_service_pb2,
    device_service_pb2,
    profile_service_pb2,
    registration_service_pb2,
    session_service_pb2,
)
from chappe.api.presence.v1 import presence_service_pb2, presence_service_pb2_grpc
from chappe.cli.launcher import Mesh
from chappe.client import methods
from chappe.client.device import DeviceKey
from chappe.client.door import Door
from chappe.client.errors import RefusedError
from chappe.client.registration import enrol, join
from chappe.client.seams import system_seams
from chappe.runtime.errors import from_rpc_error
from tests.system.bad_input.conftest import Dial, Newcomer
from tests.system.bad_input.people import Person, reason_of

pytestmark = pytest.mark.system

PROFILE = profile_service_pb2.GetProfileRequest
UPDATE = profile_service_pb2.UpdateProfileRequest


def claiming(user_id: bytes) -> bytes:
    """Returns a field that no contract has, with somebody's id: fields 15 and 100."""
    return b"\x7a\x10" + user_id + b"\xa2\x06\x10" + user_id


OWN_LISTS: list[Any] = [
    methods.LIST_BLOCKS,
    methods.LIST_CONTACTS,
    methods.LIST_DEVICES,
    methods.LIST_SESSIONS,
    methods.LIST_CONVERSATIONS,
]


@pytest.mark.parametrize("method", OWN_LISTS, ids=lambda method: method.name.rpartition("/")[2])
async def test_38_lists_are_the_callers_own_whoever_else_is_named(
    alice: Person, bob: Person, mallory: Person, method: Any
) -> None:
    await alice.call(methods.BLOCK_USER, block_service_pb2.BlockUserRequest(user_id=mallory.user_id))
    await alice.call(methods.ADD_CONTACT, contact_service_pb2.AddContactRequest(phone_number="+12125550001"))
    await alice.say(bob)
    own = await mallory.call(method, method.question())

    result = await mallory.attempt(method.name, claiming(alice.user_id))

    assert method.answer.FromString(result.payload) == own
    assert alice.session_id not in result.payload


@pytest.mark.parametrize(
    ("method", "request_"),
    [
        (methods.UPDATE_PROFILE, UPDATE(profile_name="Mallory was here", about="x")),
        (methods.ADD_CONTACT, contact_service_pb2.AddContactRequest(phone_number="+12125550009", contact_name="x")),
        (methods.BLOCK_USER, block_service_pb2.BlockUserRequest(user_id=bytes(16))),
        (methods.UNLINK_DEVICE, device_service_pb2.UnlinkDeviceRequest(device_id=7)),
        (methods.REVOKE_SESSION, session_service_pb2.RevokeSessionRequest(device_id=7)),
    ],
    ids=lambda value: value.name.rpartition("/")[2] if hasattr(value, "name") else "",
)
async def test_38_changes_are_of_the_callers_own_account_whoever_else_is_named(
    alice: Person, mallory: Person, method: Any, request_: Any
) -> None:
    before = [await alice.call(one, one.question()) for one in (*OWN_LISTS, methods.GET_PROFILE)]

    await mallory.attempt(method.name, request_.SerializeToString() + claiming(alice.user_id))

    assert [await alice.call(one, one.question()) for one in (*OWN_LISTS, methods.GET_PROFILE)] == before


async def test_38_a_session_of_another_user_does_not_exist(alice: Person, mallory: Person) -> None:
    request = session_service_pb2.RevokeSessionRequest(session_id=alice.session_id)

    error = await mallory.refusal(methods.REVOKE_SESSION, request)

    assert (error.code, reason_of(error)) == (5, "SESSION_NOT_FOUND")
    assert "session" in error.detail
    assert await alice.client.ping()


async def test_38_a_stranger_sees_a_name_and_nothing_else(alice: Person, mallory: Person) -> None:
    await alice.call(methods.UPDATE_PROFILE, UPDATE(profile_name="Alice", about="at home"))

    profile = (await mallory.call(methods.GET_PROFILE, PROFILE(user_id=alice.user_id))).profile

    assert (profile.profile_name, profile.about, profile.phone_number) == ("Alice", "", "")


SHORT = [
    pytest.param("'; DROP TABLE users; --", id="drop"),
    pytest.param("' OR '1'='1", id="or"),
    pytest.param('"; TRUNCATE messages; --', id="quote"),
    pytest.param("\\'; SELECT pg_sleep(9); --", id="backslash"),
    pytest.param("$1 $$ %s %(name)s {0} ${HOME}", id="placeholders"),
    pytest.param("%' ESCAPE '_", id="pattern"),
    pytest.param("*\\r\\nDEL x; return redis.call('FLUSHALL')", id="redis"),
    pytest.param("\U0001f468\u200d\U0001f469\u200d\U0001f467 \u05d0\u0301", id="joined emoji"),
]
REFUSED_LINES = [
    pytest.param("x" * 10_240, "has 10240 characters, the most is", id="10 KB"),
    pytest.param("a\x00b", "must be one line without control characters", id="NUL"),
    pytest.param("a\r\nb", "must be one line without control characters", id="line break"),
    pytest.param("a\u202eb", "must be one line without control characters", id="bidi override"),
]


@pytest.mark.parametrize("text", SHORT)
async def test_40_names_are_stored_as_they_are(alice: Person, bob: Person, text: str) -> None:
    contact = contact_service_pb2.AddContactRequest(phone_number="+12125550001", contact_name=text)

    await alice.call(methods.UPDATE_PROFILE, UPDATE(profile_name=text, about=text))
    await alice.call(methods.ADD_CONTACT, contact)
    await alice.say(bob, text.encode())

    own = (await alice.call(methods.GET_PROFILE, PROFILE())).profile
    seen = (await bob.call(methods.GET_PROFILE, PROFILE(user_id=alice.user_id))).profile
    [kept] = (await alice.call(methods.LIST_CONTACTS, contact_service_pb2.ListContactsRequest())).contacts
    [said] = await bob.history(alice)
    assert (own.about, own.profile_name, seen.profile_name, kept.contact_name) == (text,) * 4
    assert said.message.envelope.content.decode() == text


@pytest.mark.parametrize(("text", "words"), REFUSED_LINES)
@pytest.mark.parametrize("field", ["profile_name", "about", "contact_name"])
async def test_40_lines_that_cannot_be_stored_are_refused_by_name(
    alice: Person, field: str, text: str, words: str
) -> None:
    if field == "contact_name":
        request: Any = contact_service_pb2.AddContactRequest(phone_number="+12125550001", contact_name=text)
        error = await alice.refusal(methods.ADD_CONTACT, request)
    else:
        named: dict[str, Any] = {field: text}
        error = await alice.refusal(methods.UPDATE_PROFILE, UPDATE(**named))

    assert (error.code, reason_of(error), error.metadata["field"]) == (3, "INVALID_FIELD", field)
    assert error.detail.startswith(f"{field}: {words}")


@pytest.mark.parametrize("name", ["", " ", "\u00a0\u2003", "\u200b\u2060", "\u3164"])
async def test_40_a_name_that_nobody_can_see_is_refused(alice: Person, name: str) -> None:
    error = await alice.refusal(methods.UPDATE_PROFILE, UPDATE(profile_name=name))

    assert (error.code, reason_of(error), error.metadata["field"]) == (3, "INVALID_FIELD", "profile_name")


@pytest.mark.parametrize("payload", [b"\xff" * 40, b"\x0a\x7f", b"\x0a\x02\xc3\x28"], ids=["noise", "cut", "no UTF-8"])
async def test_40_a_request_that_is_none_is_refused(alice: Person, payload: bytes) -> None:
    error = (await alice.attempt(methods.UPDATE_PROFILE.name, payload)).error

    assert (error.code, reason_of(error)) == (3, "MALFORMED")
    assert "UpdateProfile" in error.detail


@pytest.mark.parametrize("text", [*SHORT, pytest.param("x" * 10_240, id="10 KB")])
async def test_40_numbers_codes_and_methods_are_never_anything_else(alice: Person, text: str) -> None:
    tries: list[tuple[Any, Any, str]] = [
        (methods.ADD_CONTACT, contact_service_pb2.AddContactRequest(phone_number=text), "phone_number"),
        (methods.REMOVE_CONTACT, contact_service_pb2.RemoveContactRequest(phone_number=text), "phone_number"),
        (methods.LOOKUP_CONTACTS, contact_service_pb2.LookupContactsRequest(phone_numbers=[text]), "phone_numbers[0]"),
        (methods.LIST_CONTACTS, contact_service_pb2.ListContactsRequest(page_token=text), "page_token"),
        (methods.LIST_BLOCKS, block_service_pb2.ListBlocksRequest(page_token=text), "page_token"),
    ]

    errors = [await alice.refusal(method, request) for method, request, _ in tries]

    assert [error.code for error in errors] == [3] * len(tries)
    assert [error.detail.partition(" ")[0].removesuffix(":") for error in errors] == [field for _, _, field in tries]


@pytest.mark.parametrize("text", SHORT)
async def test_40_a_method_that_is_none_is_named(alice: Person, text: str) -> None:
    result = await alice.attempt(text, b"")

    assert (result.error.code, reason_of(result.error)) == (7, "METHOD_NOT_ALLOWED")
    assert result.error.detail == f"{text} does not exist or is not open to clients"


async def test_40_a_method_of_10_kb_ends_the_connection_by_its_limit(alice: Person) -> None:
    alice.client.send(call=client_frame_pb2.Call(id=1, method="x" * 10_240))

    closed = await alice.client.read_close()
    assert (closed.code, closed.reason[:40]) == (4400, "call.method: has 10240 characters, the m")


@pytest.mark.parametrize("field", ["phone_number", "code", "link_code", "profile_name"])
@pytest.mark.parametrize("text", ["'; DROP TABLE users; -- \x00", "x" * 10_240], ids=["SQL", "10 KB"])
async def test_40_whoever_is_not_signed_in_gets_no_further_with_strings(mesh: Mesh, field: str, text: str) -> None:
    check = registration_service_pb2.CheckVerificationRequest(verification_id=bytes(16), code=text)
    start = registration_service_pb2.StartVerificationRequest(phone_number=text)
    tries: dict[str, Callable[[Door], Awaitable[Any]]] = {
        "phone_number": lambda door: door.call(methods.START_VERIFICATION, start),
        "code": lambda door: door.call(methods.CHECK_VERIFICATION, check),
        "link_code": lambda door: join(door, text),
        "profile_name": lambda door: enrol(door, "+12125550003", text),
    }

    async with Door(mesh.ws[0], system_seams()) as door:
        with pytest.raises(RefusedError) as caught:
            await tries[field](door)

    assert caught.value.reason == "INVALID_FIELD"
    assert f"{field}: " in str(caught.value)


@pytest.mark.parametrize("text", SHORT)
async def test_40_a_link_code_and_a_platform_hold_anything_and_do_nothing(mesh: Mesh, alice: Person, text: str) -> None:
    made = await alice.call(methods.START_LINK, device_service_pb2.StartLinkRequest())
    key = DeviceKey.generate()
    request = device_service_pb2.LinkDeviceRequest(
        link_code=made.link_code, device_public_key=key.public, platform=text, proof=key.link_proof(made.link_code)
    )
    wrong = device_service_pb2.LinkDeviceRequest(
        link_code="'; DROP TABLE; "[:16], device_public_key=key.public, proof=bytes(64)
    )

    async with Door(mesh.ws[0], system_seams()) as door:
        await door.call(methods.LINK_DEVICE, request)
        with pytest.raises(RefusedError) as caught:
            await door.call(methods.LINK_DEVICE, wrong)

    assert caught.value.reason == "LINK_CODE_NOT_FOUND"
    devices = (await alice.call(methods.LIST_DEVICES, device_service_pb2.ListDevicesRequest())).devices
    assert text in [device.platform for device in devices]


@pytest.mark.parametrize(("text", "is_refused"), [("*\r\nFLUSHALL\r\n", False), ("x" * 10_240, True)])
async def test_40_an_address_of_an_edge_holds_anything_or_is_refused(
    mesh: Mesh, dial: Dial, text: str, *, is_refused: bool
) -> None:
    stub: Any = presence_service_pb2_grpc.PresenceServiceStub(dial("presence", mesh.tls("svc-fanout")))
    gone = presence_service_pb2.Route(user_id=bytes(16), device_id=1, session_id=1, boot_id=1, edge_id=text)
    request = presence_service_pb2.LocateRequest(user_ids=[bytes(16)], gone=[gone])

    if is_refused:
        with pytest.raises(Exception, match="INVALID_ARGUMENT") as caught:
            await stub.Locate(request)
        error = from_rpc_error(caught.value)  # type: ignore[arg-type]  # grpc raises nothing else
        assert error.message == "gone[0].edge_id: has 10240 characters, the most is 255"
    else:
        assert list((await stub.Locate(request)).edge_ids) == []


async def say_hello_again(person: Person) -> tuple[int, str]:
    """Tries the same token on a new connection; returns the close code and what the edge said."""
    client = await person.connect()
    closed = await client.read_close()
    return closed.code, closed.go_away.detail if closed.go_away else ""


@pytest.mark.parametrize("way", ["session", "device", "unlink", "registered again"])
async def test_22_a_token_is_worth_nothing_after_it_was_taken_away(
    mesh: Mesh, alice: Person, newcomer: Newcomer, way: str
) -> None:
    phone = (await alice.call(methods.GET_PROFILE, PROFILE())).profile.phone_number
    device_id = alice.device.device_id
    tries: dict[str, tuple[Any, Any]] = {
        "session": (
            methods.REVOKE_SESSION,
            session_service_pb2.RevokeSessionRequest(session_id=alice.session_id),
        ),
        "device": (methods.REVOKE_SESSION, session_service_pb2.RevokeSessionRequest(device_id=device_id)),
        "unlink": (methods.UNLINK_DEVICE, device_service_pb2.UnlinkDeviceRequest(device_id=device_id)),
    }

    begun_s = time.monotonic()
    if way in tries:
        method, request = tries[way]
        alice.client.send(call=client_frame_pb2.Call(id=99, method=method.name, payload=request.SerializeToString()))
    else:
        await Person.register(mesh.ws[0], phone)
        begun_s = time.monotonic()

    async with asyncio.timeout(2):
        closed = await alice.client.read_close()
    assert (closed.code, time.monotonic() - begun_s < 2) == (4401, True)
    assert closed.go_away is not None
    assert closed.go_away.detail
    code, detail = await say_hello_again(alice)
    assert (code, detail.partition(":")[0]) == (4401, "SESSION_REVOKED")


async def test_22_a_device_that_another_revokes_on_another_edge_is_out_on_both(mesh: Mesh, alice: Person) -> None:
    made = await alice.call(methods.START_LINK, device_service_pb2.StartLinkRequest())
    async with Door(mesh.ws[1], system_seams()) as door:
        device = await join(door, made.link_code)
        async with Person(device, mesh.ws[1]) as second, Person(alice.device, mesh.ws[1]) as elsewhere:
            await second.take_token(door)
            await second.sign_in()
            elsewhere.token = alice.token

            await second.call(methods.REVOKE_SESSION, revocation(alice))

            async with asyncio.timeout(2):
                assert (await alice.client.read_close()).code == 4401
            for one in (alice, elsewhere):
                code, detail = await say_hello_again(one)
                assert (code, detail.partition(":")[0]) == (4401, "SESSION_REVOKED")
            assert await second.client.ping()


def revocation(person: Person) -> session_service_pb2.RevokeSessionRequest:
    return session_service_pb2.RevokeSessionRequest(device_id=person.device.device_id)


async def test_22_a_revoked_device_may_sign_in_again_and_an_unlinked_one_not(mesh: Mesh, alice: Person) -> None:
    unlink = device_service_pb2.UnlinkDeviceRequest(device_id=alice.device.device_id)

    assert await last_call(alice, methods.REVOKE_SESSION, revocation(alice)) == 4401
    async with Door(mesh.ws[0], system_seams()) as door:
        await alice.take_token(door)
        await alice.sign_in()
        assert await last_call(alice, methods.UNLINK_DEVICE, unlink) == 4401
        with pytest.raises(RefusedError) as caught:
            await alice.take_token(door)

    assert caught.value.reason == "DEVICE_NOT_FOUND"


async def last_call(person: Person, method: Any, request: Any) -> int:
    """Makes the call that ends the session; returns the close code, since the answer may come too late."""
    person.client.send(call=client_frame_pb2.Call(id=99, method=method.name, payload=request.SerializeToString()))
    return (await person.client.read_close()).code


@pytest.mark.parametrize("timestamp_ms", [-1, 0, 1, 32_503_680_000_000, 2**63 - 1])
async def test_43_a_sign_in_of_another_time_is_refused(mesh: Mesh, alice: Person, timestamp_ms: int) -> None:
    request = alice.device.session_request(max(timestamp_ms, 0), secrets.token_bytes(16))
    request.timestamp_ms = timestamp_ms

    async with Door(mesh.ws[0], system_seams()) as door:
        with pytest.raises(RefusedError) as caught:
            await door.call(methods.CREATE_SESSION, request)

    expected = "INVALID_PROOF" if timestamp_ms > 0 else "INVALID_FIELD"
    assert (caught.value.reason, "time" in str(caught.value)) == (expected, True)
